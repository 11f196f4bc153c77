"""Good events and bad ones: what a pipeline takes, and what it says of what it does not take."""

import base64
import json
import re

import jsonschema
import pytest
from hypothesis import given, strategies as st

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
from snowplow_tracker._wire import PAYLOAD_DATA_SCHEMA, wire_payload
from snowplow_tracker.constants import KNOWN_PAYLOAD_KEYS
from snowplow_tracker.testing import BadEvent, CollectedRequest, GoodEvent
from snowplow_tracker.testing._enriched import FIELD_NAMES
from snowplow_tracker.testing._pipeline import MAX_STREAM_BYTES, Pipeline

ID = "5628c4c6-3f8a-43f8-a09f-6ff68f68dfb6"
VIEW = {"e": "pv", "p": "srv", "tv": "py-1.2.0", "eid": ID}
EVENT = "iglu:com.acme/order/jsonschema/1-0-0"
ENTITY = "iglu:com.acme/product/jsonschema/2-0-1"
SNOWPLOW = "iglu:com.snowplowanalytics.snowplow"
UNSTRUCT = f"{SNOWPLOW}/unstruct_event/jsonschema/1-0-0"
CONTEXTS = f"{SNOWPLOW}/contexts/jsonschema/1-0-1"
JSON_TYPE = {"content-type": "application/json; charset=utf-8"}


def encoded(value):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode()


def described(schema=EVENT, data=None):
    return {"schema": schema, "data": {"total": 42} if data is None else data}


def event_payload(event=None, **fields):
    return {**VIEW, "e": "ue", "ue_px": encoded(described(UNSTRUCT, described() if event is None else event)), **fields}


def contexts_payload(entities, schema=CONTEXTS):
    return {**VIEW, "cx": encoded({"schema": schema, "data": entities})}


def request(method="POST", path="/com.snowplowanalytics.snowplow/tp2", **attributes):
    attributes = {"query": {}, "headers": JSON_TYPE, "body": b"", "payloads": [], "status": 200, **attributes}
    return CollectedRequest(method, path, connection=1, received_at=0.0, timestamp=0.0, **attributes)


def post(*payloads, **attributes):
    return request(body=json.dumps({"schema": PAYLOAD_DATA_SCHEMA, "data": payloads}).encode(), **attributes)


def judged(payload, **options):
    (event,) = Pipeline(**options).judge_batch([payload])
    return event


def good(payload, **options):
    event = judged(payload, **options)
    assert isinstance(event, GoodEvent), event.errors
    return event


def bad(payload, **options):
    event = judged(payload, **options)
    assert isinstance(event, BadEvent), event
    assert event.payload is payload
    return event.errors


class Capture:
    def __init__(self):
        self.payloads = []

    def input(self, payload):
        self.payloads.append(payload)


EVENTS = {
    "page_view": PageView("http://example.com", "title", "http://referrer.example.com"),
    "page_ping": PagePing("http://example.com", "title", "http://referrer.example.com", 0, 1, 2, 3),
    "struct": StructuredEvent("category", "action", "label", "property", 1.5),
    "unstruct": SelfDescribing(SelfDescribingJson(EVENT, {"total": 42})),
    "screen view": ScreenView(ID, "name"),
}


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("encode_base64", [True, False])
@pytest.mark.parametrize("kind", EVENTS)
def test_event_of_this_library_is_good(kind, encode_base64, method):
    """Whatever the tracker sends, with all fields of a subject, a pipeline takes."""
    capture = Capture()
    subject = Subject().set_platform("srv").set_user_id("u").set_viewport(1, 2).set_screen_resolution(3, 4)
    subject.set_color_depth(24).set_timezone("UTC").set_lang("en").set_domain_user_id("d").set_domain_session_id(ID)
    subject.set_domain_session_index(1).set_ip_address("127.0.0.1").set_useragent("ua").set_network_user_id("n")
    event = EVENTS[kind]
    event.context = [SelfDescribingJson(ENTITY, {"sku": "ü"})]
    event.true_timestamp = 1399021242030

    Tracker("t", capture, subject=subject, app_id="a", encode_base64=encode_base64).track(event)
    wire = {name: str(value) for name, value in wire_payload(capture.payloads[0], method).items()}
    found = good(wire)

    assert found.payload is wire
    assert found.event_type == {"screen view": "unstruct"}.get(kind, kind)
    assert found.contexts == [{"schema": ENTITY, "data": {"sku": "ü"}}]


