"""The command that sends what waits in a store, on real files and a real redis-server, stopped in every way."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from commands import DEAD_URL, LIMIT_SECONDS, end, environment, run, running
from support import eids, eventually, numbered

from snowplow_tracker import SQLiteEventStore
from snowplow_tracker._cli import forward as forward_command, main
from snowplow_tracker._store_url import event_store_from_url
from snowplow_tracker.testing import Answer, LocalCollector

pytestmark = pytest.mark.thorough

sends_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of Unix")

TRACKING = """
import sys
from snowplow_tracker import PageView, StoreOnlyEmitter, Tracker

with Tracker("cron", StoreOnlyEmitter(sys.argv[1])) as tracker:
    for number in range(50):
        tracker.track(PageView(page_url=f"https://shop.example/{number}"))
"""


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    """A redis-server for all tests of this module."""
    pytest.importorskip("redis")
    redis_server = pytest.importorskip("redis_server")
    if redis_server.PROGRAM is None:
        pytest.skip("needs redis-server")
    with redis_server.RedisServer(tmp_path_factory.mktemp("redis")) as server:
        server.start()
        yield server


@pytest.fixture
def server(shared_server):
    """That server, running and without data."""
    shared_server.client.flushall()
    yield shared_server
    shared_server.restart()


@pytest.fixture
def file_url(tmp_path):
    return f"sqlite:///{tmp_path}/events.db?synchronous=off"


@pytest.fixture(params=["sqlite", "redis"])
def url(request):
    """The URL of a store that is empty."""
    if request.param == "sqlite":
        return request.getfixturevalue("file_url")
    request.getfixturevalue("shared_server").client.flushall()
    return f"{request.getfixturevalue('shared_server').url}?timeout=10"


def fill(url, count, start=0, **more):
    """Have another process leave payloads in a store."""
    store = event_store_from_url(url)
    # Thousands of them at once, as if they came back to be sent again.
    for first in range(start, start + count, 5_000):
        batch = numbered(min(5_000, start + count - first), first)
        store.cleanup([{**payload, **more} for payload in batch], True)
    store.close()


def waiting(url):
    store = event_store_from_url(url)
    try:
        return store.size()
    finally:
        store.close()


def forwarding(url, collector, *arguments, **options):
    return running("forward", "--store", url, "--endpoint", collector.url, *arguments, **options)


def all_of(count):
    return eids(numbered(count))


def arrived(collector):
    return sorted(eids(collector.payloads), key=int)


def started(collector, waiting=0):
    return (
        f"snowplow-tracker: forwarding to {collector.url}/com.snowplowanalytics.snowplow/tp2; "
        f"{waiting} wait in the store\n"
    )


@pytest.fixture
def forward_once(collector, capsys):
    """Forward in this process; return the exit code, and the lines on stdout and stderr."""

    def command(url, *arguments):
        exit_code = main(["forward", "--store", url, "--endpoint", collector.url, "--once", *arguments])
        output = capsys.readouterr()
        return exit_code, output.out, [line[len("snowplow-tracker: ") :] for line in output.err.splitlines()]

    return command


@sends_signals
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_backlog_is_sent_in_its_order(url, collector, number):
    """All that waits is delivered, each payload once, oldest first; a signal ends it with a sum and exit code 0."""
    fill(url, 2_500)

    with forwarding(url, collector) as process:
        collector.wait_for_payloads(2_500, LIMIT_SECONDS)
        outcome = end(process, number)

    assert outcome == (0, "delivered 2500, rejected 0, left 0 in the store\n", started(collector, 2_500))
    assert eids(collector.payloads) == all_of(2_500)
    assert waiting(url) == 0


@sends_signals
def test_what_other_processes_put_in_is_sent(url, collector):
    """A process that must not send puts events into the store while a forwarder runs, which sends them."""
    assert waiting(url) == 0
    with running(
        "forward", env=environment(SNOWPLOW_STORE=url, SNOWPLOW_ENDPOINT=collector.url, http_proxy=DEAD_URL)
    ) as process:
        told = process.stderr.readline()
        subprocess.run([sys.executable, "-c", TRACKING, url], timeout=LIMIT_SECONDS, check=True, env=environment())
        payloads = collector.wait_for_payloads(50, LIMIT_SECONDS)
        outcome = end(process, signal.SIGTERM)

    assert told == started(collector)
    assert outcome == (0, "delivered 50, rejected 0, left 0 in the store\n", "")
    assert [payload["url"] for payload in payloads] == [f"https://shop.example/{number}" for number in range(50)]


@sends_signals
def test_two_forwarders_share_a_store(url, collector):
    """Both send at the same time, and each payload is sent by one of them."""
    fill(url, 5_000)
    released = threading.Event()
    collector.respond_with(Answer(hold=released), Answer(hold=released))

    with forwarding(url, collector) as one, forwarding(url, collector) as other:
        # Each has one request under way at a time.
        collector.wait_for_requests(2, LIMIT_SECONDS)
        released.set()
        collector.wait_for_payloads(5_000, LIMIT_SECONDS)
        outcomes = [end(process, signal.SIGTERM)[:2] for process in (one, other)]

    # What the first one leaves is under way at the other.
    counts = [int(re.fullmatch(r"delivered (\d+), rejected 0, left \d+ in the store\n", out)[1]) for _, out in outcomes]
    assert [code for code, _ in outcomes] == [0, 0]
    assert min(counts) > 0
    assert sum(counts) == 5_000
    assert arrived(collector) == all_of(5_000)


@sends_signals
def test_sigterm_leaves_the_rest_to_the_next(url, collector):
    """What is under way is waited for, and the rest stays for the next run; nothing comes twice."""
    fill(url, 3_000)
    released = threading.Event()
    collector.respond_with(200, Answer(hold=released))

    with forwarding(url, collector) as process:
        collector.wait_for_requests(2, LIMIT_SECONDS)
        process.send_signal(signal.SIGTERM)
        released.set()
        outcome = end(process, signal.SIGCONT)
    first_run = len(collector.payloads)
    again = run("forward", "--once", "--store", url, "--endpoint", collector.url)

    assert outcome[:2] == (0, f"delivered {first_run}, rejected 0, left {3_000 - first_run} in the store\n")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == f"delivered {3_000 - first_run}, rejected 0, left 0 in the store\n"
    assert eids(collector.payloads) == all_of(3_000)


@sends_signals
def test_collector_that_is_down_at_the_start_is_waited_for(url, collector):
    """The outage is told in a line, payloads stay in the store, and the recovery is told, too."""
    fill(url, 100)
    collector.refuse_connections()

    with forwarding(url, collector) as process:
        process.stderr.readline()
        failed = process.stderr.readline()
        meanwhile = waiting(url)
        collector.accept_connections()
        collector.wait_for_payloads(100, LIMIT_SECONDS)
        recovered = process.stderr.readline()
        outcome = end(process, signal.SIGTERM)

    assert re.match(r"snowplow-tracker: WARNING No response: 100 payloads will be retried in [\d.]+ s ", failed)
    assert meanwhile in (0, 100)
    assert recovered.startswith("snowplow-tracker: The collector takes payloads again: ")
    assert outcome == (0, "delivered 100, rejected 0, left 0 in the store\n", "")


@sends_signals
def test_killed_forwarder_loses_nothing(url, collector):
    """What was under way when a forwarder was killed is sent by the next one; nothing else comes twice."""
    url = f"{url}&lease_seconds=1"
    fill(url, 3_000)
    held = Answer(hold=threading.Event())
    collector.respond_with(200, held)

    with forwarding(url, collector) as process:
        collector.wait_for_requests(2, LIMIT_SECONDS)
        process.kill()
    in_flight = eids(collector.requests[1].payloads)
    with forwarding(url, collector) as process:
        eventually(lambda: set(all_of(3_000)) <= set(eids(collector.payloads)))
        outcome = end(process, signal.SIGTERM)

    counts = Counter(eids(collector.payloads))
    assert outcome[0] == 0
    assert outcome[1].endswith("rejected 0, left 0 in the store\n")
    assert set(counts) == set(all_of(3_000))
    assert {eid for eid, count in counts.items() if count > 1} <= set(in_flight)


@sends_signals
def test_second_signal_ends_at_once(url, collector):
    """Nobody has to wait for a collector that does not answer; what it may have taken is sent again."""
    fill(url, 10)
    collector.respond_always(Answer(hold=threading.Event()))

    with forwarding(url, collector) as process:
        collector.wait_for_requests(1, LIMIT_SECONDS)
        process.send_signal(signal.SIGTERM)
        told = [process.stderr.readline() for _ in range(2)][-1]
        outcome = end(process)

    assert told == "snowplow-tracker: waiting for the collector, 30 s at most; a second signal ends at once\n"
    assert outcome == (
        1,
        "delivered 0, rejected 0, left 10 in the store\n",
        "snowplow-tracker: 10 were still being sent: they will be sent again, and may arrive twice\n",
    )
    assert waiting(url) == 10


@sends_signals
def test_requests_under_way_are_waited_for_no_longer_than_the_timeout(file_url, collector):
    """A process manager kills those who take too long to end, so there is a limit."""
    fill(file_url, 10)
    collector.respond_always(Answer(hold=threading.Event()))

    with forwarding(file_url, collector, "--timeout", "0.1") as process:
        collector.wait_for_requests(1, LIMIT_SECONDS)
        exit_code, out, _ = end(process, signal.SIGTERM)

    assert (exit_code, out) == (1, "delivered 0, rejected 0, left 10 in the store\n")
    assert waiting(file_url) == 10


@sends_signals
def test_outage_of_the_store_is_survived(server, collector):
    """A Redis that goes away and comes back costs lines in the log, and no payload."""
    with forwarding(server.url, collector) as process:
        process.stderr.readline()
        fill(server.url, 5)
        collector.wait_for_payloads(5, LIMIT_SECONDS)
        server.kill()
        failed = process.stderr.readline()
        server.start()
        fill(server.url, 5, start=5)
        collector.wait_for_payloads(10, LIMIT_SECONDS)
        recovered = process.stderr.readline()
        exit_code, out, _ = end(process, signal.SIGTERM)

    assert failed.startswith("snowplow-tracker: ERROR The event store failed to hand out payloads: ")
    assert recovered == "snowplow-tracker: The event store hands out payloads again\n"
    assert (exit_code, out) == (0, "delivered 10, rejected 0, left 0 in the store\n")
    assert arrived(collector) == all_of(10)


def test_once_ends_when_all_is_sent(url, collector, forward_once):
    """A job has a beginning and an end; the exit code tells that the store is empty."""
    fill(url, 2_500)

    outcomes = [forward_once(url, "--threads", "3"), forward_once(url)]

    assert outcomes == [
        (0, "delivered 2500, rejected 0, left 0 in the store\n", []),
        (0, "delivered 0, rejected 0, left 0 in the store\n", []),
    ]
    assert arrived(collector) == all_of(2_500)


def test_hand_out_is_one_request(url, collector, forward_once):
    """What a store hands out fits into a request together with the sent timestamps, so that none is cut in two."""
    fill(url, 3_000, x="x" * 820)

    forward_once(url)

    sizes = [len(request.payloads) for request in collector.requests]
    assert sum(sizes) == 3_000
    assert min(sizes[:-1]) >= 900


def test_once_sends_what_a_dead_forwarder_had_in_flight(shared_server, collector, forward_once):
    """In Redis that does not count as waiting, and comes back all the same."""
    shared_server.client.flushall()
    url = f"{shared_server.url}?timeout=10&lease_seconds=0.05"
    fill(url, 3)
    dead = event_store_from_url(url)
    in_flight = dead.get_events_batch()
    eventually(lambda: not lease_of(shared_server))

    outcome = forward_once(url)

    assert eids(in_flight) == all_of(3)
    assert outcome == (0, "delivered 3, rejected 0, left 0 in the store\n", [])


def test_once_does_not_end_while_others_send(url, collector, forward_once):
    """What another process has may come back, so the store is not empty yet; the exit code and the sum tell."""
    fill(url, 3)
    other = event_store_from_url(url)
    batch = other.get_events_batch()

    outcome = forward_once(url, "--timeout", "0.1")
    other.close()

    assert len(batch) == 3
    assert outcome == (
        1,
        "delivered 0, rejected 0, left 0 in the store, 3 under way elsewhere\n",
        ["nothing delivered for 0.1 s: 3 under way elsewhere"],
    )
    assert collector.requests == []


@pytest.mark.parametrize(("is_back", "delivered"), [(True, 3), (False, 0)])
def test_once_waits_for_what_others_send(url, forward_once, monkeypatch, is_back, delivered):
    """It is done when the others are, and sends itself what they give back."""
    fill(url, 3)
    other = event_store_from_url(url)
    batch = other.get_events_batch()
    wait = forward_command._Forwarding._wait

    def settle_and_wait(forwarding, *seconds):
        other.cleanup(batch, is_back)
        batch.clear()
        wait(forwarding, *seconds)

    monkeypatch.setattr(forward_command._Forwarding, "_wait", settle_and_wait)

    outcome = forward_once(url)
    other.close()

    assert outcome == (0, f"delivered {delivered}, rejected 0, left 0 in the store\n", [])


def lease_of(server):
    """Tell whether anything was handed out within the last 50 ms."""
    pending = server.client.xpending_range("snowplow:events", "senders", "-", "+", 10)
    return any(entry["time_since_delivered"] < 50 for entry in pending)


def test_file_that_did_not_exist_is_told(file_url, tmp_path, collector, forward_once):
    """A mistyped path must not look like a store that was emptied."""
    first, second = forward_once(file_url), forward_once(file_url)

    assert first == (
        0,
        "delivered 0, rejected 0, left 0 in the store\n",
        [f"{tmp_path / 'events.db'} did not exist, and was created"],
    )
    assert second == (*first[:2], [])


@pytest.mark.parametrize(
    ("is_down", "reason"), [(True, "connection refused by 127.0.0.1:"), (False, "the collector answered 503")]
)
def test_once_gives_up_when_nothing_is_delivered(url, collector, forward_once, is_down, reason):
    """After the timeout without a delivery a job ends; payloads are where they were, and the exit code tells."""
    fill(url, 5)
    collector.respond_always(503)
    if is_down:
        collector.refuse_connections()

    exit_code, out, errors = forward_once(url, "--timeout", "0.2")

    assert (exit_code, out) == (1, "delivered 0, rejected 0, left 5 in the store\n")
    assert errors[-1].startswith(f"nothing delivered for 0.2 s: {reason}")
    assert waiting(url) == 5


def test_once_gives_up_when_the_store_is_down(file_url, collector, forward_once, monkeypatch):
    """A store that fails after it was opened is no empty store."""
    assert waiting(file_url) == 0
    sizes = [5]

    def size(store):
        if sizes:
            return sizes.pop()
        raise OSError("no answer")

    monkeypatch.setattr(SQLiteEventStore, "size", size)

    exit_code, out, errors = forward_once(file_url, "--timeout", "0.1")

    assert (exit_code, out) == (1, "delivered 0, rejected 0, left ? in the store\n")
    assert errors == ["nothing delivered for 0.1 s: no answer", "it is unknown how many are left: no answer"]


def test_once_gives_up_when_the_store_hands_nothing_out(file_url, collector, forward_once, monkeypatch):
    """The reason is in a line of the log, and none of the collector's."""
    fill(file_url, 5)

    def fail(store, limit=None):
        raise OSError("no answer")

    monkeypatch.setattr(SQLiteEventStore, "get_events_batch", fail)

    exit_code, out, errors = forward_once(file_url, "--timeout", "0.1")

    assert (exit_code, out) == (1, "delivered 0, rejected 0, left 5 in the store\n")
    assert errors[0] == "ERROR The event store failed to hand out payloads: no answer"
    assert errors[-1] == "nothing delivered for 0.1 s: the store hands nothing out"


