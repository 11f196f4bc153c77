"""What the log and callbacks are told, and how often something that keeps happening is worth a line."""

import logging
import threading
import time
from typing import Any, Callable, Dict, Hashable, Optional

from .typing import FailureCallback, PayloadDict

__all__ = ["Drops", "Occurrences", "call_back"]

logger = logging.getLogger(__name__)

_DROPS_REPORTED_EVERY_SECONDS = 10.0


class Occurrences:
    """Reports the first occurrence at once, and those that follow as a sum, at most once per interval.

    The lock guards the counts; nothing else runs while it is held.
    """

    def __init__(self, interval_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._lock = threading.RLock()
        self._unreported: Dict[Hashable, int] = {}
        self._reported_at: Dict[Hashable, float] = {}

    def add(self, kind: Hashable, count: int = 1) -> int:
        """Count occurrences of a kind.

        Returns:
            How many to report now; 0 if the next report is not due yet.
        """
        with self._lock:
            self._unreported[kind] = self._unreported.get(kind, 0) + count
            now = self._clock()
            if now - self._reported_at.get(kind, -self._interval_seconds) < self._interval_seconds:
                return 0
            self._reported_at[kind] = now
            # A signal handler may have reported this one as well, together with its own.
            return self._unreported.pop(kind, 0)

    def take_unreported(self) -> Dict[Hashable, int]:
        """Return what no report has told yet, and begin anew: the next occurrence is again the first of its kind."""
        with self._lock:
            unreported, self._unreported = self._unreported, {}
            self._reported_at = {}
            return unreported


class _Telling(threading.local):
    """Whether a thread is inside the callback that is told of a dropped payload."""

    is_under_way = False


class Drops:
    """Tells of payloads that were not accepted: the log first at once and then in sums, a callback of each."""

    def __init__(self) -> None:
        self.occurrences = Occurrences(_DROPS_REPORTED_EVERY_SECONDS)
        self.telling = _Telling()

    def report(
        self,
        payload: PayloadDict,
        reason: str,
        error: Optional[Exception],
        on_failure: Optional[FailureCallback],
    ) -> None:
        """Tell of one payload.

        Args:
            payload: What was dropped.
            reason: Why.
            error: What the event store has raised.
            on_failure: Called with 0 and the payload. One that puts the payload in again is not called for that.
        """
        drops = self.occurrences.add(reason)
        if drops:
            logger.error("Dropped %d payloads: %s", drops, reason, exc_info=error)
        if on_failure is not None and not self.telling.is_under_way:
            try:
                # Ctrl-C may come in the end of a block as well. So there are two, and one of them is not hit.
                try:
                    self.telling.is_under_way = True
                    call_back(on_failure, 0, [payload])
                finally:
                    self.telling.is_under_way = False
            finally:
                self.telling.is_under_way = False

    def report_rest(self) -> None:
        """Tell the log what no sum has told yet."""
        for reason, count in self.occurrences.take_unreported().items():
            logger.error("Dropped %d payloads: %s", count, reason)


def call_back(callback: Callable[..., Any], *arguments: Any) -> None:
    """Call a callback of the application's, and log what it raises."""
    try:
        callback(*arguments)
    except Exception:
        logger.exception("A callback failed: %r", callback)
