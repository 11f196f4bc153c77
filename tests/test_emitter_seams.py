"""What applications, their tests and their subclasses hold on to."""

import inspect
import logging
import queue
import subprocess
import sys
import threading
from types import SimpleNamespace
from unittest import mock

import pytest
import requests
from support import PATIENCE_SECONDS, eids, eventually, is_balanced, numbered, own_threads, with_manual_timers

import snowplow_tracker
from snowplow_tracker import (
    AsyncEmitter,
    Emitter,
    EmitterConfiguration,
    InMemoryEventStore,
    PageView,
    Tracker,
    emitters,
)
from snowplow_tracker.testing import Answer, LocalCollector

both = pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
both_methods = pytest.mark.parametrize("method", ["post", "get"])


def fill(emitter, count, start=0):
    for payload in numbered(count, start):
        emitter.input(payload)


@both_methods
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (200, 200),
        (SimpleNamespace(status_code=201), 201),
        (503, 503),
        (requests.Response(), -1),
        (None, -1),
        (True, -1),
        ("200", -1),
    ],
    ids=str,
)
def test_override_may_return_a_status_or_a_response(method, answer, status):
    """`http_post` and `http_get` are called through the emitter, and what they return is understood."""

    class Custom(Emitter):
        def http_post(self, data):
            return answer

        http_get = http_post

    emitter = with_manual_timers(Custom("collector.example.com", method=method, batch_size=1))

    fill(emitter, 1)

    assert emitter.stats().last_status == status
    assert emitter.stats().delivered == (1 if status in (200, 201) else 0)


@both_methods
def test_override_may_raise(method):
    """An exception counts as no response."""

    class Custom(Emitter):
        def http_post(self, data):
            raise ZeroDivisionError("in the override")

        http_get = http_post

    emitter = with_manual_timers(Custom("collector.example.com", method=method, batch_size=1))

    fill(emitter, 1)

    assert emitter.stats().last_error == "ZeroDivisionError: in the override"
    assert emitter.stats().buffered == 1


def test_override_gets_ascii():
    """`data` is JSON in ASCII, whatever the events hold."""
    bodies = []
    emitter = Emitter("collector.example.com", batch_size=1)
    emitter.http_post = lambda data: bodies.append(data) or 200

    emitter.input({"page": "é漢🙂"})

    assert isinstance(bodies[0], str)
    assert bodies[0].isascii()


@both
def test_override_of_send_events_leaks_no_capacity(emitter_class):
    """A subclass that sends elsewhere and never touches the store can go on for ever."""
    taken = []

    class Elsewhere(emitter_class):
        def send_events(self, evts):
            taken.extend(eids(evts))

    emitter = Elsewhere("collector.example.com", batch_size=2, buffer_capacity=2)
    for number in range(20):
        fill(emitter, 2, start=2 * number)
        emitter.sync_flush()

    assert taken == [str(number) for number in range(40)]
    assert (emitter.stats().in_flight, emitter.stats().dropped) == (0, 0)
    assert emitter.close()


def test_override_of_send_events_that_raises_loses_nothing(caplog):
    """Its batch goes back, a backoff begins, and tracking raises nothing."""

    class Failing(Emitter):
        def send_events(self, evts):
            raise ZeroDivisionError

    emitter = with_manual_timers(Failing("collector.example.com", batch_size=2))

    fill(emitter, 2)

    assert eids(emitter.event_store.event_buffer) == ["0", "1"]
    assert emitter.retry_timer.is_active()
    assert "ZeroDivisionError" in caplog.text
    assert is_balanced(emitter)


def test_override_of_send_events_that_is_interrupted_loses_nothing():
    """Ctrl-C passes through, and the batch goes back."""

    class Interrupted(Emitter):
        def send_events(self, evts):
            raise KeyboardInterrupt

    emitter = Interrupted("collector.example.com", batch_size=2)
    fill(emitter, 1)

    with pytest.raises(KeyboardInterrupt):
        fill(emitter, 1, start=1)

    assert eids(emitter.event_store.event_buffer) == ["0", "1"]


def test_override_of_send_events_may_pass_a_part_on(collector):
    """What is passed to the parent is delivered; what is not is the override's, and frees its place."""

    class Filtering(Emitter):
        def send_events(self, evts):
            super().send_events([payload for payload in evts if payload["eid"] != "1"])

    emitter = Filtering(collector.url, batch_size=3)

    fill(emitter, 3)

    assert eids(collector.payloads) == ["0", "2"]
    assert (emitter.stats().in_flight, emitter.stats().buffered) == (0, 0)