def test_payloads_keep_their_order():
    """There is an event for each payload, in the order of the payloads."""
    payloads = [{**VIEW, "dtm": str(number)} for number in range(5)]
    payloads[2]["e"] = "?"

    events = Pipeline().judge_batch(payloads)

    assert [event.payload for event in events] == payloads
    assert [type(event) for event in events] == [GoodEvent, GoodEvent, BadEvent, GoodEvent, GoodEvent]


@pytest.mark.parametrize(
    ("culprit", "error"),
    [
        ({"e": "pv", "p": "srv"}, "tv is missing, which payload_data/1-0-4 requires"),
        ({}, "e is missing, which payload_data/1-0-4 requires"),
        ({**VIEW, "nonsense": "1"}, "nonsense is unknown to payload_data/1-0-4"),
        ({**VIEW, 5: "1"}, "5 is unknown to payload_data/1-0-4"),
        ({**VIEW, "dtm": 1399021242030}, "dtm must be a text, got 1399021242030"),
        ({**VIEW, "uid": None}, "uid must be a text, got None"),
        ({**VIEW, "e": ["pv"]}, "e must be a text, got ['pv']"),
        ("pv", "A payload must be an object of texts, got 'pv'"),
        (None, "A payload must be an object of texts, got None"),
    ],
)
def test_payload_that_breaks_payload_data_spoils_its_batch(culprit, error):
    """A pipeline throws the whole batch away; the culprit says why, the others say who it was."""
    first, second, third = Pipeline().judge_batch([VIEW, culprit, {**VIEW, "e": "?"}])

    assert second.payload is culprit
    assert second.errors[0] == error
    for other in (first, third):
        assert len(other.errors) == 1
        assert other.errors[0].startswith("The batch that it came in is spoiled by payload 2 of 3 (")
        assert other.errors[0].endswith(f"): {error}")


def test_culprit_has_all_of_its_errors():
    """All that payload_data has against a payload is said, not the first thing only."""
    assert bad({"p": 1, "x": 2, "y": "", "tv": "t"}) == [
        "e is missing, which payload_data/1-0-4 requires",
        "x is unknown to payload_data/1-0-4",
        "y is unknown to payload_data/1-0-4",
        "p must be a text, got 1",
    ]


def test_culprits_are_named_by_position_and_id():
    """Whoever reads of a spoiled batch can find those who spoiled it."""
    culprit = {**VIEW, "x": "1"}
    nameless = {"e": "pv", "p": "srv"}

    *_, last = Pipeline().judge_batch([culprit, nameless, 5, {**culprit, "eid": 7}, VIEW])

    assert last.errors == [
        f"The batch that it came in is spoiled by payload 1 of 5 (eid {ID}): x is unknown to payload_data/1-0-4;"
        " payload 2 of 5 (without eid): tv is missing, which payload_data/1-0-4 requires;"
        " payload 3 of 5 (without eid): A payload must be an object of texts, got 5;"
        " payload 4 of 5 (eid 7): x is unknown to payload_data/1-0-4"
    ]


def test_many_culprits_are_counted():
    """The first few culprits are named, and the others counted."""
    *_, last = Pipeline().judge_batch([{}] * 8 + [VIEW])

    assert last.errors[0].count("payload_data") == 5
    assert last.errors[0].endswith("; and 3 more")


@pytest.mark.parametrize(
    "arrived",
    [post(*[{}] * 3), post(VIEW, {}, VIEW), request(body=post({}, {}, {}).body.ljust(MAX_STREAM_BYTES + 1))],
    ids=["faults", "blame", "size"],
)
def test_payloads_with_the_same_fault_share_what_is_said_of_it(arrived):
    """A request of thousands of bad payloads does not take thousands of texts."""
    first, _, last = Pipeline().judge_request(arrived)

    assert first.errors is last.errors


def test_error_in_an_event_does_not_spoil_the_batch():
    """After payload_data, each event is judged for itself."""
    events = Pipeline().judge_batch([VIEW, {**VIEW, "dtm": "yesterday"}, VIEW])

    assert [isinstance(event, GoodEvent) for event in events] == [True, False, True]


