"""What every event store has to do, as tests that the author of one inherits."""

import inspect
import json
import os
import signal
import threading
import time
import unittest
import warnings
from typing import Any, Callable, List, Optional

from ..emitters import Emitter
from ..store_only_emitter import StoreOnlyEmitter
from ..typing import EventStore, PayloadDict, PayloadDictList
from .collector import LocalCollector

__all__ = ["EventStoreContract"]

# What makes about one request, and room for what a store counts in another way.
_MOST_BYTES_AT_A_TIME = 1_000_000
# How often it is looked whether lost payloads have returned.
_STEPS = 10


class EventStoreContract:
    """The contract of `EventStore`, for pytest; each method that begins with `test` is one rule of it.

    Inherit it in a class whose name begins with `Test`, and say how to make a store::

        class TestMyStore(EventStoreContract):
            @pytest.fixture(autouse=True)
            def _folder(self, tmp_path):
                self.path = tmp_path / "events"

            def make_store(self):
                return MyStore(self.path)

            def open_again(self):
                return MyStore(self.path)

    What a store does not claim (to be durable, to know a limit) is skipped. Stores that have a method `close` are
    closed after each test.

    Attributes:
        lost_payloads_return_within_seconds: How long it takes at the most until payloads wait again that a process had
            in flight when it was killed; for durable stores. It may be more than a test should take, see
            `let_time_pass`.
    """

    lost_payloads_return_within_seconds: Optional[float] = None

    def make_store(self) -> Any:
        """Return a new store that is empty; called once in each test."""
        raise NotImplementedError("make_store has to return an empty event store")

    def open_again(self) -> Any:
        """Return another object for the same file or server, as another process would have it; for durable stores."""
        raise NotImplementedError("open_again has to return another object for what the durable store keeps")

    def let_time_pass(self, seconds: float) -> None:
        """Wait. A test of a store with a long lease may set the store's clock instead, or make claims look older."""
        time.sleep(seconds)

    def setup_method(self) -> None:
        """Begin without stores; called by pytest."""
        self._stores: List[Any] = []

    def teardown_method(self) -> None:
        """Close the stores of a test; called by pytest."""
        for store in self._stores:
            if hasattr(store, "close"):
                store.close()

    def test_store_has_the_methods_of_the_protocol(self) -> None:
        """It is an `EventStore` by its shape."""
        assert isinstance(self._store(), EventStore)

    def test_empty_store_has_nothing_to_hand_out(self) -> None:
        """A new store is empty, and says so."""
        store = self._store()

        assert (store.size(), _taken(store)) == (0, [])

    def test_payloads_are_handed_out_oldest_first(self) -> None:
        """They leave in the order in which they came."""
        store = self._filled(25)

        assert store.size() == 25
        assert _eids(_take_all(store)) == _numbers(25)

    def test_payload_is_handed_out_once(self) -> None:
        """What is handed out does not wait any more, and is not handed out again."""
        store = self._filled(3)
        _take_all(store)

        assert (store.size(), _taken(store)) == (0, [])

    def test_payload_comes_out_as_it_went_in(self) -> None:
        """Its names and values are the same, whatever text they are; numbers, which a GET may have, stay numbers."""
        store = self._store()
        payloads: PayloadDictList = [
            {"eid": "texts", "empty": "", "quotes": '"\\\n\x00', "wide": "漢字 😀", "lone": "\ud800", "é": "name"},
            {"eid": "numbers", "zero": 0, "large": 2**70, "fraction": 0.1, "negative": -1.5e300},
            {},
        ]
        for payload in payloads:
            assert store.add_event(dict(payload)) is not False

        taken = _take_all(store)

        assert taken == payloads
        kinds = [[type(value) for value in payload.values()] for payload in taken]
        assert kinds == [[type(value) for value in payload.values()] for payload in payloads]

    def test_delivered_payloads_are_gone(self) -> None:
        """What is settled comes back never."""
        store = self._filled(3)

        store.cleanup(_take_all(store), False)

        assert (store.size(), _taken(store)) == (0, [])

    def test_payloads_of_a_retry_go_before_what_came_later(self) -> None:
        """They wait again, in their order, and before those that came meanwhile."""
        store = self._filled(3)
        batch = _take_all(store)
        _add(store, 3, 5)

        store.cleanup(batch, True)

        assert store.size() == 5
        assert _eids(_take_all(store)) == _numbers(5)

    def test_part_of_a_batch_may_come_back(self) -> None:
        """Some of the payloads that were handed out together are delivered, others are not."""
        store = self._filled(4)
        first, second, third, fourth = _take_all(store)

        store.cleanup([first, third], False)
        store.cleanup([second, fourth], True)

        assert store.size() == 2
        assert _eids(_take_all(store)) == ["1", "3"]

    def test_payload_may_come_back_again_and_again(self) -> None:
        """A retry may fail like the attempt before; the payload has its sent timestamp by then."""
        store = self._filled(2)
        for _ in range(3):
            batch = _take_all(store)
            for payload in batch:
                payload["stm"] = "1600000000000"

            store.cleanup(batch, True)

        batch = _take_all(store)
        assert [{**payload, "stm": ""} for payload in batch] == [{**_payload(n), "stm": ""} for n in range(2)]
        store.cleanup(batch, False)
        assert (store.size(), _taken(store)) == (0, [])

    def test_nothing_to_settle_is_no_error(self) -> None:
        """An empty batch changes nothing."""
        store = self._filled(1)

        store.cleanup([], True)
        store.cleanup([], False)

        assert _eids(_take_all(store)) == ["0"]

    def test_equal_payloads_are_not_duplicates(self) -> None:
        """Two events may look the same: settling one of them leaves the other alone."""
        store = self._store()
        for _ in range(3):
            store.add_event(_payload(0))
        batch = _take_all(store)

        store.cleanup(batch[:1], False)
        store.cleanup(batch[1:], True)

        assert len(batch) == 3
        assert store.size() == 2
        assert _eids(_take_all(store)) == ["0", "0"]

    def test_payloads_are_known_by_identity(self) -> None:
        """A payload that only looks like one that was handed out does not settle it."""
        store = self._filled(1)
        (payload,) = _take_all(store)

        store.cleanup([dict(payload)], False)
        store.cleanup([payload], True)

        assert _eids(_take_all(store)) == ["0"]

    def test_payload_from_outside_is_kept_for_a_retry(self) -> None:
        """An application may send payloads that never were in the store; if they fail, they wait like all others."""
        store = self._filled(1)

        store.cleanup([_payload(8), _payload(9)], True)

        assert store.size() == 3
        assert sorted(_eids(_take_all(store))) == ["0", "8", "9"]

    def test_payload_from_outside_that_is_delivered_is_ignored(self) -> None:
        """The store is told of each delivery."""
        store = self._filled(1)

        store.cleanup([_payload(9)], False)

        assert _eids(_take_all(store)) == ["0"]

    def test_capacity_bounds_what_waits(self) -> None:
        """What does not fit is refused, be it by the store or by the emitter, which reads the capacity."""
        store = self._store()
        self._require(hasattr(store, "buffer_capacity"), "the store has no buffer_capacity")
        store.buffer_capacity = 2
        emitter = StoreOnlyEmitter(store)

        for number in range(3):
            emitter.input(_payload(number))

        assert (emitter.stats().accepted, emitter.stats().dropped) == (2, 1)
        assert _eids(_take_all(store)) == ["0", "1"]

    def test_capacity_never_refuses_a_retry(self) -> None:
        """What was accepted is not dropped later, even if the store has filled up meanwhile."""
        store = self._filled(2)
        self._require(hasattr(store, "buffer_capacity"), "the store has no buffer_capacity")
        store.buffer_capacity = 2
        batch = _take_all(store)
        _add(store, 2, 4)

        store.cleanup(batch, True)

        assert _eids(_take_all(store)) == _numbers(4)

    def test_limit_bounds_a_hand_out(self) -> None:
        """No more are handed out than asked for, the oldest; the rest waits."""
        store = self._filled(5)
        self._require_limit(store)

        batches = [_eids(store.get_events_batch(limit=limit)) for limit in (1, 3, 9)]

        assert batches == [["0"], ["1", "2", "3"], ["4"]]

    def test_order_is_kept_whatever_order_batches_fail_in(self) -> None:
        """Several threads may give their shares back in any order."""
        store = self._filled(6)
        self._require_limit(store)
        batches = [store.get_events_batch(limit=2) for _ in range(3)]
        _add(store, 6, 7)

        for batch in (batches[2], batches[0], batches[1]):
            store.cleanup(batch, True)

        assert _eids(_take_all(store)) == _numbers(7)

    def test_emitter_delivers_each_payload_once(self) -> None:
        """Through a failure as well."""
        store = self._store()
        with LocalCollector() as collector:
            collector.respond_with(503)
            emitter = Emitter(collector.url, batch_size=1_000, event_store=store, flush_on_exit=False)
            for number in range(20):
                emitter.input(_payload(number))
            emitter.sync_flush()
            emitter.sync_flush()
            emitter.close()

            arrived = [request.payloads for request in collector.requests]
        assert [_eids(payloads) for payloads in arrived] == [_numbers(20)] * 2
        assert (store.size(), emitter.stats().delivered) == (0, 20)

    def test_durable_store_hands_out_about_one_request(self) -> None:
        """A backlog must not enter the memory at once. A payload that is larger than a request is handed out alone."""
        store = self._durable_store()
        sizes = [*[100_000] * 20, 2_000_000, 10]
        for number, size in enumerate(sizes):
            store.add_event({**_payload(number), "url": "x" * size})

        batches: List[PayloadDictList] = []
        while len(batches) <= len(sizes):
            batch = _taken(store)
            if not batch:
                break
            batches.append(batch)

        assert [eid for batch in batches for eid in _eids(batch)] == _numbers(len(sizes))
        assert all(len(batch) == 1 or len(json.dumps(batch)) <= _MOST_BYTES_AT_A_TIME for batch in batches)

    def test_durable_store_keeps_payloads_when_it_is_closed(self) -> None:
        """They are there when it is opened again, in their order."""
        store = self._durable_store(5)
        store.close()

        again = self._keep(self.open_again())

        assert again.size() == 5
        assert _eids(_take_all(again)) == _numbers(5)

    def test_durable_store_that_was_closed_opens_when_it_is_used(self) -> None:
        """An emitter that has closed its store may still have to settle what was in flight."""
        store = self._durable_store(2)
        store.close()
        store.close()

        _add(store, 2, 3)

        assert _eids(_take_all(store)) == _numbers(3)

    def test_settled_payloads_of_a_durable_store_are_gone_for_good(self) -> None:
        """Opened again, the store has only what was put back."""
        store = self._durable_store(3)
        first, second, third = _take_all(store)
        store.cleanup([first, third], False)
        store.cleanup([second], True)
        store.close()

        assert _eids(_take_all(self._keep(self.open_again()))) == ["1"]

    def test_two_objects_for_one_durable_store_never_hand_out_the_same(self) -> None:
        """Each payload goes to one of them, and what one has in flight is not the other's."""
        store = self._durable_store()
        other = self._keep(self.open_again())
        _add(store, 0, 10)
        _add(other, 10, 20)

        mine = store.get_events_batch(limit=7)
        others = other.get_events_batch(limit=7)
        rest = _take_all(other)

        assert _eids(mine + others + rest) == _numbers(20)
        assert _taken(store) == []

    def test_opening_and_closing_one_object_leaves_alone_what_another_has(self) -> None:
        """A process that begins or ends must not have payloads sent again that another one is sending."""
        store = self._durable_store(3)
        in_flight = _take_all(store)

        other = self._keep(self.open_again())
        taken = [other.size(), _taken(other)]
        other.close()
        again = self._keep(self.open_again())
        taken += [again.size(), _taken(again)]

        assert taken == [0, [], 0, []]
        store.cleanup(in_flight, True)
        assert _eids(_take_all(again)) == _numbers(3)

    def test_closed_object_gives_back_what_it_has(self) -> None:
        """Others need not wait until it is seen that nobody sends it."""
        store = self._durable_store(4)
        in_flight = _take_all(store)
        store.cleanup(in_flight[1:2], False)

        store.close()

        assert _eids(_take_all(self._keep(self.open_again()))) == ["0", "2", "3"]

    def test_payloads_of_a_killed_process_return(self) -> None:
        """What it had in flight is lost to nobody: it waits again before long, in its order, and once."""
        store = self._durable_store()
        self._require(hasattr(os, "fork"), "there is no fork here")
        seconds = self._seconds_until_lost_payloads_return()
        other = self._keep(self.open_again())
        _add(store, 0, 3)

        def in_child() -> None:  # pragma: no cover  # it is killed before it can tell what was run
            assert len(_take_all(self.open_again())) == 3
            os.kill(os.getpid(), signal.SIGKILL)

        assert _exit_code_of_child(in_child) == signal.SIGKILL
        taken = _deliver_all(other)
        while seconds > 0 and not taken:
            self.let_time_pass(self._step())
            seconds -= self._step()
            taken = _deliver_all(other)
        assert taken == _numbers(3)

    def test_what_is_renewed_stays_in_flight(self) -> None:
        """A sender that takes its time, and says so, is not taken for one that was killed."""
        store = self._durable_store(3)
        self._require(hasattr(store, "renew"), "the store knows no renewal")
        other = self._keep(self.open_again())
        in_flight = _take_all(store)
        others: PayloadDictList = []

        for _ in range(_STEPS + _STEPS // 2):
            self.let_time_pass(self._step())
            store.renew()
            others += _taken(other)

        assert others == []
        store.cleanup(in_flight, True)
        assert _eids(_take_all(other)) == _numbers(3)

    def test_payload_that_one_object_puts_back_is_there_for_another(self) -> None:
        """A retry may be made by any process."""
        store = self._durable_store(2)
        other = self._keep(self.open_again())
        batch = _take_all(store)
        assert _taken(other) == []

        store.cleanup(batch, True)

        assert _eids(_take_all(other)) == ["0", "1"]

    def test_durable_store_serves_several_threads(self) -> None:
        """Emitters with locks of their own may share it: all that is put in comes out, once."""
        store = self._durable_store()
        stores = [store, store, self._keep(self.open_again())]
        taken: List[PayloadDict] = []

        def work(position: int) -> None:
            mine = stores[position]
            for number in range(20):
                mine.add_event(_payload(20 * position + number))
                batch = mine.get_events_batch(limit=3)
                taken.extend(batch[1:])
                mine.cleanup(batch[:1], True)
                mine.cleanup(batch[1:], False)

        _in_threads(work, len(stores))

        taken.extend(_take_all(store))
        assert sorted(_eids(taken), key=int) == _numbers(60)

    def test_forked_child_shares_a_durable_store(self) -> None:
        """The child may use the object that it has inherited: it gets what waits, and not what its parent has."""
        store = self._durable_store()
        self._require(hasattr(os, "fork"), "there is no fork here")
        _add(store, 0, 2)
        in_flight = _take_all(store)
        _add(store, 2, 4)

        def in_child() -> None:
            assert _eids(_take_all(store)) == ["2", "3"]
            _add(store, 4, 5)

        assert _exit_code_of_child(in_child) == 0
        store.cleanup(in_flight[:1], True)
        store.cleanup(in_flight[1:], False)
        # What the child had in flight when it ended is its own until it is seen to be gone.
        batch = _eids(_take_all(store))
        assert [eid for eid in batch if eid not in ("2", "3")] == ["0", "4"]

    def _store(self) -> Any:
        return self._keep(self.make_store())

    def _keep(self, store: Any) -> Any:
        self._stores.append(store)
        return store

    def _filled(self, count: int) -> Any:
        store = self._store()
        _add(store, 0, count)
        return store

    def _durable_store(self, count: int = 0) -> Any:
        store = self._filled(count)
        self._require(getattr(store, "is_durable", False), "the store is not durable")
        return store

    def _seconds_until_lost_payloads_return(self) -> float:
        seconds = self.lost_payloads_return_within_seconds
        if seconds is None:
            raise NotImplementedError("lost_payloads_return_within_seconds has to say how long a killed process counts")
        return seconds

    def _step(self) -> float:
        return self._seconds_until_lost_payloads_return() / _STEPS

    def _require_limit(self, store: Any) -> None:
        self._require("limit" in inspect.signature(store.get_events_batch).parameters, "the store knows no limit")

    @staticmethod
    def _require(condition: bool, otherwise: str) -> None:
        if not condition:
            # pytest knows this exception, so there is no need to import it.
            raise unittest.SkipTest(otherwise)


def _payload(number: int) -> PayloadDict:
    return {"e": "pv", "p": "srv", "tv": "test", "eid": str(number)}


def _add(store: Any, start: int, stop: int) -> None:
    for number in range(start, stop):
        # Stores in the wild return nothing; only a plain False is a refusal.
        assert store.add_event(_payload(number)) is not False


def _taken(store: Any) -> PayloadDictList:
    """Return one hand-out; some stores in the wild give None if nothing waits."""
    batch: PayloadDictList = store.get_events_batch() or []
    return batch


def _take_all(store: Any) -> PayloadDictList:
    """Return all that waits, in as many hand-outs as it takes."""
    payloads: PayloadDictList = []
    while True:
        batch = _taken(store)
        if not batch:
            return payloads
        payloads += batch


def _deliver_all(store: Any) -> List[str]:
    payloads = _take_all(store)
    store.cleanup(payloads, False)
    return _eids(payloads)


def _eids(payloads: PayloadDictList) -> List[str]:
    return [payload["eid"] for payload in payloads]


def _numbers(count: int) -> List[str]:
    return [str(number) for number in range(count)]


def _in_threads(work: Callable[[int], None], count: int) -> None:
    errors: List[BaseException] = []

    def run(position: int) -> None:
        try:
            work(position)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(position,), daemon=True) for position in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def _exit_code_of_child(work: Callable[[], None]) -> int:
    with warnings.catch_warnings():
        # Python warns of a fork beside threads. Those of other tests may be there, and do no harm.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]
