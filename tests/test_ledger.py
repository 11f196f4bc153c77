"""The ledger: each accepted payload is in exactly one state, whatever the store does."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from durable_store import DurableStore

from snowplow_tracker._ledger import Claim, HandOutError, Ledger, Refusal, knows_limit
from snowplow_tracker.event_store import DEFAULT_BUFFER_CAPACITY, InMemoryEventStore

BROKEN = OSError("the disk is full")


class ListStore:
    """A store of a user's own, with nothing but the four methods, which fail when they are told to."""

    def __init__(self, added=True):
        self.payloads = []
        self.added = added
        self.failing = set()

    def add_event(self, payload):
        self._maybe_fail("add_event")
        if self.added is not False:
            self.payloads.append(payload)
        return self.added

    def get_events_batch(self):
        self._maybe_fail("get_events_batch")
        batch, self.payloads = self.payloads, []
        return batch

    def cleanup(self, batch, need_retry):
        self._maybe_fail("cleanup")
        if need_retry:
            self.payloads[:0] = batch

    def size(self):
        self._maybe_fail("size")
        return len(self.payloads)

    def _maybe_fail(self, method):
        if method in self.failing:
            raise BROKEN


@pytest.fixture
def store():
    return ListStore()


@pytest.fixture
def ledger(store):
    return Ledger(store)


def filled(*eids):
    ledger = Ledger(InMemoryEventStore())
    for eid in eids:
        assert ledger.add({"eid": eid}, None)[0] is None
    return ledger


def in_another_thread(function, *arguments):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def payloads_of(claims):
    return [claim.payload for claim in claims]


def eids(payloads):
    return [payload["eid"] for payload in payloads]


def states(ledger):
    """Count payloads by state, and check the promise: what was accepted is in exactly one of them."""
    figures = ledger.figures
    counts = {
        "accepted": figures.accepted,
        "delivered": figures.delivered,
        "rejected": figures.rejected,
        "buffered": ledger.waiting(),
        "in_flight": ledger.in_flight(),
    }
    assert counts["accepted"] == sum(counts.values()) - counts["accepted"], counts
    return {state: count for state, count in counts.items() if count}


def test_each_payload_is_in_one_state_at_every_step(caplog):
    """Accepted payloads are buffered, then in flight, then delivered, rejected, or buffered again."""
    ledger = filled("1", "2", "3")
    assert states(ledger) == {"accepted": 3, "buffered": 3}

    first, second, third = payloads_of(ledger.take())
    assert states(ledger) == {"accepted": 3, "in_flight": 3}

    ledger.settle([first], [])
    assert states(ledger) == {"accepted": 3, "delivered": 1, "in_flight": 2}

    ledger.settle([], [second])
    assert states(ledger) == {"accepted": 3, "delivered": 1, "rejected": 1, "in_flight": 1}

    ledger.put_back([third])
    assert states(ledger) == {"accepted": 3, "delivered": 1, "rejected": 1, "buffered": 1}

    ledger.settle(payloads_of(ledger.take()), [])
    assert states(ledger) == {"accepted": 3, "delivered": 2, "rejected": 1}
    assert caplog.records == []


def test_ledger_begins_empty(ledger):
    """Nothing is accepted, waiting or in flight, and there was no request."""
    assert states(ledger) == {}
    assert (ledger.figures.last_status, ledger.figures.last_error) == (None, None)
    assert not ledger.has_unsettled()
    assert ledger.take() == []


@pytest.mark.parametrize("answer", [True, None, 0, 1], ids=repr)
def test_only_a_plain_false_is_a_refusal(answer):
    """Stores in the wild return nothing, or what they like."""
    ledger = Ledger(ListStore(added=answer))

    assert ledger.add({}, None)[0] is None
    assert states(ledger) == {"accepted": 1, "buffered": 1}


def test_refusal_of_the_store_is_a_drop():
    """A payload that the store does not take was never accepted, and the reason is told."""
    ledger = Ledger(ListStore(added=False))

    assert ledger.add({}, None)[0] == Refusal("the event store refused")
    assert states(ledger) == {}
    assert ledger.figures.dropped == 1


