"""The store in memory through any sequence of calls, held against a list."""

from typing import Dict, List

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from snowplow_tracker import InMemoryEventStore

pytestmark = pytest.mark.thorough


class StoreMachine(RuleBasedStateMachine):
    """A store of a few equal and unequal payloads, some of which are handed out.

    The model is one list of what waits. A payload's rank is its place in the order of arrival; what comes from outside
    and has to wait has none, and goes before all others.
    """

    @initialize(capacity=st.integers(3, 9))
    def begin(self, capacity):
        self.store = InMemoryEventStore(buffer_capacity=capacity)
        self.kept: List[dict] = []
        self.ranks: Dict[int, int] = {}
        self.waiting: List[dict] = []
        self.out: List[dict] = []
        self.add([0, 1, 1, 0, 1])

    def payload(self, look):
        # Kept alive, so that an identity is not used twice.
        self.kept.append({"look": look})
        return self.kept[-1]

    @rule(looks=st.lists(st.integers(0, 1), min_size=1, max_size=6))
    def add(self, looks):
        for look in looks:
            payload = self.payload(look)
            has_room = len(self.waiting) < self.store.buffer_capacity
            assert self.store.add_event(payload) is has_room
            if has_room:
                self.ranks[id(payload)] = len(self.kept)
                self.waiting.append(payload)

    @rule(limit=st.sampled_from([2, 1, 3, 0, None]))
    def hand_out(self, limit):
        batch = self.store.get_events_batch() if limit is None else self.store.get_events_batch(limit)
        expected = self.waiting[:limit]
        assert same(batch, expected)
        self.waiting = self.waiting[len(expected) :]
        self.out += expected

    @precondition(lambda self: self.out)
    @rule(data=st.data(), count=st.integers(1, 4), need_retry=st.sampled_from([True, True, False]))
    def clean_up(self, data, count, need_retry):
        """Any selection of what is out comes back; for a retry in the order of arrival, as an emitter gives it back."""
        batch = data.draw(st.permutations(self.out))[:count]
        if need_retry:
            batch.sort(key=self.rank)
            self.waiting = sorted(batch + self.waiting, key=self.rank)
        self.store.cleanup(batch, need_retry)
        self.out = [payload for payload in self.out if not any(payload is other for other in batch)]

    @rule(looks=st.lists(st.integers(0, 1), max_size=3), need_retry=st.booleans())
    def clean_up_strangers(self, looks, need_retry):
        batch = [self.payload(look) for look in looks]
        self.store.cleanup(batch, need_retry)
        if need_retry:
            self.waiting = batch + self.waiting

    @rule(capacity=st.integers(1, 8))
    def change_capacity(self, capacity):
        self.store.buffer_capacity = capacity

    # What was hardly used has hardly anything to clear.
    @precondition(lambda self: len(self.kept) > 25)
    @rule()
    def clear(self):
        """What is out counts as coming from outside, should it come back."""
        self.store.clear()
        self.waiting = []
        self.ranks.clear()

    @invariant()
    def store_is_like_the_list(self):
        assert self.store.size() == len(self.waiting)
        assert same(self.store.event_buffer, self.waiting)

    def rank(self, payload):
        return self.ranks.get(id(payload), -1)


def same(payloads, others):
    return list(map(id, payloads)) == list(map(id, others))


def test_store_is_a_list_with_a_memory_of_order():
    """Whatever is added, handed out, settled and put back, what waits is in the order of arrival, by identity."""
    run_state_machine_as_test(StoreMachine, settings=settings(max_examples=80, stateful_step_count=30))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_store_is_a_list_in_long_lives():
    """The same with more steps, and another choice of them each time."""
    run_state_machine_as_test(
        StoreMachine, settings=settings(derandomize=False, max_examples=3000, stateful_step_count=80)
    )
