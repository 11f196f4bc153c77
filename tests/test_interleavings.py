"""Threads whose steps come in many orders: each payload is in one state, none is lost, and nobody waits for ever."""

import collections
import json
import logging
import random

import pytest
from durable_store import DurableStore, Shelf
from interleaving import AtRandom, Interleaving, explore, explore_switches
from support import eids

from snowplow_tracker import AsyncEmitter, Emitter, InMemoryEventStore, _ledger

pytestmark = pytest.mark.thorough


class Scene:
    """An emitter in an interleaving, the payloads that it was given, and what it has done with them.

    Attributes:
        accepted: Event ids in the order in which the payloads were accepted.
        attempts: The event ids and the answer of each request, in the order in which they ended.
        in_callback: What the callbacks do besides taking note.
        may_answer: Whether the collector answers already.
        told: What the callbacks were told of: event ids.
    """

    def __init__(self, world, emitter_class=AsyncEmitter, answers=(), **options):
        scene = self
        self.world, self.answers = world, iter(answers)
        self.accepted, self.attempts = [], []
        self.told_delivered, self.told_not_delivered, self.told_dropped = [], [], []
        self.in_callback, self.may_answer = lambda: None, lambda: True
        self.has_deadline = False

        class Store(InMemoryEventStore):
            def add_event(self, payload):
                scene.accepted.append(payload["eid"])
                return super().add_event(payload)

        self.emitter = emitter_class(
            "collector.example.com",
            on_success=self._succeed,
            on_failure=self._fail,
            event_store=Store(),
            **options,
        )
        self.emitter.http_post = lambda data: self._exchange(eids(json.loads(data)["data"]))
        self.emitter.http_get = lambda payload: self._exchange([payload["eid"]])
        self.ledger = self.emitter._ledger
        self.most_threads = 0
        world.check = self._check

    def track(self, *names):
        for name in names:
            self.emitter.input({"eid": name})

    def send(self, *names):
        """Send payloads that never were in the store."""
        self.accepted.extend(names)
        self.emitter.send_events([{"eid": name} for name in names])

    def put_into_queue(self, *names):
        self.accepted.extend(names)
        self.emitter.queue.put([{"eid": name} for name in names])

    def flush(self):
        """Flush, and see that all that waited was tried."""
        begun = len(self.attempts)
        waiting = eids(self.ledger.store.event_buffer)
        in_flight = list(self.ledger._in_flight.values()) if isinstance(self.emitter, AsyncEmitter) else []

        self.emitter.sync_flush()

        tried = {name for names, _ in self.attempts[begun:] for name in names}
        has_failed = any(not self.is_final(answer) for _, answer in self.attempts[begun:])
        # A request that fails ends the attempt.
        assert tried >= set(waiting) or has_failed
        assert not self.ledger.unsettled(in_flight)

    def flush_within(self, seconds):
        """Flush with a time limit, and see that all that waited is out, if there was time."""
        self.has_deadline = True
        time_is_up_at = self.world.time + seconds
        waiting = set(self.accepted) - set(self.done())

        self.emitter.sync_flush(timeout=seconds)

        assert waiting <= set(self.done()) or self.world.time >= time_is_up_at

    def close(self, timeout=None):
        """Close, and see that what is said to be out is out."""
        self.has_deadline = True
        if self.emitter.close(timeout):
            assert sorted(self.done()) == sorted(self.accepted)

    def finish(self, is_live=True):
        """Let the collector recover; then all is sent, each payload once, and nothing of the emitter goes on.

        Args:
            is_live: Whether all that is due must be sent before the emitter is closed.
        """
        self.answers, self.in_callback = iter(()), lambda: None
        self.world.run(self.emitter.cancel_flush_timer)
        self.world.run()
        assert not self.ledger.in_flight()
        if is_live:
            assert not self.emitter.reached_limit()
            assert set(self._with(lambda answer: answer not in (200, 400, SystemExit))) <= set(self.done())

        closed = []
        self.world.run(lambda: closed.append(self.emitter.close(timeout=None)))
        self.world.run()

        stats = self.emitter.stats()
        assert closed == [True]
        assert self.world.living() == []
        assert (stats.buffered, stats.in_flight, stats.dropped) == (0, 0, len(self.told_dropped))
        assert stats.accepted == stats.delivered + stats.rejected == len(self.accepted)
        assert sorted(self.done()) == sorted(self.accepted)
        self._check_callbacks()

    def done(self):
        return self._with(self.is_final)

    @staticmethod
    def is_final(answer):
        return answer in (200, 400)

    def _check_callbacks(self):
        """See that each outcome was told, once for each attempt."""
        by_post = self.emitter.method == "post"
        if SystemExit in [answer for _, answer in self.attempts] and not by_post:
            # What the send had settled before it was interrupted was told to nobody.
            return
        assert sorted(self.told_delivered) == sorted(self._with(lambda answer: answer == 200))
        failed = collections.Counter(self._with(lambda answer: answer not in (200, SystemExit)))
        told = collections.Counter(self.told_not_delivered)
        # What is held back, by a failed GET or because time is up, is told without an attempt.
        assert told == failed or (not failed - told and (self.has_deadline or not by_post))

    def _with(self, condition):
        return [name for names, answer in self.attempts if condition(answer) for name in names]

    def _exchange(self, names):
        assert not self.world.holds_lock()
        self.world.step()
        self.world.wait(self.may_answer)
        answer = next(self.answers, 200)
        self.world.step()
        self.attempts.append((names, answer))
        if isinstance(answer, type):
            raise answer
        return answer

    def _succeed(self, delivered):
        assert not {id(payload) for payload in delivered} & self.ledger._in_flight.keys(), "told before it was settled"
        self._call_back(self.told_delivered, delivered)

    def _fail(self, count, not_delivered):
        is_dropped = self.emitter._drop_reports.telling.is_under_way
        self._call_back(self.told_dropped if is_dropped else self.told_not_delivered, not_delivered)

    def _call_back(self, told, payloads):
        assert not self.world.holds_lock()
        told.extend(eids(payloads))
        self.world.step()
        self.in_callback()
        self.world.step()

    def _check(self):
        if not self.ledger.lock.depth:
            figures = self.ledger.figures
            done = figures.delivered + figures.rejected
            assert figures.accepted == done + self.ledger.store.size() + self.ledger.in_flight()
        self.most_threads = max(self.most_threads, self.emitter._thread_limit())
        assert len(self.emitter._worker_pool._threads) <= self.most_threads


