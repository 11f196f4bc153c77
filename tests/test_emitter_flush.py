"""Explicit flushes, flushes by timer, and closing."""

import logging
import threading
import time

import pytest
from support import PATIENCE_SECONDS, eids, eventually, is_balanced, numbered, own_threads, with_manual_timers

from snowplow_tracker import AsyncEmitter, Emitter, InMemoryEventStore
from snowplow_tracker.testing import Answer

both = pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
both_methods = pytest.mark.parametrize("method", ["post", "get"])


def fill(emitter, count, start=0):
    for payload in numbered(count, start):
        emitter.input(payload)


@both
@both_methods
def test_sync_flush_returns_when_all_has_been_sent(collector, emitter_class, method):
    """Nothing waits and nothing is in flight any more, and the order is kept."""
    emitter = emitter_class(collector.url, method=method, batch_size=1_000, max_request_bytes=500)
    fill(emitter, 40)

    emitter.sync_flush()

    assert eids(collector.payloads) == [str(number) for number in range(40)]
    assert (emitter.stats().buffered, emitter.stats().in_flight) == (0, 0)


@both
@both_methods
def test_sync_flush_makes_an_attempt_during_a_backoff(collector, emitter_class, method):
    """Who asks for a flush gets one, whatever the retry timer says."""
    emitter = with_manual_timers(emitter_class(collector.url, method=method, batch_size=10))
    collector.respond_with(503)
    fill(emitter, 1)
    emitter.sync_flush()

    emitter.sync_flush()

    assert [request.status for request in collector.requests] == [503, 200]


@both
def test_sync_flush_makes_one_attempt_only(collector, emitter_class):
    """A sick collector is not asked again and again."""
    emitter = with_manual_timers(emitter_class(collector.url, batch_size=100, max_request_bytes=200))
    collector.respond_always(503)
    fill(emitter, 10)

    emitter.sync_flush()

    assert len(collector.requests) == 1


@both
@both_methods
def test_flush_with_timeout_goes_on_until_all_is_out(collector, emitter_class, method):
    """At the backoff's pace, what fails is tried again."""
    emitter = emitter_class(collector.url, method=method, batch_size=100, max_retry_delay_seconds=0.1)
    collector.respond_with(503, 503, 503)
    fill(emitter, 3)

    emitter.sync_flush(timeout=PATIENCE_SECONDS)

    assert sorted(eids(collector.payloads)) == ["0", "1", "2"]
    assert emitter.stats().delivered == 3


@both
@both_methods
def test_flush_with_timeout_gives_up_when_time_is_up(collector, emitter_class, method):
    """A collector that never answers holds nobody up for longer."""
    never = threading.Event()
    collector.respond_always(Answer(hold=never))
    emitter = with_manual_timers(emitter_class(collector.url, method=method, batch_size=100))
    fill(emitter, 2)

    emitter.sync_flush(timeout=0.2)

    assert len(collector.requests) <= 1
    assert is_balanced(emitter)
    assert emitter.stats().delivered == 0
    never.set()
    collector.respond_always(200)
    assert emitter.close(timeout=PATIENCE_SECONDS)


@both
def test_flush_with_timeout_keeps_the_backoffs_pace(collector, emitter_class):
    """While the backoff lasts, waiting makes no requests."""
    emitter = emitter_class(collector.url, batch_size=100, max_retry_delay_seconds=60)
    collector.respond_always(Answer(503, headers={"Retry-After": "50"}))
    fill(emitter, 2)

    emitter.sync_flush(timeout=0.3)

    assert len(collector.requests) <= 1
    emitter.retry_timer.cancel()


@both
def test_flush_without_time_sends_nothing(collector, emitter_class):
    """A timeout of 0 has nothing sent in this thread, and returns."""
    emitter = emitter_class("collector.example.com", batch_size=100)
    senders = []
    emitter.http_post = lambda data: senders.append(threading.current_thread()) or 200
    fill(emitter, 1)

    emitter.sync_flush(timeout=0)

    assert threading.current_thread() not in senders
    assert is_balanced(emitter)
    assert emitter.close()


