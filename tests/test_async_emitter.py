"""The threads of an AsyncEmitter: how many, when, and what each takes."""

import threading

import pytest
from support import PATIENCE_SECONDS, eids, eventually, is_balanced, numbered, own_threads, with_manual_timers

from snowplow_tracker import AsyncEmitter, InMemoryEventStore
from snowplow_tracker.emitters import _Flush
from snowplow_tracker.testing import Answer

# What ends a thread is reported by Python as it should be; these tests end threads on purpose.
ends_a_thread = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
both_methods = pytest.mark.parametrize("method", ["post", "get"])


def fill(emitter, count, start=0):
    for payload in numbered(count, start):
        emitter.input(payload)


def test_default_protocol_is_https():
    """Like its parent's."""
    assert AsyncEmitter("collector.example.com").endpoint.startswith("https://")


@both_methods
def test_tracking_does_not_wait_for_the_collector(collector, method):
    """Payloads are accepted while the collector keeps every thread busy."""
    answered = threading.Event()
    collector.respond_always(Answer(hold=answered))
    emitter = AsyncEmitter(collector.url, method=method, batch_size=1)
    fill(emitter, 1)
    collector.wait_for_requests(1)

    fill(emitter, 50, start=1)

    assert emitter.stats().buffered == 50
    assert len(collector.requests) == 1
    answered.set()
    assert emitter.close(timeout=PATIENCE_SECONDS)
    assert eids(collector.payloads) == [str(number) for number in range(51)]


def test_free_thread_takes_all_that_waits(collector):
    """What came while the thread was busy leaves in one request, not in batches."""
    answered = threading.Event()
    collector.respond_with(Answer(hold=answered))
    emitter = AsyncEmitter(collector.url, batch_size=2)
    fill(emitter, 2)
    collector.wait_for_requests(1)
    fill(emitter, 20, start=2)

    answered.set()
    collector.wait_for_payloads(22)

    assert [len(request.payloads) for request in collector.requests] == [2, 20]
    assert emitter.close()


def test_free_thread_takes_one_request_at_a_time(collector):
    """The rest stays in the store, for the next thread or the next turn."""
    first, second = threading.Event(), threading.Event()
    collector.respond_with(Answer(hold=first), Answer(hold=second))
    emitter = AsyncEmitter(collector.url, batch_size=2, max_request_bytes=400)
    fill(emitter, 2)
    collector.wait_for_requests(1)
    fill(emitter, 30, start=2)

    first.set()
    collector.wait_for_requests(2)
    stats = emitter.stats()
    second.set()

    assert stats.in_flight == len(collector.requests[1].payloads) < 30
    assert stats.in_flight + stats.buffered == 30
    assert emitter.close()
    assert eids(collector.payloads) == [str(number) for number in range(32)]


def test_payloads_below_the_limit_wait(collector):
    """A thread that comes free leaves an incomplete batch alone."""
    answered = threading.Event()
    collector.respond_with(Answer(hold=answered))
    emitter = AsyncEmitter(collector.url, batch_size=2)
    fill(emitter, 2)
    collector.wait_for_requests(1)
    fill(emitter, 1, start=2)

    answered.set()
    emitter.queue.join()

    assert eids(emitter.event_store.event_buffer) == ["2"]
    assert len(collector.requests) == 1
    assert emitter.close()


@both_methods
def test_as_many_requests_run_at_a_time_as_there_are_threads(collector, method):
    """`thread_count` requests in parallel, for both methods, and no more."""
    answered = threading.Event()
    collector.respond_always(Answer(hold=answered))
    emitter = AsyncEmitter(collector.url, method=method, batch_size=1, thread_count=4)

    for number in range(4):
        fill(emitter, 1, start=number)
        collector.wait_for_requests(number + 1)
    fill(emitter, 10, start=4)

    assert emitter.stats().in_flight == 4
    assert len(collector.requests) == 4
    answered.set()
    assert emitter.close(timeout=PATIENCE_SECONDS)
    assert sorted(map(int, eids(collector.payloads))) == list(range(14))


