"""The deprecated tracking methods: whom they warn, and through what they track."""

import json
import math
import warnings
from datetime import datetime, timezone

import pytest

from snowplow_tracker import SelfDescribingJson, Subject, Tracker

SCHEMA = "iglu:com.acme/thing/jsonschema/1-0-0"
CONTEXT = [SelfDescribingJson(SCHEMA, "context")]
DESCRIBED = SelfDescribingJson(SCHEMA, "data")

# Method, required arguments, and how often it reaches `track`.
CALLS = [
    ("track_page_view", ("u",), 1),
    ("track_page_ping", ("u",), 1),
    ("track_link_click", ("u",), 1),
    ("track_add_to_cart", ("sku", 1), 1),
    ("track_remove_from_cart", ("sku", 1), 1),
    ("track_form_change", ("f", "e", "INPUT", "v"), 1),
    ("track_form_submit", ("f",), 1),
    ("track_site_search", (["term"],), 1),
    ("track_ecommerce_transaction_item", ("o", "sku", 1, 1), 1),
    ("track_ecommerce_transaction", ("o", 1, *[None] * 7, [{"sku": "s", "price": 1, "quantity": 1}] * 2), 3),
    ("track_screen_view", ("n",), 1),
    ("track_mobile_screen_view", ("n",), 1),
    ("track_struct_event", ("c", "a"), 1),
    ("track_self_describing_event", (DESCRIBED,), 1),
    ("track_unstruct_event", (DESCRIBED,), 1),
]
THROUGH_SELF_DESCRIBING = {
    "track_link_click",
    "track_add_to_cart",
    "track_remove_from_cart",
    "track_form_change",
    "track_form_submit",
    "track_site_search",
    "track_screen_view",
    "track_unstruct_event",
}

each_call = pytest.mark.parametrize(("method", "arguments", "count"), CALLS, ids=[call[0] for call in CALLS])


class Capture:
    def __init__(self):
        self.payloads = []

    def input(self, payload):
        self.payloads.append(payload)


class Recording(Tracker):
    """A tracker as applications derive it, which notes the calls that reach its overrides."""

    def __init__(self):
        self.capture = Capture()
        self.tracked = []
        self.described = []
        super().__init__("test", self.capture, encode_base64=False)

    def track(self, event):
        self.tracked.append(event)
        return super().track(event)

    def track_self_describing_event(self, *args, **kwargs):
        self.described.append((args, sorted(kwargs)))
        return super().track_self_describing_event(*args, **kwargs)


