"""What an emitter does between a failed request and the next success."""

import logging
import threading

import pytest
from support import PATIENCE_SECONDS, ManualTimer, eids, eventually, is_balanced, numbered, with_manual_timers

from snowplow_tracker import AsyncEmitter, Emitter, InMemoryEventStore
from snowplow_tracker.emitters import _Kept
from snowplow_tracker.testing import Answer

both = pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
both_methods = pytest.mark.parametrize("method", ["post", "get"])


def failing(emitter_class=Emitter, status=503, **options):
    """Build an emitter whose collector fails until told otherwise, and whose timers the test holds."""
    emitter = with_manual_timers(emitter_class("collector.example.com", **options))
    emitter.requests = []

    def answer(argument):
        emitter.requests.append(argument)
        return emitter.status

    emitter.status = status
    emitter.http_post = emitter.http_get = answer
    return emitter


def test_delay_doubles_with_jitter():
    """Each failure doubles the delay and adds up to a second."""
    emitter = failing(batch_size=1, max_retry_delay_seconds=1_000)

    emitter.input({"eid": "0"})
    for _ in range(6):
        emitter.retry_timer.fire()

    delays = emitter.retry_timer.delays
    assert 0.05 <= delays[0] < 1
    for previous, delay in zip(delays, delays[1:]):
        assert 2 * previous <= delay < 2 * previous + 1
    assert emitter.retry_delay == delays[-1]


def test_delay_is_spread_over_the_upper_half_of_the_cap():
    """At the cap the delays still differ, between half of it and all of it."""
    emitter = failing(batch_size=1, max_retry_delay_seconds=8)

    emitter.input({"eid": "0"})
    for _ in range(60):
        emitter.retry_timer.fire()

    capped = emitter.retry_timer.delays[10:]
    assert all(4 <= delay <= 8 for delay in capped)
    assert len(set(capped)) > 10


@pytest.mark.parametrize(("header", "least"), [("5", 5.0), ("500", 20.0)])
@both_methods
def test_retry_after_is_a_lower_bound_within_the_cap(collector, method, header, least):
    """The collector's wish counts, up to `max_retry_delay_seconds`."""
    collector.respond_with(Answer(503, headers={"Retry-After": header}))
    emitter = with_manual_timers(Emitter(collector.url, method=method, batch_size=1, max_retry_delay_seconds=20))

    emitter.input({"eid": "0"})

    assert emitter.retry_timer.delay == least


@both
@both_methods
def test_automatic_flushes_send_nothing_during_a_backoff(emitter_class, method):
    """Neither a full batch nor the flush timer reaches a sick collector."""
    emitter = failing(emitter_class, method=method, batch_size=2)
    emitter.input({"eid": "0"})
    emitter.sync_flush()
    requests = len(emitter.requests)

    for payload in numbered(20, start=1):
        emitter.input(payload)
    emitter.flush()
    emitter.async_flush()
    emitter.timer.start(1)
    emitter.timer.fire()

    assert len(emitter.requests) == requests
    assert emitter.stats().buffered == 21


@both
@both_methods
def test_retry_timer_sends_everything_once_the_collector_is_back(emitter_class, method):
    """What failed goes first, then what came later; the backoff is over."""
    emitter = failing(emitter_class, method=method, batch_size=2)
    sent = []
    emitter.on_success = lambda delivered: sent.extend(eids(delivered))
    emitter.input({"eid": "0"})
    emitter.sync_flush()
    for payload in numbered(6, start=1):
        emitter.input(payload)

    emitter.status = 200
    emitter.retry_timer.fire()
    eventually(lambda: len(sent) == 7 or (emitter.retry_timer.is_active() and emitter.retry_timer.fire()))

    assert sent == [str(number) for number in range(7)]
    assert emitter.retry_delay == 0
    assert not emitter.retry_timer.is_active()
    assert is_balanced(emitter)