def test_backlog_of_gets_is_shared_among_the_threads(collector):
    """After an outage, all threads send the GET requests that have piled up."""
    answered = threading.Event()
    collector.respond_always(Answer(hold=answered))
    emitter = AsyncEmitter(collector.url, method="get", batch_size=12, thread_count=4)

    fill(emitter, 12)

    collector.wait_for_requests(4)
    answered.set()
    assert emitter.close(timeout=PATIENCE_SECONDS)
    assert sorted(map(int, eids(collector.payloads))) == list(range(12))


def test_threads_start_with_the_first_batch(collector):
    """Not with the emitter, and not with payloads that wait."""
    before = own_threads()
    emitter = AsyncEmitter(collector.url, batch_size=2, thread_count=3)
    fill(emitter, 1)
    while_waiting = own_threads() - before

    fill(emitter, 1, start=1)

    assert while_waiting == set()
    started = own_threads() - before
    assert len(started) == 3
    assert all(thread.daemon and thread.name.startswith("snowplow-emitter-") for thread in started)
    assert emitter.close()


@ends_a_thread
def test_dead_thread_is_replaced(collector):
    """A callback that ends its thread costs nothing but the thread."""
    emitter = AsyncEmitter(collector.url, batch_size=1)

    def exit_the_thread(delivered):
        emitter.on_success = None
        raise SystemExit

    emitter.on_success = exit_the_thread
    fill(emitter, 1)
    eventually(lambda: not any(thread.is_alive() for thread in emitter._worker_pool._threads))

    fill(emitter, 1, start=1)

    assert eids(collector.wait_for_payloads(2)) == ["0", "1"]
    assert emitter.close()
    assert is_balanced(emitter)


@ends_a_thread
def test_flush_does_not_hang_on_a_dead_thread(collector):
    """A thread that dies in the flush that is waited for is replaced."""
    emitter = AsyncEmitter(collector.url, batch_size=100, max_request_bytes=200)

    def exit_the_thread(delivered):
        emitter.on_success = None
        raise SystemExit

    emitter.on_success = exit_the_thread
    fill(emitter, 4)

    emitter.sync_flush(timeout=PATIENCE_SECONDS)

    assert eids(collector.payloads) == ["0", "1", "2", "3"]
    assert emitter.close()


@ends_a_thread
def test_request_that_is_interrupted_in_a_thread_puts_its_batch_back(collector):
    """Whatever ends the thread, the payloads wait again."""
    emitter = with_manual_timers(AsyncEmitter(collector.url, batch_size=2))

    def exit_the_thread(data):
        raise SystemExit

    emitter.http_post = exit_the_thread
    fill(emitter, 2)
    eventually(lambda: emitter.stats().in_flight == 0 and not emitter._worker_pool._threads[0].is_alive())

    del emitter.http_post
    emitter.sync_flush()

    assert eids(collector.payloads) == ["0", "1"]


def test_sync_flush_waits_for_what_is_in_flight(collector):
    """It returns when the other threads' requests have been answered as well."""
    answered = threading.Event()
    collector.respond_with(Answer(hold=answered))
    emitter = AsyncEmitter(collector.url, batch_size=1, thread_count=2)
    fill(emitter, 1)
    collector.wait_for_requests(1)
    flush = threading.Thread(target=emitter.sync_flush)

    flush.start()
    fill(emitter, 1, start=1)
    eventually(lambda: emitter.stats().delivered == 1)
    is_waiting = flush.is_alive()
    answered.set()
    flush.join(PATIENCE_SECONDS)

    assert is_waiting
    assert emitter.stats().delivered == 2


def test_capacity_bounds_what_piles_up(collector):
    """While the collector hangs, memory is bounded by `buffer_capacity`, in flight included."""
    answered = threading.Event()
    collector.respond_always(Answer(hold=answered))
    emitter = AsyncEmitter(collector.url, batch_size=5, buffer_capacity=20)
    fill(emitter, 5)
    collector.wait_for_requests(1)

    fill(emitter, 100, start=5)

    stats = emitter.stats()
    assert stats.in_flight + stats.buffered == 20
    assert stats.dropped == 85
    answered.set()
    assert emitter.close(timeout=PATIENCE_SECONDS)


