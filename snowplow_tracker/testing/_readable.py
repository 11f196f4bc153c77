"""What can be read of a bad event all the same, to show people which one it is."""

import base64
import json
from typing import Any, Dict

from ._collected import BadEvent
from ._enriched import EVENT_TYPES

__all__ = ["readable_contexts", "readable_event", "readable_type"]


def readable_type(event: BadEvent) -> str:
    """Name the type of the event, or say that there is none to be seen."""
    payload = event.payload if isinstance(event.payload, dict) else {}
    return EVENT_TYPES.get(str(payload.get("e")), "unreadable" if event.payload is None else "unknown")


def readable_event(payload: Dict[str, Any]) -> Any:
    """Get what is in the envelope of a self-describing event; None if nothing can be read."""
    return _decoded(payload, "ue_px", "ue_pr")


def readable_contexts(payload: Dict[str, Any]) -> Any:
    """Get what is in the envelope of the entities; None if nothing can be read."""
    return _decoded(payload, "cx", "co")


def _decoded(payload: Dict[str, Any], base64_name: str, plain_name: str) -> Any:
    try:
        text: Any = payload.get(plain_name)
        if base64_name in payload:
            padded = payload[base64_name] + "=" * (-len(payload[base64_name]) % 4)
            text = base64.urlsafe_b64decode(padded)
        return json.loads(text)["data"]
    except (KeyError, RecursionError, TypeError, ValueError):
        return None
