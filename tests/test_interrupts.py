"""Ctrl-C at each place of the library's own code, and signal handlers that track: the books are right afterwards."""

import ast
import contextlib
import dis
import functools
import gc
import itertools
import json
import sys
import threading
from pathlib import Path
from types import CodeType

import pytest
from support import PATIENCE_SECONDS, eventually, is_balanced, with_manual_timers

from snowplow_tracker import AsyncEmitter, Emitter, SQLiteEventStore, emitters

pytestmark = pytest.mark.thorough

FOLDER = Path(emitters.__file__).parent
NAMES = [
    "_delivery.py",
    "_flush_timer.py",
    "_ledger.py",
    "_reporting.py",
    "_retry.py",
    "_sqlite_file.py",
    "_worker_pool.py",
    "emitters.py",
    "event_store.py",
    "sqlite_event_store.py",
]
FILES = {str(FOLDER / name) for name in NAMES}


def lines_of(kind):
    """Find, for each file, the lines on which statements of a kind begin."""
    trees = {file: ast.parse(Path(file).read_text(encoding="utf-8")) for file in FILES}
    return {file: {node.lineno for node in ast.walk(tree) if isinstance(node, kind)} for file, tree in trees.items()}


WITH_LINES, TRY_LINES = lines_of(ast.With), lines_of(ast.Try)


class Places:
    """Counts the places that a thread comes by in the library, and does something at one of them.

    A place is where a function begins or returns, and each line. Two kinds of lines are none, because Python looks for
    signals at neither: that of a `try`, which does nothing, and that of a `with` when its block has ended, and the lock
    is about to be released.
    """

    def __init__(self, at, do):
        self.count = 0
        self.where = None
        self._at, self._do = at, do
        self._blocks = {}

    def __enter__(self):
        # Emitters of other tests would be collected anywhere.
        gc.disable()
        self._other = sys.gettrace()  # that of a measurement of coverage
        sys.settrace(self._enter)
        return self

    def __exit__(self, *exception):
        sys.settrace(self._other)
        gc.enable()

    def _enter(self, frame, event, argument):
        if frame.f_code.co_filename not in FILES:
            return None
        self._pass_by(frame, event)
        return self._step

    def _step(self, frame, event, argument):
        file = frame.f_code.co_filename
        if event == "line" and frame.f_lineno in TRY_LINES[file]:
            return self._step
        if event == "line" and frame.f_lineno in WITH_LINES[file]:
            open_blocks = self._blocks.setdefault(frame, set())
            if frame.f_lineno in open_blocks:
                open_blocks.discard(frame.f_lineno)
                return self._step
            open_blocks.add(frame.f_lineno)
        if event in ("line", "return"):
            self._pass_by(frame, event)
        if event == "return":
            self._blocks.pop(frame, None)
        return self._step

    def _pass_by(self, frame, event):
        self.count += 1
        if self.count == self._at:
            self.where = f"{event} {Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
            sys.settrace(None)
            self._do()


class Answering:
    """Sends by answering: an odd status at first, then 200; several threads may send at a time."""

    answers = ()

    def __init__(self, *arguments, **options):
        self.requests = []
        self.arrived = set()
        self._books = threading.Lock()
        super().__init__(*arguments, **options)

    def http_post(self, data):
        return self._answer([payload["eid"] for payload in json.loads(data)["data"]])

    def http_get(self, payload):
        return self._answer([payload["eid"]])

    def _answer(self, eids):
        with self._books:
            self.requests.append(eids)
            status = self.answers[len(self.requests) - 1] if len(self.requests) <= len(self.answers) else 200
            if status in (200, 400) or (status == 413 and len(eids) == 1):
                self.arrived.update(eids)
        return status


class AnsweringEmitter(Answering, Emitter):
    pass


class AnsweringAsyncEmitter(Answering, AsyncEmitter):
    pass


def track(emitter, *eids):
    for eid in eids:
        emitter.input({"eid": eid})
        emitter.tracked.append(eid)


def track_and_flush(emitter):
    track(emitter, "1", "2")
    emitter.sync_flush()


def track_and_fail_and_flush(emitter):
    emitter.answers = (503,)
    track(emitter, "1", "2")
    emitter.flush()
    # A flush in a signal handler may have ended the backoff.
    if emitter.retry_timer.is_active():
        emitter.retry_timer.fire()


