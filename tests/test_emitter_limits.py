"""When an emitter flushes by itself, and when it refuses a payload."""

import json
import logging
import sys
import threading
from urllib.parse import urlencode

import pytest
from support import PATIENCE_SECONDS, eids, eventually, is_balanced, numbered, with_manual_timers

from snowplow_tracker import AsyncEmitter, Emitter, InMemoryEventStore
from snowplow_tracker.testing import Answer

TEXTS = {"ascii": "plain text", "cjk": "漢字かな交じり文", "emoji": "🙂🚀🎉"}


def sick(**options):
    """Build an emitter whose collector refuses everything for now."""
    emitter = with_manual_timers(Emitter("collector.example.com", **options))
    emitter.http_post = lambda data: 503
    return emitter


@pytest.mark.parametrize(("method", "size"), [("post", 10), ("get", 1)])
def test_batch_size_depends_on_method(method, size):
    """Ten payloads make a POST batch, one a GET batch."""
    emitter = Emitter("collector.example.com", method=method)

    assert emitter.batch_size == size


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
@pytest.mark.parametrize("method", ["post", "get"])
def test_batch_is_sent_when_it_is_full(collector, emitter_class, method):
    """The payload that completes a batch has it sent; those before it wait."""
    with emitter_class(collector.url, method=method, batch_size=3) as emitter:
        for payload in numbered(2):
            emitter.input(payload)
        waiting = eids(emitter.event_store.event_buffer)
        emitter.input({"eid": "2"})

        assert waiting == ["0", "1"]
        assert eids(collector.wait_for_payloads(3)) == ["0", "1", "2"]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_byte_limit_is_met_on_the_wire_by_post(collector, text):
    """What is sent at the byte limit has that size, within one payload's size and one per cent."""
    limit = 20_000
    emitter = Emitter(collector.url, batch_size=10_000, byte_limit=limit)
    payload = {"e": "se", "se_ca": text * 3, "se_la": text, "dtm": "1700000000000"}

    while not collector.requests:
        emitter.input(payload)

    body = collector.requests[0].body
    one = len(json.dumps(json.loads(body)["data"][0], separators=(",", ":"))) + 1
    assert limit <= len(body) < limit * 1.01 + one


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_byte_limit_counts_query_strings_by_get(collector, text):
    """A GET emitter counts the bytes that its URLs will have."""
    limit = 5_000
    emitter = Emitter(collector.url, method="get", batch_size=10_000, byte_limit=limit)
    before = 0

    while not collector.requests:
        before += 1
        emitter.input({"e": "se", "se_ca": text * 3, "dtm": "1700000000000"})

    sent = sum(len(f"?{urlencode(request.query)}") for request in collector.requests)
    assert limit * 0.99 <= sent < limit * 1.01 + sent / before


def test_bytes_queued_is_the_length_of_printed_payloads():
    """The figure that 1.1.0 had goes up with each payload and back with each flush."""
    emitter = Emitter("collector.example.com", byte_limit=100_000)
    emitter.http_post = lambda data: 200

    emitter.input({"a": "b"})
    emitter.input({"c": 1})
    queued = emitter.bytes_queued
    emitter.flush()

    assert queued == len(str({"a": "b"})) + len(str({"c": "1"}))
    assert emitter.bytes_queued == 0


def test_bytes_queued_is_none_without_a_limit():
    """As in 1.1.0, nothing is counted unless there is a limit."""
    emitter = Emitter("collector.example.com")

    assert emitter.bytes_queued is None


def test_bytes_of_retried_payloads_count_again():
    """A batch that comes back is part of what waits."""
    emitter = with_manual_timers(Emitter("collector.example.com", byte_limit=100_000))
    emitter.http_post = lambda data: 503
    emitter.input({"a": "b"})

    emitter.flush()

    assert emitter.bytes_queued == len(str(emitter.event_store.event_buffer[0]))


def test_byte_limit_may_be_set_later():
    """A limit counts what waits already."""
    emitter = Emitter("collector.example.com")
    sent = []
    emitter.http_post = lambda data: sent.append(data) or 200
    for payload in numbered(3):
        emitter.input(payload)

    emitter.byte_limit = 100
    emitter.input({"eid": "3"})

    assert len(json.loads(sent[0])["data"]) == 4


