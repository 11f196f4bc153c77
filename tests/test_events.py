"""Events: their fields, and the payloads that they become."""

import json
import math
import time
from collections import deque
from datetime import datetime, timedelta, timezone, tzinfo

import pytest

from snowplow_tracker import (
    Event,
    PagePing,
    PageView,
    ScreenView,
    SelfDescribing,
    SelfDescribingJson,
    StructuredEvent,
    Subject,
)
from snowplow_tracker.constants import CONTEXT_SCHEMA, MOBILE_SCHEMA_PATH, UNSTRUCT_EVENT_SCHEMA

SCHEMA = "iglu:com.acme/thing/jsonschema/1-0-0"

EVENTS = [
    Event({"e": "xx"}),
    PagePing("u"),
    PageView("u"),
    ScreenView("i", "n"),
    SelfDescribing(SelfDescribingJson(SCHEMA, {})),
    StructuredEvent("c", "a"),
]
# Attribute, where its pairs are, and the name of its pair.
OPTIONAL_FIELDS = [
    (PageView("u"), "page_title", "page"),
    (PageView("u"), "referrer", "refr"),
    (PagePing("u"), "page_title", "page"),
    (PagePing("u"), "referrer", "refr"),
    (PagePing("u"), "min_x", "pp_mix"),
    (PagePing("u"), "max_x", "pp_max"),
    (PagePing("u"), "min_y", "pp_miy"),
    (PagePing("u"), "max_y", "pp_may"),
    (StructuredEvent("c", "a"), "label", "se_la"),
    (StructuredEvent("c", "a"), "property_", "se_pr"),
    (StructuredEvent("c", "a"), "value", "se_va"),
    (ScreenView("i", "n"), "type", "type"),
    (ScreenView("i", "n"), "previous_name", "previousName"),
    (ScreenView("i", "n"), "previous_id", "previousId"),
    (ScreenView("i", "n"), "previous_type", "previousType"),
    (ScreenView("i", "n"), "transition_type", "transitionType"),
]
REQUIRED_FIELDS = [
    (lambda value: PageView(value), "page_url", "url"),
    (lambda value: PagePing(value), "page_url", "url"),
    (lambda value: StructuredEvent(value, "a"), "category", "se_ca"),
    (lambda value: StructuredEvent("c", value), "action", "se_ac"),
    (lambda value: ScreenView(value, "n"), "id_", "id"),
    (lambda value: ScreenView("i", value), "name", "name"),
]

each_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


def pairs(event, *, encode_base64=False, json_encoder=None, subject=None):
    return event.build_payload(encode_base64, json_encoder, subject).nv_pairs


def fields(event):
    """The event's own fields as they go out: for a screen view, those inside its JSON."""
    sent = pairs(event)
    return json.loads(sent["ue_pr"])["data"]["data"] if isinstance(event, ScreenView) else sent


@pytest.mark.parametrize(("event", "attribute", "name"), OPTIONAL_FIELDS)
@pytest.mark.parametrize("value", ["x", 0, 1.5])
def test_optional_field_goes_out_as_given(event, attribute, name, value):
    """A field that is set reads what was set and goes out unchanged, zero included."""
    setattr(event, attribute, value)

    assert getattr(event, attribute) == value
    assert fields(event)[name] == value


@pytest.mark.parametrize(("event", "attribute", "name"), OPTIONAL_FIELDS)
def test_none_clears_an_optional_field(event, attribute, name):
    """Setting None takes the field away; it reads None then, and setting None again does no harm."""
    setattr(event, attribute, "x")

    setattr(event, attribute, None)
    setattr(event, attribute, None)

    assert getattr(event, attribute) is None
    assert name not in fields(event)


@pytest.mark.parametrize(("make", "attribute", "name"), REQUIRED_FIELDS)
def test_required_field_goes_out(make, attribute, name):
    """A required field can be given and changed."""
    event = make("first")
    setattr(event, attribute, "second")

    assert getattr(event, attribute) == "second"
    assert fields(event)[name] == "second"


@pytest.mark.parametrize(("make", "attribute", "name"), REQUIRED_FIELDS)
@pytest.mark.parametrize("value", ["", None, 3])
def test_required_field_must_be_a_non_empty_string(make, attribute, name, value):
    """The constructor and the setter refuse a wrong value by the parameter's name."""
    event = make("first")
    message = f"^{attribute} must be a non-empty string, got {value!r}$"

    with pytest.raises(ValueError, match=message):
        make(value)
    with pytest.raises(ValueError, match=message):
        setattr(event, attribute, value)

    assert getattr(event, attribute) == "first"


