"""Emitters on a store that outlives them, and that others share."""

import gc
import logging
import os
import threading
import weakref

import pytest
from durable_store import DurableStore, Shelf
from support import eids, eventually, numbered, with_manual_timers

from snowplow_tracker import AsyncEmitter, Emitter, InMemoryEventStore, _lifecycle
from snowplow_tracker._reporting import Occurrences

CLASSES = [Emitter, AsyncEmitter]
METHODS = ["post", "get"]
both = pytest.mark.parametrize("emitter_class", CLASSES)
both_methods = pytest.mark.parametrize("method", METHODS)
DISK = OSError("disk is gone")


class ManualClock:
    now = 0.0

    def __call__(self):
        return self.now


def backlog(count, **options):
    """Return a store in which an earlier process has left payloads."""
    store = DurableStore(**options)
    put(store, count)
    return store


def put(store, count, start=0):
    """Have another process put payloads in."""
    other = DurableStore(store.shelf)
    for payload in numbered(count, start):
        other.add_event(payload)


def track(emitter, *names):
    for name in names:
        emitter.input({"eid": name})


def failing(collector, emitter):
    """Have an emitter's next request fail, and begin a backoff that a test ends."""
    collector.respond_with(503)
    track(emitter, "failed")
    emitter.sync_flush()
    assert emitter.retry_timer.is_active()


def test_full_batch_sends_one_hand_out(collector):
    """The thread that tracks does not send a whole backlog; each further event goes on."""
    store = backlog(20)
    emitter = Emitter(collector.url, event_store=store)

    track(emitter, "first")
    after_first = eids(collector.payloads)
    track(emitter, "second")

    assert after_first == ["0", "1", "2"]
    assert eids(collector.payloads) == ["0", "1", "2", "3", "4", "5"]
    assert store.size() == 16


@pytest.mark.parametrize(("batch_size", "count"), [(None, 10), (12, 12)])
def test_full_batch_makes_some_get_requests_of_a_backlog(collector, batch_size, count):
    """By GET a hand-out would be as many requests as it has payloads. A few are sent, so a backlog gets shorter."""
    emitter = Emitter(collector.url, method="get", batch_size=batch_size, event_store=backlog(20, hand_out_size=1_000))

    track(emitter, "mine")

    assert eids(collector.payloads) == [str(number) for number in range(count)]


def test_full_batch_takes_a_hand_out_as_it_comes_if_the_store_knows_no_limit(collector):
    """The limit of a hand-out is optional."""

    class Unlimited(DurableStore):
        def get_events_batch(self):
            return super().get_events_batch()

    store = Unlimited()
    put(store, 20)
    emitter = Emitter(collector.url, method="get", event_store=store)

    track(emitter, "mine")

    assert eids(collector.payloads) == ["0", "1", "2"]


def test_callback_that_tracks_asks_for_one_more_hand_out(collector):
    """A flush that a callback asks for in the thread that tracks is bounded like the first."""
    store = backlog(20)
    emitter = Emitter(collector.url, event_store=store)
    names = iter(["again"])
    emitter.on_success = lambda delivered: track(emitter, *names)

    track(emitter, "first")

    assert eids(collector.payloads) == ["0", "1", "2", "3", "4", "5"]


@both
@both_methods
@pytest.mark.parametrize("timeout", [None, 10])
def test_explicit_flush_sends_all_that_waits(collector, emitter_class, method, timeout):
    """It goes on hand-out by hand-out."""
    store = backlog(10)
    emitter = emitter_class(collector.url, method=method, event_store=store)

    emitter.sync_flush(timeout=timeout)

    assert sorted(eids(collector.payloads), key=int) == eids(numbered(10))
    assert store.shelf.rows == {}


def test_flush_of_a_timer_sends_all_that_waits(collector):
    """Nobody waits for the thread of a timer."""
    emitter = with_manual_timers(Emitter(collector.url, event_store=backlog(10)))
    emitter.set_flush_timer(60)

    emitter.timer.fire()

    assert eids(collector.payloads) == eids(numbered(10))


def test_async_emitter_sends_a_backlog_in_the_background(collector):
    """Its threads go on hand-out by hand-out."""
    emitter = AsyncEmitter(collector.url, event_store=backlog(20))

    track(emitter, "mine")

    assert eids(collector.wait_for_payloads(21)) == [*eids(numbered(20)), "mine"]
    emitter.close()