def call(tracker, method, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(tracker, method)(*args, **kwargs)


def data_of(method, *args, **kwargs):
    """The data that goes out for a call."""
    tracker = Recording()
    call(tracker, method, *args, **kwargs)
    return json.loads(tracker.capture.payloads[-1]["ue_pr"])["data"]["data"]


def last_payload(method, *args, **kwargs):
    tracker = Recording()
    call(tracker, method, *args, **kwargs)
    return tracker.capture.payloads[-1]


@each_call
def test_warning_points_at_the_caller_once_per_call(method, arguments, count):
    """Each call warns once, whatever it calls inside, and shows the caller's line."""
    tracker = Tracker("test", Capture())

    for _ in range(2):
        with pytest.warns(DeprecationWarning, match=rf"^Tracker\.{method} is deprecated; use track\(") as caught:
            getattr(tracker, method)(*arguments)

        assert [warning.filename for warning in caught] == [__file__]


@each_call
def test_warning_is_given_again_after_an_error(method, arguments, count):
    """A call that raises leaves nothing behind that would keep the next from warning."""
    tracker = Tracker("test", Capture())
    call(tracker, method, *arguments)
    with pytest.raises(TypeError):
        call(tracker, method, *arguments, no_such_argument=1)

    with pytest.warns(DeprecationWarning, match=method):
        getattr(tracker, method)(*arguments)


@each_call
def test_calls_go_through_track_and_return_the_tracker(method, arguments, count):
    """Each method tracks through `track`, which applications override, and can be chained."""
    tracker = Recording()

    returned = call(tracker, method, *arguments)

    assert returned is tracker
    assert len(tracker.tracked) == len(tracker.capture.payloads) == count


@each_call
def test_self_describing_ones_go_through_the_overridable_method(method, arguments, count):
    """Methods that track data with a schema call `track_self_describing_event` with keywords."""
    tracker = Recording()

    call(tracker, method, *arguments)

    keywords = ["context", "event_json", "event_subject", "tstamp"]
    inner = [entry for entry in tracker.described if entry != ((DESCRIBED,), [])]
    assert inner == ([((), keywords)] if method in THROUGH_SELF_DESCRIBING else [])


@each_call
def test_common_arguments_reach_each_payload(method, arguments, count):
    """Context, timestamp and subject go with every payload of a call."""
    tracker = Recording()
    subject = Subject().set_user_id("me")

    call(tracker, method, *arguments, context=CONTEXT, tstamp=1399021242030, event_subject=subject)

    for payload in tracker.capture.payloads:
        assert json.loads(payload["co"])["data"] == [{"schema": SCHEMA, "data": "context"}]
        assert payload["ttm"] == 1399021242030
        assert payload["uid"] == "me"


@each_call
def test_common_arguments_may_be_left_out(method, arguments, count):
    """Without them nothing of the kind goes out, but for the timestamp that ties the items of a purchase together."""
    payload = last_payload(method, *arguments)

    assert not {"co", "cx", "uid"} & set(payload)
    assert ("ttm" in payload) == (method == "track_ecommerce_transaction")


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("track_page_view", {"page_url": ""}, "page_url must be a non-empty string, got ''"),
        ("track_page_ping", {"page_url": ""}, "page_url must be"),
        ("track_link_click", {"target_url": ""}, "target_url must be a non-empty string, got ''"),
        ("track_add_to_cart", {"sku": "", "quantity": 1}, "sku must be"),
        ("track_remove_from_cart", {"sku": "", "quantity": 1}, "sku must be"),
        ("track_form_change", {"form_id": "", "element_id": "", "node_name": "INPUT", "value": ""}, "form_id must be"),
        (
            "track_form_change",
            {"form_id": "f", "element_id": "", "node_name": "DIV", "value": ""},
            "node_name must be one of 'INPUT', 'SELECT', 'TEXTAREA', got 'DIV'",
        ),
        (
            "track_form_change",
            {"form_id": "f", "element_id": "", "node_name": "INPUT", "value": "", "type_": "fax"},
            "type_ must be one of 'button', .*, got 'fax'",
        ),
        ("track_form_submit", {"form_id": ""}, "form_id must be"),
        ("track_form_submit", {"form_id": "f", "elements": [{}]}, r"elements\[0\] must have the key 'name', got {}"),
        ("track_site_search", {"terms": []}, r"terms must not be empty, got \[\]"),
        ("track_ecommerce_transaction_item", {"order_id": "", "sku": "s", "price": 1, "quantity": 1}, "order_id must"),
        ("track_ecommerce_transaction_item", {"order_id": "o", "sku": "", "price": 1, "quantity": 1}, "sku must be"),
        ("track_ecommerce_transaction", {"order_id": "", "total_value": 1}, "order_id must be"),
        ("track_mobile_screen_view", {"name": ""}, "name must be"),
        ("track_struct_event", {"category": "", "action": "a"}, "category must be"),
        ("track_struct_event", {"category": "c", "action": ""}, "action must be"),
    ],
)
def test_broken_contracts_are_named(method, arguments, message):
    """A wrong argument raises ValueError with its name, and nothing is tracked."""
    tracker = Recording()

    with pytest.raises(ValueError, match=f"^{message}"):
        call(tracker, method, **arguments)

    assert tracker.capture.payloads == []


def test_unset_properties_are_left_out_and_empty_ones_kept():
    """None says nothing; an empty string, an empty list and zero are data."""
    assert data_of("track_link_click", "u") == {"targetUrl": "u"}
    assert data_of("track_link_click", "u", "", [], "", "") == {
        "targetUrl": "u",
        "elementId": "",
        "elementClasses": [],
        "elementTarget": "",
        "elementContent": "",
    }
    assert data_of("track_add_to_cart", "s", 0, unit_price=0) == {"sku": "s", "quantity": 0, "unitPrice": 0}


def test_form_change_tells_of_missing_elements_and_values():
    """The schema requires both properties, so None goes out as null."""
    assert data_of("track_form_change", "f", None, "TEXTAREA", None) == {
        "formId": "f",
        "elementId": None,
        "nodeName": "TEXTAREA",
        "value": None,
    }


