"""What becomes of emitters and trackers that nobody holds any more."""

import gc
import json
import logging
import sys
import threading
import weakref
from pathlib import Path
from unittest import mock

import pytest
from support import eids, eventually

from snowplow_tracker import AsyncEmitter, Emitter, InMemoryEventStore, PageView, Tracker, _lifecycle
from snowplow_tracker.testing import Answer

pytestmark = pytest.mark.thorough

CLASSES = [Emitter, AsyncEmitter]
FILES = next((folder for folder in map(Path, ("/proc/self/fd", "/dev/fd")) if folder.is_dir()), None)


@pytest.fixture
def threads():
    """Return the names of the library's threads that came since the test began."""
    before = set(threading.enumerate())

    def names_of_new_ones():
        new = set(threading.enumerate()) - before
        return sorted(thread.name for thread in new if thread.name.startswith("snowplow-"))

    return names_of_new_ones


@pytest.fixture(autouse=True)
def quiet_end(collector, threads, monkeypatch):
    """Fail a test in which a finalizer raises something, or which leaves threads behind."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    yield
    gc.collect()
    eventually(lambda: threads() == [])
    assert unraisable == []


def is_gone(reference):
    """Tell whether an object was collected, which it is not before the last thread has let go of it."""
    gc.collect()
    return reference() is None


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("kind", CLASSES)
def test_dropped_emitter_delivers_in_the_background(collector, kind, method, threads):
    """What waits in an emitter is delivered when the last reference to it is dropped, and the emitter ends."""
    emitter = kind(collector.url, method=method, batch_size=10)
    reference = weakref.ref(emitter)
    for number in range(3):
        emitter.input({"eid": str(number)})

    del emitter

    assert eids(collector.wait_for_payloads(3)) == ["0", "1", "2"]
    eventually(lambda: is_gone(reference))
    eventually(lambda: threads() == [])


@pytest.mark.parametrize("kind", CLASSES)
def test_emitter_in_a_reference_cycle_delivers_in_the_background(collector, kind, threads):
    """What waits in an emitter that refers to itself is delivered when the garbage collector finds it."""
    emitter = kind(collector.url, batch_size=10)
    emitter.on_success = mock.Mock(emitter=emitter)
    emitter.input({"eid": "waiting"})

    del emitter
    gc.collect()

    assert eids(collector.wait_for_payloads(1)) == ["waiting"]
    eventually(lambda: threads() == [])


@pytest.mark.parametrize("kind", CLASSES)
def test_emitter_in_a_reference_cycle_with_threads_delivers_in_the_background(collector, kind, threads):
    """So it is if the emitter has threads and timers already."""
    emitter = kind(collector.url, batch_size=2)
    emitter.itself = emitter
    reference = weakref.ref(emitter)
    emitter.input({"eid": "first"})
    emitter.input({"eid": "second"})
    emitter.set_flush_timer(60)
    emitter.sync_flush()
    emitter.input({"eid": "waiting"})

    del emitter
    eventually(lambda: is_gone(reference))

    assert eids(collector.wait_for_payloads(3)) == ["first", "second", "waiting"]
    eventually(lambda: threads() == [])


class FinalizedStore(InMemoryEventStore):
    """Notes what it is called for after its finalizer."""

    is_finalized = False

    def __init__(self, late_calls):
        super().__init__()
        self._late_calls = late_calls

    def _call(self, name):
        if self.is_finalized:
            self._late_calls.append(name)

    def get_events_batch(self, limit=None):
        self._call("get_events_batch")
        return super().get_events_batch(limit=limit)

    def cleanup(self, batch, need_retry):
        self._call("cleanup")
        super().cleanup(batch, need_retry)

    def size(self):
        self._call("size")
        return super().size()

    def __del__(self):
        self.is_finalized = True


@pytest.mark.parametrize("kind", CLASSES)
def test_store_in_a_reference_cycle_is_finalized_after_its_emitter(collector, kind, threads):
    """A store whose connection is closed while another thread uses it may bring the process down."""
    late_calls = []
    store = FinalizedStore(late_calls)
    emitter = kind(collector.url, batch_size=10, event_store=store)
    emitter.itself = emitter
    emitter.input({"eid": "waiting"})
    reference = weakref.ref(store)

    del emitter, store
    gc.collect()

    assert eids(collector.wait_for_payloads(1)) == ["waiting"]
    eventually(lambda: is_gone(reference))
    eventually(lambda: threads() == [])
    assert late_calls == []


@pytest.mark.parametrize("kind", CLASSES)
def test_tracker_per_request_loses_nothing(collector, kind, threads):
    """A function that makes a tracker, tracks an event and forgets the tracker loses nothing."""

    def handle_request():
        tracker = Tracker("test", kind(collector.url))
        tracker.track(PageView(page_url="https://example.com"))

    for _ in range(10):
        handle_request()

    assert len(collector.wait_for_payloads(10)) == 10
    eventually(lambda: threads() == [])


@pytest.mark.parametrize("kind", CLASSES)
def test_dropped_emitter_goes_on_through_an_outage(collector, kind):
    """In the background there are retries, at the backoff's pace."""
    collector.respond_with(503, 503)
    emitter = kind(collector.url, max_retry_delay_seconds=0.1)
    emitter.input({"eid": "waiting"})

    del emitter

    assert eids(collector.wait_for_payloads(1)) == ["waiting"]
    assert len(collector.requests) == 3


