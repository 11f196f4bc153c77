"""The command that sends lines of JSON."""

import argparse
import contextlib
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, Iterator, List, Optional

from ..emitters import AsyncEmitter, logger as emitter_logger
from ..tracker import Tracker
from .exit_codes import FAILURE, NOT_DELIVERED, SUCCESS
from .flow import MAX_PAYLOADS, Flow
from .interruption import Interruption
from .json_lines import MAX_LINE_BYTES, Line, payload_of, read_line
from .progress import LogLines, Progress
from .proxy import no_proxy_before
from .usage import UsageError, add_command, add_endpoint_options, complain, endpoint_of, failure_reason
from .values import argument, positive_seconds, whole_number

__all__ = ["add_to"]

_TIMEOUT_SECONDS = 60.0
_TIMEOUT_AFTER_INTERRUPTION_SECONDS = 5.0
_MAX_RETRY_DELAY_SECONDS = 30.0
# What has been read goes out after this time at the latest, if more comes slowly.
_FLUSH_INTERVAL_SECONDS = 1.0
_BATCH_SIZE = 500
_SIGNAL_EXIT_CODE = 128
_OUTAGE_TOLD_EVERY_SECONDS = 30.0
# No line in UTF-8 begins so.
_GZIP = b"\x1f\x8b"

_DESCRIPTION = f"""\
Send JSON Lines to a collector: one object a line, in UTF-8, each one of these:

  {{"schema": "iglu:...", "data": {{...}}}}   a self-describing event, with, if you like,
      "contexts": [{{"schema": "iglu:...", "data": {{...}}}}, ...]
      "subject": {{"user_id": "...", "platform": "srv", ...}}   by the names of the
           options of `track`, with underscores
      "timestamp": when it really happened: milliseconds since 1970 (not seconds), or
           ISO 8601, which is local time unless it ends in Z or an offset such as +02:00
      "event_id": a UUID; another one each time the line is sent if there is none
  {{"e": "pv", "url": "...", ...}}   a payload, by its names on the wire, with text or
      numbers. It is sent as it is; only tv, tna, aid, p, eid and dtm are added where
      they lack, and stm, when it is sent. A name that no payload has makes the line a
      bad one, because the pipeline would throw away all that is sent along with it.

Blank lines are skipped. A bad line, or one of more than {MAX_LINE_BYTES:,} bytes, is reported
with its number, and skipped too. Memory is bounded: while {MAX_PAYLOADS:,} payloads are under
way, or the collector is down, the input waits. If nothing at all could be delivered
within --timeout, there is no collector, and the reading ends; once something was, an
outage is waited for, however long it takes. Lines are delivered in their order.
"""

_EPILOG = """\
In the end there is a line `read N, delivered N, rejected N, failed N`: lines that hold
something, those that the collector took, those that are bad or that it refused for
good, and those that were not delivered in time. If it makes sense to go on, a line on
stderr tells from where; what was sent when the time was over may then arrive twice: as
one event with one id, if the line has event_id or eid.

Ctrl-C and SIGTERM end the reading; what has been read is sent within 5 seconds. A
second one ends at once.

The exit code is
  0    if all lines were delivered,
  1    if a line was bad or refused, the input could not be read to its end, or
       --from-line is beyond that,
  2    if the arguments are wrong, or the input is compressed,
  3    if lines were not delivered in time: go on from the line that stderr tells,
  130  if Ctrl-C ended it (143: SIGTERM).

example:
  snowplow-tracker send --endpoint http://127.0.0.1:9090 events.jsonl
  gzip -dc events.jsonl.gz | snowplow-tracker send --endpoint https://collector.example
"""