def fail_out_of_order(emitter):
    emitter.answers = (503, 503)
    track(emitter, "1", "2")
    emitter.flush()
    track(emitter, "3")
    emitter.sync_flush()
    track(emitter, "4")
    emitter.sync_flush()


def have_it_rejected(emitter):
    emitter.answers = (400,)
    track(emitter, "1", "2")
    emitter.flush()


def halve(emitter):
    emitter.answers = (413, 200, 413)
    track(emitter, "1", "2", "3", "4")
    emitter.flush()


def send_directly(emitter):
    emitter.send_events([{"eid": "direct 1"}, {"eid": "direct 2"}])


def go_on_until_all_is_out(emitter):
    track(emitter, "1", "2")
    emitter.sync_flush(timeout=PATIENCE_SECONDS)


def overflow(emitter):
    emitter.buffer_capacity = 2
    emitter.batch_size = 100
    emitter.on_failure = lambda count, payloads: None
    for _ in range(2):
        emitter._ledger.add({"eid": "filler"}, 3)
    emitter.input({"eid": "one too many"})


def flush_in_a_callback(emitter):
    def on_success(payloads):
        if payloads[0]["eid"] in ("1", "2"):
            track(emitter, "from a callback")
            emitter.flush()

    emitter.on_success = on_success
    emitter.batch_size = 2
    track(emitter, "1", "2")


def use_a_flush_of_ones_own(emitter):
    emitter.flush = lambda: Emitter.flush(emitter)
    track(emitter, "1", "2")
    emitter.sync_flush()


def measure(emitter):
    emitter.byte_limit = 1
    track(emitter, "1", "2")


DEEDS = [
    track_and_flush,
    track_and_fail_and_flush,
    fail_out_of_order,
    have_it_rejected,
    halve,
    send_directly,
    go_on_until_all_is_out,
    overflow,
    flush_in_a_callback,
    use_a_flush_of_ones_own,
    measure,
]


def made(method="post", kind=AnsweringEmitter, **options):
    options = {"batch_size": 100, "method": method, "flush_on_exit": False, **options}
    emitter = with_manual_timers(kind("collector.example.com", **options))
    emitter.tracked = []
    return emitter


def all_is_well_with(emitter):
    """Check that all arrives now that the collector and the application are well, from this thread and from others."""
    emitter.answers = ()
    emitter.on_success = emitter.on_failure = None
    emitter.batch_size = 3
    other = threading.Thread(target=emitter.sync_flush, daemon=True)
    other.start()
    other.join(PATIENCE_SECONDS)
    assert not other.is_alive(), "another thread's flush waits for ever"
    assert emitters._sends.depth == 0
    emitter.sync_flush()
    requests = len(emitter.requests)
    track(emitter, "a", "b", "c")
    emitter.sync_flush()
    # A callback that another thread has begun to call may still track.
    eventually(lambda: (emitter.stats().buffered, emitter.stats().in_flight) == (0, 0))
    stats = emitter.stats()
    assert is_balanced(emitter), stats
    assert len(set(emitter.tracked) - emitter.arrived) <= stats.dropped, "something is lost"
    assert len(emitter.requests) > requests
    assert emitter.close()


@contextlib.contextmanager
def told(places):
    try:
        yield
    except BaseException as error:
        raise AssertionError(f"place {places._at}, {places.where}: {error!r}") from error


def at_each_place(make, deed, do, first=1, step=1):
    """Do something at each place that a deed comes by, one after the other, or at every so many; return the last."""
    for at in range(first, 100_000, step):
        emitter = make()
        places = Places(at, functools.partial(do, emitter))
        with contextlib.suppress(KeyboardInterrupt, SystemExit), places:
            deed(emitter)
        if places.where is None:
            return at
        with told(places):
            all_is_well_with(emitter)
    raise AssertionError("it has no end")


def interrupt(emitter):
    raise KeyboardInterrupt


def track_in_a_handler(emitter):
    track(emitter, "from a handler")


def track_in_a_handler_and_exit(emitter):
    track(emitter, "from a handler")
    raise SystemExit


def flush_in_a_handler(emitter):
    track(emitter, "from a handler")
    emitter.sync_flush()


SIGNALS = [interrupt, track_in_a_handler, track_in_a_handler_and_exit, flush_in_a_handler]

each_method = pytest.mark.parametrize("method", ["post", "get"])
each_deed = pytest.mark.parametrize("deed", DEEDS)
each_signal = pytest.mark.parametrize("signal", SIGNALS)