def mock_of_post(status):
    return mock.patch("requests.post", return_value=mock.Mock(status_code=status))


def posted(post):
    """Return what a mock of `requests.post` was called with: the event ids, each once."""
    return {eid for call in post.call_args_list for eid in eids(json.loads(call[1]["data"])["data"])}


def tracker_of_one_event(eid):
    # The setting makes no difference, as the page says.
    emitter = Emitter("collector.invalid", flush_on_exit=False)
    emitter.input({"eid": eid})
    return Tracker("test", emitter)


@pytest.mark.parametrize(("status", "end"), [(200, Tracker.flush), (200, Tracker.close), (503, Tracker.close)])
def test_tracker_that_was_ended_does_not_reach_the_mock_of_the_next_test(status, end):
    """What waits in a tracker that is dropped reaches that mock, unless it was flushed or closed before."""
    with mock_of_post(status) as own:
        tracker = tracker_of_one_event("ended")
        end(tracker, timeout=0.1)

    with mock_of_post(200) as following:
        del tracker
        gc.collect()
        tracker_of_one_event("left")
        gc.collect()
        eventually(lambda: "left" in posted(following))

    assert posted(own) == {"ended"}
    assert posted(following) == {"left"}


def test_flush_that_fails_leaves_the_event_to_the_mock_of_the_next_test():
    """It waits for another attempt."""
    with mock_of_post(503):
        tracker = tracker_of_one_event("failed")
        tracker.flush()

    with mock_of_post(200) as following:
        del tracker
        gc.collect()
        eventually(lambda: posted(following) == {"failed"})


@pytest.mark.parametrize("kind", CLASSES)
def test_dropped_emitter_gives_up_in_the_end(collector, kind, caplog, monkeypatch, threads):
    """What cannot be delivered in the background is logged as lost, and the emitter ends."""
    monkeypatch.setattr(_lifecycle, "_ORPHAN_SECONDS", 0.05)
    collector.respond_always(Answer(503, headers={"Retry-After": "30"}))
    emitter = kind(collector.url)
    reference = weakref.ref(emitter)
    emitter.input({"eid": "first"})
    emitter.input({"eid": "second"})

    del emitter
    eventually(lambda: is_gone(reference))

    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "Lost 2 payloads: nobody holds the emitter, and 0.05 s were not enough" in errors
    eventually(lambda: threads() == [])


@pytest.mark.parametrize("kind", CLASSES)
def test_dropped_emitter_takes_its_threads_and_timers_along(collector, kind, threads):
    """Threads and timers of an emitter with nothing to send end when it is dropped."""
    emitter = kind(collector.url, batch_size=1, flush_interval=60)
    emitter.input({"eid": "delivered"})
    emitter.sync_flush()
    reference = weakref.ref(emitter)
    running = threads()

    del emitter

    assert len(running) == (1 if kind is Emitter else 2)
    eventually(lambda: is_gone(reference))
    eventually(lambda: threads() == [])


@pytest.mark.parametrize("kind", CLASSES)
def test_unused_emitter_leaves_nothing_behind(collector, kind, monkeypatch):
    """An emitter without waiting payloads and threads is gone with its last reference."""
    monkeypatch.setattr(_lifecycle.lifecycle, "adopt", mock.Mock(side_effect=AssertionError("adopted")))
    emitter = kind(collector.url)
    reference = weakref.ref(emitter)

    del emitter

    assert reference() is None


def test_emitter_that_has_sent_everything_leaves_nothing_behind(collector, monkeypatch):
    """So is an emitter that has sent everything, and no thread is started for it."""
    monkeypatch.setattr(_lifecycle.lifecycle, "adopt", mock.Mock(side_effect=AssertionError("adopted")))
    emitter = Emitter(collector.url, batch_size=1)
    emitter.input({"eid": "delivered"})
    reference = weakref.ref(emitter)

    del emitter

    assert reference() is None
    assert eids(collector.payloads) == ["delivered"]