values = st.text(max_size=3) | st.sampled_from([None, 1, True, 1.5, [], {}])
names = st.sampled_from(sorted(KNOWN_PAYLOAD_KEYS)) | st.text(max_size=3)
payload_like = st.one_of(
    st.builds(dict, st.just(VIEW), dtm=values),
    st.dictionaries(names, values, max_size=3).map(lambda fields: {**VIEW, **fields}),
    st.dictionaries(names, st.text(max_size=2)).map(lambda fields: {**VIEW, **fields}),
    st.dictionaries(st.sampled_from(["e", "p", "tv", "eid"]), st.just("x")),
    values,
)


@pytest.fixture(scope="module")
def official(shared_folder):
    """The schema payload_data/1-0-4 itself."""
    file = shared_folder / "iglu" / PAYLOAD_DATA_SCHEMA[len("iglu:") :]
    return jsonschema.Draft4Validator(json.loads(file.read_text(encoding="utf-8")))


@given(payload=payload_like)
def test_batch_is_judged_as_by_the_official_schema(official, payload):
    """The rules of payload_data that are built in are those of the schema, neither more nor fewer."""
    _, other = Pipeline().judge_batch([payload, VIEW])

    assert isinstance(other, GoodEvent) is official.is_valid([payload, VIEW])


FIELDS = [
    ("e", "pv", {"event": "page_view"}),
    ("e", "pp", {"event": "page_ping"}),
    ("e", "se", {"event": "struct"}),
    ("e", "tr", {"event": "transaction"}),
    ("e", "ti", {"event": "transaction_item"}),
    ("p", "headset", {"platform": "headset"}),
    ("eid", ID.upper(), {"event_id": ID}),
    ("sid", ID, {"domain_sessionid": ID}),
    ("dtm", "1709208000123", {"dvce_created_tstamp": "2024-02-29T12:00:00.123Z"}),
    ("dtm", "0", {"dvce_created_tstamp": "1970-01-01T00:00:00.000Z"}),
    ("ttm", "-1", {"true_tstamp": "1969-12-31T23:59:59.999Z"}),
    ("stm", "253402300799999", {"dvce_sent_tstamp": "9999-12-31T23:59:59.999Z"}),
    ("tid", "2147483647", {"txn_id": 2147483647}),
    ("vid", "3", {"domain_sessionidx": 3}),
    ("pp_mix", "-5", {"pp_xoffset_min": -5}),
    ("pp_may", "-2147483648", {"pp_yoffset_max": -2147483648}),
    ("pp_max", "+5", {"pp_xoffset_max": 5}),
    ("pp_miy", "0", {"pp_yoffset_min": 0}),
    ("pp_may", "007", {"pp_yoffset_max": 7}),
    ("se_va", "1.5", {"se_value": 1.5}),
    ("se_va", "-2", {"se_value": -2}),
    ("se_va", "1e-7", {"se_value": 1e-7}),
    ("se_va", ".5", {"se_value": 0.5}),
    ("se_va", "5.", {"se_value": 5}),
    ("tr_tt", "19.99", {"tr_total": 19.99}),
    ("tr_tx", "1", {"tr_tax": 1}),
    ("tr_sh", "2", {"tr_shipping": 2}),
    ("ti_pr", "3", {"ti_price": 3}),
    ("ti_qu", "4", {"ti_quantity": 4}),
    ("res", "1024x768", {"dvce_screenwidth": 1024, "dvce_screenheight": 768}),
    ("vp", "0x0", {"br_viewwidth": 0, "br_viewheight": 0}),
    ("ds", "2147483647x1", {"doc_width": 2147483647, "doc_height": 1}),
    ("cookie", "1", {"br_cookies": True}),
    ("f_pdf", "0", {"br_features_pdf": False}),
    ("cd", "24", {"br_colordepth": "24"}),
    ("url", "http://example.com/", {"page_url": "http://example.com/"}),
    ("ti_nm", "name", {"ti_name": "name"}),
    ("uid", "", {"user_id": ""}),
    ("mac", "00:00:5e:00:53:01", {}),
]


@pytest.mark.parametrize(("name", "text", "fields"), FIELDS)
def test_field_is_read_as_its_column_holds_it(name, text, fields):
    """Numbers become numbers, timestamps texts, sizes two numbers; what has no column is left out."""
    always = good(VIEW).fields
    found = good({**VIEW, name: text}).fields

    assert {**found, **fields} == found
    assert set(found) == {*always, *fields}


