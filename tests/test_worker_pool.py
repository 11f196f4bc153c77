"""Workers: started when there is work, replaced when they died, ended when told to, and keeping nothing alive."""

import gc
import logging
import queue
import threading
import weakref

import pytest
from support import eventually

from snowplow_tracker._worker_pool import WorkerPool

WAIT = 10  # Only a test that fails takes so long.

# pytest reports what the interpreter itself passes over in silence: SystemExit ends a thread, and nothing else.
ends_a_thread = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Owner:
    """Notes the tasks that it does, and holds them up or fails as a test wants."""

    def __init__(self):
        self.tasks = []
        self.threads = []
        self.limit = 3
        self.during_work = lambda: None
        self._done = threading.Condition()

    def _thread_limit(self):
        return self.limit

    def _do_task(self, task):
        with self._done:
            self.tasks.append(task)
            self.threads.append(threading.current_thread())
            self._done.notify_all()
        self.during_work()

    def wait_for_tasks(self, count):
        with self._done:
            assert self._done.wait_for(lambda: len(self.tasks) >= count, WAIT)


@pytest.fixture
def owner():
    return Owner()


@pytest.fixture
def pool(owner):
    pool = WorkerPool(owner, "test-worker")
    yield pool
    pool.stop()
    assert end_of(*workers())


@pytest.fixture
def held(owner):
    """An event that the workers wait for in the middle of each task."""
    release = threading.Event()
    owner.during_work = lambda: release.wait(WAIT)
    yield release
    release.set()


def end_of(*threads):
    for thread in threads:
        thread.join(WAIT)
    return not any(thread.is_alive() for thread in threads)


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("test-worker")]


def refuse(thread):
    raise RuntimeError("can't start new thread")


def test_pool_begins_without_threads(pool):
    """To make one starts nothing: emitters are built while applications are imported."""
    assert not pool.has_threads()
    assert workers() == []
    assert isinstance(pool.queue, queue.Queue)


def test_first_task_starts_all_threads(owner, pool):
    """As many as are asked for, daemons, with numbered names."""
    assert pool.hand_over(3) is True

    owner.wait_for_tasks(1)
    assert pool.has_threads()
    assert sorted(thread.name for thread in workers()) == ["test-worker-1", "test-worker-2", "test-worker-3"]
    assert all(thread.daemon for thread in workers())


def test_task_is_done_by_the_owner_in_a_worker(owner, pool):
    """The task without a name is None."""
    pool.hand_over(1)

    owner.wait_for_tasks(1)
    assert owner.tasks == [None]
    assert owner.threads == workers()


def test_workers_are_kept(owner, pool):
    """The next task starts no more of them."""
    for count in range(1, 6):
        pool.hand_over(1)
        owner.wait_for_tasks(count)

    assert len(set(owner.threads)) == 1


def test_workers_work_at_the_same_time(owner, pool):
    """As many tasks are under way as there are threads."""
    owner.limit = 3
    together = threading.Barrier(3)
    owner.during_work = lambda: together.wait(WAIT)

    for _ in range(3):
        pool.queue.put("task")
    pool.keep_running(3)
    owner.wait_for_tasks(3)

    assert len(set(owner.threads)) == 3


def test_pool_grows(owner, pool):
    """A higher number counts from the next task on."""
    pool.hand_over(1)
    pool.hand_over(2)

    assert len(workers()) == 2


def test_any_task_is_done(owner, pool):
    """What somebody puts into the queue gets to the owner as it is, in order, and the queue can be joined."""
    owner.limit = 1
    tasks = ["one", ["two"], object()]

    for task in tasks:
        pool.queue.put(task)
    pool.keep_running(1)
    pool.queue.join()

    assert owner.tasks == tasks


def test_tasks_that_wait_already_are_not_added_to(owner, pool, held):
    """One waiting task for each worker is as good as more."""
    pool.hand_over(2)
    pool.hand_over(2)
    owner.wait_for_tasks(2)

    results = [pool.hand_over(2) for _ in range(10)]

    assert pool.queue.qsize() == 2
    assert results == [True] * 10
    held.set()
    pool.queue.join()
    assert len(owner.tasks) == 4


