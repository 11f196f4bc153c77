"""A collector misbehaves in every way over real sockets: nothing is lost, and nothing sent twice without need."""

import gc
import itertools
import json
import logging
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

import pytest
import requests
from chaos import REJECTED, ChaoticCollector
from support import PATIENCE_SECONDS, eventually, is_balanced

from snowplow_tracker import AsyncEmitter, Emitter, EmitterStats, StructuredEvent, Tracker
from snowplow_tracker._transport import Status
from snowplow_tracker.testing import LocalCollector

pytestmark = [pytest.mark.thorough, pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")]

METHODS = ("post", "get")
KINDS = [(Emitter, {}), (AsyncEmitter, {}), (AsyncEmitter, {"thread_count": 4})]
TRACKING_THREADS = 3
BATCH_SIZE = 5
MAX_RETRY_DELAY_SECONDS = 0.05
REQUEST_TIMEOUT_SECONDS = 0.3
# How many connections are refused in an outage at the least.
REFUSED = 3
# While so many payloads wait, nothing more is tracked.
CROWD = 8 * BATCH_SIZE


@dataclass(frozen=True)
class Attempt:
    """What an emitter learnt of one request."""

    started: float
    eids: List[str]
    status: Status


def is_rejection(eids: List[str], status: int) -> bool:
    """Tell whether it is final; 413 is that for one event only."""
    return status in REJECTED or (status == 413 and len(eids) == 1)


@dataclass
class Storm:
    """What an application did and saw. Its lists are only appended to."""

    tracked: List[str] = field(default_factory=list)
    delivered: List[str] = field(default_factory=list)
    not_delivered: Set[str] = field(default_factory=set)
    attempts: List[Attempt] = field(default_factory=list)
    explicit_flushes: List[float] = field(default_factory=list)
    imbalances: List[Any] = field(default_factory=list)
    errors: List[BaseException] = field(default_factory=list)
    slowest_track_seconds: float = 0.0
    outage_seconds: float = 0.0
    outage_requests: int = 0

    def rejected(self) -> Set[str]:
        return {eid for attempt in self.attempts if is_rejection(attempt.eids, attempt.status) for eid in attempt.eids}

    def timed_out(self) -> Dict[str, int]:
        """Count the attempts whose answer may have come too late."""
        return Counter(
            eid for attempt in self.attempts if "timed out" in (attempt.status.error or "") for eid in attempt.eids
        )


class Application:
    """Tracks from several threads, flushes in every way, and has callbacks that raise, track and flush."""

    def __init__(self, tracker: Tracker, emitter: Emitter, storm: Storm, seed: int) -> None:
        self.tracker = tracker
        self.emitter = emitter
        self.storm = storm
        self.is_calm = False
        self._gate = threading.RLock()
        self._random = random.Random(seed)
        emitter.on_success = self.succeed
        emitter.on_failure = self.fail

    def track(self) -> None:
        started = time.perf_counter()
        label = "é" * (20 if self._random.random() < 0.95 else 400)
        eid = self.tracker.track(StructuredEvent(category="chaos", action="track", label=label))
        self.storm.slowest_track_seconds = max(self.storm.slowest_track_seconds, time.perf_counter() - started)
        self.storm.tracked.append(eid)

    def run(self, events: int) -> None:
        try:
            for _ in range(events):
                self.track()
                # Otherwise all is tracked during a single backoff, and no thread that tracks ever sends.
                eventually(self.has_room)
                if self._random.random() < 0.05:
                    self.do_something_else()
        except BaseException as error:
            self.storm.errors.append(error)

    def has_room(self) -> bool:
        return self.emitter.stats().buffered < CROWD

    def go_on(self) -> None:
        """Track a few events, and try to send all that wait."""
        for _ in range(BATCH_SIZE if self.has_room() else 0):
            self.track()
        self.tracker.flush()

    def do_something_else(self) -> None:
        deed = self._random.randrange(5)
        if deed == 0:
            self.tracker.flush(False)
        elif deed == 1:
            self.emitter.flush()
        elif deed == 2:
            self.storm.explicit_flushes.append(time.monotonic())
            self.tracker.flush()
        elif deed == 3:
            self.storm.explicit_flushes.append(time.monotonic())
            self.tracker.flush(timeout=0.1)
        elif not is_balanced(self.emitter):
            self.storm.imbalances.append(self.emitter.stats())

    def succeed(self, delivered: List[dict]) -> None:
        self.storm.delivered.extend(payload["eid"] for payload in delivered)
        self.react()

    def fail(self, delivered_count: int, not_delivered: List[dict]) -> None:
        self.storm.not_delivered.update(payload["eid"] for payload in not_delivered)
        self.react()

    def react(self) -> None:
        deed = self._random.randrange(20)
        if deed == 0:
            with self._gate:
                if not self.is_calm:
                    self.track()
        elif deed == 1:
            self.tracker.flush(timeout=0.1)
        elif deed < 8:
            raise RuntimeError("from a callback")

    def calm_down(self) -> None:
        """Have callbacks track no more."""
        with self._gate:
            self.is_calm = True


def observed(emitter_class: Any, storm: Storm) -> Any:
    """Make a class of emitters that write down each request and how it ended."""

    class Observed(emitter_class):
        def http_post(self, data):
            return note([payload["eid"] for payload in json.loads(data)["data"]], super().http_post, data)

        def http_get(self, payload):
            return note([payload["eid"]], super().http_get, payload)

    def note(eids, send, argument):
        started = time.monotonic()
        status = Status.no_response("interrupted")
        try:
            status = send(argument)
        except Exception as error:
            status = Status.no_response(error)
            raise
        finally:
            storm.attempts.append(Attempt(started, eids, status))
        return status

    return Observed


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir())) if Path("/dev/fd").exists() else 0


