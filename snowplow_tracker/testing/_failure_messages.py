"""What assertions about events say when they fail."""

from collections import Counter
from heapq import nsmallest
from typing import Any, List, Optional, Sequence, Tuple

from .._shown import shown
from ..self_describing_json import SelfDescribingJson
from ..typing import PayloadDict
from ._collected import BadEvent, CollectedRequest, GoodEvent
from ._containment import MISSING, Comparison, Difference, is_akin, nearness
from ._expectation import EventExpectation
from ._readable import readable_event, readable_type

__all__ = ["count_message", "event_message", "no_bad_message", "order_message"]

# The paths of what tells the kind of an event.
_KINDS = ("event_type", "schema")
_MAX_NEAREST = 3
_MAX_COMPARED = 5
_MAX_DIFFERENCES = 10
_MAX_LISTED = 10
_LINE_CHARACTERS = 100
_VALUE_CHARACTERS = 300
_COMMON_CHARACTERS = 20


def no_bad_message(count: int, bad: List[BadEvent]) -> str:
    """Say that there are bad events.

    Args:
        count: How many there were, as counted before those that are kept were asked for.
        bad: Those that are kept.
    """
    lines = _bad_lines(bad)
    forgotten = count - len(bad)
    if forgotten > 0:
        lines.append(f"and {forgotten} no longer kept")
    return "\n".join([f"Expected no bad events, got {max(count, len(bad))}:", *_indented(lines)])


def count_message(
    wanted: List[Optional[int]],
    actual: Tuple[int, int],
    good: List[GoodEvent],
    bad: List[BadEvent],
    seconds: float,
    requests: Optional[List[CollectedRequest]],
) -> str:
    """Say that there are not as many good and bad events as wanted."""
    expected = " and ".join(
        _counted(count, noun) for count, noun in zip(wanted, ("good event", "bad event")) if count is not None
    )
    title = f"Expected {expected}, got {actual[0]} good and {actual[1]} bad{_within(seconds)}"
    lines = [title, *_section("The good events:", good)] if actual[0] else [title, *_request_lines(requests)]
    return "\n".join(lines + _bad_section(bad))


def event_message(
    expectation: EventExpectation,
    wanted: Optional[int],
    found: List[GoodEvent],
    good: List[GoodEvent],
    bad: List[BadEvent],
    seconds: float,
    requests: Optional[List[CollectedRequest]],
) -> str:
    """Say that not as many events as wanted meet the expectation, and what those that come nearest to it lack."""
    expected = "a good event" if wanted is None else _counted(wanted, "good event")
    outcome = f"{len(found)} of {len(good)} match" if good else "no good event arrived"
    title = f"Expected {expected} with the following, but {outcome}{_within(seconds)}:"
    lines = [title, *_indented(_expectation_lines(expectation))]
    lines += [] if good else _request_lines(requests)
    lines += _section(f"{_counted(len(found), 'event')} with it:", found)
    if wanted is None or len(found) < wanted:
        met = set(map(id, found))
        others = [event for event in good if id(event) not in met]
        lines += _nearest_section(expectation, others) or _section("None comes near; these are there:", others)
    return "\n".join(lines + _bad_section(bad))