def test_hand_over_during_a_task_is_not_swallowed(owner, pool, held):
    """What comes while the only worker is busy is done after it."""
    pool.hand_over(1)
    owner.wait_for_tasks(1)

    pool.hand_over(1)
    held.set()

    owner.wait_for_tasks(2)


def test_task_that_fails_is_logged_and_the_worker_goes_on(owner, pool, caplog):
    """Background code survives what the application's code raises."""
    error = ValueError("broken")

    def fail():
        raise error

    owner.during_work = fail
    for _ in range(2):
        pool.queue.put("task")
    pool.keep_running(1)
    pool.queue.join()

    assert len(set(owner.threads)) == 1
    assert [record.getMessage() for record in caplog.records] == ["A worker's task failed"] * 2
    assert caplog.records[0].levelno == logging.ERROR
    assert caplog.records[0].exc_info[1] is error


@ends_a_thread
def test_worker_that_died_is_replaced(owner, pool):
    """The next task starts another one, under a name of its own."""

    def die():
        raise SystemExit

    owner.during_work = die
    pool.hand_over(1)
    owner.wait_for_tasks(1)
    assert end_of(owner.threads[0])

    owner.during_work = lambda: None
    assert pool.hand_over(1) is True

    owner.wait_for_tasks(2)
    assert owner.threads[1].name == "test-worker-2"


@ends_a_thread
def test_one_dead_worker_of_two_is_replaced(owner, pool):
    """The one that lives is kept."""
    owner.limit = 2
    together = threading.Barrier(2)

    def meet_and_let_the_first_die():
        together.wait(WAIT)
        if threading.current_thread() is owner.threads[0]:
            raise SystemExit

    owner.during_work = meet_and_let_the_first_die
    pool.hand_over(2)
    pool.hand_over(2)
    owner.wait_for_tasks(2)
    dead, alive = owner.threads
    assert end_of(dead)

    pool.keep_running(2)

    assert alive in workers()
    assert len(workers()) == 2


def test_stopped_workers_end(owner, pool):
    """All of them, and the pool has none any more."""
    pool.hand_over(3)
    threads = workers()

    pool.stop()

    assert not pool.has_threads()
    assert end_of(*threads)


def test_worker_ends_when_it_has_done_what_it_does(owner, pool, held):
    """To stop does not wait, and interrupts nobody."""
    pool.hand_over(1)
    owner.wait_for_tasks(1)
    [thread] = owner.threads

    pool.stop()
    still_working = thread.is_alive()
    held.set()

    assert still_working
    assert end_of(thread)


def test_pool_can_be_started_again(owner, pool):
    """After it has been stopped, a task starts new workers."""
    pool.hand_over(1)
    owner.wait_for_tasks(1)
    pool.stop()
    assert end_of(owner.threads[0])

    pool.hand_over(1)

    owner.wait_for_tasks(2)
    assert owner.threads[1] is not owner.threads[0]


def test_worker_that_was_busy_when_its_pool_was_stopped_ends_after_a_restart(owner, pool, held):
    """There are new workers then, which do what waits; nobody ends in the place of another."""
    pool.hand_over(1)
    owner.wait_for_tasks(1)
    [busy] = owner.threads

    pool.stop()
    pool.hand_over(1)
    owner.wait_for_tasks(2)
    pool.hand_over(1)
    held.set()

    owner.wait_for_tasks(3)
    assert end_of(busy)
    assert workers() == [owner.threads[1]]


def test_fewer_workers_go_on_when_the_owner_wants_fewer(owner, pool, held):
    """Between two tasks those leave that are too many, and one that stays does what waits."""
    owner.limit = 3
    for count in (1, 2, 3):
        pool.hand_over(3)
        owner.wait_for_tasks(count)
    before = workers()

    owner.limit = 1
    held.set()
    for count in (4, 5, 6):
        pool.hand_over(1)
        owner.wait_for_tasks(count)

    eventually(lambda: len(workers()) == 1)
    assert len(before) == 3
    assert set(workers()) <= set(before)