@pytest.mark.parametrize("method", ["add_event", "size"])
def test_store_that_fails_to_add_costs_a_drop(ledger, store, method):
    """What the store raises is told, not raised."""
    store.failing = {method}

    assert ledger.add({}, None)[0] == Refusal("the event store failed", BROKEN)
    assert ledger.figures.dropped == 1
    assert ledger.figures.accepted == 0


def test_closed_ledger_refuses(ledger):
    """After the close nothing is accepted any more."""
    ledger.close()

    assert ledger.add({}, None)[0] == Refusal("the emitter is closed")
    assert ledger.closed
    assert ledger.figures.dropped == 1
    assert states(ledger) == {}


def test_full_buffer_refuses(ledger):
    """No more payloads than the capacity wait."""
    results = [ledger.add({}, 2)[0] for _ in range(3)]

    assert results == [None, None, Refusal("the buffer is full")]
    assert ledger.figures.dropped == 1
    assert states(ledger) == {"accepted": 2, "buffered": 2}


def test_payloads_in_flight_count_for_the_capacity(ledger):
    """Memory is bounded: what is being sent takes room until it is settled."""
    ledger.add({}, 1)
    in_flight = payloads_of(ledger.take())

    while_in_flight, _ = ledger.add({}, 1)
    ledger.settle(in_flight, [])
    after_delivery, _ = ledger.add({}, 1)

    assert while_in_flight == Refusal("the buffer is full")
    assert after_delivery is None


def test_retry_is_never_refused():
    """Payloads that come back are taken, though others have filled the buffer."""
    ledger = Ledger(InMemoryEventStore(buffer_capacity=1))
    ledger.add({"eid": "1"}, 2)
    taken = payloads_of(ledger.take())
    ledger.add({"eid": "2"}, 2)

    error = ledger.put_back(taken)

    assert error is None
    assert states(ledger) == {"accepted": 2, "buffered": 2}


def test_capacity_is_the_store_s_own_if_none_is_given():
    """A store that knows its capacity is asked for it, and what is in flight counts there, too."""
    ledger = Ledger(InMemoryEventStore(buffer_capacity=1))
    ledger.add({}, None)
    ledger.take()

    assert ledger.add({}, None)[0] == Refusal("the buffer is full")


@pytest.mark.parametrize("capacity", [None, "many"], ids=repr)
def test_capacity_is_the_default_if_the_store_has_none(ledger, store, capacity):
    """A store without a capacity that is a number is bounded all the same."""
    store.buffer_capacity = capacity
    store.payloads = [{}] * (DEFAULT_BUFFER_CAPACITY - 1)

    assert ledger.add({}, None)[0] is None
    assert ledger.add({}, None)[0] == Refusal("the buffer is full")


def test_payloads_are_taken_oldest_first():
    """The claims come in the store's order, and hold the very objects."""
    ledger = filled("1", "2", "3")
    waiting = list(ledger.store.event_buffer)

    claims = ledger.take()

    assert all(claim.payload is payload for claim, payload in zip(claims, waiting))
    assert eids(payloads_of(claims)) == ["1", "2", "3"]


def test_take_may_be_limited():
    """Of a store that knows a limit no more are taken."""
    ledger = filled("1", "2", "3")

    assert eids(payloads_of(ledger.take(2))) == ["1", "2"]
    assert states(ledger) == {"accepted": 3, "buffered": 1, "in_flight": 2}


def test_take_may_be_held_back_while_others_are_in_flight():
    """One sender finds out whether the collector is back; the next one gets its turn after it."""
    ledger = filled("1", "2")
    first = ledger.take(1, unless_in_flight=True)

    held_back = ledger.take(1, unless_in_flight=True)
    ledger.settle(payloads_of(first), [])
    second = ledger.take(1, unless_in_flight=True)

    assert eids(payloads_of(first)) == ["1"]
    assert held_back == []
    assert eids(payloads_of(second)) == ["2"]


def test_store_that_fails_to_hand_out_is_an_error(ledger, store):
    """There is nothing to send then, and nothing is lost; who asked says so, without the lock."""
    ledger.add({}, None)
    store.failing = {"get_events_batch"}

    with pytest.raises(HandOutError) as raised:
        ledger.take()

    assert raised.value.__cause__ is BROKEN
    assert states(ledger) == {"accepted": 1, "buffered": 1}


