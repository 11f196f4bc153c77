"""Trackers: completing events, handing them to emitters, flushing and closing."""

import json
import logging
import math
import time
import uuid
from unittest import mock

import pytest

from snowplow_tracker import (
    AsyncEmitter,
    Emitter,
    Event,
    PageView,
    SelfDescribing,
    SelfDescribingJson,
    StructuredEvent,
    Subject,
    Tracker,
    tracker as tracker_module,
)
from snowplow_tracker.payload import Payload
from snowplow_tracker.tracker import VERSION

SCHEMA = "iglu:com.acme/thing/jsonschema/1-0-0"
NOON = 1577880000.25


class Capture:
    """An emitter that has nothing but what it needs."""

    def __init__(self):
        self.payloads = []

    def input(self, payload):
        self.payloads.append(payload)


class Flushable(Capture):
    """An emitter in the shape of 1.1.0."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def flush(self):
        self.calls.append("flush")

    def sync_flush(self):
        self.calls.append("sync_flush")

    def async_flush(self):
        self.calls.append("async_flush")


class Closable(Flushable):
    """An emitter that knows deadlines; each call takes a second of the clock that it is given."""

    def __init__(self, clock=None, outcome=True):
        super().__init__()
        self.clock = clock
        self.outcome = outcome

    def sync_flush(self, timeout=None):
        self.calls.append(("sync_flush", timeout))
        self._take_a_second()

    def close(self, *, timeout=None):
        self.calls.append(("close", timeout))
        self._take_a_second()
        return self.outcome

    def _take_a_second(self):
        if self.clock:
            self.clock.now += 1


class AnyKeywords(Capture):
    def __init__(self):
        super().__init__()
        self.calls = []

    def close(self, **kwargs):
        self.calls.append(kwargs)


class Opaque:
    """A callable whose signature nobody can tell."""

    __signature__ = "not a signature"

    def __init__(self):
        self.calls = []

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))


class Broken(Flushable):
    """An emitter whose every method raises."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error or OSError("out of order")

    def input(self, payload):
        raise self.error

    flush = sync_flush = async_flush = close = lambda self: self.input(None)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Duck:
    """An event that is none by inheritance."""

    def build_payload(self, encode_base64, json_encoder, subject=None):
        return Payload({"e": "xx", "p": "pc"})


class Forgetful(Event):
    def build_payload(self, encode_base64, json_encoder, subject=None):
        super().build_payload(encode_base64, json_encoder, subject)


@pytest.fixture
def monotonic(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def errors(caplog):
    """The lines that the tracker logged as errors."""
    caplog.set_level(logging.DEBUG, logger="snowplow_tracker")

    def messages():
        return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]

    return messages


# Construction


def test_one_emitter_or_several_make_a_list_of_the_trackers_own():
    """A single emitter, a list and a tuple are all fine, and the list that was passed stays the caller's."""
    first, second = Capture(), Capture()
    given = [first, second]

    tracker = Tracker("test", given)
    tracker.emitters.append(Capture())

    assert given == [first, second]
    assert Tracker("test", first).emitters == [first]
    assert Tracker("test", (first, second)).emitters == [first, second]


