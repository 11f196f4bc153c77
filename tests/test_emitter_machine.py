"""An emitter in every situation that its contract knows, held against a model which knows nothing but the contract.

Time is a stand-in: it passes when a request takes long, or when somebody waits, and timers that are due meanwhile fire
in threads of their own. The model learns what happens where an application can see it: in the event store, in
`send_events`, at the session or in `http_post` and `http_get`, in callbacks, and in `stats()`.
"""

import contextlib
import email.utils
import itertools
import json
import logging
import threading
import traceback
import urllib.parse
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from threading import get_ident
from types import SimpleNamespace
from typing import Any, Dict, List, Optional, Set, Tuple

import pytest
import requests
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from snowplow_tracker import Emitter, InMemoryEventStore, _retry, emitters

pytestmark = pytest.mark.thorough

ENVELOPE = '{"schema":"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4","data":[%s]}'
REFUSED_FOR_GOOD = {400, 401, 403, 410, 422}
LEAST_DELAY = 0.05
EPSILON = 1e-6

STATUSES = [100, 200, 204, 299, 304, 400, 401, 403, 404, 408, 410, 413, 422, 429, 500, 502, 503, 599, 0, -1]
NONSENSE = [None, True, "200", 200.0, b"", object(), SimpleNamespace(status_code="200"), SimpleNamespace()]
ERRORS = [OSError, requests.ConnectionError, requests.Timeout, requests.exceptions.SSLError, ValueError, RecursionError]
TEXTS = ["", "x" * 40, "漢字" * 20, "😀" * 15, '"\\\n' * 10, "\ud800", "x" * 1500]
SETTINGS = {
    "batch_size": [1, 2, 3, 7, 100],
    "byte_limit": [None, 1, 400, 1500],
    "buffer_capacity": [None, 1, 4, 9],
    "max_request_bytes": [1, 300, 340, 400, 700, 2500, 900_000],
    "max_retry_delay_seconds": [1, 3, 60],
    "custom_retry_codes": [{}, {400: True, 413: True, 429: False}, {413: False, 500: False, 302: False}],
    "flush_interval": [None, 5, 30],
    "request_timeout": [None, 3, (1, 2), (None, 5)],
}
SETTINGS_AND_VALUES = [(name, value) for name, values in SETTINGS.items() for value in values]
BEHAVIOURS = [
    "absent",
    "quiet",
    "raise",
    "track",
    "flush",
    "track and flush",
    "sync_flush",
    "async_flush",
    "change the method",
    "close",
]
PATHS = {"post": "/com.snowplowanalytics.snowplow/tp2", "get": "/i"}


@dataclass(frozen=True)
class Answer:
    """What a request ends with, and what happens meanwhile.

    Attributes:
        kind: The form of it; one of the branches of `given`.
        code: A status, for those that have one.
        detail: What else belongs to the kind.
        seconds: How long it takes, through a session.
        tracked: How many payloads another thread tracks meanwhile.
        changes_method: Whether another thread changes the emitter's method meanwhile.
    """

    kind: str
    code: int = 200
    detail: Any = None
    seconds: float = 0
    tracked: int = 0
    changes_method: bool = False

    def status(self, method: str) -> int:
        """What counts, by the contract."""
        if self.kind in ("error", "nonsense", "interrupt"):
            return -1
        if self.kind == "redirect":
            return self.code if method == "post" and self.code in (301, 302, 303) else self.detail
        return self.code

    def wish(self) -> Tuple[float, float]:
        """Bounds of the pause that the collector asks for: an HTTP date has whole seconds."""
        if self.kind == "seconds":
            return self.detail, self.detail
        if self.kind == "date":
            return max(0, self.detail - 1), max(0, self.detail)
        return 0, 0

    def given(self, method: str, now: float) -> Any:
        if self.kind == "error":
            raise self.detail("from the transport")
        if self.kind == "interrupt":
            raise KeyboardInterrupt
        if self.kind == "status":
            return self.code
        if self.kind == "nonsense":
            return self.detail
        verb = method.upper()
        if self.kind == "redirect":
            kept = verb if self.code in (307, 308) else "GET"
            return response(self.detail, kept, history=[response(self.code, verb)])
        value = self.detail
        if self.kind == "date":
            value = email.utils.formatdate(now + self.detail, usegmt=True)
        headers = {} if value is None else {"Retry-After": str(value)}
        return response(self.code, verb, headers=headers)


def response(code, verb, headers=None, history=()):
    request = SimpleNamespace(method=verb)
    return SimpleNamespace(status_code=code, headers=headers or {}, history=list(history), request=request)