@pytest.mark.parametrize("measure", [None, len], ids=["unmeasured", "measured"])
def test_store_that_hands_out_none_has_nothing(ledger, store, measure):
    """Stores in the wild give None where the contract says an empty list."""
    store.get_events_batch = lambda: None
    ledger.measure = measure

    assert ledger.take() == []


def test_log_line_is_written_without_the_lock(ledger, store):
    """A log handler may be slow, so it must not keep others from tracking."""
    store.failing = {"cleanup"}
    ledger.add({}, None)
    [claim] = ledger.take()
    free = []

    class Handler(logging.Handler):
        def emit(self, record):
            thread = threading.Thread(target=lambda: free.append(ledger.lock.acquire(timeout=5)), daemon=True)
            thread.start()
            thread.join()

    handler = Handler()
    logger = logging.getLogger("snowplow_tracker._ledger")
    logger.addHandler(handler)
    try:
        ledger.settle([claim.payload], [])
    finally:
        logger.removeHandler(handler)

    assert free == [True]


def test_store_is_called_with_the_lock_held():
    """A store for one emitter needs no lock of its own."""
    calls = []

    class Watchful(InMemoryEventStore):
        def __getattribute__(self, name):
            if name in ("add_event", "get_events_batch", "cleanup", "size"):
                thread = threading.Thread(
                    target=lambda: calls.append((name, ledger.lock.acquire(blocking=False))), daemon=True
                )
                thread.start()
                thread.join()
            return super().__getattribute__(name)

    ledger = Ledger(Watchful())
    ledger.add({}, None)
    ledger.waiting()
    ledger.put_back(payloads_of(ledger.take()))
    ledger.settle(payloads_of(ledger.take()), [])

    assert {name for name, _ in calls} == {"add_event", "get_events_batch", "cleanup", "size"}
    assert not any(is_free for _, is_free in calls)


def test_waiting_is_none_if_the_store_cannot_tell(ledger, store):
    """A store that fails to count its payloads has none to send for now."""
    ledger.add({}, None)
    store.failing = {"size"}

    assert ledger.waiting() == 0


def test_unsettled_payloads_are_known_without_the_store(ledger):
    """Buffered and in flight means unsettled; delivered and rejected does not."""
    ledger.add({}, None)
    ledger.add({}, None)
    while_buffered = ledger.has_unsettled()
    first, second = payloads_of(ledger.take())
    while_in_flight = ledger.has_unsettled()
    ledger.settle([first], [second])

    assert while_buffered
    assert while_in_flight
    assert not ledger.has_unsettled()


def test_requests_are_counted(ledger):
    """The figures tell how many there were, and how the last one ended."""
    ledger.count_request(-1, "refused")
    after_first = (ledger.figures.requests, ledger.figures.last_status, ledger.figures.last_error)
    ledger.count_request(200, None)

    assert after_first == (1, -1, "refused")
    assert (ledger.figures.requests, ledger.figures.last_status, ledger.figures.last_error) == (2, 200, None)


def test_stranger_is_accepted_when_it_is_sent():
    """Payloads that never were in the store count as accepted from then on."""
    ledger = filled("1")
    claims = ledger.take()
    stranger = {"eid": "2"}

    admitted = ledger.admit([claims[0].payload, stranger])

    assert admitted[0] is claims[0]
    assert admitted[1].payload is stranger
    assert states(ledger) == {"accepted": 2, "in_flight": 2}


def test_stranger_can_come_back():
    """It waits in the store like any other."""
    ledger = filled()
    [claim] = ledger.admit([{"eid": "1"}])

    ledger.put_back([claim.payload])

    assert states(ledger) == {"accepted": 1, "buffered": 1}


def test_equal_payloads_are_told_apart():
    """Identity counts: to settle one of two that look the same leaves the other in flight."""
    ledger = filled("same", "same")
    first, second = ledger.take()

    ledger.settle([first.payload], [])

    left = ledger.unsettled([first, second])
    assert len(left) == 1
    assert left[0] is second.payload
    assert states(ledger) == {"accepted": 2, "delivered": 1, "in_flight": 1}


def test_claim_on_a_payload_that_was_handed_out_again_is_void():
    """A sender must not settle what came back and belongs to another sender now."""
    ledger = filled("1")
    old = ledger.take()
    ledger.put_back(payloads_of(old))

    while_buffered = ledger.unsettled(old)
    new = ledger.take()

    assert while_buffered == []
    assert ledger.unsettled(old) == []
    assert ledger.unsettled(new) == [{"eid": "1"}]


