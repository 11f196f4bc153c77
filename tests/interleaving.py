"""Runs threads one at a time and decides at each step which of them goes on, so that an order can be repeated."""

import gc
import random
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, Callable, Dict, Iterable, List, Optional

import pytest
from support import PATIENCE_SECONDS

from snowplow_tracker import _flush_timer, _ledger, _reporting, _worker_pool, emitters

_MODULES = [_flush_timer, _ledger, _reporting, _worker_pool, emitters]
_PACKAGE = str(Path(emitters.__file__).parent)
# Many times what any of the tests takes. Threads that take more do nothing but wake and wait again.
_MAX_STEPS = 200_000


Scenario = Callable[["Interleaving", random.Random], Any]


def explore(scenario: Scenario, seeds: Iterable[int], by_line: bool = False) -> None:
    """Play a scenario with many orders of steps; the seed that finds a mistake finds it again.

    Args:
        scenario: Gets an interleaving, and what to draw its own choices from.
        seeds: One for each time.
        by_line: See `Interleaving`.

    Raises:
        AssertionError: With the seed in the message.
    """
    for seed in seeds:
        again = f"explore({scenario.__name__}, [{seed}], {by_line})"
        _play(lambda world, seed=seed: scenario(world, random.Random(seed)), AtRandom(seed), by_line, again)


def explore_switches(scenario: Callable[["Interleaving"], Any], by_line: bool = False) -> int:
    """Play a scenario in each order that has one switch more than it takes; return how many there are.

    Raises:
        AssertionError: With the switch in the message.
    """
    steps, played = _play(scenario, AtSteps({}), by_line, scenario.__name__), 1
    for step in range(1, steps + 1):
        which, width = 0, 1
        while which < width:
            schedule = AtSteps({step: which})
            _play(scenario, schedule, by_line, f"{scenario.__name__}, AtSteps({{{step}: {which}}})")
            which, width, played = which + 1, schedule.width, played + 1
    return played


def _play(scenario: Callable[["Interleaving"], Any], schedule: Any, by_line: bool, name: str) -> int:
    try:
        with Interleaving(schedule, by_line) as world:
            scenario(world)
    except Exception as error:
        raise AssertionError(f"{name}: {error!r}") from error
    return world.steps


