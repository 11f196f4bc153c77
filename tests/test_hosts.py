"""The tracker in programs that serve, work off tasks or just end: those in the folder `hosts`, as real processes."""

import http.client
import importlib.util
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from commands import killed_in_the_end
from support import eventually

import snowplow_tracker
from snowplow_tracker.testing import Answer

LIMIT_SECONDS = 30

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(sys.platform == "win32", reason="needs the signals and forks of Unix"),
]


def needs(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"needs {package}, of the extra `hosts`"
    )


@pytest.fixture
def start(collector, tmp_path):
    """Start programs of the folder `hosts`; what still runs after the test is killed, with its children."""
    (tmp_path / "tracked").touch()
    folders = [Path(__file__).with_name("hosts"), Path(snowplow_tracker.__file__).parents[1]]
    environment = {
        # Coverage is not measured in them: it has words of its own to say on stderr.
        **{name: value for name, value in os.environ.items() if not name.startswith("COV")},
        "COLLECTOR": collector.url,
        "TRACKED": str(tmp_path / "tracked"),
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        # In its development mode CPython 3.8 crashes at the end of any forked child.
        "PYTHONDEVMODE": "",
        # Where gunicorn puts a socket.
        "XDG_RUNTIME_DIR": str(tmp_path),
    }

    def start(*command, stdout=subprocess.PIPE, **options):
        process = subprocess.Popen(
            command,
            cwd=str(tmp_path),
            env=environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            start_new_session=True,
            **options,
        )
        processes.append(process)
        return process

    with killed_in_the_end() as processes:
        yield start


@pytest.fixture
def tracked(tmp_path):
    """Return the labels of the events that the program tracked, sorted."""
    return lambda: sorted((tmp_path / "tracked").read_text().splitlines())


@pytest.fixture
def delivered(collector):
    """Return the labels of the events that a tracker delivered, sorted."""
    return lambda name: sorted(payload["se_la"] for payload in collector.payloads if payload["tna"] == name)


def finish(process):
    """Wait for a program's end, and that of its children; return its exit code and its stderr."""
    _, stderr = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, stderr


def is_quiet(stderr):
    """Tell whether neither a traceback nor a line of the library is among what a host has said."""
    return "Traceback" not in stderr and "snowplow_tracker" not in stderr


def visit(port, numbers, processes):
    """Send requests until nobody listens any more; note which process has answered each of them."""
    for number in numbers:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
        try:
            connection.request("GET", f"/?{number}")
            processes[str(number)] = connection.getresponse().read()
        except ConnectionRefusedError:
            return
        except (OSError, http.client.HTTPException):
            # It was waiting when the last listener was closed. The program knows whether it has tracked this one.
            continue
        finally:
            connection.close()