def test_hand_outs_are_numbered():
    """Each one gets the next number, and all claims of one share it."""
    ledger = filled("1", "2", "3")
    before = ledger.last_hand_out()

    first, second = ledger.take(2), ledger.take(1)

    numbers = [claim.hand_out for claim in first + second]
    assert numbers == [before + 1, before + 1, before + 2]
    assert ledger.last_hand_out() == before + 2


def test_empty_hand_out_has_no_number(ledger):
    """Nobody has to wait for it."""
    ledger.take()
    ledger.admit([])

    assert ledger.last_hand_out() == 0


def test_hand_outs_up_to_a_number_are_settled_when_none_of_their_payloads_is_in_flight():
    """A flush waits for what was handed out before it, not for what came later."""
    ledger = filled("1", "2", "3")
    first = in_another_thread(ledger.take, 2)
    last = ledger.last_hand_out()
    in_another_thread(ledger.take, 1)

    settled = [ledger.is_settled(last)]
    ledger.settle([first[0].payload], [])
    settled.append(ledger.is_settled(last))
    ledger.put_back([first[1].payload])
    settled.append(ledger.is_settled(last))

    assert settled == [False, False, True]
    assert not ledger.is_settled(ledger.last_hand_out())


@pytest.mark.parametrize("settle", ["settle", "put_back"])
def test_who_waits_is_woken(settle):
    """`changed` is notified when payloads are settled, and when they come back."""
    ledger = filled("1")
    taken = payloads_of(ledger.take())
    seen = []

    def wait():
        with ledger.changed:
            ready.set()
            seen.append(ledger.changed.wait_for(lambda: ledger.is_settled(1), timeout=10))

    ready = threading.Event()
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    ready.wait(10)
    ledger.settle(taken, []) if settle == "settle" else ledger.put_back(taken)
    thread.join(10)

    assert seen == [True]


def test_settling_nothing_does_not_bother_the_store(ledger, store, caplog):
    """No payload, no call."""
    store.failing = {"cleanup"}

    ledger.settle([], [])

    assert ledger.put_back([]) is None
    assert caplog.records == []


def test_store_hears_once_of_what_is_done():
    """Delivered and rejected payloads go to one clean-up, those to retry to another."""
    calls = []
    store = ListStore()
    store.cleanup = lambda batch, need_retry: calls.append((eids(batch), need_retry))
    ledger = Ledger(store)
    for eid in "123":
        ledger.add({"eid": eid}, None)
    first, second, third = payloads_of(ledger.take())

    ledger.settle([first], [second])
    ledger.put_back([third])

    assert calls == [(["1", "2"], False), (["3"], True)]


def test_store_that_fails_to_forget_is_logged(ledger, store, caplog):
    """The payloads are settled all the same."""
    ledger.add({}, None)
    taken = payloads_of(ledger.take())
    store.failing = {"cleanup"}

    ledger.settle(taken, [])

    assert states(ledger) == {"accepted": 1, "delivered": 1}
    assert [record.getMessage() for record in caplog.records] == ["The event store failed to forget 1 payloads"]
    assert caplog.records[0].exc_info[1] is BROKEN


def test_payload_that_the_store_fails_to_take_back_is_rejected(ledger, store):
    """The error is returned, and the payload counts as lost rather than as nothing."""
    ledger.add({}, None)
    taken = payloads_of(ledger.take())
    store.failing = {"cleanup"}

    error = ledger.put_back(taken)

    assert error is BROKEN
    assert states(ledger) == {"accepted": 1, "rejected": 1}
    assert ledger.figures.retries == 0


@pytest.mark.parametrize(("is_retry", "retries"), [(True, 2), (False, 0)])
def test_retries_are_counted_by_payload(is_retry, retries):
    """What was not tried is put back without counting as a retry."""
    ledger = filled("1", "2")

    ledger.put_back(payloads_of(ledger.take()), is_retry)

    assert ledger.figures.retries == retries


def test_what_comes_back_is_a_retry_unless_it_is_said_otherwise():
    """An override that returns payloads does not have to say more."""
    ledger = filled("1")

    ledger.put_back(payloads_of(ledger.take()))

    assert ledger.figures.retries == 1


