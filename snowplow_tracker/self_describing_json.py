"""Data that names the schema it obeys."""

from typing import Any, Dict

from ._json import encode_readable_json, plain
from .contracts import non_empty_string

__all__ = ["SelfDescribingJson"]


class SelfDescribingJson:
    """A self-describing event, or an entity of an event's context.

    Attributes:
        schema: Iglu URI of the schema, such as `iglu:com.acme/user/jsonschema/1-0-0`.
        data: What the schema describes, mostly a dict. It may hold whatever has a form in JSON: UUIDs, dates, decimals,
            enums, sets and bytes do, and so does another `SelfDescribingJson`.

    Raises:
        ValueError: If the schema is not a non-empty string.
    """

    def __init__(self, schema: str, data: Any) -> None:
        self.schema = schema
        self.data = data

    @property
    def schema(self) -> str:
        """Iglu URI of the schema."""
        return self._schema

    @schema.setter
    def schema(self, value: str) -> None:
        non_empty_string(value, name="schema")
        self._schema = value

    def to_json(self) -> Dict[str, Any]:
        """Give the two parts as a dict. The tracker calls this each time it builds a payload."""
        return {"schema": self.schema, "data": self.data}

    def to_string(self) -> str:
        """Write the two parts as JSON, in ASCII.

        Raises:
            TypeError: If there is no JSON for the data; the message names the part.
        """
        return encode_readable_json(self.to_json(), type(self).__name__)


plain.register(SelfDescribingJson, lambda described: described.to_json())