@both
@pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), ("1", TypeError), (True, TypeError)])
def test_timeouts_are_checked(emitter_class, timeout, error):
    """A wrong timeout is an error at the line that gave it."""
    emitter = emitter_class("collector.example.com")

    with pytest.raises(error, match="timeout must"):
        emitter.sync_flush(timeout=timeout)
    with pytest.raises(error, match="timeout must"):
        emitter.close(timeout=timeout)


def test_time_that_runs_out_between_requests_holds_the_rest_back(collector, monkeypatch):
    """Payloads that no time was left for wait again, without counting as retries."""
    emitter = Emitter(collector.url, batch_size=100, max_request_bytes=200)
    now = time.monotonic()
    fill(emitter, 10)

    with monkeypatch.context() as patch:

        def post_and_let_time_pass(data):
            patch.setattr("time.monotonic", lambda: now + 100)
            return 200

        emitter.http_post = post_and_let_time_pass
        emitter.sync_flush(timeout=50)

    stats = emitter.stats()
    assert 0 < stats.delivered < 10
    assert stats.buffered == 10 - stats.delivered
    assert stats.retries == 0
    assert not emitter.retry_timer.is_active()


def test_time_that_runs_out_between_gets_holds_the_rest_back(monkeypatch):
    """The same for GET."""
    emitter = Emitter("collector.example.com", method="get", batch_size=100)
    now = time.monotonic()
    fill(emitter, 3)

    with monkeypatch.context() as patch:

        def get_and_let_time_pass(payload):
            patch.setattr("time.monotonic", lambda: now + 100)
            return 200

        emitter.http_get = get_and_let_time_pass
        emitter.sync_flush(timeout=50)

    assert eids(emitter.event_store.event_buffer) == ["1", "2"]


def test_flush_of_a_store_that_gives_a_little_at_a_time():
    """All that waited is tried, however many hand-outs that takes; what comes meanwhile is not waited for."""

    class Niggard(InMemoryEventStore):
        def get_events_batch(self):
            return super().get_events_batch(limit=3)

    emitter = Emitter("collector.example.com", batch_size=100, event_store=Niggard())
    sent = []

    def post_and_track(data):
        emitter.input({"eid": "new"})
        return 200

    emitter.http_post = post_and_track
    emitter.on_success = lambda delivered: sent.append(len(delivered))
    fill(emitter, 8)
    emitter.sync_flush()

    assert sent == [3, 3, 3]
    assert emitter.stats().buffered == 2


def test_store_that_has_nothing_to_give_ends_the_flush():
    """A store whose payloads are with other processes does not make a flush spin."""

    class Promising(InMemoryEventStore):
        def get_events_batch(self):
            return []

    emitter = Emitter("collector.example.com", batch_size=100, event_store=Promising())
    fill(emitter, 2)

    emitter.sync_flush()

    assert emitter.stats().buffered == 2


def test_store_that_fails_to_give_is_logged(caplog):
    """A flush does not raise because of the store."""

    class Broken(InMemoryEventStore):
        def get_events_batch(self):
            raise OSError("disk is gone")

    emitter = Emitter("collector.example.com", batch_size=100, event_store=Broken())
    fill(emitter, 2)

    emitter.sync_flush()

    assert "The event store failed to hand out payloads" in caplog.text
    assert "disk is gone" in caplog.text


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
def test_log_handler_may_track_when_the_store_fails(emitter_class):
    """No log line is written under the lock, so a handler may do what takes it, in another thread too."""
    free = []

    class Broken(InMemoryEventStore):
        def get_events_batch(self):
            raise OSError("disk is gone")

    def try_lock():
        free.append(emitter.lock.acquire(timeout=5))
        if free[-1]:
            emitter.lock.release()

    class Handler(logging.Handler):
        def emit(self, record):
            thread = threading.Thread(target=try_lock, daemon=True)
            thread.start()
            thread.join()

    emitter = emitter_class("collector.example.com", batch_size=100, event_store=Broken())
    fill(emitter, 2)
    handler = Handler(logging.ERROR)
    logging.getLogger("snowplow_tracker").addHandler(handler)
    try:
        emitter.sync_flush()
    finally:
        logging.getLogger("snowplow_tracker").removeHandler(handler)

    assert free == [True]