def test_flush_from_an_override_before_its_parent_does_not_nest(collector):
    """An override that asks for flushes gets them later."""

    class Eager(Emitter):
        depth = 0

        def send_events(self, evts):
            self.depth += 1
            assert self.depth == 1
            self.flush()
            self.sync_flush()
            super().send_events(evts)
            self.depth -= 1

    emitter = Eager(collector.url, batch_size=1)

    fill(emitter, 1)

    assert eids(collector.payloads) == ["0"]
    assert emitter.close()


@both
def test_methods_are_looked_up_late(emitter_class):
    """Replacing a method of an instance takes effect at once, for limits and timers alike."""
    emitter = with_manual_timers(emitter_class("collector.example.com", batch_size=1, flush_interval=1))
    calls = []
    emitter.flush = lambda: calls.append("flush")

    fill(emitter, 1)
    emitter.timer.fire()
    emitter.reached_limit = lambda: False
    fill(emitter, 1, start=1)

    assert calls == ["flush", "flush"]


@both
@pytest.mark.parametrize("is_reached", [False, True])
def test_limit_of_a_class_may_be_patched(emitter_class, is_reached):
    """Patching `reached_limit` for all emitters takes effect as patching it for one does."""
    emitter = emitter_class("collector.example.com", batch_size=1 if not is_reached else 100)
    calls = []
    emitter.flush = lambda: calls.append("flush")

    with mock.patch.object(Emitter, "reached_limit", return_value=is_reached) as reached_limit:
        fill(emitter, 1)

    assert reached_limit.call_count == 1
    assert calls == ["flush"] * is_reached


@both
def test_request_method_is_the_session(emitter_class):
    """1.1.0 had the session, or the module, in an attribute of this name, which tests replace."""
    session = mock.Mock(post=mock.Mock(return_value=SimpleNamespace(status_code=200)))
    emitter = emitter_class("collector.invalid")
    assert emitter.request_method is requests

    emitter.request_method = session
    emitter.input({"eid": "1"})
    emitter.sync_flush()
    assert (emitter.session, session.post.call_count, emitter.stats().delivered) == (session, 1, 1)

    emitter.request_method = requests
    assert emitter.session is None


def test_rules_of_a_subclass_count():
    """`is_good_status_code` and `_should_retry` may be overridden."""

    class Custom(Emitter):
        @staticmethod
        def is_good_status_code(status_code):
            return status_code == 418

        def _should_retry(self, status_code):
            return status_code == 200

    emitter = with_manual_timers(Custom("collector.example.com", batch_size=1))

    emitter.http_post = lambda data: 418
    fill(emitter, 1)
    emitter.http_post = lambda data: 200
    fill(emitter, 1, start=1)

    assert (emitter.stats().delivered, emitter.stats().buffered) == (1, 1)


def test_timestamp_of_a_subclass_counts(collector):
    """`attach_sent_timestamp` is called on the emitter."""

    class Custom(Emitter):
        @staticmethod
        def attach_sent_timestamp(events):
            for payload in events:
                payload["stm"] = "custom"

    emitter = Custom(collector.url, batch_size=2)

    fill(emitter, 2)

    assert [payload["stm"] for payload in collector.payloads] == ["custom", "custom"]


def test_send_events_takes_payloads_that_never_were_in_the_store(collector):
    """They are delivered, or put into the store for a retry."""
    collector.respond_with(200, 503)
    emitter = with_manual_timers(Emitter(collector.url))

    emitter.send_events(numbered(2))
    emitter.send_events(numbered(2, start=2))

    assert eids(collector.payloads) == ["0", "1"]
    assert eids(emitter.event_store.event_buffer) == ["2", "3"]
    assert is_balanced(emitter)


def test_sending_nothing_does_nothing():
    """An empty batch makes no request and no report."""
    reports = []
    emitter = Emitter("collector.example.com", on_success=reports.append)
    emitter.http_post = reports.append

    emitter.send_events([])

    assert reports == []


