"""Draws the pictures of the documentation as SVG: `.venv/bin/python docs/pictures/draw.py`.

What a picture says about the library, it asks the library: the pauses of the backoff, and the message of an assertion.
"""

import math
import re
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple
from xml.sax.saxutils import escape

from snowplow_tracker import Emitter
from snowplow_tracker._retry import next_delay
from snowplow_tracker.testing import TrackingKit

FOLDER = Path(__file__).resolve().parent

Point = Tuple[float, float]

_STYLE = """
text{font:13px system-ui,sans-serif;fill:#24292f}
.small{font-size:12px;fill:#57606a}
.head{font-weight:600}
.label{font-size:12px;paint-order:stroke;stroke:#fff;stroke-width:5px;stroke-linejoin:round}
.mono{font:13px ui-monospace,monospace;white-space:pre}
.band{fill:#f6f8fa}
.box{fill:#fff;stroke:#57606a}
.good{fill:#dafbe1;stroke:#2c7a4b}
.bad{fill:#ffebe9;stroke:#b3261e}
.arrow{fill:none;stroke:#24292f;stroke-width:1.5;marker-end:url(#tip)}
.grid{stroke:#d0d7de}
.axis{stroke:#24292f}
.reach{fill:#cfe3f7}
.usual{fill:none;stroke:#0b5cad;stroke-width:2}
.screen{fill:#1c2128}
.screen-text{fill:#e6edf3}
.wrong{fill:#ff938a}
.faint{fill:#a5b0bc}
""".replace("\n", "")
_TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#24292f"/></marker></defs>'
)


def picture(width: int, height: int, title: str, description: str, parts: Sequence[str]) -> str:
    """Put parts on a white sheet with round corners, which can be read on a dark page, too."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="desc">{escape(description)}</desc>',
            f"<style>{_STYLE}</style>",
            _TIP,
            f'<rect width="{width}" height="{height}" rx="10" fill="#fff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "middle") -> str:
    """Write one line of text."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(content)}</text>'


def box(x: float, y: float, width: float, title: str, line: str, kind: str = "box") -> str:
    """Draw a box of 52 pixels in height, with a title and a line of text, around a point."""
    frame = f'<rect class="{kind}" x="{x - width / 2:g}" y="{y - 26:g}" width="{width:g}" height="52" rx="6"/>'
    return "\n".join([frame, text(x, y - 4, title, "head"), text(x, y + 14, line, "small")])


def arrow(*points: Point) -> str:
    """Draw a line with a tip at its end."""
    return f'<polyline class="arrow" points="{_joined(points)}"/>'