@pytest.mark.parametrize("thread_count", [1, 2])
def test_async_emitter_takes_a_post_request_as_the_store_hands_it_out(collector, thread_count):
    """Nothing is put back, which would be a transaction."""
    store = backlog(6)
    emitter = AsyncEmitter(collector.url, thread_count=thread_count, event_store=store)

    emitter.sync_flush()

    assert "cleanup(True)" not in store.calls
    assert sorted(len(request.payloads) for request in collector.requests) == [3, 3]


def test_async_emitter_puts_back_what_another_store_hands_out_too_much(collector):
    """A store that is not durable may hand out all, and what is more than a request is for the next thread."""
    store = backlog(4, hand_out_size=1_000)
    store.is_durable = False
    emitter = AsyncEmitter(collector.url, max_request_bytes=300, event_store=store)

    emitter.sync_flush()

    assert "cleanup(True)" in store.calls
    assert eids(collector.payloads) == eids(numbered(4))


def test_async_emitter_shares_gets_among_its_threads(collector):
    """A store that knows a limit is asked for a thread's part."""
    store = backlog(4, hand_out_size=1_000)
    limits = []
    hand_out = store.get_events_batch
    store.get_events_batch = lambda limit=None: limits.append(limit) or hand_out(limit)
    emitter = AsyncEmitter(collector.url, method="get", thread_count=2, event_store=store)

    emitter.sync_flush()

    assert limits[0] == 2
    assert sorted(eids(collector.payloads)) == ["0", "1", "2", "3"]


@both
def test_first_event_finds_what_earlier_emitters_left(collector, emitter_class):
    """Whatever the batch size, what waits already is sent, and the event with it."""
    emitter = emitter_class(collector.url, batch_size=100, event_store=backlog(2))

    track(emitter, "mine")

    assert eids(collector.wait_for_payloads(3)) == ["0", "1", "mine"]
    emitter.close()


@both
def test_emitter_looks_once(collector, emitter_class):
    """What others put in later waits for a limit, as its own does."""
    store = DurableStore(hand_out_size=10)
    emitter = emitter_class(collector.url, batch_size=4, event_store=store)
    track(emitter, "first")
    put(store, 1)
    track(emitter, "second")
    assert (collector.requests, emitter.reached_limit()) == ([], False)

    track(emitter, "third")

    assert eids(collector.wait_for_payloads(4)) == ["first", "0", "second", "third"]
    emitter.close()


def test_emitter_looks_into_no_store_in_memory(collector):
    """What the application has put there itself waits for the limit, as ever."""
    store = InMemoryEventStore()
    store.add_event({"eid": "mine"})
    emitter = Emitter(collector.url, batch_size=3, event_store=store)

    track(emitter, "first")

    assert collector.requests == []


def test_constructor_leaves_a_store_alone(collector):
    """No call happens before the first event."""
    store = backlog(3)

    Emitter(collector.url, event_store=store)

    assert store.calls == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_child_looks_again():
    """What waits may be of processes that are gone."""
    store = DurableStore()
    emitter = Emitter("collector.example.com", batch_size=100, event_store=store)
    emitter.http_post = lambda data: 200
    track(emitter, "of the parent")
    put(store, 1)

    emitter._begin_anew_in_child()
    track(emitter, "of the child")

    assert emitter.stats().delivered == 3


@both
def test_full_store_is_emptied_though_the_event_has_no_room(collector, emitter_class):
    """An emitter that finds a store full of what others left begins to send it; later events find room."""
    store = backlog(3, buffer_capacity=3)
    emitter = emitter_class(collector.url, batch_size=2, event_store=store)

    track(emitter, "dropped")
    collector.wait_for_payloads(3)
    eventually(lambda: not emitter.stats().in_flight)
    put(store, 3, start=3)
    track(emitter, "dropped as well")

    assert eids(collector.wait_for_payloads(6)) == eids(numbered(6))
    assert emitter.stats().dropped == 2
    emitter.close()


@both
def test_closed_emitter_sends_nothing_for_an_event_that_comes_too_late(collector, emitter_class):
    """It is dropped, and that is all."""
    store = backlog(0)
    emitter = emitter_class(collector.url, batch_size=1, event_store=store)
    emitter.close()
    put(store, 3)

    track(emitter, "late")

    assert (collector.requests, emitter.stats().dropped) == ([], 1)


