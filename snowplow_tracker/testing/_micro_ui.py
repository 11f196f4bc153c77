"""The page that shows events as they arrive, and what it asks for."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any, Dict, List, Tuple

from .._json import EncodingError, encode_readable_json
from ._collected import BadEvent, GoodEvent
from ._event_log import EventLog
from ._http_server import Answer, IncomingRequest
from ._micro import Routes, iso_time, json_text_answer, text_answer, whole_number
from ._pipeline import JudgedEvent
from ._readable import readable_contexts, readable_event, readable_type

__all__ = ["MicroPage"]

_PAGE = Path(__file__).resolve().parent / "micro_ui.html"
# What one answer may hold; the page asks again for what is missing.
_MOST_EVENTS = 1000
_MOST_CHARACTERS = 8_000_000
_LONGEST_TEXT = 10_000


class MicroPage:
    """Answers at `/micro/ui`, a page of HTML, and at `/micro/ui/events`, for the script in it."""

    def __init__(self, events: EventLog) -> None:
        """Show the events of a log."""
        self._events = events

    def routes(self) -> Routes:
        return {
            ("GET", "/micro/ui"): self._respond_with_page,
            ("GET", "/micro/ui/events"): self._respond_with_events,
        }

    def _respond_with_page(self, _: IncomingRequest) -> Answer:
        page = _PAGE.read_text(encoding="utf-8")
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Cache-Control": "no-store",
            "Content-Security-Policy": _content_security_policy(page),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        return Answer(headers=headers, body=page.encode("utf-8"))

    def _respond_with_events(self, request: IncomingRequest) -> Answer:
        try:
            bounds = {
                name: whole_number(name, request.query[name])
                for name in ("limit", "after", "before")
                if name in request.query
            }
        except ValueError as error:
            return text_answer(400, str(error))
        limit = min(bounds.pop("limit", _MOST_EVENTS), _MOST_EVENTS)
        # One more than asked for tells whether there is more.
        excerpt = self._events.excerpt(limit + 1, **bounds)
        texts = _fitting_texts(excerpt.events[:limit])
        about = {
            "generation": excerpt.generation,
            "good": excerpt.good,
            "bad": excerpt.bad,
            "oldest": excerpt.oldest,
            "complete": len(texts) == len(excerpt.events),
        }
        return json_text_answer(f'{encode_readable_json(about, "answer")[:-1]}, "events": [{", ".join(texts)}]}}')


def _content_security_policy(page: str) -> str:
    """Allow the page its own style and script, and no others, should an event ever smuggle one in."""
    hashes = {
        tag: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(source.encode('utf-8')).digest()).decode('ascii')}'"
            for source in re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        )
        for tag in ("style", "script")
    }
    return (
        f"default-src 'none'; style-src {hashes['style']}; script-src {hashes['script']}; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _fitting_texts(events: List[Tuple[int, JudgedEvent]]) -> List[str]:
    """Write events as JSON, as many as fit into one answer, but at least one if there is any."""
    texts: List[str] = []
    left = _MOST_CHARACTERS
    for serial, event in events:
        text = _text(serial, event)
        left -= len(text)
        if texts and left < 0:
            break
        texts.append(text)
    return texts


def _text(serial: int, event: JudgedEvent) -> str:
    try:
        return encode_readable_json(_shown_event(serial, event), "event")
    except EncodingError as error:
        # It is nested deeper than can be written, though it could be read. The others are to be seen all the same.
        stub = _shown_bad(BadEvent(None, [f"This event cannot be shown: {error}"], None))
        return encode_readable_json({"id": serial, **stub, "good": isinstance(event, GoodEvent)}, "event")


def _shown_event(serial: int, event: JudgedEvent) -> Dict[str, Any]:
    shown = _shown_good(event) if isinstance(event, GoodEvent) else _shown_bad(event)
    if event.request is not None:
        shown["time"] = iso_time(event.request.timestamp)
        shown["request"] = {
            "method": event.request.method,
            "path": event.request.path,
            "bytes": len(event.request.body),
            "headers": event.request.headers,
        }
    return {"id": serial, **shown}


def _shown_good(event: GoodEvent) -> Dict[str, Any]:
    return {
        "good": True,
        "type": event.event_type,
        "schema": event.schema,
        "data": event.data,
        "contexts": event.contexts,
        "fields": event.fields,
        "payload": event.payload,
        "errors": [],
    }


def _shown_bad(event: BadEvent) -> Dict[str, Any]:
    payload = event.payload if isinstance(event.payload, dict) else {}
    described = readable_event(payload)
    contexts = readable_contexts(payload)
    shown = {
        "good": False,
        "type": readable_type(event),
        "schema": None,
        "data": described,
        "contexts": contexts if isinstance(contexts, list) else [],
        "fields": {},
        "payload": event.payload,
        "errors": event.errors,
    }
    if isinstance(described, dict) and described.keys() == {"schema", "data"} and isinstance(described["schema"], str):
        shown.update(described)
    if event.payload is None and event.request is not None:
        shown["body"] = event.request.body[:_LONGEST_TEXT].decode("utf-8", "replace")
    return shown