@sends_signals
def test_once_ends_with_a_signal(file_url, collector):
    """A job that is ended early has left something."""
    fill(file_url, 3_000)
    released = threading.Event()
    collector.respond_with(200, Answer(hold=released))

    with forwarding(file_url, collector, "--once") as process:
        collector.wait_for_requests(2, LIMIT_SECONDS)
        process.send_signal(signal.SIGTERM)
        told = process.stderr.readline()
        released.set()
        exit_code, out, _ = end(process, signal.SIGCONT)

    assert "waiting for the collector" in told
    assert exit_code == 1
    assert re.match(r"delivered \d+, rejected 0, left [1-9]\d* in the store\n", out)


def test_what_the_collector_refuses_is_told(url, collector, forward_once):
    """What is refused for good is gone, which a line and the exit code tell."""
    fill(url, 5)
    collector.respond_with(400)

    outcome = forward_once(url)

    assert outcome == (
        1,
        "delivered 0, rejected 5, left 0 in the store\n",
        ["ERROR Lost 5 payloads: the collector answered 400"],
    )


def test_what_is_too_old_is_told(file_url, collector, forward_once):
    """A store with a `max_age` drops what has waited longer, which a line and the exit code tell."""
    fill(file_url, 5)

    exit_code, out, errors = forward_once(f"{file_url}&max_age=1e-9")

    assert (exit_code, out) == (1, "delivered 0, rejected 0, too old 5, left 0 in the store\n")
    assert errors == ["ERROR Lost 5 payloads: they were older than 1e-09 s"]


