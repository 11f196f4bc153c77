"""Threads that do work for an emitter."""

import contextlib
import logging
import queue
import threading
import weakref
from typing import Any, List, Optional

from typing_extensions import Protocol

__all__ = ["WorkerPool"]

logger = logging.getLogger(__name__)


class _Owner(Protocol):
    def _thread_limit(self) -> int: ...

    def _do_task(self, task: Any) -> None: ...


class _Tasks(queue.Queue):  # type: ignore[type-arg]  # Python 3.8 has no subscripted queues
    """A queue whose lock is reentrant: a signal handler may track an event while its thread is inside the queue."""

    def __init__(self, pool: "WorkerPool") -> None:
        super().__init__()
        self._pool = weakref.ref(pool)
        self.mutex = threading.RLock()  # type: ignore[assignment]  # as good as a lock for all that is done with it
        self.not_empty = threading.Condition(self.mutex)
        self.not_full = threading.Condition(self.mutex)
        self.all_tasks_done = threading.Condition(self.mutex)

    def put(self, item: Any, block: bool = True, timeout: Optional[float] = None) -> None:  # noqa: ARG002  # no limit
        # As the base class does it for a queue without a limit, which it is. But that takes a condition, which is not
        # one step, so that Ctrl-C in it would leave the queue locked for ever.
        with self.mutex:
            self._put(item)
            self.unfinished_tasks += 1
            self.not_empty.notify()
        pool = self._pool()
        if isinstance(item, list) and pool is not None:
            pool.serve()


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
        """Tell whether payloads wait in the queue, where only applications put them."""
        return any(isinstance(task, list) for task in self.queue.queue.copy())

    def serve(self) -> None:
        """See to it that there are workers for what an application has put into the queue."""
        owner = self._owner()
        if owner is not None:
            self.keep_running(owner._thread_limit())

    def run(self) -> None:
        """Work in the calling thread, as one of the workers, until the pool is stopped."""
        thread = threading.current_thread()
        with self._lock:
            self._threads.append(thread)
            shift = self._shift
        try:
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
        if owner is None or len(self._threads) <= owner._thread_limit():
            return False
        thread = threading.current_thread()
        with self._lock:
            is_surplus = thread in self._threads and len(self._threads) > owner._thread_limit()
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
                if may_leave and self._leave_if_surplus():
                    # Somebody else has to take the task that has woken this thread.
                    tasks.not_empty.notify()
                    return
                task = tasks.get()
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
