"""What is left of payloads in a SQLite file when the processes that write and send them are killed at any moment."""

import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from support import eventually

from snowplow_tracker import Emitter, SQLiteEventStore
from snowplow_tracker.testing import LocalCollector

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork"),
]

# Forks a process for each line that it reads, so that hundreds of them start in little time.
STAGE = """
import os, signal, sys
from snowplow_tracker import Emitter, SQLiteEventStore

path, folder, url = sys.argv[1:]

def note(*words):
    # What is written outlives the process.
    os.write(notes, (" ".join(words) + "\\n").encode())

class NotingEmitter(Emitter):
    def send_events(self, batch):
        note("sends", *[payload["eid"] for payload in batch])
        super().send_events(batch)
        note("settled")

def write(name):
    emitter = Emitter(url, batch_size=10**9, event_store=SQLiteEventStore(path, timeout=30))
    number = 0
    while os.getppid() == stage:
        eid = f"{name}-{number}"
        emitter.input({"e": "pv", "p": "srv", "tv": "test", "eid": eid, "co": "x" * 500})
        number += 1
        note(eid if emitter.stats().accepted == number else "refused")

def send(name):
    emitter = NotingEmitter(url, batch_size=10**9, event_store=SQLiteEventStore(path, timeout=30))
    while os.getppid() == stage:
        emitter.sync_flush()

stage = os.getpid()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    role, name = line.split()
    pid = os.fork()
    if pid == 0:
        try:
            notes = os.open(f"{folder}/{name}.notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            {"writer": write, "sender": send}[role](name)
        finally:
            os._exit(1)
    print(pid, flush=True)
"""


class Player(NamedTuple):
    """A process that writes or sends."""

    role: str
    pid: int
    notes: Path

    def noted_bytes(self):
        return self.notes.stat().st_size if self.notes.exists() else 0

    def is_there(self):
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


class Cast:
    """Processes that play their parts on one file, each replaced by another when it is killed."""

    def __init__(self, folder, url):
        self.path = folder / "events.db"
        self.folder = folder
        self.kills = {"writer": 0, "sender": 0}
        self.players = []
        self.longest_log = 0
        self._names = itertools.count()
        self._stage = subprocess.Popen(
            [sys.executable, "-c", STAGE, str(self.path), str(folder), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
        )

    def start(self, role):
        name = f"{role}-{next(self._names)}"
        self._stage.stdin.write(f"{role} {name}\n")
        self._stage.stdin.flush()
        self.players.append(Player(role, int(self._stage.stdout.readline()), self.folder / f"{name}.notes"))

    def kill(self, player):
        os.kill(player.pid, signal.SIGKILL)
        eventually(lambda: not player.is_there())
        self.players.remove(player)
        self.kills[player.role] += 1

    def kill_at_random(self, times, chance):
        """Kill one after the other, each when it has got on for a random while."""
        for _ in range(times):
            player = chance.choice(self.players)
            eventually(player.noted_bytes)
            self._wait_until(player, player.noted_bytes() + chance.randrange(20_000))
            self.longest_log = max(self.longest_log, log_bytes(self.path))
            self.kill(player)
            self.start(player.role)

    def _wait_until(self, player, noted_bytes):
        # A sender that finds nothing to send notes nothing.
        looks = itertools.count()
        eventually(lambda: player.noted_bytes() >= noted_bytes or next(looks) >= 20)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for player in list(self.players):
            self.kill(player)
        self._stage.stdin.close()
        self._stage.wait()
        self._stage.stdout.close()

    def accepted(self):
        return [eid for notes in self.folder.glob("writer-*.notes") for eid in whole_lines(notes)]

    def in_flight_at_kills(self):
        """What each sender was sending when it was killed."""
        last = [(whole_lines(notes) or ["settled"])[-1].split() for notes in self.folder.glob("sender-*.notes")]
        return [eid for line in last if line[0] == "sends" for eid in line[1:]]


def whole_lines(notes):
    return notes.read_text().split("\n")[:-1]


def log_bytes(path):
    log = path.with_name(f"{path.name}-wal")
    return log.stat().st_size if log.exists() else 0


def drain(path, url):
    """Send all that is left, as the next process does that starts."""
    store = SQLiteEventStore(path)
    emitter = Emitter(url, batch_size=10**9, event_store=store)
    while store.size():
        emitter.sync_flush()
    emitter.close()
    store.close()


def rows_left(path):
    connection = sqlite3.connect(str(path))
    left = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("payload", "claim")]
    healthy = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()
    return left, healthy


@pytest.mark.parametrize(
    ("writers", "senders", "kills"),
    [
        pytest.param(4, 2, 20, id="some"),
        pytest.param(4, 2, 400, id="hundreds", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
)
def test_nothing_is_lost_when_processes_are_killed(tmp_path, writers, senders, kills):
    """What was accepted is delivered, and twice only what a sender had in flight when it was killed."""
    with LocalCollector() as collector:
        with Cast(tmp_path, collector.url) as cast:
            for role in ["writer"] * writers + ["sender"] * senders:
                cast.start(role)
            cast.kill_at_random(kills, random.Random(kills))
        drain(cast.path, collector.url)
        delivered = [payload["eid"] for payload in collector.payloads]

    accepted, in_flight = cast.accepted(), cast.in_flight_at_kills()
    twice = {eid for eid, count in counted(delivered).items() if count > 1}
    print(
        json.dumps(
            {
                "kills": cast.kills,
                "accepted": len(accepted),
                "delivered": len(set(delivered)),
                "twice": len(twice),
                "in flight at kills": len(in_flight),
                "longest log": cast.longest_log,
            }
        )
    )
    assert "refused" not in accepted
    assert set(accepted) - set(delivered) == set()
    # A writer may be killed after an event was accepted and before that was noted.
    assert len(set(delivered) - set(accepted)) <= cast.kills["writer"]
    assert twice <= set(in_flight)
    assert max(counted(delivered).values()) <= 1 + max(counted(in_flight).values(), default=0)
    assert rows_left(cast.path) == ([0, 0], "ok")
    assert list(tmp_path.glob("*.corrupt-*")) == []


def counted(items):
    counts = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return counts