def test_form_types_are_compared_without_case():
    """The type of a field goes out as it was written."""
    assert data_of("track_form_change", "f", "e", "INPUT", "v", type_="Text")["type"] == "Text"


def test_form_without_elements_has_no_such_property():
    """An empty list of elements is left out, an empty list of classes is not."""
    assert data_of("track_form_submit", "f", [], []) == {"formId": "f", "formClasses": []}


@pytest.mark.parametrize("elements", ["", 0, {}, ()])
def test_empty_form_elements_of_any_kind_are_none(elements):
    """Nothing is nothing, whatever it is written as."""
    assert data_of("track_form_submit", "f", elements=elements) == {"formId": "f"}


def test_form_elements_go_out():
    """The elements of a form go out as they are."""
    element = {"name": "n", "value": "v", "nodeName": "INPUT", "type": "text"}

    assert data_of("track_form_submit", "f", elements=[element]) == {"formId": "f", "elements": [element]}


def test_mobile_screen_view_gets_an_id_of_its_own():
    """Two screen views without an id are two different views."""
    first, second = (data_of("track_mobile_screen_view", "n")["id"] for _ in range(2))

    assert len(first) == 36
    assert first != second
    assert data_of("track_mobile_screen_view", "n", "mine")["id"] == "mine"


def test_items_take_after_the_purchase_and_stay_the_callers():
    """Order and currency of the purchase replace the items' own, and the dicts that were passed do not change."""
    item = {"sku": "s", "price": 1, "quantity": 2, "currency": "USD", "order_id": "other"}
    before = dict(item)

    payload = last_payload("track_ecommerce_transaction", "o", 2, currency="EUR", items=[item])

    assert (payload["ti_id"], payload["ti_cu"]) == ("o", "EUR")
    assert item == before


ITEM = {"sku": "s", "price": 1, "quantity": 1}


@pytest.mark.parametrize("tstamp", [math.nan, math.inf])
def test_items_of_a_purchase_without_a_time_get_the_clocks(tstamp):
    """A timestamp that is no time keeps no item back."""
    tracker = Recording()

    call(tracker, "track_ecommerce_transaction", "o", 1, items=[ITEM], tstamp=tstamp)

    assert [payload["e"] for payload in tracker.capture.payloads] == ["tr", "ti"]


def test_items_of_a_purchase_get_its_datetime():
    """A timestamp may be a datetime, for the items as for the purchase."""
    tracker = Recording()
    moment = datetime(2020, 1, 1, tzinfo=timezone.utc)

    call(tracker, "track_ecommerce_transaction", "o", 1, items=[ITEM], tstamp=moment)

    assert [payload["ttm"] for payload in tracker.capture.payloads] == [1577836800000] * 2


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (5, r"be a list of dicts, got 5"),
        ([5], r"be a list of dicts, got \[5\]"),
        ([""], r"be a list of dicts, got \[''\]"),
        ([ITEM, {}], r"have price, quantity, sku, got {}"),
        ([{"sku": "a", "price": 1}], r"have quantity, got {'sku': 'a', 'price': 1}"),
    ],
)
def test_items_that_are_none_are_refused(items, reason):
    """They are a TypeError by name, before the purchase is tracked."""
    tracker = Recording()

    with pytest.raises(TypeError, match=f"^items must {reason}$"):
        call(tracker, "track_ecommerce_transaction", "o", 1, items=items)

    assert tracker.capture.payloads == []


def test_form_elements_without_a_truth_are_refused():
    """As an array is that has several elements."""

    class Array:
        def __bool__(self):
            raise ValueError("the truth value of an array is ambiguous")

        def __repr__(self):
            return "array"

    with pytest.raises(TypeError, match=r"^elements must be a list of dicts, got array$"):
        call(Recording(), "track_form_submit", "f", elements=Array())


def test_form_elements_that_are_none_are_refused():
    """They are a TypeError by name."""
    with pytest.raises(TypeError, match=r"^elements must be a list of dicts, got 5$"):
        call(Recording(), "track_form_submit", "f", elements=5)


def test_type_of_a_form_field_that_is_no_text_is_refused():
    """It is a ValueError by name."""
    with pytest.raises(ValueError, match=r"^type_ must be one of .*, got 5$"):
        call(Recording(), "track_form_change", "f", None, "INPUT", None, type_=5)
