"""Ctrl-C and SIGTERM, which end a command in good order."""

import signal
from typing import Any, Callable, Dict, Optional

from typing_extensions import Self

__all__ = ["Interruption"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Takes note of Ctrl-C and SIGTERM inside of a `with` statement, instead of what they do otherwise.

    They count even if the process was started to ignore them, as a shell does with what it runs in the background.

    Attributes:
        signal: The first that came; None so far.
        count: How many came.
        may_raise: Whether a signal raises `KeyboardInterrupt` besides. Only true while the main thread waits for
            something, so that it never leaves a step half done.
        wake: Called after each signal, in the signal handler; None for nothing.
    """

    def __init__(self) -> None:
        self.signal: Optional[int] = None
        self.count = 0
        self.may_raise = False
        self.wake: Optional[Callable[[], object]] = None
        self._handlers: Dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._take_note) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def check(self, count: int = 1) -> None:
        """Raise `KeyboardInterrupt` if so many signals have come."""
        if self.count >= count:
            raise KeyboardInterrupt

    def _take_note(self, number: int, frame: object) -> None:  # noqa: ARG002  # what a signal handler is called with
        self.count += 1
        if self.signal is None:
            self.signal = number
        if self.wake is not None:
            self.wake()
        if self.may_raise:
            raise KeyboardInterrupt
