"""Two stores on one stream of Redis through any sequence of calls, held against a list."""

import json
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

from snowplow_tracker import RedisEventStore, redis_event_store

redis = pytest.importorskip("redis", reason="needs redis-py, of the extra redis")

from redis_server import PROGRAM, RedisServer  # noqa: E402  # it needs redis-py, too

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(PROGRAM is None, reason="needs redis-server, of the distribution's package of that name"),
]

KEY = "snowplow:events"
GROUP = "senders"
MOST_BYTES = 300

which_store = st.integers(0, 1)


class StreamMachine(RuleBasedStateMachine):
    """Payloads of several sizes that wait, or that one of two stores has handed out.

    The model is one list of what waits, in the order of arrival. The ids in it are numbers that grow.
    """

    server: RedisServer

    @initialize()
    def begin(self):
        self.server.client.flushall()
        self.stores = [RedisEventStore(self.server.url) for _ in range(2)]
        self.arrived = 0
        self.sizes: Dict[int, int] = {}
        self.waiting: List[int] = []
        self.out: List[List[dict]] = [[], []]

    def teardown(self):
        for store in getattr(self, "stores", []):
            store.close()

    def payload(self, size):
        self.arrived += 1
        payload = {"eid": self.arrived, "x": "x" * size}
        self.sizes[self.arrived] = len(json.dumps(payload, separators=(",", ":")))
        return payload

    @rule(which=which_store, sizes=st.lists(st.sampled_from([0, 50, 120, 400]), min_size=1, max_size=8))
    def add(self, which, sizes):
        for size in sizes:
            payload = self.payload(size)
            assert self.stores[which].add_event(payload) is True
            self.waiting.append(payload["eid"])

    @rule(which=which_store, limit=st.sampled_from([None, 1, 2, 3, 20]))
    def hand_out(self, which, limit):
        batch = self.stores[which].get_events_batch(limit)
        expected: List[int] = []
        for eid in self.waiting[:limit]:
            if expected and sum(self.sizes[other] for other in [*expected, eid]) > MOST_BYTES:
                break
            expected.append(eid)
        assert [payload["eid"] for payload in batch] == expected
        self.waiting = self.waiting[len(expected) :]
        self.out[which] += batch

    @precondition(lambda self: any(self.out))
    @rule(which=which_store, data=st.data(), count=st.integers(1, 4), need_retry=st.sampled_from([True, True, False]))
    def clean_up(self, which, data, count, need_retry):
        batch = data.draw(st.permutations(self.out[which]))[:count]
        for payload in batch:
            payload["stm"] = "1"
        self.stores[which].cleanup(batch, need_retry)
        self.out[which] = [payload for payload in self.out[which] if not any(payload is other for other in batch)]
        if need_retry:
            self.let_wait(batch)

    @rule(which=which_store, sizes=st.lists(st.sampled_from([0, 120]), max_size=2), need_retry=st.booleans())
    def clean_up_strangers(self, which, sizes, need_retry):
        batch = [self.payload(size) for size in sizes]
        self.stores[which].cleanup(batch, need_retry)
        if need_retry:
            self.let_wait(batch)

    @rule(which=which_store)
    def close(self, which):
        self.stores[which].close()
        self.let_wait(self.out[which])
        self.out[which] = []

    @rule(which=which_store)
    def lose_an_answer(self, which):
        """What Redis has handed out on the way to nobody waits again, as soon as its store asks for more."""
        holder = self.stores[which]._holder()
        held = {claim.payload["eid"] for claim in holder._claims.values() if claim.lease_ends_at}
        if held & set(self.waiting):
            # Of what came back meanwhile it cannot know that it does not hold it any more, until its lease ends.
            return
        holder._stream.take(2, MOST_BYTES, 10**9, False)
        holder._may_have_more = True
        holder._catch_up()

    @rule(which=which_store)
    def end_leases(self, which):
        """Both stores were too slow; the next hand-out notices."""
        for entry in self.server.client.xpending_range(KEY, GROUP, "-", "+", 1000) if any(self.out) else []:
            arguments = (KEY, GROUP, entry["consumer"], 0, [entry["message_id"]])
            self.server.client.xclaim(*arguments, idle=10**9, justid=True)
        self.let_wait(self.out[0] + self.out[1])
        self.out = [[], []]
        for store in self.stores:
            store._holder()._ends_leases_at = None

    @invariant()
    def nothing_is_lost(self):
        assert self.server.client.xlen(KEY) == len(self.waiting) + len(self.out[0]) + len(self.out[1])

    def let_wait(self, batch):
        self.waiting = sorted([*self.waiting, *(payload["eid"] for payload in batch)])


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(redis_event_store, "_MOST_BYTES", MOST_BYTES)
    with RedisServer(tmp_path) as server:
        server.start()
        yield type("Machine", (StreamMachine,), {"server": server})


def test_stream_is_a_list_that_two_stores_share(machine):
    """Whatever either store adds, hands out, settles, gives back or loses, what waits is in the order of arrival."""
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=25))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_stream_is_a_list_in_long_lives(machine):
    """The same with more steps, and another choice of them each time."""
    run_state_machine_as_test(machine, settings=settings(derandomize=False, max_examples=1000, stateful_step_count=60))
