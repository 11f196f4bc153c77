"""What the processes do that are killed: `redis_process.py write|send URL NOTES ENDPOINT`.

Each notes the event ids that it is done with, one a line. What is noted is with the operating system, so it survives
the process.
"""

import itertools
import os
import sys
import threading
from pathlib import Path

from snowplow_tracker import Emitter, RedisEventStore

# How long a process may keep what was handed out to it, and how much that is: a killed one costs as many duplicates.
LEASE_SECONDS = 3.0
BATCH_SIZE = 50

_pause = threading.Event()


class StoreOfSmallBatches(RedisEventStore):
    """Hands out little, so that much is going on."""

    def get_events_batch(self, limit=None):
        return super().get_events_batch(BATCH_SIZE)


def write(store, note, endpoint):
    """Add payloads, and note those that were accepted."""
    for number in itertools.count():
        eid = f"{os.getpid()}-{number}"
        try:
            is_accepted = store.add_event({"e": "pv", "p": "srv", "tv": "test", "eid": eid})
        except Exception:
            is_accepted = False
        if is_accepted:
            note(eid)
        _pause.wait(0.005)


def send(store, note, endpoint):
    """Deliver whatever waits, and note what was delivered."""

    def on_success(payloads):
        for payload in payloads:
            note(payload["eid"])

    emitter = Emitter(endpoint, event_store=store, on_success=on_success, max_retry_delay_seconds=0.1)
    while True:
        emitter.sync_flush()
        _pause.wait(0.005)


if __name__ == "__main__":
    action, url, notes, endpoint = sys.argv[1:]
    with Path(notes).open("a", encoding="utf-8", buffering=1) as file:
        {"write": write, "send": send}[action](
            StoreOfSmallBatches(url, lease_seconds=LEASE_SECONDS), lambda eid: file.write(f"{eid}\n"), endpoint
        )