@pytest.mark.parametrize("value", ["", math.nan, math.inf])
def test_values_without_meaning_clear_a_field(value):
    """Empty strings and numbers that are none do not go out."""
    event = StructuredEvent("c", "a", label="l", value=1)

    event.label = value
    event.value = value

    assert pairs(event) == {"e": "se", "se_ca": "c", "se_ac": "a"}


def test_empty_string_is_a_value_in_a_screen_view():
    """Inside JSON the empty string goes out, as it did in 1.1.0."""
    event = ScreenView("i", "n", type="")

    assert fields(event) == {"id": "i", "name": "n", "type": ""}


def test_number_that_is_none_becomes_null_in_a_screen_view():
    """Inside JSON NaN becomes null."""
    event = ScreenView("i", "n", type=math.nan)

    assert fields(event)["type"] is None


def test_field_of_the_class_is_its_description():
    """Read from the class, a field is the descriptor and no value."""
    assert type(PageView.page_url).__name__ == "WireField"


def test_screen_view_properties_are_a_dict():
    """The properties of a screen view can be read and changed as a dict."""
    event = ScreenView("i", "n")

    event.screen_view_properties["previousId"] = "p"

    assert event.screen_view_properties == {"id": "i", "name": "n", "previousId": "p"}
    assert event.previous_id == "p"


def test_payload_holds_the_own_fields():
    """The `payload` of an event is there to be read and added to."""
    event = PageView("u", page_title="t")

    event.payload.add("uid", "me")

    assert event.payload.nv_pairs == {"e": "pv", "url": "u", "page": "t", "uid": "me"}
    assert pairs(event)["uid"] == "me"


@pytest.mark.parametrize("encode_base64", [True, False])
def test_self_describing_event_goes_out_in_its_envelope(encode_base64):
    """The data travels with its schema, inside the envelope."""
    event = SelfDescribing(SelfDescribingJson(SCHEMA, {"a": 1}))

    sent = pairs(event, encode_base64=encode_base64)

    assert set(sent) == {"e", "ue_px" if encode_base64 else "ue_pr"}
    if not encode_base64:
        envelope = json.loads(sent["ue_pr"])
        assert envelope == {"schema": UNSTRUCT_EVENT_SCHEMA, "data": {"schema": SCHEMA, "data": {"a": 1}}}


def test_screen_view_goes_out_with_the_mobile_schema():
    """A screen view is a self-describing event."""
    sent = pairs(ScreenView("i", "n"))

    assert sent["e"] == "ue"
    assert json.loads(sent["ue_pr"])["data"]["schema"] == f"{MOBILE_SCHEMA_PATH}/screen_view/jsonschema/1-0-0"


@each_event
def test_building_a_payload_does_not_change_the_event(event):
    """Each payload is a new one, and right, whatever was built before."""
    event.context = [SelfDescribingJson(SCHEMA, 1)]
    before = dict(event.payload.nv_pairs)

    first = event.build_payload(True, None, Subject().set_user_id("first"))
    first.add("url", "changed")
    second = event.build_payload(False, None, Subject().set_lang("fr"))
    third = event.build_payload(False, None)

    assert event.payload.nv_pairs == before
    assert {"uid", "cx"} <= set(first.nv_pairs)
    assert {"lang", "co"} <= set(second.nv_pairs)
    assert not {"uid", "cx"} & set(second.nv_pairs)
    assert not {"uid", "lang", "p", "cx"} & set(third.nv_pairs)


def test_none_in_the_first_fields_is_left_out():
    """None says nothing, and an empty string in an event without a type goes out as it did in 1.1.0."""
    assert pairs(Event({"e": "xx", "a": None, "b": "", "c": 0})) == {"e": "xx", "b": "", "c": 0}


def test_subject_goes_with_the_event():
    """The tracker's subject adds its fields, and wins over fields of the event with the same name."""
    sent = pairs(Event({"e": "xx", "p": "web", "uid": "event"}), subject=Subject().set_user_id("s"))

    assert sent == {"e": "xx", "p": "pc", "uid": "s"}


