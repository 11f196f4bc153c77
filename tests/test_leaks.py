"""Nothing grows: threads, open files, objects and memory are back where they were, however an emitter was used."""

import contextlib
import functools
import gc
import itertools
import logging
import operator
import os
import sys
import threading
import time
import tracemalloc
import urllib.parse
from collections import Counter
from pathlib import Path

import pytest
import requests
from support import PATIENCE_SECONDS, ManualTimer, eventually, own_threads

import snowplow_tracker
from snowplow_tracker import AsyncEmitter, Emitter, EmitterConfiguration, PageView, Snowplow, Tracker, _event_ids
from snowplow_tracker.testing import Answer, LocalCollector

pytestmark = pytest.mark.thorough

CLASSES = [Emitter, AsyncEmitter]
FILES = Path("/proc/self/fd")
LIBRARY = Path(snowplow_tracker.__file__).parent

needs_files = pytest.mark.skipif(not FILES.is_dir(), reason="only Linux lists the open files of a process in /proc")


class Formatting(logging.Handler):
    """Formats what is logged, and keeps nothing but the number of lines."""

    lines = 0

    def emit(self, record):
        self.format(record)
        self.lines += 1


@contextlib.contextmanager
def from_zero():
    """Have all counts begin at zero: what was there before is neither collected nor counted.

    The library's log has one handler meanwhile, which is what the context gives. Those of pytest keep what they get.
    """
    logger, handler = logging.getLogger("snowplow_tracker"), Formatting()
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    gc.collect()
    gc.freeze()
    try:
        yield handler
    finally:
        gc.unfreeze()
        tracemalloc.stop()
        logger.handlers, logger.propagate = before


def objects():
    """Count the objects of the library's types that came since the test began, its collector for tests left out."""
    gc.collect()
    # Interned, lest counts that are kept take more and more memory.
    names = (sys.intern(f"{type(one).__module__}.{type(one).__qualname__}") for one in gc.get_objects())
    return Counter(
        name
        for name in names
        if name.startswith("snowplow_tracker.") and not name.startswith("snowplow_tracker.testing.")
    )


def crowded_lines(count):
    """Return the library's lines that have allocated so many blocks since `tracemalloc` began that are still held."""
    # What is left of the randomness for some ids is used up or forgotten by the next event.
    _event_ids._forget()
    gc.collect()
    filters = tracemalloc.Filter(True, f"{LIBRARY}/*"), tracemalloc.Filter(False, f"{LIBRARY}/testing/*")
    statistics = tracemalloc.take_snapshot().filter_traces(filters).statistics("lineno")
    return {str(line.traceback): line.count for line in statistics if line.count >= count}


def open_files():
    return len(list(FILES.iterdir()))


def resident_megabytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


# How the life of an emitter ends. What is not closed, or not with success, is dropped.
ENDINGS = {
    "closed": lambda tracker, emitter: tracker.close(),
    "closed in vain": lambda tracker, emitter: tracker.close(timeout=0),
    "removed from the registry": lambda tracker, emitter: Snowplow.remove_tracker(tracker),
    "dropped": lambda tracker, emitter: None,
    "dropped in a cycle": lambda tracker, emitter: setattr(emitter, "itself", emitter),
}


def live(collector, session, ending, kind, method, has_session, condition):
    """Lead the life of one emitter: it sends two events, has one that waits, and comes to its end."""
    config = EmitterConfiguration(
        batch_size=2,
        session=session if has_session else None,
        max_retry_delay_seconds=0.05,
        flush_interval=60 if condition == "flush timer" else None,
    )
    if ending == "removed from the registry":
        tracker = Snowplow.create_tracker(ending, collector.url, method, emitter_config=config, emitter_class=kind)
        [emitter] = tracker.emitters
    else:
        emitter = kind(collector.url, method=method, **config.emitter_options())
        tracker = Tracker(ending, emitter)
    if condition == "backoff":
        collector.respond_with(503)
    for _ in range(2):
        tracker.track(PageView("https://example.com"))
    tracker.flush()
    tracker.track(PageView("https://example.com"))
    ENDINGS[ending](tracker, emitter)