@both
def test_close_makes_one_attempt(collector, caplog, emitter_class):
    """What the collector does not take stays in the store, and nothing is said to be lost."""
    caplog.set_level(logging.INFO, "snowplow_tracker")
    collector.respond_always(503)
    store = DurableStore()
    emitter = emitter_class(collector.url, batch_size=100, event_store=store)
    track(emitter, "0", "1", "2", "3")

    is_all_out = emitter.close(timeout=10)

    assert is_all_out is False
    assert not emitter.retry_timer.is_active()
    assert len(collector.requests) == 1
    assert store.shelf.eids() == ["0", "1", "2", "3"]
    assert "Left 4 payloads in the event store: the emitter is closed" in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@both
@pytest.mark.parametrize("timeout", [None, 10])
def test_close_sends_all_if_the_collector_takes_it(collector, emitter_class, timeout):
    """Hand-out by hand-out, within the time."""
    store = backlog(10)
    emitter = emitter_class(collector.url, batch_size=100, event_store=store)

    assert emitter.close(timeout=timeout) is True

    assert eids(collector.payloads) == eids(numbered(10))
    assert store.closings == 0


@both
def test_close_makes_no_attempt_during_a_backoff(collector, emitter_class):
    """Nor does a second one, which finds the timer of the backoff ended."""
    emitter = with_manual_timers(emitter_class(collector.url, batch_size=100, event_store=DurableStore()))
    failing(collector, emitter)

    outcomes = [emitter.close(timeout=10), emitter.close(timeout=None)]

    assert outcomes == [False, False]
    assert len(collector.requests) == 1


@both
def test_exit_makes_one_attempt(collector, caplog, emitter_class):
    """The exit handler is told that there is nothing left to do."""
    caplog.set_level(logging.INFO, "snowplow_tracker")
    collector.respond_always(503)
    store = DurableStore()
    emitter = emitter_class(collector.url, batch_size=100, event_store=store)
    track(emitter, "0")

    assert emitter._flush_at_exit(10) is True

    assert not emitter.retry_timer.is_active()
    assert len(collector.requests) == 1
    assert store.shelf.eids() == ["0"]
    assert "Left 1 payloads in the event store: the interpreter exits" in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@both
def test_exit_tells_nothing_if_nothing_is_left(collector, caplog, emitter_class):
    """The last flush has sent all."""
    caplog.set_level(logging.INFO, "snowplow_tracker")
    emitter = emitter_class(collector.url, batch_size=100, event_store=backlog(5))

    assert emitter._flush_at_exit(10) is True

    assert eids(collector.payloads) == eids(numbered(5))
    assert "Left" not in caplog.text


@both
def test_closed_emitter_makes_no_further_attempt_at_exit(collector, caplog, emitter_class):
    """What waits in the store may be of others, and has been told."""
    caplog.set_level(logging.INFO, "snowplow_tracker")
    store = DurableStore()
    emitter = emitter_class(collector.url, batch_size=100, event_store=store)
    emitter.close()
    put(store, 1)

    assert emitter._flush_at_exit(10) is True

    assert (collector.requests, caplog.messages) == ([], [])


def test_late_event_is_no_loss_though_nothing_is_sent_at_exit(collector, monkeypatch, caplog):
    """The store has it."""
    monkeypatch.setattr(_lifecycle.lifecycle, "seconds_to_exit", lambda: 1.0)
    store = DurableStore()
    emitter = Emitter(collector.url, batch_size=100, event_store=store, flush_on_exit=False)

    track(emitter, "late")

    assert store.shelf.eids() == ["late"]
    assert "Lost" not in caplog.text


def test_late_event_at_exit_is_left_in_the_store(collector, monkeypatch, caplog):
    """It is no loss either."""
    collector.respond_always(503)
    monkeypatch.setattr(_lifecycle.lifecycle, "seconds_to_exit", lambda: 1.0)
    store = DurableStore()
    emitter = Emitter(collector.url, batch_size=100, event_store=store)

    track(emitter, "late")

    assert store.shelf.eids() == ["late"]
    assert "Lost" not in caplog.text


