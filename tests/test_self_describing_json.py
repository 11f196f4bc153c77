"""Data that names its schema."""

import math
from uuid import UUID

import pytest

from snowplow_tracker import SelfDescribingJson

SCHEMA = "iglu:com.acme/thing/jsonschema/1-0-0"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("schema", ["", None, 3, b"iglu:a"])
def test_schema_must_be_a_non_empty_string(schema):
    """A wrong schema is refused where it is given, by the constructor and by the property."""
    described = SelfDescribingJson(SCHEMA, {})

    with pytest.raises(ValueError, match=r"^schema must be a non-empty string, got "):
        SelfDescribingJson(schema, {})
    with pytest.raises(ValueError, match=r"^schema must be a non-empty string, got "):
        described.schema = schema

    assert described.schema == SCHEMA


def test_parts_can_be_changed():
    """Both parts are attributes, and `to_json` gives them as they are then."""
    described = SelfDescribingJson(SCHEMA, {})

    described.schema = Text("iglu:other")
    described.data = [1]
    described.note = "instances have a __dict__"

    assert described.to_json() == {"schema": "iglu:other", "data": [1]}


def test_string_is_ascii_json():
    """The string is JSON in ASCII, with the substitutes that payloads have."""
    described = SelfDescribingJson(SCHEMA, {"a": "é", "n": math.nan, "in": SelfDescribingJson("b", UUID(int=1))})

    text = described.to_string()

    assert text == (
        f'{{"schema": "{SCHEMA}", "data": {{"a": "\\u00e9", "n": null,'
        f' "in": {{"schema": "b", "data": "{UUID(int=1)}"}}}}}}'
    )


def test_string_of_what_has_no_json_is_a_type_error():
    """The error names the part."""
    described = SelfDescribingJson(SCHEMA, {"a": object()})

    with pytest.raises(TypeError, match=r"^SelfDescribingJson\.data\['a'\] cannot be encoded as JSON"):
        described.to_string()