def test_sync_flush_tries_what_another_ones_time_was_too_short_for():
    """A flush with a time limit gives back what it has taken and not tried; one that waits for it takes that over."""
    has_begun = threading.Event()

    class Sending(Emitter):
        sent = ()

        def http_get(self, payload):
            self.sent += (payload["eid"],)
            has_begun.set()
            if payload["eid"] == "0":
                eventually(lambda: self._ledger.changed._waiters)
                eventually(self._is_time_up)
            return 200

    emitter = Sending("collector.example.com", method="get", batch_size=100)
    for payload in numbered(3):
        emitter.input(payload)
    in_a_hurry = threading.Thread(target=emitter.sync_flush, args=(0.1,))

    in_a_hurry.start()
    assert has_begun.wait(PATIENCE_SECONDS)
    emitter.sync_flush()

    assert emitter.sent == ("0", "1", "2")
    in_a_hurry.join(PATIENCE_SECONDS)
    assert emitter.close()


def test_async_flush_of_a_plain_emitter_sends_in_another_thread(collector):
    """It does not block, although the collector does not answer."""
    answered = threading.Event()
    collector.respond_with(Answer(hold=answered))
    emitter = Emitter(collector.url)
    fill(emitter, 1)

    emitter.async_flush()

    collector.wait_for_requests(1)
    assert emitter.stats().in_flight == 1
    answered.set()
    eventually(lambda: emitter.stats().delivered == 1)
    assert emitter.close()


def test_async_flushes_of_a_plain_emitter_need_one_thread(collector):
    """However often it is called, there is one thread."""
    emitter = Emitter(collector.url)
    before = own_threads()

    for number in range(20):
        fill(emitter, 1, start=number)
        emitter.async_flush()

    assert len(own_threads() - before) == 1
    assert emitter.close()
    assert len(collector.payloads) == 20


@both
def test_set_flush_timer_flushes_at_intervals(collector, emitter_class):
    """What waits is sent without a full batch, again and again."""
    emitter = emitter_class(collector.url)
    emitter.set_flush_timer(0.01)

    fill(emitter, 1)
    collector.wait_for_payloads(1)
    fill(emitter, 1, start=1)
    collector.wait_for_payloads(2)

    emitter.cancel_flush_timer()
    assert not emitter.timer.is_active()
    assert emitter.close()


@both
def test_flush_interval_begins_with_the_first_payload(collector, emitter_class):
    """No thread is started before there is something to send."""
    emitter = emitter_class(collector.url, flush_interval=0.01)
    active_before = emitter.timer.is_active()

    fill(emitter, 1)

    assert not active_before
    assert eids(collector.wait_for_payloads(1)) == ["0"]
    assert emitter.close()
    assert not emitter.timer.is_active()


def test_flush_interval_that_runs_is_not_begun_anew():
    """Payloads that follow do not put the flush off."""
    emitter = with_manual_timers(Emitter("collector.example.com", flush_interval=5))

    fill(emitter, 3)

    assert emitter.timer.delays == [5]


def test_flush_interval_may_be_changed():
    """The next payload begins the new one, or ends the timer."""
    emitter = with_manual_timers(Emitter("collector.example.com", flush_interval=5))
    fill(emitter, 1)

    emitter.flush_interval = 3
    fill(emitter, 2)
    delays = list(emitter.timer.delays)
    emitter.flush_interval = None
    fill(emitter, 1)

    assert delays == [5, 3]
    assert not emitter.timer.is_active()


@pytest.mark.parametrize("method", ["sync_flush", "close"])
@both
def test_flush_ends_though_the_clock_is_frozen(emitter_class, method, monkeypatch):
    """A test of an application that freezes time ends, too."""
    emitter = emitter_class("collector.example.com")
    emitter.http_post = lambda data: 503
    fill(emitter, 1)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)

    getattr(emitter, method)(timeout=0.3)

    assert emitter.stats().buffered == 1