@both
@both_methods
def test_patched_requests_function_is_called(emitter_class, method):
    """Tests that patch `snowplow_tracker.emitters.requests.post` or `get` see the documented arguments."""
    with mock.patch(f"snowplow_tracker.emitters.requests.{method}") as function:
        function.return_value = SimpleNamespace(status_code=200)
        emitter = emitter_class("collector.example.com", method=method, batch_size=5, request_timeout=(3, 7))
        fill(emitter, 1)
        emitter.sync_flush()

    ((url,), arguments) = function.call_args
    assert url == emitter.endpoint
    assert arguments["timeout"] == (3, 7)
    assert set(arguments) == ({"data", "headers", "timeout"} if method == "post" else {"params", "timeout"})


def test_patched_requests_module_is_called():
    """So do tests that patch the module in `emitters`."""
    with mock.patch("snowplow_tracker.emitters.requests") as module:
        module.RequestException = requests.RequestException
        module.post.return_value.status_code = 200
        emitter = Emitter("collector.example.com", batch_size=1)
        fill(emitter, 1)

    assert module.post.call_count == 1


@both
@both_methods
def test_given_session_is_called_with_exactly_the_documented_arguments(emitter_class, method):
    """A mocked `requests.Session` sees what 1.1.0 called, with a finite timeout."""
    session = mock.Mock(spec=requests.Session)
    session.post.return_value = session.get.return_value = SimpleNamespace(status_code=200)
    emitter = emitter_class("collector.example.com", method=method, batch_size=5, session=session)
    emitter.input({"eid": "0"})

    emitter.sync_flush()

    (call,) = session.mock_calls
    if method == "post":
        assert call == mock.call.post(
            "https://collector.example.com/com.snowplowanalytics.snowplow/tp2",
            data=mock.ANY,
            headers={"Content-Type": "application/json; charset=utf-8"},
            timeout=(10.0, 30.0),
        )
    else:
        assert call == mock.call.get(
            "https://collector.example.com/i", params={"eid": "0", "stm": mock.ANY}, timeout=(10.0, 30.0)
        )
    assert emitter.stats().delivered == 1


def test_session_that_raises_is_no_response():
    """Also what is not of `requests`."""
    session = mock.Mock(spec=requests.Session)
    session.post.side_effect = OSError("odd")
    emitter = with_manual_timers(Emitter("collector.example.com", session=session, batch_size=1))

    fill(emitter, 1)

    assert emitter.stats().last_error == "OSError: odd"


@both_methods
def test_http_functions_return_a_plain_number(collector, method):
    """An application that calls them itself gets an int."""
    emitter = Emitter(collector.url, method=method)

    status = emitter.http_post('{"data":[]}') if method == "post" else emitter.http_get({"e": "pv"})
    collector.refuse_connections()
    no_response = emitter.http_post("{}") if method == "post" else emitter.http_get({"e": "pv"})

    assert (status, no_response) == (200, -1)


def test_payloads_handed_out_by_a_queue_of_ones_own_are_sent(collector):
    """A subclass that puts batches into `queue`, as in 1.1.0, has them sent."""

    class Queueing(AsyncEmitter):
        def flush(self):
            with self.lock:
                batch = self.event_store.get_events_batch()
            self.queue.put(batch)
            self._hand_over_flush()

    emitter = Queueing(collector.url, batch_size=2)

    fill(emitter, 2)

    assert eids(collector.wait_for_payloads(2)) == ["0", "1"]
    assert emitter.close()


def test_thread_of_ones_own_may_consume(collector):
    """`consume` makes the calling thread one of the emitter's threads, until the emitter is closed."""
    emitter = AsyncEmitter(collector.url, batch_size=1)
    thread = threading.Thread(target=emitter.consume)
    thread.start()
    eventually(lambda: thread in emitter._worker_pool._threads)
    fill(emitter, 3)

    assert emitter.close()

    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert len(collector.payloads) == 3


def test_nothing_is_left_to_consume_of_a_closed_emitter(collector):
    """A thread that comes too late does not wait for a task that never comes."""
    emitter = AsyncEmitter(collector.url)
    emitter.close()
    thread = threading.Thread(target=emitter.consume, daemon=True)

    thread.start()

    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert not emitter._worker_pool.has_threads()


@both
@pytest.mark.parametrize("method", ["post", "get"])
def test_constructor_may_be_patched_away(emitter_class, method):
    """An object without a constructor can be made, looked at and thrown away."""
    with mock.patch.object(emitter_class, "__init__", return_value=None):
        emitter = emitter_class("collector.example.com", method=method)

    assert emitter.batch_size == 10
    del emitter


