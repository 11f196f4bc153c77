"""What a command says on stderr while it works: messages, and a bar below them where that is a terminal."""

import logging
import os
import sys
import threading
import time
from typing import Callable, Optional, Set

from typing_extensions import Self

from .usage import complain

__all__ = ["LogLines", "Progress"]

_REDRAWN_EVERY_SECONDS = 0.1
_BAR_CHARACTERS = 24
_DEFAULT_COLUMNS = 80


class Progress:
    """A bar on the last line of a terminal. Any thread may say something; one draws the bar.

    The lock guards what is on the screen.
    """

    def __init__(self, describe: Callable[[float], str], share: Callable[[], Optional[float]]) -> None:
        """Draw nothing yet.

        Args:
            describe: Gives the text behind the bar, for the seconds since the beginning.
            share: Tells how much is done, from 0 to 1; None if that is unknown.
        """
        self._describe = describe
        self._share = share
        self._is_on = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._began_at = time.monotonic()
        self._drawn_at = 0.0
        self._drawn_characters = 0

    @property
    def is_shown(self) -> bool:
        """Tell whether there is a terminal to draw on."""
        return self._is_on

    def draw(self) -> None:
        """Bring the bar up to date, unless that was done a moment ago."""
        if not self._is_on:
            return
        now = time.monotonic()
        if now - self._drawn_at >= _REDRAWN_EVERY_SECONDS:
            self._drawn_at = now
            with self._lock:
                self._write(self._line(now - self._began_at))

    def say(self, message: str) -> None:
        """Print a message above the bar."""
        with self._lock:
            self._write("")
            complain(message)

    def end(self) -> None:
        """Take the bar away."""
        with self._lock:
            self._write("")

    def _line(self, seconds: float) -> str:
        share = self._share()
        bar = ""
        if share is not None:
            full = int(share * _BAR_CHARACTERS)
            bar = f"[{'#' * full}{'-' * (_BAR_CHARACTERS - full)}] {share:4.0%}  "
        return (bar + self._describe(seconds))[: _columns() - 1]

    def _write(self, line: str) -> None:
        """Replace what is there."""
        if line or self._drawn_characters:
            blanks = " " * (self._drawn_characters - len(line))
            sys.stderr.write(f"\r{line}{blanks}" if line else f"\r{blanks}\r")
            sys.stderr.flush()
            self._drawn_characters = len(line)


class LogLines(logging.Handler):
    """Has a logger of the library tell its news in lines, inside of a `with` statement.

    A line begins with its level if that is something to be alarmed about.

    Attributes:
        failed: The names of the loggers that have told errors.
    """

    def __init__(self, say: Callable[[str], None], logger: logging.Logger, *, tells_losses: bool = False) -> None:
        """Tell nothing yet.

        Args:
            say: Called with each line.
            logger: Whose records to tell, from `INFO` on.
            tells_losses: Whether to tell errors too, for a command that has nothing to say of them itself.
        """
        super().__init__(logging.INFO)
        self._say = say
        self._logger = logger
        self._tells_losses = tells_losses
        self._level_before = logger.level
        self.failed: Set[str] = set()

    def __enter__(self) -> Self:
        self._level_before = self._logger.level
        self._logger.addHandler(self)
        self._logger.setLevel(logging.INFO)
        return self

    def __exit__(self, *exception: object) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level_before)

    def emit(self, record: logging.LogRecord) -> None:
        """Say a line, with the reason instead of its traceback."""
        if record.levelno >= logging.ERROR and not self._tells_losses:
            return
        if record.levelno >= logging.ERROR:
            self.failed.add(record.name)
        level = f"{record.levelname} " if record.levelno >= logging.WARNING else ""
        error = record.exc_info[1] if record.exc_info else None
        self._say(f"{level}{record.getMessage()}" if error is None else f"{level}{record.getMessage()}: {error}")


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _DEFAULT_COLUMNS
    except OSError:
        return _DEFAULT_COLUMNS