def test_subject_of_the_event_wins():
    """Where both subjects know a field, the event's is taken; None there leaves the field out."""
    event = PageView("u", event_subject=Subject().set_user_id("event").set_lang(None))

    sent = pairs(event, subject=Subject().set_user_id("tracker").set_lang("fr").set_timezone("UTC"))

    assert sent == {"e": "pv", "url": "u", "p": "pc", "uid": "event", "tz": "UTC"}


def test_subject_of_the_event_can_be_cleared():
    """Setting None takes the event's subject away."""
    event = PageView("u", event_subject=Subject())

    event.event_subject = None

    assert pairs(event) == {"e": "pv", "url": "u"}


def test_class_is_no_event_subject():
    """Forgotten parentheses get the same message."""
    with pytest.raises(TypeError, match=r"^event_subject must be a Subject, got <class"):
        PageView("u", event_subject=Subject).build_payload(False, None, None)


def test_event_subject_that_is_no_subject_is_named():
    """A subject of another type raises TypeError when the payload is built."""
    event = PageView("u", event_subject={"uid": "x"})

    with pytest.raises(TypeError, match=r"^event_subject must be a Subject, got {'uid': 'x'}$"):
        pairs(event)


@pytest.mark.parametrize("container", [list, tuple, deque, iter])
def test_context_may_be_any_iterable(container):
    """Entities come in a list or in anything that a list can be made of, and go out each time."""
    event = PageView("u", context=container([SelfDescribingJson(SCHEMA, 1), SelfDescribingJson(SCHEMA, 2)]))

    first, second = pairs(event), pairs(event)

    entities = [{"schema": SCHEMA, "data": 1}, {"schema": SCHEMA, "data": 2}]
    assert json.loads(first["co"]) == {"schema": CONTEXT_SCHEMA, "data": entities}
    assert second == first
    assert isinstance(event.context, list)


def test_list_of_entities_is_kept():
    """Entities that are appended to the list later go out, too."""
    entities = []
    event = PageView("u", context=entities)

    entities.append(SelfDescribingJson(SCHEMA, 1))

    assert event.context is entities
    assert "co" in pairs(event)


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_context_can_be_cleared(nothing):
    """Without entities the context is an empty list, and nothing goes out."""
    event = PageView("u", context=[SelfDescribingJson(SCHEMA, 1)])

    event.context = nothing

    assert event.context == []
    assert pairs(event) == {"e": "pv", "url": "u"}


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ([SelfDescribingJson(SCHEMA, 1), {"a": 1}], r"context\[1\] must be a SelfDescribingJson, got {'a': 1}"),
        ("abc", r"context\[0\] must be a SelfDescribingJson, got 'a'"),
        (3, "context must be a list of SelfDescribingJson, got 3"),
        (SelfDescribingJson(SCHEMA, 1), "context must be a list of SelfDescribingJson, got <"),
        (
            [SelfDescribingJson(SCHEMA, 1), SelfDescribingJson(SCHEMA, {"x": [object()]})],
            r"context\[1\]\.data\['x'\]\[0\] cannot be encoded as JSON",
        ),
    ],
)
def test_wrong_context_is_named(context, message):
    """What is no context raises TypeError with the place when the payload is built."""
    event = PageView("u", context=context)

    with pytest.raises(TypeError, match=f"^{message}"):
        pairs(event)


@pytest.mark.parametrize("event_json", [None, {"schema": SCHEMA, "data": {}}, "x"])
def test_self_describing_event_needs_a_self_describing_json(event_json):
    """Anything else raises TypeError when the payload is built."""
    event = SelfDescribing(event_json)

    with pytest.raises(TypeError, match=r"^event_json must be a SelfDescribingJson, got "):
        pairs(event)


def test_event_json_can_be_changed():
    """The data of a self-describing event is an attribute."""
    event = SelfDescribing(SelfDescribingJson(SCHEMA, 1))

    event.event_json = SelfDescribingJson(SCHEMA, 2)

    assert event.event_json.data == 2
    assert json.loads(pairs(event)["ue_pr"])["data"]["data"] == 2


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (SelfDescribing(SelfDescribingJson(SCHEMA, {"price": object()})), r"event_json\.data\['price'\]"),
        (ScreenView("i", "n", type=object()), r"screen_view\.data\['type'\]"),
    ],
)
def test_data_without_json_is_named(event, message):
    """Data that cannot be encoded raises TypeError with the field."""
    with pytest.raises(TypeError, match=f"^{message} cannot be encoded as JSON"):
        pairs(event)