@pytest.fixture(autouse=True)
def _no_log(caplog):
    """Other tests read the log; here it would cost most of the time."""
    caplog.set_level(logging.CRITICAL + 1, "snowplow_tracker")


def drawn_emitter(world, draw, emitter_class=None, failures=(503, 400, OSError)):
    emitter_class = emitter_class or draw.choice([Emitter, AsyncEmitter, AsyncEmitter])
    options = {"method": draw.choice(["post", "post", "get"]), "batch_size": draw.randint(1, 3)}
    if emitter_class is AsyncEmitter:
        options["thread_count"] = draw.randint(1, 3)
    answers = [draw.choice([200, *failures]) for _ in range(draw.randrange(6))]
    return Scene(world, emitter_class, answers, **options)


def at_once(scene, draw, deeds):
    """Have two or three threads track, each payload followed now and then by one of the deeds."""

    def application(name):
        for number in range(draw.randint(1, 4)):
            scene.track(f"{name}{number}")
            if draw.random() < 0.4:
                draw.choice(deeds)()

    scene.world.run(*[lambda name=name: application(name) for name in "abc"[: draw.randint(2, 3)]])


def flushes(world, draw):
    scene = drawn_emitter(world, draw)
    emitter = scene.emitter

    at_once(scene, draw, [scene.flush, lambda: scene.flush_within(draw.choice([0, 1, 30])), emitter.async_flush])

    scene.finish()


def closes(world, draw):
    scene = drawn_emitter(world, draw)

    at_once(scene, draw, [lambda: scene.close(draw.choice([None, 0, 1, 30])), scene.flush][: draw.randint(1, 2)])

    scene.finish(is_live=False)


def timers(world, draw):
    scene = drawn_emitter(world, draw, failures=(503, 503, OSError))
    scene.emitter.flush_interval = draw.choice([0.1, 1, 30])
    rearm = scene.emitter.set_flush_timer

    at_once(scene, draw, [scene.flush, scene.emitter.flush, lambda: rearm(0.5), scene.emitter.cancel_flush_timer])

    scene.finish()


