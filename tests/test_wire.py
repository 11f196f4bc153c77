"""The wire format: what values become, how requests are encoded, and how many bytes that takes."""

import enum
import json
import math
from datetime import date
from decimal import Decimal
from urllib.parse import parse_qsl

import pytest
import requests

from snowplow_tracker._wire import (
    MAX_GET_URL_CHARACTERS,
    PAYLOAD_DATA_SCHEMA,
    cut_post_request,
    estimated_bytes,
    query_string,
    request_overhead_bytes,
    wire_bytes,
    wire_payload,
)

METHODS = ["post", "get"]
STAMP = "1700000000000"
UNENCODABLE = {(1, 2): "a key that JSON does not have"}
TEXTS = {
    "ascii": 'plain text, "quoted" & a\\b\n~+%/?=',
    "latin": "Größe, façade, señor",
    "cjk": "雪が降る、雪犁が来る",
    "emoji": "❄️🚜🏔️ 👩‍👩‍👧",
    "mixed": "a雪🚜é ",
}


class Colour(str, enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 3


class Shouting(str):
    def __str__(self):
        return self.upper()


def stamp(payloads):
    for payload in payloads:
        payload["stm"] = STAMP


def no_stamp(payloads):
    pass


def eids(payloads):
    return [payload["eid"] for payload in payloads]


def payload_of(text, number=0):
    return {"e": "ue", "eid": f"{number:08x}-0000", "p": "srv", "tv": "py-1", "ue_pr": text * 20, "se_la": text}


@pytest.mark.parametrize("method", METHODS)
def test_wire_payload_is_a_copy(method):
    """The caller's dict stays as it is."""
    payload = {"e": "pv", "se_va": True}

    wire = wire_payload(payload, method)

    assert wire is not payload
    assert payload == {"e": "pv", "se_va": True}


@pytest.mark.parametrize("method", METHODS)
def test_none_is_left_out(method):
    """A pair without a value does not go out; one with an empty value does."""
    assert wire_payload({"e": "pv", "uid": None, "url": ""}, method) == {"e": "pv", "url": ""}


@pytest.mark.parametrize("method", METHODS)
def test_bool_becomes_lower_case(method):
    """A bool is `true` or `false`, as in JSON."""
    assert wire_payload({"a": True, "b": False}, method) == {"a": "true", "b": "false"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, None, True]}, '{"a":[1,null,true]}'),
        ([1, "雪"], '[1,"雪"]'),
        ((1, 2), "[1,2]"),
        ({}, "{}"),
        ([], "[]"),
        ({"day": date(2024, 2, 29), "price": Decimal("1.5")}, '{"day":"2024-02-29","price":1.5}'),
    ],
    ids=repr,
)
def test_container_becomes_json(method, value, text):
    """A dict, list or tuple is compact JSON."""
    assert wire_payload({"co": value}, method) == {"co": text}


@pytest.mark.parametrize("method", METHODS)
def test_container_that_has_no_json_is_refused(method):
    """It is a TypeError that names the field."""
    with pytest.raises(TypeError, match=r"^ue_pr"):
        wire_payload({"ue_pr": {"a": object()}}, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("value", "text"), [(Colour.RED, "red"), (Shouting("quiet"), "quiet")], ids=repr)
def test_subclass_of_str_is_its_value(method, value, text):
    """A string enum, or any other string, goes out as what it is, not as what it prints, in a plain string."""
    wire = wire_payload({"se_ca": value}, method)

    assert wire == {"se_ca": text}
    assert type(wire["se_ca"]) is str


@pytest.mark.parametrize(
    ("value", "text"),
    [(5, "5"), (-1.5, "-1.5"), (0, "0"), (Decimal("1.50"), "1.50"), (date(2024, 2, 29), "2024-02-29")],
)
def test_post_values_become_strings(value, text):
    """The schema of a POST knows strings only."""
    assert wire_payload({"se_va": value}, "post") == {"se_va": text}


@pytest.mark.parametrize("value", [5, -1.5, 0])
def test_get_numbers_are_kept(value):
    """In a GET a number becomes text in the URL, not before."""
    assert wire_payload({"se_va": value}, "get") == {"se_va": value}


def test_lone_surrogate_survives_a_post():
    """JSON can escape what UTF-8 cannot hold."""
    payload = wire_payload({"eid": "1", "se_la": "a\ud800b"}, "post")

    request = cut_post_request([payload], 10_000, no_stamp)

    assert json.loads(request.body)["data"] == [{"eid": "1", "se_la": "a\ud800b"}]