@needs_files
@pytest.mark.parametrize(
    ("tls", "conditions"),
    [(False, ["no timer", "flush timer", "backoff"]), (True, ["flush timer", "backoff"])],
    ids=["http", "https"],
)
def test_emitters_leave_nothing_behind(tls, conditions, monkeypatch):
    """After 200 emitters with all kinds of lives there are as many threads, files, objects and bytes as before."""
    lives = list(itertools.product(ENDINGS, CLASSES, ["post", "get"], [False, True], conditions))
    threads = own_threads()
    with from_zero():
        with LocalCollector(tls=tls) as collector, requests.Session() as session:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", collector.certificate_file)
            for life in lives[:: len(lives) // 10]:
                live(collector, session, *life)
            session.close()
            eventually(lambda: not objects() and own_threads() <= threads)
            files = open_files()
            collector.reset()
            if not tls:
                tracemalloc.start()

            def are_back():
                session.close()
                return not objects() and own_threads() <= threads and open_files() <= files

            for life in lives:
                live(collector, session, *life)

            eventually(are_back)
        delivered = Counter(payload["tna"] for payload in collector.payloads)
        del delivered["closed in vain"]
        assert delivered == dict.fromkeys(ENDINGS.keys() - {"closed in vain"}, 3 * len(lives) // len(ENDINGS))
        # The last URLs that were taken apart are kept by the standard library.
        urllib.parse.clear_cache()
        # Blocks that the interpreter has kept for reuse may be in use for what the collector remembers.
        del collector
        # There are 12 emitters of each class that came to the same end. A line may hold one or two blocks of what is
        # made once for each thread or, before Python 3.11, for the next call of a function.
        assert tls or crowded_lines(12) == {}


class Service:
    """An application that tracks five events a second, and its collector, in a time of their own.

    In each minute all is well for half of the time. Then the collector is overloaded, refuses connections, resets them,
    hangs, and refuses events for good, for six seconds each.
    """

    STEP_SECONDS = 0.2

    def __init__(self, kind, method):
        self.now = 0.0
        self.emitter = self.scripted(kind)(
            "collector.example.com",
            method=method,
            batch_size=10,
            buffer_capacity=50,
            byte_limit=20_000 if method == "post" else None,
            max_retry_delay_seconds=4,
            flush_interval=5,
            on_success=self.call_back,
            on_failure=self.call_back,
        )
        self.emitter.timer, self.emitter.retry_timer = Appointment(self, True), Appointment(self, False)
        for occurrences in (self.emitter._drop_reports.occurrences, self.emitter._failure_reports):
            occurrences._clock = lambda: self.now
        self.tracker = Tracker("soak", self.emitter, encode_base64=False)

    def scripted(self, kind):
        answer = self.answer

        class Scripted(kind):
            def http_post(self, data):
                return answer()

            def http_get(self, payload):
                return answer()

        return Scripted

    def answer(self):
        phase = int(self.now % 60) // 6
        if phase < 5:
            return 200
        if phase == 5:
            response = requests.Response()
            response.status_code, response.headers["Retry-After"] = 503, "2"
            return response
        if phase == 9:
            return 400
        raise (requests.ConnectionError("refused"), ConnectionResetError("reset"), requests.ReadTimeout("hangs"))[
            phase - 6
        ]

    def call_back(self, *outcome):
        if int(self.now) % 20 == 0:
            raise RuntimeError("from a callback")

    def run(self, seconds):
        """Let so many seconds pass. Nothing is under way when they are over."""
        for _ in range(round(seconds / self.STEP_SECONDS)):
            self.now += self.STEP_SECONDS
            self.emitter.timer.tick()
            self.emitter.retry_timer.tick()
            self.tracker.track(PageView("https://example.com", "A page"))
            if isinstance(self.emitter, AsyncEmitter):
                self.emitter.queue.join()
        self.tracker.flush()
        if isinstance(self.emitter, AsyncEmitter):
            # The flush has ended, but its worker may not have said so to the queue.
            self.emitter.queue.join()

    def sizes(self):
        """Return the sizes of all that grows and shrinks in an emitter."""
        emitter, ledger, store = self.emitter, self.emitter._ledger, self.emitter.event_store
        return {
            "buffered": len(store.event_buffer),
            "handed out": len(store._handed_out) + len(ledger._in_flight),
            "retry turns": len(store._retry_turns),
            "bytes": (emitter.bytes_queued or 0) + ledger.wire_bytes,
            "tasks": emitter._worker_pool.queue.qsize() + emitter._worker_pool.queue.unfinished_tasks,
            "workers": len(emitter._worker_pool._threads),
            "sessions": len(emitter._session_pool._idle),
            "kinds of drops": len(emitter._drop_reports.occurrences._unreported)
            + len(emitter._drop_reports.occurrences._reported_at),
            "kinds of failures": len(emitter._failure_reports._unreported) + len(emitter._failure_reports._reported_at),
            "names": len(self.tracker._reported_keys),
        }


class Appointment(ManualTimer):
    """A `FlushTimer` that goes by the time of a service."""

    def __init__(self, service, repeating):
        super().__init__(service.emitter)
        self.service, self.repeating = service, repeating

    def start(self, timeout):
        self.delay, self.due_at = timeout, self.service.now + timeout

    def remaining_seconds(self):
        return self.due_at - self.service.now if self.is_active() else 0.0

    def tick(self):
        if self.is_active() and self.remaining_seconds() <= 0:
            interval = self.delay
            self.fire()
            if self.repeating:
                self.start(interval)


@pytest.mark.parametrize(("kind", "method"), [(Emitter, "post"), (AsyncEmitter, "post"), (AsyncEmitter, "get")])
def test_memory_is_flat_through_ten_minutes_of_outages(kind, method):
    """At the same second of each minute an emitter holds the same, to the object, whatever happened in between."""
    with from_zero() as log:
        service = Service(kind, method)
        service.run(60 + 20)
        sizes, living = service.sizes(), objects()

        for minute in range(10):
            if minute == 8:
                # Traced code takes three times as long. A line that leaks would do so in any two minutes.
                tracemalloc.start()
            service.run(60)
            assert service.sizes() == sizes
            assert objects() == living

        # One or two blocks of a line are in figures that have changed.
        assert crowded_lines(5) == {}
        stats = service.emitter.stats()
        assert min(stats.delivered, stats.rejected, stats.dropped, stats.retries) > 500
        assert log.lines > 100


@pytest.mark.parametrize("kind", CLASSES)
def test_closed_emitter_holds_no_connection(kind, collector):
    """The connection of a request that was under way when its emitter was closed is closed with its answer."""
    release = threading.Event()
    collector.respond_with(Answer(hold=release))
    emitter = kind(collector.url, batch_size=1)
    sender = threading.Thread(target=emitter.input, args=[{"eid": "held"}])
    sender.start()
    collector.wait_for_requests(1)

    closed = emitter.close(timeout=0.01)
    release.set()
    sender.join(PATIENCE_SECONDS)
    eventually(lambda: emitter.stats().delivered == 1)

    assert not closed
    eventually(lambda: not any("connection" in thread.name for thread in threading.enumerate()))


def test_emitter_that_is_closed_again_while_its_collector_hangs_leaves_no_thread(collector):
    """Each attempt has a worker of its own, and none of them stays when the collector answers."""
    release, threads = threading.Event(), own_threads()
    collector.respond_always(Answer(hold=release))
    emitter = AsyncEmitter(collector.url, batch_size=1)
    emitter.input({"eid": "held"})
    collector.wait_for_requests(1)

    closed = [emitter.close(timeout=0.01) for _ in range(5)]
    release.set()

    assert not any(closed)
    eventually(lambda: own_threads() <= threads)


def test_flushes_that_nobody_waits_for_do_not_pile_up():
    """What was put into the queue for a flush with a timeout is taken out when the time is up."""
    release, is_busy = threading.Event(), threading.Event()

    class Hanging(AsyncEmitter):
        def http_post(self, data):
            is_busy.set()
            release.wait(PATIENCE_SECONDS)
            return 200

    emitter = Hanging("collector.example.com", batch_size=1)
    emitter.input({"eid": "held"})
    assert is_busy.wait(PATIENCE_SECONDS)

    for _ in range(20):
        emitter.sync_flush(timeout=0.001)
    left = emitter.queue.qsize()
    release.set()
    emitter.queue.join()

    assert left == 0
    assert emitter.close()


@pytest.mark.parametrize("kind", CLASSES)
def test_threads_that_come_and_go_leave_nothing_in_an_emitter(kind):
    """An application that has a thread for each request may track from all of them."""

    class Scripted(kind):
        def http_post(self, data):
            return 200

    emitter = Scripted("collector.example.com", batch_size=3)

    def serve(requests):
        for number in range(requests):
            thread = threading.Thread(target=emitter.input, args=[{"eid": str(number)}])
            thread.start()
            thread.join()
        emitter.sync_flush()

    with from_zero():
        serve(10)
        tracemalloc.start()
        serve(500)

        assert crowded_lines(5) == {}
        assert emitter.stats().delivered == 510


@needs_files
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_memory_is_flat_through_a_million_events():
    """So it is over real sockets, for minutes on end, by what the operating system counts."""
    answers = itertools.cycle([Answer(503), Answer(reset="after_body"), Answer(400), Answer(raw=b"?"), Answer(413)])
    living, blocks, resident, events, end = [], [], [], 0, time.monotonic() + 240
    with LocalCollector() as collector, from_zero():
        options = {"batch_size": 100, "max_retry_delay_seconds": 0.1, "flush_interval": 1}
        tracker = Tracker("soak", [kind(collector.url, **options) for kind in CLASSES])
        while events < 1_000_000 or time.monotonic() < end:
            for number in range(50_000):
                if number % 5_000 == 0:
                    collector.respond_with(next(answers))
                    tracker.flush(timeout=PATIENCE_SECONDS)
                tracker.track(PageView("https://example.com"))
            collector.refuse_connections()
            for _ in range(1_000):
                tracker.track(PageView("https://example.com"))
            collector.accept_connections()
            tracker.flush(timeout=PATIENCE_SECONDS)
            collector.reset()
            events += 51_000
            living.append(objects())
            blocks.append(sys.getallocatedblocks())
            resident.append(resident_megabytes())

        print(f"{events} events, {[emitter.stats() for emitter in tracker.emitters]}")
        print("resident megabytes:", *resident)
        print("allocated blocks:", *blocks)
        half = len(living) // 2
        # How many sessions there are, with a connection each, depends on how many requests happened to run at once.
        assert not functools.reduce(operator.or_, living[half:]) - functools.reduce(operator.or_, living[:half])
        assert max(blocks[half:]) < max(blocks[:half]) + 1_000
        assert tracker.close()
