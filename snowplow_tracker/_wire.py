"""What payloads look like on the wire: their values, their encoding in a request, and how many bytes that takes."""

import contextlib
import json
from typing import Any, Callable, Dict, List, NamedTuple
from urllib.parse import urlencode

import requests

from ._json import EncodingError, encode_json, plain
from ._shown import shown
from .typing import Method, PayloadDict, PayloadDictList

__all__ = [
    "MAX_GET_URL_CHARACTERS",
    "PAYLOAD_DATA_SCHEMA",
    "PostRequest",
    "adapt",
    "cut_post_request",
    "estimated_bytes",
    "fitting_count",
    "is_plain",
    "query_characters",
    "query_string",
    "request_overhead_bytes",
    "wire_bytes",
    "wire_payload",
]

PAYLOAD_DATA_SCHEMA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
# Collectors answer 400 to a longer request line.
MAX_GET_URL_CHARACTERS = 20_480

_BODY_START = f'{{"schema":"{PAYLOAD_DATA_SCHEMA}","data":['
_BODY_END = "]}"
_STM_IN_BODY = len(',"stm":"1234567890123"')
_STM_IN_QUERY = len("&stm=1234567890123")

# ASCII only: no proxy and no `http_post` override can misread it. NaN is no JSON, and would spoil the whole request.
_encode: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), default=str, allow_nan=False).encode

_NUMBERS = {int, float}
_PLAIN = {str, *_NUMBERS}

# What these, and subclasses such as enums, print of themselves is not their value.
_TEXT_OF: Dict[type, Callable[[Any], str]] = {
    str: str.__str__,
    bool: bool.__repr__,
    int: int.__repr__,
    float: float.__repr__,
    bytes: plain,
    bytearray: plain,
}


class PostRequest(NamedTuple):
    """One POST request.

    Attributes:
        payloads: What it carries.
        body: The same, encoded.
        unencodable: Payloads that were passed over, because no JSON can hold them.
    """

    payloads: PayloadDictList
    body: str
    unencodable: PayloadDictList


def wire_payload(payload: PayloadDict, method: Method) -> PayloadDict:
    """Copy a payload with values that the collector can read.

    `None` is left out, bools become `true` and `false`, dicts and lists become JSON, and everything else a string, as
    the schema of a POST demands. In a GET numbers are kept, and lone surrogates, which no URL has, become question
    marks.

    Raises:
        TypeError: It is no dict, or a dict or list in it cannot be encoded as JSON, or another value or name not be
            printed.
    """
    if not isinstance(payload, dict):
        raise TypeError(f"payload must be a dict, got {shown(payload)}")
    wire = {
        name if type(name) is str else _text("a name in the payload", name): value
        if type(value) is str
        else _wire_value(name, value, method)
        for name, value in payload.items()
        if value is not None
    }
    return wire if method == "post" else {_utf8(name): _utf8(value) for name, value in wire.items()}


def adapt(payload: PayloadDict, method: Method) -> None:
    """Give a payload, in place, the values of this method: it may have been accepted for the other one.

    So it is after an emitter's method was changed, and in a store that emitters of both methods use.
    """
    # Nearly always there is nothing to do, which is told in C.
    if method == "post" and _NUMBERS.isdisjoint(map(type, payload.values())):
        return
    for name, value in list(payload.items()):
        if method == "get":
            if type(value) is str:
                payload[name] = _utf8(value)
            if type(name) is str and _utf8(name) != name:
                payload[_utf8(name)] = payload.pop(name)
        elif type(value) in _NUMBERS:
            # No encoding will take a number that has no text, either.
            with contextlib.suppress(EncodingError):
                payload[name] = _text(name, value)


def query_string(payload: PayloadDict) -> str:
    """Encode a payload as it stands in the URL of a GET request."""
    return urlencode(payload, errors="replace")


def query_characters(payload: PayloadDict, at_least: int) -> int:
    """Count the characters of a GET request's query, or say 0 if there are surely less than it takes to be of interest.

    Raises whatever the sending of the request would raise.
    """
    if not is_plain(payload):
        # Only what the application passes to `send_events` itself gets here, so it may be anything.
        url = requests.Request("GET", "http://localhost/", params=payload).prepare().url or ""
        return len(url.partition("?")[2])
    # Each of these characters makes three at the most, and joining them is much cheaper than encoding them.
    text = "".join(payload) + "".join(map(str, payload.values()))
    if text.isascii() and len("%20") * len(text) + len("=&") * len(payload) < at_least:
        return 0
    return len(urlencode(payload))