def test_nothing_is_measured_unless_it_is_asked_for():
    """To count bytes costs time, so it is not done without a `byte_limit`."""
    ledger = filled("1")

    assert (ledger.bytes_queued, ledger.wire_bytes) == (0, 0)


def test_bytes_follow_what_waits():
    """The two figures grow and shrink with the buffer: the printed length, and what `measure` says."""
    ledger = filled()
    ledger.measure = len
    seen = []

    def note():
        seen.append((ledger.bytes_queued, ledger.wire_bytes))

    ledger.add({"eid": "1"}, None)
    note()
    ledger.add({"eid": "2", "e": "pv"}, None)
    note()
    first, second = payloads_of(ledger.take())
    note()
    ledger.settle([first], [])
    ledger.put_back([second])
    note()

    one, two = len(str({"eid": "1"})), len(str({"eid": "2", "e": "pv"}))
    assert seen == [(one, 1), (one + two, 3), (0, 0), (two, 2)]


def test_refused_payload_is_not_measured():
    """Only what waits counts."""
    ledger = Ledger(ListStore(added=False))
    ledger.measure = len

    ledger.add({"eid": "1"}, None)

    assert (ledger.bytes_queued, ledger.wire_bytes) == (0, 0)


def test_what_waits_already_can_be_measured():
    """A limit that comes late counts the payloads that came early, each once."""
    ledger = filled("1", "2")
    ledger.measure = len

    ledger.count_again()
    ledger.count_again()

    assert (ledger.bytes_queued, ledger.wire_bytes) == (2 * len(str({"eid": "1"})), 2)


def test_store_without_a_buffer_is_measured_from_now_on(ledger):
    """What cannot be looked at counts for nothing."""
    ledger.add({"eid": "1"}, None)
    ledger.measure = len

    ledger.count_again()

    assert (ledger.bytes_queued, ledger.wire_bytes) == (0, 0)


def test_reset_forgets_what_is_in_flight():
    """A forked child has figures and locks of its own; what is in flight is the parent's."""
    ledger = filled("1", "2")
    ledger.measure = len
    ledger.count_again()
    ledger.take(1)
    lock = ledger.lock

    ledger.reset()
    ledger.forget_memory()

    assert states(ledger) == {}
    assert ledger.lock is not lock
    assert (ledger.bytes_queued, ledger.wire_bytes) == (0, 0)
    assert ledger.take() == []


def test_memory_is_forgotten_only_where_it_is_a_copy(ledger, store):
    """What another store holds is not in the memory of the child, so it stays."""
    ledger.add({}, None)

    ledger.forget_memory()

    assert store.payloads == [{}]


def test_lock_may_be_taken_twice():
    """A signal handler that tracks an event cannot deadlock with the code that it interrupted."""
    ledger = filled()

    with ledger.lock:
        refusal, _ = ledger.add({}, None)

    assert refusal is None


class Special(InMemoryEventStore):
    def get_events_batch(self):
        return super().get_events_batch()


class Renamed(InMemoryEventStore):
    pass


class Wrapping(InMemoryEventStore):
    def get_events_batch(self, *, limit=None):
        return super().get_events_batch(limit)


class Forwarding(InMemoryEventStore):
    def get_events_batch(self, *arguments, **options):
        return super().get_events_batch(*arguments, **options)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (InMemoryEventStore, True),
        (Renamed, True),
        (Wrapping, True),
        (DurableStore, True),
        (ListStore, False),
        (Special, False),
        (Forwarding, False),
    ],
)
def test_limit_is_known_where_it_is_an_argument(kind, answer):
    """Stores in the wild, and subclasses with a way of their own, may not have it."""
    assert knows_limit(kind()) is answer


def test_limit_may_be_patched_away():
    """An application may replace the method of an object, by something with a signature that Python cannot tell."""

    def untold(limit):
        return []

    untold.__signature__ = 3
    for replacement in (list, list, untold):
        store = InMemoryEventStore()
        store.get_events_batch = replacement

        assert not knows_limit(store)


def test_limit_is_passed_by_its_name():
    """It may be a keyword only."""
    ledger = Ledger(Wrapping())
    for eid in "ab":
        ledger.add({"eid": eid}, None)

    assert payloads_of(ledger.take(1)) == [{"eid": "a"}]


