"""What a forked child has of its parent's emitters, in processes that fork."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from unittest import mock

import pytest
import requests
from support import eids, eventually

from snowplow_tracker import AsyncEmitter, Emitter, InMemoryEventStore
from snowplow_tracker.testing import Answer

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork"),
    # From 3.12 on Python warns of forks while there are threads. That emitters' threads do no harm is what is tested.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
]

CLASSES = [Emitter, AsyncEmitter]
LIMIT_SECONDS = 15


@pytest.fixture(autouse=True)
def no_threads_left(collector):
    """Have the emitters of a test end before its collector does."""
    before = set(threading.enumerate())
    yield
    new = set(threading.enumerate()) - before
    eventually(lambda: not any(thread.name.startswith("snowplow-") and thread.is_alive() for thread in new))


def fork(action):
    """Run an action in a forked child, and wait for its end; a child that fails or hangs fails the test."""
    with forked(action):
        pass


@contextlib.contextmanager
def forked(action):
    """Run an action in a forked child while the block runs."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # A child that hangs in a lock is ended by the operating system.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LIMIT_SECONDS)
            action()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    try:
        yield child
    finally:
        _, status = os.waitpid(child, 0)
    assert status == 0, f"the child failed or hung, see stderr; its status is {status}"


def run(script, *arguments, folder):
    """Run a program that imports the library, whose children find it in a file."""
    program = folder / "program.py"
    program.write_text(textwrap.dedent(script))
    process = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(program), *arguments],
        # In its development mode CPython 3.8 crashes at the end of any forked child.
        env={**os.environ, "PYTHONDEVMODE": ""},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    return process.returncode, process.stdout, process.stderr


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("kind", CLASSES)
def test_waiting_payloads_are_the_parents_to_send(collector, kind, method):
    """What waits in memory at a fork is sent once, by the parent; the child works at once, and sends its own."""
    emitter = kind(collector.url, method=method, batch_size=10)
    emitter.input({"eid": "of the parent"})

    def track():
        emitter.input({"eid": "of the child"})
        emitter.sync_flush()

    fork(track)
    emitter.sync_flush()

    assert eids(collector.payloads) == ["of the child", "of the parent"]


@pytest.mark.parametrize("kind", CLASSES)
def test_what_waits_in_a_store_like_that_of_1_1_0_is_the_parents_to_send(collector, kind):
    """A store of an application's own has a list, too, of which the child has a copy."""

    class Store:
        def __init__(self):
            self.event_buffer = []

        def add_event(self, payload):
            self.event_buffer.append(payload)

        def get_events_batch(self):
            batch, self.event_buffer = self.event_buffer, []
            return batch

        def cleanup(self, batch, need_retry):
            if need_retry:
                self.event_buffer = batch + self.event_buffer

        def size(self):
            return len(self.event_buffer)

    emitter = kind(collector.url, event_store=Store())
    emitter.input({"eid": "parent"})

    def track_and_close():
        emitter.input({"eid": "child"})
        assert emitter.close()

    fork(track_and_close)
    assert emitter.close()

    assert sorted(eids(collector.payloads)) == ["child", "parent"]


def test_child_reaches_limits_by_its_own_payloads(collector):
    """What the parent has tracked does not count towards the limits and the capacity of the child."""
    emitter = Emitter(collector.url, batch_size=3, byte_limit=10_000, buffer_capacity=3)
    emitter.input({"eid": "of the parent"})
    emitter.input({"eid": "of the parent"})

    def track():
        assert emitter.bytes_queued == 0
        emitter.input({"eid": "first"})
        emitter.input({"eid": "second"})
        assert emitter.stats().buffered == 2

    fork(track)

    assert collector.payloads == []
    emitter.close()


@pytest.mark.parametrize("kind", CLASSES)
def test_child_begins_with_nothing_of_its_parents(collector, kind):
    """A child has no threads, timers, tasks, backoff and figures of its parent."""
    collector.respond_with(200, Answer(503, headers={"Retry-After": "30"}))
    emitter = kind(collector.url, batch_size=1)
    emitter.set_flush_timer(60)
    emitter.input({"eid": "delivered"})
    eventually(lambda: emitter.stats().delivered)
    emitter.input({"eid": "failed"})
    eventually(emitter.retry_timer.is_active)
    in_parent = emitter.stats()
    pristine = kind(collector.url).stats()

    def look():
        assert threading.enumerate() == [threading.current_thread()]
        assert emitter.stats() == pristine
        assert emitter.retry_delay == 0
        assert not emitter.timer.is_active()
        assert not emitter.retry_timer.is_active()
        assert emitter.event_store.size() == 0
        assert kind is Emitter or emitter.queue.qsize() == 0

    fork(look)

    assert (in_parent.delivered, in_parent.retries, in_parent.buffered) == (1, 1, 1)
    assert emitter.retry_timer.is_active()
    assert emitter.timer.is_active()
    emitter.close()


