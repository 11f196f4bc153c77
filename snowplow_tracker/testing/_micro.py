"""The REST API of Snowplow Micro: what it answers about the events that arrived, and to which questions."""

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple
from urllib.parse import parse_qs, urlsplit

from .._json import EncodingError, encode_readable_json
from .._shown import shown
from .._version import __version__
from ..constants import CONTEXT_SCHEMA, UNSTRUCT_EVENT_SCHEMA
from ._collected import BadEvent, CollectedRequest, GoodEvent
from ._enriched import url_fields
from ._event_log import EventLog
from ._http_server import Answer, BodyTooLargeError, IncomingRequest

__all__ = ["MicroApi", "Routes", "iso_time", "json_text_answer", "text_answer", "whole_number"]

# Who answers what: by method, and by what the path ends with.
Routes = Dict[Tuple[str, str], Callable[[IncomingRequest], Answer]]

_COLLECTOR_NAME = f"snowplow-python-tracker-{__version__}-local-collector"
_API_VENDOR = "com.snowplowanalytics.snowplow"
_ENCODING = "UTF-8"

# What an enriched event consists of, in the order of the warehouse's columns.
_EVENT_FIELDS = (
    "app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id name_tracker v_tracker"
    " v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid domain_sessionidx network_userid"
    " geo_country geo_region geo_city geo_zipcode geo_latitude geo_longitude geo_region_name"
    " ip_isp ip_organization ip_domain ip_netspeed page_url page_title page_referrer"
    " page_urlscheme page_urlhost page_urlport page_urlpath page_urlquery page_urlfragment"
    " refr_urlscheme refr_urlhost refr_urlport refr_urlpath refr_urlquery refr_urlfragment"
    " refr_medium refr_source refr_term mkt_medium mkt_source mkt_term mkt_content mkt_campaign"
    " contexts se_category se_action se_label se_property se_value unstruct_event"
    " tr_orderid tr_affiliation tr_total tr_tax tr_shipping tr_city tr_state tr_country"
    " ti_orderid ti_sku ti_name ti_category ti_price ti_quantity"
    " pp_xoffset_min pp_xoffset_max pp_yoffset_min pp_yoffset_max"
    " useragent br_name br_family br_version br_type br_renderengine br_lang br_features_pdf br_features_flash"
    " br_features_java br_features_director br_features_quicktime br_features_realplayer br_features_windowsmedia"
    " br_features_gears br_features_silverlight br_cookies br_colordepth br_viewwidth br_viewheight"
    " os_name os_family os_manufacturer os_timezone dvce_type dvce_ismobile dvce_screenwidth dvce_screenheight"
    " doc_charset doc_width doc_height tr_currency tr_total_base tr_tax_base tr_shipping_base"
    " ti_currency ti_price_base base_currency geo_timezone mkt_clickid mkt_network etl_tags dvce_sent_tstamp"
    " refr_domain_userid refr_dvce_tstamp derived_contexts domain_sessionid derived_tstamp"
    " event_vendor event_name event_format event_version event_fingerprint true_tstamp"
).split()

# Stands for the request of an event that no request brought.
_NO_REQUEST = CollectedRequest(
    method="", path="", query={}, headers={}, body=b"", payloads=[], status=0, connection=0, received_at=0, timestamp=0
)


class MicroApi:
    """Answers at `/micro/all`, `/micro/good`, `/micro/bad` and `/micro/reset`, to GET and POST alike."""

    def __init__(self, events: EventLog, reset: Callable[[], None]) -> None:
        """Answer about one log.

        Args:
            events: What the answers are about.
            reset: Forgets the events, those in the log included.
        """
        self._events = events
        self._reset = reset

    def routes(self) -> Routes:
        handlers = {
            "/micro/all": self._respond_to_all,
            "/micro/good": self._respond_to_good,
            "/micro/bad": self._respond_to_bad,
            "/micro/reset": self._respond_to_reset,
        }
        return {(method, path): handle for path, handle in handlers.items() for method in ("GET", "POST")}

    def _respond_to_all(self, _: IncomingRequest) -> Answer:
        good, bad = self._events.counts()
        return json_text_answer(encode_readable_json({"total": good + bad, "good": good, "bad": bad}, "answer"))

    def _respond_to_reset(self, request: IncomingRequest) -> Answer:
        self._reset()
        return self._respond_to_all(request)

    def _respond_to_good(self, request: IncomingRequest) -> Answer:
        return _filtered(
            request,
            ("event_type", "schema", "contexts", "limit"),
            lambda filters: map(_good_item, filter(filters.allow_good, reversed(self._events.good()))),
        )

    def _respond_to_bad(self, request: IncomingRequest) -> Answer:
        return _filtered(
            request,
            ("vendor", "version", "limit"),
            lambda filters: _bad_items(filter(filters.allow_bad, reversed(self._events.bad()))),
        )