@pytest.mark.parametrize(
    ("name", "kind", "texts"),
    [
        ("e", "one of pv, pp, se, ue, tr, ti", ["page_view", "PV", ""]),
        ("p", "one of app, cnsl, headset, iot, mob, pc, srv, tv, web", ["server", ""]),
        ("eid", "a UUID", ["first", ID.replace("-", ""), f"{{{ID}}}", f"{ID}\n", ""]),
        ("sid", "a UUID", ["s"]),
        ("dtm", "milliseconds since 1970 as an integer, up to the year 9999", ["", "1.5", "now", "\u0663", "1e12"]),
        ("ttm", "milliseconds since 1970", ["253402300800000", "9" * 18, "9" * 5000, "-9999999999999999", " 1"]),
        ("stm", "milliseconds since 1970", ["2024-02-29T12:00:00Z"]),
        ("vid", "an integer of 32 bits", ["2147483648", "-2147483649", "1.0", "", "9" * 5000]),
        *((name, "an integer of 32 bits", ["x"]) for name in ("tid", "pp_mix", "pp_max", "pp_miy", "pp_may", "ti_qu")),
        ("se_va", "a number", ["one", "", "NaN", "Infinity", "1e999", "1,5", ".", "1_000", "0x1"]),
        *((name, "a number", ["x"]) for name in ("tr_tt", "tr_tx", "tr_sh", "ti_pr")),
        (
            "res",
            "a width and a height such as 1024x768",
            ["1024", "1024X768", "1x2x3", "-1x2", "2147483648x1", "1x" * 9],
        ),
        *((name, "a width and a height such as 1024x768", ["1x2147483648", ""]) for name in ("vp", "ds")),
        ("cookie", "1 or 0", ["true", "", "2"]),
    ],
)
def test_field_that_cannot_be_read_makes_the_event_bad(name, kind, texts):
    """The error names the field, what it must be, and what it is."""
    for text in texts:
        (error,) = bad({**VIEW, name: text})

        assert error.startswith(f"{name} must be {kind}")
        assert repr(text)[:900] in error
        assert len(error) < 1_500


def test_all_errors_of_an_event_are_told():
    """One look at the report is enough to mend all that is wrong."""
    assert [error.split()[0] for error in bad({**VIEW, "dtm": "x", "p": "x", "res": "x", "cx": "x!"})] == [
        "p",
        "dtm",
        "res",
        "cx",
    ]


def test_event_without_an_id_is_good():
    """A pipeline gives one to an event that has none."""
    found = good({"e": "pv", "p": "srv", "tv": "t"})

    assert "event_id" not in found.fields


@pytest.mark.parametrize("names", [("nuid", "tnuid"), ("tnuid", "nuid")])
def test_network_user_id_of_the_tracker_overrides_the_cookies(names):
    """That is what tnuid is there for, wherever it stands."""
    assert good({**VIEW, **{name: name for name in names}}).fields["network_userid"] == "tnuid"


def test_fields_obey_the_atomic_schema(schema):
    """The names and types of fields are those of Snowplow's table."""
    atomic = schema("iglu:com.snowplowanalytics.snowplow/atomic/jsonschema/1-0-0")
    payload = {**VIEW, **dict.fromkeys(KNOWN_PAYLOAD_KEYS - {"co", "cx", "ue_pr", "ue_px", "e", "p", "eid"}, "1")}
    payload.update({"res": "1x2", "vp": "1x2", "ds": "1x2", "sid": ID})

    fields = good(payload).fields

    assert set(fields) == FIELD_NAMES
    jsonschema.Draft4Validator(atomic).validate(fields)


@pytest.mark.parametrize(
    ("code", "event_type", "schema"),
    [
        ("pv", "page_view", f"{SNOWPLOW}/page_view/jsonschema/1-0-0"),
        ("pp", "page_ping", f"{SNOWPLOW}/page_ping/jsonschema/1-0-0"),
        ("tr", "transaction", f"{SNOWPLOW}/transaction/jsonschema/1-0-0"),
        ("ti", "transaction_item", f"{SNOWPLOW}/transaction_item/jsonschema/1-0-0"),
        ("se", "struct", "iglu:com.google.analytics/event/jsonschema/1-0-0"),
    ],
)
def test_type_without_a_schema_of_its_own_is_given_one(code, event_type, schema):
    """Each good event has a schema, that which a pipeline gives it if need be, and the fields of it."""
    found = good({**VIEW, "e": code})

    assert (found.event_type, found.schema, found.data, found.contexts) == (event_type, schema, None, [])
    names = [found.fields[f"event_{part}"] for part in ("vendor", "name", "format", "version")]
    assert schema == f"iglu:{'/'.join(names)}"


