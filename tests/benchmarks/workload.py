"""What is measured: one workload in a fresh interpreter, with whichever library is installed there.

`python workload.py NAME OPTIONS` runs a workload with options in JSON, and prints its figures in JSON. Everything here
works with 1.1.0 as it does with this library: the workloads do what an application does, through the public interface,
with the defaults unless the options say otherwise.
"""

import gc
import json
import os
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from typing import Any, Callable, Dict, List, Tuple
from urllib.request import ProxyHandler, build_opener

import snowplow_tracker

__all__ = ["WORKLOADS"]

Figures = Dict[str, float]
_ORDER = {
    "orderId": "c0a8-2025-11-000017",
    "total": 59.9,
    "currency": "EUR",
    "items": [{"sku": "B-7", "quantity": 2}, {"sku": "K-31", "quantity": 1}],
}
_USER = {"id": "u-17", "plan": "professional", "since": 2019, "newsletter": True}
_IMPORT = """
import time
wall, cpu = time.perf_counter(), time.process_time()
import snowplow_tracker
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


class _Nowhere:
    """An emitter that drops what it gets: what is left is the cost of the tracker."""

    def input(self, payload: Any) -> None:
        pass

    def flush(self) -> None:
        pass


class _Collector:
    """The other side, as a workload sees it."""

    def __init__(self, ports: Dict[str, int]) -> None:
        self._url = f"http://127.0.0.1:{ports['control']}"
        self._open = build_opener(ProxyHandler({})).open

    def begin(self, **behaviour: Any) -> None:
        self._ask("begin", **behaviour)

    def counts(self) -> Dict[str, int]:
        return self._ask("counts")

    def wait(self, events: int, seconds: float) -> Dict[str, int]:
        return self._ask("wait", events=events, seconds=seconds)

    def _ask(self, path: str, **query: Any) -> Dict[str, int]:
        text = "&".join(f"{name}={value}" for name, value in query.items())
        with self._open(f"{self._url}/{path}?{text}", timeout=60) as answer:
            counts: Dict[str, int] = json.load(answer)
        return counts


def structured(number: int) -> Any:
    return snowplow_tracker.StructuredEvent("shop", "add-to-basket", label="web", property_="pcs", value=number)


def self_describing(number: int) -> Any:
    """Make an event with data of its own and one entity, which go out in Base64 by default."""
    order = snowplow_tracker.SelfDescribingJson(
        "iglu:com.acme/order_placed/jsonschema/1-0-0", {**_ORDER, "number": number}
    )
    user = snowplow_tracker.SelfDescribingJson("iglu:com.acme/user/jsonschema/1-2-0", _USER)
    return snowplow_tracker.SelfDescribing(order, context=[user])


def mixed(number: int) -> Any:
    """Make the two kinds in turn."""
    return self_describing(number) if number % 2 else structured(number)


KINDS: Dict[str, Callable[[int], Any]] = {
    "structured": structured,
    "self-describing": self_describing,
    "mixed": mixed,
}


def _tracker(emitter: Any) -> Any:
    return snowplow_tracker.Tracker("benchmark", emitter, app_id="benchmark")


def _emitter(options: Dict[str, Any], **more: Any) -> Any:
    protocol = options.get("protocol", "http")
    given = {**options.get("emitter", {}), **more}
    if options.get("session"):
        import requests

        given["session"] = requests.Session()
    port = options["ports"][options.get("port", protocol)]
    return getattr(snowplow_tracker, options.get("class", "Emitter"))(
        "127.0.0.1", protocol=protocol, port=port, **given
    )


def _cost_per_event(act: Callable[[int], object], count: int, at_a_time: int = 500) -> float:
    """Return the median of the microseconds of CPU that a call takes, over so many at a time."""
    act(0)
    costs = []
    for start in range(0, count, at_a_time):
        before = time.process_time()
        for number in range(start, start + at_a_time):
            act(number)
        costs.append(time.process_time() - before)
    return sorted(costs)[len(costs) // 2] / at_a_time * 1e6


def track_alone(options: Dict[str, Any]) -> Figures:
    """Build an event and track it, with an emitter that does nothing."""
    kind = KINDS[options["kind"]]
    track = _tracker(_Nowhere()).track
    return {"cost": _cost_per_event(lambda number: track(kind(number)), options["events"])}


def stages(options: Dict[str, Any]) -> Figures:
    """Go the way of an event a bit further each time."""
    make, count = KINDS[options["kind"]], options["events"]
    nowhere = _tracker(_Nowhere())
    subject, track = nowhere.subject, nowhere.track
    buffer = _tracker(_emitter(options, batch_size=10**6, buffer_capacity=10**6)).track
    emitter = _emitter(options)
    emitter.http_post = lambda data: 200
    send = _tracker(emitter).track
    return {
        "make the event": _cost_per_event(make, count),
        "and build its payload": _cost_per_event(lambda number: make(number).build_payload(True, None, subject), count),
        "and complete it (`track`)": _cost_per_event(lambda number: track(make(number)), count),
        "and buffer it": _cost_per_event(lambda number: buffer(make(number)), count),
        "and send it, but for the HTTP exchange": _cost_per_event(lambda number: send(make(number)), count),
    }


def floors(options: Dict[str, Any]) -> Figures:
    """Do what no library gets around, in the barest way."""
    import http.client

    import requests

    count = options["events"]
    encode = json.JSONEncoder(separators=(",", ":")).encode
    entity = {"schema": "iglu:com.acme/user/jsonschema/1-2-0", "data": _USER}
    order = {"schema": "iglu:com.acme/order_placed/jsonschema/1-0-0", "data": _ORDER}
    texts = [encode({"schema": "iglu:x", "data": data}).encode("ascii") for data in ([entity], order)]
    fields = {
        "e": "ue", "p": "pc", "tv": "py-1.2.0", "tna": "benchmark", "aid": "benchmark", "eid": str(uuid.uuid4()),
        "dtm": "1763900000000", "stm": "1763900000000", **{name: urlsafe_b64encode(text).decode("ascii")
                                                           for name, text in zip(("cx", "ue_px"), texts)},
    }  # fmt: skip
    body = encode({"schema": "iglu:x", "data": [fields] * 10})
    session = requests.Session()
    url = f"http://127.0.0.1:{options['ports']['http']}/com.snowplowanalytics.snowplow/tp2"
    bare = http.client.HTTPConnection("127.0.0.1", options["ports"]["http"])

    def exchange() -> None:
        bare.request("POST", "/com.snowplowanalytics.snowplow/tp2", body, {"Content-Type": "application/json"})
        bare.getresponse().read()

    return {
        "16 random bytes": _cost_per_event(lambda number: os.urandom(16).hex(), count),
        "uuid.uuid4": _cost_per_event(lambda number: str(uuid.uuid4()), count),
        "json of event and entity": _cost_per_event(lambda number: (encode([entity]), encode(order)), count),
        "base64": _cost_per_event(lambda number: [urlsafe_b64encode(text).decode() for text in texts], count),
        "json of the payload": _cost_per_event(lambda number: encode(fields), count),
        "request through http.client": _cost_per_event(lambda number: exchange(), 1000, at_a_time=100),
        "request through a session": _cost_per_event(
            lambda number: session.post(url, data=body, headers={"Content-Type": "application/json"}, timeout=10),
            1000,
            at_a_time=100,
        ),
    }


def deliver(options: Dict[str, Any]) -> Figures:
    """Track for some seconds with an emitter that sends in the same thread."""
    collector = _Collector(options["ports"])
    collector.begin(**options.get("behaviour", {}))
    make = KINDS[options.get("kind", "mixed")]
    batch_size = options.get("emitter", {}).get("batch_size", 10)
    tracker = _tracker(_emitter(options))
    track, number = tracker.track, 0
    started, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < options["seconds"]:
        for _ in range(batch_size):
            number += 1
            track(make(number))
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    return _rates(collector.counts(), elapsed, cpu, number)


def deliver_in_bursts(options: Dict[str, Any]) -> Figures:
    """Track bursts as fast as it goes, with an emitter that sends in threads, and wait until each has arrived.

    What has not arrived when the time for one burst is over is not waited for; the rate is that of what has.
    """
    collector = _Collector(options["ports"])
    collector.begin(**options.get("behaviour", {}))
    make = KINDS[options.get("kind", "mixed")]
    emitter = _emitter(options)
    burst, track = options["burst"], _tracker(emitter).track
    # An `AsyncEmitter` of this library sends all that waits, so fewer than a batch may be left in the end. They would
    # wait for the next event or a flush in an application, too.
    left = emitter.batch_size - 1
    total, counts = 0, collector.counts()
    started, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < options["seconds"] and counts["events"] >= total - left:
        for number in range(burst):
            track(make(number))
        total += burst
        counts = collector.wait(total - left, options["seconds_for_burst"])
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    return _rates(counts, elapsed, cpu, total)


def _rates(counts: Dict[str, int], elapsed: float, cpu: float, tracked: int) -> Figures:
    events = max(1, counts["events"])
    return {
        "events per second": events / elapsed,
        "CPU per event": cpu / events * 1e6,
        "bytes per event": counts["bytes"] / events,
        "events per request": events / max(1, counts["requests"]),
        "share delivered": events / tracked,
    }


def latency(options: Dict[str, Any]) -> Figures:
    """Track like an application that has something else to do in between, and look at the time of each call."""
    collector = _Collector(options["ports"])
    collector.begin(**options.get("behaviour", {}))
    track = _tracker(_emitter(options)).track
    events = [mixed(number) for number in range(options["events"])]
    times = []
    for event in events[: options["warm_up"]]:
        track(event)
    for event in events:
        time.sleep(options["pause"])
        before = time.perf_counter()
        track(event)
        times.append(time.perf_counter() - before)
    times.sort()
    return {
        "p50": times[len(times) // 2] * 1e6,
        "p99": times[len(times) * 99 // 100] * 1e6,
        "max": times[-1] * 1e6,
    }


def outage(options: Dict[str, Any]) -> Figures:
    """Track steadily while the collector answers with errors, and count what that costs it."""
    collector = _Collector(options["ports"])
    collector.begin(status=503)
    track = _tracker(_emitter(options)).track
    started, number = time.perf_counter(), 0
    while time.perf_counter() - started < options["seconds"]:
        if number < (time.perf_counter() - started) * options["events_per_second"]:
            number += 1
            track(mixed(number))
        else:
            time.sleep(0.0005)
    counts = collector.counts()
    return {"requests": counts["requests"], "megabytes": counts["bytes"] / 1e6, "tracked": number}


def put_back(options: Dict[str, Any]) -> Figures:
    """Give a batch back to the store in memory, as a failed request does."""
    import logging

    from snowplow_tracker.event_store import InMemoryEventStore

    store = InMemoryEventStore(logger=logging.getLogger("benchmark"), buffer_capacity=options["events"])
    for payload in _payloads("mixed", options["events"]):
        store.add_event(payload)
    batch = store.get_events_batch()
    started = time.perf_counter()
    store.cleanup(batch, True)
    elapsed = time.perf_counter() - started
    assert store.size() == options["events"]
    return {"milliseconds": elapsed * 1e3}


def fail_large_batch(options: Dict[str, Any]) -> Figures:
    """The same with all around it: take, encode, fail, put back."""
    count = options["events"]
    emitter = _emitter(options, batch_size=count + 1, buffer_capacity=count + 1)
    emitter.http_post = lambda data: 503
    for payload in _payloads("mixed", count):
        emitter.input(payload)
    batch = emitter.event_store.get_events_batch()
    started = time.perf_counter()
    emitter.send_events(batch)
    elapsed = time.perf_counter() - started
    assert emitter.event_store.size() == count
    return {"milliseconds": elapsed * 1e3}


def memory(options: Dict[str, Any]) -> Figures:
    """Let events wait, and look at what they occupy."""
    import tracemalloc

    make, count = KINDS[options["kind"]], options["events"]
    track = _tracker(_emitter(options, batch_size=count * 2, buffer_capacity=count * 2)).track
    for number in range(100):
        track(make(number))
    gc.collect()
    tracemalloc.start()
    for number in range(count):
        track(make(number))
    gc.collect()
    return {"bytes": tracemalloc.get_traced_memory()[0] / count}


def import_time(options: Dict[str, Any]) -> Figures:
    walls, cpus = [], []
    for _ in range(options["times"]):
        output = subprocess.check_output([sys.executable, "-c", _IMPORT], text=True)
        wall, cpu = map(float, output.split())
        walls.append(wall)
        cpus.append(cpu)
    middle = len(walls) // 2
    return {"milliseconds": sorted(walls)[middle] * 1e3, "CPU milliseconds": sorted(cpus)[middle] * 1e3}


def many_events(options: Dict[str, Any]) -> Figures:
    """Deliver to a collector that is a function, for so long that anything that grows shows."""
    emitter = _emitter(options)
    emitter.http_post = lambda data: 200
    track, figures, done = _tracker(emitter).track, {}, 0
    for number in range(500):
        track(mixed(number))
    for limit in options["limits"]:
        # The median over equal parts, lest a disturbance in one of them looks like growth.
        parts: List[float] = []
        size = max(500, (limit - done) // 20)
        while done < limit:
            before = time.process_time()
            for number in range(size):
                track(mixed(number))
            parts.append((time.process_time() - before) / size * 1e6)
            done += size
        figures[f"up to {limit:,}"] = sorted(parts)[len(parts) // 2]
    return figures


def many_waiting(options: Dict[str, Any]) -> Figures:
    """Track into buffers in which more and more waits, in turns, so that a disturbance hits them all."""
    at_a_time = 200
    trackers: List[Tuple[int, Any]] = []
    for waiting in options["waiting"]:
        capacity = waiting + at_a_time * options["turns"] + 1
        emitter = _emitter(options, batch_size=capacity, buffer_capacity=capacity)
        for payload in _payloads("mixed", waiting):
            emitter.input(payload)
        trackers.append((waiting, _tracker(emitter)))
    costs: Dict[int, List[float]] = {waiting: [] for waiting, _ in trackers}
    for _ in range(options["turns"]):
        for waiting, tracker in trackers:
            before = time.process_time()
            for number in range(at_a_time):
                tracker.track(mixed(number))
            costs[waiting].append((time.process_time() - before) / at_a_time * 1e6)
    return {f"{waiting:,} waiting": sorted(parts)[len(parts) // 2] for waiting, parts in costs.items()}


def store_only(options: Dict[str, Any]) -> Figures:
    """Put events into a file that other processes send from, one at a time, as a web application does."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        track = _tracker(
            snowplow_tracker.StoreOnlyEmitter(f"sqlite:///{folder}/events.db?buffer_capacity=1000000")
        ).track
        started = time.perf_counter()
        cost = _cost_per_event(lambda number: track(mixed(number)), options["events"])
        elapsed = time.perf_counter() - started
    return {"CPU per event": cost, "events per second": options["events"] / elapsed}


def _payloads(kind: str, count: int) -> List[Dict[str, Any]]:
    """Give the payloads of so many events, as an emitter gets them."""
    payloads: List[Dict[str, Any]] = []
    keeping = _Nowhere()
    keeping.input = payloads.append  # type: ignore[method-assign]
    track = _tracker(keeping).track
    for number in range(count):
        track(KINDS[kind](number))
    return payloads


WORKLOADS: Dict[str, Callable[[Dict[str, Any]], Figures]] = {
    workload.__name__: workload
    for workload in (
        deliver,
        deliver_in_bursts,
        fail_large_batch,
        floors,
        import_time,
        latency,
        many_events,
        many_waiting,
        memory,
        outage,
        put_back,
        stages,
        store_only,
        track_alone,
    )
}

if __name__ == "__main__":
    print(json.dumps(WORKLOADS[sys.argv[1]](json.loads(sys.argv[2]))), flush=True)
    # What still waits or hangs is of no interest any more.
    os._exit(0)
