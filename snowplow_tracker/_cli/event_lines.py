"""One readable line for each event that a collector took."""

import json
import time
from typing import Any, Dict, List, Optional

from ..testing import BadEvent, GoodEvent
from ..testing._enriched import EVENT_TYPES
from ..testing._pipeline import JudgedEvent

__all__ = ["event_line"]

_MAIN_FIELDS = {
    "page_view": ["url", "page"],
    "page_ping": ["url"],
    "struct": ["se_ca", "se_ac", "se_la", "se_pr", "se_va"],
    "transaction": ["tr_id", "tr_tt"],
    "transaction_item": ["ti_id", "ti_sk", "ti_pr"],
}
# Enough to see what it is; the rest is in the page at /micro/ui.
_MAX_CHARACTERS = 160

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event_line(event: JudgedEvent) -> str:
    """Describe an event: when it came, whether it is good, its type, what matters of it, where it is from.

    What comes from the event itself is cut, and has no control characters that could play tricks on a terminal.
    """
    payload = event.payload if isinstance(event.payload, dict) else {}
    parts = [_time_of(event), "good" if isinstance(event, GoodEvent) else "BAD ", *_about(event, payload)]
    parts += [
        f"{label}={_printable(payload[name])}" for label, name in (("app", "aid"), ("ns", "tna")) if payload.get(name)
    ]
    if isinstance(event, BadEvent):
        more = len(event.errors) - 1
        parts.append(f"-- {_printable(event.errors[0], 2 * _MAX_CHARACTERS)}{f' (and {more} more)' if more else ''}")
    return "  ".join(parts)


def _time_of(event: JudgedEvent) -> str:
    seconds = time.time() if event.request is None else event.request.timestamp
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _about(event: JudgedEvent, payload: Dict[str, Any]) -> List[str]:
    """Give the type of the event, and what matters of it."""
    if isinstance(event, GoodEvent) and event.event_type == "unstruct":
        vendor, name, _, version = event.schema[len("iglu:") :].split("/")
        return [f"{'unstruct':16}", _printable(f"{vendor}/{name}/{version}"), _printable(_json_of(event.data))]
    if not payload:
        request = event.request
        return [f"{'no payload':16}"] + ([] if request is None else [_printable(f"{request.method} {request.path}")])
    event_type = event.event_type if isinstance(event, GoodEvent) else _type_of(payload)
    fields = [_printable(payload[name]) for name in _MAIN_FIELDS.get(event_type, []) if payload.get(name)]
    return [f"{event_type:16}", *fields]


def _json_of(data: Any) -> str:
    try:
        return _encode(data)
    except RecursionError:
        return "(nested too deeply)"


def _type_of(payload: Dict[str, Any]) -> str:
    named: Optional[Any] = payload.get("e")
    known = EVENT_TYPES.get(named) if isinstance(named, str) else None
    return known or _printable(f"e={named}")


def _printable(value: Any, limit: int = _MAX_CHARACTERS) -> str:
    text = value if isinstance(value, str) else str(value)
    if len(text) > limit:
        text = f"{text[:limit]}..."
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
