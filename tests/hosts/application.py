"""What the programs in this folder have in common: two trackers, and a file that says what they tracked."""

import logging
import os
from pathlib import Path

from snowplow_tracker import AsyncEmitter, Emitter, StructuredEvent, Tracker

logging.basicConfig(level=logging.WARNING)

# Made while the program is imported, so before any fork; and with batches that leave something waiting.
TRACKERS = [Tracker(kind.__name__, kind(os.environ["COLLECTOR"], batch_size=7)) for kind in (Emitter, AsyncEmitter)]


def track(label):
    for tracker in TRACKERS:
        tracker.track(StructuredEvent(category="host", action="track", label=str(label)))
    with Path(os.environ["TRACKED"]).open("a") as tracked:
        tracked.write(f"{label}\n")


def flush():
    for tracker in TRACKERS:
        tracker.flush()
