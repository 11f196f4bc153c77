"""An emitter that only stores: nothing of it may reach for the network, or for a thread."""

import logging
import os
import socket
import threading

import pytest
from durable_store import DurableStore
from support import eids, own_threads

from snowplow_tracker import Emitter, InMemoryEventStore, PageView, StoreOnlyEmitter, Tracker, store_only_emitter
from snowplow_tracker._lifecycle import Lifecycle, lifecycle

DISK = OSError("disk is gone")


@pytest.fixture
def store():
    return DurableStore(hand_out_size=1_000)


def test_payload_is_stored_as_a_post_would_carry_it(store):
    """All values are text, what has no value is left out, and the payload is a copy."""
    payload = {"eid": "0", "flag": True, "count": 3, "data": {"x": [1]}, "nothing": None}

    StoreOnlyEmitter(store).input(payload)

    assert store.get_events_batch() == [{"eid": "0", "flag": "true", "count": "3", "data": '{"x":[1]}'}]
    assert payload["count"] == 3


@pytest.mark.parametrize("payload", [None, [], "eid=0"])
def test_input_takes_dicts_only(store, payload):
    """Anything else is the caller's mistake."""
    with pytest.raises(TypeError, match=r"^payload must be a dict, got "):
        StoreOnlyEmitter(store).input(payload)


def test_stored_events_are_sent_by_another_emitter(collector, store):
    """A process tracks, another one sends."""
    storing = StoreOnlyEmitter(store)
    with Tracker("shop", storing) as tracker:
        eid = tracker.track(PageView(page_url="https://example.com"))
        tracker.flush()

    Emitter(collector.url, event_store=DurableStore(store.shelf)).sync_flush()

    assert eids(collector.payloads) == [eid]


def test_nothing_is_sent_and_nothing_runs(store, monkeypatch):
    """Whatever it does, no connection is made and no thread starts."""
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: pytest.fail("a connection was made"))
    threads = own_threads()
    emitter = StoreOnlyEmitter(store)

    for number in range(100):
        emitter.input({"eid": str(number)})
    emitter.close()

    assert store.size() == 100
    assert own_threads() <= threads
    assert not any(hasattr(emitter, name) for name in ("flush", "sync_flush", "async_flush"))


def test_constructor_leaves_the_store_alone(store):
    """Emitters are built while applications are imported."""
    StoreOnlyEmitter(store)

    assert store.calls == []


@pytest.mark.parametrize("wrong", [None, 3, DurableStore, object()])
def test_store_must_be_one(wrong):
    """A wrong argument is refused at its line."""
    with pytest.raises(TypeError, match=r"^store must "):
        StoreOnlyEmitter(wrong)


def test_callback_must_be_callable(store):
    """So is a wrong callback, which may be set later."""
    with pytest.raises(TypeError, match=r"^on_failure must be callable"):
        StoreOnlyEmitter(store, on_failure="print")


def test_capacity_of_the_store_is_honoured(caplog):
    """What has no room is dropped: counted, reported to the callback, and logged at first and then in sums."""
    told = []
    emitter = StoreOnlyEmitter(
        DurableStore(buffer_capacity=2), on_failure=lambda count, payloads: told.append((count, eids(payloads)))
    )

    for number in range(5):
        emitter.input({"eid": str(number)})

    stats = emitter.stats()
    assert (stats.accepted, stats.dropped, stats.buffered, stats.in_flight) == (2, 3, 2, 0)
    assert told == [(0, ["2"]), (0, ["3"]), (0, ["4"])]
    assert caplog.messages == ["Dropped 1 payloads: the buffer is full"]
    emitter.close()
    assert caplog.messages[1:] == ["Dropped 2 payloads: the buffer is full"]


