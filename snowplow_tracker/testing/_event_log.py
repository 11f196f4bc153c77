"""Which of the events that arrived are good, and which are bad."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Callable, Deque, List, Optional, Tuple
from uuid import uuid4

from ._changes import Changes
from ._collected import BadEvent, CollectedRequest, GoodEvent
from ._pipeline import JudgedEvent, Pipeline
from ._recent import Recent, held_bytes, request_bytes

__all__ = ["EventLog", "Excerpt"]

# How much of the memory is for events, and how much for requests that wait to be judged, if there is a limit at all.
_MAX_KEPT_BYTES = 128_000_000
_MAX_UNJUDGED_BYTES = 64_000_000


@dataclass(frozen=True)
class Excerpt:
    """A part of what is kept, as of one moment.

    Attributes:
        generation: Changes with each reset, and from one log to the next. Serial numbers count within it.
        good: How many good events there were, whatever is still kept.
        bad: How many bad ones.
        oldest: The serial number of the oldest event that is kept; that of the next event if none is.
        events: The events with their serial numbers, newest first.
    """

    generation: str
    good: int
    bad: int
    oldest: int
    events: List[Tuple[int, JudgedEvent]]


class EventLog:
    """What a pipeline makes of requests, which it judges oldest first, each of them once, when somebody asks.

    `_lock` guards everything but the judging itself; nobody waits for anything with it. `_judging` is held by the
    thread that judges, so that those who ask at the same time wait until all is judged that arrived before they asked.
    It is taken before `_lock`, never the other way round.
    """

    def __init__(self, pipeline: Pipeline, max_events: Optional[int] = None) -> None:
        """Begin an empty log.

        Args:
            pipeline: Judges the requests.
            max_events: How many events are kept, good and bad together, as long as they do not take more than about
                128 MB; the oldest go first. None for all.
        """
        self._pipeline = pipeline
        self._max_events = max_events
        self._judging = threading.Lock()
        self._lock = threading.Lock()
        self._changes = Changes(self._lock)
        self._begin()

    def add(self, request: CollectedRequest) -> None:
        """Take a request, to be judged later. Quick: may be called with a lock held."""
        size_bytes = 0 if self._max_events is None else request_bytes(request)
        with self._lock:
            self._unjudged.append((request, size_bytes))
            self._unjudged_payloads += len(request.payloads)
            self._unjudged_bytes += size_bytes
            self._changes.note()

    def limit_backlog(self) -> None:
        """Judge now if more waits for it than is going to be kept. May take a while."""
        if self._max_events is None:
            return
        waiting = max(self._unjudged_payloads, len(self._unjudged))
        if waiting > self._max_events or self._unjudged_bytes > _MAX_UNJUDGED_BYTES:
            self._judge()

    def good(self) -> List[GoodEvent]:
        """A new list of the good events, oldest first."""
        return [event for event in self._judged() if isinstance(event, GoodEvent)]

    def bad(self) -> List[BadEvent]:
        """A new list of the bad events, oldest first."""
        return [event for event in self._judged() if isinstance(event, BadEvent)]

    def counts(self) -> Tuple[int, int]:
        """How many good and how many bad events there were since the last reset, whatever is still kept."""
        self._judge()
        with self._lock:
            return self._good_count, self._bad_count

    def excerpt(self, limit: int, after: Optional[int] = None, before: Optional[int] = None) -> Excerpt:
        """Get the newest events.

        Args:
            limit: How many at most.
            after: Only those with a higher serial number.
            before: Only those with a lower serial number.
        """
        self._judge()
        with self._lock:
            following = self._good_count + self._bad_count + 1
            oldest = following - len(self._kept)
            stop = following if before is None else max(oldest, min(before, following))
            start = max(oldest, stop - limit, 0 if after is None else after + 1)
            events = [(serial, self._kept[serial - oldest]) for serial in range(stop - 1, start - 1, -1)]
            return Excerpt(self._generation, self._good_count, self._bad_count, oldest, events)

    def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait for something that arrivals or a reset may bring about; see `Changes`."""
        return self._changes.wait_until(condition, timeout)

    def reset(self) -> None:
        """Forget everything. Quick: may be called with a lock held."""
        with self._lock:
            self._begin()
            self._changes.note()

    def _begin(self) -> None:
        self._generation = uuid4().hex
        # Each with what it takes of the memory, which is 0 if nobody cares.
        self._unjudged: Deque[Tuple[CollectedRequest, int]] = deque()
        self._unjudged_payloads = 0
        self._unjudged_bytes = 0
        self._kept: Recent[JudgedEvent] = Recent(self._max_events, _MAX_KEPT_BYTES)
        self._good_count = 0
        self._bad_count = 0

    def _judged(self) -> List[JudgedEvent]:
        self._judge()
        with self._lock:
            return list(self._kept)

    def _judge(self) -> None:
        """Judge all that has arrived so far; what arrives meanwhile is left to the next who asks."""
        with self._judging:
            with self._lock:
                generation = self._generation
                waiting = len(self._unjudged)
            for _ in range(waiting):
                with self._lock:
                    if generation != self._generation:
                        return
                    request, size_bytes = self._unjudged.popleft()
                    self._unjudged_payloads -= len(request.payloads)
                    self._unjudged_bytes -= size_bytes
                events = self._pipeline.judge_request(request)
                sizes = self._measured(events, size_bytes)
                with self._lock:
                    # Events that were being judged during a reset belong to the time before it.
                    if generation != self._generation:
                        return
                    for event, size in zip(events, sizes):
                        self._kept.add(event, size)
                    good = sum(isinstance(event, GoodEvent) for event in events)
                    self._good_count += good
                    self._bad_count += len(events) - good

    def _measured(self, events: List[JudgedEvent], size_bytes: int) -> List[int]:
        """Tell what events take of the memory, if that matters, each with its share in the request that they keep."""
        if self._max_events is None:
            return [0] * len(events)
        return [size_bytes // len(events) + _event_bytes(event) for event in events]


def _event_bytes(event: JudgedEvent) -> int:
    if isinstance(event, BadEvent):
        return held_bytes(event.payload, event.errors)
    return held_bytes(event.payload, event.data, event.contexts, event.fields)