@pytest.mark.parametrize("kind", CLASSES)
def test_closed_emitter_is_not_closed_again(collector, kind, monkeypatch):
    """What `close` has given up on is not tried again when the emitter is dropped."""
    monkeypatch.setattr(_lifecycle.lifecycle, "adopt", mock.Mock(side_effect=AssertionError("adopted")))
    collector.respond_with(Answer(503, headers={"Retry-After": "30"}))
    emitter = kind(collector.url)
    emitter.input({"eid": "waiting"})
    closed = emitter.close(timeout=None)

    del emitter
    gc.collect()

    assert not closed
    assert len(collector.requests) == 1


@pytest.mark.skipif(FILES is None, reason="the platform does not list a process's open files")
def test_many_emitters_leave_neither_threads_nor_files_behind(collector):
    """Two hundred emitters that are made, used and dropped deliver, and return what they took of the system."""
    gc.collect()
    before = len(list(FILES.iterdir())), threading.active_count()

    for number in range(200):
        emitter = CLASSES[number % 2](collector.url, batch_size=number % 3 + 1)
        emitter.input({"eid": str(number)})
        if number % 5 == 0:
            emitter.set_flush_timer(60)
        if number % 7 == 0:
            emitter.itself = emitter
    del emitter

    def is_back():
        gc.collect()
        files, count = len(list(FILES.iterdir())), threading.active_count()
        return files <= before[0] and count <= before[1]

    eventually(is_back)
    assert sorted(map(int, eids(collector.payloads))) == list(range(200))


def test_finalizer_waits_for_no_lock(collector):
    """Garbage may be collected in the middle of anything, so the finalizer of an emitter waits for no lock."""
    emitter = AsyncEmitter(collector.url, batch_size=10)
    emitter.input({"eid": "waiting"})
    mutex = emitter.queue.mutex
    reference = weakref.ref(emitter)
    finished = threading.Event()

    def drop(emitters):
        with mutex, threading._active_limbo_lock:
            emitters.clear()
            finished.set()

    dropper = threading.Thread(target=drop, args=[[emitter]], daemon=True)
    del emitter
    dropper.start()

    assert finished.wait(10)
    assert eids(collector.wait_for_payloads(1)) == ["waiting"]
    eventually(lambda: is_gone(reference))


def test_emitters_beyond_a_number_are_given_up(collector, caplog, monkeypatch, threads):
    """When too many emitters that nobody holds wait already, the next one's loss is logged, and its threads end."""
    limit = len(_lifecycle.lifecycle._adopted) + 1
    monkeypatch.setattr(_lifecycle, "_MAX_ORPHANS", limit)
    release = threading.Event()
    collector.respond_with(200, Answer(hold=release))
    one_too_many = AsyncEmitter(collector.url, batch_size=1, flush_interval=60)
    one_too_many.input({"eid": "delivered"})
    one_too_many.sync_flush()
    one_too_many.batch_size = 10
    one_too_many.input({"eid": "lost"})
    one_too_many.input({"eid": "lost"})
    reference = weakref.ref(one_too_many)
    first = Emitter(collector.url)
    first.input({"eid": "in the background"})

    del first
    collector.wait_for_requests(2)
    del one_too_many

    eventually(lambda: is_gone(reference))
    eventually(lambda: threads() == ["snowplow-orphans"])
    assert f"Lost 2 payloads: {limit} emitters that nobody holds wait already" in caplog.text
    release.set()
    eventually(lambda: threads() == [])
    assert eids(collector.payloads) == ["delivered", "in the background"]


def test_emitter_waits_for_the_next_one_when_there_is_no_thread(collector, monkeypatch, threads):
    """If no thread can be started, a dropped emitter is kept, and delivers together with the next one."""
    first, second = Emitter(collector.url), Emitter(collector.url)
    first.input({"eid": "first"})
    second.input({"eid": "second"})

    with monkeypatch.context() as patch:
        patch.setattr(_lifecycle._thread, "start_new_thread", mock.Mock(side_effect=RuntimeError("can't start")))
        del first
    requests_without_a_thread = collector.requests
    del second

    assert requests_without_a_thread == []
    assert sorted(eids(collector.wait_for_payloads(2))) == ["first", "second"]
    eventually(lambda: threads() == [])


@pytest.mark.parametrize("kind", CLASSES)
def test_emitter_without_its_constructor_is_collected_quietly(kind):
    """An emitter whose constructor a test has patched away, or which raised, is collected without a word."""
    with mock.patch.object(kind, "__init__", return_value=None):
        patched = kind("collector.example.com")
    reference = weakref.ref(patched)
    with pytest.raises(ValueError, match="batch_size"):
        kind("collector.example.com", batch_size=0)

    del patched

    assert reference() is None