def _joined(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def event_flow() -> str:
    """Draw the way of an event through the layers, from the application to the collector and back."""
    names = ["Application", "Layer 5", "Layer 3", "Layer 2", "Layer 1", "Collector"]
    owns = ["", "completes events", "decides when to send", "events and stores", "one request", ""]
    a, b, c, d = 215, 390, 620, 840
    top, step, width = 12, 92, 150
    y = [top + step * number + step / 2 for number in range(len(names))]
    parts = []
    for number, (name, own) in enumerate(zip(names, owns)):
        if number % 2 == 0:
            parts.append(f'<rect class="band" x="8" y="{top + step * number}" width="954" height="{step}"/>')
        parts.append(text(18, y[number] + (-4 if own else 4), name, "head", "start"))
        parts.append(text(18, y[number] + 14, own, "small", "start"))
    edge = width / 2
    parts += [
        arrow((a, y[0] + 26), (a, y[1] - 26)),
        arrow((a, y[1] + 26), (a, y[3] - 26)),
        arrow((a + edge, y[1]), (b, y[1]), (b, y[2] - 26)),
        arrow((b, y[2] + 26), (b, y[3] - 26)),
        arrow((b + edge, y[3] - 10), (c - 40, y[3] - 10), (c - 40, y[2] + 26)),
        arrow((b + edge, y[2]), (c - edge, y[2])),
        arrow((c + edge, y[2]), (d - edge, y[2])),
        arrow((d + 50, y[2] + 26), (d + 50, y[4] - 26)),
        arrow((d, y[4] + 26), (d, y[5] - 26)),
        arrow((d + 10, y[4] - 26), (d + 10, y[2] + 26)),
        arrow((d - 60, y[2] + 26), (d - 60, y[3] + 30), (c, y[3] + 30), (c, y[4] - 26)),
        arrow((c, y[2] + 26), (c, y[3] + 12), (b + edge, y[3] + 12)),
        arrow((c, y[2] - 26), (c, y[0] + 26)),
        box(a, y[0], width, "tracker.track", "with an event"),
        box(c, y[0], width, "Callbacks", "on_success, on_failure"),
        box(a, y[1], width, "Tracker", "adds eid, dtm, tv, …"),
        box(b, y[2], width, "Emitter.input", "copies; ledger.add"),
        box(c, y[2], width, "flush, send_events", "here, or in a worker"),
        box(d, y[2], width, "_delivery", "requests, outcomes"),
        box(a, y[3], width, "Event", "build_payload"),
        box(b, y[3], width, "Event store", "where payloads wait"),
        box(c, y[4], width, "_retry", "again? and when?"),
        box(d, y[4], width, "_transport", "http_post, http_get"),
        box(d, y[5], width, "Collector", "answers with a status", "good"),
        text(a + 8, (y[0] + y[1]) / 2 + 4, "1", "label", "start"),
        text(a + 8, y[2] + 4, "2 a payload", "label", "start"),
        text(a + edge + 8, y[1] - 8, "3 to each emitter", "label", "start"),
        text(b + 8, (y[2] + y[3]) / 2 + 4, "4 add", "label", "start"),
        text((b + c) / 2 - 2, y[2] - 8, "at a limit", "label"),
        text(c - 48, y[3] - 18, "5 take", "label", "end"),
        text((c + d) / 2, y[2] - 8, "6", "label"),
        text(d + 58, y[3] + 4, "7 request", "label", "start"),
        text(d + 8, (y[4] + y[5]) / 2 + 4, "8", "label", "start"),
        text(d + 3, y[3] + 4, "9 status", "label", "end"),
        text((c + d) / 2 - 30, y[3] + 22, "10 what it means", "label"),
        text(b + edge + 8, y[3] + 28, "11 put back", "label", "start"),
        text(c + 8, y[1] - 12, "12 what became of the payloads", "label", "start"),
        text(c + 8, y[1] + 34, "Timers, a call and the exit flush, too.", "small", "start"),
    ]
    return picture(
        970,
        2 * top + step * len(names),
        "The way of an event",
        "tracker.track completes an event and hands its payload to each emitter. The emitter copies it into its event "
        "store. A flush takes what waits and cuts it into requests, which go to the collector. The status of each "
        "decides: what is to be retried is put back into the store, and callbacks are told what became of the rest.",
        parts,
    )


def payload_states() -> str:
    """Draw the states of a payload, and what moves it from one to the other."""
    left, middle, right, y, low = 95, 345, 595, 110, 260
    end = 815
    parts = [
        arrow((left + 70, y), (middle - 75, y)),
        arrow((left, y + 26), (left, low - 26)),
        arrow((middle + 75, y), (right - 75, y)),
        arrow((right, y - 26), (right, 42), (middle, 42), (middle, y - 26)),
        arrow((right + 75, y), (end - 70, y)),
        arrow((right, y + 26), (right, low), (end - 70, low)),
        box(left, y, 140, "Tracked", "a call of track"),
        box(middle, y, 150, "Buffered", "in the event store"),
        box(right, y, 150, "In flight", "in a request"),
        box(end, y, 140, "Delivered", "the collector has it", "good"),
        box(left, low, 140, "Dropped", "never accepted", "bad"),
        box(end, low, 140, "Rejected", "given up for good", "bad"),
        text((left + middle) / 2 - 3, y - 10, "accepted", "label"),
        text(left + 10, (y + low) / 2 - 4, "no room (buffer_capacity),", "label", "start"),
        text(left + 10, (y + low) / 2 + 12, "or the emitter is closed", "label", "start"),
        text((middle + right) / 2 - 3, y - 10, "a flush", "label"),
        text((middle + right) / 2, 34, "any other status, or no response: to be retried", "label"),
        text((right + end) / 2 + 2, y - 10, "2xx", "label"),
        text(right + 10, (y + low) / 2 - 4, "400, 401, 403, 410, 422,", "label", "start"),
        text(right + 10, (y + low) / 2 + 12, "or 413 to a single event,", "label", "start"),
        text(right + 10, (y + low) / 2 + 28, "unless custom_retry_codes says otherwise", "label", "start"),
        text(middle, low - 4, "accepted =", "head"),
        text(middle, low + 14, "delivered + rejected + buffered + in flight", "small"),
    ]
    return picture(
        910,
        310,
        "The states of a payload",
        "A tracked payload is accepted and buffered, or dropped for want of room. A flush takes it into flight. Status "
        "2xx delivers it; 400, 401, 403, 410, 422, or 413 to a single event reject it; anything else puts it back.",
        parts,
    )


class Pause(NamedTuple):
    """The seconds before the next attempt, after a number of failures in a row."""

    shortest: float
    usual: float
    longest: float


def backoff(failures: int, maximum: float) -> List[Pause]:
    """Ask the library for its pauses: the bounds of what chance makes of them, and those of a jitter of one half."""
    low = usual = high = 0.0
    pauses = []
    for _ in range(failures):
        usual = next_delay(usual, maximum, jitter=_middling)
        # A pause depends on the one before, so the bounds are looked for between those of the one before.
        before = [low + (high - low) * part / 240 for part in range(241)]
        reached = [next_delay(delay, maximum, jitter=jitter) for delay in before for jitter in (_least, _most)]
        low, high = min(reached), max(reached)
        pauses.append(Pause(low, usual, high))
    return pauses


def _least() -> float:
    return 0.0


def _middling() -> float:
    return 0.5


def _most() -> float:
    return 1.0  # The library's chance stays below it.


def attempts(maximum: float, jitter: Callable[[], float]) -> Iterator[float]:
    """Yield the times in seconds of the attempts of an outage without end, each of which fails at once."""
    moment = delay = 0.0
    while True:
        yield moment
        delay = next_delay(delay, maximum, jitter=jitter)
        moment += delay


def attempts_until(end: float, maximum: float, jitter: Callable[[], float]) -> List[float]:
    """Return the times of the attempts until then."""
    times = []
    for moment in attempts(maximum, jitter):
        if moment > end:
            return times
        times.append(moment)
    raise AssertionError("an outage without end has ended")


def default_maximum() -> float:
    """Return the longest pause of an emitter that is not told otherwise."""
    return Emitter("collector.example.com").max_retry_delay_seconds


def backoff_curve() -> str:
    """Draw how the pause grows with each failure, and what an outage of an hour is for a collector."""
    maximum, count, hour = default_maximum(), 14, 3600
    pauses = backoff(count, maximum)
    left, width, top, height = 70, 330, 66, 230
    bottom = top + height
    smallest, largest = 0.03, 100.0

    def x(failure: float) -> float:
        return left + width * (failure - 1) / (count - 1)

    def y(seconds: float) -> float:
        share = math.log10(seconds / smallest) / math.log10(largest / smallest)
        return bottom - height * share

    parts = [
        text(left - 45, 28, "The pause after each failure in a row", "head", "start"),
        text(left - 45, 46, "seconds, by powers of ten; the line: a typical one", "small", "start"),
    ]
    for seconds in (0.1, 1, 10, maximum):
        parts.append(
            f'<line class="grid" x1="{left}" y1="{y(seconds):.1f}" x2="{left + width}" y2="{y(seconds):.1f}"/>'
        )
        parts.append(text(left - 8, round(y(seconds)) + 4, f"{seconds:g}", "small", "end"))
    outline = [(x(n), y(pause.longest)) for n, pause in enumerate(pauses, 1)]
    outline += [(x(n), y(pause.shortest)) for n, pause in reversed(list(enumerate(pauses, 1)))]
    parts += [
        f'<polygon class="reach" points="{_joined(outline)}"/>',
        f'<polyline class="usual" points="{_joined([(x(n), y(pause.usual)) for n, pause in enumerate(pauses, 1)])}"/>',
        f'<line class="axis" x1="{left}" y1="{bottom}" x2="{left + width}" y2="{bottom}"/>',
        *(text(round(x(n)), bottom + 18, str(n), "small") for n in range(1, count + 1)),
        text(left + width / 2, bottom + 38, "failures in a row", "small"),
        text(left + width, round(y(maximum)) - 8, "max_retry_delay_seconds", "small", "end"),
    ]

    # Chance at its least makes short pauses on the way up, and half of the maximum from then on.
    most, usual, fewest = (attempts_until(hour, maximum, jitter) for jitter in (_least, _middling, _most))
    start, most_shown = 500, 140

    def right_x(seconds: float) -> float:
        return start + width * seconds / hour

    def right_y(number: float) -> float:
        return bottom - height * number / most_shown

    def course(times: List[float]) -> List[Point]:
        numbered = [(right_x(moment), right_y(number)) for number, moment in enumerate(times, 1)]
        return [*numbered, (right_x(hour), right_y(len(times)))]

    parts += [
        text(start - 45, 28, "Requests during an outage of an hour", "head", "start"),
        text(start - 45, 46, f"of one emitter: {len(fewest)} to {len(most)}, typically {len(usual)}", "small", "start"),
    ]
    for number in (0, 50, 100):
        line = round(right_y(number), 1)
        parts.append(f'<line class="grid" x1="{start}" y1="{line}" x2="{start + width}" y2="{line}"/>')
        parts.append(text(start - 8, round(line) + 4, str(number), "small", "end"))
    parts += [
        f'<polygon class="reach" points="{_joined([*course(most), *reversed(course(fewest))])}"/>',
        f'<polyline class="usual" points="{_joined(course(usual))}"/>',
        f'<line class="axis" x1="{start}" y1="{bottom}" x2="{start + width}" y2="{bottom}"/>',
        *(text(right_x(60 * minute), bottom + 18, str(minute), "small") for minute in (0, 10, 20, 30, 40, 50, 60)),
        text(start + width / 2, bottom + 38, "minutes since the first failure", "small"),
    ]
    return picture(
        870,
        360,
        "The backoff",
        f"The pause after a failure is at most {pauses[0].longest:g} s at first, about twice as long after each "
        f"further one, and {maximum:g} s at the most; there it lies between {pauses[-1].shortest:g} and "
        f"{pauses[-1].longest:g} s. In an outage of an hour one emitter makes {len(fewest)} to {len(most)} requests, "
        f"typically {len(usual)}.",
        parts,
    )


CHECKOUT_TEST = """\
from snowplow_tracker import SelfDescribing, SelfDescribingJson

ORDER = "iglu:com.acme/order/jsonschema/1-0-0"


def test_checkout(snowplow_tracker, snowplow_collector):
    order = SelfDescribingJson(ORDER, {"id": "o-1", "total": 40, "lines": [{"sku": "B-7", "amount": 1}]})
    snowplow_tracker.track(SelfDescribing(order))

    expected = {"total": 42, "lines": [{"sku": "B-7", "amount": 2}]}
    snowplow_collector.assert_event(schema=ORDER, data=expected, timeout=0)
"""


def failure_message() -> str:
    """Run the test, and return what it fails with, with an id that stays the same."""
    names: Dict[str, Callable[..., None]] = {}
    exec(CHECKOUT_TEST, names)
    with TrackingKit() as kit:
        try:
            names["test_checkout"](kit.tracker, kit.collector)
        except AssertionError as error:
            return re.sub(r"eid [0-9a-f-]{36}", "eid 8b5726ac-8aff-4c6f-a250-e9f8e3498dcb", str(error))
    raise AssertionError("the test does not fail")


def screen_lines() -> List[Tuple[str, str]]:
    """Return the lines that pytest prints of the test, each with the kind of text that it is."""
    source = CHECKOUT_TEST.splitlines()
    message = f"AssertionError: {failure_message()}".splitlines()
    return [
        ("faint", "$ pytest --tb=short"),
        ("screen-text", f"test_checkout.py:{len(source)}: in test_checkout"),
        ("screen-text", source[-1]),
        *(("wrong", f"E   {line}") for line in message),
        ("wrong", "FAILED test_checkout.py::test_checkout"),
    ]


def failing_assertion() -> str:
    """Draw a terminal in which an assertion about an event has failed."""
    lines = screen_lines()
    margin, pitch = 14, 20
    width = 2 * (margin + 12) + math.ceil(max(len(line) for _, line in lines) * 7.9)
    height = 2 * margin + 24 + pitch * len(lines)
    parts = [
        f'<rect class="screen" x="{margin}" y="{margin}" width="{width - 2 * margin}" height="{height - 2 * margin}" '
        'rx="6"/>',
        *(
            # Blanks at the start of a line would be lost on the way to some readers.
            text(margin + 12, margin + 26 + pitch * number, line.replace(" ", "\u00a0"), f"mono {kind}", "start")
            for number, (kind, line) in enumerate(lines)
        ),
    ]
    return picture(
        width,
        height,
        "A failing assertion",
        "pytest shows what was expected, the event that comes nearest to it, and each place where the two differ.",
        parts,
    )


def pictures() -> Dict[str, str]:
    """Draw all of them; return each by the name of its file."""
    return {
        "event-flow.svg": event_flow(),
        "payload-states.svg": payload_states(),
        "backoff.svg": backoff_curve(),
        "failing-assertion.svg": failing_assertion(),
    }


if __name__ == "__main__":
    for name, content in pictures().items():
        (FOLDER / name).write_bytes(content.encode("utf-8"))
