"""What a pipeline would make of what arrives: good events, and bad ones with the reasons."""

import binascii
import json
import re
from itertools import islice
from typing import Any, Callable, Dict, List, Optional, Tuple, Union, cast

from typing_extensions import Literal

from .._settings import choice
from .._shown import shown
from ..constants import (
    BASE_SCHEMA_PATH,
    CONTEXT_SCHEMA,
    KNOWN_PAYLOAD_KEYS,
    REQUIRED_PAYLOAD_KEYS,
    SCHEMA_TAG,
    UNSTRUCT_EVENT_SCHEMA,
)
from ..typing import PayloadDict
from ._collected import BadEvent, CollectedRequest, GoodEvent, PathArgument, SelfDescribingDict
from ._enriched import EVENT_SCHEMAS, enriched_fields, schema_fields
from ._iglu import SCHEMA_URI, SchemaFolder

__all__ = ["JudgedEvent", "MAX_STREAM_BYTES", "Pipeline"]

JudgedEvent = Union[GoodEvent, BadEvent]

# What Kinesis takes as one record. A collector answers 200 to a longer request, and throws it away.
MAX_STREAM_BYTES = 1_048_576

_POST_PATH = "/com.snowplowanalytics.snowplow/tp2"
_GET_PATH = "/i"
_CONTENT_TYPE = re.compile(r'\s*application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?', re.IGNORECASE)

_PAYLOAD_DATA_SCHEMAS = [f"{BASE_SCHEMA_PATH}/payload_data/{SCHEMA_TAG}/1-0-{addition}" for addition in range(5)]
# In this version of the envelope, it holds at least one entity.
_NON_EMPTY_CONTEXTS_SCHEMA = f"{BASE_SCHEMA_PATH}/contexts/{SCHEMA_TAG}/1-0-0"
_CONTEXTS_SCHEMAS = [_NON_EMPTY_CONTEXTS_SCHEMA, CONTEXT_SCHEMA]

_TEXTS = frozenset({str})
_SELF_DESCRIBING_KEYS = {"schema", "data"}
_BASE64 = re.compile(r"[A-Za-z0-9_-]*={0,2}")
_LISTED_CULPRITS = 5


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it has no {name}")


# Python's own default lets NaN and Infinity in.
_decode_json: Callable[[str], Any] = json.JSONDecoder(parse_constant=_refuse_constant).decode


class _FaultError(ValueError):
    """What is wrong with something that arrived, as a sentence."""