def test_sums_are_told_at_intervals_if_they_change(file_url, collector, forward_once, monkeypatch):
    """Where no terminal shows a bar, a line now and then tells how far it is."""
    fill(file_url, 2_000)
    collector.respond_with(200, 503)
    monkeypatch.setattr(forward_command, "_TOLD_EVERY_SECONDS", 0.0)

    exit_code, _, errors = forward_once(file_url)

    sums = [line for line in errors if line.startswith("delivered ")]
    assert exit_code == 0
    assert "delivered 1000, rejected 0, left 1000 in the store" in sums
    assert len(sums) == len(set(sums))


@sends_signals
def test_sums_are_told_while_it_runs(file_url, collector, monkeypatch, capsys):
    """They are told by a forwarder without an end as well."""
    fill(file_url, 10)
    monkeypatch.setattr(forward_command, "_TOLD_EVERY_SECONDS", 0.0)
    ending = threading.Thread(
        target=lambda: (collector.wait_for_payloads(10, LIMIT_SECONDS), os.kill(os.getpid(), signal.SIGTERM))
    )
    ending.start()

    exit_code = main(["forward", "--store", file_url, "--endpoint", collector.url])
    ending.join()

    output = capsys.readouterr()
    assert (exit_code, output.out) == (0, "delivered 10, rejected 0, left 0 in the store\n")
    assert re.search(r"^snowplow-tracker: delivered \d+, rejected 0, left \d+ in the store$", output.err, re.MULTILINE)