@pytest.mark.parametrize("container", [lambda emitter: emitter, lambda emitter: [emitter]])
def test_emitter_is_another_name_of_emitters(container):
    """The documentation's own name works."""
    emitter = Capture()

    tracker = Tracker(namespace="test", emitter=container(emitter))

    assert tracker.emitters == [emitter]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "emitters must be an object with a method input, got None"),
        ({"emitters": 3}, TypeError, "emitters must be an object with a method input, got 3"),
        ({"emitters": Capture}, TypeError, "emitters must be an object with a method input, got <class"),
        ({"emitters": [Capture(), 3]}, TypeError, r"emitters\[1\] must be an object with a method input, got 3"),
        ({"emitter": {}}, TypeError, "emitter must be an object with a method input, got {}"),
        ({"emitters": Capture(), "emitter": Capture()}, TypeError, "emitters and emitter are two names"),
        ({"emitters": []}, ValueError, r"emitters must not be empty, got \[\]"),
        ({"emitter": ()}, ValueError, r"emitter must not be empty, got \(\)"),
        ({"emitters": Capture(), "subject": {}}, TypeError, "subject must be a Subject, got {}"),
        ({"emitters": Capture(), "subject": Subject}, TypeError, "subject must be a Subject, got <class"),
        ({"emitters": Capture(), "json_encoder": 3}, TypeError, "json_encoder must be callable, got 3"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    """What a tracker cannot work with raises at construction, with name and value."""
    with pytest.raises(error, match=f"^{message}"):
        Tracker("test", **arguments)


def test_each_tracker_has_a_subject_of_its_own_by_default():
    """Without a subject given there is a new one, so that events have a platform."""
    first, second = Tracker("test", Capture()), Tracker("test", Capture())

    assert first.subject.standard_nv_pairs == {"p": "pc"}
    assert first.subject is not second.subject


def test_namespace_can_be_read():
    """The name of the tracker is the one that goes out."""
    assert Tracker("test", Capture()).get_namespace() == "test"


@pytest.mark.parametrize("method", ["add_emitter", "addEmitter"])
def test_emitters_can_be_added(method):
    """An added emitter gets what is tracked from then on, and the call can be chained."""
    first, second = Capture(), Capture()
    tracker = Tracker("test", first)
    tracker.track(PageView("u"))

    returned = getattr(tracker, method)(second)
    tracker.track(PageView("u"))

    assert returned is tracker
    assert (len(first.payloads), len(second.payloads)) == (2, 1)


def test_only_emitters_can_be_added():
    """What cannot take payloads raises at once."""
    tracker = Tracker("test", Capture())

    with pytest.raises(TypeError, match=r"^emitter must be an object with a method input, got None"):
        tracker.add_emitter(None)

    assert len(tracker.emitters) == 1


@pytest.mark.parametrize(("subject", "pairs"), [(None, {}), (Subject().set_user_id("u"), {"p": "pc", "uid": "u"})])
def test_subject_can_be_replaced(subject, pairs):
    """Another subject, or none, goes with what is tracked from then on."""
    capture = Capture()
    tracker = Tracker("test", capture)

    returned = tracker.set_subject(subject)
    tracker.track(PageView("u"))

    assert returned is tracker
    assert {name: capture.payloads[0][name] for name in ("p", "uid") if name in capture.payloads[0]} == pairs


def test_only_a_subject_can_replace_the_subject():
    """What is no subject raises at once, and the old one stays."""
    tracker = Tracker("test", Capture())

    with pytest.raises(TypeError, match=r"^subject must be a Subject, got 'me'$"):
        tracker.set_subject("me")

    assert isinstance(tracker.subject, Subject)


# Tracking


def test_payload_is_completed(monkeypatch):
    """Each payload gets an id, the time in milliseconds, the version, the namespace and the application."""
    monkeypatch.setattr(time, "time", lambda: NOON)
    capture = Capture()
    tracker = Tracker("test", capture, app_id="app")

    eid = tracker.track(PageView("u"))

    expected = {"e": "pv", "url": "u", "p": "pc", "tv": VERSION, "tna": "test", "aid": "app"}
    assert capture.payloads == [{**expected, "eid": eid, "dtm": 1577880000250}]


@pytest.mark.parametrize("app_id", [None, ""])
def test_application_without_a_name_is_left_out(app_id):
    """The name of the application is optional."""
    capture = Capture()

    Tracker("test", capture, app_id=app_id).track(PageView("u"))

    assert "aid" not in capture.payloads[0]


def test_complete_payload_returns_what_would_be_tracked():
    """A completed payload can be had without tracking it."""
    capture = Capture()

    payload = Tracker("test", capture).complete_payload(PageView("u"))

    assert {"eid", "dtm", "tv", "tna", "url"} <= set(payload.nv_pairs)
    assert capture.payloads == []


def test_ids_are_random_uuids():
    """An id is a UUID of version 4, and no two are the same."""
    ids = [Tracker.get_uuid() for _ in range(1000)]

    parsed = [uuid.UUID(each) for each in ids]
    assert [str(each) for each in parsed] == ids
    assert {each.version for each in parsed} == {4}
    assert {each.variant for each in parsed} == {uuid.RFC_4122}
    assert len(set(ids)) == 1000


@pytest.mark.parametrize(("tstamp", "milliseconds"), [(None, 1577880000250), ("5", 1577880000250), (5.9, 5), (0, 0)])
def test_timestamp_is_taken_or_read_from_the_clock(monkeypatch, tstamp, milliseconds):
    """A number is taken, in whole milliseconds; anything else reads the clock at that moment."""
    monkeypatch.setattr(time, "time", lambda: NOON)

    assert Tracker.get_timestamp(tstamp) == milliseconds


def test_steps_can_be_overridden():
    """A subclass may bring ids, times and further pairs of its own."""

    class Special(Tracker):
        @staticmethod
        def get_uuid():
            return "id"

        @staticmethod
        def get_timestamp(tstamp=None):
            return 7

        def complete_payload(self, event):
            payload = super().complete_payload(event)
            payload.add("tid", 1)
            return payload

    capture = Capture()
    Special("test", capture).track(PageView("u"))

    assert {name: capture.payloads[0][name] for name in ("eid", "dtm", "tid")} == {"eid": "id", "dtm": 7, "tid": 1}


def test_event_can_be_tracked_again_and_elsewhere():
    """Tracking leaves no trace in an event: each payload is right, whichever tracker makes it."""
    first, second = Capture(), Capture()
    event = SelfDescribing(SelfDescribingJson(SCHEMA, {"a": 1}))
    one = Tracker("one", first, subject=Subject().set_user_id("u"), app_id="app", encode_base64=False)
    two = Tracker("two", second)

    ids = [one.track(event), two.track(event), one.track(event)]

    assert len(set(ids)) == 3
    assert [payload["eid"] for payload in first.payloads + second.payloads] == [ids[0], ids[2], ids[1]]
    assert not {"uid", "aid", "ue_pr"} & set(second.payloads[0])
    volatile = {"eid": None, "dtm": None}
    assert {**first.payloads[0], **volatile} == {**first.payloads[1], **volatile}


def test_settings_can_be_changed_later():
    """What is tracked follows the attributes."""
    capture = Capture()
    tracker = Tracker("test", capture)

    tracker.encode_base64 = False
    tracker.json_encoder = lambda value: "stand-in"
    tracker.standard_nv_pairs["aid"] = "app"
    tracker.track(SelfDescribing(SelfDescribingJson(SCHEMA, object())))

    assert json.loads(capture.payloads[0]["ue_pr"])["data"]["data"] == "stand-in"
    assert capture.payloads[0]["aid"] == "app"


def test_emitters_get_the_payload_itself():
    """The defensive copy is the emitter's."""
    payload = Payload({"e": "xx", "p": "pc", "tv": "test"})
    first, second = Capture(), Capture()
    tracker = Tracker("test", [first, second])
    tracker.complete_payload = lambda event: payload

    tracker.track(PageView("u"))

    assert first.payloads[0] is second.payloads[0] is payload.nv_pairs


@pytest.mark.parametrize("event", [None, {"e": "pv"}, "event", PageView, object()])
def test_only_events_can_be_tracked(event):
    """Anything else raises TypeError, and no emitter hears of it."""
    capture = Capture()

    with pytest.raises(TypeError, match=r"^event must be an Event, got "):
        Tracker("test", capture).track(event)

    assert capture.payloads == []


def test_event_need_not_inherit():
    """What builds a payload is an event."""
    capture = Capture()

    Tracker("test", capture).track(Duck())

    assert capture.payloads[0]["e"] == "xx"


def test_event_that_builds_no_payload_is_named():
    """An override that forgets to return its payload is told so."""
    with pytest.raises(TypeError, match=r"^build_payload of Forgetful must return a Payload, got None$"):
        Tracker("test", Capture()).track(Forgetful())


def test_event_that_cannot_be_encoded_disturbs_nothing():
    """A programming error in one event raises, naming the field, and the next event is tracked."""
    capture = Capture()
    tracker = Tracker("test", capture)

    with pytest.raises(TypeError, match=r"^event_json\.data\['price'\] cannot be encoded as JSON"):
        tracker.track(SelfDescribing(SelfDescribingJson(SCHEMA, {"price": object()})))
    tracker.track(PageView("u"))

    assert [payload["e"] for payload in capture.payloads] == ["pv"]


def test_value_that_only_an_emitter_encodes_is_an_error_of_the_caller():
    """A dict in a plain field is encoded by the emitter; `track` raises, once all emitters have had the payload."""
    bare, last = Emitter("collector.example.com"), Capture()
    tracker = Tracker("ns", [bare, last])

    with pytest.raises(TypeError, match=r"^ue_pr\['a'\] cannot be encoded as JSON"):
        tracker.track(Event({"e": "ue", "ue_pr": {"a": object()}}))

    assert bare.stats().accepted == 0
    assert len(last.payloads) == 1


def test_emitter_that_fails_does_not_starve_the_others(errors):
    """What an emitter raises is logged, and the others get the payload."""
    first, last = Capture(), Capture()
    tracker = Tracker("test", [first, Broken(), last])

    eid = tracker.track(PageView("u"))

    assert [payload["eid"] for payload in first.payloads + last.payloads] == [eid, eid]
    assert len(errors()) == 1
    assert "Broken" in errors()[0]


def test_only_emitter_may_fail_too(errors):
    """Tracking does not raise because of an emitter."""
    assert Tracker("test", Broken()).track(PageView("u"))
    assert len(errors()) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_interruptions_pass_through(error):
    """Somebody who wants the program to end is not stopped by a tracker."""
    with pytest.raises(type(error)):
        Tracker("test", Broken(error)).track(PageView("u"))


def test_unknown_keys_are_reported_once_and_sent(errors):
    """A name that the pipeline does not know is an error in the log, once for each, and the payload still goes out."""
    capture = Capture()
    tracker = Tracker("test", capture)

    for _ in range(3):
        tracker.track(Event({"e": "xx", "colour": "red", "size": 1}))

    assert len(capture.payloads) == 3
    assert [("'test'" in message, message.count("'colour'"), message.count("'size'")) for message in errors()] == [
        (True, 1, 0),
        (True, 0, 1),
    ]


def test_unknown_keys_are_reported_up_to_a_number(errors):
    """An application that puts an id into a name fills neither the log nor the memory."""
    capture = Capture()
    tracker = Tracker("test", capture)

    for number in range(150):
        tracker.track(Event({"e": "xx", f"user_{number}": 1}))

    assert len(capture.payloads) == 150
    assert len(errors()) == len(tracker._reported_keys) == 100


def test_missing_keys_are_reported_once_and_sent(errors):
    """A name that the pipeline requires is an error in the log if it is missing, and the payload still goes out."""
    capture = Capture()
    tracker = Tracker("test", capture).set_subject(None)
    del tracker.standard_nv_pairs["tv"]

    tracker.track(Event())
    tracker.track(Event({}))

    assert len(capture.payloads) == 2
    assert [message.split("name ")[1][:4].rstrip(";") for message in errors()] == ["'e'", "'p'", "'tv'"]


def test_keys_that_are_no_strings_are_reported(errors):
    """Even a name that can be no name does no harm to the tracker."""
    Tracker("test", Capture()).track(Event({"e": "xx", 3: 1, None: 2}))

    assert len(errors()) == 2


def test_good_payloads_are_not_reported(errors):
    """What the library makes by itself is never reported."""
    tracker = Tracker("test", Capture(), app_id="app")

    tracker.track(StructuredEvent("c", "a", "l", "p", 1, true_timestamp=5, context=[SelfDescribingJson(SCHEMA, 1)]))

    assert errors() == []


# Flushing


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        ({}, "sync_flush"),
        ({"wait": True}, "sync_flush"),
        ({"wait": False}, "async_flush"),
        ({"is_async": True}, "flush"),
        ({"is_async": False}, "sync_flush"),
        ({"wait": False, "is_async": False}, "sync_flush"),
        ({"timeout": 3}, "sync_flush"),
    ],
)
def test_flush_calls_every_emitter(arguments, call):
    """Each way to flush has its method, which emitters in the shape of 1.1.0 have without a timeout."""
    first, second = Flushable(), Flushable()
    tracker = Tracker("test", [first, second])

    returned = tracker.flush(**arguments)

    assert returned is tracker
    assert first.calls == second.calls == [call]


