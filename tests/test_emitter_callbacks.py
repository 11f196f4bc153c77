"""What callbacks are told, and what they may do."""

import logging
import threading

import pytest
from support import PATIENCE_SECONDS, eids, eventually, is_balanced, numbered, own_threads, with_manual_timers

from snowplow_tracker import AsyncEmitter, Emitter
from snowplow_tracker.testing import Answer

both = pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
both_methods = pytest.mark.parametrize("method", ["post", "get"])


def fill(emitter, count, start=0):
    for payload in numbered(count, start):
        emitter.input(payload)


class Reports(list):
    """Collects what callbacks are told."""

    def success(self, delivered):
        self.append(("success", eids(delivered)))

    def failure(self, count, unsent):
        self.append(("failure", count, eids(unsent)))


@both
@both_methods
def test_success_is_told_with_the_payloads(collector, emitter_class, method):
    """`on_success` gets what was delivered, `on_failure` is not called."""
    reports = Reports()
    emitter = emitter_class(
        collector.url, method=method, batch_size=10, on_success=reports.success, on_failure=reports.failure
    )
    fill(emitter, 3)

    emitter.sync_flush()

    assert reports == [("success", ["0", "1", "2"])]


@both
@both_methods
def test_failure_is_told_with_the_payloads(collector, emitter_class, method):
    """`on_failure` gets what was not delivered, `on_success` is not called."""
    reports = Reports()
    collector.respond_always(503)
    emitter = with_manual_timers(
        emitter_class(
            collector.url, method=method, batch_size=10, on_success=reports.success, on_failure=reports.failure
        )
    )
    fill(emitter, 3)

    emitter.sync_flush()

    assert reports == [("failure", 0, ["0", "1", "2"])]


def test_mixed_outcome_is_told_to_both(collector):
    """Delivered, rejected and put off in one flush: each payload is in one report."""
    reports = Reports()
    collector.respond_with(200, 400, 503, 503)
    emitter = with_manual_timers(
        Emitter(collector.url, method="get", batch_size=5, on_success=reports.success, on_failure=reports.failure)
    )

    fill(emitter, 5)

    assert reports == [("success", ["0"]), ("failure", 1, ["1", "2", "3", "4"])]


def test_retried_payload_is_told_at_each_attempt(collector):
    """A payload that fails twice is reported twice."""
    reports = Reports()
    collector.respond_with(503, 503)
    emitter = with_manual_timers(Emitter(collector.url, batch_size=1, on_failure=reports.failure))

    fill(emitter, 1)
    emitter.retry_timer.fire()

    assert reports == [("failure", 0, ["0"])] * 2


def test_callbacks_get_the_very_objects_that_were_sent():
    """`send_events` stamps the caller's dicts and hands them on."""
    told = []
    emitter = Emitter("collector.example.com", on_success=told.extend)
    emitter.http_post = lambda data: 200
    batch = [{"eid": "0"}, {"eid": "1"}]

    emitter.send_events(batch)

    assert [id(payload) for payload in told] == [id(payload) for payload in batch]
    assert all("stm" in payload for payload in batch)


@both
@both_methods
def test_callback_that_raises_is_logged_and_harms_nothing(collector, caplog, emitter_class, method):
    """No payload is lost, nothing reaches the application, and the next flush works."""

    def fail(*arguments):
        raise RuntimeError("from the callback")

    collector.respond_with(200, 400)
    emitter = emitter_class(collector.url, method=method, batch_size=1, on_success=fail, on_failure=fail)
    fill(emitter, 1)
    emitter.sync_flush()
    fill(emitter, 1, start=1)
    emitter.sync_flush()

    assert (emitter.stats().delivered, emitter.stats().rejected) == (1, 1)
    assert caplog.text.count("RuntimeError: from the callback") == 2
    assert is_balanced(emitter)


@both
def test_callbacks_run_without_the_lock(collector, emitter_class):
    """Another thread can use the emitter while a callback runs."""
    seen = []

    def let_another_thread_in(delivered):
        other = threading.Thread(target=lambda: (emitter.input({"eid": "other"}), seen.append(emitter.stats())))
        other.start()
        other.join(PATIENCE_SECONDS)

    emitter = emitter_class(collector.url, batch_size=10, on_success=let_another_thread_in)
    fill(emitter, 1)
    emitter.sync_flush()

    assert [(stats.delivered, stats.buffered) for stats in seen] == [(1, 1)]


@both
def test_callback_may_track(collector, emitter_class):
    """An event from a callback is sent like any other."""
    emitter = emitter_class(collector.url, batch_size=1)

    def track_once(delivered):
        emitter.on_success = None
        emitter.input({"eid": "from the callback"})

    emitter.on_success = track_once
    fill(emitter, 1)

    assert eids(collector.wait_for_payloads(2)) == ["0", "from the callback"]
    assert emitter.close()


