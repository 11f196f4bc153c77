"""The command that sends what waits in an event store."""

import argparse
import contextlib
import logging
import os
import queue
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, Optional

from .._sqlite_file import FILE_LOGGER, finish_log
from .._store_url import event_store_from_url
from ..emitters import AsyncEmitter
from ..typing import EmitterStats, EventStore
from .exit_codes import FAILURE, SUCCESS, WRONG_USAGE
from .interruption import Interruption
from .progress import LogLines, Progress
from .proxy import no_proxy_before
from .usage import UsageError, add_command, add_endpoint_options, complain, endpoint_of, failure_reason
from .values import argument, positive_seconds, whole_number

__all__ = ["add_to"]

_STORE_VARIABLE = "SNOWPLOW_STORE"
_TIMEOUT_SECONDS = 30.0
_MAX_RETRY_DELAY_SECONDS = 30.0
# How long a payload waits at the most before a forwarder without other work sees it.
_FLUSH_INTERVAL_SECONDS = 1.0
_TOLD_EVERY_SECONDS = 60.0
_LONGEST_WAIT_SECONDS = 1.0

_DESCRIPTION = f"""\
Send to a collector what others have put into an event store, and go on with what they
put in, until stopped. The URL of the store is one of these:

  sqlite:///relative/path.db    sqlite:////absolute/path.db
  redis://host:6379/0           rediss://host (with TLS)      unix:///path/of/a/socket

and may set options of the store, as in `sqlite:///events.db?max_age=86400`. Several
forwarders may work on one store at once, on several machines if it is in Redis: each
payload is sent by one of them. They, too, deliver at least once: what a forwarder was
sending when it was killed is sent again.

Payloads leave oldest first (about so with several threads), in requests of up to
900,000 bytes. While the collector is down, they stay in the store, and it is tried
after a pause of up to {_MAX_RETRY_DELAY_SECONDS:g} s. While the store is down, so is it. An empty store
is looked at once a second.
"""

_EPILOG = f"""\
Ctrl-C and SIGTERM end it: no more requests begin, and those under way are waited for.
A second one ends at once. In the end there is a line `delivered N, rejected N, left N
in the store`: payloads that the collector took from this forwarder, those that it
refused for good, and those that wait for the next one. If some were lost because of
max_age, there is `too old N`, and if others are sending some, `N under way elsewhere`
(only with --once, which waits for them): if their sender is gone, they come back to the
store when its lease ends.

On a terminal the last line shows how far it is. Elsewhere there is a line every {_TOLD_EVERY_SECONDS:g} s
on stderr, unless nothing has changed. In both cases the log of the library is there
as well: outages (WARNING), recoveries and losses (ERROR).

The exit code is
  0  if Ctrl-C or SIGTERM ended it; with --once, if the store is empty,
  1  if payloads were refused for good, were too old (max_age), were still being sent
     in the end, or were in a file that is corrupt; with --once, also if any are left,
     or under way elsewhere,
  2  if the arguments are wrong, or the store cannot be opened.

examples:
  snowplow-tracker forward --store sqlite:////var/lib/shop/events.db \\
      --endpoint https://collector.example
  SNOWPLOW_STORE=redis://:password@host SNOWPLOW_ENDPOINT=https://collector.example \\
      snowplow-tracker forward --once
"""


def add_to(commands: Any) -> None:
    """Add this command to those of the program."""
    parser = add_command(
        commands,
        "forward",
        summary="send what waits in an event store, until stopped",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        command=_forward,
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help=f"the event store (default: the environment variable {_STORE_VARIABLE}, which is the better place for a "
        "URL with a password)",
    )
    add_endpoint_options(parser)
    parser.add_argument(
        "--once", action="store_true", help="send what waits, and end, instead of waiting for more; for jobs"
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=argument(_thread_count),
        default=1,
        help="how many requests to have under way side by side (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=argument(positive_seconds),
        default=_TIMEOUT_SECONDS,
        help="how long to wait in the end for requests under way; with --once, also how long to go on trying while "
        "nothing is delivered (default: %(default)g)",
    )


def _thread_count(value: str) -> int:
    count = whole_number(value)
    if not 1 <= count <= 100:
        raise ValueError(f"must be between 1 and 100, got {count}")
    return count


