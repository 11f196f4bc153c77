"""Payloads on their way through an emitter: never too many of them, and each known by its line."""

import threading
from collections import deque
from typing import Callable, Deque, List, NamedTuple, Optional

from ..emitters import AsyncEmitter
from ..typing import PayloadDict, PayloadDictList

__all__ = ["Flow", "MAX_BYTES", "MAX_PAYLOADS"]

MAX_PAYLOADS = 4_000
# Of the lines that the payloads came from.
MAX_BYTES = 8_000_000

# Only in case that a signal comes in the moment before the waiting, which it then does not end.
_LONGEST_WAIT_SECONDS = 1.0


class _UnderWay(NamedTuple):
    number: int
    size: int
    eid: str


class Flow:
    """Hands payloads to an emitter that sends them in order, in one thread, by POST.

    So they are settled in that order too: when some are, these are the oldest. `_changed` guards what is under way
    against the emitter's thread, which takes away what is settled.
    """

    def __init__(self, emitter: AsyncEmitter, report_rejected: Callable[[List[int], Optional[int]], None]) -> None:
        """Become the emitter's callbacks.

        Args:
            emitter: An emitter with a `buffer_capacity` of at least `MAX_PAYLOADS`.
            report_rejected: Told the numbers of the lines that the collector has refused, and its last status; called
                in the emitter's thread.
        """
        self._emitter = emitter
        self._report_rejected = report_rejected
        self._changed = threading.Condition()
        self._under_way: Deque[_UnderWay] = deque()
        self._bytes_in = self._bytes_out = 0
        self._settled = 0
        emitter.on_success = self._settle
        emitter.on_failure = self._settle_without_success

    def put(self, payload: PayloadDict, number: int, size: int) -> None:
        """Send a payload, which must not be one too many.

        Args:
            payload: With an event id.
            number: Of its line.
            size: Of its line, in bytes.
        """
        self._under_way.append(_UnderWay(number, size, str(payload["eid"])))
        self._bytes_in += size
        self._emitter.input(payload)

    def is_full(self) -> bool:
        """Tell whether another payload would be one too many."""
        return len(self._under_way) >= MAX_PAYLOADS or self._bytes_in - self._bytes_out >= MAX_BYTES

    def wait_a_while(self) -> None:
        """Wait until payloads are settled, or an attempt failed, or a second is over; not at all if there is room."""
        with self._changed:
            if self.is_full():
                self._changed.wait(_LONGEST_WAIT_SECONDS)

    def first_unsettled(self) -> Optional[int]:
        """Give the number of the oldest line under way; None if there is none."""
        with self._changed:
            return self._under_way[0].number if self._under_way else None

    def _settle(self, delivered: PayloadDictList) -> None:
        delivered_eids = {payload["eid"] for payload in delivered}
        stats = self._emitter.stats()
        rejected: List[int] = []
        with self._changed:
            while self._settled < stats.delivered + stats.rejected:
                settled = self._under_way.popleft()
                self._settled += 1
                self._bytes_out += settled.size
                if settled.eid not in delivered_eids:
                    rejected.append(settled.number)
            self._changed.notify_all()
        if rejected:
            self._report_rejected(rejected, stats.last_status)

    def _settle_without_success(self, delivered_count: int, not_delivered: PayloadDictList) -> None:  # noqa: ARG002
        # If there was a success too, the other callback has been here before.
        self._settle([])
