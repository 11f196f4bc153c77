"""The command that sends one event."""

import argparse
import uuid
from typing import Any, Callable, Dict, List

from ..emitters import Emitter
from ..events import Event, PageView, ScreenView, SelfDescribing, StructuredEvent
from ..self_describing_json import SelfDescribingJson
from ..tracker import Tracker
from ..typing import EmitterStats
from .exit_codes import FAILURE, SUCCESS
from .proxy import no_proxy_before
from .subjects import add_subject_options, subject_of_options
from .usage import UsageError, add_command, add_endpoint_options, complain, endpoint_of, failure_reason
from .values import argument, described_list, json_argument, number, positive_seconds, schema_uri, timestamp

__all__ = ["add_to"]

_TIMEOUT_SECONDS = 10.0
# So that there are several tries within the timeout.
_RETRY_DELAY_SECONDS = 1.0

_EXIT_CODES = """\
The event's id is printed, taken or not. The exit code is
  0  if the collector took the event in time: it answered 2xx,
  1  if it did not; a line on stderr says why. Tried again until --timeout,
     unless the collector refuses the event for good,
  2  if the arguments are wrong.
"""

_Build = Callable[[argparse.Namespace, Dict[str, Any]], Event]


def add_to(commands: Any) -> None:
    """Add this command to those of the program."""
    parser = add_command(
        commands,
        "track",
        summary="send one event",
        description="Send one event to a collector, and wait until it has taken it.",
        epilog="EVENT --help tells the options of an event.\n\n" + _EXIT_CODES,
    )
    events = parser.add_subparsers(title="events", metavar="EVENT")

    page_view = _add_event(
        events,
        "page-view",
        "a user saw a web page",
        '--url https://shop.example/cart --title "Your cart"',
        lambda options, common: PageView(options.url, options.title, options.referrer, **common),
    )
    page_view.add_argument("--url", required=True, help="of the page")
    page_view.add_argument("--title", metavar="TEXT", help="of the page")
    page_view.add_argument("--referrer", metavar="URL", help="of the page that led there")

    struct = _add_event(
        events,
        "struct",
        "an event in five general-purpose fields",
        "--category shop --action add-to-cart --label 'green tea' --value 2",
        lambda options, common: StructuredEvent(
            options.category, options.action, options.label, options.property, options.value, **common
        ),
    )
    struct.add_argument("--category", metavar="TEXT", required=True, help="what kind of thing is concerned")
    struct.add_argument("--action", metavar="TEXT", required=True, help="what happened to it")
    struct.add_argument("--label", metavar="TEXT", help="which one it is")
    struct.add_argument("--property", metavar="TEXT", help="what else there is to say about it")
    struct.add_argument("--value", metavar="NUMBER", type=argument(number), help="a number that goes with it")

    self_describing = _add_event(
        events,
        "self-describing",
        "an event that brings its own schema",
        """--schema iglu:com.acme/purchase/jsonschema/1-0-0 --data '{"total": 12.5}'""",
        lambda options, common: SelfDescribing(SelfDescribingJson(options.schema, options.data), **common),
    )
    self_describing.add_argument(
        "--schema",
        metavar="URI",
        type=argument(schema_uri),
        required=True,
        help="of the data, such as iglu:com.acme/purchase/jsonschema/1-0-0",
    )
    self_describing.add_argument(
        "--data",
        metavar="JSON",
        type=argument(json_argument),
        required=True,
        help="what the schema describes; or @FILE, or @- for the standard input",
    )

    screen_view = _add_event(
        events,
        "screen-view",
        "a user saw a screen of an application",
        "--name cart --previous-name catalogue",
        lambda options, common: ScreenView(
            options.id or str(uuid.uuid4()),
            options.name,
            options.type,
            options.previous_name,
            options.previous_id,
            options.previous_type,
            options.transition_type,
            **common,
        ),
    )
    screen_view.add_argument("--name", metavar="TEXT", required=True, help="of the screen")
    screen_view.add_argument("--id", metavar="UUID", help="of this view of the screen (default: a new one)")
    screen_view.add_argument("--type", metavar="TEXT", help="of the screen, such as feed or carousel")
    screen_view.add_argument("--previous-name", metavar="TEXT", help="of the screen that was seen before")
    screen_view.add_argument("--previous-id", metavar="UUID", help="of its view")
    screen_view.add_argument("--previous-type", metavar="TEXT", help="of that screen")
    screen_view.add_argument("--transition-type", metavar="TEXT", help="how the application got from there to here")

    for event in (page_view, struct, self_describing, screen_view):
        _add_common_options(event)


def _add_event(events: Any, name: str, summary: str, example: str, build: _Build) -> argparse.ArgumentParser:
    return add_command(
        events,
        name,
        summary=summary,
        description=f"Send one event: {summary}.",
        epilog=f"{_EXIT_CODES}\nexample:\n  snowplow-tracker track {name} --endpoint http://127.0.0.1:9090 \\\n"
        f"    {example}",
        command=lambda options: _track(options, build),
    )


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--context",
        metavar="JSON",
        type=argument(lambda value: described_list(json_argument(value))),
        action="append",
        help="an entity of the event's circumstances, an object with schema and data, or a list of them; or @FILE, or "
        "@- for the standard input; may be repeated",
    )
    parser.add_argument(
        "--true-timestamp",
        metavar="TIME",
        type=argument(timestamp),
        help="when it really happened: milliseconds since 1970, or a date and time in ISO 8601, which is local "
        "without a time zone",
    )
    parser.add_argument("--app-id", metavar="NAME", help="name of the application")
    parser.add_argument(
        "--namespace", metavar="NAME", default="command-line", help="name of the tracker (default: %(default)s)"
    )
    add_endpoint_options(parser)
    parser.add_argument(
        "--method", choices=["post", "get"], default="post", help="how to send the event (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=argument(positive_seconds),
        default=_TIMEOUT_SECONDS,
        help="how long to try (default: %(default)g)",
    )
    add_subject_options(parser)


def _track(options: argparse.Namespace, build: _Build) -> int:
    try:
        event = build(options, _common_arguments(options))
        emitter = Emitter(
            endpoint_of(options),
            options.protocol,
            method=options.method,
            # Not reached: the flush below sends.
            batch_size=2,
            max_retry_delay_seconds=_RETRY_DELAY_SECONDS,
            flush_on_exit=False,
        )
        tracker = Tracker(options.namespace, emitter, app_id=options.app_id)
        event_id = tracker.track(event)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    with no_proxy_before(emitter.endpoint):
        emitter.sync_flush(timeout=options.timeout)
    print(event_id, flush=True)
    stats = emitter.stats()
    if stats.delivered:
        return SUCCESS
    reason = failure_reason(stats, emitter.endpoint, endpoint_of(options))
    complain(_outcome(stats, options.timeout, reason))
    return FAILURE


def _common_arguments(options: argparse.Namespace) -> Dict[str, Any]:
    context: List[SelfDescribingJson] = [entity for entities in options.context or [] for entity in entities]
    return {
        "event_subject": subject_of_options(options),
        "context": context,
        "true_timestamp": options.true_timestamp,
    }


def _outcome(stats: EmitterStats, timeout: float, reason: str) -> str:
    if stats.rejected:
        return f"the event is refused: {reason}"
    return f"the event is not delivered within {timeout:g} s: {reason}"