def test_byte_limit_counts_anew_when_the_method_changes():
    """What waits is measured as it will leave."""
    emitter = Emitter("collector.example.com", batch_size=100, byte_limit=880)
    sent = []
    emitter.http_get = lambda payload: sent.append(payload["eid"]) or 200
    # Six bytes a character in JSON, and nine in a URL.
    emitter.input({"eid": "0", "se_la": "漢" * 100})

    emitter.method = "get"
    emitter.input({"eid": "1"})

    assert sent == ["0", "1"]


def test_batch_size_may_be_changed_at_any_time(collector):
    """The next payload is measured by the new size."""
    emitter = Emitter(collector.url)
    emitter.input({"eid": "0"})

    emitter.batch_size = 2
    emitter.input({"eid": "1"})

    assert eids(collector.payloads) == ["0", "1"]


@pytest.mark.parametrize("name", ["batch_size", "byte_limit", "buffer_capacity", "max_retry_delay_seconds"])
def test_wrong_reassignment_is_refused_at_its_line(name):
    """An attribute refuses what the constructor refuses, and keeps its value."""
    emitter = Emitter("collector.example.com")
    before = getattr(emitter, name)

    with pytest.raises(ValueError, match=rf"^{name} must be positive.*-1"):
        setattr(emitter, name, -1)

    assert getattr(emitter, name) == before


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
def test_full_buffer_is_sent_before_the_batch_is_full(collector, emitter_class):
    """A capacity below the batch size does not keep everything waiting for ever."""
    emitter = emitter_class(collector.url, batch_size=10, buffer_capacity=3)

    for number in range(5):
        for payload in numbered(3, start=3 * number):
            emitter.input(payload)
        collector.wait_for_payloads(3 * number + 3)
        eventually(lambda: emitter.stats().in_flight == 0)

    assert emitter.stats().delivered == 15


def test_full_buffer_drops_new_payloads_and_keeps_old_ones(caplog):
    """What does not fit is counted and logged, and nothing is raised."""
    emitter = sick(buffer_capacity=2)

    for payload in numbered(3):
        emitter.input(payload)

    assert eids(emitter.event_store.event_buffer) == ["0", "1"]
    assert emitter.stats().dropped == 1
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["Dropped 1 payloads: the buffer is full"]


def test_drops_are_summarised(caplog):
    """The first drop is told at once, those that follow at once make one more line at the most."""
    emitter = sick(buffer_capacity=1)

    for payload in numbered(500):
        emitter.input(payload)
    emitter.close(timeout=0)

    messages = [record.getMessage() for record in caplog.records if "Dropped" in record.getMessage()]
    assert messages == ["Dropped 1 payloads: the buffer is full", "Dropped 498 payloads: the buffer is full"]


def test_drop_is_reported_to_on_failure():
    """A payload that was not accepted is reported like one that was not delivered."""
    reports = []
    emitter = sick(buffer_capacity=1)
    emitter.input({"eid": "0"})

    emitter.on_failure = lambda sent, unsent: reports.append((sent, unsent))
    emitter.input({"eid": "1"})

    assert reports == [(0, [{"eid": "1"}])]


def test_callback_that_inputs_a_dropped_payload_again_is_not_called_for_ever():
    """A drop inside the report of a drop is counted, but not reported."""
    emitter = sick(buffer_capacity=1)
    emitter.input({"eid": "0"})
    emitter.on_failure = lambda sent, unsent: [emitter.input(payload) for payload in unsent]

    emitter.input({"eid": "1"})

    assert emitter.stats().dropped == 2


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
def test_payloads_in_flight_count_against_the_capacity(collector, emitter_class):
    """Memory is bounded by the capacity although the store is empty while its payloads are being sent."""
    answered = threading.Event()
    collector.respond_with(Answer(hold=answered))
    emitter = emitter_class(collector.url, batch_size=2, buffer_capacity=3)
    sender = threading.Thread(target=lambda: [emitter.input(payload) for payload in numbered(2)])
    sender.start()
    collector.wait_for_requests(1)

    for payload in numbered(3, start=2):
        emitter.input(payload)
    stats = emitter.stats()
    answered.set()
    sender.join(PATIENCE_SECONDS)

    assert (stats.in_flight, stats.buffered, stats.dropped) == (2, 1, 2)
    assert emitter.close()
    assert eids(collector.payloads) == ["0", "1", "2"]