def test_building_starts_nothing():
    """No thread and no connection: emitters are built while applications are imported."""
    before = set(threading.enumerate())

    with mock.patch("socket.socket", side_effect=AssertionError("a connection")):
        Emitter("collector.example.com", flush_interval=1)
        AsyncEmitter("collector.example.com", thread_count=5, flush_interval=1)

    assert set(threading.enumerate()) == before


def test_attributes_that_applications_read():
    """The names of 1.1.0 are there."""
    emitter = AsyncEmitter("collector.example.com")

    assert isinstance(emitter.queue, queue.Queue)
    assert emitter.queue.qsize() == 0
    assert emitter.event_store.size() == 0
    assert emitter.event_store.event_buffer == []
    assert emitter.retry_delay == 0
    assert not emitter.timer.is_active()
    assert not emitter.retry_timer.is_active()
    assert emitters.requests is requests
    assert emitters.logger.name == "snowplow_tracker.emitters"
    assert snowplow_tracker.logger.name == "snowplow_tracker"
    assert emitter.endpoint == "https://collector.example.com/com.snowplowanalytics.snowplow/tp2"


@both
@pytest.mark.parametrize("size", [None, "many"])
def test_store_whose_size_is_no_number_is_one_that_fails(caplog, emitter_class, size):
    """Nothing raises because of the store: what it has no room for is dropped, with the reason in the log."""
    store = InMemoryEventStore()
    store.size = lambda: size
    emitter = emitter_class("collector.example.com", batch_size=1, event_store=store)

    emitter.input({"eid": "0"})
    emitter.flush()
    emitter.sync_flush()

    assert emitter.stats().dropped == 1
    assert emitter.close()
    assert "the event store failed" in caplog.text


def test_store_may_be_replaced():
    """A new event store counts from the next payload on."""
    emitter = Emitter("collector.example.com")

    emitter.event_store = store = InMemoryEventStore()
    fill(emitter, 1)

    assert store.size() == 1
    with pytest.raises(TypeError, match="event_store must have the method add_event"):
        emitter.event_store = object()


def test_store_that_returns_nothing_has_accepted():
    """Stores in the wild forget to say so."""

    class Silent(InMemoryEventStore):
        def add_event(self, payload):
            super().add_event(payload)

    emitter = Emitter("collector.example.com", event_store=Silent())

    fill(emitter, 1)

    assert (emitter.stats().accepted, emitter.stats().dropped) == (1, 0)


@both
def test_buffer_size_is_a_deprecated_batch_size(emitter_class):
    """The documentation's name works, with a warning that points at the caller."""
    with pytest.warns(DeprecationWarning, match="batch_size") as warnings:
        emitter = emitter_class("collector.example.com", buffer_size=3)

    assert emitter.batch_size == 3
    assert [warning.filename for warning in warnings] == [__file__]
    with pytest.raises(TypeError, match="batch_size=1 and buffer_size=2"):
        emitter_class("collector.example.com", batch_size=1, buffer_size=2)


def test_options_are_not_shared():
    """A dict of rules that the application goes on changing changes no emitter."""
    rules = {500: False}
    emitter, other = (Emitter("collector.example.com", custom_retry_codes=rules) for _ in range(2))

    rules[503] = False
    other.custom_retry_codes[400] = True

    assert emitter.custom_retry_codes == {500: False}


def test_every_option_of_an_emitter_is_in_the_configuration():
    """What a constructor takes, `EmitterConfiguration` has, but for what `create_tracker` takes itself."""
    of_emitters = set(inspect.signature(AsyncEmitter.__init__).parameters) - {"endpoint", "method", "buffer_size"}
    of_configuration = set(inspect.signature(EmitterConfiguration.__init__).parameters)

    assert of_emitters == of_configuration


def test_nothing_is_printed_and_no_logger_is_set_up(collector, capfd):
    """Logging is the application's to set up."""
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    emitter = Emitter(collector.url, batch_size=1)

    fill(emitter, 1)

    assert capfd.readouterr() == ("", "")
    assert (root.level, list(root.handlers)) == before
    assert logging.getLogger("snowplow_tracker").level == logging.NOTSET
    assert [type(handler) for handler in logging.getLogger("snowplow_tracker").handlers] == [logging.NullHandler]