@dataclass(frozen=True)
class _Filters:
    """Which events are asked for; None asks for any."""

    event_type: Optional[str] = None
    schema: Optional[str] = None
    contexts: Optional[List[str]] = None
    vendor: Optional[str] = None
    version: Optional[str] = None
    limit: Optional[int] = None

    def allow_good(self, event: GoodEvent) -> bool:
        return (
            self.event_type in (None, event.event_type)
            and self.schema in (None, event.schema)
            and set(self.contexts or ()) <= set(_context_schemas(event))
        )

    def allow_bad(self, event: BadEvent) -> bool:
        api = _api(event.request or _NO_REQUEST)
        return self.vendor in (None, api["vendor"]) and self.version in (None, api["version"])


def json_text_answer(text: str) -> Answer:
    """Answer with JSON in ASCII, which is not to be kept by anybody."""
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Answer(headers=headers, body=text.encode("ascii"))


def text_answer(status: int, text: str) -> Answer:
    """Answer with a sentence."""
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    return Answer(status, headers=headers, body=f"{text}\n".encode("utf-8", "backslashreplace"))


def whole_number(name: str, value: Any) -> int:
    """Read a number from JSON or from text.

    Raises:
        ValueError: If it is none, or is negative.
    """
    with suppress(ValueError):
        number = int(value) if isinstance(value, str) else value
        if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
            # More than there can be is as good as all.
            return min(number, sys.maxsize)
    raise ValueError(f"{name} must be a whole number, 0 or more, got {shown(value)}")


def iso_time(seconds: float) -> str:
    """Write a time since 1970 the way that collectors do: UTC, with milliseconds."""
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _filtered(
    request: IncomingRequest, names: Tuple[str, ...], find: Callable[[_Filters], Iterable[Dict[str, Any]]]
) -> Answer:
    try:
        filters = _read_filters(request, names)
    except ValueError as error:
        return text_answer(400, str(error))
    except BodyTooLargeError:
        return text_answer(413, "the filters are too large")
    texts = ", ".join(map(_item_text, islice(find(filters), filters.limit)))
    return json_text_answer(f"[{texts}]")


def _item_text(item: Dict[str, Any]) -> str:
    try:
        return encode_readable_json(item, "event")
    except EncodingError as error:
        # It is nested deeper than can be written, though it could be read. The others are to be seen all the same.
        hidden = {name: None for name in ("rawEvent", "event") if name in item}
        errors = [*item.get("errors", []), f"This event cannot be shown: {error}"]
        return encode_readable_json({**item, **hidden, "errors": errors}, "event")


def _read_filters(request: IncomingRequest, names: Tuple[str, ...]) -> _Filters:
    """Read the body of a POST or the query of a GET.

    Raises:
        ValueError: If it is not what it should be. The message goes to the client.
        BodyTooLargeError: If the body is.
    """
    given = _body_filters(request.body()) if request.method == "POST" else _query_filters(request.query_string)
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ValueError(f"there is no filter {shown(unknown[0])}, but there are {', '.join(names)}")
    filters = {name: _filter_value(name, value) for name, value in given.items() if value is not None}
    return _Filters(**filters)


def _body_filters(body: bytes) -> Dict[str, Any]:
    if not body.strip():
        return {}
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the filters are not JSON: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"the filters must be a JSON object, got {shown(given)}")
    return given


def _query_filters(query_string: str) -> Dict[str, Any]:
    given = parse_qs(query_string, keep_blank_values=True)
    filters: Dict[str, Any] = {name: values[-1] for name, values in given.items()}
    if "contexts" in given:
        filters["contexts"] = [uri for value in given["contexts"] for uri in value.split(",") if uri]
    return filters