class AtRandom:
    """Switches threads every few steps, or every few hundred: either finds mistakes that the other does not."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._pause = self._random.choice([2, 5, 15, 50, 200, 1000])

    def next_switch(self, step: int) -> int:
        return step + 1 + int(self._random.expovariate(1 / self._pause))

    def choose(self, threads: List["_Thread"], step: int) -> "_Thread":
        return self._random.choice(threads)


class AtSteps:
    """Switches at the given steps, to the first, second … of the other threads, and else only where a thread waits.

    Attributes:
        width: How many threads there were to choose from at the last of the steps.
    """

    def __init__(self, switches: Dict[int, int]) -> None:
        self._switches = switches
        self.width = 0

    def next_switch(self, step: int) -> int:
        return min((at for at in self._switches if at > step), default=sys.maxsize)

    def choose(self, threads: List["_Thread"], step: int) -> "_Thread":
        if step not in self._switches:
            return threads[0]
        self.width = len(threads)
        return threads[self._switches[step] % len(threads)]


class Interleaving:
    """A small world with threads and a clock of its own; a context manager.

    In it the library's locks, conditions, threads and clocks are ours. Each use of a lock is a step, and so is
    each line of the library if `by_line`. At a step another thread may go on, as the schedule says. The clock stands
    still as long as a thread can go on, unless the schedule chooses one that waits for the time to pass.

    Attributes:
        steps: How many there were.
        check: Called all the time; what it raises ends the run.
    """

    def __init__(self, schedule: Any, by_line: bool = False) -> None:
        self.steps = 0
        self.check: Callable[[], Any] = lambda: None
        self.current: Optional[_Thread] = None
        self.is_over = False
        self.locks: List[_RLock] = []
        self.threads: List[_Thread] = []
        self.time = 1_000.0
        self._schedule, self._switch_at = schedule, schedule.next_switch(0)
        self.by_line = by_line
        self._is_checking = False
        self._goal: List[_Thread] = []
        self._gate = _closed_gate()
        self.error: Optional[BaseException] = None

    def __enter__(self) -> "Interleaving":
        names = SimpleNamespace(
            Condition=lambda lock=None: _Condition(self, lock or _RLock(self)),
            Lock=lambda: _Lock(self),
            RLock=lambda: _RLock(self),
            TIMEOUT_MAX=threading.TIMEOUT_MAX,
            get_ident=threading.get_ident,
            Thread=lambda target, name, daemon, args=(): _Thread(self, lambda: target(*args), name),
            current_thread=lambda: self.current,
        )
        clock = SimpleNamespace(monotonic=lambda: self.time, time=lambda: self.time)
        self._patches = pytest.MonkeyPatch()
        for module in _MODULES:
            self._patches.setattr(module, "threading", names)
            self._patches.setattr(module, "time", clock, raising=False)
        # What is garbage from before may have a finalizer, whose steps must not count.
        gc.disable()
        # The jitter of a backoff.
        self._random_state = random.getstate()
        random.seed(0)
        return self

    def __exit__(self, *exception: object) -> None:
        self.is_over = True
        for thread in self.threads:
            self.current = thread
            if not thread.is_done:
                thread.gate.release()
            thread.thread.join(PATIENCE_SECONDS)
        self.current = None
        self._patches.undo()
        random.setstate(self._random_state)
        gc.enable()

    def run(self, *functions: Callable[[], Any]) -> None:
        """Run each function in a thread of its own until all have returned; without functions, until all is at rest.

        Raises:
            AssertionError: The threads wait for one another, or go round in circles.
            BaseException: What the functions, `check` or a thread that they started have raised.
        """
        self._goal = [_Thread(self, function, f"application-{number}") for number, function in enumerate(functions)]
        for thread in self._goal:
            thread.start()
        self._hand_to(self._next())
        self._gate.acquire()
        if self.error is not None:
            raise self.error

    def step(self) -> None:
        """Let another thread go on, if the schedule says so."""
        if self.current is not None and not self.is_over:
            self._run_check()
            self._count_step()

    def wait(self, is_over: Callable[[], bool], timeout: Optional[float] = None) -> bool:
        """Have the current thread wait until something is true; False if the time was up before."""
        thread = self.current
        if self.is_over:
            raise _Ended
        if not is_over():
            assert thread is not None, "a lock is held, and nobody runs"
            thread.can_go_on, thread.wakes_at = is_over, None if timeout is None else self.time + timeout
            self._switch(thread, self._next())
            thread.can_go_on, thread.wakes_at = _always, None
        return is_over()

    def living(self) -> List[str]:
        """Return the names of the threads that have not ended."""
        return [thread.name for thread in self.threads if not thread.is_done]

    def holds_lock(self) -> bool:
        """Tell whether the current thread does."""
        return any(lock.depth and lock.owner is self.current for lock in self.locks)

    def end_thread(self) -> None:
        """Have another thread go on for good."""
        if not self.is_over:
            self._hand_to(self._next())

    def _count_step(self) -> None:
        self.steps += 1
        if self.steps < self._switch_at:
            return
        self._switch_at = self._schedule.next_switch(self.steps)
        self._run_check()
        if self.steps > _MAX_STEPS:
            self._fail(AssertionError(f"no end in sight{self._positions()}"))
        candidates = self._ready(but=self.current) + self._sleepers()[:1]
        if candidates:
            self._switch(self.current, self._choose(candidates))

    def _run_check(self) -> None:
        self._is_checking = True
        try:
            self.check()
        except Exception as error:
            self._fail(error)
        finally:
            self._is_checking = False

    def _fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self._switch(self.current, None)

    def _switch(self, thread: Any, other: Optional["_Thread"]) -> None:
        if other is thread:
            return
        self._hand_to(other)
        thread.gate.acquire()
        if self.is_over:
            raise _Ended

    def _hand_to(self, thread: Optional["_Thread"]) -> None:
        self.current = thread
        (self._gate if thread is None else thread.gate).release()

    def _next(self) -> Optional["_Thread"]:
        """Choose the thread to go on when the current one cannot; None for the one that called `run`."""
        if self.error is not None or (self._goal and all(thread.is_done for thread in self._goal)):
            return None
        candidates = self._ready() or self._sleepers()[:1]
        if candidates:
            return self._choose(candidates)
        if self._goal:
            self.error = AssertionError(f"the threads wait for one another{self._positions()}")
        return None

    def _choose(self, candidates: List["_Thread"]) -> "_Thread":
        thread = self._schedule.choose(candidates, self.steps)
        if not thread.can_go_on():
            self.time = max(self.time, thread.wakes_at)
        return thread

    def _ready(self, but: Optional["_Thread"] = None) -> List["_Thread"]:
        return [thread for thread in self.threads if not thread.is_done and thread is not but and thread.can_go_on()]

    def _sleepers(self) -> List["_Thread"]:
        """Return the threads that wait for the time to pass, the one that wakes next first."""
        sleepers = [t for t in self.threads if not t.is_done and t.wakes_at is not None and not t.can_go_on()]
        return sorted(sleepers, key=lambda thread: thread.wakes_at)

    def _positions(self) -> str:
        frames = sys._current_frames()
        lines = []
        for thread in self.threads:
            if not thread.is_done:
                stack = traceback.extract_stack(frames[thread.thread.ident])
                calls = [f"{Path(call.filename).name}:{call.lineno} {call.name}" for call in stack]
                lines.append(f"\n{thread.name}: " + " > ".join(c for c in calls if "threading.py" not in c))
        return "".join(lines)

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Make a step of each line of the library; set in the threads by `sys.settrace`."""
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        if event == "line" and not self.is_over and not self._is_checking:
            self._count_step()
        return self.trace