@pytest.mark.parametrize(
    "field",
    [
        {"ue_pr": json.dumps(described(UNSTRUCT, described()))},
        {"ue_px": encoded(described(UNSTRUCT, described()))},
        {"ue_px": encoded(described(UNSTRUCT, described())).rstrip("=")},
    ],
    ids=["text", "base64", "base64 without padding"],
)
def test_self_describing_event_is_taken_out_of_its_envelope(field):
    """A good event has its own schema and data, however they were encoded."""
    found = good({**VIEW, "e": "ue", **field})

    assert (found.event_type, found.schema, found.data) == ("unstruct", EVENT, {"total": 42})
    assert found.fields["event"] == "unstruct"
    assert found.fields["event_name"] == "order"


@pytest.mark.parametrize("data", [None, 0, "", [], {}, [1], {"ü": "\u2028"}])
def test_data_may_be_any_json(data):
    """Without schemas, nobody looks at the data, and falsy data is data too."""
    found = good(event_payload({"schema": EVENT, "data": data}))

    assert found.data == data
    assert found.schema == EVENT


@given(st.text())
def test_text_of_any_kind_survives_base64(text):
    """Every length, with padding or without, and every character is decoded."""
    payload = event_payload(described(data=text))
    payload["ue_px"] = payload["ue_px"].rstrip("=")

    assert good(payload).data == text


@pytest.mark.parametrize("entities", [[], [described(ENTITY)], [described(ENTITY), described(EVENT)]])
@pytest.mark.parametrize("name", ["co", "cx"])
def test_entities_are_taken_out_of_their_envelope(name, entities):
    """A good event has its entities in their order, however they were encoded."""
    envelope = described(CONTEXTS, entities)
    payload = {**VIEW, name: encoded(envelope) if name == "cx" else json.dumps(envelope)}

    assert good(payload).contexts == entities


def test_entities_may_come_in_the_older_envelope():
    """The first version of the envelope is taken as well, but not without an entity in it."""
    older = f"{SNOWPLOW}/contexts/jsonschema/1-0-0"

    assert good(contexts_payload([described(ENTITY)], older)).contexts == [described(ENTITY)]
    assert bad(contexts_payload([], older)) == [f"The data of cx must not be empty, by {older}"]


BAD_FIELDS = {
    "no event": ({"e": "ue"}, "ue_px or ue_pr is missing: an event of type ue needs one of them"),
    "both": ({"e": "ue", "ue_px": "e30", "ue_pr": "{}"}, "ue_px and ue_pr are both given: a pipeline reads only one"),
    "both entities": ({"cx": "e30", "co": "{}"}, "cx and co are both given: a pipeline reads only one of them"),
    "empty": ({"e": "ue", "ue_px": ""}, "ue_px is not JSON: "),
    "not base64": ({"e": "ue", "ue_px": "{}"}, "ue_px is not URL-safe base64: '{}'"),
    "base64 of the other alphabet": ({"cx": "+/+/"}, "cx is not URL-safe base64: '+/+/'"),
    "base64 after its end": ({"cx": "e30=e30="}, "cx is not URL-safe base64: 'e30=e30='"),
    "base64 that is cut": ({"cx": "e30ab"}, "cx cannot be decoded: "),
    "not UTF-8": ({"cx": "_w=="}, "cx cannot be decoded: "),
    "not JSON": ({"co": "{'a': 1}"}, "co is not JSON: "),
    "NaN": ({"co": '{"schema": "s", "data": NaN}'}, "co is not JSON: it has no NaN"),
    "too deep": ({"co": "[" * 100_000}, "co is not JSON: "),
    "no object": ({"co": "[]"}, "There must be schema and data in co, and nothing else, got []"),
    "no data": ({"co": '{"schema": 1}'}, "There must be schema and data in co, and nothing else, got {'schema': 1}"),
    "no schema": ({"cx": encoded({"data": []})}, "There must be schema and data in cx, and nothing else, got"),
    "more than that": (
        {"co": json.dumps({**described(CONTEXTS, []), "x": 1})},
        "There must be schema and data in co, and nothing else, got",
    ),
    "wrong envelope": (
        {"e": "ue", "ue_px": encoded(described(CONTEXTS, []))},
        f"The schema of ue_px must be {UNSTRUCT}, got '{CONTEXTS}'",
    ),
    "unknown envelope": (
        {"co": json.dumps(described(f"{SNOWPLOW}/contexts/jsonschema/1-0-2", []))},
        f"The schema of co must be {SNOWPLOW}/contexts/jsonschema/1-0-0 or {CONTEXTS}, got",
    ),
    "envelope's schema no text": ({"co": json.dumps(described([], []))}, "The schema of co must be"),
    "entities no list": ({"co": json.dumps(described(CONTEXTS))}, "The data of co must be a list of entities, got {"),
    "event no object": ({"e": "ue", "ue_pr": json.dumps(described(UNSTRUCT, "x"))}, "There must be schema and data in"),
}


