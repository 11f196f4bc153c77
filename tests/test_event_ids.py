"""The ids of events are random UUIDs, whoever makes them, and however many."""

import os
import sys
import threading
import uuid
from types import SimpleNamespace

import pytest
from support import PATIENCE_SECONDS

from snowplow_tracker import _event_ids
from snowplow_tracker._event_ids import new_event_id


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    """Begin each test without a supply."""
    monkeypatch.setattr(_event_ids, "_supply", (0.0, []))


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(_event_ids, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def asked(monkeypatch):
    """How many bytes the system's source was asked for, each time."""
    sizes = []

    def urandom(size):
        sizes.append(size)
        return os.urandom(size)

    monkeypatch.setattr(_event_ids, "os", SimpleNamespace(urandom=urandom))
    return sizes


def test_id_is_a_random_uuid():
    """In the canonical text, of version 4 and the variant of the standard, with all digits that these leave in use."""
    ids = [new_event_id() for _ in range(1000)]

    assert all(str(uuid.UUID(id_)) == id_ for id_ in ids)
    assert {(uuid.UUID(id_).version, uuid.UUID(id_).variant) for id_ in ids} == {(4, uuid.RFC_4122)}
    used = [set(digits) for digits in zip(*ids)]
    assert used[19] == set("89ab")
    assert all(
        digits == set("0123456789abcdef") for place, digits in enumerate(used) if place not in (8, 13, 14, 18, 19, 23)
    )


def test_randomness_for_many_ids_is_asked_for_at_once(clock, asked):
    """After the first one, which may be the only one."""
    ids = [new_event_id() for _ in range(70)]

    assert asked == [16, 32 * 16, 32 * 16, 32 * 16]
    assert len(set(ids)) == 70


def test_randomness_is_not_kept(clock, asked):
    """An id that is needed later is of later; a single one costs no more than a single one."""
    for _ in range(2):
        new_event_id()
    for _ in range(3):
        clock.now += 0.01
        new_event_id()

    assert asked == [16, 32 * 16, 16, 16, 16]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_makes_ids_of_its_own(clock):
    """It has a copy of what the parent would have used next."""
    for _ in range(2):
        new_event_id()
    reading, writing = os.pipe()

    child = os.fork()
    if not child:
        os.write(writing, "\n".join(new_event_id() for _ in range(40)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        of_child = pipe.read().split("\n")

    assert len({*of_child, *(new_event_id() for _ in range(40))}) == 80


def test_threads_take_each_id_once(clock):
    """Whichever of them gets the randomness, and whoever takes it."""
    before = sys.getswitchinterval()
    batches = [[] for _ in range(8)]
    threads = [
        threading.Thread(target=lambda batch=batch: batch.extend(new_event_id() for _ in range(3000)))
        for batch in batches
    ]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    finally:
        sys.setswitchinterval(before)

    assert len({id_ for batch in batches for id_ in batch}) == 24_000