def test_signal_handler_may_track():
    """A handler that runs while its thread holds the lock does not deadlock."""
    emitter = Emitter("collector.example.com")

    with emitter.lock:
        fill(emitter, 1)

    assert emitter.stats().accepted == 1


def test_log_handler_may_track(collector):
    """A log handler that tracks an event for each warning neither deadlocks nor recurses."""
    collector.respond_always(503)
    emitter = with_manual_timers(Emitter(collector.url, batch_size=1))

    class Tracking(logging.Handler):
        def emit(self, record):
            emitter.input({"eid": "log"})

    handler = Tracking()
    logging.getLogger("snowplow_tracker").addHandler(handler)
    try:
        fill(emitter, 1)
    finally:
        logging.getLogger("snowplow_tracker").removeHandler(handler)

    assert eids(emitter.event_store.event_buffer)[0] == "0"
    assert is_balanced(emitter)


@both
def test_worker_or_timer_that_cannot_start_loses_nothing(collector, monkeypatch, emitter_class):
    """Out of threads, payloads wait, tracking raises nothing, and an explicit flush sends in its own thread."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    emitter = emitter_class(collector.url, batch_size=2, flush_interval=1)
    with monkeypatch.context() as patch:
        patch.setattr(emitters.threading.Thread, "start", refuse)
        emitter.input({"eid": "0"})
        emitter.async_flush()
        sending = emitter_class is Emitter
        emitter.input({"eid": "1"})
        waiting = emitter.stats().buffered
        emitter._flush_within(None)

    assert waiting == (0 if sending else 2)
    eventually(lambda: eids(collector.payloads) == ["0", "1"])


@both
@pytest.mark.parametrize("explicit", ["sync_flush", "tracker", "close", "exit"])
def test_flush_of_a_subclass_is_called_by_explicit_flushes(emitter_class, explicit):
    """An application that replaces `flush` decides what becomes of the payloads, whoever asks for the flush."""
    written = []

    class ToFile(emitter_class):
        def flush(self):
            batch = self.event_store.get_events_batch()
            written.extend(eids(batch))
            self.event_store.cleanup(batch, False)

        def http_post(self, data):
            raise AssertionError("nothing goes over the network")

    emitter = ToFile("collector.example.com")
    fill(emitter, 3)

    {
        "sync_flush": emitter.sync_flush,
        "tracker": Tracker("test", emitter).flush,
        "close": emitter.close,
        "exit": lambda: emitter._flush_at_exit(PATIENCE_SECONDS),
    }[explicit]()

    assert written == ["0", "1", "2"]
    assert emitter.stats().last_status is None


@both
def test_flush_of_a_subclass_may_call_its_parents(collector, emitter_class):
    """An explicit flush through an override still takes no account of a backoff, and waits."""
    collector.respond_with(503)

    class Counting(emitter_class):
        flushes = 0

        def flush(self):
            self.flushes += 1
            super().flush()

    emitter = with_manual_timers(Counting(collector.url))
    fill(emitter, 1)
    emitter.sync_flush()
    emitter.sync_flush()

    assert emitter.flushes == 2
    assert eids(collector.payloads) == ["0"]
    assert emitter.close()


@both
def test_flush_of_a_subclass_may_be_a_sync_flush(collector, emitter_class):
    """An override that makes every flush a blocking one does not call itself for ever."""

    class Blocking(emitter_class):
        def flush(self):
            self.sync_flush()

    emitter = Blocking(collector.url, batch_size=2)

    fill(emitter, 2)
    fill(emitter, 1, start=2)
    emitter.sync_flush()

    assert eids(collector.payloads) == ["0", "1", "2"]
    assert emitter.close()


@both
def test_flush_of_a_subclass_may_raise(caplog, emitter_class):
    """An explicit flush does not raise because of it."""

    class Failing(emitter_class):
        def flush(self):
            raise ZeroDivisionError

    emitter = Failing("collector.example.com")
    fill(emitter, 1)

    emitter.sync_flush()

    assert "ZeroDivisionError" in caplog.text


def test_flush_of_a_subclass_may_send_what_it_takes_from_the_store(collector):
    """The figures and the byte limit come out right, although the application took the payloads itself."""

    class Direct(Emitter):
        def flush(self):
            self.send_events(self.event_store.get_events_batch())

    emitter = Direct(collector.url, batch_size=100, byte_limit=600)

    fill(emitter, 30)

    assert emitter.stats().accepted == 30
    assert is_balanced(emitter)
    assert len(collector.requests) < 10


def test_batch_that_was_just_taken_from_the_queue_is_not_out(collector):
    """It is neither in the queue nor in flight, and `close` waits for it."""
    is_taken, may_go_on = threading.Event(), threading.Event()

    class Slow(AsyncEmitter):
        def send_events(self, evts):
            is_taken.set()
            assert may_go_on.wait(PATIENCE_SECONDS)
            super().send_events(evts)

    emitter = Slow(collector.url)
    emitter.queue.put([{"e": "pv", "eid": "1"}])
    assert is_taken.wait(PATIENCE_SECONDS)

    is_out = emitter.close(timeout=0)
    may_go_on.set()

    assert is_out is False
    assert emitter.close(timeout=PATIENCE_SECONDS) is True
    assert eids(collector.payloads) == ["1"]


def test_batch_in_the_queue_starts_a_thread(collector):
    """A subclass that only puts batches into the queue needs nothing else to have them sent."""

    class Queueing(AsyncEmitter):
        def flush(self):
            self.queue.put(self.event_store.get_events_batch())

    emitter = Queueing(collector.url, batch_size=2)

    fill(emitter, 2)

    assert eids(collector.wait_for_payloads(2)) == ["0", "1"]
    fill(emitter, 1, start=2)
    assert emitter.close()
    assert eids(collector.payloads) == ["0", "1", "2"]


def test_batch_in_the_queue_is_not_out(monkeypatch):
    """While it waits there, the emitter is not done."""
    emitter = AsyncEmitter("collector.example.com")
    monkeypatch.setattr(emitter._worker_pool, "keep_running", lambda thread_count: False)

    emitter.queue.put([{"eid": "0"}])

    assert not emitter._is_all_out()


def test_queue_may_be_used_by_a_signal_handler(collector):
    """A handler that tracks while its thread is inside the queue does not deadlock."""
    emitter = AsyncEmitter(collector.url, batch_size=1)

    with emitter.queue.mutex:
        fill(emitter, 1)

    assert eids(collector.wait_for_payloads(1)) == ["0"]
    assert emitter.close()


@both
def test_callbacks_that_flush_a_shared_tracker_do_not_wait_for_each_other(collector, emitter_class):
    """A flush from a callback waits for no emitter, because the other's callback may do the same."""
    emitters_ = [emitter_class(collector.url, batch_size=1) for _ in range(2)]
    tracker = Tracker("test", emitters_)
    for emitter in emitters_:
        emitter.on_success = lambda delivered: tracker.flush()

    for _ in range(20):
        tracker.track(PageView("u"))
    tracker.flush(timeout=PATIENCE_SECONDS)

    assert len(collector.payloads) == 40
    assert tracker.close()


