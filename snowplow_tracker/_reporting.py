"""How often something that keeps happening is worth a log line."""

import threading
import time
from typing import Callable, Dict, Hashable

__all__ = ["Occurrences"]


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
            return self._unreported.pop(kind)

    def take_unreported(self) -> Dict[Hashable, int]:
        """Return what no report has told yet, and begin anew: the next occurrence is again the first of its kind."""
        with self._lock:
            unreported, self._unreported = self._unreported, {}
            self._reported_at = {}
            return unreported
