"""Waiting for what changes may bring about."""

import threading
import time
from typing import Any, Callable

__all__ = ["Changes"]


class Changes:
    """Counts the changes of something that a lock guards, so that others can wait for what these bring about."""

    def __init__(self, lock: Any) -> None:
        """Begin without a change.

        Args:
            lock: Held by those who note a change.
        """
        self._changed = threading.Condition(lock)
        self._count = 0

    def note(self) -> None:
        """Wake up those who wait, with the lock held."""
        self._count += 1
        self._changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait for something that changes may bring about.

        Args:
            condition: Tells whether it is so; called without the lock, because it may be the test's own code, at the
                beginning, after changes, and in the end.
            timeout: How long to wait, in seconds.

        Returns:
            Whether it came to be so in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                seen = self._count
            is_late = time.monotonic() >= deadline
            if condition():
                return True
            if is_late:
                return False
            self._wait_for_change(seen, deadline - time.monotonic())

    def _wait_for_change(self, seen: int, timeout: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count != seen, timeout)
