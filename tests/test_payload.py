"""Payloads: name-value pairs, and JSON in them."""

import base64
import json

import pytest

from snowplow_tracker.constants import CONTEXT_SCHEMA
from snowplow_tracker.payload import Payload


def decoded(text):
    return json.loads(base64.urlsafe_b64decode(text))


def test_constructor_copies_pairs_as_they_are():
    """The first pairs are taken without a look at them, and the dict they came in stays the caller's."""
    pairs = {"a": None, "b": ""}

    payload = Payload(pairs)
    payload.add("c", 1)

    assert payload.nv_pairs == {"a": None, "b": "", "c": 1}
    assert pairs == {"a": None, "b": ""}


def test_get_returns_the_pairs_themselves():
    """There is one dict behind a payload."""
    payload = Payload()

    payload.get()["a"] = 1

    assert payload.nv_pairs == {"a": 1}


@pytest.mark.parametrize("value", [0, False, [], {}, 0.0, " "])
def test_add_keeps_values_that_say_something(value):
    """Zero, False and empty containers are values."""
    payload = Payload()

    payload.add("a", value)

    assert payload.nv_pairs == {"a": value}


@pytest.mark.parametrize("value", [None, ""])
def test_none_and_the_empty_string_are_left_out(value):
    """Values that say nothing are not added, one by one or as a dict, and replace nothing."""
    payload = Payload({"b": 1})

    payload.add("a", value)
    payload.add("b", value)
    payload.add_dict({"a": value, "b": value, "c": 3}, True)

    assert payload.nv_pairs == {"b": 1, "c": 3}


@pytest.mark.parametrize("value", [None, {}])
def test_nothing_is_no_json(value):
    """None and the empty dict add no JSON."""
    payload = Payload()

    payload.add_json(value, True, "x", "r")

    assert payload.nv_pairs == {}


@pytest.mark.parametrize("value", [[], {"a": "é?>~"}, "text", 0, False])
def test_json_goes_out_as_base64_or_text(value):
    """The flag decides about the encoding and the name."""
    payload = Payload()

    payload.add_json(value, True, "x", "r")
    payload.add_json(value, False, "x", "r")

    assert decoded(payload.nv_pairs["x"]) == value
    assert json.loads(payload.nv_pairs["r"]) == value


def test_base64_is_url_safe():
    """The text can stand in a URL."""
    payload = Payload()

    payload.add_json("é?>~ÿ?", True, "x", "r")

    assert payload.nv_pairs == {"x": "IsOpPz5-w78_Ig=="}


def test_json_text_is_compact_and_holds_real_characters():
    """What is not encoded in Base64 can be read."""
    payload = Payload()

    payload.add_json({"a": "é", "b": ["漢", "🙂"]}, False, "x", "r")

    assert payload.nv_pairs == {"r": '{"a":"é","b":["漢","🙂"]}'}


@pytest.mark.parametrize("encode_base64", [True, False])
def test_lone_surrogates_are_escaped(encode_base64):
    """Half a character, which has no UTF-8, survives as an escape and leaves the rest of the text alone."""
    value = {"a": "é\ud83d", "b": "\\\udc00"}
    payload = Payload()

    payload.add_json(value, encode_base64, "x", "r")
    payload.add_enveloped("iglu:e", value, "data", encode_base64, "y", "s")

    (text, enveloped) = payload.nv_pairs.values()
    text.encode("utf-8")
    enveloped.encode("utf-8")
    assert (decoded(text) if encode_base64 else json.loads(text)) == value
    assert (decoded(enveloped) if encode_base64 else json.loads(enveloped))["data"] == value


def test_json_encoder_substitutes():
    """A user's function gives what stands for a value without JSON."""
    payload = Payload()

    payload.add_json({"a": object()}, False, "x", "r", lambda value: "something")

    assert payload.nv_pairs == {"r": '{"a":"something"}'}


def test_value_without_json_is_named_and_adds_nothing():
    """The error names the parameter and the place in it."""
    payload = Payload()

    with pytest.raises(TypeError, match=r"^dict_\['a'\] cannot be encoded as JSON"):
        payload.add_json({"a": object()}, False, "x", "r")

    assert payload.nv_pairs == {}


@pytest.mark.parametrize("encode_base64", [True, False])
def test_envelope_goes_around_data(encode_base64):
    """Enveloped data is a schema and the data."""
    payload = Payload()

    payload.add_enveloped(CONTEXT_SCHEMA, [{"a": 1}], "context", encode_base64, "cx", "co")

    ((name, text),) = payload.nv_pairs.items()
    assert name == ("cx" if encode_base64 else "co")
    assert (decoded(text) if encode_base64 else json.loads(text)) == {"schema": CONTEXT_SCHEMA, "data": [{"a": 1}]}


@pytest.mark.parametrize("given", [5, "abc"])
def test_pairs_that_are_none_are_refused(given):
    """What is no dict is a TypeError that shows it."""
    with pytest.raises(TypeError, match=f"^dict_ must be a dict of name-value pairs, got {given!r}$"):
        Payload(given)