def test_emitter_that_is_given_up_tells_what_is_left_and_what_is_in_flight(collector, caplog):
    """In flight ones come back by their lease; all that is told once."""
    caplog.set_level(logging.INFO, "snowplow_tracker")
    store = DurableStore()
    emitter = Emitter(collector.url, batch_size=100, event_store=store)
    track(emitter, "0", "1", "2", "3")

    def give_up(data):
        emitter._give_up("of a test")
        emitter._give_up("of another")
        return 200

    emitter.http_post = give_up
    emitter.sync_flush()

    assert caplog.messages.count("Left 1 payloads in the event store: of a test") == 1
    assert caplog.messages.count("Left 3 payloads in flight, which their lease brings back: of a test") == 1
    assert "Lost" not in caplog.text
    assert "of another" not in caplog.text


def test_emitter_that_is_given_up_tells_of_no_store_that_is_empty(collector, caplog):
    """Only what is in flight is told then."""
    caplog.set_level(logging.INFO, "snowplow_tracker")
    emitter = Emitter(collector.url, batch_size=100, event_store=DurableStore())
    track(emitter, "0")

    def give_up(data):
        emitter._give_up("of a test")
        return 200

    emitter.http_post = give_up
    emitter.sync_flush()
    emitter._give_up("of a test")

    assert caplog.messages == ["Left 1 payloads in flight, which their lease brings back: of a test"]


@both
def test_closed_emitter_leaves_its_store_alone_at_exit(collector, emitter_class):
    """The application may have closed the store; to ask it again would open it again."""
    store = backlog(1)
    emitter = emitter_class(collector.url, event_store=store, flush_on_exit=False)
    emitter.close(timeout=0)
    store.calls.clear()

    emitter._give_up("the interpreter exits")

    assert store.calls == []


def test_closed_emitter_leaves_the_rest_of_a_backlog(collector):
    """A worker that is at it ends with the hand-out that it has, and no new one begins."""
    store = backlog(20)
    emitter = AsyncEmitter(collector.url, batch_size=100, event_store=store)
    is_sending, may_go_on = threading.Event(), threading.Event()

    def hold(data):
        is_sending.set()
        may_go_on.wait(15)
        return 200

    emitter.http_post = hold
    emitter.flush()
    is_sending.wait(15)
    assert emitter.close(timeout=0) is False
    may_go_on.set()
    eventually(lambda: not emitter.stats().in_flight)
    eventually(lambda: not any(thread.is_alive() for thread in emitter._worker_pool._threads))

    assert emitter.stats().delivered == 3
    assert store.size() == 17


def test_timer_that_is_at_a_backlog_stops_when_the_emitter_is_closed():
    """The rest is for other emitters."""
    store = backlog(20)
    emitter = with_manual_timers(Emitter("collector.example.com", batch_size=100, event_store=store))
    requests = []

    def close(data):
        requests.append(data)
        emitter._end_for_good()
        return 200

    emitter.http_post = close
    emitter.set_flush_timer(60)
    emitter.timer.fire()

    assert len(requests) == 1


def test_flush_with_timeout_ends_when_others_have_what_waits():
    """A store that says that payloads wait, and hands out none, is no reason to wait for the end of the time."""

    class Promising(DurableStore):
        def get_events_batch(self, limit=None):
            return []

    emitter = Emitter("collector.example.com", batch_size=100, event_store=Promising())
    track(emitter, "0")

    emitter.sync_flush(timeout=600)

    assert emitter.stats().buffered == 1


@both
def test_flush_with_timeout_goes_on_through_a_backoff(collector, emitter_class):
    """Until all is out."""
    collector.respond_with(503, 503)
    emitter = emitter_class(collector.url, batch_size=100, max_retry_delay_seconds=0.1, event_store=backlog(7))

    emitter.sync_flush(timeout=15)

    assert emitter.stats().delivered == 7
    emitter.close()


def test_flush_asks_for_what_does_not_wait_yet(collector):
    """What a process that died had in flight is handed out again, though it is not counted before."""

    class Reclaiming(DurableStore):
        def get_events_batch(self, limit=None):
            self.end_leases()
            return super().get_events_batch(limit)

    store = Reclaiming()
    put(store, 2)
    DurableStore(store.shelf).get_events_batch()
    emitter = Emitter(collector.url, event_store=store)
    assert store.size() == 0

    emitter.sync_flush()

    assert eids(collector.payloads) == ["0", "1"]