def test_flush_takes_wait_by_position():
    """`flush(False)` is the documented asynchronous flush."""
    emitter = Flushable()

    Tracker("test", emitter).flush(False)

    assert emitter.calls == ["async_flush"]


@pytest.mark.parametrize("arguments", [{}, {"wait": False}, {"is_async": True}])
def test_flush_falls_back_on_what_there_is(arguments):
    """A custom emitter may have `flush` alone, or nothing at all."""
    plain, simple = Capture(), Capture()
    simple.flushed = []
    simple.flush = lambda: simple.flushed.append(True)

    Tracker("test", [plain, simple]).flush(**arguments)

    assert simple.flushed == [True]


def test_flush_shares_one_deadline(monotonic):
    """The timeout is for all emitters together, and each gets an equal share of what is left of it."""
    emitters = [Closable(monotonic) for _ in range(3)]

    Tracker("test", emitters).flush(timeout=1.5)

    assert [emitter.calls for emitter in emitters] == [
        [("sync_flush", 0.5)],
        [("sync_flush", 0.25)],
        [("sync_flush", 0)],
    ]


def test_flush_without_a_timeout_passes_none(monotonic):
    """Emitters are called without an argument unless there is a timeout."""
    emitter = Closable(monotonic)

    Tracker("test", emitter).flush()

    assert emitter.calls == [("sync_flush", None)]


