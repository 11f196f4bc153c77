"""Many threads at once: each accepted payload is in exactly one state, whatever the order of their steps."""

import itertools
import json
import sys
import threading

import pytest
from support import PATIENCE_SECONDS, eventually, is_balanced, own_threads

from snowplow_tracker import AsyncEmitter, Emitter

THREADS = 4
EVENTS = 150


@pytest.fixture
def hectic():
    """Have the interpreter switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize(
    ("emitter_class", "options"), [(Emitter, {}), (AsyncEmitter, {}), (AsyncEmitter, {"thread_count": 3})]
)
def test_nothing_is_lost_or_sent_twice(hectic, emitter_class, options, method):
    """Failing, refusing and slow requests, callbacks that track and raise, flushes of all kinds: the ledger agrees."""
    taken, refused, balances = [], [], []
    # A failed GET puts off one or two payloads, a failed POST all that wait.
    turn, period = itertools.count(), 7 if method == "post" else 60
    turn_of_callbacks, tracked_in_callbacks = itertools.count(), []
    threads_before = own_threads()

    class Scripted(emitter_class):
        def http_post(self, data):
            return self.http_get(json.loads(data)["data"])

        def http_get(self, payloads):
            eids = [payload["eid"] for payload in (payloads if isinstance(payloads, list) else [payloads])]
            answer = next(turn) % period
            if answer == 0:
                return 503
            if answer == 1:
                raise OSError("reset")
            if answer == 2 and len(refused) < 50:
                refused.extend(eids)
                return 400
            taken.extend(eids)
            return 200

    def succeed(delivered):
        number = next(turn_of_callbacks)
        if number < EVENTS:
            tracked_in_callbacks.append(f"callback-{number}")
            emitter.input({"eid": f"callback-{number}"})
        raise RuntimeError("from a callback")

    emitter = Scripted(
        "collector.example.com",
        method=method,
        batch_size=5,
        max_retry_delay_seconds=0.05,
        on_success=succeed,
        on_failure=lambda count, unsent: emitter.flush(),
        **options,
    )

    def track(name):
        for number in range(EVENTS):
            emitter.input({"eid": f"{name}-{number}"})
            if number % 50 == 0:
                emitter.sync_flush() if number % 100 else emitter.async_flush()
                balances.append(is_balanced(emitter))

    threads = [threading.Thread(target=track, args=(name,)) for name in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_SECONDS)
    is_all_out = emitter.close(timeout=2 * PATIENCE_SECONDS)
    eventually(lambda: not own_threads() - threads_before)

    tracked = {f"{name}-{number}" for name in range(THREADS) for number in range(EVENTS)}
    stats = emitter.stats()
    assert is_all_out
    assert set(balances) == {True}
    assert len(taken) == len(set(taken))
    assert tracked <= set(taken) | set(refused) <= tracked | set(tracked_in_callbacks)
    assert (stats.accepted, stats.delivered, stats.rejected) == (len(taken) + len(refused), len(taken), len(refused))
    # Callbacks that run when the emitter is closed already track in vain.
    assert stats.accepted + stats.dropped == len(tracked) + len(tracked_in_callbacks)
    assert stats.buffered == stats.in_flight == 0


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
def test_payload_is_not_accepted_by_a_closed_emitter_in_silence(hectic, emitter_class, method):
    """Each payload that races with `close` is either sent or counted as dropped."""
    taken = []
    emitter = emitter_class("collector.example.com", method=method, batch_size=3)
    emitter.http_post = lambda data: taken.append(data.count('"eid"')) or 200
    emitter.http_get = lambda payload: taken.append(1) or 200
    start = threading.Barrier(3)

    def track():
        start.wait()
        for number in range(200):
            emitter.input({"eid": str(number)})

    threads = [threading.Thread(target=track) for _ in range(2)]
    for thread in threads:
        thread.start()
    start.wait()
    assert emitter.close(timeout=PATIENCE_SECONDS)
    for thread in threads:
        thread.join(PATIENCE_SECONDS)

    stats = emitter.stats()
    assert stats.accepted + stats.dropped == 400
    assert sum(taken) == stats.delivered == stats.accepted