def callbacks(world, draw):
    scene = drawn_emitter(world, draw)
    numbers = iter(range(3))

    def track():
        for number in numbers:
            scene.track(f"callback{number}")
            return

    deeds = [track, scene.emitter.flush, scene.emitter.sync_flush, scene.emitter.async_flush]
    scene.in_callback = lambda: draw.choice(deeds)()

    at_once(scene, draw, [scene.flush, lambda: scene.flush_within(30)])

    scene.finish()


def deaths(world, draw):
    scene = drawn_emitter(world, draw, AsyncEmitter, failures=(SystemExit, SystemExit, 503))

    names = (f"direct{number}" for number in range(100))
    last = draw.choice([lambda: scene.send(next(names)), lambda: scene.close(30)])

    at_once(scene, draw, [scene.flush, scene.emitter.flush, last][: draw.randint(1, 3)])

    scene.finish(is_live=False)


def seams(world, draw):
    scene = drawn_emitter(world, draw, AsyncEmitter)
    numbers = iter(range(100))

    def change_thread_count():
        scene.emitter.thread_count = draw.randint(1, 3)

    def send():
        scene.send(f"direct{next(numbers)}")

    def put():
        scene.put_into_queue(f"queue{next(numbers)}", f"queue{next(numbers)}")

    at_once(scene, draw, [scene.flush, change_thread_count, send, put])

    scene.finish()


def one_thread(world, draw):
    answers = [draw.choice([200, 503, 400, OSError]) for _ in range(draw.randrange(6))]
    scene = Scene(world, AsyncEmitter, answers, batch_size=draw.randint(1, 3))

    at_once(scene, draw, [scene.flush, lambda: scene.flush_within(30), scene.emitter.async_flush])

    scene.finish()
    assert scene.done() == scene.accepted


def shared_store(world, draw):
    """Two emitters, as of two processes, have one durable store, and each of them is closed at some time."""
    shelf, delivered, may_fail = Shelf(), [], [True]

    def emitter_of(process):
        emitter = draw.choice([Emitter, AsyncEmitter])(
            "collector.example.com",
            batch_size=draw.randint(1, 3),
            event_store=DurableStore(shelf, hand_out_size=draw.randint(1, 4)),
        )
        answers = [draw.choice([200, 200, 503]) for _ in range(3)]

        def exchange(data):
            assert not world.holds_lock()
            world.step()
            answer = answers.pop() if answers and may_fail else 200
            if answer == 200:
                delivered.extend(eids(json.loads(data)["data"]))
            world.step()
            return answer

        emitter.http_post = exchange
        return emitter

    emitters = [emitter_of(process) for process in range(2)]

    def application(emitter, name):
        deeds = [emitter.flush, emitter.sync_flush, emitter.async_flush, lambda: emitter.sync_flush(timeout=3)]
        for number in range(draw.randint(1, 4)):
            emitter.input({"eid": f"{name}{number}"})
            draw.choice([*deeds, lambda: None])()
        draw.choice([lambda: emitter.close(timeout=draw.choice([0, 2, None])), lambda: None])()

    world.run(*[lambda e=emitter, n=name: application(e, n) for emitter, name in zip(emitters * 2, "abcd")])
    world.run()
    left, in_flight = shelf.eids(), [emitter.stats().in_flight for emitter in emitters]
    accepted = sum(emitter.stats().accepted for emitter in emitters)
    assert in_flight == [0, 0]
    assert len(delivered) == len(set(delivered))
    assert not set(left) & set(delivered)
    assert len(left) + len(delivered) == len(shelf.rows) + len(delivered) == accepted

    may_fail.clear()
    for emitter in emitters:
        world.run(lambda e=emitter: e.sync_flush())
        world.run(lambda e=emitter: e.close(timeout=None))
    world.run()
    assert world.living() == []
    assert len(delivered) == len(set(delivered)) == sum(emitter.stats().delivered for emitter in emitters) == accepted