@both
def test_success_resets_and_disarms(emitter_class):
    """After a success the delay begins anew."""
    emitter = failing(emitter_class, batch_size=5, max_retry_delay_seconds=1_000)
    emitter.input({"eid": "0"})
    for _ in range(5):
        emitter.sync_flush()
    grown = emitter.retry_delay

    emitter.status = 200
    emitter.sync_flush()
    after_success = emitter.retry_delay, emitter.retry_timer.is_active()
    emitter.status = 503
    emitter.input({"eid": "1"})
    emitter.sync_flush()

    assert grown > 1
    assert after_success == (0, False)
    assert emitter.retry_delay < 1


def test_only_one_request_finds_out_whether_the_collector_is_back(collector):
    """While the retry is on its way, full batches of other threads still wait."""
    answered = threading.Event()
    collector.respond_with(503, Answer(hold=answered))
    emitter = with_manual_timers(Emitter(collector.url, batch_size=1))
    emitter.input({"eid": "0"})
    retry = threading.Thread(target=emitter.retry_timer.fire)
    retry.start()
    collector.wait_for_requests(2)

    for payload in numbered(5, start=1):
        emitter.input(payload)

    assert len(collector.requests) == 2
    answered.set()
    retry.join(PATIENCE_SECONDS)
    emitter.retry_timer.fire()
    assert eids(collector.payloads) == ["0", "1", "2", "3", "4", "5"]


def test_requests_that_fail_together_count_as_one_failure(collector):
    """Ten threads that see the same outage do not double the delay ten times."""
    answered = threading.Event()
    collector.respond_always(Answer(503, hold=answered))
    emitter = with_manual_timers(Emitter(collector.url, batch_size=1))
    threads = [threading.Thread(target=emitter.input, args=(payload,)) for payload in numbered(10)]
    for number, thread in enumerate(threads, 1):
        # One after the other, lest one of them takes another's payload along.
        thread.start()
        collector.wait_for_requests(number)

    answered.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)

    assert len(emitter.retry_timer.delays) == 1
    assert sorted(eids(emitter.event_store.event_buffer)) == [str(number) for number in range(10)]


def test_longer_wish_of_a_request_that_failed_together_counts():
    """The second failure of one outage still brings its `Retry-After`."""
    emitter = failing(max_retry_delay_seconds=60)
    with _Kept(emitter._thread_state):
        emitter._begin_sending()
        emitter._retry_failed_events([])
        emitter._begin_sending()
        emitter._thread_state.backoffs_seen = 0
        emitter._thread_state.retry_after_seconds = 30.0
        emitter._retry_failed_events([])

    assert emitter.retry_timer.delay == 30.0


def test_success_beside_a_failure_leaves_nobody_waiting_for_ever(collector):
    """A success disarms the timer of a batch that failed at the same time, and so arms it again at once."""
    slow, fast = threading.Event(), threading.Event()
    collector.respond_with(Answer(200, hold=slow), Answer(503, hold=fast))
    emitter = with_manual_timers(Emitter(collector.url, batch_size=1))
    threads = []
    for number, payload in enumerate(numbered(2)):
        threads.append(threading.Thread(target=emitter.input, args=(payload,)))
        threads[-1].start()
        collector.wait_for_requests(number + 1)

    fast.set()
    threads[1].join(PATIENCE_SECONDS)
    slow.set()
    threads[0].join(PATIENCE_SECONDS)

    assert emitter.retry_delay == 0
    assert emitter.retry_timer.delay == 0.05


def test_refusal_after_a_backoff_leaves_nobody_waiting_for_ever():
    """A refused batch does not end the backoff, but what still waits gets its retry."""
    emitter = failing(method="get", batch_size=10)
    for payload in numbered(2):
        emitter.input(payload)
    emitter.flush()

    def refuse_and_track(payload):
        emitter.input({"eid": "new"})
        return 400

    emitter.http_get = refuse_and_track
    emitter.retry_timer.fire()

    assert emitter.stats().rejected == 2
    assert emitter.retry_timer.delay == emitter.retry_delay > 0