@pytest.mark.parametrize("has_own_flush", [False, True])
def test_flush_ends_though_the_clock_is_frozen_and_the_collector_hangs(has_own_flush, monkeypatch):
    """What its thread is doing meanwhile is not waited for, either."""
    may_answer = threading.Event()
    emitter = AsyncEmitter("collector.example.com")
    emitter.http_post = lambda data: 200 if may_answer.wait(PATIENCE_SECONDS) else -1
    if has_own_flush:
        emitter.flush = lambda: AsyncEmitter.flush(emitter)
    fill(emitter, 1)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)

    emitter.sync_flush(timeout=0.5)
    in_flight = emitter.stats().in_flight
    may_answer.set()

    assert in_flight == 1
    assert emitter.close()
    assert emitter.stats().delivered == 1


def test_cancel_flush_is_cancel_flush_timer():
    """The documentation's name does the same."""
    emitter = with_manual_timers(Emitter("collector.example.com"))
    emitter.set_flush_timer(7)

    emitter.cancel_flush()
    fill(emitter, 1)

    assert not emitter.timer.is_active()
    assert emitter.flush_interval is None


@pytest.mark.parametrize(("timeout", "error"), [(0, ValueError), (-5, ValueError), ("5", TypeError), (True, TypeError)])
def test_flush_timer_is_checked(timeout, error):
    """A wrong interval is an error, and the timer stays as it was."""
    emitter = with_manual_timers(Emitter("collector.example.com"))

    with pytest.raises(error, match="timeout must"):
        emitter.set_flush_timer(timeout)

    assert not emitter.timer.is_active()


@both
@both_methods
def test_close_sends_what_waits(collector, emitter_class, method):
    """Closing leaves nothing behind: no payloads, no threads, no timers."""
    before = own_threads()
    emitter = emitter_class(collector.url, method=method, batch_size=100, flush_interval=100)
    fill(emitter, 3)

    is_all_out = emitter.close()

    assert is_all_out
    assert eids(collector.payloads) == ["0", "1", "2"]
    assert not emitter.timer.is_active()
    assert not emitter.retry_timer.is_active()
    eventually(lambda: own_threads() <= before)


@both
def test_close_tells_when_something_is_left(collector, caplog, emitter_class):
    """The result is false, and the loss is logged with its count."""
    collector.respond_always(503)
    emitter = emitter_class(collector.url, max_retry_delay_seconds=0.05)
    fill(emitter, 3)

    is_all_out = emitter.close(timeout=0.2)

    assert not is_all_out
    assert "Closed with 3 payloads that are not delivered" in caplog.text


@both
def test_close_may_be_repeated(collector, emitter_class):
    """A second close of a closed emitter tries once more what is left."""
    before = own_threads()
    collector.respond_with(503)
    emitter = with_manual_timers(emitter_class(collector.url))
    fill(emitter, 2)

    first, second, third = emitter.close(timeout=None), emitter.close(), emitter.close()

    assert (first, second, third) == (False, True, True)
    assert eids(collector.payloads) == ["0", "1"]
    eventually(lambda: own_threads() <= before)


@both
def test_payload_after_close_is_dropped_with_a_log_line(collector, caplog, emitter_class):
    """Tracking on a closed emitter raises nothing, and hides nothing."""
    emitter = emitter_class(collector.url, batch_size=1)
    emitter.close()

    fill(emitter, 1)
    emitter.flush()
    emitter.async_flush()

    assert emitter.stats().dropped == 1
    assert "Dropped 1 payloads: the emitter is closed" in caplog.text
    assert collector.requests == []


@both
def test_with_statement_closes(collector, emitter_class):
    """Leaving the block sends what waits."""
    with emitter_class(collector.url) as emitter:
        fill(emitter, 2)

    assert eids(collector.payloads) == ["0", "1"]
    assert isinstance(emitter, emitter_class)


def test_late_payload_at_exit_is_sent_at_once(collector, monkeypatch):
    """After the exit handler has run there is nobody else to send it."""
    emitter = Emitter(collector.url)
    silent = Emitter(collector.url, flush_on_exit=False)
    monkeypatch.setattr("snowplow_tracker._lifecycle.lifecycle._exit_at", time.monotonic() + PATIENCE_SECONDS)

    fill(emitter, 1)
    fill(silent, 1, start=1)

    assert eids(collector.payloads) == ["0"]


