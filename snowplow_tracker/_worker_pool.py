"""Threads that do work for an emitter."""

import collections
import contextlib
import logging
import queue
import threading
import time
import weakref
from typing import Any, Callable, Dict, List, Optional

from typing_extensions import Protocol

__all__ = ["WorkerPool"]

logger = logging.getLogger(__name__)


class _Owner(Protocol):
    def _thread_limit(self) -> int: ...

    def _do_task(self, task: Any) -> None: ...


class _Tasks(queue.Queue):  # type: ignore[type-arg]  # Python 3.8 has no subscripted queues
    """A queue whose lock is reentrant: a signal handler may track an event while its thread is inside the queue.

    It does by itself what the base class does for a queue without a limit. That takes a condition, which is not one
    step, so that Ctrl-C in it would leave the queue locked for ever; and gevent puts another class in its place.
    """

    # What the base class has of these may be read-only.
    queue: Any = None
    unfinished_tasks = 0
    mutex: Any = None
    not_empty: Any = None
    all_tasks_done: Any = None

    def __init__(self, pool: "WorkerPool") -> None:
        super().__init__()
        self._pool = weakref.ref(pool)
        self.queue = collections.deque()
        self.mutex = threading.RLock()
        self.not_empty = threading.Condition(self.mutex)
        self.all_tasks_done = threading.Condition(self.mutex)

    def put(self, item: Any, block: bool = True, timeout: Optional[float] = None) -> None:  # noqa: ARG002  # no limit
        with self.mutex:
            self.queue.append(item)
            self.unfinished_tasks += 1
            self.not_empty.notify()
        pool = self._pool()
        if isinstance(item, list) and pool is not None:
            pool.serve()

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        ends_at = None if timeout is None else time.monotonic() + timeout
        with self.mutex:
            while True:
                if self.queue:
                    return self.queue.popleft()
                left = None if ends_at is None else ends_at - time.monotonic()
                if not block or (left is not None and left <= 0):
                    raise queue.Empty
                self.not_empty.wait(left)

    def put_nowait(self, item: Any) -> None:
        self.put(item)

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def qsize(self) -> int:
        return len(self.queue)

    def empty(self) -> bool:
        return not self.queue

    def full(self) -> bool:
        return False

    def task_done(self) -> None:
        with self.mutex:
            if self.unfinished_tasks <= 0:
                raise ValueError("task_done() called too many times")
            self.unfinished_tasks -= 1
            if not self.unfinished_tasks:
                self.all_tasks_done.notify_all()

    def join(self) -> None:
        with self.mutex:
            while True:
                if not self.unfinished_tasks:
                    return
                self.all_tasks_done.wait()