@both_methods
def test_store_of_the_users_gets_back_what_does_not_fit(collector, method):
    """A store that hands out everything at once is given the rest of it back, in order."""

    class Generous(InMemoryEventStore):
        def get_events_batch(self):
            return super().get_events_batch()

    emitter = AsyncEmitter(collector.url, method=method, batch_size=30, max_request_bytes=400, event_store=Generous())

    fill(emitter, 30)

    assert emitter.close(timeout=PATIENCE_SECONDS)
    assert eids(collector.payloads) == [str(number) for number in range(30)]
    assert emitter.stats().retries == 0


def test_store_of_the_users_may_have_nothing(collector):
    """An empty hand-out is not sent."""

    class Empty(InMemoryEventStore):
        def get_events_batch(self):
            return []

    emitter = AsyncEmitter(collector.url, batch_size=1, event_store=Empty())

    fill(emitter, 2)
    emitter.sync_flush()

    assert collector.requests == []
    assert emitter.stats().buffered == 2


def test_threads_go_on_after_a_recovery(collector):
    """Once a retry has succeeded, the rest of the backlog follows without another timer."""
    collector.respond_with(503)
    emitter = with_manual_timers(AsyncEmitter(collector.url, batch_size=2, max_request_bytes=400))
    fill(emitter, 2)
    eventually(emitter.retry_timer.is_active)
    fill(emitter, 40, start=2)

    emitter.retry_timer.fire()
    eventually(
        lambda: len(collector.payloads) == 42 or (emitter.retry_timer.is_active() and emitter.retry_timer.fire())
    )

    assert eids(collector.payloads) == [str(number) for number in range(42)]
    assert emitter.close()


def test_explicit_flush_is_shared_among_the_threads(collector):
    """With several threads, the requests of one flush run at the same time."""
    answered = threading.Event()
    collector.respond_always(Answer(hold=answered))
    emitter = AsyncEmitter(collector.url, batch_size=100, max_request_bytes=200, thread_count=3)
    fill(emitter, 12)
    flush = threading.Thread(target=emitter.sync_flush)

    flush.start()
    collector.wait_for_requests(3)

    answered.set()
    flush.join(PATIENCE_SECONDS)
    assert sorted(map(int, eids(collector.payloads))) == list(range(12))


def test_flush_reaches_what_waited_when_a_retry_comes_before_it(collector):
    """What another thread puts back meanwhile is sent besides, not instead; what comes meanwhile does not count."""
    emitter = AsyncEmitter(collector.url, batch_size=100)
    fill(emitter, 1)
    of_another_thread, has_taken, may_end = [], threading.Event(), threading.Event()

    def take():
        of_another_thread.extend(claim.payload for claim in emitter._ledger.take())
        has_taken.set()
        may_end.wait(PATIENCE_SECONDS)

    threading.Thread(target=take, daemon=True).start()
    assert has_taken.wait(PATIENCE_SECONDS)
    fill(emitter, 1, start=1)
    share_of = emitter._share_of

    def fail_meanwhile(waiting):
        share = share_of(waiting)
        emitter._ledger.put_back(of_another_thread[:])
        of_another_thread.clear()
        return share

    emitter._share_of = fail_meanwhile
    emitter.on_success = lambda delivered: fill(emitter, 1, start=len(collector.payloads) + 1)
    emitter.sync_flush()
    may_end.set()

    assert [eids(request.payloads) for request in collector.requests] == [["0"], ["1", "2"]]


def test_flush_is_begun_once():
    """Either the thread that waits for it begins it, or a worker does."""
    flush = _Flush(hold_back=False)

    assert [flush.begin(), flush.begin()] == [True, False]


def test_worker_leaves_a_flush_alone_that_has_begun(collector):
    """A task that was taken over by the thread that waits is not done twice."""
    emitter = AsyncEmitter(collector.url)
    fill(emitter, 1)
    task = _Flush(hold_back=False)
    task.begin()

    emitter._do_task(task)

    assert task.wait(0)
    assert collector.requests == []


def test_flush_that_a_worker_has_begun_is_not_begun_again(collector, monkeypatch):
    """When the workers are gone, the thread that waits does only what nobody has begun."""
    emitter = AsyncEmitter(collector.url)
    fill(emitter, 1)
    monkeypatch.setattr(_Flush, "begin", lambda self: False)
    monkeypatch.setattr(emitter._worker_pool, "keep_running", lambda thread_count: False)

    emitter.sync_flush()

    assert collector.requests == []