@pytest.mark.parametrize("value", ["a\ud800b", Shouting("a\ud800b")], ids=["str", "subclass"])
def test_lone_surrogate_becomes_a_question_mark_in_a_get(value):
    """A URL holds UTF-8 only, and a payload that no request can hold would be retried for ever."""
    payload = wire_payload({"eid": "1", "se_la": value, "雪": "雪"}, "get")

    url = requests.Request("GET", "http://localhost/i", params=payload).prepare().url

    assert dict(parse_qsl(url.partition("?")[2])) == {"eid": "1", "se_la": "a?b", "雪": "雪"}


def test_lone_surrogate_in_a_container_survives_a_post():
    """The JSON text inside the JSON text gives it back."""
    payload = wire_payload({"co": ["a\ud800b雪"]}, "post")

    request = cut_post_request([payload], 10_000, no_stamp)

    assert json.loads(json.loads(request.body)["data"][0]["co"]) == ["a\ud800b雪"]


def test_lone_surrogate_in_a_container_becomes_a_question_mark_in_a_get():
    """In a URL the JSON text is UTF-8 like any other."""
    payload = wire_payload({"co": ["a\ud800b雪"]}, "get")

    assert payload == {"co": '["a?b雪"]'}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_query_string_is_what_a_get_sends(text):
    """The text whose length is judged is the text that goes out."""
    payload = wire_payload({"eid": "1", "se_la": text, "se_va": 1.5}, "get")

    url = requests.Request("GET", "http://localhost/i", params=payload).prepare().url

    assert url == f"http://localhost/i?{query_string(payload)}"


def test_query_string_of_a_lone_surrogate_does_not_raise():
    """A payload that went past `wire_payload` can still be measured."""
    assert query_string({"se_la": "a\ud800b"}) == "se_la=a%3Fb"


def test_longest_url_is_that_of_the_collector():
    """20,480 characters is what a collector's request line may have."""
    assert MAX_GET_URL_CHARACTERS == 20_480


def test_body_is_an_envelope_around_the_payloads():
    """A POST is compact ASCII JSON by the schema `payload_data`."""
    batch = [{"eid": "1", "se_la": "雪"}, {"eid": "2"}]

    request = cut_post_request(batch, 10_000, no_stamp)

    assert request.body == (
        '{"schema":"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4",'
        '"data":[{"eid":"1","se_la":"\\u96ea"},{"eid":"2"}]}'
    )
    assert json.loads(request.body)["schema"] == PAYLOAD_DATA_SCHEMA
    assert request.body.isascii()


def test_request_carries_the_very_objects():
    """What is encoded is stamped, and comes back as the same dicts, in their order."""
    batch = [{"eid": "1"}, {"eid": "2"}]

    request = cut_post_request(batch, 10_000, stamp)

    assert all(sent is given for sent, given in zip(request.payloads, batch))
    assert [payload["stm"] for payload in batch] == [STAMP, STAMP]
    assert json.loads(request.body)["data"] == batch
    assert request.unencodable == []


def test_payloads_are_stamped_together():
    """An application's own stamp sees what goes into a request in one call, and nothing that does not."""
    batch = [{"eid": str(number)} for number in range(4)]
    stamped = []

    def note(payloads):
        stamped.append(eids(payloads))
        stamp(payloads)

    cut_post_request(batch, 1, note)
    cut_post_request(batch, 10_000, note)

    assert stamped == [["0"], ["0", "1", "2", "3"]]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_request_is_cut_exactly_at_the_limit(text):
    """As many payloads as fit go out: a limit of the body's very size takes all, one byte less takes one less."""
    batch = [payload_of(text, number) for number in range(5)]
    whole = len(cut_post_request(batch, 10**9, stamp).body.encode())

    exact = cut_post_request(batch, whole, stamp)
    short = cut_post_request(batch, whole - 1, stamp)

    assert exact.payloads == batch
    assert short.payloads == batch[:4]
    assert len(short.body.encode()) < whole


def test_oversized_payload_gets_a_request_of_its_own():
    """A payload beyond the limit is sent alone rather than never, and does not drag its neighbours along."""
    batch = [{"eid": "small"}, {"eid": "large", "ue_pr": "x" * 500}, {"eid": "last"}]

    requests_ = []
    while batch:
        requests_.append(cut_post_request(batch, 200, no_stamp))
        batch = batch[len(requests_[-1].payloads) :]

    assert [eids(request.payloads) for request in requests_] == [["small"], ["large"], ["last"]]


def test_room_that_a_small_payload_would_have_is_not_filled():
    """Payloads leave in their order: nothing jumps the one that did not fit."""
    batch = [{"eid": "1"}, {"eid": "2", "ue_pr": "x" * 500}, {"eid": "3"}]

    request = cut_post_request(batch, 200, no_stamp)

    assert eids(request.payloads) == ["1"]


def test_no_payloads_make_an_empty_envelope():
    """An empty batch is no error here."""
    request = cut_post_request([], 10_000, stamp)

    assert json.loads(request.body)["data"] == []
    assert request.payloads == []


