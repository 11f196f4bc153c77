"""The registry of emitters: who is served at exit, after a fork and as garbage, with members that only take notes."""

import gc
import logging
import sys
import threading
import types
import weakref

import pytest
from support import eventually

from snowplow_tracker import _lifecycle
from snowplow_tracker._lifecycle import Lifecycle


class Member:
    """What the registry needs of an emitter."""

    def __init__(self, *flushes, flush_on_exit=True, closes=True):
        self.flush_on_exit = flush_on_exit
        self.flushes = list(flushes)
        self.closes = closes
        self.timeouts = []
        self.reasons = []
        self.beginnings = 0
        self.done = threading.Event()

    def _flush_at_exit(self, timeout):
        self.timeouts.append(timeout)
        return outcome_of(self.flushes.pop(0) if self.flushes else True)

    def _give_up(self, reason):
        self.reasons.append(reason)
        self.done.set()

    def _begin_anew_in_child(self):
        self.beginnings += 1
        outcome_of(self.flushes.pop(0) if self.flushes else True)

    def close(self, timeout):
        self.timeouts.append(timeout)
        self.done.set()
        return outcome_of(self.closes)


class Clock:
    """A clock that goes on only when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_lifecycle, "time", clock)
    monkeypatch.setattr(_lifecycle, "EXIT_SECONDS", 6.0)
    return clock


def outcome_of(value):
    if isinstance(value, BaseException):
        raise value
    return value


def registry_of(*members):
    registry = Lifecycle()
    for member in members:
        registry.register(member)
    return registry


def has_no_threads(registry):
    return len(registry._free_threads) == _lifecycle._MAX_ORPHAN_THREADS


def test_registry_keeps_no_member_alive():
    """Being registered keeps nobody alive, and leaves nothing behind."""
    member = Member()
    registry = registry_of(member)
    reference = weakref.ref(member)

    del member

    assert reference() is None
    assert registry._living() == []
    assert registry._members == {}


def test_there_is_no_time_limit_before_exit():
    """Before the interpreter exits there is no time limit."""
    registry = registry_of(Member())

    assert registry.seconds_to_exit() is None


def test_time_to_exit_counts_down_to_zero(clock):
    """From the exit on, the time that is left goes down to 0 and stays there."""
    registry = registry_of()

    registry.at_exit()

    assert registry.seconds_to_exit() == 6.0
    clock.now += 5
    assert registry.seconds_to_exit() == 1.0
    clock.now += 5
    assert registry.seconds_to_exit() == 0.0


def test_time_at_exit_is_shared_among_members(clock):
    """Each member gets an equal share of the time at exit, and what others did not need."""
    first, second, third = Member(), Member(), Member()

    registry_of(first, second, third).at_exit()

    assert [member.timeouts for member in (first, second, third)] == [[2.0], [3.0], [6.0]]
    assert [member.reasons for member in (first, second, third)] == [[], [], []]


def test_member_that_did_not_finish_gets_the_time_that_is_left(clock):
    """A member that did not finish in its share gets what the others left over."""
    hanging, quick = Member(False, True), Member()
    hanging._flush_at_exit = take_time(clock, hanging._flush_at_exit)

    registry_of(hanging, quick).at_exit()

    assert hanging.timeouts == [3.0, 3.0]
    assert quick.timeouts == [3.0]
    assert hanging.reasons == []


def test_time_at_exit_is_bounded_for_all_members_together(clock):
    """However many members hang, all of them together get no more than the time at exit."""
    members = [Member(False, False) for _ in range(20)]
    for member in members:
        member._flush_at_exit = take_time(clock, member._flush_at_exit)

    registry_of(*members).at_exit()

    assert clock.now == pytest.approx(1006.0)
    assert {reason for member in members for reason in member.reasons} == {
        "the interpreter exits, and 6 s were not enough"
    }


def test_member_that_wants_no_flush_is_left_alone_at_exit():
    """A member with `flush_on_exit=False` gets no time at exit, and says at once what is lost."""
    member = Member(flush_on_exit=False)

    registry_of(member).at_exit()

    assert member.timeouts == []
    assert member.reasons == ["the interpreter exits, and flush_on_exit is off"]


def test_member_that_fails_at_exit_does_not_keep_others_from_it(caplog):
    """What a member raises at exit is logged, and the others have their turn."""
    failing, healthy = Member(ValueError("first"), ValueError("second")), Member()

    registry_of(failing, healthy).at_exit()

    assert len(healthy.timeouts) == 1
    assert len(failing.reasons) == 1
    assert [record.exc_info[1].args for record in caplog.records] == [("first",), ("second",)]


def test_member_that_wants_to_exit_at_exit_has_its_second_turn():
    """A `sys.exit`, of a callback or of a signal's handler, ends one turn of one member, and nobody loses anything."""
    exiting, healthy = Member(SystemExit(3), True), Member()

    registry_of(exiting, healthy).at_exit()

    assert (len(exiting.timeouts), len(healthy.timeouts)) == (2, 1)
    assert exiting.reasons == healthy.reasons == []


