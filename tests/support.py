"""Stand-ins and small helpers that tests of more than one module need."""

import os
import threading
from pathlib import Path
from typing import Any, Callable, List, Optional, Set

import snowplow_tracker
from snowplow_tracker import Emitter

# How long a test waits for another thread before it fails; nothing waits that long when all is well.
PATIENCE_SECONDS = 15.0

PYTEST_PLUGIN = "_snowplow_tracker_pytest"
_PACKAGE = Path(snowplow_tracker.__file__).resolve().parent
# For a PYTHONPATH. An installation puts the plugin beside the package; in a checkout it lies in a folder of its own.
PACKAGE_FOLDERS = os.pathsep.join([str(_PACKAGE.parent), str(_PACKAGE / "_pytest11")])


class ManualTimer:
    """A `FlushTimer` whose time is over when the test says so."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self.delay: Optional[float] = None
        self.delays: List[float] = []

    def start(self, timeout: float) -> None:
        self.delay = timeout
        self.delays.append(timeout)

    def cancel(self) -> None:
        self.delay = None

    def is_active(self) -> bool:
        return self.delay is not None

    def remaining_seconds(self) -> float:
        return self.delay or 0.0

    def has_thread(self) -> bool:
        return False

    def reset(self) -> None:
        self.delay = None

    def fire(self) -> None:
        assert self.delay is not None, "the timer is not active"
        self.delay = None
        self.emitter.flush()


def with_manual_timers(emitter: Any) -> Any:
    """Have a test decide when the emitter's timers are due."""
    emitter.retry_timer = ManualTimer(emitter)
    emitter.timer = ManualTimer(emitter)
    return emitter


def eventually(condition: Callable[[], Any]) -> None:
    """Wait until something is true; for what another thread does and tells nobody."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_SECONDS * 200)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it never became true")


def eids(payloads: Any) -> List[str]:
    """Return the event ids of payloads, which tests use to tell them apart."""
    return [payload["eid"] for payload in payloads]


def numbered(count: int, start: int = 0) -> List[dict]:
    """Make payloads with the event ids "0", "1" and so on."""
    return [{"e": "pv", "p": "srv", "tv": "test", "eid": str(number)} for number in range(start, start + count)]


def is_balanced(emitter: Emitter) -> bool:
    """Tell whether each accepted payload is in exactly one state."""
    stats = emitter.stats()
    return stats.accepted == stats.delivered + stats.rejected + stats.buffered + stats.in_flight


def own_threads() -> Set[threading.Thread]:
    """Return the threads that emitters have started; those of other tests' emitters may be among them."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("snowplow-")}
