"""What becomes of emitters when the interpreter exits, the process forks, or nobody holds them any more."""

import _thread
import atexit
import collections
import logging
import os
import sys
import threading
import time
import weakref
from typing import Deque, Dict, List, Optional

from typing_extensions import Protocol

__all__ = ["EXIT_SECONDS", "Lifecycle", "lifecycle"]

logger = logging.getLogger(__name__)

# How long all emitters of a process may take together to send what waits at exit.
EXIT_SECONDS = 5.0
# How long one emitter that nobody holds any more may take, in the background.
_ORPHAN_SECONDS = 60.0
_MAX_ORPHANS = 1_000
_MAX_ORPHAN_THREADS = 8


class _Member(Protocol):
    flush_on_exit: bool

    def _flush_at_exit(self, timeout: float) -> bool: ...

    def _give_up(self, reason: str) -> None: ...

    def _begin_anew_in_child(self) -> None: ...

    def close(self, timeout: Optional[float]) -> bool: ...


class Lifecycle:
    """The emitters of this process.

    A finalizer calls `adopt` in whatever thread collects garbage, and whatever lock that thread holds. So there is no
    lock here: all shared state is in dicts and deques whose single operations are atomic.
    """

    def __init__(self) -> None:
        # By the emitter's identity, what it needs to be closed.
        self._held: Dict[int, object] = {}
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._members: Dict[int, weakref.ReferenceType[_Member]] = {}
        self._adopted: Dict[int, _Member] = {}
        self._orphans: Deque[_Member] = collections.deque()
        self._free_threads: Deque[None] = collections.deque([None] * _MAX_ORPHAN_THREADS)
        self._exit_at: Optional[float] = None

    def register(self, emitter: _Member) -> None:
        """Take note of a new emitter, without keeping it alive."""
        key = id(emitter)
        members = self._members
        members[key] = weakref.ref(emitter, lambda _: members.pop(key, None))

    def hold(self, emitter: _Member, needed: object) -> None:
        """Keep alive what an emitter needs to be closed, until it is released.

        The garbage collector finalizes all that is in a reference cycle, whether or not one of it is adopted then. A
        store would end its connection while the emitter's last flush is using it. What is held must not lead to the
        emitter, or nobody would ever collect that.
        """
        self._held[id(emitter)] = needed

    def release(self, emitter: _Member) -> None:
        """Let go of what an emitter needs: it has a finalizer, which has come first."""
        self._held.pop(id(emitter), None)

    def adopt(self, emitter: _Member) -> None:
        """Have an emitter closed in the background, because nobody holds it any more."""
        if self._exit_at is not None:
            return
        if len(self._adopted) >= _MAX_ORPHANS:
            reason = f"{_MAX_ORPHANS} emitters that nobody holds wait already"
            try:
                _thread.start_new_thread(emitter._give_up, (reason,))
            except RuntimeError:
                logger.error("Lost the payloads of an emitter, out of threads: %s", reason)
            return
        self._adopted[id(emitter)] = emitter
        self._orphans.append(emitter)
        self._start_thread()

    def seconds_to_exit(self) -> Optional[float]:
        """Return the seconds that are left to send events in, once the interpreter exits; None before."""
        return None if self._exit_at is None else self._seconds_left()

    def at_exit(self) -> None:
        """Send what waits in all emitters, within `EXIT_SECONDS` altogether; only the first call does anything."""
        if self._exit_at is not None:
            return
        self._exit_at = time.monotonic() + EXIT_SECONDS
        # An adopted emitter may or may not have kept its weak reference.
        emitters = {id(emitter): emitter for emitter in [*self._living(), *self._adopted.copy().values()]}
        unfinished = [emitter for emitter in emitters.values() if emitter.flush_on_exit]
        for emitter in emitters.values():
            if not emitter.flush_on_exit:
                emitter._give_up("the interpreter exits, and flush_on_exit is off")
        reason = "the interpreter exits, and its last flush was interrupted"
        try:
            # First each gets its share, so that a collector that hangs costs only its own emitter; then what is left.
            for _ in range(2):
                unfinished = self._flush_each(unfinished)
            reason = f"the interpreter exits, and {EXIT_SECONDS:g} s were not enough"
        finally:
            for emitter in unfinished:
                emitter._give_up(reason)

    def _flush_each(self, emitters: List[_Member]) -> List[_Member]:
        """Flush emitters, each within its share of the time; return those that are not finished."""
        return [
            emitter
            for position, emitter in enumerate(emitters)
            if not _flush_at_exit(emitter, self._seconds_left() / (len(emitters) - position))
        ]

    def after_fork_in_child(self) -> None:
        """Have all emitters begin anew in a forked child."""
        emitters = self._living()
        self._begin_anew()
        for emitter in emitters:
            try:
                emitter._begin_anew_in_child()
            except Exception:
                logger.exception("An emitter could not begin anew in a forked child")
            self.register(emitter)
        self.watch_multiprocessing()
        self.watch_celery()

    def watch_multiprocessing(self) -> None:
        """Have `at_exit` called at the end of a child of `multiprocessing`, which ends without `atexit`.

        Such a child forgets the finalizers of its parent when it begins, and then calls what was registered for after a
        fork. Whether it has begun depends on who imports the library.
        """
        util = sys.modules.get("multiprocessing.util")
        if util is None:
            return
        util.register_after_fork(self, _flush_when_multiprocessing_ends)
        if sys.modules["multiprocessing.process"].parent_process() is not None:
            _flush_when_multiprocessing_ends(self)

    def watch_celery(self) -> None:
        """Have `at_exit` called at the end of a process of Celery's prefork pool, which ends without `atexit`."""
        signals = sys.modules.get("celery.signals")
        if signals is not None:
            # Sent in such processes only, just before their `os._exit`.
            signals.worker_process_shutdown.connect(lambda **_: self.at_exit(), weak=False, dispatch_uid=__name__)

    def _seconds_left(self) -> float:
        return max(0.0, (self._exit_at or 0.0) - time.monotonic())

    def _living(self) -> List[_Member]:
        references = self._members.copy().values()
        return [emitter for emitter in (reference() for reference in references) if emitter is not None]

    def _start_thread(self) -> None:
        try:
            self._free_threads.popleft()
        except IndexError:
            return
        try:
            # To start a `threading.Thread` takes locks of its module, which the thread that collects garbage may hold.
            # A bare thread holds none.
            _thread.start_new_thread(self._start_named_thread, ())
        except RuntimeError:
            # Out of threads. The exit handler, or the next orphan's thread, will find the emitter.
            self._free_threads.append(None)

    def _start_named_thread(self) -> None:
        try:
            threading.Thread(target=self._close_orphans, name="snowplow-orphans", daemon=True).start()
        except RuntimeError:
            self._free_threads.append(None)

    def _close_orphans(self) -> None:
        while True:
            try:
                emitter = self._orphans.popleft()
            except IndexError:
                self._free_threads.append(None)
                if not self._orphans:
                    return
                # One came between the last look and the thread's sign-off.
                self._start_thread()
                return
            try:
                if not emitter.close(_ORPHAN_SECONDS):
                    emitter._give_up(f"nobody holds the emitter, and {_ORPHAN_SECONDS:g} s were not enough")
            except Exception:
                logger.exception("An emitter that nobody holds could not be closed")
            self._adopted.pop(id(emitter), None)


def _flush_at_exit(emitter: _Member, timeout: float) -> bool:
    try:
        return emitter._flush_at_exit(timeout)
    except SystemExit:
        # Of a callback or a signal's handler. The interpreter exits already, and other emitters want to flush as well.
        return False
    except Exception:
        logger.exception("The last flush of an emitter failed")
        return False


def _flush_when_multiprocessing_ends(registry: Lifecycle) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, registry.at_exit, exitpriority=100)


lifecycle = Lifecycle()
atexit.register(lifecycle.at_exit)
lifecycle.watch_multiprocessing()
lifecycle.watch_celery()
if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows does not fork
    os.register_at_fork(after_in_child=lifecycle.after_fork_in_child)