@pytest.mark.parametrize("kind", CLASSES)
def test_flush_timer_works_in_the_child(collector, kind):
    """A flush timer that was set before the fork flushes in the child from its first payload on, again and again."""
    emitter = kind(collector.url, batch_size=10)
    emitter.set_flush_timer(0.05)

    def track():
        for eid in ("first", "second"):
            delivered = threading.Event()
            emitter.on_success = lambda _, delivered=delivered: delivered.set()
            emitter.input({"eid": eid})
            assert delivered.wait(LIMIT_SECONDS)

    fork(track)

    assert eids(collector.payloads) == ["first", "second"]


@pytest.mark.parametrize("kind", CLASSES)
def test_fork_during_a_request_leaves_the_request_to_the_parent(collector, kind):
    """A child that is forked while another thread waits for an answer works at once; the parent gets the answer."""
    release = threading.Event()
    collector.respond_with(Answer(hold=release))
    emitter = kind(collector.url, batch_size=10)
    emitter.input({"eid": "of the parent"})
    sender = threading.Thread(target=emitter.sync_flush)
    sender.start()
    collector.wait_for_requests(1)

    def track():
        assert emitter.stats().in_flight == 0
        emitter.input({"eid": "of the child"})
        emitter.sync_flush()
        assert emitter.stats().delivered == 1

    fork(track)
    release.set()
    sender.join(LIMIT_SECONDS)

    assert eids(collector.payloads) == ["of the parent", "of the child"]
    assert emitter.stats().delivered == 1


@pytest.mark.parametrize("kind", CLASSES)
def test_fork_while_the_store_is_busy_does_not_block_the_child(collector, kind):
    """A child that is forked while another thread holds the emitter's lock does not wait for it."""
    busy, release = threading.Event(), threading.Event()

    class BusyStore(InMemoryEventStore):
        def add_event(self, payload):
            if payload["eid"] == "of the parent":
                busy.set()
                release.wait(LIMIT_SECONDS)
            return super().add_event(payload)

    emitter = kind(collector.url, batch_size=10, event_store=BusyStore())
    tracker = threading.Thread(target=emitter.input, args=[{"eid": "of the parent"}])
    tracker.start()
    busy.wait(LIMIT_SECONDS)

    def track():
        emitter.input({"eid": "of the child"})
        emitter.sync_flush()

    fork(track)
    release.set()
    tracker.join(LIMIT_SECONDS)
    emitter.sync_flush()

    assert eids(collector.payloads) == ["of the child", "of the parent"]


def test_no_lock_is_the_parents(collector):
    """A child waits for none of the locks of an emitter that another thread may hold at the moment of the fork."""
    emitter = AsyncEmitter(collector.url, batch_size=10, flush_interval=60)
    parts = emitter._worker_pool, emitter._drop_reports.occurrences, emitter._failure_reports
    locks = [emitter.lock, emitter.queue.mutex, emitter.timer._changed, emitter.retry_timer._changed]
    locks += [part._lock for part in parts]
    held, release = threading.Event(), threading.Event()

    def hold():
        with contextlib.ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            held.set()
            release.wait(LIMIT_SECONDS)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(LIMIT_SECONDS)

    def track():
        emitter.on_failure = lambda *_: None
        collector_is_gone = Emitter("http://127.0.0.1:9")
        emitter.endpoint, endpoint = collector_is_gone.endpoint, emitter.endpoint
        emitter.input({"eid": "of the child"})
        emitter.sync_flush()
        emitter.endpoint = endpoint
        emitter.sync_flush()
        assert emitter.close()
        emitter.input({"eid": "too late"})

    fork(track)
    release.set()
    holder.join(LIMIT_SECONDS)

    assert eids(collector.payloads) == ["of the child"]


@pytest.mark.parametrize("with_session", [False, True], ids=["own connections", "session of the application"])
@pytest.mark.parametrize("kind", CLASSES)
def test_connections_are_not_shared(collector, kind, with_session):
    """The child opens connections of its own, and the parent goes on with those that it has."""
    with requests.Session() as session:
        emitter = kind(collector.url, batch_size=10, session=session if with_session else None)

        def track(eid):
            emitter.input({"eid": eid})
            emitter.sync_flush()

        track("before")
        with forked(lambda: track("child")):
            collector.wait_for_payloads(2)
            track("while the child lives")
        track("after")
        assert emitter.close()

    assert [(request.payloads[0]["eid"], request.connection) for request in collector.requests] == [
        ("before", 1),
        ("child", 2),
        ("while the child lives", 1),
        ("after", 1),
    ]


def test_session_of_another_kind_is_left_alone(collector, caplog):
    """A session that is none of `requests`, or an adapter of the application's, is used in the child as it is."""

    class Session:
        def post(self, url, **arguments):
            return requests.post(url, **arguments)

        get = post

    class Adapter(requests.adapters.BaseAdapter):
        def send(self, request, **arguments):
            with requests.Session() as session:
                return session.send(request, timeout=10)

        def close(self):
            pass

    with requests.Session() as session:
        session.mount("http://", Adapter())
        mocked = mock.Mock(spec=requests.Session)
        mocked.post.return_value.status_code = 200
        emitters = [Emitter(collector.url, session=of_any_kind) for of_any_kind in (Session(), session, mocked)]

        def track():
            for emitter in emitters:
                emitter.input({"eid": "of the child"})
                emitter.sync_flush()
            assert caplog.records == []

        fork(track)

    assert eids(collector.payloads) == ["of the child"] * 2


