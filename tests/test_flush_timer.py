"""Timers: they flush later, once or again and again, from one thread, and keep nothing alive."""

import gc
import logging
import math
import threading
import time
import weakref

import pytest

from snowplow_tracker._flush_timer import FlushTimer

SOON = 0.001
LATER = 3600
WAIT = 10  # Only a test that fails takes so long.


class FlushedEmitter:
    """Counts its flushes, tells in which thread they happen, and does in them what a test wants."""

    def __init__(self):
        self.threads = []
        self.during_flush = lambda: None
        self._flushed = threading.Condition()

    def flush(self):
        with self._flushed:
            self.threads.append(threading.current_thread())
            self._flushed.notify_all()
        self.during_flush()

    def wait_for_flushes(self, count):
        with self._flushed:
            assert self._flushed.wait_for(lambda: len(self.threads) >= count, WAIT)


@pytest.fixture
def emitter():
    return FlushedEmitter()


@pytest.fixture
def once(emitter):
    timer = FlushTimer(emitter, repeating=False)
    yield timer
    timer.cancel()


@pytest.fixture
def repeating(emitter):
    timer = FlushTimer(emitter, repeating=True)
    yield timer
    timer.cancel()


@pytest.fixture
def no_threads(monkeypatch):
    """The operating system has no more threads, or the interpreter is shutting down."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.fixture
def waits(monkeypatch):
    """Has something done in the timer's thread whenever it waits: `waits(before=..., after=...)`.

    The timer's lock is held then, so nobody gets in between.
    """
    original = threading.Condition.wait

    def nothing():
        pass

    def install(before=nothing, after=nothing):
        def wait(condition, timeout=None):
            if threading.current_thread().name != "snowplow-flush-timer":
                return original(condition, timeout)
            before()
            result = original(condition, timeout)
            after()
            return result

        monkeypatch.setattr(threading.Condition, "wait", wait)

    return install


def end_of(thread):
    thread.join(WAIT)
    return not thread.is_alive()


def test_timer_begins_without_a_thread(emitter):
    """To make one starts nothing: emitters are built while applications are imported."""
    timer = FlushTimer(emitter, repeating=True)

    assert not timer.has_thread()
    assert not timer.is_active()
    assert timer.remaining_seconds() == 0.0


def test_flush_happens_when_the_time_is_over(emitter, once):
    """It happens in a daemon thread of the timer's own."""
    once.start(SOON)

    emitter.wait_for_flushes(1)
    [thread] = emitter.threads
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert thread.name == "snowplow-flush-timer"


def test_thread_waits_until_the_time_is_over(emitter, once, monkeypatch, waits):
    """Half a second is not over yet."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    waiting = threading.Event()
    waits(before=waiting.set)

    once.start(0.5)

    assert waiting.wait(WAIT)


def test_flush_does_not_happen_before_the_time_is_over(emitter, once, monkeypatch):
    """The clock that counts is the monotonic one."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    once.start(LATER)
    at_first = once.remaining_seconds()
    now[0] += 3599
    almost = once.remaining_seconds()

    assert (at_first, almost) == (3600, 1)
    assert once.is_active()
    assert emitter.threads == []


def test_timer_flushes_once(emitter, once):
    """Without an appointment there is no thread, either."""
    once.start(SOON)
    emitter.wait_for_flushes(1)

    assert end_of(emitter.threads[0])
    assert len(emitter.threads) == 1
    assert not once.is_active()
    assert not once.has_thread()


def test_repeating_timer_flushes_again_and_again_from_one_thread(emitter, repeating):
    """An interval needs no new thread."""
    repeating.start(SOON)

    emitter.wait_for_flushes(5)
    assert len(set(emitter.threads)) == 1
    assert repeating.is_active()


def test_flushes_that_take_long_do_not_pile_up(emitter, repeating):
    """While one flush goes on no other begins, however many intervals pass."""
    release, nested = threading.Event(), []
    inside = threading.Semaphore(1)

    def long_flush():
        nested.append(not inside.acquire(blocking=False))
        release.wait(WAIT)
        inside.release()

    emitter.during_flush = long_flush
    repeating.start(SOON)
    emitter.wait_for_flushes(1)
    seen = {repeating._thread}

    for _ in range(10):
        repeating.start(SOON)
        seen.add(repeating._thread)
    flushes = len(emitter.threads)
    release.set()
    emitter.wait_for_flushes(3)

    assert flushes == 1
    assert not any(nested)
    assert seen == set(emitter.threads)
    assert len(seen) == 1


def test_appointment_may_be_moved_forward(emitter, once, waits):
    """The same thread keeps the new one, and there is one flush."""
    waiting = threading.Event()
    waits(before=waiting.set)
    once.start(LATER)
    thread = once._thread
    assert waiting.wait(WAIT)

    once.start(SOON)

    emitter.wait_for_flushes(1)
    assert emitter.threads == [thread]
    assert end_of(thread)


def test_appointment_may_be_put_off(emitter, once):
    """The old one is forgotten, and the thread that waited for it waits for the new one."""
    once.start(WAIT)
    thread = once._thread

    once.start(LATER)

    assert once.remaining_seconds() > WAIT
    assert once._thread is thread
    assert emitter.threads == []


