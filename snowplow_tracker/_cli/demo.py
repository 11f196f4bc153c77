"""A demonstration: events tracked in every way, an outage among them, and a table of what arrived."""

import base64
import contextlib
import json
from typing import Any, Dict, Iterator, List, Optional, Tuple, Type

from ..emitter_configuration import EmitterConfiguration
from ..emitters import AsyncEmitter, Emitter
from ..events import Event, PagePing, PageView, ScreenView, SelfDescribing, StructuredEvent
from ..self_describing_json import SelfDescribingJson
from ..snowplow import Snowplow
from ..testing import LocalCollector
from ..tracker import Tracker
from ..typing import Method, PayloadDict, PayloadDictList
from .proxy import no_proxy_before
from .usage import add_command

__all__ = ["add_to", "demo", "rehearse"]

# Far longer than anything here takes; only a machine that is stuck gets there.
_PATIENCE_SECONDS = 10.0
_RETRY_DELAY_SECONDS = 0.1
_REQUESTS_DURING_OUTAGE = 3

_EVENT_TYPES = {"pv": "page view", "pp": "page ping", "se": "structured event", "ue": "self-describing"}
_MAIN_FIELDS = ("url", "page", "pp_miy", "pp_may", "se_ca", "se_ac", "se_la", "se_va")


def add_to(commands: Any) -> None:
    """Add this command to those of the program."""
    add_command(
        commands,
        "demo",
        summary="track events to a collector of its own, and show them",
        description="Start a collector on 127.0.0.1, track one event of each type by POST, by GET, through an\n"
        "AsyncEmitter and through an outage, and print what arrived. Takes a few seconds, and\nuses no other network.",
        epilog="The exit code is 0 if each event that was tracked arrived, else 1.\n\n"
        "example:\n  snowplow-tracker demo",
        command=lambda _: demo(),
    )


def demo() -> int:
    """Rehearse with a collector of its own.

    Returns:
        The exit code of a process: 0 if each event that was tracked arrived, else 1.
    """
    with LocalCollector() as collector, no_proxy_before(collector.url):
        return rehearse(collector)


def rehearse(collector: LocalCollector) -> int:
    """Track events, print those that this collector accepted, and then how many were tracked, delivered and lost.

    Returns:
        0 if none was lost, else 1.
    """
    print(f"Tracking to a collector on this machine, at {collector.url}")
    tracked = [
        *_track_at_ease("POST", collector),
        *_track_at_ease("GET", collector, method="get"),
        *_track_at_ease("AsyncEmitter", collector, emitter_class=AsyncEmitter),
        *_track_through_outage("outage", collector),
    ]

    print()
    _print_table(collector.payloads)
    print()
    delivered = set(tracked).intersection(payload["eid"] for payload in collector.payloads)
    lost = len(tracked) - len(delivered)
    print(f"tracked {len(tracked)}, delivered {len(delivered)}, lost {lost}")
    return 1 if lost else 0


def _events() -> List[Event]:
    """Make one event of each type."""
    return [
        PageView(page_url="https://shop.example/cart", page_title="Your cart"),
        PagePing(page_url="https://shop.example/cart", min_y=0, max_y=640),
        ScreenView(id_="7f6bd0ae-6d56-44ad-9b0c-4a0a8f6c1b57", name="cart"),
        SelfDescribing(SelfDescribingJson("iglu:com.example/delivery_choice/jsonschema/1-0-0", {"speed": "express"})),
        StructuredEvent(category="shop", action="add-to-cart", label="green tea", value=2),
    ]


def _track_at_ease(
    way: str, collector: LocalCollector, method: Method = "post", emitter_class: Type[Emitter] = Emitter
) -> List[Optional[str]]:
    with _tracker(way, collector, EmitterConfiguration(), method, emitter_class) as tracker:
        event_ids = [tracker.track(event) for event in _events()]
        tracker.flush()
    return event_ids


def _track_through_outage(way: str, collector: LocalCollector) -> List[Optional[str]]:
    config = EmitterConfiguration(batch_size=1, max_retry_delay_seconds=_RETRY_DELAY_SECONDS)
    with _tracker(way, collector, config) as tracker:
        before = len(collector.requests)
        collector.respond_always(503)
        event_ids = [tracker.track(event) for event in _events()]
        collector.wait_for_requests(before + _REQUESTS_DURING_OUTAGE)
        collector.respond_always(200)
        in_vain = sum(request.status == 503 for request in collector.requests)
        print(f"During an outage, the collector answered {in_vain} requests with status 503; then it recovered")
        tracker.flush(timeout=_PATIENCE_SECONDS)
    return event_ids


@contextlib.contextmanager
def _tracker(
    namespace: str,
    collector: LocalCollector,
    config: EmitterConfiguration,
    method: Method = "post",
    emitter_class: Type[Emitter] = Emitter,
) -> Iterator[Tracker]:
    """Create a tracker as an application does; close it and take it out of the registry in the end."""
    tracker = Snowplow.create_tracker(
        namespace=namespace,
        endpoint=collector.url,
        method=method,
        app_id="demo",
        emitter_config=config,
        emitter_class=emitter_class,
    )
    try:
        yield tracker
    finally:
        Snowplow.remove_tracker(tracker)
        tracker.close(timeout=_PATIENCE_SECONDS)


def _print_table(payloads: PayloadDictList) -> None:
    rows = [("WAY", "EVENT", "MAIN FIELDS"), *(_row(payload) for payload in payloads)]
    way_width, event_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    for way, event_type, fields in rows:
        print(f"{way:<{way_width}}  {event_type:<{event_width}}  {fields}")


def _row(payload: PayloadDict) -> Tuple[str, str, str]:
    event_type = _EVENT_TYPES[payload["e"]]
    fields: Dict[str, Any] = {name: payload[name] for name in _MAIN_FIELDS if name in payload}
    if payload["e"] == "ue":
        event_json = json.loads(base64.urlsafe_b64decode(payload["ue_px"]))["data"]
        schema_name = event_json["schema"].split("/")[1]
        # On the wire, a screen view is a self-describing event like any other.
        event_type = "screen view" if schema_name == "screen_view" else event_type
        fields = {"schema": schema_name, **event_json["data"]}
    # The namespace of the tracker tells the way that its events came.
    return payload["tna"], event_type, ", ".join(f"{name}: {value}" for name, value in fields.items())
