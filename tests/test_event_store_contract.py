"""Each of the library's event stores keeps the contract, and the contract finds stores that do not."""

import json
import os
import re
import sys
import time
import unittest
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import pytest
from durable_store import DurableStore

from snowplow_tracker import (
    InMemoryEventStore,
    RedisEventStore,
    SQLiteEventStore,
    redis_event_store,
    sqlite_event_store,
)
from snowplow_tracker.testing import EventStoreContract, event_store_contract


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A redis-server for all tests of this module."""
    pytest.importorskip("redis")
    redis_server = pytest.importorskip("redis_server")
    if redis_server.PROGRAM is None:
        pytest.skip("needs redis-server")
    with redis_server.RedisServer(tmp_path_factory.mktemp("redis")) as server:
        server.start()
        yield server


class TestInMemoryEventStore(EventStoreContract):
    """The store of an emitter that was given none."""

    def make_store(self):
        return InMemoryEventStore()


class TestDurableStore(EventStoreContract):
    """The stand-in that other tests use is as good as a real one, but for a fork, which copies its shelf."""

    def make_store(self):
        self.store = DurableStore(hand_out_size=1_000)
        return self.store

    def open_again(self):
        return DurableStore(self.store.shelf)

    test_forked_child_shares_a_durable_store = test_payloads_of_a_killed_process_return = None


class TestSQLiteEventStore(EventStoreContract):
    """The store in a file."""

    lost_payloads_return_within_seconds = 120

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path, monkeypatch):
        self.shift = 0.0
        clock = SimpleNamespace(time=lambda: time.time() + self.shift, monotonic=lambda: time.monotonic() + self.shift)
        monkeypatch.setattr(sqlite_event_store, "time", clock)
        self.make_store = self.open_again = lambda: SQLiteEventStore(tmp_path / "events.db")

    def let_time_pass(self, seconds):
        self.shift += seconds


class TestRedisEventStore(EventStoreContract):
    """The store on a server."""

    lost_payloads_return_within_seconds = 132

    @pytest.fixture(autouse=True)
    def _database(self, server, monkeypatch):
        self.shift = 0.0
        self.client = server.client
        self.client.flushall()
        monkeypatch.setattr(redis_event_store, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + self.shift))
        self.make_store = self.open_again = lambda: RedisEventStore(server.url, timeout=10.0)

    def let_time_pass(self, seconds):
        self.shift += seconds
        key, group = "snowplow:events", "senders"
        for entry in self.client.xpending_range(key, group, "-", "+", 9):
            idle = entry["time_since_delivered"] + round(seconds * 1000)
            self.client.xclaim(key, group, entry["consumer"], 0, [entry["message_id"]], idle=idle, justid=True)


def samples():
    """Run the files of the page that have a store and its tests."""
    page = Path(__file__).resolve().parents[1] / "docs" / "stores.md"
    files = re.findall(
        r"^```python\n# (\w*folder_store)\.py\n(.*?)^```$",
        page.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    with mock.patch.dict(sys.modules):
        for name, code in files:
            module = sys.modules[name] = ModuleType(name)
            exec(compile(code, f"{name}.py", "exec"), vars(module))
        return sys.modules["folder_store"].FolderEventStore, sys.modules["test_folder_store"].TestFolderEventStore


if sys.platform == "win32":
    # There is no fcntl.
    FolderEventStore, TestFolderEventStore = object, None
else:
    FolderEventStore, TestFolderEventStore = samples()


class Forgetful(DurableStore):
    """Loses what is put back."""

    def cleanup(self, batch, need_retry):
        super().cleanup(batch, False)


class Repeating(DurableStore):
    """Hands out what waits, and lets it wait all the same."""

    def get_events_batch(self, limit=None):
        batch = super().get_events_batch(limit)
        self.end_leases()
        return batch


class Reversed(DurableStore):
    """Hands out the other way round."""

    def get_events_batch(self, limit=None):
        return super().get_events_batch(limit)[::-1]


class Comparing(InMemoryEventStore):
    """Knows payloads by what they look like."""

    def cleanup(self, batch, need_retry):
        handed_out = [payload for _, payload in self._handed_out.values()]
        super().cleanup([payload for payload in handed_out if payload in batch], need_retry)


class Greedy(DurableStore):
    """Hands out a whole backlog."""

    def get_events_batch(self, limit=None):
        batch = super().get_events_batch(limit)
        while limit is None and batch and self.size():
            batch += super().get_events_batch()
        return batch


class Fragile(DurableStore):
    """Fails when two threads are in it."""

    is_busy = False

    def add_event(self, payload):
        raise OSError("two threads")


def give_all_back(store):
    for file in store.folder.glob("*"):
        if file.suffix not in ("", ".json"):
            store._give_back(file)


class NeverReturning(FolderEventStore):
    """Leaves what a process had that was killed where it is."""

    def _end_leases(self):
        pass


class OpeningForAll(FolderEventStore):
    """Takes whatever is in flight when it is opened for lost."""

    def __init__(self, folder):
        super().__init__(folder)
        give_all_back(self)


class ClosingForAll(FolderEventStore):
    """Gives back more than its own."""

    def close(self):
        give_all_back(self)


class Keeping(FolderEventStore):
    """Has others wait for the lease, though it is closed in good order."""

    def close(self):
        pass


class Duplicating(FolderEventStore):
    """Gives back what it had in a copy, when a process is gone."""

    def _end_leases(self):
        for file in self.folder.glob("*"):
            if file.suffix not in ("", ".json") and time.time() - file.stat().st_mtime > self.lease_seconds:
                self._add(json.loads(file.read_text()))
                self._give_back(file)


class Unrenewed(FolderEventStore):
    """Has a method for it, which does nothing."""

    def renew(self):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fcntl here")
@pytest.mark.parametrize(
    ("store", "rule"),
    [
        (NeverReturning, "payloads_of_a_killed_process_return"),
        (Duplicating, "payloads_of_a_killed_process_return"),
        (OpeningForAll, "opening_and_closing_one_object_leaves_alone_what_another_has"),
        (ClosingForAll, "opening_and_closing_one_object_leaves_alone_what_another_has"),
        (Keeping, "closed_object_gives_back_what_it_has"),
        (Unrenewed, "what_is_renewed_stays_in_flight"),
    ],
)
def test_contract_finds_a_store_that_does_not_lend(tmp_path, store, rule):
    """What is in flight is lent: it comes back, but not before it must, and once."""
    contract = TestFolderEventStore()
    contract.setup_method()
    contract.folder = tmp_path / "events"
    contract.make_store = contract.open_again = lambda: store(contract.folder)

    with pytest.raises(AssertionError):
        getattr(contract, f"test_{rule}")()


def test_contract_has_to_know_how_long_payloads_are_lost():
    """No time would be right for each store."""
    with pytest.raises(NotImplementedError, match=r"^lost_payloads_return_within_seconds has to say"):
        contract_of(DurableStore()).test_payloads_of_a_killed_process_return()


def test_time_passes_by_itself(monkeypatch):
    """Unless a test of a store has a better way, it waits."""
    waits = []
    monkeypatch.setattr(event_store_contract.time, "sleep", waits.append)

    EventStoreContract().let_time_pass(0.25)

    assert waits == [0.25]


def contract_of(store):
    class Contract(EventStoreContract):
        def make_store(self):
            return store

        def open_again(self):
            return store

    contract = Contract()
    contract.setup_method()
    return contract


@pytest.mark.parametrize(
    ("store", "rule"),
    [
        (Forgetful(), "payloads_of_a_retry_go_before_what_came_later"),
        (Forgetful(), "part_of_a_batch_may_come_back"),
        (Reversed(), "payloads_are_handed_out_oldest_first"),
        (Comparing(), "equal_payloads_are_not_duplicates"),
        (Comparing(), "payloads_are_known_by_identity"),
        (Greedy(), "durable_store_hands_out_about_one_request"),
        (Repeating(hand_out_size=1_000), "durable_store_hands_out_about_one_request"),
        (Fragile(), "durable_store_serves_several_threads"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, DurableStore) else None,
)
def test_contract_finds_what_is_wrong(store, rule):
    """A store that breaks a rule fails the test of that rule."""
    with pytest.raises(AssertionError):
        getattr(contract_of(store), f"test_{rule}")()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_contract_finds_a_store_that_is_not_for_a_fork():
    """What the child does to a copy in its memory, the parent does not see."""
    with pytest.raises(AssertionError):
        contract_of(DurableStore(hand_out_size=9)).test_forked_child_shares_a_durable_store()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_contract_finds_a_store_that_fails_in_a_child():
    """So does one that raises there."""

    class OfTheParent(DurableStore):
        parent = os.getpid()

        def get_events_batch(self, limit=None):
            assert os.getpid() == self.parent
            return super().get_events_batch(limit)

    with pytest.raises(AssertionError):
        contract_of(OfTheParent(hand_out_size=9)).test_forked_child_shares_a_durable_store()


@pytest.mark.parametrize("hook", ["make_store", "open_again"])
def test_contract_says_what_it_needs(hook):
    """Without a store there is nothing to test."""
    with pytest.raises(NotImplementedError, match=f"^{hook} has to return"):
        getattr(EventStoreContract(), hook)()


def test_contract_takes_stores_with_the_methods_and_no_more():
    """A store that hands out None, and has nothing of what is optional, is as good as any."""

    class Plain:
        def __init__(self):
            self.inner = InMemoryEventStore()
            self.add_event, self.cleanup, self.size = self.inner.add_event, self.inner.cleanup, self.inner.size

        def get_events_batch(self):
            return self.inner.get_events_batch() or None

    outcomes = [outcome_of(contract_of(Plain()), rule) for rule in dir(EventStoreContract) if rule.startswith("test_")]

    assert set(outcomes) == {"passed", "skipped"}


def outcome_of(contract, rule):
    try:
        getattr(contract, rule)()
    except unittest.SkipTest:
        return "skipped"
    finally:
        contract.teardown_method()
    return "passed"
