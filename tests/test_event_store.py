"""The store in memory: order, identity and capacity."""

import logging

import pytest

from snowplow_tracker.event_store import DEFAULT_BUFFER_CAPACITY, EventStore, InMemoryEventStore


class Incomparable(dict):
    """A payload that fails a test which compares it."""

    def __eq__(self, other):
        raise AssertionError("a payload was compared")

    __hash__ = None


class Countless(list):
    """A buffer that fails a test which walks through it."""

    def __iter__(self):
        raise AssertionError("the whole buffer was walked through")

    def __contains__(self, item):
        raise AssertionError("the whole buffer was searched")


def numbered(*numbers):
    return [Incomparable(eid=number) for number in numbers]


def numbers(payloads):
    return [payload["eid"] for payload in payloads]


def filled(*given, **options):
    store = InMemoryEventStore(**options)
    for payload in numbered(*given):
        assert store.add_event(payload)
    return store


def test_store_in_memory_is_an_event_store():
    """It has what the protocol asks for."""
    assert isinstance(InMemoryEventStore(), EventStore)


def test_store_begins_empty():
    """A new store has nothing, and shares nothing with another."""
    first, second = InMemoryEventStore(), InMemoryEventStore()

    first.add_event({})

    assert (first.size(), second.size()) == (1, 0)


def test_payload_is_kept_as_the_object_it_is():
    """The buffer is the list of waiting payloads, oldest first."""
    store = InMemoryEventStore()
    payloads = numbered(1, 2)

    results = [store.add_event(payload) for payload in payloads]

    assert results == [True, True]
    assert all(kept is given for kept, given in zip(store.event_buffer, payloads))
    assert store.size() == 2


def test_capacity_is_ten_thousand_by_default():
    """Nothing, or None, means the default."""
    assert InMemoryEventStore().buffer_capacity == DEFAULT_BUFFER_CAPACITY == 10_000
    assert InMemoryEventStore(buffer_capacity=None).buffer_capacity == 10_000


@pytest.mark.parametrize("capacity", [0, -1])
def test_capacity_must_be_positive(capacity):
    """A store that can hold nothing is a ValueError."""
    with pytest.raises(ValueError, match=f"^buffer_capacity must be positive, got {capacity}$"):
        InMemoryEventStore(buffer_capacity=capacity)


@pytest.mark.parametrize("capacity", [True, 1.5, "10"], ids=repr)
def test_capacity_must_be_an_integer(capacity):
    """A capacity of another type is a TypeError."""
    with pytest.raises(TypeError, match=r"^buffer_capacity must be an integer, got "):
        InMemoryEventStore(buffer_capacity=capacity)


def test_logger_is_kept():
    """A logger may be given, first, and read again; there is none by default."""
    logger = logging.getLogger("mine")

    assert InMemoryEventStore(logger).logger is logger
    assert InMemoryEventStore().logger is None


def test_full_store_refuses_a_payload():
    """At its capacity it says no, and keeps what it has."""
    store = filled(1, 2, buffer_capacity=2)

    assert store.add_event({"eid": 3}) is False
    assert numbers(store.event_buffer) == [1, 2]


def test_capacity_may_change():
    """The attribute counts when a payload comes."""
    store = filled(1, buffer_capacity=1)

    store.buffer_capacity = 2

    assert store.add_event({"eid": 2}) is True


def test_all_payloads_are_handed_out_oldest_first():
    """Without a limit the batch is all that waits."""
    store = filled(1, 2, 3)

    assert numbers(store.get_events_batch()) == [1, 2, 3]
    assert store.size() == 0


def test_payload_is_handed_out_once():
    """What is handed out does not wait any more."""
    store = filled(1)
    store.get_events_batch()

    assert store.get_events_batch() == []


@pytest.mark.parametrize(("limit", "batch", "left"), [(1, [1], [2, 3]), (2, [1, 2], [3]), (9, [1, 2, 3], [])])
def test_limit_bounds_a_batch(limit, batch, left):
    """No more than the limit are handed out, the oldest; the rest waits."""
    store = filled(1, 2, 3)

    assert numbers(store.get_events_batch(limit)) == batch
    assert numbers(store.event_buffer) == left


def test_delivered_payloads_are_forgotten():
    """A clean-up without a retry brings nothing back."""
    store = filled(1, 2)
    batch = store.get_events_batch()

    store.cleanup(batch, False)

    assert store.size() == 0


def test_retried_payloads_go_before_what_came_later():
    """What comes back is older than what waits."""
    store = filled(1, 2)
    batch = store.get_events_batch()
    store.add_event(Incomparable(eid=3))

    store.cleanup(batch, True)

    assert numbers(store.get_events_batch()) == [1, 2, 3]


def test_part_of_a_batch_may_come_back():
    """Delivered and failed payloads of one batch are told apart, the very objects."""
    store = filled(1, 2, 3, 4)
    batch = store.get_events_batch()

    store.cleanup([batch[0], batch[2]], False)
    store.cleanup([batch[1], batch[3]], True)

    assert numbers(store.event_buffer) == [2, 4]
    assert store.event_buffer[0] is batch[1]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_order_is_kept_whatever_order_batches_fail_in(order):
    """Three threads may come back in any order; the payloads wait as they came."""
    store = filled(1, 2, 3, 4, 5, 6)
    batches = [store.get_events_batch(2) for _ in range(3)]
    store.add_event(Incomparable(eid=7))

    for position in order:
        store.cleanup(batches[position], True)

    assert numbers(store.event_buffer) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_order_survives_a_second_failure(order):
    """Payloads that failed, were handed out again in other portions, and failed again still wait as they came."""
    store = filled(1, 2, 3, 4, 5)
    store.cleanup(store.get_events_batch(3), True)
    batches = [store.get_events_batch(2), store.get_events_batch(2)]

    for position in order:
        store.cleanup(batches[position], True)

    assert numbers(store.get_events_batch()) == [1, 2, 3, 4, 5]


