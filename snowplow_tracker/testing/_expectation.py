"""What a test expects of an event, in the words of the assertions."""

from difflib import get_close_matches
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from .._shown import shown
from ..constants import KNOWN_PAYLOAD_KEYS
from ..self_describing_json import SelfDescribingJson
from ._collected import GoodEvent
from ._containment import MISSING, Comparison, Difference, child_path, compare, is_contained, likeness, plain_form
from ._enriched import EVENT_TYPES, FIELD_NAMES, URL_FIELD_NAMES, url_fields
from ._iglu import SCHEMA_URI

__all__ = ["EventExpectation"]

# pytest leaves modules with this out of what it prints: what is wrong is what the test gave.
__tracebackhide__ = True

_WORDS = ["event_type", "schema", "data", "contexts", "properties"]
_PROPERTY_NAMES = KNOWN_PAYLOAD_KEYS | FIELD_NAMES | URL_FIELD_NAMES
# How a yes or no looks on the wire, in lower case: the trackers differ.
_TEXTS_OF = {True: ("true", "1"), False: ("false", "0")}


class EventExpectation:
    """What an event must have to be the one that is meant; what is None does not matter.

    Args:
        event_type: The type by its name in the warehouse, such as `struct`.
        schema: The Iglu URI of its schema.
        data: What the data of a self-describing event must contain.
        contexts: Entities that must be there, among others perhaps: a list of Iglu URIs, of dicts with `schema` or
            `data` or both, or of `SelfDescribingJson`.
        properties: Values of further fields, by their names in the warehouse or on the wire, parts of URLs among them.
            A number equals its text. None means that the field must not be there.
        source: What to call the whole in messages of errors.

    Raises:
        TypeError: If a part has a wrong type.
        ValueError: If no event can have what a part says.
    """

    def __init__(
        self,
        event_type: Optional[str] = None,
        schema: Optional[str] = None,
        data: Optional[Any] = None,
        contexts: Optional[Sequence[Any]] = None,
        properties: Optional[Mapping[str, Any]] = None,
        source: str = "",
    ) -> None:
        prefix = f"{source}: " if source else ""
        self.event_type = None if event_type is None else _checked_event_type(f"{prefix}event_type", event_type)
        self.schema = None if schema is None else _checked_uri(f"{prefix}schema", schema)
        self.data = data
        self.contexts = None if contexts is None else _checked_contexts(f"{prefix}contexts", contexts)
        self.properties = None if properties is None else _checked_properties(f"{prefix}properties", properties)

    @classmethod
    def of(cls, words: Any, source: str) -> "EventExpectation":
        """Read an expectation out of a dict of the words above; or out of the event type or the schema alone.

        Raises:
            TypeError: If it is neither, or a part has a wrong type.
            ValueError: If there is another word in it, or no event can have what a part says.
        """
        if isinstance(words, str):
            return cls(schema=words, source=source) if words.startswith("iglu:") else cls(words, source=source)
        if not isinstance(words, Mapping):
            raise TypeError(f"{source} must be an event type, a schema or a dict, got {shown(words)}")
        for word in words:
            if word not in _WORDS:
                raise ValueError(f"{source} must have no words but {', '.join(_WORDS)}, got {shown(word)}")
        return cls(source=source, **words)

    def is_met_by(self, event: GoodEvent) -> bool:
        """Tell whether the event is one that is meant."""
        # Most events are sorted out by one of these, for a fraction of the price.
        if self.event_type not in (None, event.event_type) or self.schema not in (None, event.schema):
            return False
        return (
            (self.data is None or (event.data is not None and is_contained(self.data, event.data)))
            and (self.contexts is None or is_contained(self.contexts, event.contexts))
            and not any(_compare_property(name, value, event).differences for name, value in self._property_items())
        )

    def compare(self, event: GoodEvent) -> Comparison:
        """Tell what the event has of the expectation, and what it does not have."""
        parts = [self.compare_kind(event)]
        if self.data is not None:
            parts.append(_missing("data", self.data) if event.data is None else compare(self.data, event.data, "data"))
        if self.contexts is not None:
            parts.append(compare(self.contexts, event.contexts, "contexts"))
        parts += [_compare_property(name, value, event) for name, value in self._property_items()]
        return _joined(parts)

    def compare_kind(self, event: GoodEvent) -> Comparison:
        """Tell whether the event is of the type and the schema of those that are meant."""
        parts: List[Comparison] = []
        if self.event_type is not None:
            parts.append(compare(self.event_type, event.event_type, "event_type"))
        if self.schema is not None:
            parts.append(compare(self.schema, event.schema, "schema"))
        return _joined(parts)

    def likeness(self, event: GoodEvent) -> int:
        """Tell roughly how much the event has of the rest, for a fraction of the price of `compare`."""
        parts = ((self.data, event.data), (self.contexts, event.contexts))
        return sum(likeness(expected, actual) for expected, actual in parts if expected is not None) + sum(
            _compare_property(name, value, event).agreements for name, value in self._property_items()
        )

    def _property_items(self) -> List[Tuple[str, Any]]:
        return list((self.properties or {}).items())

    def described(self) -> Dict[str, Any]:
        """Give the parts that matter, by their words."""
        words = {word: getattr(self, word) for word in _WORDS}
        return {word: value for word, value in words.items() if value is not None}


