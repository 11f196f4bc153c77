"""What goes out, held against the official schemas."""

import base64
import json
import warnings

import jsonschema
import pytest

from snowplow_tracker import (
    PagePing,
    PageView,
    ScreenView,
    SelfDescribing,
    SelfDescribingJson,
    StructuredEvent,
    Subject,
    Tracker,
)
from snowplow_tracker.constants import KNOWN_PAYLOAD_KEYS, REQUIRED_PAYLOAD_KEYS

PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
ID = "5628c4c6-3f8a-43f8-a09f-6ff68f68dfb6"
CART = {"sku": "s", "quantity": 1, "name": "n", "category": "c", "unit_price": 9.5, "currency": "EUR"}
ELEMENT = {"name": "n", "value": "v", "nodeName": "INPUT", "type": "text"}

EVENTS = {
    "page view": lambda: PageView("http://example.com", "title", "http://referrer.example.com"),
    "page ping": lambda: PagePing("http://example.com", "title", "http://referrer.example.com", 0, 1, 2, 3),
    "structured event": lambda: StructuredEvent("category", "action", "label", "property", 1.5),
    "screen view": lambda: ScreenView(ID, "name", "type", "previous", ID, "previous type", "transition"),
    "self-describing event": lambda: SelfDescribing(
        SelfDescribingJson("iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1", {"targetUrl": "u"})
    ),
}
LEGACY_CALLS = {
    "track_link_click": {"target_url": "u", "element_id": "e", "element_classes": ["a"], "element_target": "t"},
    "track_add_to_cart": CART,
    "track_remove_from_cart": CART,
    "track_form_change": {"form_id": "f", "element_id": "e", "node_name": "INPUT", "value": "v", "type_": "text"},
    "track_form_submit": {"form_id": "f", "form_classes": ["a"], "elements": [ELEMENT]},
    "track_site_search": {"terms": ["a"], "filters": {"k": "v"}, "total_results": 1, "page_results": 1},
    "track_ecommerce_transaction_item": {"order_id": "o", "sku": "s", "price": 1, "quantity": 1},
    "track_ecommerce_transaction": {"order_id": "o", "total_value": 1, "city": "c", "currency": "EUR"},
    "track_screen_view": {"name": "n", "id_": "i"},
    "track_mobile_screen_view": {"name": "n", "type": "t"},
}


class Capture:
    def __init__(self):
        self.payloads = []

    def input(self, payload):
        self.payloads.append(payload)


@pytest.fixture
def check(schema):
    """Holds a payload against the schemas that it claims to obey."""

    def validate(uri, data):
        jsonschema.Draft4Validator(schema(uri)).validate(data)

    def check_payload(payload):
        validate(PAYLOAD_DATA, [{name: str(value) for name, value in payload.items()}])
        texts = [payload[name] for name in ("co", "ue_pr") if name in payload]
        texts += [base64.urlsafe_b64decode(payload[name]).decode() for name in ("cx", "ue_px") if name in payload]
        for envelope in map(json.loads, texts):
            validate(envelope["schema"], envelope["data"])
            inside = envelope["data"] if isinstance(envelope["data"], list) else [envelope["data"]]
            for described in inside:
                validate(described["schema"], described["data"])
        return len(texts)

    return check_payload


@pytest.fixture
def capture():
    return Capture()


@pytest.fixture(params=[True, False], ids=["base64", "text"])
def tracker(request, capture):
    subject = Subject().set_platform("srv").set_user_id("u").set_viewport(1, 2).set_screen_resolution(3, 4)
    subject.set_color_depth(24).set_timezone("UTC").set_lang("en").set_domain_user_id("d").set_domain_session_id("s")
    subject.set_domain_session_index(1).set_ip_address("127.0.0.1").set_useragent("ua").set_network_user_id("n")
    return Tracker("test", capture, subject=subject, app_id="app", encode_base64=request.param)


def test_known_and_required_names_are_those_of_the_schema(schema):
    """The names that a tracker does not complain about are exactly those that the pipeline accepts."""
    payload = schema(PAYLOAD_DATA)["items"]

    assert frozenset(payload["properties"]) == KNOWN_PAYLOAD_KEYS
    assert frozenset(payload["required"]) == REQUIRED_PAYLOAD_KEYS


@pytest.mark.parametrize("kind", EVENTS)
def test_events_obey_the_schemas(kind, tracker, capture, check):
    """Each event with all its fields, an entity and a timestamp is accepted by the pipeline."""
    event = EVENTS[kind]()
    uri = "iglu:com.snowplowanalytics.snowplow/geolocation_context/jsonschema/1-1-0"
    event.context = [SelfDescribingJson(uri, {"latitude": -23.2, "longitude": 43.0})]
    event.true_timestamp = 1399021242030

    tracker.track(event)

    assert check(capture.payloads[0]) == (2 if capture.payloads[0]["e"] == "ue" else 1)


@pytest.mark.parametrize("method", LEGACY_CALLS)
def test_deprecated_methods_obey_the_schemas(method, tracker, capture, check):
    """What the deprecated methods send is accepted by the pipeline."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(tracker, method)(**LEGACY_CALLS[method])

    assert check(capture.payloads[0]) == (capture.payloads[0]["e"] == "ue")