codes = st.sampled_from(STATUSES) | st.sampled_from([200, 413, 500, 503])
plain_answers = st.one_of(
    st.builds(Answer, st.just("status"), codes),
    st.builds(Answer, st.just("response"), codes, st.sampled_from([None, "soon", "-5", "Fri, 99 Nov", "²"])),
    st.builds(Answer, st.just("seconds"), codes, st.sampled_from([0, 1, 7, 10**9])),
    st.builds(Answer, st.just("date"), codes, st.sampled_from([-60, 5, 3600])),
    st.builds(
        Answer, st.just("redirect"), st.sampled_from([301, 302, 303, 307, 308]), st.sampled_from([200, 404, 503])
    ),
    st.builds(Answer, st.just("error"), detail=st.sampled_from(ERRORS)),
    st.builds(Answer, st.just("nonsense"), detail=st.sampled_from(NONSENSE)),
)
eventful_answers = st.builds(
    lambda answer, *meanwhile: Answer(answer.kind, answer.code, answer.detail, *meanwhile),
    plain_answers,
    st.sampled_from([0, 0, 1, 8, 40]),
    st.sampled_from([0, 0, 1, 3]),
    st.booleans(),
)
answers = plain_answers | eventful_answers | st.just(Answer("interrupt"))


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        self.now = 1000.0
        self.timers: List[Timer] = []

    def time(self) -> float:
        return 1_700_000_000 + self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            due = [timer for timer in self.timers if timer.is_due(until)]
            if not due:
                break
            first = min(due, key=lambda timer: timer.due_at)
            self.now = max(self.now, first.due_at)
            first.fire()
        self.now = max(self.now, until)


CLOCK = Clock()


class Timer:
    """A `FlushTimer` on the clock of these tests."""

    def __init__(self, machine: "EmitterMachine", repeating: bool) -> None:
        self.machine = machine
        self.repeating = repeating
        self.due_at: Optional[float] = None
        self.appointments = 0
        self.is_firing = False
        CLOCK.timers.append(self)

    def start(self, timeout: float) -> None:
        if not self.repeating:
            self.machine.note_backoff(timeout, self.is_active())
        self.interval = timeout
        self.due_at = CLOCK.now + timeout
        self.appointments += 1

    def cancel(self) -> None:
        self.due_at = None
        self.appointments += 1

    def is_active(self) -> bool:
        return self.due_at is not None

    def is_due(self, moment: float) -> bool:
        return self.due_at is not None and self.due_at <= moment and not self.is_firing

    def remaining_seconds(self) -> float:
        return 0.0 if self.due_at is None else max(0.0, self.due_at - CLOCK.now)

    def has_thread(self) -> bool:
        return False

    def fire(self) -> None:
        appointment = self.appointments
        if not self.repeating:
            self.due_at = None
        self.is_firing = True
        self.machine.aside(self.machine.flush_automatically)
        self.is_firing = False
        if self.repeating and appointment == self.appointments:
            self.due_at = CLOCK.now + self.interval


class Changed(threading.Condition):
    """A condition whose waiting lets the clock run, and whose lock is free meanwhile."""

    def wait(self, timeout: Optional[float] = None) -> bool:
        self.release()
        CLOCK.sleep(timeout)
        self.acquire()
        return False


class Worker:
    """The thread of an emitter's `async_flush`, which works when the machine says so."""

    is_wanted = False

    def hand_over(self, thread_count: int) -> bool:
        self.is_wanted = True
        return True

    def has_batches(self) -> bool:
        return False

    has_threads = has_batches

    def belong_to(self, owner: Emitter) -> None:
        """Nothing here needs its owner."""

    def stop(self) -> None:
        """What was handed over before is still done."""


