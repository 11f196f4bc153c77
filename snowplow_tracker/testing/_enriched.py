"""What the fields of a payload are called in the warehouse, and how their texts are read."""

import math
import re
from datetime import datetime, timedelta
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from .._shown import shown
from ..constants import BASE_SCHEMA_PATH, SCHEMA_TAG
from ..typing import SUPPORTED_PLATFORMS, PayloadDict

__all__ = [
    "EVENT_SCHEMAS",
    "EVENT_TYPES",
    "FIELD_NAMES",
    "URL_FIELD_NAMES",
    "enriched_fields",
    "schema_fields",
    "url_fields",
]

# By what `e` says.
EVENT_TYPES = {
    "pv": "page_view",
    "pp": "page_ping",
    "se": "struct",
    "ue": "unstruct",
    "tr": "transaction",
    "ti": "transaction_item",
}

# A pipeline names these for the types of event that bring no schema along.
EVENT_SCHEMAS = {
    "struct": f"iglu:com.google.analytics/event/{SCHEMA_TAG}/1-0-0",
    **{
        event_type: f"{BASE_SCHEMA_PATH}/{event_type}/{SCHEMA_TAG}/1-0-0"
        for event_type in ("page_view", "page_ping", "transaction", "transaction_item")
    },
}

_PLATFORMS = {*SUPPORTED_PLATFORMS, "headset"}
_EPOCH = datetime(1970, 1, 1)
# Longer numbers are out of range, whatever they are, and Python may refuse to read them.
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?")
_SIZE = re.compile(r"([0-9]{1,18})x([0-9]{1,18})")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MAX_INTEGER = 2**31 - 1


class _Kind(NamedTuple):
    """How a text is read.

    Attributes:
        description: What the text has to be.
        read: Returns what the text means, None if it means nothing.
    """

    description: str
    read: Callable[[str], Optional[Any]]


def _read_uuid(text: str) -> Optional[str]:
    return text.lower() if _UUID.fullmatch(text) else None


def _read_timestamp(text: str) -> Optional[str]:
    if not _INTEGER.fullmatch(text):
        return None
    try:
        moment = _EPOCH + timedelta(milliseconds=int(text))
    except OverflowError:
        return None
    return f"{moment.isoformat(timespec='milliseconds')}Z"


def _read_integer(text: str) -> Optional[int]:
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if -_MAX_INTEGER - 1 <= number <= _MAX_INTEGER else None


def _read_number(text: str) -> Optional[float]:
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _read_size(text: str) -> Optional[Tuple[int, int]]:
    match = _SIZE.fullmatch(text)
    if not match:
        return None
    width, height = int(match.group(1)), int(match.group(2))
    return (width, height) if width <= _MAX_INTEGER and height <= _MAX_INTEGER else None


def _read_platform(text: str) -> Optional[str]:
    return text if text in _PLATFORMS else None


_EVENT_TYPE = _Kind(f"one of {', '.join(EVENT_TYPES)}", EVENT_TYPES.get)
_PLATFORM = _Kind(f"one of {', '.join(sorted(_PLATFORMS))}", _read_platform)
_UUID_TEXT = _Kind("a UUID", _read_uuid)
_TIMESTAMP = _Kind("milliseconds since 1970 as an integer, up to the year 9999", _read_timestamp)
_INTEGER_TEXT = _Kind("an integer of 32 bits", _read_integer)
_NUMBER_TEXT = _Kind("a number", _read_number)
_BOOLEAN = _Kind("1 or 0", {"1": True, "0": False}.get)
_SIZE_TEXT = _Kind("a width and a height such as 1024x768", _read_size)