@pytest.mark.parametrize("change", ["put off", "cancelled"])
def test_appointment_may_be_changed_at_the_moment_when_it_comes_due(emitter, once, monkeypatch, waits, change):
    """Whoever gets the lock before the timer's thread decides; then there is no flush."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    decided, waits_again = threading.Event(), threading.Event()

    def decide():
        if not decided.is_set():
            once.start(LATER) if change == "put off" else once.cancel()
            decided.set()

    def note():
        if decided.is_set():
            waits_again.set()

    waits(before=note, after=decide)
    once.start(SOON)
    thread = once._thread

    assert waits_again.wait(WAIT) if change == "put off" else end_of(thread)
    assert emitter.threads == []


def test_new_interval_replaces_the_old_one(emitter, repeating):
    """A repeating timer goes on at the interval that was set last."""
    repeating.start(LATER)

    repeating.start(SOON)
    emitter.wait_for_flushes(3)
    repeating.start(LATER)

    assert LATER - WAIT < repeating.remaining_seconds() <= LATER


def test_interval_begins_when_a_flush_ends(emitter, repeating, monkeypatch):
    """After a flush that took long the next one is a whole interval away, without any that make up for it."""
    now, remaining = [1000.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def take_long():
        remaining.append(repeating.remaining_seconds())
        now[0] += 128.0

    emitter.during_flush = take_long
    repeating.start(0.0078125)
    emitter.wait_for_flushes(3)
    repeating.cancel()

    assert remaining[1] == 0.0078125


def test_cancelled_flush_does_not_happen(emitter, repeating, waits):
    """The thread ends at once, however far the appointment was."""
    waiting = threading.Event()
    waits(before=waiting.set)
    repeating.start(LATER)
    thread = repeating._thread
    assert waiting.wait(WAIT)

    repeating.cancel()

    assert end_of(thread)
    assert not repeating.is_active()
    assert repeating.remaining_seconds() == 0.0
    assert emitter.threads == []


@pytest.mark.parametrize("repeats", [False, True], ids=["once", "repeating"])
def test_timer_may_be_cancelled_from_within_the_flush(emitter, repeats):
    """There is no other flush then, and the thread ends."""
    timer = FlushTimer(emitter, repeating=repeats)
    emitter.during_flush = timer.cancel

    timer.start(SOON)
    emitter.wait_for_flushes(1)

    assert end_of(emitter.threads[0])
    assert len(emitter.threads) == 1
    assert not timer.is_active()


def test_timer_may_be_cancelled_twice(repeating):
    """And before it was ever started."""
    repeating.cancel()
    repeating.cancel()

    assert not repeating.is_active()


@pytest.mark.parametrize("repeats", [False, True], ids=["once", "repeating"])
def test_timer_may_be_started_from_within_the_flush(emitter, repeats):
    """A flush that fails makes the appointment for its retry, which the same thread keeps."""
    timer = FlushTimer(emitter, repeating=repeats)
    active = []

    def again():
        if len(emitter.threads) < 3:
            timer.start(SOON)
        else:
            timer.cancel()
        active.append(timer.is_active())

    emitter.during_flush = again
    timer.start(SOON)
    emitter.wait_for_flushes(3)

    assert end_of(emitter.threads[0])
    assert len(emitter.threads) == 3
    assert len(set(emitter.threads)) == 1
    assert active == [True, True, False]


def test_appointment_of_the_flush_itself_counts_before_the_interval(emitter, repeating, monkeypatch, waits):
    """A repeating timer does not overwrite, at the end of its flush, the one that was made during it."""
    now, waits_again = [1000.0], threading.Event()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def put_off():
        repeating.start(64.0)
        now[0] += 16.0

    emitter.during_flush = put_off
    waits(before=lambda: waits_again.set() if emitter.threads else None)
    repeating.start(SOON)
    assert waits_again.wait(WAIT)

    assert repeating.remaining_seconds() == 48.0


def test_timer_that_was_cancelled_can_be_started_again(emitter, repeating):
    """Whether its thread is still there or not."""
    repeating.start(LATER)
    repeating.cancel()

    repeating.start(SOON)

    emitter.wait_for_flushes(1)


def test_timer_is_not_active_during_its_only_flush(emitter, once):
    """So that the flush does not take itself for a backoff."""
    active = []
    emitter.during_flush = lambda: active.append(once.is_active())

    once.start(SOON)
    emitter.wait_for_flushes(1)

    assert end_of(emitter.threads[0])
    assert active == [False]


def test_timer_may_be_started_while_its_thread_is_about_to_end(emitter):
    """A thread that has found nothing to wait for does not come back, so there is another one."""
    deciding, ending = threading.Event(), threading.Event()

    class SlowlyEndingTimer(FlushTimer):
        def _wait_until_due(self):
            is_due = super()._wait_until_due()
            if not is_due:
                deciding.set()
                ending.wait(WAIT)
            return is_due

    timer = SlowlyEndingTimer(emitter, repeating=False)
    timer.start(SOON)
    assert deciding.wait(WAIT)

    timer.start(SOON)
    emitter.wait_for_flushes(2)
    ending.set()

    assert emitter.threads[0] is not emitter.threads[1]


def test_flush_that_fails_is_logged_and_the_timer_goes_on(emitter, repeating, caplog):
    """Background code survives what the application's code raises."""
    error = ValueError("broken")

    def fail():
        raise error

    emitter.during_flush = fail
    repeating.start(SOON)
    emitter.wait_for_flushes(2)
    repeating.cancel()

    assert end_of(emitter.threads[0])
    assert {record.getMessage() for record in caplog.records} == {"A flush by timer failed"}
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert caplog.records[0].exc_info[1] is error