@needs("gunicorn")
@pytest.mark.parametrize("threads", [1, 3], ids=["sync", "gthread"])
def test_gunicorn_delivers_what_each_worker_tracks(start, tracked, delivered, threads):
    """Emitters that were made before the fork deliver through a reload and a shutdown in the middle of traffic."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, number = listener.getsockname()[1], listener.fileno()
        options = ["--preload", "--workers=2", f"--threads={threads}", f"--bind=fd://{number}"]
        gunicorn = start(sys.executable, "-m", "gunicorn", *options, "web:serve", pass_fds=[number])
    numbers, processes = itertools.count(), {}
    visitors = [threading.Thread(target=visit, args=[port, numbers, processes]) for _ in range(3)]
    for visitor in visitors:
        visitor.start()

    eventually(lambda: len(processes) >= 30)
    before_reload = set(processes.values())
    gunicorn.send_signal(signal.SIGHUP)
    eventually(lambda: before_reload.isdisjoint(list(processes.values())[-20:]))
    gunicorn.send_signal(signal.SIGTERM)
    code, stderr = finish(gunicorn)
    for visitor in visitors:
        visitor.join()

    assert code == 0
    assert is_quiet(stderr), stderr
    assert set(processes) <= set(tracked())
    assert delivered("Emitter") == delivered("AsyncEmitter") == tracked()


@needs("celery")
def test_celery_delivers_what_its_tasks_track(start, tracked, delivered):
    """The processes of a prefork pool, which end without exit handlers, deliver what waits in them."""
    options = ["worker", "--pool=prefork", "--concurrency=2", "--without-gossip", "--without-mingle"]
    celery = start(sys.executable, "-m", "celery", "--app=tasks", *options)

    eventually(lambda: len(tracked()) >= 20)
    celery.send_signal(signal.SIGTERM)
    code, stderr = finish(celery)

    assert code == 0
    assert is_quiet(stderr), stderr
    assert delivered("Emitter") == delivered("AsyncEmitter") == tracked()


@pytest.mark.parametrize(
    ("kind", "start_method"),
    [
        ("pool", "fork"),
        ("pool", "spawn"),
        ("pool", "forkserver"),
        ("executor", "fork"),
        pytest.param("executor", "spawn", marks=pytest.mark.long),
        pytest.param("executor", "forkserver", marks=pytest.mark.long),
    ],
)
def test_pool_of_processes_delivers_what_its_children_track(start, tracked, delivered, kind, start_method):
    """Each child delivers what it tracked when the pool is closed, however it was started, and the parent its own."""
    program = start(sys.executable, "-m", "pool", kind, start_method)

    code, stderr = finish(program)

    assert code == 0
    assert stderr == ""
    assert len(tracked()) == 22
    assert delivered("Emitter") == delivered("AsyncEmitter") == tracked()


def test_what_a_task_flushed_survives_the_end_of_its_process(start, tracked, delivered):
    """A pool in a `with` statement kills its children, but what they flushed is delivered."""
    program = start(sys.executable, "-m", "pool", "terminated", "fork")

    code, stderr = finish(program)

    assert code == 0
    assert stderr == ""
    assert len(tracked()) == 22
    assert delivered("Emitter") == delivered("AsyncEmitter") == tracked()


def test_event_loop_goes_on_while_the_collector_hangs(start, collector, delivered):
    """With an `AsyncEmitter` neither `track` nor anything else in an event loop waits for the collector."""
    release = threading.Event()
    collector.respond_with(Answer(hold=release))

    service = start(sys.executable, "-m", "service")
    lines = [service.stdout.readline(), service.stdout.readline()]
    requests_before_release = len(collector.requests)
    release.set()
    code, stderr = finish(service)

    assert lines[0] == "tracked\n"
    assert lines[1].startswith("went on;")
    assert requests_before_release == 1
    assert (code, stderr) == (0, "")
    assert delivered("service") == sorted(map(str, range(100)))


@pytest.mark.parametrize(("ending", "code"), [("return", 0), ("exit", 3), ("flush and _exit", 3)])
def test_command_delivers_before_it_ends(start, delivered, ending, code):
    """A command-line tool delivers the few events that it tracks; its output and its exit code stay as they are."""
    command = start(sys.executable, "-m", "command", ending)

    stdout, stderr = command.communicate(timeout=LIMIT_SECONDS)

    assert (command.returncode, stdout, stderr) == (code, "tracked three events\n", "")
    assert delivered("Emitter") == delivered("AsyncEmitter") == ["0", "1", "2"]


def test_command_delivers_though_nobody_reads_its_output(start, delivered):
    """A command that dies of a closed pipe delivers what it tracked before."""
    reader, writer = os.pipe()
    os.close(reader)

    command = start(sys.executable, "-m", "command", "exit", stdout=writer)
    os.close(writer)
    code, stderr = finish(command)

    assert code == 1
    assert stderr.count("Traceback") == stderr.count("BrokenPipeError") == 1
    assert delivered("Emitter") == delivered("AsyncEmitter") == ["0", "1", "2"]


def test_command_delivers_without_standard_streams(start, delivered):
    """A daemon has neither stdin nor stdout nor stderr, and its connections get their numbers."""
    command = start("/bin/sh", "-c", 'exec "$0" -m command exit <&- >&- 2>&-', sys.executable)

    code, _ = finish(command)

    assert code == 3
    assert delivered("Emitter") == delivered("AsyncEmitter") == ["0", "1", "2"]
