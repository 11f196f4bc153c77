"""Assertions about the events that arrived."""

from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from .._settings import wait_seconds
from .._shown import shown
from ..self_describing_json import SelfDescribingJson
from ._collected import BadEvent, CollectedRequest, GoodEvent
from ._expectation import EventExpectation
from ._failure_messages import count_message, event_message, no_bad_message, order_message

__all__ = ["ContextWords", "EventAssertions", "EventWords"]

# pytest leaves modules with this out of what it prints: what fails is the test, not this.
__tracebackhide__ = True

ContextWords = Union[str, Mapping[str, Any], SelfDescribingJson]
EventWords = Union[str, Mapping[str, Any]]


class EventAssertions(ABC):
    """Assertions about good and bad events, in the words of Snowplow Micro.

    Each raises `AssertionError` with a message that shows what was expected, what came nearest to it, and what differs.
    Those with a `timeout` wait until they are met, for so many seconds at the most, because events may be under way; by
    default 5 s where events come by a connection, and not at all where they come by a call. They do not wait to see
    whether too many come: flush an asynchronous emitter first.
    """

    _default_timeout = 5.0

    @property
    @abstractmethod
    def good(self) -> List[GoodEvent]:
        """A new list of the good events, in order of arrival."""

    @property
    @abstractmethod
    def bad(self) -> List[BadEvent]:
        """A new list of the bad events, in order of arrival."""

    @abstractmethod
    def _wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until the condition is met, asking again whenever something arrives.

        Returns:
            Whether it is met.
        """

    def _counts(self) -> Tuple[int, int]:
        """Count good and bad events."""
        return len(self.good), len(self.bad)

    def _came(self) -> Optional[List[CollectedRequest]]:
        """The requests that came, good or bad, accepted or not; None where nothing comes by a connection."""
        return getattr(self, "requests", None)

    def assert_no_bad(self) -> None:
        """Assert that no bad event has arrived so far, whatever is still kept."""
        _, count = self._counts()
        bad = self.bad
        if count or bad:
            raise AssertionError(no_bad_message(count, bad))

    def assert_count(
        self, *, good: Optional[int] = None, bad: Optional[int] = None, timeout: Optional[float] = None
    ) -> None:
        """Assert how many events have arrived.

        Args:
            good: The number of good events; None if it does not matter.
            bad: The number of bad events; None if it does not matter.
            timeout: See the class.

        Raises:
            TypeError: If neither number is given, or an argument has a wrong type.
            ValueError: If an argument is negative.
        """
        if good is None and bad is None:
            raise TypeError("good or bad must be given, got neither")
        wanted = [
            None if count is None else _checked_count(name, count) for name, count in (("good", good), ("bad", bad))
        ]

        def enough() -> bool:
            return all(count is None or actual >= count for count, actual in zip(wanted, self._counts()))

        seconds = self._wait(enough, timeout)
        actual = self._counts()
        if all(count in (None, found) for count, found in zip(wanted, actual)):
            return
        raise AssertionError(count_message(wanted, actual, self.good, self.bad, seconds, self._came()))

    def assert_event(
        self,
        *,
        event_type: Optional[str] = None,
        schema: Optional[str] = None,
        data: Optional[Any] = None,
        contexts: Optional[Sequence[ContextWords]] = None,
        properties: Optional[Mapping[str, Any]] = None,
        count: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> List[GoodEvent]:
        """Assert that there is a good event with all of what is given; it may have more.

        A dict is met by one that has its keys, at any depth, a list by one that has its items, in any order. Values are
        compared as JSON, so a UUID equals its text; an object that decides by its own `==`, such as
        `unittest.mock.ANY`, may stand for any of them.

        Args:
            event_type: `page_view`, `page_ping`, `struct`, `unstruct` (a self-describing event), `transaction` or
                `transaction_item`.
            schema: The Iglu URI of the event's schema.
            data: What the data of a self-describing event must contain.
            contexts: Entities that must be there: Iglu URIs, dicts with `schema` or `data` or both, or
                `SelfDescribingJson` objects. Two that are expected need two in the event; an empty list expects none,
                and does not forbid any.
            properties: Values of other fields by their names in the warehouse (`se_category`) or on the wire (`se_ca`).
                A number equals its text. None means that the event must not have the field.
            count: How many such events there must be, no more and no fewer; at least one by default.
            timeout: See the class.

        Returns:
            The events that are as expected, in order of arrival.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: If an argument says what no event can have.
        """
        expectation = EventExpectation(event_type, schema, data, contexts, properties)
        wanted = None if count is None else _checked_count("count", count)
        search = _Search(expectation)
        seconds = self._wait(lambda: len(search.matches(self.good)) >= (1 if wanted is None else wanted), timeout)
        good = self.good
        found = search.matches(good)
        if wanted == len(found) or (wanted is None and found):
            return found
        raise AssertionError(event_message(expectation, wanted, found, good, self.bad, seconds, self._came()))

    def assert_order(self, expected: Sequence[EventWords], timeout: Optional[float] = None) -> None:
        """Assert that good events were created in this order; there may be others before, between and after them.

        Events are ordered by the time at which the tracker made them (`dtm`), and where that is the same, by arrival.

        Args:
            expected: One entry for each event: a dict with `event_type`, `schema`, `data`, `contexts` and `properties`
                as `assert_event` has them; or the event type or the schema alone.
            timeout: See the class.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: If an argument says what no event can have.
        """
        if isinstance(expected, (str, Mapping)) or not isinstance(expected, Sequence):
            raise TypeError(f"expected must be a list, got {shown(expected)}")
        expectations = [EventExpectation.of(words, f"expected[{index}]") for index, words in enumerate(expected)]
        searches = [_Search(expectation) for expectation in expectations]
        seconds = self._wait(lambda: len(_positions(searches, _by_creation(self.good))) == len(searches), timeout)
        events = _by_creation(self.good)
        positions = _positions(searches, events)
        if len(positions) < len(expectations):
            raise AssertionError(order_message(expectations, positions, events, self.bad, seconds, self._came()))

    def _wait(self, condition: Callable[[], bool], timeout: Optional[float]) -> float:
        """Wait until the condition is met; returns for how many seconds that was in vain."""
        seconds = self._default_timeout if timeout is None else wait_seconds("timeout", timeout)
        return 0.0 if self._wait_until(condition, seconds) else seconds


class _Search:
    """Finds the events that meet an expectation, and looks at each but once, however often it is asked."""

    def __init__(self, expectation: EventExpectation) -> None:
        self._expectation = expectation
        # The event is kept beside the verdict, so that no other one can get its id.
        self._verdicts: Dict[int, Tuple[GoodEvent, bool]] = {}

    def is_met_by(self, event: GoodEvent) -> bool:
        if id(event) not in self._verdicts:
            self._verdicts[id(event)] = event, self._expectation.is_met_by(event)
        return self._verdicts[id(event)][1]

    def matches(self, events: List[GoodEvent]) -> List[GoodEvent]:
        return [event for event in events if self.is_met_by(event)]


def _by_creation(events: List[GoodEvent]) -> List[GoodEvent]:
    return sorted(events, key=_created_at)


def _created_at(event: GoodEvent) -> float:
    if "dtm" in event.payload:
        return float(event.payload["dtm"])
    # A tracker of another kind may leave it out; then the arrival has to do.
    return 0.0 if event.request is None else event.request.timestamp * 1000


def _positions(searches: List[_Search], events: List[GoodEvent]) -> List[int]:
    """Find the first event for each expectation, after that of the one before; stop where there is none."""
    positions: List[int] = []
    start = 0
    for search in searches:
        position = next((index for index in range(start, len(events)) if search.is_met_by(events[index])), None)
        if position is None:
            break
        positions.append(position)
        start = position + 1
    return positions


def _checked_count(name: str, count: Any) -> int:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be an integer, got {shown(count)}")
    if count < 0:
        raise ValueError(f"{name} must not be negative, got {shown(count)}")
    return count
