"""The command that runs a collector and shows the events that arrive."""

import argparse
import threading
from collections import deque
from pathlib import Path
from typing import Any, Deque, List, Optional

from ..testing import CollectedRequest, LocalCollector
from .event_lines import event_line
from .exit_codes import SUCCESS, WRONG_USAGE
from .interruption import Interruption
from .usage import UsageError, add_command, complain
from .values import argument, port

__all__ = ["add_to"]

_PORT = 9090
_MAX_EVENTS = 5_000

_DESCRIPTION = f"""\
Run a collector on this machine that judges events as a pipeline does, and print each
one that arrives in a line: the time, good or BAD, the type of the event, what matters
of it, its application and namespace, and what is wrong with it first of all.

The collector has the REST API of Snowplow Micro (/micro/all, /micro/good, /micro/bad,
/micro/reset) and a page that shows the events live (/micro/ui). For these it keeps the
newest {_MAX_EVENTS:,} events and requests; older ones are forgotten, so that it can run for as
long as you like.
"""

_EPILOG = """\
Ctrl-C or SIGTERM ends it, with a line `good N, bad N, requests N`.

The exit code is
  0  if Ctrl-C or SIGTERM ended it,
  1  if nobody reads its output any more,
  2  if the arguments are wrong, or the port is taken.

examples:
  snowplow-tracker micro
  snowplow-tracker micro --port 9091 --schemas ./schemas
"""

# A wait without an end would keep Windows from noticing Ctrl-C.
_LONGEST_WAIT_SECONDS = 1.0


def add_to(commands: Any) -> None:
    """Add this command to those of the program."""
    parser = add_command(
        commands,
        "micro",
        summary="run a collector, and show the events that arrive, good and bad",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        command=_micro,
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=argument(port),
        default=_PORT,
        help="the port to listen on; 0 for any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="the address to listen on; 0.0.0.0 lets other machines send events, and read them (default: %(default)s)",
    )
    parser.add_argument(
        "--schemas",
        metavar="DIR",
        type=Path,
        help="a folder of schemas in the layout of an Iglu registry (vendor/name/jsonschema/1-0-0): then data is "
        "validated, and an unknown schema is bad; needs pip install 'snowplow-tracker[validation]'",
    )


def _micro(options: argparse.Namespace) -> int:
    try:
        collector = _WatchedCollector(options.host, options.port, options.schemas)
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from None
    with Interruption() as interruption:
        try:
            collector.start()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            complain(f"cannot listen on port {options.port} of {options.host}: {reason}")
            return WRONG_USAGE
        try:
            print(f"Collector at {collector.url} - the endpoint to give to a tracker", flush=True)
            print(f"Events live at {collector.url}/micro/ui - Ctrl-C ends it", flush=True)
            _print_until_end(collector, interruption)
        finally:
            collector.close()
    # A terminal that is held up holds this up too; then a signal does what it does by default.
    _print(collector.new_lines())
    print(collector.summary())
    return SUCCESS


def _print_until_end(collector: "_WatchedCollector", interruption: Interruption) -> None:
    """Print events until Ctrl-C, also if a line is stuck because nobody reads the output for a while.

    Raises:
        BrokenPipeError: If nobody reads the output any more.
    """
    try:
        while True:
            lines = collector.new_lines()
            interruption.may_raise = True
            _print(lines)
            interruption.check()
            collector.has_news.wait(_LONGEST_WAIT_SECONDS)
            interruption.may_raise = False
    except KeyboardInterrupt:
        return
    finally:
        interruption.may_raise = False


def _print(lines: List[str]) -> None:
    if not lines:
        return
    try:
        print("\n".join(lines), flush=True)
    except OSError:
        raise BrokenPipeError from None


class _WatchedCollector(LocalCollector):
    """Judges each request at once, and keeps a line for each of its events until it is printed.

    `_taking` guards the lines and the counts; nothing is printed with it, so that a request is answered however slowly
    the output is read. Then the oldest lines are forgotten.

    Attributes:
        has_news: Set when there are new lines.
    """

    def __init__(self, host: str, port: int, schemas: Optional[Path]) -> None:
        super().__init__(host=host, port=port, schemas=schemas, max_events=_MAX_EVENTS)
        self.has_news = threading.Event()
        self._taking = threading.Lock()
        self._lines: Deque[str] = deque()
        self._not_shown = 0
        self._generation = ""
        self._counted_good = self._counted_bad = 0
        self._good = self._bad = self._accepted_requests = 0

    def summary(self) -> str:
        """Count what arrived. Waits for nothing, not even for a line that cannot be printed."""
        return f"good {self._good}, bad {self._bad}, requests {self._accepted_requests}"

    def new_lines(self) -> List[str]:
        """Give the lines that were not given before; the first tells how many were forgotten before them."""
        with self._taking:
            self.has_news.clear()
            lines = [f"{self._not_shown} events not shown"] if self._not_shown else []
            lines += self._lines
            self._lines.clear()
            self._not_shown = 0
        return lines

    def _accepted(self, request: CollectedRequest) -> None:  # noqa: ARG002  # others may have come meanwhile
        with self._taking:
            self._accepted_requests += 1
            self._take_news()
        self.has_news.set()

    def _take_news(self) -> None:
        """Have all judged that came, and describe what has not been described yet."""
        news = self._events.excerpt(_MAX_EVENTS, after=self._counted_good + self._counted_bad)
        if news.generation != self._generation:
            # The events were reset meanwhile, so that they are counted anew.
            self._generation, self._counted_good, self._counted_bad = news.generation, 0, 0
            news = self._events.excerpt(_MAX_EVENTS, after=0)
        good, bad = news.good - self._counted_good, news.bad - self._counted_bad
        self._counted_good, self._counted_bad = news.good, news.bad
        self._good += good
        self._bad += bad
        self._lines.extend(event_line(event) for _, event in reversed(news.events))
        forgotten = max(0, len(self._lines) - _MAX_EVENTS)
        for _ in range(forgotten):
            self._lines.popleft()
        self._not_shown += forgotten + good + bad - len(news.events)