def test_two_emitters_deliver_each_payload_once(collector):
    """Several emitters, as of several processes, share one store."""
    shelf = Shelf()
    emitters = [AsyncEmitter(collector.url, thread_count=2, event_store=DurableStore(shelf)) for _ in range(3)]
    names = [f"{number}-{position}" for number in range(40) for position in range(3)]

    for name in names:
        track(emitters[int(name[-1])], name)
    for emitter in emitters:
        emitter.sync_flush()

    assert sorted(eids(collector.wait_for_payloads(len(names)))) == sorted(names)
    stats = [emitter.stats() for emitter in emitters]
    assert sum(each.accepted for each in stats) == sum(each.delivered for each in stats) == len(names)
    for emitter in emitters:
        emitter.close()


class RenewingStore(DurableStore):
    """Has what it has lent lent for longer."""

    def renew(self):
        self._begin("renew")


@both
@pytest.mark.parametrize("options", [{"method": "get"}, {"max_request_bytes": 150}], ids=["get", "post"])
def test_what_is_lent_is_renewed_after_each_request(collector, emitter_class, options):
    """A hand-out of many requests may take longer than a lease, and others must not send its rest meanwhile."""
    store = RenewingStore()
    put(store, 3)
    emitter = emitter_class(collector.url, event_store=store, **options)

    emitter.sync_flush()

    calls = [call for call in store.calls if call != "size"]
    assert calls[:5] == ["get_events_batch", "renew", "renew", "renew", "cleanup(False)"]
    assert [eids(request.payloads) for request in collector.requests] == [["0"], ["1"], ["2"]]


def test_store_that_fails_to_renew_does_no_harm(collector):
    """Then payloads may be delivered twice, which is no loss."""
    store = RenewingStore()
    put(store, 2)
    store.trouble["renew"] = DISK
    emitter = Emitter(collector.url, method="get", event_store=store)

    emitter.sync_flush()

    assert eids(collector.payloads) == ["0", "1"]
    assert (emitter.stats().delivered, store.size()) == (2, 0)


def test_failed_payloads_may_be_sent_by_another(collector):
    """What one emitter has put back is for whoever comes first."""
    shelf = Shelf()
    collector.respond_with(503)
    first = with_manual_timers(Emitter(collector.url, event_store=DurableStore(shelf)))
    second = Emitter(collector.url, event_store=DurableStore(shelf))
    track(first, "0")
    first.sync_flush()

    second.sync_flush()
    first.retry_timer.fire()

    assert (first.stats().delivered, second.stats().delivered, second.stats().accepted) == (0, 1, 0)
    assert eids(collector.payloads) == ["0"]
    assert not first._is_backing_off()


def test_payloads_that_a_store_fails_to_take_back_are_not_lost(collector, caplog):
    """They come back by their lease, so they are neither rejected nor called lost."""
    collector.respond_with(503)
    store = DurableStore()
    emitter = with_manual_timers(Emitter(collector.url, batch_size=100, event_store=store))
    track(emitter, "0", "1")
    store.trouble["cleanup(True)"] = DISK

    emitter.sync_flush()

    stats = emitter.stats()
    assert (stats.accepted, stats.rejected, stats.retries, stats.buffered, stats.in_flight) == (2, 0, 0, 0, 0)
    assert "2 payloads will be retried when their lease ends: the event store failed to take them back" in caplog.text
    assert "Lost" not in caplog.text
    store.end_leases()
    emitter.sync_flush()
    assert emitter.stats().delivered == 2


def test_delivered_payloads_that_a_store_fails_to_forget_may_come_again(collector, caplog):
    """They count as delivered, and the log says what may happen."""
    store = DurableStore()
    emitter = Emitter(collector.url, batch_size=1, event_store=store)
    store.trouble["cleanup(False)"] = DISK

    track(emitter, "0")

    assert emitter.stats().delivered == 1
    assert (
        "The event store failed to forget 1 payloads, which may be delivered again when their lease ends" in caplog.text
    )


@pytest.mark.parametrize("method", ["size", "add_event"])
def test_store_that_is_out_of_order_costs_the_payload_and_nothing_else(collector, caplog, method):
    """So it is with any store; the next payload finds it mended, and the emitter looks what waits there then."""
    store = backlog(1)
    emitter = Emitter(collector.url, batch_size=100, event_store=store)
    store.trouble[method] = DISK

    track(emitter, "dropped", "accepted")

    assert (emitter.stats().accepted, emitter.stats().dropped) == (1, 1)
    assert "Dropped 1 payloads: the event store failed" in caplog.text
    assert eids(collector.payloads)[0] == "0"