@pytest.mark.parametrize(("value", "answer"), [(True, True), (False, False), (None, False), ("yes", False)])
def test_store_is_durable_if_it_says_so(value, answer):
    """A stand-in of an application's tests, which has any attribute, does not."""
    store = InMemoryEventStore()
    store.is_durable = value

    assert Ledger(store).is_durable is answer
    assert not Ledger(InMemoryEventStore()).is_durable


def test_first_payload_finds_what_others_left():
    """Only that of a durable store, only once, and again in a forked child."""
    store = DurableStore()
    store.add_event({})
    ledger = Ledger(store)
    assert not ledger.has_found
    ledger.add({}, None)
    assert ledger.has_found

    ledger.has_found = False
    ledger.add({}, None)
    assert not ledger.has_found

    ledger.reset()
    ledger.add({}, None)
    assert ledger.has_found


def test_size_after_a_payload_is_known(store):
    """It spares the store a second question; nothing is known of a store that cannot tell."""
    ledger = Ledger(store)
    sizes = []
    for failing in ((), (), ("add_event",), ("size",)):
        store.failing = failing
        sizes.append(ledger.add({}, None)[1])

    assert sizes == [1, 2, 2, 0]


def test_thread_does_not_wait_for_itself():
    """What the calling thread has taken counts as settled for it, and for no other thread."""
    ledger = filled("1")
    ledger.take()
    last = ledger.last_hand_out()

    assert ledger.is_settled(last)
    assert not in_another_thread(ledger.is_settled, last)


def test_claims_are_compared_by_identity_where_it_counts():
    """Two claims on one payload are equal, and yet the older one is void."""
    payload = {"eid": "1"}
    ledger = filled()
    [mine] = ledger.admit([payload])
    forged = Claim(mine.hand_out, payload, mine.thread)

    assert forged == mine
    assert ledger.unsettled([forged]) == []


def test_payload_that_cannot_be_printed_is_not_measured():
    """An application may pass one to `send_events`; it has no length, and comes back all the same."""

    class Silent:
        def __repr__(self):
            raise ZeroDivisionError

    ledger = Ledger(InMemoryEventStore())
    ledger.measure = len
    payload = {"x": Silent()}
    ledger.admit([payload])

    ledger.put_back([payload])

    assert (ledger.waiting(), ledger.bytes_queued) == (1, 0)


class Interrupted:
    """Does what a method does, and is hit by Ctrl-C once, before it or after it."""

    def __init__(self, owner, name, when):
        self._method, self._when = getattr(owner, name), [when]
        setattr(owner, name, self)

    def __call__(self, *arguments, **options):
        when = self._when.pop() if self._when else None
        if when == "before":
            raise KeyboardInterrupt
        result = self._method(*arguments, **options)
        if when == "after":
            raise KeyboardInterrupt
        return result


before_or_after = pytest.mark.parametrize("when", ["before", "after"])


@before_or_after
def test_payload_whose_adding_was_interrupted_counts_if_it_is_in_the_store(when):
    """The application did not learn of it, but it will be sent."""
    ledger = filled("0")
    Interrupted(ledger.store, "add_event", when)

    with pytest.raises(KeyboardInterrupt):
        ledger.add({"eid": "1"}, None)

    buffered = 2 if when == "after" else 1
    assert states(ledger) == {"accepted": buffered, "buffered": buffered}


def test_payload_that_was_counted_is_counted_once():
    """Ctrl-C behind the counting changes nothing about it."""
    ledger = filled("0")
    ledger.measure = len
    Interrupted(ledger, "_count_bytes", "after")

    with pytest.raises(KeyboardInterrupt):
        ledger.add({"eid": "1"}, None)

    assert states(ledger) == {"accepted": 2, "buffered": 2}


@before_or_after
@pytest.mark.parametrize("name", ["_claim", "_get_limited_batch", "_count_bytes"])
def test_interrupted_hand_out_can_be_put_back(name, when):
    """What was taken from the store in memory is in flight by then, and what was not can do without."""
    ledger = filled("0", "1")
    Interrupted(ledger, name, when)

    with pytest.raises(KeyboardInterrupt):
        ledger.take()
    ledger.put_back(ledger.stranded())

    assert eids(ledger.store.event_buffer) == ["0", "1"]
    assert states(ledger) == {"accepted": 2, "buffered": 2}