@both_methods
def test_callback_that_always_tracks_does_not_keep_the_thread(collector, method):
    """An event for each success goes on for ever, but in the background, and without recursion."""
    emitter = Emitter(collector.url, method=method, batch_size=1)
    emitter.on_success = lambda delivered: emitter.input({"eid": str(int(delivered[-1]["eid"]) + 1)})

    emitter.input({"eid": "0"})

    assert len(collector.payloads) >= 2
    collector.wait_for_payloads(50)
    emitter.on_success = None
    assert emitter.close()


def test_flush_in_a_callback_does_not_nest(collector):
    """The second flush begins when the first has ended."""
    depth = []

    def flush(delivered):
        depth.append("in")
        emitter.input({"eid": "more"})
        emitter.flush()
        depth.append("out")
        emitter.on_success = None

    emitter = Emitter(collector.url, batch_size=100, on_success=flush)
    fill(emitter, 1)
    emitter.flush()

    assert depth == ["in", "out"]
    assert eids(collector.payloads) == ["0", "more"]


@both
def test_sync_flush_in_a_callback_is_asynchronous_with_a_warning(collector, caplog, emitter_class):
    """It cannot wait for itself, so it does not wait."""
    caplog.set_level(logging.WARNING)
    emitter = emitter_class(collector.url, batch_size=100)

    def flush(delivered):
        emitter.on_success = None
        emitter.input({"eid": "more"})
        emitter.sync_flush()

    emitter.on_success = flush
    fill(emitter, 1)
    emitter.sync_flush(timeout=PATIENCE_SECONDS)

    assert eids(collector.wait_for_payloads(2)) == ["0", "more"]
    assert "it happens asynchronously" in caplog.text
    assert emitter.close()


@both
def test_flush_in_a_failure_callback_does_not_flood(collector, caplog, emitter_class):
    """A flush for each failure respects the backoff."""
    before = own_threads()
    collector.respond_always(503)
    emitter = with_manual_timers(emitter_class(collector.url, batch_size=1))
    emitter.on_failure = lambda count, unsent: (emitter.flush(), emitter.sync_flush())

    fill(emitter, 1)
    eventually(emitter.retry_timer.is_active)
    emitter._worker_pool.stop()
    eventually(lambda: own_threads() <= before)

    assert len(collector.requests) == 1


@both
def test_close_in_a_callback_does_not_wait(collector, emitter_class):
    """It closes the emitter, and what still waits is sent behind the callback."""
    closed, answered = [], threading.Event()
    collector.respond_with(200, Answer(hold=answered))
    emitter = emitter_class(collector.url, batch_size=100)

    def close(delivered):
        emitter.on_success = None
        emitter.input({"eid": "more"})
        closed.append(emitter.close())

    emitter.on_success = close
    fill(emitter, 1)
    emitter.flush()
    collector.wait_for_requests(2)
    eventually(lambda: closed == [False])
    answered.set()

    assert eids(collector.wait_for_payloads(2)) == ["0", "more"]


def test_callbacks_may_be_reassigned(collector):
    """The callback that counts is the one at the time of the report."""
    reports = Reports()
    emitter = Emitter(collector.url, batch_size=1)

    emitter.on_success = reports.success
    fill(emitter, 1)
    emitter.on_success = None
    fill(emitter, 1, start=1)

    assert reports == [("success", ["0"])]


def test_callback_that_empties_its_list_harms_nothing(collector):
    """The lists are the callback's to keep or to clear."""
    collector.respond_with(503)
    emitter = with_manual_timers(Emitter(collector.url, batch_size=2, on_failure=lambda count, unsent: unsent.clear()))

    fill(emitter, 2)

    assert eids(emitter.event_store.event_buffer) == ["0", "1"]


def test_callback_that_empties_its_list_changes_no_count():
    """`on_failure` is told how many were delivered, whatever `on_success` did to their list."""
    counts = []
    emitter = Emitter("collector.example.com", method="get", batch_size=3, custom_retry_codes={500: False})
    emitter.on_success, emitter.on_failure = list.clear, lambda count, unsent: counts.append(count)
    emitter.http_get = lambda payload: 500 if payload["eid"] == "1" else 200

    fill(emitter, 3)

    assert counts == [2]


def test_direct_send_in_the_application_is_followed_by_a_flush_that_a_callback_asked_for(collector):
    """A batch that a callback completes goes out although no flush was under way."""
    emitter = Emitter(collector.url, batch_size=1)

    def track_once(delivered):
        emitter.on_success = None
        emitter.input({"eid": "more"})

    emitter.on_success = track_once
    emitter.send_events([{"eid": "0"}])

    assert eids(collector.payloads) == ["0", "more"]