@pytest.mark.parametrize("kind", BAD_FIELDS)
def test_envelope_that_cannot_be_read_makes_the_event_bad(kind):
    """The error names the field and what is wrong with it."""
    fields, expected = BAD_FIELDS[kind]

    (error,) = bad({**VIEW, **fields})

    assert error.startswith(expected)


@pytest.mark.parametrize(
    "uri", ["", "order", "iglu:com.acme/order/jsonschema/1-0", "iglu:com.acme/order/avro/1-0-0", 5]
)
def test_schema_has_to_be_a_complete_uri(uri):
    """A self-describing JSON names a schema that a registry can look up, for the event as for entities."""
    rule = f"must be a URI like iglu:vendor/name/jsonschema/1-0-0, got {uri!r}"

    assert bad(event_payload(described(uri))) == [f"The schema of the event in ue_px {rule}"]
    assert bad(contexts_payload([described(), described(uri)])) == [f"The schema of entity 2 in cx {rule}"]


def test_each_wrong_entity_is_told():
    """An error in one entity does not hide those in others."""
    errors = bad(contexts_payload([5, described(), {}]))

    assert errors == [
        "There must be schema and data in entity 1 in cx, and nothing else, got 5",
        "There must be schema and data in entity 3 in cx, and nothing else, got {}",
    ]


def test_event_in_an_event_of_another_type_is_read_too():
    """A pipeline minds what is wrong in it, and makes nothing of it if nothing is."""
    assert good(event_payload(e="pv")).schema == f"{SNOWPLOW}/page_view/jsonschema/1-0-0"
    assert good(event_payload(e="pv")).data is None
    assert len(bad(event_payload({}, e="pv"))) == 1


@pytest.fixture
def folder(tmp_path):
    """A folder with the schema of the event, and none of the entity."""
    file = tmp_path / EVENT[len("iglu:") :]
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"properties": {"total": {"type": "integer"}}, "required": ["total"]}), encoding="utf-8")
    return tmp_path


def test_data_is_held_against_its_schema(folder):
    """With a folder of schemas, data that obeys its schema is good, and other data bad."""
    assert good(event_payload(), schemas=folder).data == {"total": 42}
    assert bad(event_payload(described(data={"total": "42"})), schemas=folder) == [
        f"In the event in ue_px, '42' is not of type 'integer' (at $.total by {EVENT})"
    ]
    assert bad(contexts_payload([described(data={})]), schemas=str(folder)) == [
        f"In entity 1 in cx, 'total' is a required property (at $ by {EVENT})"
    ]


def test_unknown_schema_is_bad_unless_accepted(folder):
    """A pipeline takes no data that it cannot validate; a test may."""
    payload = contexts_payload([described(), described(ENTITY)])

    assert bad(payload, schemas=folder) == [
        f"The schema of entity 2 in cx is unknown: {ENTITY} "
        f"(there is no file {ENTITY[len('iglu:') :]} in {folder} or its schemas/)"
    ]
    assert good(payload, schemas=folder, unknown_schemas="accept").contexts[1]["schema"] == ENTITY


def test_known_schema_counts_even_if_unknown_ones_are_accepted(folder):
    """To accept what is unknown is not to accept everything."""
    assert bad(event_payload(described(data={})), schemas=folder, unknown_schemas="accept")


def test_types_without_a_schema_of_their_own_need_none(folder):
    """The envelopes, and the schemas that a pipeline gives to events, need not be in the folder."""
    for code in ("pv", "pp", "se", "tr", "ti"):
        assert good({**VIEW, "e": code}, schemas=folder)