def add_to(commands: Any) -> None:
    """Add this command to those of the program."""
    parser = add_command(
        commands,
        "send",
        summary="send events from a file or the standard input, one a line",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        command=_send,
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default="-", help="what to read (default: -, the standard input)"
    )
    add_endpoint_options(parser)
    parser.add_argument("--app-id", metavar="NAME", help="name of the application, for events that have none")
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        default="command-line",
        help="name of the tracker, for events that have none (default: %(default)s)",
    )
    parser.add_argument("--strict", action="store_true", help="stop at a bad line, once all before it are sent")
    parser.add_argument(
        "--from-line",
        metavar="N",
        type=argument(_line_number),
        default=1,
        help="skip the lines before this one (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=argument(positive_seconds),
        default=_TIMEOUT_SECONDS,
        help="how long to go on trying when the input has ended, or when nothing was ever delivered "
        "(default: %(default)g)",
    )


def _line_number(value: str) -> int:
    number = whole_number(value)
    if number < 1:
        raise ValueError(f"must be 1 or more, got {number}")
    return number


def _send(options: argparse.Namespace) -> int:
    try:
        emitter = AsyncEmitter(
            endpoint_of(options),
            options.protocol,
            batch_size=_BATCH_SIZE,
            buffer_capacity=MAX_PAYLOADS,
            max_retry_delay_seconds=_MAX_RETRY_DELAY_SECONDS,
            flush_interval=_FLUSH_INTERVAL_SECONDS,
            flush_on_exit=False,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    with _opened(options.file) as stream, no_proxy_before(emitter.endpoint), Interruption() as interruption:
        return _Sending(stream, emitter, options, interruption).run()


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        if sys.stdin is None:
            raise UsageError("there is no standard input to read")
        yield sys.stdin.buffer
        return
    try:
        stream = Path(name).open("rb")  # noqa: SIM115  # closed below; what fails here is the opening, not the reading
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from None
    with stream:
        yield stream


class _StopReadingError(Exception):
    """There is no use in reading on; the message says why."""


class _NoCollectorError(_StopReadingError):
    """Nothing could be delivered so far, and there is no use in trying on."""


class _Sending:
    """One run of the command."""

    def __init__(
        self, stream: BinaryIO, emitter: AsyncEmitter, options: argparse.Namespace, interruption: Interruption
    ) -> None:
        self._stream = stream
        self._emitter = emitter
        self._options = options
        self._interruption = interruption
        self._tracker = Tracker(options.namespace, emitter, app_id=options.app_id)
        self._total_bytes = _size_of(stream)
        self._progress = Progress(self._describe, self._share)
        self._flow = Flow(emitter, self._report_rejected)
        # Of the line that was read last.
        self._number = 0
        # When the first line was under way.
        self._began_at: Optional[float] = None
        self._is_beyond_the_end = False
        self._read = 0
        self._bad = 0
        # Where to resume, even if all that was read is settled.
        self._next_number: Optional[int] = None

    def run(self) -> int:
        with LogLines(self._progress.say, emitter_logger):
            timeout, signals = self._options.timeout, 1
            try:
                self._read_all()
            except _NoCollectorError as error:
                timeout = 0
                self._progress.say(str(error))
            except _StopReadingError as error:
                self._progress.say(str(error))
            except KeyboardInterrupt:
                self._next_number = self._number + 1
                # The one that ended the reading does not end the sending.
                timeout, signals = min(timeout, _TIMEOUT_AFTER_INTERRUPTION_SECONDS), 2
                self._progress.say(f"interrupted: sending what has been read, for {timeout:g} s at most")
            self._close(timeout, signals)
            self._progress.end()
        return self._report()

    def _read_all(self) -> None:
        while True:
            line = self._next_line()
            if line is None:
                # One more is where a run that had read all was told to resume.
                if self._options.from_line > self._number + 1:
                    self._is_beyond_the_end = True
                    raise _StopReadingError(
                        f"--from-line {self._options.from_line} is beyond the end: the input has {self._number} lines"
                    )
                return
            self._number += 1
            if self._number == 1 and line.content.startswith(_GZIP):
                name = "FILE" if self._options.file == "-" else self._options.file
                raise UsageError(f"the input is compressed: use gzip -dc {name} | snowplow-tracker send")
            if self._number >= self._options.from_line and line.content.strip():
                self._take(line)
            self._progress.draw()

    def _next_line(self) -> Optional[Line]:
        interruption = self._interruption
        interruption.may_raise = True
        try:
            interruption.check()
            return read_line(self._stream)
        except OSError as error:
            self._next_number = self._number + 1
            raise _StopReadingError(f"line {self._next_number}: cannot be read: {error.strerror}") from None
        finally:
            interruption.may_raise = False

    def _take(self, line: Line) -> None:
        try:
            payload = payload_of(line, self._tracker)
        except ValueError as error:
            self._read += 1
            self._bad += 1
            message = f"line {self._number}: {error}"
            if self._options.strict:
                self._next_number = self._number
                raise _StopReadingError(message) from None
            self._progress.say(message)
            return
        self._wait_for_room()
        self._read += 1
        if self._began_at is None:
            self._began_at = time.monotonic()
        self._flow.put(payload, self._number, len(line.content))

    def _wait_for_room(self) -> None:
        """Wait until the line that was read last can be under way, too.

        Raises:
            KeyboardInterrupt: If a signal came.
            _NoCollectorError: If nothing has been delivered within the timeout.
        """
        waits_since = told_at = time.monotonic()
        while self._flow.is_full():
            self._progress.draw()
            self._flow.wait_a_while()
            if self._interruption.signal is not None:
                # This line is not under way yet, so it is read again when the rest is sent.
                self._number -= 1
                raise KeyboardInterrupt
            now = time.monotonic()
            if self._has_no_collector(now):
                self._next_number = self._number
                raise _NoCollectorError(f"nothing could be delivered within {self._options.timeout:g} s: giving up")
            if now - told_at >= _OUTAGE_TOLD_EVERY_SECONDS:
                told_at = now
                self._progress.say(f"no answer for {now - waits_since:.0f} s: {self._reason()}; Ctrl-C ends it")

    def _has_no_collector(self, now: float) -> bool:
        began_at = now if self._began_at is None else self._began_at
        return now - began_at >= self._options.timeout and not self._emitter.stats().delivered

    def _close(self, timeout: float, signals: int) -> None:
        """Send the rest, until the time is up, or so many signals have come."""
        interruption = self._interruption
        try:
            interruption.may_raise = True
            interruption.check(signals)
            self._emitter.close(timeout)
        except KeyboardInterrupt:
            self._emitter.close(0)
        finally:
            interruption.may_raise = False

    def _report(self) -> int:
        stats = self._emitter.stats()
        failed = self._read - self._bad - stats.delivered - stats.rejected
        resume_at = self._flow.first_unsettled() or self._next_number
        if failed and self._interruption.signal is None:
            complain(f"not delivered in time: {self._reason()}")
        if resume_at is not None:
            complain(f"resume from line {resume_at}: --from-line {resume_at}")
        rejected = self._bad + stats.rejected
        print(f"read {self._read}, delivered {stats.delivered}, rejected {rejected}, failed {failed}")
        if self._interruption.signal is not None:
            return _SIGNAL_EXIT_CODE + self._interruption.signal
        if failed:
            return NOT_DELIVERED
        is_done = self._next_number is None and not self._is_beyond_the_end
        return SUCCESS if stats.delivered == self._read and is_done else FAILURE

    def _reason(self) -> str:
        return failure_reason(self._emitter.stats(), self._emitter.endpoint, endpoint_of(self._options))

    def _report_rejected(self, numbers: List[int], status: Optional[int]) -> None:
        lines = f"line {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} of lines {numbers[0]} to {numbers[-1]}"
        self._progress.say(f"{lines}: refused for good: the collector answered {status}")

    def _describe(self, seconds: float) -> str:
        delivered = self._emitter.stats().delivered
        return f"{self._read:,} read, {delivered:,} delivered, {delivered / max(seconds, 0.001):,.0f}/s"

    def _share(self) -> Optional[float]:
        return min(1.0, self._stream.tell() / self._total_bytes) if self._total_bytes else None


def _size_of(stream: BinaryIO) -> int:
    """Give the size of a file; 0 of what has none, such as a pipe."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