_TEXT_FIELDS = {
    "aid": "app_id",
    "cd": "br_colordepth",
    "cs": "doc_charset",
    "duid": "domain_userid",
    "fp": "user_fingerprint",
    "ip": "user_ipaddress",
    "lang": "br_lang",
    "nuid": "network_userid",
    "page": "page_title",
    "refr": "page_referrer",
    "se_ac": "se_action",
    "se_ca": "se_category",
    "se_la": "se_label",
    "se_pr": "se_property",
    "ti_ca": "ti_category",
    "ti_cu": "ti_currency",
    "ti_id": "ti_orderid",
    "ti_na": "ti_name",
    "ti_nm": "ti_name",
    "ti_sk": "ti_sku",
    "tna": "name_tracker",
    "tr_af": "tr_affiliation",
    "tr_ci": "tr_city",
    "tr_co": "tr_country",
    "tr_cu": "tr_currency",
    "tr_id": "tr_orderid",
    "tr_st": "tr_state",
    "tv": "v_tracker",
    "tz": "os_timezone",
    "ua": "useragent",
    "uid": "user_id",
    "url": "page_url",
}
_READ_FIELDS: Dict[str, Tuple[str, _Kind]] = {
    "cookie": ("br_cookies", _BOOLEAN),
    "dtm": ("dvce_created_tstamp", _TIMESTAMP),
    "e": ("event", _EVENT_TYPE),
    "eid": ("event_id", _UUID_TEXT),
    "f_ag": ("br_features_silverlight", _BOOLEAN),
    "f_dir": ("br_features_director", _BOOLEAN),
    "f_fla": ("br_features_flash", _BOOLEAN),
    "f_gears": ("br_features_gears", _BOOLEAN),
    "f_java": ("br_features_java", _BOOLEAN),
    "f_pdf": ("br_features_pdf", _BOOLEAN),
    "f_qt": ("br_features_quicktime", _BOOLEAN),
    "f_realp": ("br_features_realplayer", _BOOLEAN),
    "f_wma": ("br_features_windowsmedia", _BOOLEAN),
    "p": ("platform", _PLATFORM),
    "pp_max": ("pp_xoffset_max", _INTEGER_TEXT),
    "pp_may": ("pp_yoffset_max", _INTEGER_TEXT),
    "pp_mix": ("pp_xoffset_min", _INTEGER_TEXT),
    "pp_miy": ("pp_yoffset_min", _INTEGER_TEXT),
    "se_va": ("se_value", _NUMBER_TEXT),
    "sid": ("domain_sessionid", _UUID_TEXT),
    "stm": ("dvce_sent_tstamp", _TIMESTAMP),
    "ti_pr": ("ti_price", _NUMBER_TEXT),
    "ti_qu": ("ti_quantity", _INTEGER_TEXT),
    "tid": ("txn_id", _INTEGER_TEXT),
    "tr_sh": ("tr_shipping", _NUMBER_TEXT),
    "tr_tt": ("tr_total", _NUMBER_TEXT),
    "tr_tx": ("tr_tax", _NUMBER_TEXT),
    "ttm": ("true_tstamp", _TIMESTAMP),
    "vid": ("domain_sessionidx", _INTEGER_TEXT),
}
_SIZE_FIELDS = {
    "ds": ("doc_width", "doc_height"),
    "res": ("dvce_screenwidth", "dvce_screenheight"),
    "vp": ("br_viewwidth", "br_viewheight"),
}
_SCHEMA_FIELDS = ("event_vendor", "event_name", "event_format", "event_version")

# By what the names of their parts begin with.
_URL_FIELDS = {"page_url": "page_url", "refr_url": "page_referrer"}
_URL_PARTS = ("scheme", "host", "port", "path", "query", "fragment")
_DEFAULT_PORTS = {"http": 80, "https": 443}

# All that an event's fields may be called.
FIELD_NAMES: FrozenSet[str] = frozenset(
    [
        *_TEXT_FIELDS.values(),
        *(column for column, _ in _READ_FIELDS.values()),
        *(column for columns in _SIZE_FIELDS.values() for column in columns),
        *_SCHEMA_FIELDS,
    ]
)

# What a pipeline makes of them besides.
URL_FIELD_NAMES: FrozenSet[str] = frozenset(f"{prefix}{part}" for prefix in _URL_FIELDS for part in _URL_PARTS)


def enriched_fields(payload: PayloadDict) -> Tuple[Dict[str, Any], List[str]]:
    """Read the fields of a payload of texts.

    Timestamps become texts such as `2024-02-29T12:00:00.000Z`, other fields what their columns hold. Names without a
    column, such as those of envelopes, are passed over.

    Returns:
        The fields by their names in the warehouse, and a sentence for each that cannot be read.
    """
    fields: Dict[str, Any] = {}
    errors: List[str] = []
    for name, text in payload.items():
        column = _TEXT_FIELDS.get(name)
        if column is not None:
            fields[column] = text
        elif name in _READ_FIELDS:
            column, kind = _READ_FIELDS[name]
            value = kind.read(text)
            if value is None:
                errors.append(_complaint(name, kind, text))
            else:
                fields[column] = value
        elif name in _SIZE_FIELDS:
            size = _read_size(text)
            if size is None:
                errors.append(_complaint(name, _SIZE_TEXT, text))
            else:
                fields.update(zip(_SIZE_FIELDS[name], size))
    # The tracker's network user id is there to override the one that a collector's cookie brought.
    if "tnuid" in payload:
        fields["network_userid"] = payload["tnuid"]
    return fields, errors


def schema_fields(schema: str) -> Dict[str, str]:
    """Take the complete `iglu:` URI of an event's schema apart, into the fields that a warehouse has for it."""
    return dict(zip(_SCHEMA_FIELDS, schema[len("iglu:") :].split("/")))


def url_fields(fields: Mapping[str, Any]) -> Dict[str, Any]:
    """Take the URLs of an event's fields apart, into the fields that a warehouse has for their parts."""
    return {
        f"{prefix}{part}": value
        for prefix, name in _URL_FIELDS.items()
        for part, value in _url_parts(fields.get(name, "")).items()
        if value
    }


def _url_parts(url: str) -> Dict[str, Any]:
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return {}
    return dict(zip(_URL_PARTS, (parts.scheme, parts.hostname, port, parts.path, parts.query, parts.fragment)))


def _complaint(name: str, kind: _Kind, text: str) -> str:
    return f"{name} must be {kind.description}, got {shown(text)}"