def order_message(
    expectations: List[EventExpectation],
    positions: List[int],
    events: List[GoodEvent],
    bad: List[BadEvent],
    seconds: float,
    requests: Optional[List[CollectedRequest]],
) -> str:
    """Say which event of an order there is none for.

    Args:
        expectations: The order.
        positions: Where in the events the first expectations were met; at least one was not.
        events: The good events in order of creation.
        bad: The bad events.
        seconds: How long they were waited for.
        requests: What came by a connection; None where nothing comes by one.
    """
    missed = len(positions)
    start = positions[-1] + 1 if positions else 0
    lines = [
        f"Expected {_counted(len(expectations), 'good event')} in order of creation, "
        f"but there is none for expected[{missed}]{_after(missed)}{_within(seconds)}:",
        *_indented(_expectation_lines(expectations[missed])),
    ]
    earlier = next((index for index in range(start) if expectations[missed].is_met_by(events[index])), None)
    found_as = {position: f"  <- expected[{index}]" for index, position in enumerate(positions)}
    if earlier is not None:
        found_as[earlier] = f"{found_as.get(earlier, '')}  <- expected[{missed}] would be met, but comes too early"
    shown_ones: Sequence[int] = range(len(events))
    if len(events) > _MAX_LISTED:
        # Those around the place where the order breaks tell most.
        half = _MAX_LISTED // 2
        around = [*positions[-half:], *range(len(events))[start : start + half]]
        shown_ones = sorted({*around, *([] if earlier is None else [earlier])})
    labels = [f"{index + 1}. {_event_label(events[index])}{found_as.get(index, '')}" for index in shown_ones]
    title = (
        "The good events in order of creation:" if len(labels) == len(events) else f"Of the {len(events)} good events:"
    )
    lines += [title, *_indented(labels)] if labels else _request_lines(requests)
    lines += _nearest_section(expectations[missed], events[start:])
    return "\n".join(lines + _bad_section(bad))


def _request_lines(requests: Optional[List[CollectedRequest]]) -> List[str]:
    """Say where the events may have gone, if there is no good one."""
    if requests is None:
        return []
    if not requests:
        return ["No request came. An emitter may still hold events: flush the tracker"]
    statuses = Counter(request.status for request in requests)
    answers = ", ".join(
        f"{status or 'without a status'}{f' ({times} times)' if times > 1 else ''}"
        for status, times in statuses.items()
    )
    return [f"{_counted(len(requests), 'request')} came, answered {answers}"]


def _after(missed: int) -> str:
    return f" after that for expected[{missed - 1}]" if missed else ""


def _expectation_lines(expectation: EventExpectation) -> List[str]:
    described = expectation.described()
    return [f"{word}: {_short(value)}" for word, value in described.items()] or ["anything"]


def _nearest_section(expectation: EventExpectation, events: List[GoodEvent]) -> List[str]:
    """Say what those that come nearest lack; nothing, if none comes near."""
    # To compare all of many events would take long, and only the nearest are shown.
    likely = nsmallest(
        _MAX_COMPARED,
        events,
        key=lambda event: (_strangeness(expectation.compare_kind(event)), -expectation.likeness(event)),
    )
    compared = [(expectation.compare(event), event) for event in likely]
    near = sorted(
        (pair for pair in compared if _is_near(pair[0])), key=lambda pair: (_strangeness(pair[0]), nearness(pair[0]))
    )
    lines = ["The nearest:"] if near else []
    for comparison, event in near[:_MAX_NEAREST]:
        lines.append(f"    {_event_label(event)}")
        lines += _indented(_difference_lines(comparison.differences), 2)
    return lines


def _is_near(comparison: Comparison) -> bool:
    """Tell whether it is worth a line what differs: something is as expected, or at least where it was expected."""
    differences = comparison.differences
    return (
        comparison.agreements > 0
        # Nothing but what was not to be there.
        or all(difference.expected is MISSING for difference in differences)
        or any(_is_other_version(difference) or _is_in_its_place(difference) for difference in differences)
    )


def _is_in_its_place(difference: Difference) -> bool:
    return (
        difference.path not in _KINDS
        and difference.expected is not MISSING
        and difference.actual is not MISSING
        # An item is looked for among others, or else there is nothing to be seen but that the list is empty.
        and not (difference.is_item and not difference.actual)
    )


def _strangeness(comparison: Comparison) -> int:
    """Tell how far an event is from being of the expected type and schema."""
    return sum(
        1 if _is_other_version(difference) else 2 for difference in comparison.differences if difference.path in _KINDS
    )


def _is_other_version(difference: Difference) -> bool:
    """Tell whether the schema is the expected one, but for the version."""
    return difference.path == "schema" and is_akin(difference)


def _difference_lines(differences: List[Difference]) -> List[str]:
    lines = [line for difference in differences[:_MAX_DIFFERENCES] for line in _lines_of(difference)]
    if len(differences) > _MAX_DIFFERENCES:
        lines.append(f"and {len(differences) - _MAX_DIFFERENCES} more differences")
    return lines