def test_only_workers_leave(owner, pool, held):
    """A thread that is no worker of this pool, or no more, changes nothing for those that are."""
    pool.hand_over(1)
    owner.wait_for_tasks(1)

    owner.limit = 0

    pool._leave_if_surplus()
    assert len(workers()) == 1


def test_worker_that_is_surplus_looks_again(owner, pool, held):
    """Before it leaves, its owner may want more threads again."""
    limits = iter([0, 5])
    pool.hand_over(1)
    owner.wait_for_tasks(1)
    outcomes = []

    def look():
        owner._thread_limit = lambda: next(limits)
        outcomes.append(pool._leave_if_surplus())
        del owner._thread_limit

    owner.during_work = look
    pool.hand_over(1)
    held.set()
    pool.queue.join()

    assert outcomes == [False]
    assert len(workers()) == 1


def test_queue_does_what_a_queue_does(pool):
    """Code for 1.1.0 may take from it and ask it, whatever the class of that name has become."""
    tasks = pool.queue
    tasks.put_nowait("one")
    tasks.put("two", timeout=1)
    sizes = (tasks.qsize(), tasks.empty(), tasks.full())

    taken = [tasks.get_nowait(), tasks.get(timeout=1)]

    assert (sizes, taken, tasks.empty()) == ((2, False, False), ["one", "two"], True)
    for get in (tasks.get_nowait, lambda: tasks.get(timeout=0.01)):
        with pytest.raises(queue.Empty):
            get()
    tasks.task_done()
    tasks.task_done()
    with pytest.raises(ValueError, match="called too many times"):
        tasks.task_done()


def test_queue_can_be_waited_for(pool):
    """An application may have a thread of its own that takes from it."""
    taken = []
    thread = threading.Thread(target=lambda: taken.append(pool.queue.get()), daemon=True)
    thread.start()

    pool.queue.put("task")
    thread.join(WAIT)

    assert taken == ["task"]


def test_worker_that_is_in_no_list_leaves(owner, pool, held, monkeypatch):
    """A signal handler that hands something over while a thread is made starts another one, and one is too many."""
    make = threading.Thread

    def make_interrupted(**arguments):
        monkeypatch.setattr(threading, "Thread", make)
        threads = pool._threads
        pool.hand_over(1)
        # The interrupted call goes on with the list that it had.
        pool._threads, others = threads, pool._threads
        thread = make(**arguments)
        start = thread.start

        def start_unlisted():
            pool._threads = others
            start()

        thread.start = start_unlisted
        return thread

    owner.limit = 1
    monkeypatch.setattr(threading, "Thread", make_interrupted)
    pool.hand_over(1)
    held.set()

    eventually(lambda: pool.hand_over(1) and len(workers()) == 1)


def test_stopped_worker_first_does_what_waits(owner, pool, held):
    """A task that was handed over before the stop is not lost if no other worker comes."""
    pool.hand_over(1)
    owner.wait_for_tasks(1)
    pool.hand_over(1)

    pool.stop()
    held.set()

    owner.wait_for_tasks(2)
    assert end_of(*owner.threads)


def test_pool_without_threads_may_be_stopped(pool):
    """There is nobody to tell."""
    pool.stop()
    pool.stop()

    assert pool.queue.qsize() == 0


def test_workers_do_not_keep_the_owner_alive():
    """Between two tasks they know it by a weak reference only, and end at the next task when it is gone."""
    owner = Owner()
    gone = threading.Event()
    weakref.finalize(owner, gone.set)
    pool = WorkerPool(owner, "test-worker")
    pool.hand_over(1)
    owner.wait_for_tasks(1)
    [thread] = owner.threads

    del owner
    gc.collect()
    has_gone = gone.wait(WAIT)
    pool.hand_over(1)

    assert has_gone
    assert end_of(thread)