def test_sick_emitter_does_not_starve_a_healthy_one(collector):
    """The time of a flush is shared, so that a collector that hangs costs only its own emitter."""
    never = threading.Event()
    with LocalCollector() as hanging:
        hanging.respond_always(Answer(hold=never))
        sick, healthy = Emitter(hanging.url), Emitter(collector.url)
        tracker = Tracker("test", [sick, healthy])
        tracker.track(PageView("u"))

        is_all_out = tracker.close(timeout=1)

        assert not is_all_out
        assert len(collector.payloads) == 1
        assert healthy.stats().delivered == 1
        never.set()


@both
def test_name_that_is_no_string_harms_nobody(collector, emitter_class):
    """A payload with an odd name is sent, and so are the others."""
    emitter = emitter_class(collector.url, batch_size=2)

    emitter.input({"eid": "0", 7: "x"})
    emitter.input({"eid": "1"})

    assert eids(collector.wait_for_payloads(2)) == ["0", "1"]
    assert collector.payloads[0]["7"] == "x"
    assert emitter.close()


@pytest.mark.parametrize("created", [float("inf"), float("nan"), "1e999", [], "٣"])
def test_odd_time_of_an_event_harms_nobody(collector, created):
    """Whatever `dtm` is, the payload gets its sent timestamp."""
    emitter = Emitter(collector.url, method="get", batch_size=1)

    emitter.input({"eid": "0", "dtm": created})

    assert int(collector.payloads[0]["stm"]) > 10**12