class Pipeline:
    """Tells good events from bad ones by the rules of a Snowplow pipeline.

    A batch, which is what one request brings, has to obey `payload_data/1-0-4` as a whole, whether it came by POST or
    GET: one payload that does not spoils all. After that each event is judged for itself.

    It knows of no other event than the one that it judges, and may be used by several threads at once.
    """

    def __init__(
        self,
        schemas: Optional[PathArgument] = None,
        unknown_schemas: Literal["reject", "accept"] = "reject",
    ) -> None:
        """Set the rules.

        Args:
            schemas: A folder of schemas in Iglu layout (`vendor/name/jsonschema/1-0-0`, below `schemas/` or not) that
                the data of events and entities has to obey. It is read as schemas are needed, each once. None to look
                at no data. Needs the extra `validation`.
            unknown_schemas: Whether to `reject` or to `accept` data whose schema is not in the folder.

        Raises:
            ImportError: If schemas are given, and `jsonschema` is not installed.
            TypeError: If an argument is of a wrong type.
            ValueError: If there is no such folder, or no such way to treat unknown schemas.
        """
        self._accepts_unknown = choice("reject", "accept")("unknown_schemas", unknown_schemas) == "accept"
        self._schemas = None if schemas is None else SchemaFolder(schemas)

    def judge_request(self, request: CollectedRequest) -> List[JudgedEvent]:
        """Judge what a request brought.

        Returns:
            An event for each payload, in their order, or a single bad one without a payload if none can be read.
            Nothing for a request that is not for a tracker's paths, or that the collector did not accept.
        """
        if not 200 <= request.status <= 299:
            return []
        if request.method == "POST" and request.path.endswith(_POST_PATH):
            return self._judge_post(request)
        if request.method == "GET" and request.path.endswith(_GET_PATH):
            if not request.query:
                return [BadEvent(None, ["The query is empty: there is no payload in the request"], request)]
            return self.judge_batch([request.query], request)
        return []

    def judge_batch(self, payloads: List[Any], request: Optional[CollectedRequest] = None) -> List[JudgedEvent]:
        """Judge the payloads of one request.

        Args:
            payloads: Any values that JSON knows, at least one.
            request: Where they came by.

        Returns:
            An event for each payload, in their order.
        """
        # Thousands of payloads may have the same faults, and need them in memory but once.
        known: Dict[Tuple[str, ...], List[str]] = {}
        faults = [known.setdefault(tuple(found), found) for found in map(_batch_faults, payloads)]
        if not any(faults):
            return [self._judge_event(payload, request) for payload in payloads]
        blame = [_blame(payloads, faults)]
        return [BadEvent(payload, found or blame, request) for payload, found in zip(payloads, faults)]

    def _judge_post(self, request: CollectedRequest) -> List[JudgedEvent]:
        size = len(request.body)
        if size > MAX_STREAM_BYTES:
            error = f"Size violation: the request has {size} bytes, and a collector throws away what has more than"
            errors = [f"{error} {MAX_STREAM_BYTES}"]
            return [BadEvent(payload, errors, request) for payload in _readable(request)]
        try:
            payloads = _posted_payloads(request)
        except _FaultError as fault:
            return [BadEvent(None, [str(fault)], request)]
        return self.judge_batch(payloads, request)

    def _judge_event(self, payload: PayloadDict, request: Optional[CollectedRequest]) -> JudgedEvent:
        fields, errors = enriched_fields(payload)
        event = self._described_event(payload, errors)
        contexts = self._contexts(payload, errors)
        if errors:
            return BadEvent(payload, errors, request)
        event_type = fields["event"]
        schema = EVENT_SCHEMAS[event_type] if event is None else event["schema"]
        fields.update(schema_fields(schema))
        return GoodEvent(payload, event_type, schema, event and event["data"], contexts, fields, request)

    def _described_event(self, payload: PayloadDict, errors: List[str]) -> Optional[SelfDescribingDict]:
        """Take the self-describing event out of its envelope; None if there is none, or a wrong one."""
        try:
            envelope = _decoded(payload, "ue_pr", "ue_px")
            if envelope is None:
                if payload["e"] == "ue":
                    raise _FaultError("ue_px or ue_pr is missing: an event of type ue needs one of them")
                return None
            name, value = envelope
            data = _unwrapped(name, value, [UNSTRUCT_EVENT_SCHEMA])
        except _FaultError as fault:
            errors.append(str(fault))
            return None
        # A pipeline reads this field whatever the type of the event, and minds what is wrong in it.
        event = self._described(f"the event in {name}", data, errors)
        return event if payload["e"] == "ue" else None

    def _contexts(self, payload: PayloadDict, errors: List[str]) -> List[SelfDescribingDict]:
        """Take the entities out of their envelope; those that are wrong are left out."""
        try:
            envelope = _decoded(payload, "co", "cx")
            if envelope is None:
                return []
            name, value = envelope
            entities = _unwrapped(name, value, _CONTEXTS_SCHEMAS)
            if not isinstance(entities, list):
                raise _FaultError(f"The data of {name} must be a list of entities, got {shown(entities)}")
            if not entities and value["schema"] == _NON_EMPTY_CONTEXTS_SCHEMA:
                raise _FaultError(f"The data of {name} must not be empty, by {_NON_EMPTY_CONTEXTS_SCHEMA}")
        except _FaultError as fault:
            errors.append(str(fault))
            return []
        described = (
            self._described(f"entity {position} in {name}", entity, errors)
            for position, entity in enumerate(entities, 1)
        )
        return [entity for entity in described if entity is not None]

    def _described(self, place: str, value: Any, errors: List[str]) -> Optional[SelfDescribingDict]:
        """Check an event or an entity; None if it is not even self-describing."""
        try:
            described = _self_describing(place, value)
        except _FaultError as fault:
            errors.append(str(fault))
            return None
        errors.extend(self._data_errors(place, described))
        return described

    def _data_errors(self, place: str, described: SelfDescribingDict) -> List[str]:
        if self._schemas is None:
            return []
        found = self._schemas.errors(described["schema"], described["data"])
        if found is not None:
            return [f"In {place}, {error}" for error in found]
        if self._accepts_unknown:
            return []
        uri = described["schema"]
        return [f"The schema of {place} is unknown: {uri} ({self._schemas.absence(uri)})"]