@pytest.mark.parametrize("kind", CLASSES)
def test_callback_may_fork(collector, kind):
    """A child that is forked by a callback may flush, though its parent is in the middle of it."""

    def track():
        emitter.on_success = None
        emitter.input({"eid": "of the child"})
        emitter.sync_flush()
        assert emitter.stats().delivered == 1

    emitter = kind(collector.url, batch_size=10, on_success=lambda _: fork(track))
    emitter.input({"eid": "of the parent"})
    emitter.sync_flush()
    assert emitter.close()

    assert eids(collector.payloads) == ["of the parent", "of the child"]


def test_grandchild_begins_anew_as_well(collector):
    """A child of a child leaves to its own parent what is waiting there."""
    emitter = AsyncEmitter(collector.url, batch_size=10)

    def track_and_fork():
        emitter.input({"eid": "of the child"})
        fork(track)
        emitter.sync_flush()

    def track():
        emitter.input({"eid": "of the grandchild"})
        emitter.sync_flush()

    fork(track_and_fork)

    assert eids(collector.payloads) == ["of the grandchild", "of the child"]


def test_closed_emitter_stays_closed_in_the_child(collector):
    """An emitter that was closed before the fork accepts nothing in the child either."""
    emitter = Emitter(collector.url)
    emitter.close()

    def track():
        emitter.input({"eid": "of the child"})
        assert emitter.stats().dropped == 1

    fork(track)


def test_child_flushes_when_it_exits(collector, tmp_path):
    """A child that ends like any interpreter delivers what waits in it, and so does its parent."""
    script = """
        import os, sys
        from snowplow_tracker import AsyncEmitter, Emitter

        emitters = [kind(sys.argv[1]) for kind in (Emitter, AsyncEmitter)]
        for emitter in emitters:
            emitter.input({"eid": "of the parent"})
        if os.fork() == 0:
            for emitter in emitters:
                emitter.input({"eid": "of the child"})
        else:
            os.wait()
    """

    result = run(script, collector.url, folder=tmp_path)

    assert result == (0, "", "")
    assert eids(collector.payloads) == ["of the child"] * 2 + ["of the parent"] * 2


def test_child_of_multiprocessing_delivers_when_it_ends(collector):
    """What a forked process of `multiprocessing` tracks is delivered, at its end at the latest."""
    emitters = [kind(collector.url) for kind in CLASSES]
    for emitter in emitters:
        emitter.input({"eid": "of the parent"})

    def track():
        for emitter in emitters:
            emitter.input({"eid": "of the child"})

    process = multiprocessing.get_context("fork").Process(target=track)
    process.start()
    process.join(LIMIT_SECONDS)
    for emitter in emitters:
        emitter.close()

    assert process.exitcode == 0
    assert eids(collector.payloads) == ["of the child"] * 2 + ["of the parent"] * 2


def test_workers_of_a_multiprocessing_pool_deliver_when_they_end(collector, monkeypatch):
    """What is tracked in the workers of a pool is delivered, when the pool is closed at the latest."""
    monkeypatch.setattr(sys.modules[__name__], "emitter_of_pool", AsyncEmitter(collector.url), raising=False)

    with multiprocessing.get_context("fork").Pool(2) as pool:
        tracked = pool.map(track_in_pool, range(8), chunksize=1)
        pool.close()
        pool.join()

    assert tracked == list(range(8))
    assert sorted(eids(collector.payloads)) == list("01234567")


def track_in_pool(number):
    emitter_of_pool.input({"eid": str(number)})  # noqa: F821  # set by the test
    return number


@pytest.mark.parametrize(
    ("start_method", "imported"),
    [("fork", "in the child"), ("forkserver", "in the child"), ("forkserver", "at the top"), ("spawn", "at the top")],
)
def test_emitter_of_a_multiprocessing_child_delivers(collector, tmp_path, start_method, imported):
    """An emitter that is made in a child of `multiprocessing` delivers, even if only the child imports the library."""
    line = "from snowplow_tracker import AsyncEmitter, Emitter"
    script = f"""
        import multiprocessing, sys
        {line if imported == "at the top" else ""}

        def track(url):
            {line if imported == "in the child" else ""}
            global emitters
            emitters = [kind(url) for kind in (Emitter, AsyncEmitter)]
            for emitter in emitters:
                emitter.input({{"eid": "of the child"}})

        if __name__ == "__main__":
            process = multiprocessing.get_context({start_method!r}).Process(target=track, args=sys.argv[1:])
            process.start()
            process.join()
            sys.exit(process.exitcode)
    """

    result = run(script, collector.url, folder=tmp_path)

    assert result == (0, "", "")
    assert eids(collector.payloads) == ["of the child"] * 2