class WorkerPool:
    """A fixed number of daemon threads that take tasks from a queue and have their owner do them.

    The threads start with the first task; one that died is replaced at the next task. They do not keep the owner alive:
    between two tasks they know it by a weak reference only. The lock guards the list of threads and the shift: the
    threads in the list are those that were started in the present shift, and `stop` ends it.
    """

    def __init__(self, owner: _Owner, name: str) -> None:
        """Start nothing yet.

        Args:
            owner: Its `_do_task(task)` is called in a worker, one task at a time in each.
            name: Begins the names of the threads.
        """
        self._name = name
        self.belong_to(owner)
        self.reset()

    def belong_to(self, owner: _Owner) -> None:
        """Work for this owner from now on: for one that was collected as garbage, lost its references, and lives on."""
        self._owner = weakref.ref(owner)

    def reset(self) -> None:
        """Begin anew without threads and tasks, as a forked child must."""
        self.queue: queue.Queue[Any] = _Tasks(self)
        self._lock = threading.RLock()
        self._shift = object()
        self._threads: List[threading.Thread] = []
        self._started = 0
        # By identity, the tasks under way that are payloads.
        self._batches: Dict[int, List[Any]] = {}

    def hand_over(self, thread_count: int) -> bool:
        """Have a worker do something soon: put None, the task without a name, unless enough of them wait already.

        Never blocks. Returns False if there is no worker and none could be started.
        """
        # One waiting task for each worker is as good as more: each one is for all that waits when it is taken. Other
        # tasks are not, or may be withdrawn.
        if self.queue.queue.copy().count(None) < thread_count:
            self.queue.put(None)
        return self.keep_running(thread_count)

    def withdraw(self, task: Any) -> None:
        """Take back a task, unless a worker has it already."""
        with self.queue.mutex, contextlib.suppress(ValueError):
            self.queue.queue.remove(task)
            self.queue.task_done()

    def has_batches(self) -> bool:
        """Tell whether payloads wait in the queue, where only applications put them, or were just taken from there."""
        # In this order, and without a lock, for a finalizer.
        return any(isinstance(task, list) for task in self.queue.queue.copy()) or bool(self._batches)

    def end_batch(self, batch: List[Any]) -> None:
        """Take note that the payloads of a task have been sent."""
        self._batches.pop(id(batch), None)

    def serve(self) -> None:
        """See to it that there are workers for what an application has put into the queue."""
        owner = self._owner()
        if owner is not None:
            self.keep_running(owner._thread_limit())

    def run(self, is_over: Callable[[], bool]) -> None:
        """Work in the calling thread, as one of the workers, until the pool is stopped.

        Args:
            is_over: Tells whether that has happened already.
        """
        thread = threading.current_thread()
        with self._lock:
            self._threads.append(thread)
            shift = self._shift
        try:
            # Looked at last, because `stop` comes after it has become true.
            if not is_over():
                self._work_off(shift, may_leave=False)
        finally:
            with self._lock:
                self._threads = list(filter(lambda other: other is not thread, self._threads))

    def stop(self) -> None:
        """End the workers, each when it has done what it does now. The pool can be started again."""
        with self._lock:
            self._threads = []
            self._shift = object()
        with self.queue.mutex:
            self.queue.not_empty.notify_all()

    def is_locked_here(self) -> bool:
        """Tell whether the calling thread has a lock: then it is in a signal handler, and keeps the workers waiting."""
        return self._lock._is_owned() or self.queue.mutex._is_owned()  # type: ignore[attr-defined,no-any-return]

    def has_threads(self) -> bool:
        """Tell, without a lock, whether workers were started and not stopped."""
        return bool(self._threads)

    def keep_running(self, thread_count: int) -> bool:
        """Start the workers that are missing; False if there is none at all and none could be started."""
        # Looked up once: another thread may stop the pool meanwhile, and all of no threads are alive.
        threads = self._threads
        if len(threads) >= thread_count and all(thread.is_alive() for thread in threads):
            return True
        with self._lock:
            self._threads = list(filter(lambda thread: thread.is_alive(), self._threads))
            while True:
                if len(self._threads) >= thread_count:
                    break
                self._started += 1
                name = f"{self._name}-{self._started}"
                thread = threading.Thread(target=self._work_off, args=(self._shift,), name=name, daemon=True)
                self._threads.append(thread)
                try:
                    thread.start()
                except RuntimeError:
                    # Out of threads, or the interpreter is shutting down.
                    self._threads.remove(thread)
                    break
            return bool(self._threads)

    def _leave_if_surplus(self) -> bool:
        """Take the calling thread out of the list, if its owner wants fewer threads by now."""
        owner = self._owner()
        thread = threading.current_thread()
        if owner is None or (thread in self._threads and len(self._threads) <= owner._thread_limit()):
            return False
        with self._lock:
            # A signal handler that started a thread while another one was made may have kept that from the list.
            is_surplus = thread not in self._threads or len(self._threads) > owner._thread_limit()
            if is_surplus:
                self._threads = list(filter(lambda other: other is not thread, self._threads))
        return is_surplus

    def _work_off(self, shift: object, may_leave: bool = True) -> None:
        tasks = self.queue
        while True:
            with tasks.not_empty:
                while True:
                    if shift is not self._shift or tasks.qsize():
                        break
                    tasks.not_empty.wait()
                # What waits when a shift ends is done by it, unless there is a next one.
                if shift is not self._shift and (self._threads or not tasks.qsize()):
                    return
                if may_leave and shift is self._shift and self._leave_if_surplus():
                    # Somebody else has to take the task that has woken this thread.
                    tasks.not_empty.notify()
                    return
                task = tasks.queue[0]
                if isinstance(task, list):
                    # Before it is out of the queue, so that it is always seen at one of both places.
                    self._batches[id(task)] = task
                tasks.get()
            try:
                owner = self._owner()
                if owner is None:
                    return
                owner._do_task(task)
            except Exception:
                logger.exception("A worker's task failed")
            finally:
                del task
                owner = None
                with contextlib.suppress(ValueError):
                    tasks.task_done()