@both
def test_store_that_cannot_even_count_is_asked_again(emitter_class):
    """A flush that does not know whether anything waits tries, so that a backoff begins and its timer tries again."""

    class Down(InMemoryEventStore):
        is_down = False

        def get_events_batch(self, limit=None):
            self.check()
            return super().get_events_batch()

        def size(self):
            self.check()
            return super().size()

        def check(self):
            if self.is_down:
                raise OSError("the server is gone")

    emitter = failing(emitter_class, event_store=Down(), batch_size=10)
    emitter.input({"eid": "0"})
    emitter.event_store.is_down = True

    emitter.sync_flush()
    eventually(emitter.retry_timer.is_active)
    emitter.event_store.is_down = False
    emitter.status = 200
    emitter.retry_timer.fire()

    eventually(lambda: emitter.stats().delivered == 1)


@both
def test_interrupt_while_a_batch_is_settled_loses_nothing(emitter_class):
    """What the application sends itself goes back, whatever interrupts it, so that nobody waits for it in vain."""
    emitter = failing(emitter_class)

    def interrupt(failed):
        raise KeyboardInterrupt

    emitter._retry_failed_events = interrupt
    with pytest.raises(KeyboardInterrupt):
        emitter.send_events([{"eid": "0"}])

    stats = emitter.stats()
    assert (stats.accepted, stats.buffered, stats.in_flight) == (1, 1, 0)


def test_interrupt_leaves_nobody_waiting_for_ever():
    """A retry that was due during an interrupted request left its payloads to that request, so they get another one."""
    emitter = failing(batch_size=1)

    def fail_elsewhere(data):
        emitter.http_post = lambda data: 503
        other = threading.Thread(target=emitter.input, args=({"eid": "other"},))
        other.start()
        other.join(PATIENCE_SECONDS)
        retry = threading.Thread(target=emitter.retry_timer.fire)
        retry.start()
        retry.join(PATIENCE_SECONDS)
        raise KeyboardInterrupt

    emitter.http_post = fail_elsewhere
    with pytest.raises(KeyboardInterrupt):
        emitter.input({"eid": "interrupted"})

    assert eids(emitter.event_store.event_buffer) == ["interrupted", "other"]
    assert emitter.retry_timer.delay == emitter.retry_delay > 0


def test_success_before_an_interrupt_ends_the_backoff():
    """What the collector has taken counts, and the rest goes out soon."""
    emitter = failing(method="get", batch_size=10)
    for payload in numbered(2):
        emitter.input(payload)
    emitter.flush()
    answers = iter([200])

    def take_one(payload):
        for status in answers:
            return status
        raise KeyboardInterrupt

    emitter.http_get = take_one
    with pytest.raises(KeyboardInterrupt):
        emitter.sync_flush()

    assert emitter.stats().delivered == 1
    assert emitter.retry_delay == 0
    assert emitter.retry_timer.delay == 0.05


@pytest.mark.parametrize("has_recovered", [False, True])
@both
def test_store_that_fails_at_a_retry_is_asked_again(emitter_class, has_recovered):
    """A failed hand-out is backed off from as a failed request is, so what is to be retried is not left behind."""

    class Locked(InMemoryEventStore):
        failures = 0

        def get_events_batch(self, limit=None):
            if self.failures:
                self.failures -= 1
                raise OSError("database is locked")
            return super().get_events_batch()

    emitter = failing(emitter_class, event_store=Locked(), batch_size=10)
    emitter.input({"eid": "0"})
    emitter.sync_flush()
    if has_recovered:
        emitter.status = 200
        emitter.send_events([{"eid": "1"}])
    emitter.event_store.failures = 3

    delays = []
    for _ in range(3):
        emitter.retry_timer.fire()
        eventually(emitter.retry_timer.is_active)
        delays.append(emitter.retry_delay)
    emitter.status = 200
    emitter.retry_timer.fire()

    eventually(lambda: emitter.stats().buffered == emitter.stats().in_flight == 0)
    assert all(delay >= 2 * previous for previous, delay in zip(delays, delays[1:]))