def test_workers_may_be_given_another_owner(pool, owner):
    """Those that wait already do their next task for it."""
    pool.hand_over(1)
    owner.wait_for_tasks(1)
    heir = Owner()

    pool.belong_to(heir)
    pool.hand_over(1)

    heir.wait_for_tasks(1)
    assert heir.threads == owner.threads
    assert len(owner.tasks) == 1


def test_task_is_not_kept_alive_until_the_next_one(owner, pool):
    """A batch that was sent does not stay in memory because nothing comes after it."""

    class Task:
        pass

    task = Task()
    gone = threading.Event()
    weakref.finalize(task, gone.set)
    pool.queue.put(task)
    pool.keep_running(1)
    owner.wait_for_tasks(1)

    owner.tasks.clear()
    del task

    assert gone.wait(WAIT)


def test_pool_that_cannot_start_a_thread_says_so(pool, monkeypatch):
    """Nothing is raised, and the task waits for a worker."""
    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert pool.hand_over(2) is False

    assert not pool.has_threads()
    assert pool.queue.qsize() == 1


def test_waiting_task_is_done_as_soon_as_there_are_threads(owner, pool, monkeypatch):
    """A start that failed is no obstacle to the next one."""
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        pool.hand_over(1)

    assert pool.keep_running(1) is True

    owner.wait_for_tasks(1)


def test_pool_makes_do_with_the_threads_that_it_has(owner, pool, monkeypatch):
    """Some worker is better than none."""
    pool.hand_over(1)
    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert pool.hand_over(2) is True


def test_calling_thread_works_until_the_pool_is_stopped(owner, pool):
    """It does the tasks like any worker, and then returns."""
    thread = threading.Thread(target=pool.run, args=(lambda: False,), name="test-worker-of-mine", daemon=True)
    pool.queue.put("task")
    thread.start()
    owner.wait_for_tasks(1)

    pool.stop()

    assert owner.threads == [thread]
    assert end_of(thread)


def test_calling_thread_counts_as_a_worker(owner, pool):
    """The pool starts only those that are missing."""
    thread = threading.Thread(target=pool.run, args=(lambda: False,), name="test-worker-of-mine", daemon=True)
    pool.queue.put("task")
    thread.start()
    owner.wait_for_tasks(1)

    pool.hand_over(2)

    assert sorted(worker.name for worker in workers()) == ["test-worker-1", "test-worker-of-mine"]
    pool.stop()
    assert end_of(thread)


def test_calling_thread_that_is_interrupted_is_no_worker_any_more(owner, pool):
    """Ctrl-C propagates, and the pool does not count on that thread again."""

    def interrupt():
        raise KeyboardInterrupt

    owner.during_work = interrupt
    pool.queue.put("task")

    with pytest.raises(KeyboardInterrupt):
        pool.run(lambda: False)

    assert not pool.has_threads()


@ends_a_thread
def test_pool_that_is_reset_begins_anew(owner, pool):
    """A forked child has neither the threads nor the tasks of its parent, and starts its own."""
    pool.hand_over(1)
    owner.wait_for_tasks(1)
    parents_queue, [parents_thread] = pool.queue, owner.threads

    pool.reset()

    assert not pool.has_threads()
    assert pool.queue is not parents_queue
    pool.hand_over(1)
    owner.wait_for_tasks(2)
    assert owner.threads[1] is not parents_thread
    assert owner.threads[1].name == "test-worker-1"

    def die():
        raise SystemExit

    owner.during_work = die
    parents_queue.put("the last task")
    assert end_of(parents_thread)


def test_batch_for_nobody_starts_no_thread():
    """A queue that outlives its emitter takes what it is given, and does nothing."""
    owner = Owner()
    pool = WorkerPool(owner, "orphaned")
    del owner
    gc.collect()

    pool.queue.put([{"eid": "0"}])

    assert not pool.has_threads()
