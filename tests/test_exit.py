"""What becomes of waiting events when the interpreter exits, in interpreters that do."""

import contextlib
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import pytest
from support import eids

from snowplow_tracker.testing import Answer, LocalCollector

# Far more than an exit takes, and far less than requests without a deadline would: those wait for 30 s.
LIMIT_SECONDS = 15

sends_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of Unix")

PREAMBLE = """
import atexit, logging, signal, sys, threading
from snowplow_tracker import AsyncEmitter, Emitter, _lifecycle

logging.basicConfig(format="%(levelname)s %(message)s", level=logging.ERROR)
url = sys.argv[1]

# A shell that runs the tests in the background has all of them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def both(url=url, **options):
    return [Emitter(url, **options), AsyncEmitter(url, **options)]

def fill(emitter, count=9, prefix=""):
    for number in range(count):
        emitter.input({"eid": f"{type(emitter).__name__}-{prefix}{number}"})
"""


def python(script, *arguments, preamble=PREAMBLE):
    """Start an interpreter that runs a script."""
    return subprocess.Popen(
        # An emitter that nobody closed leaves its connection open, which Python reports in its development mode.
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", preamble + textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


def finish(process):
    """Wait for an interpreter's end; return its exit code, and what it wrote to stdout and stderr."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, stdout, stderr


def run(script, *arguments, preamble=PREAMBLE):
    """Run a script to its end."""
    return finish(python(script, *arguments, preamble=preamble))


@pytest.fixture
def hanging_url():
    """The URL of a server that accepts connections, and never reads from them nor answers."""
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def arrived(collector):
    """Return the event ids that the emitters of a class delivered, in order, without the name of the class."""

    def event_ids_of(name):
        return [eid.partition("-")[2] for eid in eids(collector.payloads) if eid.startswith(f"{name}-")]

    return event_ids_of


def test_waiting_events_are_delivered_at_exit(collector, arrived):
    """What waits when the program ends is delivered, in order, and without a word."""
    script = """
        emitters = both(batch_size=10) + both(batch_size=10, method="get")
        for emitter in emitters:
            fill(emitter, 9, f"{emitter.method}-")
    """

    result = run(script, collector.url)

    assert result == (0, "", "")
    expected = [f"{method}-{number}" for method in ("post", "get") for number in range(9)]
    assert arrived("Emitter") == arrived("AsyncEmitter") == expected


def test_workers_that_run_already_deliver_at_exit(collector, arrived):
    """What waits is delivered by threads that were started before, too."""
    script = """
        emitter = AsyncEmitter(url, batch_size=3, thread_count=2)
        fill(emitter, 3, "before-")
        emitter.sync_flush()
        fill(emitter, 2)
    """

    result = run(script, collector.url)

    assert result == (0, "", "")
    assert arrived("AsyncEmitter") == ["before-0", "before-1", "before-2", "0", "1"]


def test_exit_waits_for_the_request_that_is_under_way(collector, arrived):
    """An exit does not cut off the request that a worker is in the middle of, and then sends what came meanwhile."""
    release = threading.Event()
    collector.respond_with(Answer(hold=release))
    script = """
        emitter = AsyncEmitter(url, batch_size=1)
        fill(emitter, 5)
        # Exit handlers run in the reverse order of their registration, so this one runs before the library's.
        atexit.register(print, "exiting", flush=True)
    """

    process = python(script, collector.url)
    collector.wait_for_requests(1)
    first_line = process.stdout.readline()
    release.set()

    assert first_line == "exiting\n"
    assert finish(process) == (0, "", "")
    assert arrived("AsyncEmitter") == ["0", "1", "2", "3", "4"]


def test_queue_may_be_replaced_by_a_sealed_one(collector):
    """As gevent does it: in its class of that name, what the library sets is read-only."""
    preamble = """
        import queue
        import requests  # which may have a queue of its own

        class Sealed:
            maxsize = queue = unfinished_tasks = mutex = property(lambda queue: 0)

        queue.Queue = Sealed
    """
    script = """
        for emitter in both(batch_size=2):
            fill(emitter, 3)
            emitter.async_flush()
            emitter.sync_flush()
            print(emitter.close())
    """

    code, stdout, stderr = run(script, collector.url, preamble=textwrap.dedent(preamble) + PREAMBLE)

    assert (code, stdout, stderr) == (0, "True\nTrue\n", "")
    assert len(collector.payloads) == 6


def test_nothing_is_sent_at_exit_if_that_is_turned_off(collector):
    """With `flush_on_exit=False` what waits at exit is logged as lost, and what is tracked later is not sent either."""
    preamble = "import atexit\natexit.register(lambda: [fill(emitter, 1) for emitter in emitters])\n" + PREAMBLE
    script = "emitters = both(flush_on_exit=False)\nfor emitter in emitters:\n    fill(emitter, 2)"

    code, _, stderr = run(script, collector.url, preamble=preamble)

    assert code == 0
    told = [f"ERROR Lost {count} payloads: the interpreter exits, and flush_on_exit is off\n" for count in (2, 1)]
    assert stderr == "".join(2 * line for line in told)
    assert collector.requests == []


def test_late_event_is_not_lost_in_silence_if_nothing_is_sent_at_exit(collector):
    """An exit handler that was there before the library tracks after it has told what is lost."""
    preamble = "import atexit\natexit.register(lambda: [fill(emitter, 1) for emitter in emitters])\n" + PREAMBLE
    script = "emitters = both(flush_on_exit=False)"

    code, _, stderr = run(script, collector.url, preamble=preamble)

    assert code == 0
    assert stderr == "ERROR Lost 1 payloads: the interpreter exits, and flush_on_exit is off\n" * 2
    assert collector.requests == []


def test_events_are_delivered_whichever_way_a_thread_ends(collector, arrived):
    """What waits is delivered after `sys.exit`, be it in a thread, and so is what a thread tracks after main's end."""
    script = """
        emitters = both()

        def track_and_exit(prefix):
            for emitter in emitters:
                fill(emitter, 1, prefix)
            sys.exit(3)

        def outlive_main():
            threading.main_thread().join()
            track_and_exit("after-main-")

        threading.Thread(target=outlive_main).start()
        thread = threading.Thread(target=track_and_exit, args=["thread-"])
        thread.start()
        thread.join()
        track_and_exit("main-")
    """

    result = run(script, collector.url)

    assert result == (3, "", "")
    assert arrived("Emitter") == arrived("AsyncEmitter") == ["thread-0", "main-0", "after-main-0"]


def test_events_are_delivered_after_an_unhandled_exception(collector, arrived):
    """A program that dies of an exception delivers what waits, and its traceback is the only one."""
    script = """
        emitters = both()
        for emitter in emitters:
            fill(emitter, 2)
        raise RuntimeError("of the application")
    """

    code, _, stderr = run(script, collector.url)

    assert code == 1
    assert stderr.count("Traceback") == 1
    assert stderr.endswith("RuntimeError: of the application\n")
    assert arrived("Emitter") == arrived("AsyncEmitter") == ["0", "1"]


def test_events_of_exit_handlers_are_delivered(collector, arrived):
    """An event that an exit handler tracks is delivered, whether it runs before the library's own or after it."""
    preamble = "import atexit\natexit.register(lambda: [fill(e, 2, 'after-') for e in emitters])\n" + PREAMBLE
    script = """
        emitters = both()
        atexit.register(lambda: [fill(emitter, 2, "before-") for emitter in emitters])
        for emitter in emitters:
            fill(emitter, 1)
    """

    result = run(script, collector.url, preamble=preamble)

    assert result == (0, "", "")
    assert arrived("Emitter") == ["0", "before-0", "before-1", "after-0", "after-1"]
    assert arrived("AsyncEmitter") == ["0", "before-0", "before-1", "after-0", "after-1"]


def test_events_of_a_pool_that_still_runs_are_delivered(collector, arrived):
    """What the threads of a `ThreadPoolExecutor` track after the program's last line is delivered."""
    release = threading.Event()
    collector.respond_with(Answer(hold=release))
    script = """
        from concurrent.futures import ThreadPoolExecutor

        emitters = [Emitter(url, batch_size=1), AsyncEmitter(url)]

        def task(number):
            for emitter in emitters:
                fill(emitter, 1, f"{number}-")

        # Up to 3.8 an exit handler waits for these threads, and it runs after the library's.
        ThreadPoolExecutor(1).map(task, range(6))
        print("the last line", flush=True)
    """

    process = python(script, collector.url)
    first_line = process.stdout.readline()
    release.set()

    assert first_line == "the last line\n"
    assert finish(process) == (0, "", "")
    assert arrived("Emitter") == arrived("AsyncEmitter") == [f"{number}-0" for number in range(6)]


@pytest.mark.parametrize("kind", ["Emitter", "AsyncEmitter"])
def test_daemon_threads_that_track_to_the_very_end_do_no_harm(collector, kind):
    """Threads that the exit cuts off in the middle of tracking leave no traceback, and nothing arrives twice."""
    script = f"""
        import itertools

        emitter = {kind}(url, batch_size=5)

        def track_for_ever(prefix):
            for number in itertools.count():
                emitter.input({{"eid": f"{{prefix}}-{{number}}"}})

        for prefix in "abc":
            threading.Thread(target=track_for_ever, args=[prefix], daemon=True).start()
        while emitter.stats().delivered < 50:
            threading.Event().wait(0.01)
    """

    code, stdout, stderr = run(script, collector.url)

    assert (code, stdout) == (0, "")
    assert "Traceback" not in stderr
    assert len(set(eids(collector.payloads))) == len(collector.payloads) >= 50


def test_emitters_that_a_finished_event_loop_leaves_behind_deliver(collector, arrived):
    """What waits in emitters that only a coroutine of `asyncio.run` knew, and what an executor tracks, arrives."""
    script = """
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        async def main():
            emitters = both()
            loop = asyncio.get_running_loop()
            executor = ThreadPoolExecutor()
            for emitter in emitters:
                fill(emitter, 1)
                await loop.run_in_executor(executor, fill, emitter, 1, "executor-")
                executor.submit(fill, emitter, 1, "not-waited-for-")

        asyncio.run(main())
    """

    result = run(script, collector.url)

    assert result == (0, "", "")
    assert sorted(arrived("Emitter")) == sorted(arrived("AsyncEmitter")) == ["0", "executor-0", "not-waited-for-0"]


def test_callback_may_exit(collector, arrived):
    """A `sys.exit` in a callback ends the program, if that runs in the main thread, and loses nothing."""
    script = """
        options = {"batch_size": 2, "on_success": lambda _: sys.exit(4)}
        emitters = [AsyncEmitter(url, **options), Emitter(url, **options)]
        for emitter in emitters:
            fill(emitter, 3)
    """

    result = run(script, collector.url)

    assert result == (4, "", "")
    assert arrived("AsyncEmitter") == ["0", "1", "2"]
    assert arrived("Emitter") == ["0", "1"]


def test_callback_that_exits_at_exit_takes_nothing_from_others(collector, arrived):
    """A `sys.exit` in a callback of the last flush ends nothing: the exit is under way already."""
    script = """
        emitters = both(on_success=lambda _: sys.exit(4)) + both()
        for position, emitter in enumerate(emitters):
            fill(emitter, 2, f"{position // 2}-")
    """

    result = run(script, collector.url)

    assert result == (0, "", "")
    assert arrived("Emitter") == arrived("AsyncEmitter") == ["0-0", "0-1", "1-0", "1-1"]


@sends_signals
@pytest.mark.parametrize("kind", ["Emitter", "AsyncEmitter"])
def test_ctrl_c_in_the_middle_of_a_flush_loses_nothing(collector, arrived, kind):
    """Ctrl-C while a flush waits for the collector ends the program, and what was not delivered is sent again."""
    release = threading.Event()
    collector.respond_with(Answer(503, hold=release))
    script = f"""
        emitter = {kind}(url, max_retry_delay_seconds=0.1)
        fill(emitter, 3)
        emitter.sync_flush()
    """

    process = python(script, collector.url)
    collector.wait_for_requests(1)
    process.send_signal(signal.SIGINT)
    release.set()
    code, _, stderr = finish(process)

    assert code == -signal.SIGINT
    assert stderr.endswith("\nKeyboardInterrupt\n")
    assert stderr.count("Traceback") == 1
    assert arrived(kind) == ["0", "1", "2"]


@sends_signals
def test_ctrl_c_while_nothing_happens_loses_nothing(collector, arrived):
    """Ctrl-C in a program that waits for something else ends it, and what waits is delivered."""
    script = """
        emitters = both()
        for emitter in emitters:
            fill(emitter, 2)
        print("idle", flush=True)
        threading.Event().wait()
    """

    process = python(script, collector.url)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    code, _, stderr = finish(process)

    assert code == -signal.SIGINT
    assert stderr.endswith("\nKeyboardInterrupt\n")
    assert arrived("Emitter") == arrived("AsyncEmitter") == ["0", "1"]


@sends_signals
def test_ctrl_c_at_exit_ends_it_at_once(collector):
    """Whoever does not want to wait for a collector that hangs can interrupt the exit, and is told what is lost."""
    collector.respond_always(Answer(hold=threading.Event()))
    script = """
        _lifecycle.EXIT_SECONDS = 1000.0
        emitters = both()
        for emitter in emitters:
            fill(emitter, 2)
    """

    process = python(script, collector.url)
    collector.wait_for_requests(1)
    process.send_signal(signal.SIGINT)
    _, _, stderr = finish(process)

    assert stderr.count("Lost 2 payloads: the interpreter exits, and its last flush was interrupted\n") == 2


@sends_signals
@pytest.mark.parametrize("first", ["Emitter", "AsyncEmitter"])
def test_second_signal_that_asks_to_exit_loses_nothing(collector, arrived, first):
    """A signal whose handler exits loses nothing, even if it comes again while the last flush is under way."""
    release = threading.Event()
    collector.respond_with(Answer(503, hold=release))
    script = f"""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        emitters = sorted(both(max_retry_delay_seconds=0.1), key=lambda emitter: type(emitter) is not {first})
        for emitter in emitters:
            fill(emitter, 2)
        print("idle", flush=True)
        threading.Event().wait()
    """

    process = python(script, collector.url)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    collector.wait_for_requests(1)
    process.send_signal(signal.SIGTERM)
    release.set()
    result = finish(process)

    assert result == (5, "", "")
    assert arrived("Emitter") == arrived("AsyncEmitter") == ["0", "1"]


def test_exit_does_not_wait_for_the_end_of_a_backoff(collector, arrived):
    """An exit tries at once, however long the backoff has still to go."""
    collector.respond_with(Answer(503, headers={"Retry-After": "60"}), Answer(503, headers={"Retry-After": "60"}))
    script = """
        failures = threading.Semaphore(0)
        emitters = both(batch_size=1, on_failure=lambda *_: failures.release())
        for emitter in emitters:
            fill(emitter, 1)
            failures.acquire(timeout=10)
            fill(emitter, 1, "held-back-")
    """

    result = run(script, collector.url)

    assert result == (0, "", "")
    assert arrived("Emitter") == arrived("AsyncEmitter") == ["0", "held-back-0"]
    assert len(collector.requests) == 4


def test_exit_goes_on_at_the_pace_of_the_backoff(collector, arrived):
    """When the collector fails during the exit, there are retries as long as there is time."""
    script = """
        emitters = [kind(url, max_retry_delay_seconds=0.1) for kind, url in zip((Emitter, AsyncEmitter), sys.argv[1:])]
        for emitter in emitters:
            fill(emitter, 2)
    """
    collector.respond_with(503, 503)

    with LocalCollector() as other:
        other.respond_with(503, 503)
        result = run(script, collector.url, other.url)

    assert result == (0, "", "")
    assert arrived("Emitter") == ["0", "1"]
    assert eids(other.payloads) == ["AsyncEmitter-0", "AsyncEmitter-1"]
    assert len(collector.requests) == len(other.requests) == 3


def test_exit_ends_though_the_collector_never_answers(hanging_url):
    """A collector that never answers, or refuses connections, cannot hold up the exit; what is lost is logged."""
    script = """
        _lifecycle.EXIT_SECONDS = 0.4
        emitters = both() + both(method="get", batch_size=10) + both("http://127.0.0.1:9")
        for count, emitter in enumerate(emitters, 1):
            fill(emitter, count)
    """

    code, stdout, stderr = run(script, hanging_url)

    assert (code, stdout) == (0, "")
    assert stderr.splitlines() == [
        f"ERROR Lost {count} payloads: the interpreter exits, and 0.4 s were not enough" for count in range(1, 7)
    ]


def test_exit_ends_though_a_worker_hangs(hanging_url):
    """Payloads that a worker is stuck with are given up when the time is over."""
    script = """
        _lifecycle.EXIT_SECONDS = 0.4
        emitter = AsyncEmitter(url, batch_size=1)
        fill(emitter, 1)
        while not emitter.stats().in_flight:
            threading.Event().wait(0.01)
        fill(emitter, 3)
    """

    code, stdout, stderr = run(script, hanging_url)

    assert (code, stdout) == (0, "")
    assert stderr == "ERROR Lost 4 payloads: the interpreter exits, and 0.4 s were not enough\n"


def test_emitters_share_the_time_of_the_exit(hanging_url):
    """The time is for all emitters of the process together, not for each of them."""
    script = """
        _lifecycle.EXIT_SECONDS = 0.5
        emitters = [Emitter(url) for _ in range(60)]
        for emitter in emitters:
            fill(emitter, 9)
    """

    code, _, stderr = run(script, hanging_url)

    assert code == 0
    assert stderr.count("Lost 9 payloads") == 60


def test_emitter_that_hangs_does_not_keep_others_from_delivering(collector, arrived, hanging_url):
    """One hanging collector costs only the events that are meant for it, whoever has its turn first."""
    script = """
        _lifecycle.EXIT_SECONDS = 1.2
        emitters = [AsyncEmitter(sys.argv[2]), Emitter(sys.argv[2]), *both()]
        for emitter in emitters:
            fill(emitter, 2)
    """

    code, _, stderr = run(script, collector.url, hanging_url)

    assert code == 0
    assert stderr == "ERROR Lost 2 payloads: the interpreter exits, and 1.2 s were not enough\n" * 2
    # On a busy machine even a healthy collector's answer may come after an emitter's share of the time.
    assert set(arrived("Emitter")) == set(arrived("AsyncEmitter")) == {"0", "1"}


def test_emitter_that_nobody_holds_delivers_at_exit(collector, arrived):
    """An emitter that is dropped just before the exit, even one in a reference cycle, delivers what waits in it."""
    script = """
        import gc
        # As if the exit came before the thread that would deliver in the background.
        _lifecycle._thread.start_new_thread = lambda *_: None
        for prefix in ("dropped-", "cycle-"):
            for emitter in both():
                fill(emitter, 1, prefix)
                if prefix == "cycle-":
                    emitter.itself = emitter
        del emitter
        gc.collect()
    """

    result = run(script, collector.url)

    assert result == (0, "", "")
    assert sorted(arrived("Emitter")) == sorted(arrived("AsyncEmitter")) == ["cycle-0", "dropped-0"]


def test_closed_emitter_has_nothing_left_to_do_at_exit(collector, arrived):
    """What was delivered by `close`, or at the end of a `with` block, is delivered once."""
    script = """
        for emitter in both():
            fill(emitter, 2, "closed-")
            print(emitter.close())
        for emitter in both():
            with emitter:
                fill(emitter, 2, "with-")
    """

    result = run(script, collector.url)

    assert result == (0, "True\nTrue\n", "")
    assert arrived("Emitter") == arrived("AsyncEmitter") == ["closed-0", "closed-1", "with-0", "with-1"]


def test_emitter_that_was_closed_too_early_gets_another_chance_at_exit(collector, arrived):
    """What `close` could not deliver in its time is tried again at exit."""
    script = "emitter = Emitter(url)\nfill(emitter, 2)\nprint(emitter.close(timeout=0))"

    result = run(script, collector.url)

    assert result == (0, "False\n", "ERROR Closed with 2 payloads that are not delivered\n")
    assert arrived("Emitter") == ["0", "1"]


def test_emitters_that_live_longer_than_their_modules_end_quietly():
    """What outlives even the modules at exit ends without a word."""
    script = """
        import builtins
        logging.disable()
        emitters = both("http://127.0.0.1:9", flush_on_exit=False)
        for emitter in emitters:
            fill(emitter, 2)
        emitters[0].itself = emitters[0]
        builtins.kept = emitters[1]
    """

    assert run(script, "") == (0, "", "")


def test_values_of_late_types_are_encoded_when_nothing_can_be_imported_any_more():
    """The interpreter forgets its modules before it deletes the last objects, which may still track."""
    script = """
        import builtins, decimal, uuid
        from snowplow_tracker import SelfDescribing, SelfDescribingJson, Tracker

        class Printing:
            def input(self, payload):
                print(payload["ue_pr"])

        class Late:
            def __init__(self, tracker, event):
                self.tracker, self.event = tracker, event

            def __del__(self):
                self.tracker.track(self.event)

        data = {"id": uuid.UUID(int=5), "total": decimal.Decimal("49.95")}
        event = SelfDescribing(SelfDescribingJson("iglu:com.acme/order/jsonschema/1-0-0", data))
        builtins.late = Late(Tracker("test", Printing(), encode_base64=False), event)
    """

    code, stdout, stderr = run(script, "unused")

    assert (code, stderr) == (0, "")
    assert '"id":"00000000-0000-0000-0000-000000000005","total":49.95' in stdout