def test_official_schemas_are_known_by_their_folder(shared_folder):
    """An event of Snowplow's own is judged by the schema that Snowplow publishes."""
    link = f"{SNOWPLOW}/link_click/jsonschema/1-0-1"

    assert good(event_payload(described(link, {"targetUrl": "u"})), schemas=shared_folder / "iglu")
    assert bad(event_payload(described(link, {"target": "u"})), schemas=shared_folder / "iglu")


def test_screen_view_with_a_wrong_id_is_bad(shared_folder):
    """The format `uuid` is checked."""
    capture = Capture()
    tracker = Tracker("t", capture)

    tracker.track(ScreenView(ID, "name"))
    tracker.track(ScreenView("not an id", "name"))
    first, second = (wire_payload(payload, "post") for payload in capture.payloads)

    assert good(first, schemas=shared_folder / "iglu").data["id"] == ID
    assert "(at $.id by " in bad(second, schemas=shared_folder / "iglu")[0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"schemas": 5}, TypeError, "schemas must be the path of a folder, got 5"),
        ({"schemas": "/no/such/folder"}, ValueError, "there is none at /no/such/folder"),
        ({"unknown_schemas": "ignore"}, ValueError, "unknown_schemas must be one of 'reject', 'accept', got 'ignore'"),
        ({"unknown_schemas": True}, TypeError, "unknown_schemas must be a string, got True"),
    ],
)
def test_wrong_option_is_refused(options, error, message):
    """The error names the option and its value, at the line that sets it."""
    with pytest.raises(error, match=re.escape(message)):
        Pipeline(**options)


def test_payloads_of_a_post_are_judged():
    """Each event has the request that brought it."""
    arrived = post(VIEW, {**VIEW, "e": "?"})

    first, second = Pipeline().judge_request(arrived)

    assert isinstance(first, GoodEvent)
    assert isinstance(second, BadEvent)
    assert first.payload == VIEW
    assert first.request is second.request is arrived


def test_query_of_a_get_is_judged():
    """A GET is a batch of one payload."""
    (event,) = Pipeline().judge_request(request("GET", "/i", query=VIEW, headers={}))
    (unknown,) = Pipeline().judge_request(request("GET", "/i", query={**VIEW, "x": "1"}, headers={}))

    assert event.fields["event_id"] == ID
    assert unknown.errors == ["x is unknown to payload_data/1-0-4"]


def test_prefix_of_the_path_does_not_matter():
    """A collector may stand behind a proxy."""
    assert len(Pipeline().judge_request(post(VIEW, path="/prefix/com.snowplowanalytics.snowplow/tp2"))) == 1
    assert len(Pipeline().judge_request(request("GET", "/prefix/i", query=VIEW))) == 1


@pytest.mark.parametrize(
    "other",
    [
        post(VIEW, status=503),
        post(VIEW, status=413),
        post(VIEW, status=0),
        post(VIEW, path="/elsewhere"),
        post(VIEW, method="PUT"),
        request("GET", "/i", query=VIEW, status=400),
        request("GET", "/health", query=VIEW),
        request("GET", "/hi", query=VIEW),
        request("POST", "/i", query=VIEW),
    ],
    ids=lambda other: f"{other.method} {other.path} {other.status}",
)
def test_request_that_was_not_accepted_brings_no_events(other):
    """What a collector does not take never gets to the pipeline."""
    assert Pipeline().judge_request(other) == []