def test_json_encoder_reaches_data_and_context():
    """The user's function substitutes in both."""
    event = SelfDescribing(SelfDescribingJson(SCHEMA, object()), context=[SelfDescribingJson(SCHEMA, object())])

    sent = pairs(event, json_encoder=lambda value: "stand-in")

    assert sent["ue_pr"].count("stand-in") == sent["co"].count("stand-in") == 1


@pytest.mark.parametrize(
    ("timestamp", "milliseconds"),
    [
        (1399021242030, 1399021242030),
        (1399021242240.9, 1399021242240),
        (0, 0),
        (-3.5, -3),
        (datetime(2014, 5, 2, 9, 0, 42, 240999, tzinfo=timezone.utc), 1399021242240),
        (datetime(2014, 5, 2, 11, 0, 42, 240000, tzinfo=timezone(timedelta(hours=2))), 1399021242240),
        (datetime.fromtimestamp(1399021242), 1399021242000),
    ],
)
def test_true_timestamp_goes_out_in_milliseconds(timestamp, milliseconds):
    """Numbers are milliseconds; a datetime is converted, from local time if it has no time zone."""
    event = PageView("u", true_timestamp=timestamp)

    assert event.true_timestamp == timestamp
    assert pairs(event)["ttm"] == milliseconds


@pytest.mark.parametrize("timestamp", ["1399021242240", math.nan, math.inf, None])
def test_true_timestamp_that_is_none_is_left_out(timestamp):
    """What is no point in time does not go out, and None clears."""
    event = PageView("u", true_timestamp=1)

    event.true_timestamp = timestamp

    assert "ttm" not in pairs(event)


class FieldsOfItsOwn(Event):
    def __init__(self):
        super().__init__()
        self.payload.add("e", "xx")

    def build_payload(self, encode_base64, json_encoder, subject=None):
        payload = super().build_payload(encode_base64, json_encoder, subject)
        payload.add("k", 1)
        return payload


class Marked(Event):
    def build_payload(self, encode_base64, json_encoder, subject=None):
        payload = super().build_payload(encode_base64, json_encoder, subject)
        payload.add("marked", 1)
        return payload


class MarkedSelfDescribing(SelfDescribing, Marked):
    pass


def test_subclasses_may_add_fields():
    """A subclass adds to `payload`, or to the payload that its base class builds."""
    event = FieldsOfItsOwn()

    assert pairs(event) == pairs(event) == {"e": "xx", "k": 1}


def test_subclasses_may_be_combined():
    """All events build upon one another's `build_payload` in the order of inheritance."""
    sent = pairs(MarkedSelfDescribing(SelfDescribingJson(SCHEMA, 1)))

    assert sent["marked"] == 1
    assert "ue_pr" in sent


class NoTime(tzinfo):
    def utcoffset(self, moment):
        raise ZeroDivisionError


@pytest.mark.parametrize("timestamp", [datetime.min, datetime(2020, 1, 1, tzinfo=NoTime())], ids=["min", "no time"])
def test_time_that_cannot_be_converted_is_left_out(timestamp, monkeypatch):
    """The ends of the calendar lie outside of it in some time zones, and others are broken; the event goes out."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()

    payload = PageView("u", true_timestamp=timestamp).build_payload(False, None)

    monkeypatch.undo()
    time.tzset()
    assert "ttm" not in payload.nv_pairs


def test_time_at_the_end_of_the_calendar_is_converted():
    """In UTC it may lie in the year 10,000."""
    end = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))

    payload = PageView("u", true_timestamp=end).build_payload(False, None)

    assert payload.nv_pairs["ttm"] == 253402343999999


class Array:
    def __eq__(self, other):
        return self

    __ne__ = __eq__
    __hash__ = None

    def __bool__(self):
        raise ValueError("the truth value of an array is ambiguous")


def test_values_are_not_compared():
    """A value that compares to something else than True or False, such as an array, is a value like any other."""
    array = Array()
    event = PageView("u", page_title=array, event_subject=Subject().set_user_id(array))

    payload = event.build_payload(False, None).nv_pairs

    assert payload["page"] is array
    assert payload["uid"] is array


def test_context_that_is_no_list_is_refused():
    """Whatever it is, it is a TypeError that names it."""
    event = PageView("u", context=Array())

    with pytest.raises(TypeError, match=r"^context must be a list of SelfDescribingJson, got "):
        event.build_payload(False, None)