def _filter_value(name: str, value: Any) -> Any:
    if name == "limit":
        return whole_number(name, value)
    if name == "contexts":
        if not isinstance(value, list) or not all(isinstance(uri, str) for uri in value):
            raise ValueError(f"{name} must be a list of strings, got {shown(value)}")
    elif not isinstance(value, str):
        raise ValueError(f"{name} must be a string, got {shown(value)}")
    return value


def _good_item(event: GoodEvent) -> Dict[str, Any]:
    request = event.request or _NO_REQUEST
    return {
        "rawEvent": _raw_event(event.payload, request),
        "eventType": event.event_type,
        "schema": event.schema,
        "contexts": _context_schemas(event),
        "event": _enriched(event, request),
    }


def _bad_items(events: Iterable[BadEvent]) -> Iterator[Dict[str, Any]]:
    """Describe bad events; the body of a request that brought several of them stands in the first one only."""
    described: Set[int] = set()
    for event in events:
        request = event.request or _NO_REQUEST
        yield _bad_item(event, request, request.body if id(request) not in described else b"")
        described.add(id(request))


def _bad_item(event: BadEvent, request: CollectedRequest, body: bytes) -> Dict[str, Any]:
    return {
        "collectorPayload": {
            "api": _api(request),
            "querystring": [{"name": name, "value": value} for name, value in request.query.items()],
            "contentType": request.headers.get("content-type"),
            "body": body.decode("utf-8", "replace") or None,
            "source": _source(request),
            "context": _context(request),
        },
        "rawEvent": None if event.payload is None else _raw_event(event.payload, request),
        "errors": event.errors,
    }


def _raw_event(payload: Any, request: CollectedRequest) -> Dict[str, Any]:
    return {
        "api": _api(request),
        "parameters": payload,
        "contentType": request.headers.get("content-type"),
        "source": _source(request),
        "context": _context(request),
    }


def _api(request: CollectedRequest) -> Dict[str, str]:
    # What comes by GET has no path of its own; the pipeline takes it for the first version of the protocol.
    return {"vendor": _API_VENDOR, "version": "tp2" if request.method == "POST" else "tp1"}


def _source(request: CollectedRequest) -> Dict[str, Any]:
    return {"name": _COLLECTOR_NAME, "encoding": _ENCODING, "hostname": _host_name(request.headers.get("host", ""))}


def _host_name(host: str) -> Optional[str]:
    with suppress(ValueError):
        return urlsplit(f"//{host}").hostname
    return None


def _context(request: CollectedRequest) -> Dict[str, Any]:
    return {
        "timestamp": iso_time(request.timestamp),
        "ipAddress": _ip_address(request),
        "useragent": request.headers.get("user-agent"),
        "refererUri": request.headers.get("referer"),
        "headers": [f"{name.title()}: {value}" for name, value in request.headers.items()],
        "userId": None,
    }


def _ip_address(request: CollectedRequest) -> Optional[str]:
    forwarded = request.headers.get("x-forwarded-for", "").partition(",")[0].strip()
    return forwarded or request.ip_address or None


def _context_schemas(event: GoodEvent) -> List[Any]:
    return [context["schema"] for context in event.contexts]


def _enriched(event: GoodEvent, request: CollectedRequest) -> Dict[str, Any]:
    """Tell what of an enriched event is known without enrichments; the rest is None."""
    known = {
        "collector_tstamp": iso_time(request.timestamp),
        "v_collector": _COLLECTOR_NAME,
        "user_ipaddress": _ip_address(request),
        "useragent": request.headers.get("user-agent"),
        **event.fields,
    }
    known.update(url_fields(event.fields))
    if event.event_type == "unstruct":
        described = {"schema": event.schema, "data": event.data}
        known["unstruct_event"] = {"schema": UNSTRUCT_EVENT_SCHEMA, "data": described}
    if event.contexts:
        known["contexts"] = {"schema": CONTEXT_SCHEMA, "data": event.contexts}
    return {name: known.get(name) for name in _EVENT_FIELDS}