def test_flush_goes_on_after_a_failure(errors):
    """What one emitter raises is logged, and the next is flushed."""
    last = Flushable()
    tracker = Tracker("test", [Broken(), last])

    tracker.flush().flush(False).flush(is_async=True)

    assert last.calls == ["sync_flush", "async_flush", "flush"]
    assert len(errors()) == 3


@pytest.mark.parametrize("method", ["flush", "close"])
@pytest.mark.parametrize(
    ("timeout", "error"), [(-1, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_timeout_must_be_a_number_of_seconds(method, timeout, error):
    """A wrong timeout raises with its name, and nothing is flushed."""
    emitter = Closable()

    with pytest.raises(error, match=r"^timeout must "):
        getattr(Tracker("test", emitter), method)(timeout=timeout)

    assert emitter.calls == []


# Closing


def test_close_shares_one_deadline_of_five_seconds(monotonic):
    """All emitters together have five seconds by default."""
    emitters = [Closable(monotonic), Closable(monotonic)]

    assert Tracker("test", emitters).close() is True

    assert [emitter.calls for emitter in emitters] == [[("close", 2.5)], [("close", 4.0)]]


def test_close_without_limit():
    """None lets the emitters take the time that they need."""
    emitter = Closable()

    assert Tracker("test", emitter).close(timeout=None) is True

    assert emitter.calls == [("close", None)]


@pytest.mark.parametrize("others", [[Closable(outcome=False), Closable()], [Broken(), Closable()]])
def test_close_tells_what_is_left_and_closes_all(others, errors):
    """One emitter that is not done makes the outcome False, and all others are closed nevertheless."""
    others[1].calls.clear()

    assert Tracker("test", others).close(1) is False

    assert [call[0] for call in others[1].calls] == ["close"]


def test_emitter_that_has_used_up_the_time_is_not_closed_twice(monotonic):
    """There is a second round only if there is time for it, so what is left is told once."""
    emitter = Closable(monotonic, outcome=False)

    assert Tracker("test", emitter).close(timeout=1) is False

    assert emitter.calls == [("close", 1)]


def test_close_flushes_emitters_that_cannot_be_closed():
    """A custom emitter without `close` is flushed, if it can be."""
    flushable = Flushable()

    assert Tracker("test", [flushable, Capture()]).close() is True

    assert flushable.calls == ["sync_flush"]


def test_deadline_goes_only_to_methods_that_take_it():
    """A method of a custom emitter gets the timeout if it has a place for it."""
    keywords, opaque = AnyKeywords(), Capture()
    opaque.close = Opaque()

    Tracker("test", [keywords, opaque]).close()

    assert list(keywords.calls[0]) == ["timeout"]
    assert opaque.close.calls == [((), {})]


def test_tracker_is_closed_at_the_end_of_a_with_statement():
    """A tracker is its own context manager."""
    emitter = Closable()

    with Tracker("test", emitter) as tracker:
        tracker.track(PageView("u"))

    assert isinstance(tracker, Tracker)
    assert [call[0] for call in emitter.calls] == ["close"]


def test_error_in_a_with_statement_passes_through():
    """Closing hides nothing."""
    emitter = Closable()

    with pytest.raises(KeyError), Tracker("test", emitter):
        raise KeyError

    assert [call[0] for call in emitter.calls] == ["close"]


def test_logger_has_no_handlers():
    """How the log looks is the application's business."""
    assert tracker_module.logger.handlers == []


def without_constructor():
    class Own(Emitter):
        def __init__(self):
            pass

        def input(self, payload):
            pass

        def sync_flush(self, timeout=None):
            pass

        def close(self, timeout=None):
            return True

    return Own()


@pytest.mark.parametrize(
    "make",
    [
        lambda: mock.MagicMock(spec=Emitter),
        lambda: mock.create_autospec(AsyncEmitter, instance=True),
        without_constructor,
    ],
    ids=["spec", "autospec", "own constructor"],
)
def test_emitter_that_is_none_may_be_flushed_and_closed(make):
    """Mocks of emitters, and classes that leave the constructor out, cannot tell what is left in them."""
    tracker = Tracker("test", make())

    assert tracker.flush() is tracker
    assert tracker.close() is True


def test_payload_of_a_mock_is_passed_on():
    """A test that replaces what completes payloads wants to see it in the emitter."""
    capture = Capture()

    with mock.patch.object(Tracker, "complete_payload") as complete_payload:
        Tracker("test", capture).track(PageView("https://shop.example/"))

    assert capture.payloads == [complete_payload.return_value.nv_pairs]


def test_figures_of_a_subclass_may_be_anything():
    """A class of an application's had the name `stats` for itself before emitters had it."""

    class Counting(Emitter):
        def __init__(self):
            super().__init__("collector.example.com")
            self.stats = {"sent": 0}

    tracker = Tracker("test", Counting())

    assert tracker.flush() is tracker