class Losses(logging.Handler):
    """Adds up what the log tells of losses: `Lost 3 payloads`, `Dropped 2 payloads`."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.counts: Dict[str, int] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        kind = str(record.msg).split()[0]
        if kind in ("Lost", "Dropped"):
            self.counts[kind] += record.args[0]


LOSSES = Losses()


@dataclass
class Send:
    """One call of `send_events`, as the contract wants it to go.

    Attributes:
        method: That of all its requests, whatever the emitter's becomes meanwhile.
        parts: Payloads without an answer: a request carries the first of the first part. All are one part until a 413.
        is_over: A failed request has ended it.
        delivered, rejected, failed: Payloads by the answer of their request.
        unsettled: By identity, what was not given back to the store yet.
        wish: Bounds of the pause that the last failed answer asked for.
        backoffs: How many there had been when it began.
        lost: Payloads that the store failed to take back.
        planned: Starts of the retry timer by it: the seconds, and whether it was active before.
        told: Callbacks and their arguments.
    """

    batch: List[dict]
    backoffs: int
    method: str
    parts: List[List[dict]] = field(default_factory=list)
    is_over: bool = False
    is_interrupted: bool = False
    is_concluded: bool = False
    failures_in_a_row: int = 0
    delivered: List[dict] = field(default_factory=list)
    rejected: List[dict] = field(default_factory=list)
    failed: List[dict] = field(default_factory=list)
    lost: List[dict] = field(default_factory=list)
    unsettled: Dict[int, dict] = field(default_factory=dict)
    wish: Tuple[float, float] = (0, 0)
    planned: List[Tuple[float, bool]] = field(default_factory=list)
    told: List[Tuple[Any, ...]] = field(default_factory=list)

    def pass_over_unencodable(self) -> bool:
        """Reject what cannot be encoded, which comes first in its batch here; True if there was any."""
        rejected = len(self.rejected)
        while any(self.parts) and is_unencodable(self.parts[0][0]):
            self.rejected.append(self.parts[0].pop(0))
        return len(self.rejected) > rejected

    def not_delivered(self) -> List[dict]:
        return without(self.batch, self.delivered)

    def to_retry(self) -> List[dict]:
        return without(self.batch, self.delivered + self.rejected)


def is_unencodable(payload: dict) -> bool:
    """Tell what only `send_events` may be given: no JSON can hold it, or no URL."""
    return "itself" in payload or payload.get("url") == ["\ud800"]


def without(payloads: List[dict], others: List[dict]) -> List[dict]:
    gone = identities(others)
    return [payload for payload in payloads if id(payload) not in gone]


def identities(payloads: List[dict]) -> Dict[int, int]:
    return Counter(map(id, payloads))


class WatchedStore(InMemoryEventStore):
    """A store that tells the machine, and fails when the machine says so."""

    machine: "EmitterMachine"

    def add_event(self, payload: dict) -> bool:
        trouble = self.machine.trouble.pop("add_event", None)
        if trouble is OSError:
            raise OSError("disk is full")
        if trouble is not None:
            return False
        accepted = super().add_event(payload)
        self.machine.accept(payload)
        return accepted

    def get_events_batch(self) -> List[dict]:
        if self.machine.trouble.pop("get_events_batch", None):
            self.machine.has_store_failed = True
            self.machine.stalls += 1
            raise OSError("disk is slow")
        batch = super().get_events_batch()
        self.machine.hand_out(batch)
        return batch

    def cleanup(self, batch: List[dict], need_retry: bool) -> None:
        is_lost = bool(self.machine.trouble.pop("cleanup", None))
        self.machine.settle(batch, need_retry, is_lost)
        if is_lost:
            raise OSError("disk is gone")
        super().cleanup(batch, need_retry)


class WatchedEmitter(Emitter):
    """An emitter that tells the machine, whose answers come through overrides or through a session."""

    machine: "EmitterMachine"

    def send_events(self, evts: List[dict]) -> None:
        with self.machine.sending(evts):
            super().send_events(evts)

    def http_post(self, data: str) -> Any:
        return super().http_post(data) if self.session else self.machine.exchange("post", data)

    def http_get(self, payload: dict) -> Any:
        return super().http_get(payload) if self.session else self.machine.exchange("get", payload)


class EmitterMachine(RuleBasedStateMachine):
    """What the contract says of an emitter that was put through all this.

    An exception inside the emitter's methods would be caught there, so what is wrong is kept in `problems` until the
    step ends.
    """

    method = "post"

    @initialize(
        through_session=st.booleans(),
        capacity=st.sampled_from([None, 5, 12]),
        batch_size=st.sampled_from([None, 1, 3]),
        script=st.lists(answers, min_size=3, max_size=20),
    )
    def begin(self, through_session, capacity, batch_size, script):
        CLOCK.begin_anew()
        LOSSES.counts.clear()
        self.problems: List[str] = []
        self.numbers = itertools.count()
        self.known: List[dict] = []
        self.texts: Dict[int, Dict[str, str]] = {}
        self.turns: Dict[int, int] = {}
        self.waiting: List[dict] = []
        self.held_back: Dict[int, int] = {}
        self.handed_out: Dict[int, List[dict]] = {}
        self.sends: Dict[int, List[Send]] = defaultdict(list)
        self.explicit: Dict[int, bool] = defaultdict(bool)
        self.deadline: Dict[int, Optional[float]] = defaultdict(lambda: None)
        self.tries: Dict[int, int] = Counter()
        self.hearing_of_drop: Set[int] = set()
        self.expected: Optional[dict] = None
        self.trouble: Dict[str, Any] = {}
        self.script = deque(script)
        self.mood = Answer("status", 200)
        self.size_limit: Optional[int] = None
        self.accepted = self.delivered = self.rejected = self.dropped = self.retries = self.requests = 0
        self.hand_outs = self.backoffs = self.asides = self.failures = self.stalls = 0
        self.last_status: Optional[int] = None
        self.delay = 0.0
        self.drops_to_tell: List[dict] = []
        self.behaviour = {"on_success": "quiet", "on_failure": "quiet"}
        self.is_closed = self.is_ended = self.is_measured = self.was_interrupted = False
        self.has_store_failed = False

        store = WatchedStore()
        store.machine = self
        session = self.session() if through_session else None
        self.emitter = emitter = WatchedEmitter(
            "collector.example.com",
            method=self.method,
            batch_size=batch_size,
            buffer_capacity=capacity,
            event_store=store,
            session=session,
        )
        emitter.machine = self
        emitter._worker_pool = Worker()
        emitter._ledger.changed = Changed(emitter.lock)
        emitter.timer, emitter.retry_timer = Timer(self, repeating=True), Timer(self, repeating=False)
        emitter.on_success, emitter.on_failure = self.succeed, self.fail

    @rule(
        count=st.sampled_from([1, 2, 4, 9]), text=st.sampled_from(TEXTS), ahead=st.sampled_from([None, "?", -5, 10**6])
    )
    def track(self, count, text, ahead):
        for _ in range(count):
            self.input(text, ahead)

    @rule()
    def flush(self):
        self.flush_automatically()

    @rule(timeout=st.sampled_from([None, None, 0, 2, 10]))
    def flush_and_wait(self, timeout):
        self.sync_flush(timeout)

    @rule()
    def flush_elsewhere(self):
        self.async_flush()

    @precondition(lambda self: self.emitter._worker_pool.is_wanted)
    @rule()
    def let_worker_work(self):
        self.emitter._worker_pool.is_wanted = False
        self.aside(lambda: self.flush_automatically(lambda: self.emitter._do_task(None)))

    @rule(text=st.sampled_from(TEXTS), count=st.integers(0, 4), is_unencodable=st.booleans())
    def send_directly(self, text, count, is_unencodable):
        batch = [{"eid": str(next(self.numbers)), "ue_pr": text.replace("\ud800", "?")} for _ in range(count)]
        if is_unencodable and batch:
            batch[0].update({"url": ["\ud800"]} if self.emitter.method == "get" else {"itself": batch[0]})
        with self.interruptible():
            self.emitter.send_events(tuple(batch))

    @rule(seconds=st.sampled_from([None, None, 0.05, 1, 5, 40]))
    def let_time_pass(self, seconds):
        CLOCK.sleep(self.emitter.retry_timer.remaining_seconds() if seconds is None else seconds)

    @rule(seconds=st.sampled_from([None, 4, 20]))
    def set_flush_timer(self, seconds):
        if seconds is None:
            self.emitter.cancel_flush_timer()
        else:
            self.emitter.set_flush_timer(seconds)
        self.expect(self.emitter.timer.is_active() == (seconds is not None and not self.is_closed), "flush timer")

    @rule(setting=st.sampled_from(SETTINGS_AND_VALUES))
    def reassign(self, setting):
        setattr(self.emitter, *setting)

    @rule()
    def change_method(self):
        self.emitter.method = "post" if self.emitter.method == "get" else "get"

    @rule(is_given=st.booleans())
    def reassign_session(self, is_given):
        self.emitter.session = self.session() if is_given else None

    @rule(name=st.sampled_from(["on_success", "on_failure"]), behaviour=st.sampled_from(BEHAVIOURS))
    def reassign_callback(self, name, behaviour):
        self.behaviour[name] = behaviour
        callback = self.succeed if name == "on_success" else self.fail
        setattr(self.emitter, name, None if behaviour == "absent" else callback)

    @rule(
        script=st.lists(answers, max_size=8),
        mood=st.just(Answer("status", 200)) | plain_answers,
        limit=st.sampled_from([None, None, 400, 1200]),
    )
    def prepare_answers(self, script, mood, limit):
        self.script, self.mood, self.size_limit = deque(script), mood, limit

    @rule(method=st.sampled_from(["add_event", "get_events_batch", "cleanup"]), how=st.sampled_from([OSError, "no"]))
    def prepare_trouble(self, method, how):
        self.trouble[method] = how

    # What was hardly used has hardly anything to end.
    @precondition(lambda self: self.accepted > 15)
    @rule(timeout=st.sampled_from([None, 0, 3, 5.0]))
    def end(self, timeout):
        self.close(timeout)

    @invariant()
    def books_are_right(self):
        self.conclude_store_failure()
        self.check_books()
        emitter, stats = self.emitter, self.emitter.stats()
        self.expect(not any(self.sends.values()) and stats.in_flight == 0, "something is in flight after all is done")
        self.expect(self.delay == 0 or LEAST_DELAY <= self.delay <= 60, f"a delay of {self.delay}")
        self.expect(emitter.retry_delay == self.delay, f"retry_delay is {emitter.retry_delay}, not {self.delay}")
        self.expect(not self.drops_to_tell, f"on_failure was not told of {self.drops_to_tell}")
        self.expect(not self.was_interrupted, "an interrupt was swallowed")
        self.expect(LOSSES.counts["Lost"] == self.rejected, f"the log tells of {LOSSES.counts['Lost']} losses")
        if self.is_ended:
            self.expect(not emitter.retry_timer.is_active() and not emitter.timer.is_active(), "a timer after the end")
        elif any(id(payload) in self.held_back for payload in self.waiting):
            self.expect(emitter.retry_timer.is_active(), "nothing will send what is to be retried")
        assert not self.problems, "\n".join(self.problems)

    def teardown(self):
        """Once the collector is well, all that is left goes out."""
        if not hasattr(self, "emitter") or self.problems:
            return
        self.prepare_answers([], Answer("status", 200), None)
        self.trouble.clear()
        for name in self.behaviour:
            self.reassign_callback(name, "quiet")
        self.close(None)
        self.expect(self.waiting == [], "payloads were left")
        self.expect(LOSSES.counts["Dropped"] == self.dropped, f"the log tells of {LOSSES.counts['Dropped']} drops")
        self.books_are_right()

    # What the application does, and what it must see of it

    def input(self, text: str, ahead: Any = None) -> None:
        number = next(self.numbers)
        dtm = ahead if ahead in (None, "?") else str(int((CLOCK.time() + ahead) * 1000))
        # Two in a row may be equal, and are not the same.
        payload = {"e": "pv", "eid": str(number // 2), "ue_pr": text, "n": 7, "yes": True, "no": None, "dtm": dtm}
        expected = {name: value for name, value in payload.items() if value is not None}
        expected.update({"yes": "true", "n": "7"} if self.emitter.method == "post" else {"yes": "true"})
        if self.emitter.method == "get":
            expected["ue_pr"] = text.replace("\ud800", "?")

        is_accepted = not self.is_closed and len(self.waiting) + self.in_flight() < self.capacity()
        is_accepted = is_accepted and "add_event" not in self.trouble
        if not is_accepted:
            self.dropped += 1
            if self.behaviour["on_failure"] != "absent" and get_ident() not in self.hearing_of_drop:
                self.drops_to_tell.append(expected)
        is_full = self.limit_is_reached(expected)
        is_flush_due = is_full and not self.is_backing_off() and "get_events_batch" not in self.trouble
        is_measured, hand_outs = self.emitter.byte_limit is not None, self.hand_outs
        self.expected = expected if is_accepted else None
        self.is_measured |= is_measured
        with self.interruptible():
            self.emitter.input(payload)

        self.expect(payload["no"] is None and "stm" not in payload, "the application's payload was changed")
        if not is_accepted:
            return
        if not self.sends[get_ident()] and is_full is not None:
            self.expect((self.hand_outs > hand_outs) == is_flush_due, f"is a flush due? {is_flush_due}")
        if self.emitter.flush_interval is not None and not self.is_closed:
            self.expect(self.emitter.timer.is_active(), "flush_interval arms the timer")

    def flush_automatically(self, flush: Any = None) -> None:
        can_send = self.waiting and not self.is_backing_off() and "get_events_batch" not in self.trouble
        hand_outs = self.hand_outs
        with self.interruptible():
            (flush or self.emitter.flush)()
        self.expect((self.hand_outs > hand_outs) == bool(can_send), f"can an automatic flush send? {bool(can_send)}")

    def async_flush(self) -> None:
        self.emitter.async_flush()
        self.expect(self.is_closed or self.emitter._worker_pool.is_wanted, "nobody will flush")

    def sync_flush(self, timeout: Optional[float]) -> None:
        if self.sends[get_ident()]:
            self.emitter.sync_flush(timeout)
            self.expect(self.is_closed or self.emitter._worker_pool.is_wanted, "nobody will flush")
            return
        waited, tries = list(self.waiting), self.tries.copy()
        asides, failures, stalls = self.asides, self.failures, self.stalls
        until = None if timeout is None else CLOCK.now + timeout
        with self.interruptible():
            with self.explicitly(until):
                self.emitter.sync_flush(timeout)
            if self.stalls > stalls:
                return
            if until is None:
                left = [payload for payload in waited if self.tries[id(payload)] == tries[id(payload)]]
                self.expect(not left or (self.failures > failures and left != waited), f"not tried: {left}")
                return
            is_all_out = not self.waiting and not self.in_flight()
            self.expect(is_all_out or CLOCK.now >= until - EPSILON, f"{until - CLOCK.now} s too early")
            # An override knows no timeout, and what another thread did meanwhile took its own time.
            is_bounded = self.emitter.session is not None and self.asides == asides
            self.expect(not is_bounded or CLOCK.now <= until + 0.2, f"{CLOCK.now - until} s late")

    def close(self, timeout: Optional[float]) -> None:
        self.is_closed, self.is_ended = True, False
        if self.sends[get_ident()]:
            self.expect(
                self.emitter.close(timeout) == (not self.waiting and not self.in_flight()), "close in a callback"
            )
            self.is_ended = True
            return
        with self.interruptible():
            with self.explicitly(None if timeout is None else CLOCK.now + timeout):
                is_all_out = self.emitter.close(timeout)
            self.is_ended = True
            self.expect(is_all_out == (not self.waiting and not self.in_flight()), f"close says {is_all_out}")

    def succeed(self, delivered: List[dict]) -> None:
        self.hear("on_success", len(delivered), delivered)

    def fail(self, count: int, not_delivered: List[dict]) -> None:
        if not self.drops_to_tell:
            self.hear("on_failure", count, not_delivered)
            return
        self.expect((count, not_delivered) == (0, [self.drops_to_tell.pop()]), "on_failure was told of another drop")
        self.hearing_of_drop.add(get_ident())
        try:
            self.behave(self.behaviour["on_failure"])
        finally:
            self.hearing_of_drop.discard(get_ident())

    def hear(self, name: str, count: int, payloads: List[dict]) -> None:
        send = self.sends[get_ident()][-1]
        self.conclude(send)
        self.check_books()
        send.told.append((name, count, identities(payloads)))
        self.behave(self.behaviour[name])

    def behave(self, behaviour: str) -> None:
        if "track" in behaviour:
            self.input("from a callback")
        if behaviour in ("flush", "track and flush"):
            self.emitter.flush()
        elif behaviour == "sync_flush":
            # Another thread that is in a request cannot go on meanwhile, as it would in an application.
            self.sync_flush(1 if self.in_flight() else None)
        elif behaviour == "async_flush":
            self.async_flush()
        elif behaviour == "change the method":
            self.change_method()
        elif behaviour == "close":
            self.close(0)
        elif behaviour == "raise":
            raise RuntimeError("from a callback")

    # What the emitter does, as the store, the transport and the timers see it

    def accept(self, payload: dict) -> None:
        self.expect(payload == self.expected, f"accepted {payload}, not {self.expected}")
        self.accepted += 1
        self.remember([payload])
        self.turns[id(payload)] = self.accepted
        self.waiting.append(payload)

    def hand_out(self, batch: List[dict]) -> None:
        self.conclude_store_failure()
        turns = [self.turns[id(payload)] for payload in batch]
        self.expect(turns == sorted(turns) and identities(batch) == identities(self.waiting), "wrong payloads or order")
        self.expect(not self.is_backing_off() or self.explicit[get_ident()], "a flush during a backoff")
        self.hand_outs += 1
        self.waiting = []
        self.handed_out[get_ident()] = batch
        for payload in batch:
            self.held_back.pop(id(payload), None)

    @contextlib.contextmanager
    def sending(self, batch: Any) -> Any:
        stack = self.sends[get_ident()]
        if stack:
            self.conclude(stack[-1])
        handed_out = self.handed_out.pop(get_ident(), None)
        if handed_out is None:
            self.accepted += len(batch)
            self.remember(batch)
        else:
            self.expect(identities(batch) == identities(handed_out), "sends something else than was handed out")
        send = Send(
            list(batch),
            self.backoffs,
            self.emitter.method,
            parts=[list(batch)],
            unsettled={id(payload): payload for payload in batch},
        )
        stack.append(send)
        try:
            yield
        finally:
            self.conclude(send)
            stack.pop()
            expected = []
            if send.delivered and self.behaviour["on_success"] != "absent":
                expected.append(("on_success", len(send.delivered), identities(send.delivered)))
            if send.not_delivered() and self.behaviour["on_failure"] != "absent":
                expected.append(("on_failure", len(send.delivered), identities(send.not_delivered())))
            if send.is_interrupted:
                # There is no report then, except of what is lost.
                is_told = send.lost and self.behaviour["on_failure"] != "absent"
                expected = [("on_failure", 0, identities(send.lost))] if is_told else []
            self.expect(send.told == expected, f"callbacks were told {send.told}")

    def remember(self, batch: Any) -> None:
        self.known.extend(batch)
        self.texts.update((id(payload), texts_of(payload)) for payload in batch if not is_unencodable(payload))

    def session(self) -> Any:
        return SimpleNamespace(post=self.post, get=self.get)

    def post(self, url: str, **arguments: Any) -> Any:
        self.expect(url.endswith(PATHS["post"]), f"a POST to {url}")
        self.expect(set(arguments) == {"data", "headers", "timeout"}, f"session.post was given {arguments}")
        return self.exchange("post", arguments["data"], arguments["timeout"])

    def get(self, url: str, **arguments: Any) -> Any:
        self.expect(url.endswith(PATHS["get"]), f"a GET of {url}")
        self.expect(set(arguments) == {"params", "timeout"}, f"session.get was given {arguments}")
        return self.exchange("get", arguments["params"], arguments["timeout"])

    def exchange(self, method: str, argument: Any, timeout: Any = None) -> Any:
        send = self.sends[get_ident()][-1]
        self.expect(method == send.method, f"a request by {method} in a send by {send.method}")
        payloads = self.payloads_of(send, argument)
        self.tries.update(identities(payloads))
        self.check_books()
        answer = self.next_answer(method, argument)
        seconds = answer.seconds or 0.2
        if timeout is not None:
            connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
            until = self.deadline[get_ident()]
            left = 40 if until is None else max(0.01, until - CLOCK.now)
            self.expect(
                0 < connect + read <= max(left, EPSILON) + EPSILON, f"a timeout of {timeout}, with {left} s left"
            )
            if seconds > read:
                seconds, answer = read, Answer("error", detail=requests.ReadTimeout)
        for _ in range(answer.tracked):
            self.aside(lambda: self.input("meanwhile"))
        if answer.changes_method:
            self.aside(self.change_method)
        CLOCK.sleep(seconds)
        self.judge(send, payloads, answer)
        return answer.given(method, CLOCK.time())

    def next_answer(self, method: str, argument: Any) -> Answer:
        if self.size_limit is not None and method == "post" and len(argument) > self.size_limit:
            return Answer("status", 413)
        answer = self.script.popleft() if self.script else self.mood
        if answer.kind != "interrupt":
            return answer
        # Signal handlers run in the main thread.
        if threading.current_thread() is not threading.main_thread():
            return Answer("error", detail=OSError)
        self.was_interrupted = True
        return answer

    def payloads_of(self, send: Send, argument: Any) -> List[dict]:
        """Hold a request against what it should carry, and return that."""
        self.expect(not send.is_over and any(send.parts), f"one request too many: {argument}")
        now = int(CLOCK.time() * 1000)
        has_passed_over = send.pass_over_unencodable()
        if send.method == "get":
            payload = send.parts[0][0]
            self.expect(texts_of(payload) == self.texts[id(payload)], f"changed on its way: {argument}")
            self.expect("\ud800" not in "".join(map(str, payload.values())), f"no URL holds {argument}")
            self.expect(argument is payload and payload["stm"] == sent_at(payload, now), f"wrong request: {argument}")
            return [payload]
        part, limit, entries = send.parts[0], self.emitter.max_request_bytes, json.loads(argument)["data"]
        payloads, rest = part[: len(entries)], part[len(entries) :]
        for payload in payloads:
            self.expect(texts_of(payload) == self.texts[id(payload)], f"changed on its way: {payload}")
            self.expect({str} == set(map(type, payload.values())), f"not all of it is text: {payload}")
        self.expect(entries and entries == payloads, f"wrong payloads or order: {argument}")
        self.expect(argument == ENVELOPE % ",".join(map(compact, entries)), f"not compact ASCII: {argument}")
        self.expect(all(entry["stm"] == sent_at(entry, now) for entry in entries), f"wrong stm: {argument}")
        self.expect(len(argument) <= limit or len(entries) == 1, f"{len(argument)} bytes are more than {limit}")
        if rest and not has_passed_over:
            more = compact(dict(rest[0], stm=str(now)))
            self.expect(len(argument) + 1 + len(more) > limit, f"one more fits into {limit}: {argument}")
        return payloads

    def judge(self, send: Send, payloads: List[dict], answer: Answer) -> None:
        """Decide what becomes of the payloads of a request, by the words of the contract."""
        send.parts[0] = send.parts[0][len(payloads) :]
        if not send.parts[0]:
            send.parts.pop(0)
        if answer.kind == "interrupt":
            send.is_over = send.is_interrupted = True
            return
        status = answer.status(send.method)
        self.requests += 1
        self.last_status = status
        should_retry = self.emitter.custom_retry_codes.get(status)
        if status == 413 and len(payloads) > 1 and should_retry is not False:
            half = (len(payloads) + 1) // 2
            send.parts[:0] = [payloads[:half], payloads[half:]]
            return
        if should_retry is None:
            should_retry = status not in REFUSED_FOR_GOOD and status != 413
        if 200 <= status < 300:
            send.delivered += payloads
        elif not should_retry:
            send.rejected += payloads
        else:
            send.failed += payloads
            send.failures_in_a_row += 1
            send.wish = answer.wish()
            is_sick = status == -1 or send.wish[1] > 0 or send.failures_in_a_row > 1
            send.is_over = send.method == "post" or is_sick
            self.failures += 1
            self.explicit[get_ident()] = False
            return
        send.failures_in_a_row = 0

    def settle(self, batch: List[dict], need_retry: bool, is_lost: bool) -> None:
        send = self.sends[get_ident()][-1]
        send.pass_over_unencodable()
        expected = send.to_retry() if need_retry else send.delivered + send.rejected
        self.expect(identities(batch) == identities(expected), f"settled {batch} instead of {expected}")
        self.expect(not need_retry or list(map(id, batch)) == list(map(id, expected)), "put back in another order")
        for payload in batch:
            self.expect(send.unsettled.pop(id(payload), None) is payload, f"settled twice: {payload}")
        if not need_retry:
            self.delivered += len(send.delivered)
            self.rejected += len(send.rejected)
            return
        if is_lost:
            self.rejected += len(batch)
            send.lost += batch
            return
        # What never was in the store goes to its front.
        self.waiting = sorted(batch + self.waiting, key=lambda payload: self.turns.setdefault(id(payload), 0))
        if send.failed or send.is_interrupted:
            self.retries += len(batch)
        if send.failed and not send.is_interrupted:
            self.held_back.update(identities(batch))

    def note_backoff(self, seconds: float, was_active: bool) -> None:
        stack = self.sends[get_ident()]
        if stack and not stack[-1].is_concluded:
            stack[-1].planned.append((seconds, was_active))
        else:
            self.expect(self.has_store_failed, f"a backoff of {seconds} s for nothing")
            self.conclude_store_failure()

    def conclude_store_failure(self) -> None:
        """A store that fails to hand out is backed off from as a collector is."""
        if self.has_store_failed:
            self.has_store_failed = False
            self.backoffs += 1
            self.check_delay(self.delay, (0, 0))
            self.delay = self.emitter.retry_delay

    def conclude(self, send: Send) -> None:
        """Check what must be true of a send before its first callback."""
        if send.is_concluded:
            return
        send.is_concluded = True
        self.conclude_store_failure()
        send.pass_over_unencodable()
        until = self.deadline[get_ident()]
        is_time_up = until is not None and CLOCK.now >= until
        self.expect(not send.unsettled, f"unsettled: {send.unsettled}")
        self.expect(send.is_over or is_time_up or not any(send.parts), f"not sent: {send.parts}")
        emitter = self.emitter
        if send.failed and not send.is_interrupted:
            self.conclude_failure(send)
        elif send.delivered:
            self.delay = 0
            self.expect(emitter.retry_delay == 0, f"a delay of {emitter.retry_delay} after a success")
            self.expect(emitter.retry_timer.remaining_seconds() <= LEAST_DELAY, "a backoff after a success")

    def conclude_failure(self, send: Send) -> None:
        emitter = self.emitter
        cap, delay = emitter.max_retry_delay_seconds, emitter.retry_delay
        previous = 0 if send.delivered else self.delay
        least_wish, wish = (min(cap, seconds) for seconds in send.wish)
        if send.backoffs == self.backoffs or self.is_ended or (send.planned and not send.planned[-1][1]):
            self.check_delay(previous, send.wish)
            remaining = emitter.retry_timer.remaining_seconds()
            self.expect(self.is_ended or abs(remaining - delay) < EPSILON, f"retried in {remaining}, not {delay}")
            self.backoffs += 1
        else:
            # Another thread's request failed meanwhile, so this is no second failure.
            is_same = delay == self.delay or least_wish - EPSILON <= delay <= wish + EPSILON
            self.expect(is_same, f"a delay of {delay} after one of {self.delay}")
            remaining = emitter.retry_timer.remaining_seconds()
            self.expect(remaining >= least_wish - EPSILON, f"retried in {remaining}, not {least_wish}")
        self.delay = delay

    def check_delay(self, previous: float, wishes: Tuple[float, float]) -> None:
        cap, delay = self.emitter.max_retry_delay_seconds, self.emitter.retry_delay
        least_wish, wish = (min(cap, seconds) for seconds in wishes)
        least = max(LEAST_DELAY, min(2 * previous, cap / 2), least_wish)
        most = max(LEAST_DELAY, min(2 * previous + 1, cap), wish)
        self.expect(least - EPSILON <= delay <= most + EPSILON, f"{delay} is not from {least} to {most}")

    # What the model knows

    def in_flight(self) -> int:
        sends = [send for stack in self.sends.values() for send in stack]
        return sum(len(send.unsettled) for send in sends) + sum(map(len, self.handed_out.values()))

    def capacity(self) -> int:
        return self.emitter.buffer_capacity or 10_000

    def is_backing_off(self) -> bool:
        return self.emitter.retry_timer.is_active() or (self.delay > 0 and self.in_flight() > 0)

    def limit_is_reached(self, payload: dict) -> Optional[bool]:
        """Tell whether a payload will complete a batch; None if it is too close to call."""
        emitter, waiting = self.emitter, [*self.waiting, payload]
        if len(waiting) >= min(emitter.batch_size, self.capacity()):
            return True
        if emitter.byte_limit is None:
            return False
        stamped = [dict({"stm": "1234567890123"}, **payload) for payload in waiting]
        if emitter.method == "post":
            size = len(ENVELOPE % ",".join(map(compact, stamped)))
        else:
            size = len("&".join(map(urlencode, stamped)))
        return None if abs(size - emitter.byte_limit) <= 5 + size / 100 else size >= emitter.byte_limit

    def check_books(self) -> None:
        emitter, stats = self.emitter, self.emitter.stats()
        model = (self.accepted, self.delivered, self.rejected, self.dropped, self.retries, self.requests)
        told = (stats.accepted, stats.delivered, stats.rejected, stats.dropped, stats.retries, stats.requests)
        self.expect(told == model, f"stats say {told}, not {model}")
        self.expect(stats.buffered == len(self.waiting), f"buffered {stats.buffered}, not {len(self.waiting)}")
        self.expect(stats.in_flight == self.in_flight(), f"in flight {stats.in_flight}, not {self.in_flight()}")
        left = stats.delivered + stats.rejected + stats.buffered + stats.in_flight
        self.expect(stats.accepted == left, f"{stats.accepted - left} payloads are in no state")
        self.expect(stats.last_status == self.last_status, f"last_status {stats.last_status}, not {self.last_status}")
        remaining = emitter.retry_timer.remaining_seconds() if emitter.retry_timer.is_active() else None
        self.expect(stats.retry_in_seconds == remaining, f"retry_in_seconds {stats.retry_in_seconds}")
        buffer = emitter.event_store.event_buffer
        self.expect(identities(buffer) == identities(self.waiting), "the store holds something else")
        if emitter.byte_limit is not None and self.is_measured:
            queued = sum(len(str(payload)) for payload in buffer)
            self.expect(emitter.bytes_queued == queued, f"bytes_queued {emitter.bytes_queued}, not {queued}")

    @contextlib.contextmanager
    def explicitly(self, until: Optional[float]) -> Any:
        thread = get_ident()
        before = self.explicit[thread], self.deadline[thread]
        self.explicit[thread], self.deadline[thread] = True, until
        try:
            yield
        finally:
            self.explicit[thread], self.deadline[thread] = before

    @contextlib.contextmanager
    def interruptible(self) -> Any:
        try:
            yield
        except KeyboardInterrupt:
            self.expect(self.was_interrupted, "an interrupt out of nowhere")
            self.was_interrupted = False

    def aside(self, work: Any) -> None:
        """Do something in another thread, and wait for it."""

        def run() -> None:
            try:
                work()
            except BaseException:
                self.problems.append(traceback.format_exc())

        self.asides += 1
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    def expect(self, condition: Any, problem: str) -> None:
        if not condition:
            self.problems.append(problem)


class GetMachine(EmitterMachine):
    """The same for `method="get"`."""

    method = "get"


def texts_of(payload: dict) -> Dict[str, str]:
    """What of a payload is the same by both methods, and in each attempt."""
    return {name: str(value).replace("\ud800", "?") for name, value in payload.items() if name != "stm"}


def compact(payload: dict) -> str:
    return json.dumps(payload, separators=(",", ":"))


def sent_at(payload: dict, now: int) -> str:
    dtm = payload.get("dtm", "?")
    return str(now if dtm == "?" else max(now, int(dtm)))


def urlencode(payload: dict) -> str:
    return urllib.parse.urlencode(payload, errors="replace")


@pytest.fixture
def virtual_time(monkeypatch):
    """The emitter's clock is the tests', and its log is heard by them alone."""
    monkeypatch.setattr(emitters, "time", CLOCK)
    monkeypatch.setattr(_retry, "time", CLOCK)
    logger = logging.getLogger("snowplow_tracker")
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(LOSSES)
    yield
    logger.removeHandler(LOSSES)


by_method = pytest.mark.parametrize("machine", [EmitterMachine, GetMachine], ids=["post", "get"])


@by_method
def test_emitter_keeps_the_contract_whatever_happens(virtual_time, machine):
    """After each step, all that an application can see is what the contract says."""
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=40))


@pytest.mark.long
@pytest.mark.timeout(3600)
@by_method
def test_emitter_keeps_the_contract_in_long_lives(virtual_time, machine):
    """The same with more steps, and another choice of them each time."""
    run_state_machine_as_test(machine, settings=settings(derandomize=False, max_examples=2000, stateful_step_count=80))