@pytest.mark.parametrize("method", ["size", "add_event"])
def test_store_that_fails_costs_the_payload_and_nothing_else(store, caplog, method):
    """The reason is logged, with what the store raised."""
    emitter = StoreOnlyEmitter(store)
    store.trouble[method] = DISK

    emitter.input({"eid": "0"})
    emitter.input({"eid": "1"})

    assert (emitter.stats().dropped, store.shelf.eids()) == (1, ["1"])
    assert "Dropped 1 payloads: the event store failed" in caplog.text
    assert "disk is gone" in caplog.text


def test_callback_that_fails_does_no_harm(caplog):
    """It is logged; and a payload that it puts in again is dropped without another call."""
    calls = []

    def again(count, payloads):
        calls.append(count)
        emitter.input(payloads[0])
        raise ValueError("of a callback")

    emitter = StoreOnlyEmitter(InMemoryEventStore(buffer_capacity=1))
    emitter.on_failure = again

    emitter.input({"eid": "0"})
    emitter.input({"eid": "1"})

    assert (calls, emitter.stats().dropped) == ([0], 2)
    assert "of a callback" in caplog.text


def test_closed_emitter_drops_with_a_log_line(store, caplog):
    """To close it again does no harm; a `with` statement closes it."""
    with StoreOnlyEmitter(store) as emitter:
        emitter.input({"eid": "0"})
    assert emitter.close(timeout=5) is True

    emitter.input({"eid": "late"})

    assert store.shelf.eids() == ["0"]
    assert "Dropped 1 payloads: the emitter is closed" in caplog.text
    assert store.closings == 0


def test_store_is_given_back_as_it_came(store):
    """It can be looked at."""
    assert StoreOnlyEmitter(store).event_store is store


def test_store_of_a_url_is_closed_with_its_emitter(store, monkeypatch):
    """Nobody else knows it. At exit it is closed as well."""
    monkeypatch.setattr(store_only_emitter, "event_store_from_url", {"sqlite:///events.db": store}.get)
    emitter = StoreOnlyEmitter("sqlite:///events.db")

    emitter.close()
    emitter._flush_at_exit(1.0)

    assert store.closings == 2


def test_exit_tells_of_the_drops_that_no_sum_has_told(caplog):
    """And it takes no time; a store that is full is no loss of what is in it."""
    emitter = StoreOnlyEmitter(DurableStore(buffer_capacity=1))
    for number in range(4):
        emitter.input({"eid": str(number)})
    registry = Lifecycle()
    registry.register(emitter)
    caplog.clear()

    registry.at_exit()
    emitter._give_up("of a test")

    assert caplog.messages == ["Dropped 2 payloads: the buffer is full"]


def test_several_threads_may_track(store):
    """Each payload is stored once."""
    emitter = StoreOnlyEmitter(store)

    def work(name):
        for number in range(50):
            emitter.input({"eid": f"{name}{number}"})

    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert emitter.stats().accepted == store.size() == len(set(store.shelf.eids())) == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_child_begins_anew(store, caplog):
    """Its lock is free, whoever held the parent's, and its figures are its own."""
    caplog.set_level(logging.CRITICAL)
    emitter = StoreOnlyEmitter(store)
    emitter.input({"eid": "of the parent"})
    is_held, may_go_on = threading.Event(), threading.Event()

    def hold():
        with emitter._ledger.lock:
            is_held.set()
            may_go_on.wait(15)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    is_held.wait(15)
    child = os.fork()
    if not child:
        emitter.input({"eid": "of the child"})
        os._exit(0 if (emitter.stats().accepted, emitter.stats().buffered) == (1, 2) else 1)
    may_go_on.set()
    holder.join()

    assert os.waitpid(child, 0)[1] == 0
    assert emitter in lifecycle._living()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_store_in_memory_is_empty_in_a_child():
    """What is in the memory of the parent is the parent's."""
    emitter = StoreOnlyEmitter(InMemoryEventStore())
    emitter.input({"eid": "0"})

    emitter._begin_anew_in_child()

    assert emitter.stats().buffered == 0
