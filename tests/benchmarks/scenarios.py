"""Which workloads are run with which options, and the targets that they are held to."""

from typing import Any, Dict, List, NamedTuple, Tuple

from .figures import Target

__all__ = ["SCENARIOS", "TARGETS", "Scenario"]

_ASYNC = {"class": "AsyncEmitter"}
_LATENCY = {**_ASYNC, "events": 1500, "warm_up": 50, "pause": 0.001}
_STATES: Dict[str, Dict[str, Any]] = {
    "healthy": {},
    "slow": {"behaviour": {"delay": 0.2}},
    "refusing": {"port": "refusing"},
    "silent": {"behaviour": {"silent": 1}},
}


class Scenario(NamedTuple):
    """A workload with its options.

    Attributes:
        key: Its name in the results.
        title: What it is to the reader.
        workload: Name of the function in `workload.py`.
        options: What the function gets, besides the ports of the collector.
        rounds: How often it runs, alternating between the two libraries.
        quick: Options that make it short enough for a smoke run.
        is_ours_only: Whether there is nothing to compare.
        note: What the reader must know to understand the figures.
    """

    key: str
    title: str
    workload: str
    options: Dict[str, Any]
    rounds: int = 3
    quick: Dict[str, Any] = {}  # noqa: RUF012  # nobody changes it
    is_ours_only: bool = False
    note: str = ""


def _deliveries() -> List[Scenario]:
    both = [(protocol, {"protocol": protocol, "seconds": 2}) for protocol in ("http", "https")]
    quick = {"seconds": 0.5}
    bursts = {
        "http": {"burst": 10_000, "seconds": 3, "seconds_for_burst": 8},
        "https": {"burst": 2_000, "seconds": 2, "seconds_for_burst": 8},
    }
    unfinished = "1.1.0 does not deliver a burst in 8 s; its rate is that of what arrived by then"
    return [
        *(Scenario(f"emitter-{p}", f"`Emitter`, {p}", "deliver", options, 3, quick) for p, options in both),
        *(
            Scenario(
                f"session-{p}",
                f"`Emitter` with a `session`, {p}",
                "deliver",
                {**options, "session": True},
                3,
                quick,
            )
            for p, options in both
        ),
        Scenario(
            "emitter-get",
            "`Emitter`, GET, http",
            "deliver",
            {"seconds": 2, "emitter": {"method": "get"}},
            5,
            quick,
        ),
        *(
            Scenario(
                f"async-{protocol}",
                f"`AsyncEmitter`, {protocol}",
                "deliver_in_bursts",
                {**_ASYNC, "protocol": protocol, **bursts[protocol]},
                3,
                {"burst": 500, "seconds": 0.5, "seconds_for_burst": 2},
                note=f"bursts of {bursts[protocol]['burst']:,} events, each waited for at the collector"
                + ("; " + unfinished if protocol == "https" else ""),
            )
            for protocol in ("http", "https")
        ),
        Scenario(
            "async-get",
            "`AsyncEmitter`, GET, 10 threads, collector of 5 ms",
            "deliver_in_bursts",
            {
                **_ASYNC,
                "emitter": {"method": "get", "thread_count": 10},
                "behaviour": {"delay": 0.005},
                "burst": 1_000,
                "seconds": 2,
                "seconds_for_burst": 10,
            },
            3,
            {"burst": 200, "seconds": 0.5},
        ),
    ]


def _scales() -> List[Scenario]:
    return [
        Scenario(
            f"batch-{size}",
            f"`Emitter`, http, batches of {size}",
            "deliver",
            {"seconds": 1.5, "emitter": {"batch_size": size}},
            2,
            {"seconds": 0.3},
            is_ours_only=True,
        )
        for size in (1, 10, 50, 250, 1000)
    ]