def test_interrupted_exit_says_what_is_lost():
    """When the user interrupts the exit, those that had no turn say what is lost."""
    interrupted, without_turn = Member(KeyboardInterrupt()), Member()
    registry = registry_of(interrupted, without_turn)

    with pytest.raises(KeyboardInterrupt):
        registry.at_exit()

    assert without_turn.timeouts == []
    assert interrupted.reasons == without_turn.reasons == ["the interpreter exits, and its last flush was interrupted"]


def test_second_exit_does_nothing():
    """A process that runs its exit handlers twice does not get the time twice."""
    member = Member(False, False)
    registry = registry_of(member)

    registry.at_exit()
    registry.at_exit()

    assert len(member.timeouts) == 2
    assert len(member.reasons) == 1


def test_adopted_member_is_served_once_at_exit(monkeypatch):
    """A member that waits in the background is served at exit, whether its weak reference survived or not."""
    monkeypatch.setattr(_lifecycle._thread, "start_new_thread", out_of_threads)
    with_reference, without_reference = Member(), Member()
    registry = registry_of(with_reference)
    registry.adopt(with_reference)
    registry.adopt(without_reference)

    registry.at_exit()

    assert len(with_reference.timeouts) == len(without_reference.timeouts) == 1


def test_nobody_is_adopted_during_exit():
    """Garbage that is collected while the interpreter exits is left alone."""
    registry = registry_of()
    registry.at_exit()
    member = Member()

    registry.adopt(member)

    assert registry._adopted == {}
    assert not member.done.is_set()


def test_adopted_member_is_closed_in_the_background_and_forgotten():
    """A member that nobody holds is closed by a thread of its own, which ends."""
    registry = registry_of()
    member = Member()

    registry.adopt(member)

    assert member.done.wait(10)
    eventually(lambda: has_no_threads(registry))
    assert member.timeouts == [60.0]
    assert member.reasons == []
    assert registry._adopted == {}


def test_adopted_member_that_does_not_finish_says_what_is_lost():
    """A member that could not send everything in the background says so, and is forgotten."""
    registry = registry_of()
    member = Member(closes=False)

    registry._orphans.append(member)
    registry._close_orphans()

    assert member.reasons == ["nobody holds the emitter, and 60 s were not enough"]


def test_adopted_member_that_fails_does_not_keep_others_from_their_turn(caplog):
    """What a member raises in the background is logged, and the thread goes on with the next one."""
    registry = registry_of()
    failing, healthy = Member(closes=ValueError("closing")), Member()

    registry._orphans.extend([failing, healthy])
    registry._close_orphans()

    assert healthy.timeouts == [60.0]
    assert [record.exc_info[1].args for record in caplog.records] == [("closing",)]


def test_member_that_is_adopted_while_the_last_thread_signs_off_is_closed():
    """A member that comes between a thread's last look and its end is not forgotten."""
    registry = registry_of()
    member = Member()

    class SigningOff(type(registry._free_threads)):
        def append(self, token):
            super().append(token)
            if not member.done.is_set() and not registry._orphans:
                registry._orphans.append(member)

    registry._free_threads = SigningOff(registry._free_threads)
    registry._close_orphans()

    assert member.done.wait(10)


def test_members_are_closed_by_a_few_threads(monkeypatch):
    """However many members nobody holds, only so many threads close them."""
    started = []
    monkeypatch.setattr(_lifecycle._thread, "start_new_thread", lambda run, arguments: started.append(run))
    registry = registry_of()
    members = [Member() for _ in range(20)]

    for member in members:
        registry.adopt(member)

    assert len(started) == 8