def test_override_that_puts_back_itself_is_believed(collector):
    """`_retry_failed_events` of a subclass may return the payloads to the store with its own hands."""
    collector.respond_with(503)

    class Own(Emitter):
        def _retry_failed_events(self, failed_events):
            for payload in failed_events:
                self.event_store.add_event(payload)

    emitter = Own(collector.url, batch_size=2)
    fill(emitter, 2)
    after_failure = emitter.stats()
    emitter.sync_flush()

    assert (after_failure.rejected, after_failure.buffered, after_failure.in_flight) == (0, 2, 0)
    assert emitter.stats().delivered == 2
    assert is_balanced(emitter)


def test_override_that_begins_no_backoff_does_not_make_a_flush_spin(collector):
    """Without a backoff, a flush with a time limit makes a pause of its own."""
    collector.respond_always(503)

    class Own(Emitter):
        def _retry_failed_events(self, failed_events):
            self.event_store.cleanup(failed_events, True)

    emitter = Own(collector.url)
    fill(emitter, 2)

    emitter.sync_flush(timeout=0.3)

    assert len(collector.requests) <= 2


def test_override_that_fails_to_put_back_loses_nothing(caplog):
    """The payloads go back all the same, and the application gets no exception."""

    class Failing(Emitter):
        def _retry_failed_events(self, failed_events):
            raise ZeroDivisionError

    emitter = with_manual_timers(Failing("collector.example.com", batch_size=2))
    emitter.http_post = lambda data: 503

    fill(emitter, 2)

    assert eids(emitter.event_store.event_buffer) == ["0", "1"]
    assert emitter.retry_timer.is_active()
    assert "ZeroDivisionError" in caplog.text


@both_methods
@pytest.mark.parametrize("target", ["requests.Session.request", "requests.Session.send"])
@pytest.mark.parametrize("kind", [mock.Mock, mock.MagicMock])
def test_session_that_is_mocked_as_a_class_counts(method, target, kind):
    """Tests that patch `requests.Session` get what they return, body or not; a `MagicMock` has one without an end."""
    with mock.patch(target, return_value=kind(status_code=200)) as function:
        emitter = Emitter("collector.example.com", method=method, batch_size=1)
        fill(emitter, 1)

    assert function.call_count == 1
    assert emitter.stats().delivered == 1


@both_methods
def test_request_function_that_is_mocked_counts(method):
    """So do tests that patch `requests.api.request`, which `requests.post` calls."""
    with mock.patch("requests.api.request", return_value=mock.Mock(status_code=200)) as function:
        emitter = Emitter("collector.example.com", method=method, batch_size=1)
        fill(emitter, 1)

    assert function.call_count == 1
    assert emitter.stats().delivered == 1


def test_wrapper_that_is_older_than_the_library_counts(collector):
    """A wrapper that was installed before the import is called as well."""
    script = (
        "import functools, sys, requests\n"
        "original, calls = requests.post, []\n"
        "requests.post = functools.wraps(original)(lambda *a, **k: calls.append(a) or original(*a, **k))\n"
        "from snowplow_tracker import Emitter\n"
        "Emitter(sys.argv[1], batch_size=1).input({'eid': '0'})\n"
        "print(len(calls))\n"
    )

    run = subprocess.run(
        [sys.executable, "-c", script, collector.url], capture_output=True, text=True, check=True, timeout=60
    )

    assert run.stdout == "1\n"
    assert eids(collector.payloads) == ["0"]


def test_attributes_that_applications_set():
    """`lock` and `bytes_queued` were plain attributes in 1.1.0."""
    emitter = Emitter("collector.example.com", byte_limit=10_000)
    lock = threading.RLock()

    fill(emitter, 1)
    emitter.lock = lock
    emitter.bytes_queued = 0
    fill(emitter, 1, start=1)

    assert emitter.lock is lock
    assert emitter.bytes_queued == len(str(emitter.event_store.event_buffer[1]))


def test_what_a_get_says_is_not_in_the_log(caplog, collector):
    """An address that `requests` prints with its query shows nothing of the payload."""
    caplog.set_level(logging.INFO, logger="snowplow_tracker")
    collector.refuse_connections()
    emitter = with_manual_timers(Emitter(collector.url, method="get", batch_size=1))

    emitter.input({"eid": "0", "uid": "somebody"})

    assert "No response" in caplog.text
    assert "somebody" not in caplog.text + emitter.stats().last_error


