"""What becomes of payloads in Redis when processes, and Redis itself, are killed at any moment."""

import itertools
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from support import eids, eventually

redis = pytest.importorskip("redis", reason="needs redis-py, of the extra redis")

from redis_process import BATCH_SIZE  # noqa: E402  # what follows needs redis-py, too
from redis_server import DURABLE, PROGRAM, RedisServer  # noqa: E402

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(PROGRAM is None, reason="needs redis-server, of the distribution's package of that name"),
    pytest.mark.skipif(os.name != "posix", reason="the platform has no signal that kills"),
]

WRITERS = 4
SENDERS = 2
LEAST_DELIVERED = 100
KEY = "snowplow:events"


class Processes:
    """Writers and senders that are killed and followed by others, as if on machines that crash."""

    def __init__(self, server, collector, folder):
        self._arguments = (server.url, collector.url)
        self._folder = folder
        self._numbers = itertools.count()
        self._living = {}
        self.kills = Counter()

    def start(self, action):
        url, endpoint = self._arguments
        notes = self._folder / f"{action}-{next(self._numbers)}"
        program = str(Path(__file__).with_name("redis_process.py"))
        process = subprocess.Popen([sys.executable, program, action, url, str(notes), endpoint])
        self._living[process] = (action, notes)

    def kill(self, process):
        action, _ = self._living.pop(process)
        process.kill()
        assert process.wait() < 0, "a process ended by itself, see stderr"
        self.kills[action] += 1
        return action

    def kill_one(self, choose):
        """Kill any one of them as soon as it is at work, at a moment of its work that nobody knows."""
        process = choose(list(self._living))
        _, notes = self._living[process]
        eventually(lambda: process.poll() is not None or (notes.exists() and notes.stat().st_size))
        threading.Event().wait(choose(range(100)) / 1000)
        self.start(self.kill(process))

    def kill_all(self, action=None):
        for process, (its_action, _) in list(self._living.items()):
            if action in (None, its_action):
                self.kill(process)

    def noted(self, action):
        """Return what was noted; the last line may lack its end."""
        files = self._folder.glob(f"{action}-*")
        return {line for file in files for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")}


def crash(tmp_path, collector, kills, restarts, seed):
    """Kill processes, and Redis now and then in between.

    Returns:
        How often each payload was delivered.
    """
    choose = random.Random(seed).choice
    with RedisServer(tmp_path, *DURABLE) as server:
        server.start()
        processes = Processes(server, collector, tmp_path)
        try:
            for action in ["write"] * WRITERS + ["send"] * SENDERS:
                processes.start(action)
            for number in range(kills):
                processes.kill_one(choose)
                if number % (kills // restarts) == kills // restarts // 2:
                    server.restart()
            eventually(lambda: len(set(eids(collector.payloads))) > LEAST_DELIVERED)
            processes.kill_all("write")
            eventually(lambda: server.client.xlen(KEY) == 0)
        finally:
            processes.kill_all()

    accepted = {line.rstrip() for line in processes.noted("write")}
    delivered = Counter(eids(collector.payloads))
    unnoted = set(delivered) - accepted
    duplicates = sum(delivered.values()) - len(delivered)
    print(
        f"{processes.kills}, {restarts} restarts, accepted {len(accepted)}, not noted {len(unnoted)}, "
        f"delivered {len(delivered)}, duplicates {duplicates}"
    )
    assert accepted - set(delivered) == set()
    # What a writer did not come to note was one payload each time, and what a sender did not come to settle a batch.
    assert len(unnoted) <= processes.kills["write"] + WRITERS * restarts
    assert duplicates <= BATCH_SIZE * (processes.kills["send"] + SENDERS * restarts)
    return delivered


def test_killed_processes_lose_nothing(tmp_path, collector):
    """Whatever is killed, what was accepted is delivered; twice only what was in flight at a kill."""
    delivered = crash(tmp_path, collector, kills=5, restarts=1, seed=1)

    assert len(delivered) > LEAST_DELIVERED


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_processes_that_are_killed_hundreds_of_times_lose_nothing(tmp_path, collector):
    """The same for longer, at other moments each time."""
    delivered = crash(tmp_path, collector, kills=400, restarts=10, seed=None)

    assert len(delivered) > 10_000