def is_plain(payload: Any) -> bool:
    """Tell whether something is a dict of strings and numbers only, which are what they look like."""
    return isinstance(payload, dict) and all(
        type(name) is str and type(value) in _PLAIN for name, value in payload.items()
    )


def cut_post_request(batch: PayloadDictList, max_bytes: int, stamp: Callable[[PayloadDictList], None]) -> PostRequest:
    """Encode one request: as many payloads as fit, but at least one.

    Args:
        batch: Payloads in the order to send them.
        max_bytes: The body's limit. A single payload that is larger gets a request of its own.
        stamp: Puts the sent timestamp into payloads; called once, with those that may fit.
    """
    texts: List[str] = []
    payloads: PayloadDictList = []
    unencodable: PayloadDictList = []
    room = max_bytes - len(_BODY_START) - len(_BODY_END) + 1
    candidates = batch[: fitting_count(batch, max_bytes)]
    stamp(candidates)
    body = _whole_body(candidates)
    if body and len(body) <= max_bytes:
        return PostRequest(candidates, body, [])
    for payload in candidates:
        try:
            text = _encode(payload)
        except Exception:
            # Only what was not put in by `wire_payload` gets here, so it may be anything, with any error of its own.
            unencodable.append(payload)
            continue
        room -= len(text) + 1
        if room < 0 and texts:
            break
        texts.append(text)
        payloads.append(payload)
    return PostRequest(payloads, _BODY_START + ",".join(texts) + _BODY_END, unencodable)


def _whole_body(payloads: PayloadDictList) -> str:
    """Encode all payloads at once, which is cheaper than one by one; empty if one of them cannot be encoded."""
    try:
        return f"{_BODY_START}{_encode(payloads)[1:-1]}{_BODY_END}"
    except Exception:
        return ""


def fitting_count(batch: PayloadDictList, max_bytes: int) -> int:
    """Estimate how many of the first payloads make one POST request: never too few, and 1 if there is but one.

    Nothing is locked meanwhile, so a payload may get its sent timestamp in another thread.
    """
    room = max_bytes - len(_BODY_START) - len(_BODY_END) + 1
    count = 0
    for payload in batch:
        room -= estimated_bytes(payload)
        if room < 0 and count:
            break
        count += 1
    return count


def request_overhead_bytes(method: Method) -> int:
    """Count the bytes of a request that do not depend on its payloads."""
    # One payload comes without a comma before it, or without an ampersand.
    return len(_BODY_START) + len(_BODY_END) - 1 if method == "post" else len("/i?") - 1


def wire_bytes(payload: PayloadDict, method: Method) -> int:
    """Count the bytes that a payload will add to a request, with the sent timestamp that it may not have yet."""
    is_post = method == "post"
    try:
        text = _encode(payload) if is_post else query_string(payload)
    except Exception:
        # The request will pass it over.
        return 0
    stm = _STM_IN_BODY if is_post else _STM_IN_QUERY
    return len(text) + 1 + (0 if "stm" in payload else stm)


def estimated_bytes(payload: PayloadDict) -> int:
    """Estimate the size of a payload in a POST body in a fraction of the time that it takes to encode it.

    Exact for ASCII text without quotes, too small for everything else.
    """
    # Quotes, colon and comma. The 2 are the braces; the comma after them is the one that the last field lacks.
    size = 6 * len(payload) + (2 if "stm" in payload else 2 + _STM_IN_BODY)
    try:
        # Joined in C. Nothing in a loop of Python's is as fast as that.
        return size + len("".join(payload)) + len("".join(payload.values()))
    except TypeError:
        # Only what was not put in by `wire_payload` gets here.
        return size + sum(len(part) for pair in list(payload.items()) for part in pair if type(part) is str)


def _wire_value(name: Any, value: Any, method: Method) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple)):
        return encode_json(value, shown(name, str))
    text = _text(name, value)
    return value if method == "get" and type(value) in (int, float) else text


def _text(name: Any, value: Any) -> str:
    text_of = _TEXT_OF.get(type(value)) or next(
        (text_of for kind, text_of in _TEXT_OF.items() if isinstance(value, kind)), str
    )
    try:
        return text_of(value)
    except Exception as error:
        raise EncodingError(f"{shown(name, str)} cannot be sent as text: {shown(error, str)}") from error


def _utf8(value: Any) -> Any:
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", "replace").decode("utf-8")
