"""What event stores cost: `python tests/benchmarks/stores.py [COUNT]` prints the figures of docs/stores.md.

Each store gets COUNT payloads of about a kilobyte, one by one, and then hands them out and forgets them. The one on
Redis needs redis-server.
"""

import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from redis_server import PROGRAM, RedisServer  # noqa: E402  # found by the line above

from snowplow_tracker import InMemoryEventStore, RedisEventStore, SQLiteEventStore  # noqa: E402

PAYLOAD = {
    "e": "ue",
    "p": "srv",
    "tv": "py-1.2.0",
    "tna": "shop",
    "aid": "web",
    "dtm": "1764000000000",
    "url": "https://shop.example/basket",
    "ue_px": "x" * 400,
    "cx": "x" * 380,
}


def payloads(count):
    return [{**PAYLOAD, "eid": f"6f1c3c1e-0000-4000-8000-{number:012d}"} for number in range(count)]


def measure(name, store, count, bytes_used=lambda: 0):
    """Print the microseconds per `add_event`, the payloads per second of a drain, and the bytes per payload."""
    batch = payloads(count)
    began_at = time.perf_counter()
    for payload in batch:
        store.add_event(payload)
    microseconds = (time.perf_counter() - began_at) / count * 1e6
    size = bytes_used() / count

    began_at = time.perf_counter()
    while True:
        handed_out = store.get_events_batch()
        if not handed_out:
            break
        store.cleanup(handed_out, False)
    rate = count / (time.perf_counter() - began_at)
    print(f"{name:32} {microseconds:8.1f} us/event {rate:10,.0f} payloads/s {size:8,.0f} bytes/payload", flush=True)


def measure_all(count, folder):
    measure("memory", InMemoryEventStore(buffer_capacity=count), count)
    for synchronous in ("off", "normal", "full"):
        path = folder / f"{synchronous}.db"
        store = SQLiteEventStore(path, synchronous=synchronous)
        measure(f"SQLite, synchronous={synchronous}", store, count, lambda path=path: path.stat().st_size)
        store.close()
    if PROGRAM is None:
        print("Redis: needs redis-server")
        return
    for kind, options in {
        "without a file": ["--appendonly", "no"],
        "appendfsync everysec": ["--appendonly", "yes", "--appendfsync", "everysec"],
        "appendfsync always": ["--appendonly", "yes", "--appendfsync", "always"],
    }.items():
        redis_folder = folder / kind.replace(" ", "-")
        redis_folder.mkdir()
        with RedisServer(redis_folder, *options) as server:
            server.start()
            before = server.client.info("memory")["used_memory"]
            store = RedisEventStore(server.url, timeout=10)
            used = lambda server=server, before=before: server.client.info("memory")["used_memory"] - before  # noqa: E731
            measure(f"Redis, {kind}", store, count, used)
            store.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        measure_all(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000, Path(folder))