def _forward(options: argparse.Namespace) -> int:
    try:
        store = event_store_from_url(_store_url_of(options))
        emitter = AsyncEmitter(
            endpoint_of(options),
            options.protocol,
            thread_count=options.threads,
            event_store=store,
            max_retry_delay_seconds=_MAX_RETRY_DELAY_SECONDS,
            flush_on_exit=False,
        )
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from None
    with no_proxy_before(emitter.endpoint), Interruption() as interruption:
        return _Forwarding(store, emitter, options, interruption).run()


def _store_url_of(options: argparse.Namespace) -> str:
    url = options.store or os.environ.get(_STORE_VARIABLE)
    if not url:
        raise UsageError(f"--store or the environment variable {_STORE_VARIABLE} must name the event store")
    if url.strip().lower().startswith("memory:"):
        raise UsageError("a store in memory has nothing that others have put in; name a file or a Redis")
    return str(url)


class _Rest(NamedTuple):
    """What is not settled.

    Attributes:
        left: What waits, and what is in flight here; None if the store cannot tell.
        elsewhere: What is in flight elsewhere; 0 where nobody asks for that.
    """

    left: Optional[int] = None
    elsewhere: int = 0


class _Forwarding:
    """One run of the command.

    The emitter's threads do the work. The main thread waits for news of them, and for signals.
    """

    def __init__(
        self, store: EventStore, emitter: AsyncEmitter, options: argparse.Namespace, interruption: Interruption
    ) -> None:
        # A durable one has more methods than `EventStore` asks for.
        self._store: Any = store
        self._emitter = emitter
        self._options = options
        self._interruption = interruption
        self._progress = Progress(self._describe, self._share)
        # A queue of this kind may be put into by a signal handler, whatever that interrupts.
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._store_error: Optional[Exception] = None
        self._told = ""
        self._tell_at = time.monotonic() + _TOLD_EVERY_SECONDS
        emitter.on_success = emitter.on_failure = interruption.wake = self._wake

    def run(self) -> int:
        with LogLines(self._progress.say, logging.getLogger("snowplow_tracker"), tells_losses=True) as log_lines:
            # Why it cannot be opened is told in the end, and not as an outage.
            log_lines.setLevel(logging.ERROR)
            waiting = self._open()
            finish_log()
            if waiting is None:
                return WRONG_USAGE
            log_lines.setLevel(logging.INFO)
            if self._options.once:
                self._send_once()
            else:
                self._progress.say(f"forwarding to {self._emitter.endpoint}; {waiting} wait in the store")
                self._send_until_stopped()
            # From now on, what is not delivered is told by the closing line.
            log_lines.setLevel(logging.WARNING)
            self._end()
            self._progress.end()
            exit_code = self._report()
            finish_log()
        # What it tells as an error is lost.
        return FAILURE if FILE_LOGGER in log_lines.failed else exit_code

    def _open(self) -> Optional[int]:
        """Open the store, and return how many payloads wait in it; None if that is impossible."""
        file = getattr(self._store, "path", None)
        try:
            is_new = file is not None and not Path(file).exists()
            # An outage is waited for later. Now it is more likely that something is wrong with the URL.
            waiting: int = self._store.size()
        except Exception as error:
            complain(f"the store cannot be opened: {error}")
            return None
        if is_new:
            # A mistyped path would look like a store that was emptied.
            complain(f"{file} did not exist, and was created")
        return waiting

    def _send_until_stopped(self) -> None:
        self._begin()
        while self._interruption.signal is None:
            self._wait()
            self._progress.draw()
            self._tell()

    def _send_once(self) -> None:
        self._begin()
        # What a forwarder that died was sending is handed out, though it does not count as waiting. So nothing is
        # concluded from figures before the store was asked.
        was_asked = self._when_idle()
        settled, settled_at = 0, time.monotonic()
        while self._interruption.signal is None and not (was_asked.is_set() and self._rest() == (0, 0)):
            stats = self._emitter.stats()
            if stats.delivered + stats.rejected > settled:
                settled, settled_at = stats.delivered + stats.rejected, time.monotonic()
            elif time.monotonic() - settled_at >= self._options.timeout:
                self._progress.say(f"nothing delivered for {self._options.timeout:g} s: {self._reason(stats)}")
                return
            self._wait()
            self._progress.draw()
            self._tell()

    def _reason(self, stats: EmitterStats) -> str:
        """Tell why nothing is delivered."""
        left, elsewhere = self._rest()
        if left is None:
            return str(self._store_error)
        if elsewhere and not left:
            return f"{elsewhere} under way elsewhere"
        if stats.last_status is None:
            return "the store hands nothing out"
        return failure_reason(stats, self._emitter.endpoint, endpoint_of(self._options))

    def _begin(self) -> None:
        self._emitter.set_flush_timer(_FLUSH_INTERVAL_SECONDS)
        self._emitter.flush()

    def _end(self) -> None:
        """Begin nothing more, and wait for what is under way, until the time is up, or one more signal comes."""
        signals, timeout = self._interruption.count + 1, self._options.timeout
        began_at = time.monotonic()
        self._emitter.close(timeout=0)
        # A thread may have taken payloads that are not in the figures yet, so these cannot tell.
        is_idle = self._when_idle()
        has_told = False
        while not is_idle.is_set() and self._interruption.count < signals:
            seconds = time.monotonic() - began_at
            if seconds >= timeout:
                return
            if seconds >= _LONGEST_WAIT_SECONDS and not has_told:
                has_told = True
                self._progress.say(f"waiting for the collector, {timeout:g} s at most; a second signal ends at once")
            self._wait(timeout - seconds)

    def _report(self) -> int:
        stats, rest = self._emitter.stats(), self._rest()
        # Nothing can be done any more for what is in flight, so whoever comes next may have it at once.
        self._store.close()
        if stats.in_flight:
            complain(f"{stats.in_flight} were still being sent: they will be sent again, and may arrive twice")
        if rest.left is None:
            complain(f"it is unknown how many are left: {self._store_error}")
        print(self._sums(stats, rest))
        has_failed = stats.rejected or self._expired() or stats.in_flight or (self._options.once and rest != (0, 0))
        return FAILURE if has_failed else SUCCESS

    def _rest(self) -> _Rest:
        # In one step, lest a payload is overlooked that is taken meanwhile.
        with self._emitter.lock:
            try:
                # First, so that what comes back from there is in the size.
                elsewhere = self._store.in_flight_elsewhere() if self._options.once else 0
                return _Rest(self._store.size() + self._emitter.stats().in_flight, elsewhere)
            except Exception as error:
                self._store_error = error
                return _Rest()

    def _expired(self) -> int:
        """Count what the store has dropped because it was too old."""
        return int(getattr(self._store, "expired", 0))

    def _when_idle(self) -> threading.Event:
        """Return an event that is set when the emitter's threads have done all that they were told."""
        is_idle = threading.Event()

        def wait() -> None:
            self._emitter.queue.join()
            is_idle.set()
            self._wake()

        threading.Thread(target=wait, daemon=True).start()
        return is_idle

    def _wake(self, *_: object) -> None:
        self._news.put(None)

    def _wait(self, seconds: float = _LONGEST_WAIT_SECONDS) -> None:
        """Wait until payloads are settled, an attempt failed, a signal came, or a second is over."""
        with contextlib.suppress(queue.Empty):
            self._news.get(timeout=max(0.0, min(seconds, _LONGEST_WAIT_SECONDS)))

    def _tell(self) -> None:
        """Say at intervals how far it is, where no terminal shows it."""
        now = time.monotonic()
        if self._progress.is_shown or now < self._tell_at:
            return
        self._tell_at = now + _TOLD_EVERY_SECONDS
        stats = self._emitter.stats()
        sums = self._sums(stats, self._rest())
        if sums != self._told:
            self._told = sums
            self._progress.say(sums)

    def _sums(self, stats: EmitterStats, rest: _Rest) -> str:
        too_old = f", too old {self._expired()}" if self._expired() else ""
        left = "?" if rest.left is None else rest.left
        elsewhere = f", {rest.elsewhere} under way elsewhere" if rest.elsewhere else ""
        return f"delivered {stats.delivered}, rejected {stats.rejected}{too_old}, left {left} in the store{elsewhere}"

    def _describe(self, seconds: float) -> str:
        stats = self._emitter.stats()
        rate = stats.delivered / max(seconds, 0.001)
        return f"{stats.delivered:,} delivered, {rate:,.0f}/s, {stats.buffered + stats.in_flight:,} left"

    def _share(self) -> Optional[float]:
        if not self._options.once:
            return None
        stats = self._emitter.stats()
        settled = stats.delivered + stats.rejected
        return settled / max(1, settled + stats.buffered + stats.in_flight)