@before_or_after
def test_interrupted_hand_out_of_a_store_of_ones_own_can_be_put_back(ledger, store, when):
    """As soon as the ledger has the payloads, it keeps them."""
    ledger.add({"eid": "0"}, None)
    Interrupted(ledger, "_claim", when)

    with pytest.raises(KeyboardInterrupt):
        ledger.take()
    ledger.put_back(ledger.stranded())

    assert eids(store.payloads) == ["0"]
    assert states(ledger) == {"accepted": 1, "buffered": 1}


@before_or_after
def test_batch_whose_admission_was_interrupted_is_in_one_state(when):
    """It was accepted if it is in flight."""
    ledger = filled()
    Interrupted(ledger, "_claim", when)

    with pytest.raises(KeyboardInterrupt):
        ledger.admit([{"eid": "0"}, {"eid": "1"}])
    ledger.put_back(ledger.stranded())

    assert states(ledger) == ({} if when == "before" else {"accepted": 2, "buffered": 2})


@before_or_after
@pytest.mark.parametrize("name", ["_clean_up", "_land", "_close_account"])
def test_interrupted_settling_counts_each_payload_once(name, when):
    """Either it is delivered, or it comes back and is sent once more."""
    ledger = filled("0", "1")
    batch = payloads_of(ledger.take())
    Interrupted(ledger, name, when)

    with pytest.raises(KeyboardInterrupt):
        ledger.settle(batch, [])
    ledger.put_back(ledger.stranded())

    is_settled = name == "_land" or (name, when) == ("_close_account", "after")
    assert states(ledger) == {"accepted": 2, "delivered" if is_settled else "buffered": 2}


@before_or_after
@pytest.mark.parametrize("name", ["_clean_up", "_count_bytes", "_land"])
def test_interrupted_return_puts_each_payload_back_once(name, when):
    """What is in the store already only stops to be in flight."""
    ledger = filled("0", "1")
    batch = payloads_of(ledger.take())
    Interrupted(ledger, name, when)

    with pytest.raises(KeyboardInterrupt):
        ledger.put_back(batch)
    ledger.put_back(ledger.stranded())

    assert eids(ledger.store.event_buffer) == ["0", "1"]
    assert states(ledger) == {"accepted": 2, "buffered": 2}


def test_payloads_of_another_thread_are_not_stranded():
    """It may be about to send them."""
    ledger = filled("0")
    release, taken = threading.Event(), threading.Event()

    def take():
        ledger.take()
        taken.set()
        release.wait(10)

    thread = threading.Thread(target=take)
    thread.start()
    assert taken.wait(10)

    assert ledger.stranded() == []
    release.set()
    thread.join(10)


def test_signal_handler_that_tracks_while_a_batch_is_admitted_is_counted():
    """Nothing is called between reading a figure and changing it."""
    ledger = filled()
    batch = [{"eid": "0"}]
    waiting = ledger.waiting

    def wait_and_be_interrupted():
        size = waiting()
        if ledger.figures.accepted == 0:
            ledger.add({"eid": "of a handler"}, None)
        return size

    ledger.waiting = wait_and_be_interrupted
    ledger.admit(batch)
    del ledger.waiting

    assert states(ledger) == {"accepted": 2, "buffered": 1, "in_flight": 1}


def test_signal_handler_that_tracks_while_bytes_are_counted_is_measured():
    """The sum is known before the figure is read."""
    ledger = Ledger(InMemoryEventStore())

    def measure(payload):
        if ledger.figures.accepted == 1:
            ledger.add({"eid": "of a handler"}, None)
        return 10

    ledger.measure = measure
    ledger.add({"eid": "0"}, None)

    assert ledger.wire_bytes == 20


def test_interrupt_before_the_count_leaves_payloads_in_flight():
    """They are counted once, and forgotten with it: neither happens without the other."""

    class Interrupted:
        rejected = 0

        @property
        def delivered(self):
            raise KeyboardInterrupt

    ledger = filled("a")
    payloads = payloads_of(ledger.take())
    ledger.figures = Interrupted()

    with pytest.raises(KeyboardInterrupt):
        ledger._close_account(payloads, 1, 0)

    assert len(ledger._in_flight) == 1