@sends_signals
@pytest.mark.parametrize("is_once", [True, False])
def test_terminal_shows_how_far_it_is(file_url, collector, is_once):
    """A job with an end has a bar; without an end there are figures only."""
    fill(file_url, 2_000)
    terminal, shown_in = os.openpty()

    with forwarding(file_url, collector, *(["--once"] if is_once else []), stderr=shown_in) as process:
        os.close(shown_in)
        collector.wait_for_payloads(2_000, LIMIT_SECONDS)
        if is_once:
            out, _ = process.communicate(timeout=LIMIT_SECONDS)
        else:
            out = end(process, signal.SIGTERM)[1]
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        shown = screen.read(65_536).decode()

    assert out == "delivered 2000, rejected 0, left 0 in the store\n"
    bar = r"\[[#-]{24}\] +\d+%  " if is_once else ""
    assert re.search(rf"\r{bar}[\d,]+ delivered, [\d,]+/s, [\d,]+ left", shown)
    assert re.search(r"\r *\r$", shown)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--store", "mysql://a:secret@b", "--endpoint", "a"], "event_store must be the URL of a store (memory:, "),
        (["--store", "sqlite:///a?speed=1", "--endpoint", "a"], "the URL of a sqlite: store may have buffer_capacity"),
        (["--store", "memory:", "--endpoint", "a"], "a store in memory has nothing that others have put in"),
        (["--store", "sqlite:///a", "--endpoint", "ftp://a"], "endpoint must be an http or https address"),
        (["--threads", "0"], "argument --threads: must be between 1 and 100, got 0"),
        (["--timeout", "0"], "argument --timeout: must be a positive number of seconds, got '0'"),
    ],
)
def test_wrong_arguments_open_nothing(arguments, complaint, capsys):
    """What cannot work is wrong usage, told below the usage of the command, without a password."""
    with pytest.raises(SystemExit) as ending:
        main(["forward", *arguments])

    error = capsys.readouterr().err
    assert ending.value.code == 2
    assert complaint in error.splitlines()[-1]
    assert "secret" not in error