def test_store_that_fails_to_hand_out_is_asked_again_after_a_backoff(collector):
    """A full batch does not ask again at once."""
    store = DurableStore()
    emitter = with_manual_timers(Emitter(collector.url, batch_size=1, event_store=store))
    store.trouble["get_events_batch"] = DISK
    track(emitter, "0")
    track(emitter, "1")
    assert collector.requests == []

    emitter.retry_timer.fire()

    assert eids(collector.payloads) == ["0", "1"]


def test_store_that_keeps_failing_to_hand_out_is_reported_in_sums(collector, caplog):
    """An outage of hours must not fill the log, for instance with what a full disk says at each attempt."""
    clock = ManualClock()
    store = DurableStore()
    emitter = with_manual_timers(Emitter(collector.url, batch_size=1, event_store=store))
    emitter._failure_reports = Occurrences(60.0, clock)

    for seconds in (0, 10, 49, 1):
        clock.now += seconds
        store.trouble["get_events_batch"] = DISK
        emitter.sync_flush()

    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "The event store failed to hand out payloads",
        "The event store failed to hand out payloads, 3 times",
    ]


@pytest.mark.parametrize(
    ("failures", "recovered"),
    [
        (["store"], "The event store hands out payloads again"),
        (["store", "store"], "The event store hands out payloads again"),
        (["store", "collector"], "The collector takes payloads again: "),
        (["collector", "store"], "The collector takes payloads again: "),
    ],
)
def test_end_of_an_outage_tells_what_has_recovered(collector, caplog, failures, recovered):
    """A collector that was never away does not come back; one that was is what matters, if a store failed too."""
    caplog.set_level(logging.INFO)
    store = DurableStore()
    emitter = with_manual_timers(Emitter(collector.url, event_store=store))
    track(emitter, "0")

    for failure in failures:
        if failure == "store":
            store.trouble["get_events_batch"] = DISK
        else:
            collector.respond_with(503)
        emitter.sync_flush()
    emitter.sync_flush()

    told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert len(told) == 1
    assert told[0].startswith(recovered)


def test_event_costs_two_calls_of_the_store():
    """Each is a transaction, or a round trip, under the emitter's lock."""
    store = DurableStore()
    emitter = Emitter("collector.example.com", batch_size=100, event_store=store)

    track(emitter, "0")

    assert store.calls == ["size", "add_event"]


def test_bytes_queued_are_never_negative(collector):
    """What others have put in was not counted here."""
    store = DurableStore()
    emitter = Emitter(collector.url, batch_size=100, byte_limit=100_000, event_store=store)
    track(emitter, "mine")
    put(store, 2)

    emitter.sync_flush()

    assert (emitter.bytes_queued, emitter._ledger.wire_bytes) == (0, 0)


def test_bytes_that_others_have_taken_do_not_count_for_ever(collector):
    """The next flush, which gets nothing, shows that nothing waits."""
    store = DurableStore()
    emitter = Emitter(collector.url, batch_size=100, byte_limit=100_000, event_store=store)
    track(emitter, "mine")
    assert emitter.bytes_queued > 0
    DurableStore(store.shelf).get_events_batch()

    emitter.sync_flush()

    assert emitter.bytes_queued == 0


def test_payloads_from_outside_count_whatever_others_have_taken(collector):
    """Those that the application sends itself were not accepted before, though payloads are gone from the store."""
    store = DurableStore()
    emitter = Emitter(collector.url, batch_size=100, event_store=store)
    track(emitter, "taken by another")
    DurableStore(store.shelf).get_events_batch()

    emitter.send_events(numbered(1))

    assert (emitter.stats().accepted, emitter.stats().delivered) == (2, 1)


@both
def test_payload_from_outside_waits_in_the_store_for_its_retry(collector, emitter_class):
    """It is as safe there as all others."""
    collector.respond_with(503)
    store = DurableStore()
    emitter = with_manual_timers(emitter_class(collector.url, batch_size=100, event_store=store))

    emitter.send_events(numbered(1))

    assert store.shelf.eids() == ["0"]


@pytest.fixture
def adopted(monkeypatch):
    """The emitters that the garbage collector hands over."""
    emitters = []
    monkeypatch.setattr(_lifecycle.lifecycle, "adopt", emitters.append)
    return emitters


def test_emitter_that_nobody_holds_leaves_what_waits(adopted):
    """The store has it, so nobody has to send it in the background."""
    emitter = Emitter("collector.example.com", batch_size=100, event_store=DurableStore())
    track(emitter, "0")
    reference = weakref.ref(emitter)

    del emitter
    gc.collect()

    assert (reference(), adopted) == (None, [])