SCENARIOS: Tuple[Scenario, ...] = (
    *(
        Scenario(
            f"track-{kind}",
            f"`track` alone, {kind}",
            "track_alone",
            {"kind": kind, "events": 30_000},
            5,
            {"events": 5_000},
            note="an event is built and tracked, with an emitter that does nothing",
        )
        for kind in ("structured", "self-describing")
    ),
    *_deliveries(),
    *(
        Scenario(
            f"latency-{state}",
            f"`track` with `AsyncEmitter`, collector {state}",
            "latency",
            {**_LATENCY, **more},
            3,
            {"events": 300},
            note="an event each millisecond",
        )
        for state, more in _STATES.items()
    ),
    *(
        Scenario(
            f"outage-{name}",
            f"`{name}` in an outage of 3 s",
            "outage",
            {"class": name, "events_per_second": 1000, "seconds": 3},
            3,
            {"seconds": 1},
            note="the collector answers 503 to each request; 1,000 events are tracked per second",
        )
        for name in ("AsyncEmitter", "Emitter")
    ),
    Scenario("put-back", "8,000 payloads go back to the store", "put_back", {"events": 8_000}, 3, {"events": 2_000}),
    Scenario(
        "fail-large-batch",
        "a batch of 8,000 fails: encode, settle, put back",
        "fail_large_batch",
        {"events": 8_000},
        3,
        {"events": 2_000},
    ),
    *(
        Scenario(
            f"memory-{kind}",
            f"a {kind} event waits",
            "memory",
            {"kind": kind, "events": 4_000},
            1,
            {"events": 1_000},
        )
        for kind in ("structured", "self-describing")
    ),
    Scenario("import", "`import snowplow_tracker`", "import_time", {"times": 5}, 5, {"times": 2}),
    *(
        Scenario(
            f"stages-{kind}",
            f"the way of a {kind} event",
            "stages",
            {"kind": kind, "events": 8_000},
            3,
            {"events": 2_000},
        )
        for kind in ("structured", "self-describing")
    ),
    Scenario("floors", "what nobody gets around", "floors", {"events": 10_000}, 2, {"events": 2_000}, True),
    Scenario(
        "many-events",
        "cost of an event among more and more",
        "many_events",
        {"limits": [1_000, 10_000, 100_000, 1_000_000]},
        1,
        {"limits": [1_000, 10_000, 50_000]},
        is_ours_only=True,
        note="mixed events through an `Emitter` whose `http_post` is a function that returns 200",
    ),
    Scenario(
        "many-waiting",
        "cost of an event with more and more waiting",
        "many_waiting",
        {"waiting": [1, 10, 100, 1_000, 10_000], "turns": 40},
        1,
        {"turns": 10},
        is_ours_only=True,
    ),
    *_scales(),
    Scenario(
        "store-only",
        "`StoreOnlyEmitter` on a SQLite file",
        "store_only",
        {"events": 2_000},
        2,
        {"events": 500},
        is_ours_only=True,
    ),
)

_FLAT = 1.25

TARGETS: Tuple[Target, ...] = (
    Target("track-structured", "cost", 1.3, at_least=True),
    Target("track-self-describing", "cost", 1.3, at_least=True),
    Target("emitter-http", "events per second", 2, at_least=True),
    Target("emitter-https", "events per second", 20, at_least=True),
    Target("async-http", "events per second", 4, at_least=True),
    Target("async-https", "events per second", 40, at_least=True),
    Target("emitter-get", "events per second", 1.5, at_least=True),
    Target("async-get", "events per second", 1.5, at_least=True),
    Target("outage-AsyncEmitter", "requests", 1 / 50),
    Target("put-back", "milliseconds", 100, at_least=True),
    Target("memory-structured", "bytes", 1),
    Target("memory-self-describing", "bytes", 1),
    Target("import", "milliseconds", 1),
    Target("latency-silent", "p99", 10, over="p50"),
    Target("latency-refusing", "p99", 10, over="p50"),
    Target("many-events", "up to 1,000,000", _FLAT, over="up to 1,000"),
    Target("many-waiting", "10,000 waiting", _FLAT, over="1 waiting"),
)