def test_answer_that_breaks_off_counts_by_its_status(collector):
    """The collector has said that it took the payloads."""
    collector.respond_with(Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok"))
    emitter = Emitter(collector.url, batch_size=1)

    fill(emitter, 1)

    assert emitter.stats().delivered == 1


def test_redirect_to_nowhere_counts_by_its_own_status(collector):
    """Whether the target of a redirect can be reached makes no difference to a POST."""
    collector.respond_with(Answer(302, headers={"Location": "http://127.0.0.1:9/"}))
    emitter = Emitter(collector.url, batch_size=1, custom_retry_codes={302: False})

    fill(emitter, 1)

    assert (emitter.stats().last_status, emitter.stats().rejected) == (302, 1)


def test_capacity_may_be_changed_at_any_time():
    """A larger buffer takes more from the next payload on, and None stands for the default."""
    emitter = with_manual_timers(Emitter("collector.example.com", buffer_capacity=1, batch_size=100))
    emitter.http_post = lambda data: 503
    fill(emitter, 2)

    emitter.buffer_capacity = 3
    fill(emitter, 3, start=2)
    emitter.buffer_capacity = None
    fill(emitter, 3, start=5)

    assert eids(emitter.event_store.event_buffer) == ["0", "2", "3", "5", "6", "7"]


@both
def test_closed_emitter_begins_nothing_by_itself(collector, emitter_class):
    """No timer and no thread comes back after `close`, whatever is called, and whatever fails meanwhile."""
    before = own_threads()
    collector.respond_always(503)
    emitter = emitter_class(collector.url)
    fill(emitter, 1)
    emitter.close(timeout=0.1)

    emitter.set_flush_timer(0.01)
    emitter.sync_flush()

    assert not emitter.timer.is_active()
    assert not emitter.retry_timer.is_active()
    eventually(lambda: own_threads() <= before)
    collector.respond_always(200)
    assert emitter.close()


def test_closed_emitter_with_nothing_left_flushes_without_threads(collector):
    """A flush after a complete `close` has nothing to do."""
    before = own_threads()
    emitter = AsyncEmitter(collector.url)
    emitter.close()

    emitter.sync_flush()

    assert own_threads() <= before


def test_timer_that_races_with_close_is_cancelled():
    """A payload that is accepted just before `close` does not leave a timer behind."""
    emitter = with_manual_timers(Emitter("collector.example.com", flush_interval=5))
    start = emitter.timer.start

    def start_and_close(seconds):
        emitter._ledger.close()
        start(seconds)

    emitter.timer.start = start_and_close
    fill(emitter, 1)

    assert not emitter.timer.is_active()


def test_drops_that_no_line_has_told_are_told_at_exit(caplog):
    """The sum of the last seconds does not go under."""
    emitter = with_manual_timers(Emitter("collector.example.com", buffer_capacity=1))
    emitter.http_post = lambda data: 503
    fill(emitter, 5)

    emitter._flush_at_exit(0)

    assert "Dropped 3 payloads: the buffer is full" in caplog.text


def test_flush_that_nobody_waits_for_any_more_is_not_made(collector):
    """Flushes whose time was up before a thread was free make no burst of requests later."""
    answered = threading.Event()
    collector.respond_with(Answer(503, hold=answered))
    emitter = with_manual_timers(AsyncEmitter(collector.url, batch_size=1))
    fill(emitter, 1)
    collector.wait_for_requests(1)

    for _ in range(5):
        emitter.sync_flush(timeout=0.01)
    answered.set()
    eventually(lambda: emitter.retry_timer.is_active() and emitter.queue.qsize() == 0)

    assert len(collector.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303])
def test_redirect_that_a_given_session_follows_is_a_failure(collector, status):
    """A session of the application's turns the POST into a GET; whatever that gets, the payloads are not delivered."""
    collector.respond_with(Answer(status, headers={"Location": f"{collector.url}/health"}))
    with requests.Session() as session:
        emitter = with_manual_timers(Emitter(collector.url, session=session, batch_size=1))
        fill(emitter, 1)

    assert emitter.stats().last_status == status
    assert emitter.stats().buffered == 1