def test_too_late_payload_at_exit_is_a_logged_loss(collector, caplog, monkeypatch):
    """When no time is left to send it in, its loss is told."""
    emitter = Emitter(collector.url)
    monkeypatch.setattr("snowplow_tracker._lifecycle.lifecycle._exit_at", time.monotonic() - 1)

    fill(emitter, 1)

    assert collector.requests == []
    assert "Lost 1 payloads: an event was tracked too late" in caplog.text


def test_payload_of_another_thread_does_not_make_the_last_flush_a_failure(collector, monkeypatch):
    """What another thread tracks when the last flush is done is that thread's to send, and no loss to report."""
    emitter = Emitter(collector.url)
    emitter.input({"eid": "waiting"})
    monkeypatch.setattr(emitter._session_pool, "close", lambda: emitter.input({"eid": "of another thread"}))

    assert emitter._flush_at_exit(PATIENCE_SECONDS)

    assert eids(collector.payloads) == ["waiting"]
    assert emitter.stats().buffered == 1


def test_stopped_flush_by_timer_does_not_pile_up(collector):
    """A flush that takes longer than the interval is not joined by others."""
    before = own_threads()
    answered = threading.Event()
    collector.respond_with(Answer(hold=answered))
    emitter = Emitter(collector.url)
    fill(emitter, 1)
    emitter.set_flush_timer(0.001)
    collector.wait_for_requests(1)

    fill(emitter, 1, start=1)

    timers = [thread for thread in own_threads() - before if thread.name == "snowplow-flush-timer"]
    assert len(timers) == 1
    assert len(collector.requests) == 1
    answered.set()
    assert eids(collector.wait_for_payloads(2)) == ["0", "1"]
    assert emitter.close()


def test_wait_for_others_ends_with_the_deadline(collector):
    """A flush with a time limit waits for what another thread has in flight, but not for ever."""
    answered = threading.Event()
    collector.respond_with(Answer(hold=answered))
    emitter = Emitter(collector.url, batch_size=1)
    sender = threading.Thread(target=fill, args=(emitter, 1))
    sender.start()
    collector.wait_for_requests(1)

    emitter.sync_flush(timeout=0.05)
    in_flight = emitter.stats().in_flight
    answered.set()
    emitter.sync_flush(timeout=PATIENCE_SECONDS)

    assert in_flight == 1
    assert emitter.stats().delivered == 1
    sender.join(PATIENCE_SECONDS)


def test_figures_tell_the_backoff(collector):
    """`retry_in_seconds` is there while a retry is ahead."""
    collector.respond_with(503)
    emitter = with_manual_timers(Emitter(collector.url, batch_size=2))
    fill(emitter, 2)

    stats = emitter.stats()

    assert stats.retry_in_seconds == emitter.retry_timer.delay
    assert (stats.accepted, stats.buffered, stats.retries, stats.requests, stats.last_status) == (2, 2, 2, 1, 503)
    assert stats.last_error is None


def test_figures_are_frozen():
    """A snapshot does not change, and cannot be changed."""
    stats = Emitter("collector.example.com").stats()

    with pytest.raises(AttributeError):
        stats.accepted = 1

    assert (stats.last_status, stats.retry_in_seconds) == (None, None)


def test_payloads_are_logged_at_debug_only(collector, caplog):
    """What an event says is nobody's business at the usual levels."""
    caplog.set_level(logging.DEBUG, logger="snowplow_tracker")
    collector.respond_with(503, 400)
    emitter = with_manual_timers(Emitter(collector.url, batch_size=1))

    emitter.input({"eid": "0", "uid": "somebody"})
    emitter.sync_flush()

    levels = {record.levelno for record in caplog.records if "somebody" in record.getMessage()}
    assert levels == {logging.DEBUG}


def test_nothing_is_said_to_be_lost_when_nothing_is(caplog):
    """An emitter that is given up empty makes no log line."""
    emitter = Emitter("collector.example.com")

    emitter._give_up("for no reason")

    assert caplog.records == []
