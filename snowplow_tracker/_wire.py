"""What payloads look like on the wire: their values, their encoding in a request, and how many bytes that takes."""

import json
from typing import Any, Callable, List, NamedTuple
from urllib.parse import urlencode

from ._json import encode_json
from .typing import Method, PayloadDict, PayloadDictList

__all__ = [
    "MAX_GET_URL_CHARACTERS",
    "PAYLOAD_DATA_SCHEMA",
    "PostRequest",
    "cut_post_request",
    "estimated_bytes",
    "fitting_count",
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

# ASCII only: no proxy and no `http_post` override can misread it.
_encode: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), default=str).encode
_UNENCODABLE = (TypeError, ValueError, RecursionError)


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

    `None` is left out, bools become `true` and `false`, dicts and lists become JSON. For POST everything else becomes
    a string, as the schema of the request demands; in a GET it becomes one in the URL, which has no lone surrogates:
    they become question marks.

    Raises:
        TypeError: A dict or list cannot be encoded as JSON.
    """
    to_text = method == "post"
    wire = {
        name if type(name) is str else str(name): value if type(value) is str else _wire_value(name, value, to_text)
        for name, value in payload.items()
        if value is not None
    }
    return wire if to_text else {name: _utf8(value) for name, value in wire.items()}


def query_string(payload: PayloadDict) -> str:
    """Encode a payload as it stands in the URL of a GET request."""
    return urlencode(payload, errors="replace")


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
    for payload in candidates:
        try:
            text = _encode(payload)
        except _UNENCODABLE:
            unencodable.append(payload)
            continue
        room -= len(text) + 1
        if room < 0 and texts:
            break
        texts.append(text)
        payloads.append(payload)
    return PostRequest(payloads, _BODY_START + ",".join(texts) + _BODY_END, unencodable)


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
    if method == "post":
        try:
            text = _encode(payload)
        except _UNENCODABLE:
            # The request will pass it over.
            return 0
        return len(text) + 1 + (0 if "stm" in payload else _STM_IN_BODY)
    return len(query_string(payload)) + 1 + (0 if "stm" in payload else _STM_IN_QUERY)


def estimated_bytes(payload: PayloadDict) -> int:
    """Estimate the size of a payload in a POST body in a fraction of the time that it takes to encode it.

    Exact for ASCII text without quotes, too small for everything else.
    """
    size = 2 if "stm" in payload else 2 + _STM_IN_BODY
    for name, value in list(payload.items()):
        # Quotes, colon and comma. The 2 are the braces; the comma after them is the one that the last field lacks.
        size += len(name) + len(value) + 6 if type(name) is type(value) is str else 6
    return size


def _wire_value(name: str, value: Any, to_text: bool) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple)):
        return encode_json(value, name)
    if isinstance(value, str):
        # What a subclass such as an enum prints of itself is not its value.
        return str.__str__(value)
    return str(value) if to_text else value


def _utf8(value: Any) -> Any:
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", "replace").decode("utf-8")
