"""Flush an emitter later, once or again and again."""

import logging
import threading
import time
import weakref
from typing import Optional

from ._settings import positive_number
from .typing import EmitterProtocol

__all__ = ["FlushTimer"]

logger = logging.getLogger(__name__)


class FlushTimer:
    """Calls an emitter's `flush` when a time is over, from one thread that exists only while the timer is active.

    It does not keep the emitter alive. The lock guards all attributes; the flush runs without it.
    """

    def __init__(self, emitter: EmitterProtocol, repeating: bool) -> None:
        """Make no appointment yet.

        Args:
            emitter: What to flush; `flush` is looked up at each call.
            repeating: Whether to begin again after each flush. A flush that takes longer than the interval delays the
                next one.
        """
        self._emitter = weakref.ref(emitter)
        self._repeating = repeating
        self.reset()

    def reset(self) -> None:
        """Begin anew without a thread and without an appointment, as a forked child must."""
        # To take the lock is one step. To take the condition is not, and Ctrl-C in it would leave it taken for ever.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._interval_seconds = 0.0
        self._due_at: Optional[float] = None
        # Tells an appointment from a later one; `_flushing_for` is the one whose flush was begun last.
        self._appointments = 0
        self._flushing_for = 0
        self._thread: Optional[threading.Thread] = None

    def start(self, timeout: float) -> None:
        """Flush in so many seconds; an appointment made before is forgotten.

        Args:
            timeout: Seconds, positive.

        Raises:
            TypeError: The timeout is no number.
            ValueError: The timeout is not positive.
        """
        positive_number("timeout", timeout)
        with self._lock:
            self._interval_seconds = timeout
            self._due_at = time.monotonic() + timeout
            self._appointments += 1
            if self.has_thread():
                self._changed.notify_all()
                return
            self._thread = threading.Thread(target=self._run, name="snowplow-flush-timer", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                # Out of threads, or the interpreter is shutting down. The timer counts as active until the appointment,
                # so that a backoff lasts as long as it should; then the next flush is the emitter's own affair.
                self._thread = None

    def cancel(self) -> None:
        """Forget the appointment. A flush that has begun goes on."""
        with self._lock:
            self._due_at = None
            self._appointments += 1
            self._changed.notify_all()

    def is_active(self) -> bool:
        """Tell whether a flush is ahead."""
        with self._lock:
            return self._due_at is not None and (self.has_thread() or time.monotonic() < self._due_at)

    def remaining_seconds(self) -> float:
        """Return the seconds until the next flush; 0.0 if it is due or the timer is not active."""
        with self._lock:
            return 0.0 if self._due_at is None else max(0.0, self._due_at - time.monotonic())

    def has_thread(self) -> bool:
        """Tell, without a lock, whether there is a thread that flushes or waits to."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _run(self) -> None:
        while self._wait_until_due():
            emitter = self._emitter()
            if emitter is None:
                self.cancel()
                continue
            try:
                emitter.flush()
            except BaseException:
                # A SystemExit of a callback, too: there is nobody here to exit, and the next appointment may be made.
                logger.exception("A flush by timer failed")
            del emitter
            self._make_next_appointment()

    def _wait_until_due(self) -> bool:
        """Wait for the appointment; False if there is none any more, and the thread must end."""
        with self._lock:
            while self._due_at is not None:
                appointment = self._appointments
                remaining = self._due_at - time.monotonic()
                # A frozen clock (in tests of applications) never gets there, so a wait that timed out counts as well.
                is_due = remaining <= 0 or not self._changed.wait(min(remaining, threading.TIMEOUT_MAX))
                if is_due and appointment == self._appointments:
                    self._flushing_for = appointment
                    if not self._repeating:
                        self._due_at = None
                    return True
            self._thread = None
            return False

    def _make_next_appointment(self) -> None:
        with self._lock:
            if self._repeating and self._flushing_for == self._appointments:
                self._due_at = time.monotonic() + self._interval_seconds