UNREADABLE = {
    "empty query": (request("GET", "/i"), "The query is empty: there is no payload in the request"),
    "empty body": (request(), "The body is empty: there is no payload in the request"),
    "no content type": (post(VIEW, headers={}), "The content type must be application/json, with the charset"),
    "not UTF-8": (request(body=b"\xff"), "The body is not UTF-8: "),
    "not JSON": (request(body=b"e=pv"), "The body is not JSON: "),
    "NaN": (request(body=b"NaN"), "The body is not JSON: it has no NaN"),
    "too deep": (request(body=b"[" * 100_000), "The body is not JSON: "),
    "no envelope": (request(body=b"[]"), "There must be schema and data in the body, and nothing else, got []"),
    "wrong envelope": (
        request(body=json.dumps(described(CONTEXTS, [VIEW])).encode()),
        f"The schema of the body must be {SNOWPLOW}/payload_data/jsonschema/1-0-0 or ",
    ),
    "no list": (
        request(body=json.dumps(described(PAYLOAD_DATA_SCHEMA, VIEW)).encode()),
        "The data of the body must be a list of payloads, got {",
    ),
    "no payloads": (post(), "The data of the body is empty: there is no payload in the request"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_request_without_readable_payloads_is_one_bad_event(kind):
    """There is no payload to show, but a reason."""
    arrived, expected = UNREADABLE[kind]

    (event,) = Pipeline().judge_request(arrived)

    assert isinstance(event, BadEvent)
    assert event.payload is None
    assert event.request is arrived
    (error,) = event.errors
    assert error.startswith(expected)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([EVENT, UNSTRUCT, CONTEXTS]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["schema", "data", "x"]), inner, max_size=3),
        st.builds(described, st.sampled_from([EVENT, UNSTRUCT, CONTEXTS, PAYLOAD_DATA_SCHEMA, 5]), inner),
    ),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "e": st.sampled_from(["pv", "ue", "?"]),
        "dtm": st.text(max_size=3) | st.integers().map(str),
        "se_va": st.text(max_size=3) | st.floats().map(str),
        "ue_px": st.text(max_size=5) | json_values.map(encoded),
        "ue_pr": st.text(max_size=5) | json_values.map(json.dumps),
        "cx": st.text(max_size=5) | json_values.map(encoded),
        "co": st.text(max_size=5) | json_values.map(json.dumps),
    },
).map(lambda fields: {**VIEW, **fields})
bodies = st.one_of(
    st.binary(),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.lists(fields | json_values, max_size=3).map(lambda payloads: post(*payloads).body),
)


@given(bodies)
def test_any_body_is_judged(body):
    """Whatever arrives, each payload is a good or a bad event, and each bad one says why."""
    events = Pipeline().judge_request(request(body=body))

    assert events
    assert all(isinstance(event, GoodEvent) or all(event.errors or [""]) for event in events)


@pytest.mark.parametrize(
    ("content_type", "is_taken"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("Application/JSON;charset=UTF-8", True),
        ('application/json; charset="utf-8" ', True),
        ("application/json; charset=latin-1", False),
        ("application/jsonp", False),
        ("text/plain", False),
        ("application/x-www-form-urlencoded", False),
        ("", False),
    ],
)
def test_content_type_has_to_be_json(content_type, is_taken):
    """A pipeline reads the body of a POST as JSON only if it says so, whatever else is in it."""
    (event,) = Pipeline().judge_request(post(VIEW, headers={"content-type": content_type}))

    assert isinstance(event, GoodEvent) is is_taken
    assert is_taken or repr(content_type) in event.errors[0]


def test_older_envelopes_of_a_post_are_taken():
    """All versions of payload_data that there are mean the same."""
    bodies = [json.dumps(described(f"{SNOWPLOW}/payload_data/jsonschema/1-0-{n}", [VIEW])).encode() for n in range(6)]

    events = [Pipeline().judge_request(request(body=body))[0] for body in bodies]

    assert [isinstance(event, GoodEvent) for event in events] == [True] * 5 + [False]


def padded(size, *payloads):
    """Make a POST of this size; spaces after the JSON mean nothing."""
    arrived = post(*payloads)
    return request(body=arrived.body.ljust(size))


def test_request_of_the_largest_size_is_good():
    """A stream takes 1,048,576 bytes."""
    (event,) = Pipeline().judge_request(padded(MAX_STREAM_BYTES, VIEW))

    assert MAX_STREAM_BYTES == 1_048_576
    assert isinstance(event, GoodEvent)


@pytest.mark.parametrize(
    ("arrived", "payloads"),
    [
        (padded(MAX_STREAM_BYTES + 1, VIEW, {"x": 1}), [VIEW, {"x": 1}]),
        (padded(MAX_STREAM_BYTES + 1), [None]),
        (request(body=b"x" * (MAX_STREAM_BYTES + 1)), [None]),
    ],
    ids=["payloads", "no payloads", "no JSON"],
)
def test_request_beyond_the_largest_size_is_bad(arrived, payloads):
    """A collector answers 200 and throws it away: all its payloads are lost, whatever is in them."""
    events = Pipeline().judge_request(arrived)

    assert [event.payload for event in events] == payloads
    for event in events:
        assert event.errors == [
            "Size violation: the request has 1048577 bytes, and a collector throws away what has more than 1048576"
        ]
        assert event.request is arrived
