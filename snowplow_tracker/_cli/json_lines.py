"""Payloads out of lines of JSON."""

import time
from typing import Any, BinaryIO, Callable, Dict, List, NamedTuple, Optional, TypeVar

from .._shown import shown
from .._wire import request_overhead_bytes, wire_bytes, wire_payload
from ..constants import KNOWN_PAYLOAD_KEYS
from ..events import SelfDescribing
from ..self_describing_json import SelfDescribingJson
from ..subject import DEFAULT_PLATFORM, Subject
from ..testing._pipeline import MAX_STREAM_BYTES
from ..tracker import Tracker
from ..typing import PayloadDict
from .subjects import subject_of
from .values import described, event_id, json_value, schema_uri, timestamp

__all__ = ["Line", "MAX_LINE_BYTES", "payload_of", "read_line"]

# What is larger does not get through a pipeline anyway.
MAX_LINE_BYTES = MAX_STREAM_BYTES
# A character takes three times as many bytes in a request as in a line, at most.
_MAX_GROWTH = 3
# For the rest of the request.
_ROOM_BYTES = 10_000

_T = TypeVar("_T")

_EVENT_KEYS = {"schema", "data", "contexts", "subject", "timestamp", "event_id"}


class Line(NamedTuple):
    """One line of the input.

    Attributes:
        content: The line as read, its end included; only its beginning if it is too long.
        is_too_long: Whether it has more than `MAX_LINE_BYTES`.
    """

    content: bytes
    is_too_long: bool = False


def read_line(stream: BinaryIO) -> Optional[Line]:
    """Read one line in bounded memory; None at the end of the input."""
    content = stream.readline(MAX_LINE_BYTES + 1)
    if not content:
        return None
    if len(content) <= MAX_LINE_BYTES:
        return Line(content)
    rest = content
    while rest and not rest.endswith(b"\n"):
        rest = stream.readline(MAX_LINE_BYTES)
    return Line(content, is_too_long=True)


def payload_of(line: Line, tracker: Tracker) -> PayloadDict:
    """Make the payload that a line describes.

    Args:
        line: Not blank.
        tracker: Completes the payload.

    Raises:
        ValueError: If the line is bad; the message says why.
    """
    if line.is_too_long:
        raise ValueError(f"is longer than {MAX_LINE_BYTES} bytes")
    try:
        # Editors on Windows begin a file with a mark.
        content = line.content.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError:
        raise ValueError("is not in UTF-8") from None
    value = json_value(content)
    if not isinstance(value, dict):
        raise ValueError(f"must be an object, got {shown(value)}")
    if "e" in value:
        payload = _completed(value, tracker)
    elif "schema" in value:
        payload = _event_payload(value, tracker)
    else:
        raise ValueError("must have schema and data, or e as a payload has")
    if len(line.content) > MAX_STREAM_BYTES // _MAX_GROWTH - _ROOM_BYTES:
        _check_size(payload)
    return payload


def _check_size(payload: PayloadDict) -> None:
    size = request_overhead_bytes("post") + wire_bytes(wire_payload(payload, "post"), "post")
    if size > MAX_STREAM_BYTES:
        raise ValueError(f"takes {size} bytes to send, and no pipeline takes more than {MAX_STREAM_BYTES}")


def _completed(pairs: Dict[str, Any], tracker: Tracker) -> PayloadDict:
    """Complete a payload by what it lacks of that which each payload has.

    One that lacks it, or has a name that nobody knows, would make the pipeline throw the whole request away.
    """
    payload = {name: value for name, value in pairs.items() if value is not None}
    if not payload.get("e") or not isinstance(payload["e"], str):
        raise ValueError(f"e must be the type of an event such as pv, got {shown(pairs['e'])}")
    if not KNOWN_PAYLOAD_KEYS.issuperset(payload):
        unknown = min(payload.keys() - KNOWN_PAYLOAD_KEYS)
        raise ValueError(f"has the name {shown(unknown)}, which no payload has")
    if not isinstance(payload.get("eid", ""), str):
        raise ValueError(f"eid must be text, got {shown(payload['eid'])}")
    for name, value in payload.items():
        if isinstance(value, (dict, list, bool)):
            raise ValueError(f"{name} must be text or a number, got {shown(value)}")
    for name, value in tracker.standard_nv_pairs.items():
        payload.setdefault(name, value)
    payload.setdefault("p", DEFAULT_PLATFORM)
    payload.setdefault("eid", tracker.get_uuid())
    payload.setdefault("dtm", str(int(time.time() * 1000)))
    return payload


def _event_payload(pairs: Dict[str, Any], tracker: Tracker) -> PayloadDict:
    if not _EVENT_KEYS.issuperset(pairs):
        unknown = min(pairs.keys() - _EVENT_KEYS)
        raise ValueError(f"has no use for {shown(unknown)}, only for {', '.join(sorted(_EVENT_KEYS))}")
    if "data" not in pairs:
        raise ValueError("must have data for its schema")
    schema = _part(pairs, "schema", schema_uri)
    if schema is None:
        raise ValueError("must have a schema for its data")
    event = SelfDescribing(SelfDescribingJson(schema, pairs["data"]))
    event.context = _part(pairs, "contexts", _entities)
    event.event_subject = _part(pairs, "subject", _subject)
    event.true_timestamp = _part(pairs, "timestamp", timestamp)
    eid = _part(pairs, "event_id", event_id)
    try:
        payload = tracker.complete_payload(event).nv_pairs
    except TypeError as error:
        # Nothing but a depth that JSON's encoder gives up at.
        raise ValueError(str(error)) from None
    return payload if eid is None else {**payload, "eid": eid}


def _part(pairs: Dict[str, Any], key: str, check: Callable[[Any], _T]) -> Optional[_T]:
    """Check the value of a key; null is as good as none."""
    value = pairs.get(key)
    if value is None:
        return None
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{key} {error}") from None


def _entities(value: Any) -> List[SelfDescribingJson]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list, got {shown(value)}")
    return [described(entity) for entity in value]


def _subject(value: Any) -> Optional[Subject]:
    if not isinstance(value, dict):
        raise ValueError(f"must be an object, got {shown(value)}")
    return subject_of(value)