def _checked_event_type(name: str, event_type: Any) -> str:
    if not isinstance(event_type, str):
        raise TypeError(f"{name} must be a string, got {shown(event_type)}")
    known = list(EVENT_TYPES.values())
    if event_type not in known:
        raise ValueError(
            f"{name} must be one of {', '.join(known)} (unstruct is a self-describing event), got {shown(event_type)}"
        )
    return event_type


def _checked_uri(name: str, schema: Any) -> str:
    if not isinstance(schema, str):
        raise TypeError(f"{name} must be a string, got {shown(schema)}")
    if not SCHEMA_URI.fullmatch(schema):
        raise ValueError(f"{name} must be like iglu:com.acme/user/jsonschema/1-0-0, got {shown(schema)}")
    return schema


def _checked_contexts(name: str, contexts: Any) -> List[Any]:
    if isinstance(contexts, str) or not isinstance(contexts, Sequence):
        raise TypeError(f"{name} must be a list, got {shown(contexts)}")
    return [_checked_context(f"{name}[{index}]", context) for index, context in enumerate(contexts)]


def _checked_context(name: str, context: Any) -> Dict[str, Any]:
    if isinstance(context, str):
        return {"schema": _checked_uri(name, context)}
    parts = context.to_json() if isinstance(context, SelfDescribingJson) else context
    if not isinstance(parts, Mapping):
        raise TypeError(f"{name} must be a schema, a dict or a SelfDescribingJson, got {shown(context)}")
    if not parts or set(parts) - {"schema", "data"}:
        raise ValueError(f"{name} must have a schema or data and nothing else, got {shown(context)}")
    if "schema" in parts:
        _checked_uri(f"{name}.schema", parts["schema"])
    return dict(parts)


def _checked_properties(name: str, properties: Any) -> Dict[str, Any]:
    if not isinstance(properties, Mapping):
        raise TypeError(f"{name} must be a dict, got {shown(properties)}")
    for property_name in properties:
        if property_name not in _PROPERTY_NAMES:
            similar = get_close_matches(str(property_name), sorted(_PROPERTY_NAMES), n=1)
            hint = f", similar to {similar[0]}" if similar else ""
            raise ValueError(
                f"{name} must have names of what a tracker sends, in the warehouse or on the wire, "
                f"got {shown(property_name)}{hint}"
            )
    return dict(properties)


def _compare_property(name: str, expected: Any, event: GoodEvent) -> Comparison:
    path = child_path("properties", name)
    expected = plain_form(expected)
    url_parts = url_fields(event.fields) if name in URL_FIELD_NAMES else {}
    found = [fields[name] for fields in (event.fields, event.payload, url_parts) if name in fields]
    if not found:
        return Comparison(1, []) if expected is None else _missing(path, expected)
    if expected is None:
        return Comparison(0, [Difference(path, MISSING, found[0])])
    if any(_is_same(expected, actual) or is_contained(expected, actual) for actual in found):
        return Comparison(1, [])
    return Comparison(0, [Difference(path, expected, found[0])])


def _joined(parts: List[Comparison]) -> Comparison:
    return Comparison(
        sum(part.agreements for part in parts), [difference for part in parts for difference in part.differences]
    )


def _missing(path: str, expected: Any) -> Comparison:
    return Comparison(0, [Difference(path, plain_form(expected), MISSING)])


def _is_same(expected: Any, actual: Any) -> bool:
    """Tell whether two values are the same but for one of them being text, as all values on the wire are."""
    if isinstance(expected, bool):
        return str(actual).lower() in _TEXTS_OF[expected]
    if isinstance(actual, bool):
        return str(expected).lower() in _TEXTS_OF[actual]
    number, text = (actual, expected) if isinstance(expected, str) else (expected, actual)
    if not isinstance(number, (int, float)) or not isinstance(text, str):
        return False
    try:
        return str(number) == text or float(number) == float(text)
    except (ValueError, OverflowError):
        return False