class _Ended(BaseException):
    """Ends a thread that is left when its interleaving is over."""


class _Thread:
    def __init__(self, world: Interleaving, target: Callable[[], Any], name: str) -> None:
        self.name = name
        self.gate = _closed_gate()
        self.can_go_on: Callable[[], bool] = _always
        self.wakes_at: Any = None
        self.is_done = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._world, self._target = world, target

    def start(self) -> None:
        self._world.threads.append(self)
        self.thread.start()
        self._world.step()

    def is_alive(self) -> bool:
        return self in self._world.threads and not self.is_done

    def _run(self) -> None:
        world = self._world
        self.gate.acquire()
        try:
            if world.by_line:
                sys.settrace(world.trace)
            if not world.is_over:
                self._target()
        except (_Ended, SystemExit):
            pass
        except BaseException as error:
            world.error = world.error or error
        finally:
            if world.by_line:
                sys.settrace(None)
            self.is_done = True
            world.end_thread()


class _RLock:
    def __init__(self, world: Interleaving) -> None:
        self.depth = 0
        self.owner: Optional[_Thread] = None
        self._world = world
        world.locks.append(self)

    def __enter__(self) -> None:
        self._world.step()
        self.take(1)

    def __exit__(self, *exception: object) -> None:
        self.depth -= 1
        self._world.step()

    def take(self, depth: int) -> None:
        world = self._world
        if self.depth and self.owner is not world.current and not world.is_over:
            world.wait(lambda: not self.depth)
        self.owner = world.current
        self.depth += depth

    def _is_owned(self) -> bool:
        return self.depth > 0 and self.owner is self._world.current


class _Condition:
    def __init__(self, world: Interleaving, lock: _RLock) -> None:
        self._world, self._lock = world, lock
        self._is_owned = lock._is_owned
        self._waiting: List[object] = []

    def __enter__(self) -> None:
        self._lock.__enter__()

    def __exit__(self, *exception: object) -> None:
        self._lock.__exit__()

    def wait(self, timeout: Optional[float] = None) -> bool:
        me, lock = object(), self._lock
        self._waiting.append(me)
        depth, lock.depth = lock.depth, 0
        try:
            is_notified = self._world.wait(lambda: me not in self._waiting, timeout)
            if not is_notified:
                self._waiting.remove(me)
        finally:
            lock.take(depth)
        return is_notified

    def notify(self, count: int = 1) -> None:
        del self._waiting[:count]

    def notify_all(self) -> None:
        self._waiting.clear()


class _Lock:
    def __init__(self, world: Interleaving) -> None:
        self._world = world
        self._is_taken = False

    def acquire(self, timeout: Optional[float] = None) -> bool:
        self._world.step()
        if not self._world.wait(lambda: not self._is_taken, timeout):
            return False
        self._is_taken = True
        return True

    def release(self) -> None:
        self._is_taken = False
        self._world.step()


def _closed_gate() -> Any:
    gate = threading.Lock()
    gate.acquire()
    return gate


def _always() -> bool:
    return True