def test_store_of_an_extra_that_is_missing_is_told_at_the_start(monkeypatch, capsys):
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "redis", None)

    with pytest.raises(SystemExit) as exit_:
        main(["forward", "--store", "redis://127.0.0.1", "--endpoint", "a"])

    assert exit_.value.code == 2
    assert capsys.readouterr().err.endswith("needs redis-py for a URL: pip install 'snowplow-tracker[redis]'\n")


def test_corrupt_file_is_told_of(file_url, forward_once):
    """Otherwise the backlog would be gone in silence, for a job that looks at the exit code alone, too."""
    path = Path(event_store_from_url(file_url).path)
    path.write_bytes(b"something else" * 1000)

    exit_code, output, lines = forward_once(file_url)

    assert (exit_code, output) == (1, "delivered 0, rejected 0, left 0 in the store\n")
    (line,) = lines
    assert re.match(r"ERROR .* is corrupt \(file is not a database\): moved it aside to .*, and begin a new one", line)


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all/events.db", "redis://:secret@127.0.0.1:9"])
def test_store_that_cannot_be_opened_is_told_at_the_start(url, capsys):
    """One line says why, without a password, and the exit code is that of wrong usage."""
    if url.startswith("redis"):
        pytest.importorskip("redis")

    exit_code = main(["forward", "--store", url, "--endpoint", "a"])

    output = capsys.readouterr()
    assert (exit_code, output.out) == (2, "")
    assert re.fullmatch(r"snowplow-tracker: the store cannot be opened: .+\n", output.err)
    assert "secret" not in output.err


MEASURING = """
import re, sys
from snowplow_tracker._cli import main
exit_code = main(sys.argv[1:])
# What `resource` knows of a process includes what its parent had in memory when it was started.
print("peak", re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))
sys.exit(exit_code)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("count", [5_000, pytest.param(200_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_backlog_stays_out_of_memory(file_url, count):
    """However much waits, the command takes less than 100 MB."""
    fill(file_url, count, x="x" * 800)

    with LocalCollector(max_events=1) as collector:
        process = subprocess.run(
            [sys.executable, "-c", MEASURING, "forward", "--once", "--store", file_url, "--endpoint", collector.url],
            capture_output=True,
            text=True,
            check=False,
            env=environment(PYTHONWARNINGS="ignore"),
        )

    closing, peak = process.stdout.splitlines()
    assert (process.returncode, process.stderr) == (0, "")
    assert closing == f"delivered {count}, rejected 0, left 0 in the store"
    assert int(peak.split()[1]) < 100_000