def circular():
    value = {"eid": "circular"}
    value["self"] = value
    return value


def bottomless():
    value = []
    for _ in range(100_000):
        value = [value]
    return {"eid": "bottomless", "co": value}


@pytest.mark.parametrize("make", [lambda: dict(UNENCODABLE), circular, bottomless], ids=["key", "circle", "depth"])
def test_unencodable_payload_is_passed_over(make):
    """What no JSON can hold is named, and does not cost the others their request."""
    broken = make()
    batch = [{"eid": "1"}, broken, {"eid": "2"}]

    request = cut_post_request(batch, 10_000, no_stamp)

    assert eids(request.payloads) == ["1", "2"]
    assert len(request.unencodable) == 1
    assert request.unencodable[0] is broken


def test_value_that_json_does_not_know_is_printed():
    """A payload that the application passed to `send_events` itself may hold anything."""
    request = cut_post_request([{"se_va": Decimal("1.5")}], 10_000, no_stamp)

    assert json.loads(request.body)["data"] == [{"se_va": "1.5"}]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("is_stamped", [False, True])
def test_bytes_of_a_post_are_counted_exactly(text, count, is_stamped):
    """What is counted before a POST is what its body has, the stamp included that is still to come."""
    batch = [wire_payload(payload_of(text, number), "post") for number in range(count)]
    if is_stamped:
        stamp(batch)
    counted = request_overhead_bytes("post") + sum(wire_bytes(payload, "post") for payload in batch)

    body = cut_post_request(batch, 10**9, stamp).body

    assert counted == len(body.encode())


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("is_stamped", [False, True])
def test_bytes_of_a_get_are_counted_exactly(text, is_stamped):
    """What is counted before a GET is what stands behind the host in its URL, the stamp included."""
    payload = wire_payload(payload_of(text), "get")
    if is_stamped:
        stamp([payload])
    counted = request_overhead_bytes("get") + wire_bytes(payload, "get")

    stamp([payload])
    url = requests.Request("GET", "http://localhost/i", params=payload).prepare().url

    assert counted == len(url.encode()) - len("http://localhost")


def test_unencodable_payload_takes_no_bytes():
    """The request will pass it over, so it must neither count nor raise."""
    assert wire_bytes(UNENCODABLE, "post") == 0


@pytest.mark.parametrize("text", ["plain text", "x" * 5000, ""], ids=["short", "long", "empty"])
@pytest.mark.parametrize("is_stamped", [False, True])
def test_estimate_is_exact_for_plain_ascii(text, is_stamped):
    """The quick way to count gives what the slow one gives, where nothing has to be escaped."""
    payload = wire_payload(payload_of(text), "post")
    if is_stamped:
        stamp([payload])

    assert estimated_bytes(payload) == wire_bytes(payload, "post")


def test_estimate_takes_anything():
    """A name or a value that is no string counts too little, and does no harm."""
    payload = {"a": 55, 7: "xy", "b": object(), "c": "xy"}

    assert 0 < estimated_bytes(payload) < wire_bytes(payload, "post")


class Silent:
    def __str__(self):
        raise ZeroDivisionError("no text")


@pytest.mark.parametrize("method", METHODS)
def test_value_that_cannot_be_printed_is_refused(method):
    """It is a TypeError that names the field, by GET as well: no request could ever hold it."""
    with pytest.raises(TypeError, match=r"^se_va cannot be sent as text: no text$"):
        wire_payload({"se_va": Silent()}, method)


@pytest.mark.parametrize("method", METHODS)
def test_name_that_cannot_be_printed_is_refused(method):
    """It is a TypeError as well."""
    with pytest.raises(TypeError, match=r"^a name in the payload cannot be sent as text: no text$"):
        wire_payload({Silent(): 1}, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("value", "text"),
    [({1}, "{1}"), (date(2024, 2, 29), "2024-02-29"), (b"\xc3\xa9", "é"), (Size.LARGE, "3")],
    ids=repr,
)
def test_what_is_no_number_is_one_text_by_either_method(method, value, text):
    """What `requests` would make several parameters of is one, and an enum of numbers is its number."""
    assert wire_payload({"se_va": value}, method) == {"se_va": text}


def test_names_are_what_a_get_can_hold():
    """A lone surrogate in a name becomes a question mark, and a string enum is what it holds."""
    assert wire_payload({"a\ud800": 1, Colour.RED: 2}, "get") == {"a?": 1, "red": 2}


def test_number_that_json_does_not_have_is_passed_over():
    """NaN would make the whole body unreadable."""
    request = cut_post_request([{"se_va": math.nan}, {"eid": "1"}], 10_000, no_stamp)

    assert json.loads(request.body)["data"] == [{"eid": "1"}]