SCENARIOS = [flushes, closes, timers, callbacks, deaths, seams, one_thread, shared_store]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ledger_is_right_in_any_order_of_steps(scenario):
    """In each order every payload is in one state, and in the end it is out, once; who waits is served."""
    explore(scenario, range(20))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ledger_is_right_in_any_order_of_lines(scenario):
    """The same if threads switch not only where they use a lock, but at any line."""
    explore(scenario, range(1_000, 1_006), by_line=True)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("by_line", [False, True])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ledger_is_right_in_very_many_orders(scenario, by_line):
    """The same with fresh seeds; a failure tells the one that it takes to see it again."""
    first = random.randrange(10**9)
    explore(scenario, range(first, first + (2_000 if by_line else 5_000)), by_line)


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
def test_flush_and_batch_at_once_in_every_order(emitter_class):
    """Wherever another thread comes in between, a flush returns when what waited has been tried."""

    def flush_and_batch(world):
        scene = Scene(world, emitter_class, [503], batch_size=2)
        scene.track("before")
        world.run(scene.flush, lambda: scene.track("within"))
        scene.finish()

    assert explore_switches(flush_and_batch) > 50


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
def test_close_and_track_at_once_in_every_order(emitter_class):
    """Wherever another thread comes in between, a payload is sent or dropped, and `close` tells the truth."""

    def close_and_track(world):
        scene = Scene(world, emitter_class, batch_size=1)
        world.run(scene.close, lambda: scene.track("a", "b"))
        scene.finish(is_live=False)

    assert explore_switches(close_and_track) > 50


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
def test_close_counts_what_comes_back_meanwhile(emitter_class):
    """A payload that goes from being in flight to the store while `close` counts is not overlooked."""

    def close_and_fail(world):
        scene = Scene(world, emitter_class, [503], batch_size=1)
        scene.may_answer = lambda: scene.ledger.closed
        world.run(lambda: scene.track("a"), lambda: scene.close(timeout=0))
        scene.finish(is_live=False)

    assert explore_switches(close_and_fail) > 50


def test_cancelled_timer_stays_cancelled_in_every_order():
    """Wherever another thread cancels the flush timer, tracking does not raise, and does not arm it again."""

    def cancel_and_track(world):
        scene = Scene(world, Emitter, flush_interval=1.0)
        world.run(lambda: scene.track("a"), scene.emitter.cancel_flush_timer)
        active = []
        world.run(lambda: active.append(scene.emitter.timer.is_active()))
        assert active == [False]

    explore_switches(cancel_and_track, by_line=True)


def test_full_batch_is_sent_behind_a_batch_in_the_queue():
    """A task that is not for all that waits does not stand in for one that is."""

    def put_and_track(world):
        scene = Scene(world, AsyncEmitter, batch_size=1)
        world.run(lambda: scene.put_into_queue("a"), lambda: scene.track("b"))
        scene.finish()

    explore_switches(put_and_track)


def count_twice(world):
    """Lose an update, if the threads switch between the reading and the writing."""
    counts = [0]

    def count():
        before = counts[0]
        world.step()
        counts[0] = before + 1

    world.run(count, count)
    assert counts == [2]


def test_lost_update_is_found():
    """The order that shows a mistake is among those that are tried."""
    with pytest.raises(AssertionError, match=r"AtSteps\(\{\d+: 0\}\)"):
        explore_switches(count_twice)
    with pytest.raises(AssertionError, match=r"explore\(.*, \[\d+\], False\)"):
        explore(lambda world, draw: count_twice(world), range(40))


def test_threads_that_wait_for_each_other_are_found():
    """A deadlock is a failure that tells where each thread stands."""

    def take_both(world, draw):
        locks = [_ledger.threading.RLock(), _ledger.threading.RLock()]

        def take(first, second):
            with first, second:
                pass

        world.run(lambda: take(*locks), lambda: take(*reversed(locks)))

    with pytest.raises(AssertionError, match=r"the threads wait for one another.*application-0: .*application-1: "):
        explore(take_both, range(40))


def test_seed_repeats_the_order():
    """The same seed makes the same steps."""

    def names(seed):
        with Interleaving(AtRandom(seed), by_line=True) as world:
            scene = Scene(world, AsyncEmitter, [503], batch_size=2, thread_count=2)
            at_once(scene, random.Random(seed), [scene.flush])
            return world.steps, scene.accepted, scene.attempts

    assert [names(seed) for seed in range(5)] == [names(seed) for seed in range(5)]
