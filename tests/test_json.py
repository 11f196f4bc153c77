"""JSON: what values become, and how those that have no JSON are named."""

import enum
import json
import math
import sys
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from snowplow_tracker import SelfDescribingJson
from snowplow_tracker._json import encode_json

SCHEMA = "iglu:com.acme/thing/jsonschema/1-0-0"


class Colour(enum.Enum):
    RED = "red"
    WARM = (1, 2)


class Size(enum.IntEnum):
    LARGE = 3


class Lazy(SelfDescribingJson):
    def to_json(self):
        return {"schema": self.schema, "data": {"computed": True}}


class Unknown:
    def __repr__(self):
        return "<unknown>"


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True, "é🙂"]}, '{"a":[1,2.5,null,true,"é🙂"]}'),
        ({1: 1, 1.5: 1, None: 1, False: 1}, '{"1":1,"1.5":1,"null":1,"false":1}'),
        (("a", "b"), '["a","b"]'),
        (UUID(int=5), '"00000000-0000-0000-0000-000000000005"'),
        (datetime(2020, 1, 2, 3, 4, 5), '"2020-01-02T03:04:05"'),
        (datetime(2020, 1, 2, tzinfo=timezone(timedelta(hours=2))), '"2020-01-02T00:00:00+02:00"'),
        (date(2020, 1, 2), '"2020-01-02"'),
        (time(3, 4), '"03:04:00"'),
        (Decimal("49.95"), "49.95"),
        (Decimal("5.00"), "5"),
        (Decimal("12345678901234567890123"), "12345678901234567890123"),
        (Decimal("1E+2000"), "null"),
        (Decimal("NaN"), "null"),
        (Decimal("sNaN"), "null"),
        (Decimal("-Infinity"), "null"),
        (Colour.RED, '"red"'),
        (Colour.WARM, "[1,2]"),
        (Size.LARGE, "3"),
        ({3, 1, 2}, "[1,2,3]"),
        (frozenset("ba"), '["a","b"]'),
        (b"abc \xc3\xa9", '"abc é"'),
        (bytearray(b"\xff\xfe"), '"//4="'),
        (SelfDescribingJson(SCHEMA, {"id": UUID(int=0)}), f'{{"schema":"{SCHEMA}","data":{{"id":"{UUID(int=0)}"}}}}'),
        (Lazy(SCHEMA, None), f'{{"schema":"{SCHEMA}","data":{{"computed":true}}}}'),
        (math.nan, "null"),
        ({"a": [math.inf, (-math.inf, 1.5)]}, '{"a":[null,[null,1.5]]}'),
        ({math.nan: 1, 1.5: {None: math.nan}, 2: 2}, '{"null":1,"1.5":{"null":null},"2":2}'),
        ({"a": math.nan, "b": {Decimal("1.5")}, "c": {UUID(int=0)}}, f'{{"a":null,"b":[1.5],"c":["{UUID(int=0)}"]}}'),
    ],
)
def test_values_become_json(value, text):
    """Each type that an application may put into data has its form in JSON, at any depth."""
    assert encode_json(value, "data") == text


def test_set_that_cannot_be_sorted_keeps_its_elements():
    """A set of different types goes out in any order."""
    assert sorted(json.loads(encode_json({"a", 1}, "data")), key=str) == [1, "a"]


def test_json_encoder_gets_what_nothing_else_knows():
    """The user's function gives a substitute, which may itself hold what the library knows."""

    def describe(value):
        if isinstance(value, Unknown):
            return {"of": "Unknown", "at": date(2020, 1, 2)}
        raise TypeError

    assert encode_json({"a": Unknown()}, "data", describe) == '{"a":{"of":"Unknown","at":"2020-01-02"}}'


def test_json_encoder_is_asked_first():
    """What the user's function makes of a value counts, even where the library has a form of its own."""
    text = encode_json([UUID(int=1), Unknown()], "data", lambda value: type(value).__name__)

    assert text == '["UUID","Unknown"]'


def test_json_encoder_that_raises_is_helped_out():
    """A value that has a form in JSON gets it where the user's function would raise."""

    def refuse(value):
        raise TypeError(f"not {type(value).__name__}")

    assert encode_json([UUID(int=1)], "data", refuse) == f'["{UUID(int=1)}"]'
    with pytest.raises(TypeError, match=r"data\[0\] cannot be encoded as JSON: not Unknown"):
        encode_json([Unknown()], "data", refuse)


def test_json_encoder_may_return_nan():
    """A substitute without JSON becomes null like any other value."""
    assert encode_json([Unknown()], "data", lambda value: math.inf) == "[null]"


def refuse(value):
    raise ValueError("not today")


def contains_itself():
    value = {"list": []}
    value["list"].append(value)
    return value


@pytest.mark.parametrize(
    ("value", "json_encoder", "message"),
    [
        ({"price": Unknown()}, None, "data['price'] cannot be encoded as JSON: there is no JSON for the type Unknown"),
        ({"a": [1, (2, {"b": Unknown})]}, None, "data['a'][1][1]['b'] cannot be encoded as JSON: there is no JSON for"),
        ({"a": {(1, 2): 3}}, None, "data['a'] cannot be encoded as JSON: (1, 2) is no key of an object, strings are"),
        ({"a": [Unknown()]}, refuse, "data['a'][0] cannot be encoded as JSON: not today"),
        ({"a": {Colour.RED: 1}}, None, "data['a'] cannot be encoded as JSON: <Colour.RED: 'red'> is no key"),
        (contains_itself(), None, "data['list'][0] cannot be encoded as JSON: it contains itself"),
        (Unknown(), lambda value: value, "data cannot be encoded as JSON: it contains itself"),
        (nested(100_000), None, "data cannot be encoded as JSON: maximum recursion depth exceeded"),
        (
            [SelfDescribingJson(SCHEMA, {"price": Unknown()})],
            None,
            "data[0].data['price'] cannot be encoded as JSON: there is no JSON for the type Unknown",
        ),
    ],
)
def test_value_without_json_is_named(value, json_encoder, message):
    """What has no JSON raises TypeError with the place where it stands, whatever went wrong."""
    with pytest.raises(TypeError) as caught:
        encode_json(value, "data", json_encoder)

    assert str(caught.value).startswith(message)


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="this Python writes integers of any length")
def test_integer_that_python_refuses_to_write_is_a_type_error():
    """Even where it is not a type that has no JSON, the error is the documented one."""
    with pytest.raises(TypeError, match=r"^data cannot be encoded as JSON: Exceeds the limit"):
        encode_json([10**5000], "data")


def test_errors_of_the_application_keep_their_cause():
    """The exception that the user's function raised is the cause of the TypeError."""
    with pytest.raises(TypeError) as caught:
        encode_json(Unknown(), "data", refuse)

    assert isinstance(caught.value.__cause__, ValueError)