def test_exit_in_a_flush_ends_no_timer(emitter, once, caplog):
    """A callback that calls `sys.exit` does not keep the next appointment, made in the same flush, from being kept."""

    def begin_anew_and_exit():
        emitter.during_flush = lambda: None
        once.start(SOON)
        raise SystemExit

    emitter.during_flush = begin_anew_and_exit
    once.start(SOON)

    emitter.wait_for_flushes(2)
    assert "A flush by timer failed" in caplog.text


def test_flush_is_looked_up_when_it_is_due(emitter, repeating):
    """A flush that was replaced meanwhile, by a subclass or a test, is the one that is called."""
    flushed = threading.Event()
    repeating.start(SOON)
    emitter.wait_for_flushes(1)

    emitter.flush = flushed.set

    assert flushed.wait(WAIT)


def test_timer_does_not_keep_its_emitter_alive(caplog):
    """The thread ends when it finds nobody to flush."""
    emitter = FlushedEmitter()
    timer = FlushTimer(emitter, repeating=True)
    timer.start(LATER)
    thread = timer._thread
    reference = weakref.ref(emitter)

    del emitter
    gc.collect()
    gone = reference() is None
    timer.start(SOON)

    assert gone
    assert end_of(thread)
    assert not timer.is_active()
    assert caplog.records == []


def test_thread_does_not_keep_the_emitter_alive_between_two_flushes():
    """It lets go of the emitter before it waits again."""
    emitter = FlushedEmitter()
    reference = weakref.ref(emitter)
    gone = threading.Event()
    weakref.finalize(emitter, gone.set)
    timer = FlushTimer(emitter, repeating=True)
    timer.start(SOON)
    emitter.wait_for_flushes(1)

    timer.start(LATER)
    del emitter

    assert gone.wait(WAIT)
    assert reference() is None
    timer.cancel()


def test_thread_that_cannot_be_started_is_no_error(once, no_threads, monkeypatch):
    """The timer counts as active until its time is over, so that a backoff lasts as long as it should."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    once.start(10)
    now[0] += 9.5
    before = (once.is_active(), once.remaining_seconds(), once.has_thread())
    now[0] += 0.5
    after = (once.is_active(), once.remaining_seconds(), once.has_thread())

    assert before == (True, 0.5, False)
    assert after == (False, 0.0, False)


def test_timer_gets_its_thread_as_soon_as_there_are_any(emitter, once, monkeypatch):
    """A start that failed is no obstacle to the next one."""
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("no more threads")))
        with pytest.raises(RuntimeError):
            threading.Thread().start()
        once.start(SOON)

    once.start(SOON)

    emitter.wait_for_flushes(1)


def test_timer_that_is_reset_begins_anew(emitter, once, no_threads, monkeypatch):
    """A forked child has neither the thread nor the appointment of its parent, and can make its own."""
    once.start(LATER)

    once.reset()
    after_reset = (once.is_active(), once.has_thread(), once.remaining_seconds())
    monkeypatch.undo()
    once.start(SOON)

    assert after_reset == (False, False, 0.0)
    emitter.wait_for_flushes(1)


def test_frozen_clock_does_not_stop_the_timer(emitter, once, monkeypatch):
    """A test of an application that freezes time still gets its events."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)

    once.start(SOON)

    emitter.wait_for_flushes(1)


def test_interval_may_be_longer_than_a_lock_can_wait(emitter, once, monkeypatch):
    """The thread does not die of it, but waits as long as it can."""
    monkeypatch.setattr(threading, "TIMEOUT_MAX", SOON)

    once.start(1e300)

    emitter.wait_for_flushes(1)


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf])
def test_time_must_be_positive_and_finite(repeating, timeout):
    """Anything else is a ValueError that shows it, and leaves an appointment as it is."""
    repeating.start(LATER)

    with pytest.raises(ValueError, match=f"^timeout must be positive and finite, got {timeout!r}$"):
        repeating.start(timeout)

    assert repeating.remaining_seconds() > LATER - WAIT


@pytest.mark.parametrize("timeout", [True, "5", None], ids=repr)
def test_time_must_be_a_number(repeating, timeout):
    """Another type is a TypeError that shows it."""
    with pytest.raises(TypeError) as caught:
        repeating.start(timeout)

    assert str(caught.value) == f"timeout must be a number, got {timeout!r}"
    assert not repeating.is_active()