def _batch_faults(payload: Any) -> List[str]:
    """Tell what `payload_data/1-0-4` has against a payload."""
    if not isinstance(payload, dict):
        return [f"A payload must be an object of texts, got {shown(payload)}"]
    # Nearly every payload is as it should be, and this is a fraction of the cost of asking field by field.
    if (
        KNOWN_PAYLOAD_KEYS.issuperset(payload)
        and _TEXTS.issuperset(map(type, payload.values()))
        and payload.keys() >= REQUIRED_PAYLOAD_KEYS
    ):
        return []
    return [
        *(
            f"{name} is missing, which payload_data/1-0-4 requires"
            for name in sorted(REQUIRED_PAYLOAD_KEYS - {*payload})
        ),
        *(f"{shown(name, str)} is unknown to payload_data/1-0-4" for name in payload if name not in KNOWN_PAYLOAD_KEYS),
        *(
            f"{name} must be a text, got {shown(value)}"
            for name, value in payload.items()
            if name in KNOWN_PAYLOAD_KEYS and not isinstance(value, str)
        ),
    ]


def _blame(payloads: List[Any], faults: List[List[str]]) -> str:
    """Tell those that were good which payloads spoiled their batch."""
    culprits = (
        f"payload {position} of {len(payloads)} ({_identity(payload)}): {found[0]}"
        for position, (payload, found) in enumerate(zip(payloads, faults), 1)
        if found
    )
    listed = list(islice(culprits, _LISTED_CULPRITS))
    more = sum(map(bool, faults)) - _LISTED_CULPRITS
    if more > 0:
        listed.append(f"and {more} more")
    return f"The batch that it came in is spoiled by {'; '.join(listed)}"


def _identity(payload: Any) -> str:
    eid = payload.get("eid") if isinstance(payload, dict) else None
    return "without eid" if eid is None else f"eid {shown(eid, str)}"


def _posted_payloads(request: CollectedRequest) -> List[Any]:
    """Take the payloads out of a POST, or raise a fault."""
    content_type = request.headers.get("content-type", "")
    if not _CONTENT_TYPE.fullmatch(content_type):
        raise _FaultError(
            f"The content type must be application/json, with the charset utf-8 or none, got {content_type!r}"
        )
    if not request.body:
        raise _FaultError("The body is empty: there is no payload in the request")
    try:
        text = request.body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _FaultError(f"The body is not UTF-8: {error}") from error
    payloads = _unwrapped("the body", _json("The body", text), _PAYLOAD_DATA_SCHEMAS)
    if not isinstance(payloads, list):
        raise _FaultError(f"The data of the body must be a list of payloads, got {shown(payloads)}")
    if not payloads:
        raise _FaultError("The data of the body is empty: there is no payload in the request")
    return payloads


def _readable(request: CollectedRequest) -> List[Any]:
    try:
        return _posted_payloads(request)
    except _FaultError:
        return [None]


def _decoded(payload: PayloadDict, plain_name: str, base64_name: str) -> Optional[Tuple[str, Any]]:
    """Decode one of two fields that hold the same in different encodings; returns its name and the JSON in it."""
    if base64_name not in payload:
        return (plain_name, _json(plain_name, payload[plain_name])) if plain_name in payload else None
    if plain_name in payload:
        raise _FaultError(f"{base64_name} and {plain_name} are both given: a pipeline reads only one of them")
    encoded = payload[base64_name]
    if not _BASE64.fullmatch(encoded):
        raise _FaultError(f"{base64_name} is not URL-safe base64: {shown(encoded)}")
    try:
        # Padding that is too much does no harm.
        text = binascii.a2b_base64(encoded.replace("-", "+").replace("_", "/") + "==").decode("utf-8")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise _FaultError(f"{base64_name} cannot be decoded: {error}") from error
    return base64_name, _json(base64_name, text)


def _json(place: str, text: str) -> Any:
    try:
        return _decode_json(text)
    except (ValueError, RecursionError) as error:
        raise _FaultError(f"{place} is not JSON: {error}") from error


def _unwrapped(place: str, envelope: Any, schemas: List[str]) -> Any:
    """Take the data out of an envelope of one of these schemas, or raise a fault."""
    _check_keys(place, envelope)
    if envelope["schema"] not in schemas:
        raise _FaultError(f"The schema of {place} must be {' or '.join(schemas)}, got {shown(envelope['schema'])}")
    return envelope["data"]


def _self_describing(place: str, value: Any) -> SelfDescribingDict:
    """Return an event or an entity as what it is, or raise a fault."""
    _check_keys(place, value)
    schema = value["schema"]
    if not isinstance(schema, str) or not SCHEMA_URI.fullmatch(schema):
        raise _FaultError(
            f"The schema of {place} must be a URI like iglu:vendor/name/jsonschema/1-0-0, got {shown(schema)}"
        )
    return cast(SelfDescribingDict, value)


def _check_keys(place: str, value: Any) -> None:
    if not isinstance(value, dict) or value.keys() != _SELF_DESCRIBING_KEYS:
        raise _FaultError(f"There must be schema and data in {place}, and nothing else, got {shown(value)}")