def test_batches_that_interleave_are_merged():
    """The failed half of a later batch does not jump the failed half of an earlier one."""
    store = filled(1, 2, 3, 4)
    first, second = store.get_events_batch(2), store.get_events_batch(2)
    store.cleanup([first[1], second[0]], True)

    store.cleanup([first[0], second[1]], True)

    assert numbers(store.event_buffer) == [1, 2, 3, 4]


def test_stranger_goes_to_the_very_front():
    """A batch that never was in the store is the next to go, in its order."""
    store = filled(1, 2)
    store.cleanup(store.get_events_batch(1), True)

    store.cleanup(numbered(8, 9), True)

    assert numbers(store.event_buffer) == [8, 9, 1, 2]


def test_later_stranger_goes_before_an_earlier_one():
    """Both came from outside, so there is no order between them to keep, and they are not compared."""
    store = filled(1)

    store.cleanup(numbered(8), True)
    store.cleanup(numbered(9), True)

    assert numbers(store.event_buffer) == [9, 8, 1]


def test_delivered_stranger_is_ignored():
    """The store is told of every delivery, also of payloads that it never had."""
    store = filled(1)

    store.cleanup(numbered(9), False)

    assert numbers(store.event_buffer) == [1]


@pytest.mark.parametrize("need_retry", [True, False])
def test_empty_batch_changes_nothing(need_retry):
    """To settle nothing is no error."""
    store = filled(1)

    store.cleanup([], need_retry)

    assert numbers(store.event_buffer) == [1]


def test_equal_payloads_are_not_duplicates():
    """Two events may look the same; both count, and one that is delivered does not take the other along."""
    store = InMemoryEventStore()
    for _ in range(3):
        store.add_event({"eid": "same"})
    batch = store.get_events_batch()

    store.cleanup(batch[:1], False)
    store.cleanup(batch[1:], True)

    assert store.event_buffer == [{"eid": "same"}] * 2
    assert store.event_buffer[0] is batch[1]


def test_capacity_never_refuses_a_retry():
    """An accepted payload is not dropped later, even if the store has filled up meanwhile."""
    store = filled(1, 2, buffer_capacity=2)
    batch = store.get_events_batch()
    store.add_event(Incomparable(eid=3))
    store.add_event(Incomparable(eid=4))

    store.cleanup(batch, True)

    assert numbers(store.event_buffer) == [1, 2, 3, 4]
    assert store.add_event({"eid": 5}) is False


def test_adding_and_settling_do_not_walk_through_what_waits():
    """A full buffer makes no operation on a small batch slower."""
    store = filled(*range(100))
    store.event_buffer = Countless(store.event_buffer)

    store.add_event(Incomparable(eid=100))
    delivered, failed = store.get_events_batch(2), store.get_events_batch(2)
    store.cleanup(delivered, False)
    store.cleanup(failed, True)

    assert store.size() == 99
    assert numbers(store.get_events_batch(3)) == [2, 3, 4]


def test_settled_payload_is_not_kept_alive():
    """The store forgets what it handed out, once it is settled."""
    store = filled(1, 2)
    batch = store.get_events_batch()

    store.cleanup(batch[:1], False)
    store.cleanup(batch[1:], True)

    assert store._handed_out == {}


def test_payloads_that_an_application_takes_out_for_itself_are_not_kept_for_ever():
    """The store remembers no more of what never comes back than an emitter can have under way, and that in order."""
    store = InMemoryEventStore(buffer_capacity=20_000)
    kept = [Incomparable(eid=0), Incomparable(eid=1)]
    for payload in kept:
        store.add_event(payload)
        store.get_events_batch()

    for number in range(2, 30_000):
        store.add_event(Incomparable(eid=number))
        store.get_events_batch()
    store.add_event(Incomparable(eid=30_000))
    store.cleanup(kept, True)

    assert len(store._handed_out) == 20_000
    assert numbers(store.get_events_batch()) == [0, 1, 30_000]


def test_cleared_store_has_neither_payloads_nor_memories():
    """Nothing waits after it, and what comes back from before counts as a stranger."""
    store = filled(1, 2, 3)
    store.cleanup(store.get_events_batch(1), True)
    out = store.get_events_batch(2)

    store.clear()

    assert store.get_events_batch() == []
    assert (store._handed_out, store._retry_turns) == ({}, [])
    store.cleanup(out, True)
    assert numbers(store.event_buffer) == [1, 2]


def test_buffer_that_the_application_emptied_goes_on_working():
    """The buffer is public: code that clears it must not make the store lose or repeat what comes later."""
    store = filled(1, 2, 3)
    batch = store.get_events_batch(1)
    store.cleanup(store.get_events_batch(2), True)

    store.event_buffer.clear()
    store.add_event(Incomparable(eid=4))
    store.cleanup(batch, True)

    assert sorted(numbers(store.get_events_batch())) == [1, 4]
    assert store.get_events_batch() == []


def test_what_is_added_in_the_middle_of_a_hand_out_stays():
    """A signal handler may come between the copy of the buffer and its emptying."""
    store = InMemoryEventStore()
    store.add_event({"eid": "0"})

    class Turns(list):
        def __getitem__(self, index):
            store.add_event({"eid": "of a handler"})
            return list.__getitem__(self, index)

    store._retry_turns = Turns()

    assert store.get_events_batch() == [{"eid": "0"}]
    assert store.get_events_batch()[0] == {"eid": "of a handler"}
