"""An asyncio service that tracks whatever its collector does, and watches how its event loop gets on."""

import asyncio
import os
import time

from snowplow_tracker import AsyncEmitter, StructuredEvent, Tracker


async def beat(gaps_seconds):
    before = time.perf_counter()
    while True:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        gaps_seconds.append(now - before)
        before = now


async def main():
    tracker = Tracker("service", AsyncEmitter(os.environ["COLLECTOR"], batch_size=1))
    gaps_seconds = []
    heart = asyncio.ensure_future(beat(gaps_seconds))
    for number in range(100):
        tracker.track(StructuredEvent(category="host", action="track", label=str(number)))
        await asyncio.sleep(0)
    print("tracked", flush=True)
    beats = len(gaps_seconds)
    while len(gaps_seconds) < beats + 100:
        await asyncio.sleep(0.001)
    print(f"went on; the longest gap was {max(gaps_seconds) * 1000:.1f} ms", flush=True)
    heart.cancel()


asyncio.run(main())