def _lines_of(difference: Difference) -> List[str]:
    path, expected, actual, is_item = difference
    if not is_item:
        expected, actual = _from_where_they_differ(expected, actual)
    wanted = "nothing" if expected is MISSING else f"{'an item ' if is_item else ''}{_short(expected)}"
    got = "missing" if actual is MISSING else f"got {_short(actual)}"
    line = f"{path}: expected {wanted}, {got}"
    if len(line) <= _LINE_CHARACTERS:
        return [line]
    # Below each other, the eye finds the place.
    padding = " " * (len("expected an item ") if is_item else len("expected "))
    below = got if actual is MISSING else f"{'got':<{len(padding)}}{_short(actual)}"
    return [f"{path}:", f"  expected {wanted}", f"  {below}"]


def _from_where_they_differ(expected: Any, actual: Any) -> Tuple[Any, Any]:
    """Cut the beginning that two texts have in common off, if they would be too long to be shown."""
    if not isinstance(expected, str) or not isinstance(actual, str):
        return expected, actual
    if max(len(expected), len(actual)) <= _VALUE_CHARACTERS:
        return expected, actual
    common = next(
        (index for index, pair in enumerate(zip(expected, actual)) if pair[0] != pair[1]),
        min(len(expected), len(actual)),
    )
    cut = max(0, common - _COMMON_CHARACTERS)
    return (f"...{expected[cut:]}", f"...{actual[cut:]}") if cut else (expected, actual)


def _section(title: str, events: List[GoodEvent]) -> List[str]:
    return [title, *_indented(_listed([_event_label(event) for event in events]))] if events else []


def _bad_section(bad: List[BadEvent]) -> List[str]:
    return (
        [f"There {'is' if len(bad) == 1 else 'are'} {_counted(len(bad), 'bad event')}:", *_indented(_bad_lines(bad))]
        if bad
        else []
    )


def _bad_lines(bad: List[BadEvent]) -> List[str]:
    lines = []
    for event in bad[:_MAX_LISTED]:
        lines += [_bad_label(event), *_indented([_cut(error) for error in event.errors])]
    if len(bad) > _MAX_LISTED:
        lines.append(f"and {len(bad) - _MAX_LISTED} more")
    return lines


def _event_label(event: GoodEvent) -> str:
    return _label(event.event_type, event.schema, event.payload)


def _bad_label(event: BadEvent) -> str:
    payload = event.payload
    if isinstance(payload, dict):
        described = readable_event(payload)
        schema = described.get("schema") if isinstance(described, dict) else None
        return _label(readable_type(event), schema, payload)
    if payload is None and event.request is not None:
        return f"{event.request.method} {_cut(event.request.path)} -> {event.request.status}"
    return "a request" if payload is None else _short(payload)


def _label(event_type: str, schema: Any, payload: PayloadDict) -> str:
    about = {
        "page_view": payload.get("url"),
        "page_ping": payload.get("url"),
        "struct": " / ".join(shown(payload.get(name), str) for name in ("se_ca", "se_ac")),
        "transaction": payload.get("tr_id"),
        "transaction_item": payload.get("ti_id"),
    }.get(event_type, schema)
    eid = payload.get("eid")
    identity = "without an eid" if eid is None else f"eid {shown(eid, str)}"
    # What it is about is cut on its own: a long URL must not take the id with it.
    return f"{event_type}{'' if about is None else f' {_cut(shown(about, str))}'} ({_cut(identity)})"


def _listed(labels: List[str]) -> List[str]:
    more = len(labels) - _MAX_LISTED
    return [*labels[:_MAX_LISTED], f"and {more} more"] if more > 0 else labels


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _within(seconds: float) -> str:
    return f" within {seconds:g} s" if seconds else ""


def _short(value: Any) -> str:
    return _cut(shown(value.to_json() if isinstance(value, SelfDescribingJson) else value))


def _cut(text: str) -> str:
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[:_VALUE_CHARACTERS]}..."


def _indented(lines: List[str], depth: int = 1) -> List[str]:
    return ["    " * depth + line for line in lines]