def test_member_waits_for_the_next_one_when_there_is_no_thread(monkeypatch):
    """Out of threads, a member is closed together with the next one, or at exit."""
    registry = registry_of()
    first, second = Member(), Member()

    with monkeypatch.context() as patch:
        patch.setattr(_lifecycle._thread, "start_new_thread", out_of_threads)
        registry.adopt(first)
    registry.adopt(second)

    assert first.done.wait(10)
    assert second.done.wait(10)
    eventually(lambda: has_no_threads(registry))


def test_member_waits_for_the_next_one_when_there_is_no_thread_with_a_name(monkeypatch):
    """The same holds if threads run out between the bare thread and the one with a name."""
    registry = registry_of()
    first, second = Member(), Member()
    registry._orphans.append(first)
    registry._free_threads.popleft()

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", out_of_threads)
        registry._start_named_thread()
    registry.adopt(second)

    assert first.done.wait(10)
    assert second.done.wait(10)
    eventually(lambda: has_no_threads(registry))


def test_member_beyond_the_limit_gives_up_at_once(monkeypatch):
    """Beyond a number of members that nobody holds, further ones are not kept."""
    monkeypatch.setattr(_lifecycle, "_MAX_ORPHANS", 0)
    registry = registry_of()
    member = Member()

    registry.adopt(member)

    assert member.done.wait(10)
    assert member.reasons == ["0 emitters that nobody holds wait already"]
    assert registry._adopted == {}


def test_member_beyond_the_limit_is_reported_when_there_is_no_thread(monkeypatch, caplog):
    """Beyond the limit and out of threads, the loss is at least logged."""
    monkeypatch.setattr(_lifecycle, "_MAX_ORPHANS", 0)
    monkeypatch.setattr(_lifecycle._thread, "start_new_thread", out_of_threads)
    registry = registry_of()

    registry.adopt(Member())

    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "out of threads: 0 emitters that nobody holds wait already" in caplog.text


def test_members_begin_anew_in_a_forked_child_and_stay_registered():
    """After a fork each member begins anew in the child, as often as the process forks."""
    member = Member()
    registry = registry_of(member)

    registry.after_fork_in_child()
    registry.after_fork_in_child()

    assert member.beginnings == 2


def test_member_that_cannot_begin_anew_does_not_keep_others_from_it(caplog):
    """What a member raises after a fork is logged, and the others begin anew."""
    failing, healthy = Member(ValueError("forked")), Member()
    registry = registry_of(failing, healthy)

    registry.after_fork_in_child()

    assert healthy.beginnings == 1
    assert [record.exc_info[1].args for record in caplog.records] == [("forked",)]
    assert registry._living() == [failing, healthy]


def test_orphans_of_the_parent_are_not_the_childs(monkeypatch):
    """A forked child leaves to its parent what waits in the background there."""
    monkeypatch.setattr(_lifecycle._thread, "start_new_thread", out_of_threads)
    registry = registry_of()
    member = Member()
    registry.adopt(member)
    gc.collect()

    registry.after_fork_in_child()
    registry.at_exit()

    assert member.timeouts == []


def test_child_that_was_forked_during_exit_has_its_own():
    """A child that is forked by an exit handler does not exit yet."""
    member = Member()
    registry = registry_of(member)
    registry.at_exit()

    registry.after_fork_in_child()

    assert registry.seconds_to_exit() is None


def test_fork_without_multiprocessing_does_without_it(monkeypatch):
    """A program that does not use `multiprocessing` can fork."""
    monkeypatch.delitem(sys.modules, "multiprocessing.util", raising=False)
    member = Member()

    registry_of(member).after_fork_in_child()

    assert member.beginnings == 1


def test_end_of_a_process_of_celerys_pool_is_an_exit(monkeypatch):
    """A forked child exits when Celery says that a process of its pool does."""

    class Signal:
        def connect(self, receiver, **options):
            assert not options["weak"]
            self.receiver = receiver

    ending = Signal()
    monkeypatch.setitem(sys.modules, "celery.signals", types.SimpleNamespace(worker_process_shutdown=ending))
    member = Member()
    registry = registry_of(member)

    registry.after_fork_in_child()
    ending.receiver(sender="celery@host", pid=1, exitcode=0)

    assert len(member.timeouts) == 1


def take_time(clock, flush):
    """Have a flush that does not finish take all the time it gets."""

    def flush_slowly(timeout):
        finished = flush(timeout)
        if not finished:
            clock.now += timeout
        return finished

    return flush_slowly


def out_of_threads(*_):
    raise RuntimeError("can't start new thread")