@each_signal
def test_signal_anywhere_in_a_flush_leaves_the_books_right(signal):
    """Ctrl-C, and handlers that track: the next flush brings all to the collector, and nobody waits for ever."""
    assert at_each_place(made, track_and_flush, signal) > 100


@each_signal
def test_signal_anywhere_at_a_full_buffer_leaves_the_books_right(signal):
    """The same while payloads are dropped, those of the handlers included."""
    assert at_each_place(made, overflow, signal) > 100


@each_method
@each_deed
@each_signal
def test_signal_here_and_there_leaves_the_books_right(signal, deed, method):
    """The same in all else that happens to payloads."""
    assert at_each_place(lambda: made(method), deed, signal, first=len(deed.__name__), step=7) > 30


@each_method
@each_signal
def test_signal_anywhere_leaves_a_store_in_a_file_usable(signal, method, tmp_path):
    """What an exception leaves claimed comes back when its lease ends, and all else at once."""
    numbers = itertools.count()
    deed = track_and_fail_and_flush
    for at in range(1, 100_000, 13):
        store = SQLiteEventStore(tmp_path / f"{next(numbers)}.db", lease_seconds=0.001, synchronous="off")
        emitter = made(method, event_store=store)
        places = Places(at, functools.partial(signal, emitter))
        with contextlib.suppress(KeyboardInterrupt, SystemExit), places:
            deed(emitter)
        if places.where is None:
            break
        with told(places):
            emitter.answers = ()
            track(emitter, "a", "b", "c")
            emitter.sync_flush()
            assert {"a", "b", "c"} <= emitter.arrived, "the store is of no use any more"
            emitter.close()
            store.close()
            heir = made(event_store=SQLiteEventStore(store.path, synchronous="off"))
            heir.sync_flush()
            assert set(emitter.tracked) <= emitter.arrived | heir.arrived, "something is lost"
            heir.close()
            heir.event_store.close()
    assert next(numbers) > 100


@each_signal
def test_signal_in_the_thread_that_tracks_leaves_the_workers_alone(signal):
    """An `AsyncEmitter` goes on as well."""
    assert at_each_place(lambda: made(kind=AnsweringAsyncEmitter), track_and_flush, signal) > 100


def codes_in(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def blocks_left_open(code):
    """Find lines with a jump backward that is outside of the `with` block, which its target is in."""
    entries = dis.Bytecode(code).exception_entries
    instructions = list(dis.get_instructions(code))
    places = {instruction.offset: place for place, instruction in enumerate(instructions)}

    def blocks(offset):
        entry = next((entry for entry in entries if entry.start <= offset < entry.end), None)
        if entry is None:
            return 0
        place = places[entry.target]
        is_block = any(instruction.opname == "WITH_EXCEPT_START" for instruction in instructions[place : place + 3])
        # The handler of an entry may be one that only tidies up, before it goes on to that of the block.
        return is_block + (blocks(entry.target) if entry.target > offset else 0)

    return [
        f"{code.co_qualname}:{instruction.positions.lineno}"
        for instruction in instructions
        if instruction.opname == "JUMP_BACKWARD" and blocks(instruction.offset) < blocks(instruction.argval)
    ]


# Only threads of the library's own run these, in which no signal handler runs; or what they leave open is a
# transaction, which is rolled back elsewhere.
OUT_OF_DANGER = {
    "Flow._settle",
    "FlushTimer._wait_until_due",
    "HttpServer._admit",
    "HttpServer._serve",
    "SQLiteEventStore._claim",
    "SQLiteEventStore._return_lost",
    "SQLiteEventStore._settle",
}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no gap in the exception tables of older Pythons is known")
def test_no_jump_in_a_loop_leaves_a_lock_taken():
    """From CPython 3.12 on, Ctrl-C at a conditional jump back to the head of a loop passes over a `with` around it."""
    modules = [compile(file.read_text(encoding="utf-8"), str(file), "exec") for file in FOLDER.rglob("*.py")]
    codes = [code for module in modules for code in codes_in(module)]

    found = [place for code in codes if code.co_qualname not in OUT_OF_DANGER for place in blocks_left_open(code)]

    assert len(codes) > 500
    assert found == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@each_method
@each_deed
@each_signal
def test_signal_anywhere_leaves_the_books_right(signal, deed, method):
    """Each place of all that is tried here and there."""
    at_each_place(lambda: made(method), deed, signal)