def test_emitter_that_nobody_holds_has_its_threads_ended(adopted):
    """Those are not the store's."""
    emitter = Emitter("collector.example.com", batch_size=100, event_store=DurableStore())
    emitter.set_flush_timer(60)

    del emitter
    gc.collect()

    assert len(adopted) == 1
    adopted.pop().close()


def test_emitter_with_payloads_in_flight_is_not_let_go(adopted):
    """They are still to be settled."""
    emitter = Emitter("collector.example.com", batch_size=100, event_store=DurableStore())
    track(emitter, "0")
    claims = emitter._ledger.take()

    assert emitter._ledger.has_unsettled()

    emitter._ledger.settle([claim.payload for claim in claims], [])
    assert not emitter._ledger.has_unsettled()


class ClosableStore(InMemoryEventStore):
    """What a URL stands for in these tests."""

    trouble = None

    def __init__(self):
        super().__init__(buffer_capacity=7)
        self.closings = 0

    def close(self):
        self.closings += 1
        if self.trouble is not None:
            raise self.trouble


@pytest.fixture
def made(monkeypatch):
    """The store that a URL stands for."""
    store = ClosableStore()
    monkeypatch.setattr("snowplow_tracker.emitters.event_store_from_url", lambda url: store)
    return store


@both
def test_emitter_closes_the_store_that_it_made_from_a_url(collector, made, emitter_class):
    """Nobody else knows it."""
    emitter = emitter_class(collector.url, event_store="sqlite:///events.db")
    assert emitter.event_store is made

    emitter.close()

    assert made.closings == 1


def test_store_of_a_url_is_closed_when_its_emitter_is_given_up(collector, made):
    """So it is at exit, where that failed."""
    emitter = Emitter(collector.url, event_store="sqlite:///events.db")

    emitter._give_up("of a test")

    assert made.closings == 1


def test_store_of_a_url_is_closed_at_exit(collector, made):
    """A last flush ends with it if the store is durable."""
    made.is_durable = True
    emitter = Emitter(collector.url, event_store="sqlite:///events.db")

    emitter._flush_at_exit(1)

    assert made.closings == 1


def test_store_with_payloads_in_flight_stays_open(collector, made):
    """To close it would give them to others, while the collector may take them."""
    emitter = Emitter(collector.url, event_store="sqlite:///events.db")
    closings = []
    emitter.http_post = lambda data: (emitter.close() and None) or closings.append(made.closings) or 200
    track(emitter, "0")

    emitter.sync_flush()

    assert closings == [0]
    emitter.close()
    assert made.closings == 1


def test_store_that_fails_to_close_does_no_harm(collector, made, caplog):
    """It is logged."""
    made.trouble = DISK
    emitter = Emitter(collector.url, event_store="sqlite:///events.db")

    assert emitter.close() is True

    assert "The event store failed to close" in caplog.text


def test_capacity_of_a_store_that_was_made_from_a_url_is_the_emitters_if_it_has_one(made):
    """And else that of the store."""
    emitter = Emitter("collector.example.com", event_store="memory:", buffer_capacity=100)
    assert made.buffer_capacity == 100

    emitter.buffer_capacity = None

    assert made.buffer_capacity == 7


@both
def test_emitter_makes_a_store_of_a_url(emitter_class):
    """The URL is checked where it is given."""
    emitter = emitter_class("collector.example.com", event_store="memory:?buffer_capacity=5")
    assert (type(emitter.event_store), emitter.event_store.buffer_capacity) == (InMemoryEventStore, 5)

    with pytest.raises(ValueError, match=r"^event_store must be the URL of a store"):
        emitter_class("collector.example.com", event_store="events.db")


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
def test_store_that_cannot_tell_is_not_taken_for_empty(caplog, emitter_class):
    """What was accepted may all be in it."""

    class Silent(DurableStore):
        is_silent = False

        def size(self):
            if self.is_silent:
                raise OSError("no answer")
            return super().size()

    caplog.set_level(logging.INFO)
    store = Silent()
    emitter = emitter_class("collector.invalid", event_store=store)
    emitter.input({"eid": "1"})
    store.is_silent = True
    store.trouble["get_events_batch"] = OSError("no answer")

    assert emitter.close(timeout=0) is False

    assert "The event store cannot tell what is left in it: the emitter is closed" in caplog.messages