@both
def test_outage_is_told_once_and_so_is_its_end(caplog, emitter_class):
    """The first failure is a warning with status, count and delay; repetitions make no line; the recovery is told."""
    caplog.set_level(logging.INFO)
    emitter = failing(emitter_class, batch_size=5)
    emitter.input({"eid": "0"})

    for _ in range(10):
        emitter.sync_flush()
    emitter.status = 200
    emitter.sync_flush()

    lines = [(record.levelname, record.getMessage().split(" in ")[0]) for record in caplog.records]
    assert lines == [
        ("WARNING", "Status 503: 1 payloads will be retried"),
        (
            "INFO",
            "The collector takes payloads again: https://collector.example.com/com.snowplowanalytics.snowplow/tp2",
        ),
    ]


def test_lost_connection_is_told_with_its_reason(caplog, collector):
    """A request without a response is logged with what happened to it."""
    collector.refuse_connections()
    emitter = with_manual_timers(Emitter(collector.url, batch_size=1))

    emitter.input({"eid": "0"})

    assert "No response: 1 payloads will be retried in" in caplog.text
    assert "ConnectionError" in caplog.text
    assert "refused" in emitter.stats().last_error


def test_real_retry_timer_sends_by_itself(collector):
    """With the real timer, nothing has to be done after an outage."""
    collector.respond_with(503, 503)
    emitter = Emitter(collector.url, batch_size=2, max_retry_delay_seconds=0.1)

    for payload in numbered(2):
        emitter.input(payload)

    assert eids(collector.wait_for_payloads(2)) == ["0", "1"]
    eventually(lambda: emitter.retry_delay == 0)
    assert emitter.close()


@both_methods
def test_async_requests_in_an_outage_are_bounded_by_the_backoff(collector, method):
    """The number of requests depends on how often the timer fires, not on how much is tracked."""
    collector.respond_always(503)
    emitter = with_manual_timers(AsyncEmitter(collector.url, method=method, batch_size=1, thread_count=4))
    emitter.input({"eid": "0"})
    eventually(emitter.retry_timer.is_active)

    for payload in numbered(200, start=1):
        emitter.input(payload)
    for _ in range(3):
        emitter.retry_timer.fire()
        eventually(emitter.retry_timer.is_active)

    # A GET flush gives a second payload its chance before it is held back.
    assert len(collector.requests) == 1 + 3 * (2 if method == "get" else 1)
    assert emitter.stats().buffered == 201
    collector.respond_always(200)
    assert emitter.close()


def test_override_that_keeps_failed_payloads_leaks_no_capacity():
    """What `_retry_failed_events` of a subclass does not put back counts as rejected."""

    class Keeper(Emitter):
        kept = ()

        def _retry_failed_events(self, failed_events):
            self.kept = list(failed_events)

    emitter = Keeper("collector.example.com", batch_size=2, buffer_capacity=2)
    emitter.http_post = lambda data: 503

    for payload in numbered(2):
        emitter.input(payload)

    assert eids(emitter.kept) == ["0", "1"]
    assert emitter.stats().in_flight == 0
    assert emitter.stats().rejected == 2


def test_store_that_fails_to_take_back_is_a_logged_loss(caplog):
    """The payloads are lost, and it is said."""
    emitter = failing(batch_size=2)

    def cleanup(batch, need_retry):
        raise OSError("disk is gone")

    emitter.event_store.cleanup = cleanup
    for payload in numbered(2):
        emitter.input(payload)

    assert "Lost 2 payloads: the event store failed to take them back" in caplog.text
    assert is_balanced(emitter)


def test_manual_timer_is_like_the_real_one():
    """The stand-in of these tests has the methods that emitters call."""
    emitter = Emitter("collector.example.com")

    for name in ("start", "cancel", "is_active", "remaining_seconds", "has_thread", "reset"):
        assert callable(getattr(emitter.retry_timer, name))
        assert callable(getattr(ManualTimer, name))