def test_retried_payload_is_never_refused():
    """What was accepted comes back into a full buffer."""
    store = InMemoryEventStore(buffer_capacity=2)
    emitter = with_manual_timers(Emitter("collector.example.com", batch_size=2, event_store=store, buffer_capacity=50))

    def fail_while_others_come(data):
        for payload in numbered(5, start=2):
            emitter.input(payload)
        return 503

    emitter.http_post = fail_while_others_come
    for payload in numbered(2):
        emitter.input(payload)

    assert eids(store.event_buffer) == ["0", "1", "2", "3"]
    assert is_balanced(emitter)


def test_capacity_is_the_stores_own_by_default():
    """A store that says its capacity is believed."""
    emitter = sick(batch_size=50, event_store=InMemoryEventStore(buffer_capacity=3))

    for payload in numbered(4):
        emitter.input(payload)

    assert emitter.stats().buffered == 3


@pytest.mark.parametrize("outcome", [False, OSError("disk is full")], ids=["refuses", "raises"])
def test_store_that_fails_costs_the_payload_and_nothing_else(caplog, outcome):
    """Tracking does not raise because of the store; the loss is counted and logged with its reason."""

    class Store(InMemoryEventStore):
        def add_event(self, payload):
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    emitter = Emitter("collector.example.com", event_store=Store())

    emitter.input({"eid": "0"})

    assert emitter.stats().dropped == 1
    assert "Dropped 1 payloads: the event store" in caplog.text


def test_thread_that_only_buffers_does_not_wait_for_one_that_sends(collector):
    """While a request is under way, other threads put their payloads in at once."""
    answered = threading.Event()
    collector.respond_with(Answer(hold=answered))
    emitter = Emitter(collector.url, batch_size=3)
    sender = threading.Thread(target=lambda: [emitter.input(payload) for payload in numbered(3)])
    sender.start()
    collector.wait_for_requests(1)

    emitter.input({"eid": "3"})

    assert not answered.is_set()
    assert eids(emitter.event_store.event_buffer) == ["3"]
    answered.set()
    sender.join(PATIENCE_SECONDS)
    assert emitter.close()


def test_two_threads_may_send_at_a_time(collector):
    """A plain emitter has no lock around its requests."""
    answered = threading.Event()
    collector.respond_always(Answer(hold=answered))
    emitter = Emitter(collector.url, batch_size=1)
    senders = [threading.Thread(target=emitter.input, args=(payload,)) for payload in numbered(2)]

    for number, sender in enumerate(senders, 1):
        sender.start()
        collector.wait_for_requests(number)

    answered.set()
    for sender in senders:
        sender.join(PATIENCE_SECONDS)
    eventually(lambda: emitter.stats().delivered == 2)


@pytest.mark.parametrize("payload", [None, "text", [("a", "b")]])
def test_input_takes_dicts_only(payload):
    """Something else is an error at the line that gave it."""
    emitter = Emitter("collector.example.com")

    with pytest.raises(TypeError, match="payload must be a dict"):
        emitter.input(payload)


def test_input_keeps_a_copy():
    """What the application does with its dict later does not change the event."""
    emitter = Emitter("collector.example.com")
    payload = {"eid": "0"}

    emitter.input(payload)
    payload["eid"] = "changed"

    assert emitter.event_store.event_buffer == [{"eid": "0"}]


class Hesitant(InMemoryEventStore):
    """Stops in `size` when it is told to, as if the interpreter had changed threads there."""

    def __init__(self, **options):
        super().__init__(**options)
        self.hesitates = False
        self.is_here = threading.Event()
        self.may_go_on = threading.Event()

    def size(self):
        if self.hesitates:
            self.hesitates = False
            self.is_here.set()
            assert self.may_go_on.wait(PATIENCE_SECONDS)
        return super().size()


def test_thread_that_completes_a_batch_flushes_whatever_others_put_in():
    """It knows how much waited after its own payload, though the next thread is inside the store by then."""
    store = Hesitant(buffer_capacity=2)
    emitter = Emitter("collector.example.com", batch_size=2, event_store=store)
    requests, other = [], threading.Thread(target=emitter.input, args=({"eid": "2"},))
    emitter.http_post = lambda data: requests.append(data) or 200

    class Interrupting(type(emitter._ledger)):
        def add(self, payload, capacity):
            outcome = super().add(payload, capacity)
            if payload["eid"] == "1":
                store.hesitates = True
                other.start()
                assert store.is_here.wait(PATIENCE_SECONDS)
                store.may_go_on.set()
                other.join(PATIENCE_SECONDS)
            return outcome

    emitter._ledger.__class__ = Interrupting
    emitter.input({"eid": "0"})
    emitter.input({"eid": "1"})

    assert len(requests) == 1
    assert (emitter.stats().buffered, emitter.stats().dropped) == (0, 1)