def survive(
    kind: Tuple[Any, Dict[str, Any]], method: str, seed: int, *, tls: bool, own_session: bool, **climate: Any
) -> Tuple[Storm, ChaoticCollector]:
    """Run an application through a storm and into calm weather, and check all that must be true of it."""
    storm = Storm()
    collector = ChaoticCollector(
        seed, tls=tls, sanity=climate["sanity"], reads_bodies=own_session, max_bytes=climate.pop("max_bytes")
    )
    stats = weather(kind, method, seed, storm, collector, requests.Session() if own_session else None, **climate)
    assert (storm.errors, storm.imbalances) == ([], [])
    check_ledger(storm, stats)
    check_arrivals(storm, collector)
    assert own_session or collector.cookies == []
    return storm, collector


def weather(
    kind: Tuple[Any, Dict[str, Any]],
    method: str,
    seed: int,
    storm: Storm,
    collector: ChaoticCollector,
    session: Optional[requests.Session],
    *,
    events: int,
    odd_answers: int,
    outage_seconds: float,
    sanity: float,
) -> EmitterStats:
    emitter_class, options = kind
    threads_before, descriptors_before = set(threading.enumerate()), descriptors()
    with collector:
        emitter = observed(emitter_class, storm)(
            collector.url,
            method=method,
            batch_size=BATCH_SIZE,
            max_retry_delay_seconds=MAX_RETRY_DELAY_SECONDS,
            request_timeout=REQUEST_TIMEOUT_SECONDS,
            max_request_bytes=4_000,
            session=session,
            **options,
        )
        tracker = Tracker(namespace="chaos", emitters=emitter)
        application = Application(tracker, emitter, storm, seed)
        threads = [
            threading.Thread(target=application.run, args=(events // TRACKING_THREADS,))
            for _ in range(TRACKING_THREADS)
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: application.go_on() or collector.odd_answers >= odd_answers // 2)
        endure_outage(application, collector, outage_seconds)
        eventually(lambda: application.go_on() or (collector.odd_answers >= odd_answers and not collector.untried))
        for thread in threads:
            thread.join(10 * PATIENCE_SECONDS)

        application.calm_down()
        collector.heal()
        emitter.request_timeout = PATIENCE_SECONDS
        tracker.flush(timeout=2 * PATIENCE_SECONDS)
        stats = emitter.stats()
        assert tracker.close()
        if session is not None:
            session.close()
    if session is not None or collector.url.startswith("https"):
        # `requests` and `ssl` leave some of the connections that failed to the garbage collector.
        gc.collect()
    eventually(lambda: set(threading.enumerate()) <= threads_before)
    eventually(lambda: descriptors() <= descriptors_before)
    return stats


def endure_outage(application: Application, collector: ChaoticCollector, seconds: float) -> None:
    storm, emitter = application.storm, application.emitter
    collector.refuse_connections()
    began, first = time.monotonic(), len(storm.attempts)

    def is_over() -> bool:
        if application.has_room():
            application.track()
        refused = sum(attempt.started >= began for attempt in storm.attempts[first:])
        return refused >= REFUSED and time.monotonic() >= began + seconds

    eventually(is_over)
    ended = time.monotonic()
    collector.accept_connections()
    requests_made = sum(began <= attempt.started < ended for attempt in storm.attempts[first:])
    # Those that were on the way when it began: threads that track, this one, the timer's and the emitter's own.
    at_once = TRACKING_THREADS + 2 + getattr(emitter, "thread_count", 1)
    explicit = sum(began <= moment < ended for moment in storm.explicit_flushes)
    assert requests_made <= at_once + explicit + (ended - began) / MAX_RETRY_DELAY_SECONDS
    storm.outage_requests += requests_made
    storm.outage_seconds += ended - began


def check_ledger(storm: Storm, stats: Any) -> None:
    rejected = storm.rejected()
    assert (stats.accepted, stats.dropped) == (len(storm.tracked), 0)
    assert (stats.buffered, stats.in_flight) == (0, 0)
    assert (stats.delivered, stats.rejected) == (len(storm.tracked) - len(rejected), len(rejected))
    assert sorted(storm.delivered) == sorted(set(storm.tracked) - rejected)
    assert rejected <= storm.not_delivered


def check_arrivals(storm: Storm, collector: ChaoticCollector) -> None:
    rejected, timed_out = storm.rejected(), storm.timed_out()
    refusals = {eid for eids, status in collector.replies if is_rejection(eids, status) for eid in eids}
    assert rejected <= refusals
    assert set(storm.tracked) - rejected - set(collector.taken) == set()
    visible = {eid: count - collector.hidden[eid] - timed_out[eid] for eid, count in collector.taken.items()}
    assert {eid: count for eid, count in visible.items() if count > (eid not in rejected)} == {}


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    """Trust the collector, and log nothing: tracebacks in records that pytest keeps would hold connections open."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", LocalCollector().certificate_file)
    before = logging.root.manager.disable
    # Loggers remember what is enabled, until this function tells them.
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(before)


def climate_of(seed: int, method: str) -> Dict[str, Any]:
    """Tell how a storm of a seed is. A failed GET costs a pause for one event, a failed POST one for a batch."""
    return {
        "tls": bool(seed & 1),
        "own_session": bool(seed & 2),
        "max_bytes": None if seed % 3 == 1 else 2_000,
        "sanity": 0.3 if method == "post" else 0.7,
    }


@pytest.mark.parametrize(("seed", "kind", "method"), [(n, KINDS[n % 3], METHODS[n // 3]) for n in range(6)])
def test_each_event_is_delivered_or_rejected_in_the_end(seed, kind, method):
    """Whatever the collector does; and twice only if nobody could know about the first time."""
    survive(kind, method, seed, events=150, odd_answers=20, outage_seconds=0.25, **climate_of(seed, method))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS, ids=["Emitter", "AsyncEmitter", "AsyncEmitter with 4 threads"])
def test_no_seed_of_many_loses_an_event(kind, method, capsys):
    """Twenty thousand events of an emitter, in many storms of all kinds."""
    total = Counter()
    slowest_track_seconds = 0.0
    for seed in itertools.count(1_000):
        climate = climate_of(seed, method)
        climate["sanity"] = 0.6 if method == "post" else 0.95
        try:
            storm, collector = survive(kind, method, seed, events=700, odd_answers=100, outage_seconds=2, **climate)
        except BaseException as error:
            raise AssertionError(f"seed {seed} of {kind} by {method}") from error
        total.update(figures(storm, collector))
        slowest_track_seconds = max(slowest_track_seconds, storm.slowest_track_seconds)
        if total["tracked"] >= 20_000:
            break
    with capsys.disabled():
        print(f"\n{kind[0].__name__} {kind[1]} {method}: {dict(total)}, slowest track {slowest_track_seconds:.4f} s")


def figures(storm: Storm, collector: ChaoticCollector) -> Dict[str, int]:
    timed_out = storm.timed_out()
    return {
        "storms": 1,
        "tracked": len(storm.tracked),
        "delivered": len(storm.delivered),
        "rejected": len(storm.rejected()),
        "lost": len(set(storm.tracked) - storm.rejected() - set(collector.taken)),
        "duplicates": sum(collector.taken.values()) - len(collector.taken),
        "answers hidden": sum(collector.hidden.values()),
        "answers too late": sum(timed_out.values()),
        "requests": len(storm.attempts),
        "failed requests": sum(attempt.status >= 300 or attempt.status < 200 for attempt in storm.attempts),
        "exceptions": len(storm.errors),
        "milliseconds of outage": round(1_000 * storm.outage_seconds),
        "requests in outages": storm.outage_requests,
    }
