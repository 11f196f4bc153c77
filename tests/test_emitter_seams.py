"""What applications, their tests and their subclasses hold on to."""

import inspect
import logging
import queue
import threading
from types import SimpleNamespace
from unittest import mock

import pytest
import requests
from support import PATIENCE_SECONDS, eids, eventually, is_balanced, numbered, with_manual_timers

import snowplow_tracker
from snowplow_tracker import AsyncEmitter, Emitter, EmitterConfiguration, InMemoryEventStore, emitters

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
            self._hand_over()

    emitter = Queueing(collector.url, batch_size=2)

    fill(emitter, 2)

    assert eids(collector.wait_for_payloads(2)) == ["0", "1"]
    assert emitter.close()


def test_thread_of_ones_own_may_consume(collector):
    """`consume` makes the calling thread one of the emitter's threads, until the emitter is closed."""
    emitter = AsyncEmitter(collector.url, batch_size=1)
    thread = threading.Thread(target=emitter.consume)
    thread.start()
    fill(emitter, 3)

    assert emitter.close()

    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert len(collector.payloads) == 3


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
    of_emitters = set(inspect.signature(AsyncEmitter).parameters) - {"endpoint", "method", "buffer_size"}
    of_configuration = set(inspect.signature(EmitterConfiguration).parameters)

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