def fills_a_lowered_capacity(emitter):
    emitter.buffer_capacity = 3


def fills_a_small_store(emitter):
    emitter.event_store.buffer_capacity = 5


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
@pytest.mark.parametrize("fills", [fills_a_lowered_capacity, fills_a_small_store])
def test_full_buffer_is_sent_when_an_event_finds_no_room(collector, emitter_class, fills):
    """Whatever has filled it without a flush; else each event from now on would be dropped, sick collector or not."""
    with emitter_class(collector.url, batch_size=10, event_store=InMemoryEventStore()) as emitter:
        for payload in numbered(5):
            emitter.input(payload)
        fills(emitter)
        emitter.input({"eid": "no room"})
        eventually(lambda: emitter.stats().delivered == 5)
        emitter.input({"eid": "5"})

        assert (emitter.stats().buffered, emitter.stats().dropped) == (1, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_full_buffer_is_sent_by_another_thread_when_one_has_died(collector):
    """What was put back then leaves the next event no room, which starts a new thread."""
    with AsyncEmitter(collector.url, batch_size=5, buffer_capacity=5) as emitter:
        emitter.http_post = lambda data: sys.exit()
        for payload in numbered(5):
            emitter.input(payload)
        eventually(lambda: not any(thread.is_alive() for thread in emitter._worker_pool._threads))
        del emitter.http_post
        assert emitter.stats().buffered == 5

        emitter.input({"eid": "no room"})

        assert eids(collector.wait_for_payloads(5)) == ["0", "1", "2", "3", "4"]


def test_full_buffer_is_left_alone_during_a_backoff():
    """Events that find no room then ask nothing of a sick collector."""
    emitter = sick(batch_size=2, buffer_capacity=2)
    requests = []
    emitter.http_post = lambda data: requests.append(data) or 503
    for payload in numbered(20):
        emitter.input(payload)

    assert len(requests) == 1
    assert (emitter.stats().buffered, emitter.stats().dropped) == (2, 18)


class PuttingBack(Emitter):
    """Brings failed payloads back by itself, and knows no backoff."""

    def _retry_failed_events(self, failed_events):
        with self.lock:
            self.event_store.cleanup(failed_events, True)


@pytest.mark.parametrize(("pause", "count"), [(1e9, 2), (0.0, 19)], ids=["long", "none"])
def test_full_buffer_that_cannot_be_emptied_gets_a_rest(monkeypatch, pause, count):
    """Where the application has its own retry, not each event that finds no room makes another request."""
    monkeypatch.setattr("snowplow_tracker.emitters._PAUSE_WHEN_FULL_SECONDS", pause)
    emitter = PuttingBack("collector.example.com", batch_size=2, buffer_capacity=2)
    requests = []
    emitter.http_post = lambda data: requests.append(data) or 503

    for payload in numbered(20):
        emitter.input(payload)

    assert len(requests) == count
    assert (emitter.stats().buffered, emitter.stats().dropped) == (2, 18)


def test_full_buffer_that_can_be_emptied_gets_no_rest(collector, monkeypatch):
    """Progress is a reason to go on at once."""
    monkeypatch.setattr("snowplow_tracker.emitters._PAUSE_WHEN_FULL_SECONDS", 1e9)
    emitter = Emitter(collector.url, batch_size=100)

    for turn in range(3):
        emitter.buffer_capacity = 10
        for payload in numbered(2, start=10 * turn):
            emitter.input(payload)
        emitter.buffer_capacity = 2
        emitter.input({"eid": "no room"})

    assert emitter.stats().delivered == 6


class RaisingWhenFull(InMemoryEventStore):
    def add_event(self, payload):
        if self.size() >= 5:
            raise OSError("disk is full")
        return super().add_event(payload)


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
def test_store_that_raises_when_it_is_full_is_emptied(collector, emitter_class):
    """Like one that refuses."""
    with emitter_class(collector.url, batch_size=10, event_store=RaisingWhenFull()) as emitter:
        for payload in numbered(6):
            emitter.input(payload)

        assert eids(collector.wait_for_payloads(5)) == ["0", "1", "2", "3", "4"]
