"""The page about production is right: its samples deliver as they are printed, and its mistakes do lose events."""

import asyncio
import contextlib
import dataclasses
import http.client
import importlib.util
import inspect
import itertools
import logging
import os
import random
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import threading

import pytest
from commands import LIMIT_SECONDS, environment, killed_in_the_end
from durable_store import DurableStore, Shelf
from pages import blocks, named_files, sections, text_of
from support import PACKAGE_FOLDERS, eventually

from snowplow_tracker import (
    AsyncEmitter,
    Emitter,
    EmitterStats,
    InMemoryEventStore,
    RedisEventStore,
    Snowplow,
    SQLiteEventStore,
    StructuredEvent,
    Tracker,
)
from snowplow_tracker._cli import main
from snowplow_tracker._lifecycle import EXIT_SECONDS
from snowplow_tracker._retry import next_delay
from snowplow_tracker.event_store import DEFAULT_BUFFER_CAPACITY
from snowplow_tracker.testing import Answer

pytestmark = pytest.mark.thorough

PAGE = "docs/running-in-production.md"
SECTIONS = sections(PAGE)
FILES = named_files(text_of(PAGE), "python")
OF_DJANGO = {name: FILES[name] for name in ("settings.py", "tracking.py", "views.py")}
LINES = re.findall(r"^\| `([A-Z]+)` \| `(\.\w+)` \| `(.*?)` \|", SECTIONS["What to alert on"], re.MULTILINE)
LOST_AT_EXIT = "Lost 3 payloads: the interpreter exits, and 5 s were not enough"
LEFT_AT_EXIT = "Left 3 payloads in the event store: the interpreter exits"
AT_THE_EXIT = {LOST_AT_EXIT, LEFT_AT_EXIT}
OF_STORES = {line for _, name, line in LINES if "event store" in line or name == "._sqlite_file"} - AT_THE_EXIT

needs_unix = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals and forks of Unix")

DJANGO = """
import django
from django.conf import settings
from django.test import Client
from django.urls import path

names = {"INSTALLED_APPS": []}
with open("settings.py", encoding="utf-8") as file:
    exec(file.read(), names)
names = {name: value for name, value in names.items() if name.isupper()}
settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="of a test", **names)
django.setup()

from views import add_to_basket

urlpatterns = [path("basket", add_to_basket)]
client = Client(raise_request_exception=False)
for sku in ("A-1", "B-7"):
    response = client.post("/basket", {"sku": sku}, HTTP_USER_AGENT="Browser/1")
    print(response.status_code, *getattr(response, "exc_info", None) or [])
"""

# The addresses of a project: imported by the server itself, and not by what restarts it.
TRACKING_URLS = """
from snowplow_tracker import Snowplow, StructuredEvent

Snowplow.get_tracker("shop").track(StructuredEvent("basket", "add", label="A-1"))
urlpatterns = []
"""

FLASK = """
from shop import app, tracker

client = app.test_client()
for sku in ("A-1", "B-7"):
    print(client.post("/basket", data={"sku": sku}, headers={"User-Agent": "Browser/1"}).status_code)
"""

# What a worker does by `--app`, with work for it.
CELERY = """
from celery.signals import worker_ready
from tasks import app, ship


@worker_ready.connect
def hand_over(**_):
    for number in range(3):
        ship.delay(str(number))
"""

STUCK_TASK = """
import os
import time

from celery.signals import worker_ready
from tasks import app, ship


@app.task({limits})
def get_stuck():
    ship("before")
    print("stuck", flush=True)
    time.sleep(1000)


@worker_ready.connect
def hand_over(**_):
    get_stuck.delay()
"""

# A run-time of functions: an invocation for each line of its input, and frozen by the test in between.
RUNTIME = """
import sys

from handler import handler

for name in sys.stdin:
    print(handler({"name": name.strip()}, None)["statusCode"], flush=True)
"""


def needs(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"needs {package}, of the extra `hosts`"
    )


@pytest.fixture
def start(tmp_path, collector):
    """Start a program in a folder with files of the page; what still runs after the test is killed."""

    def start(files, *arguments, **options):
        for name, code in files.items():
            (tmp_path / name).write_text(code, encoding="utf-8")
        inherited = {name: value for name, value in environment().items() if not name.startswith("COV")}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=str(tmp_path),
            env={
                **inherited,
                "SNOWPLOW_ENDPOINT": collector.url,
                "BROKER_URL": "memory://",
                "PYTHONPATH": PACKAGE_FOLDERS,
                "PYTHONUNBUFFERED": "1",
                # Where gunicorn puts a socket.
                "XDG_RUNTIME_DIR": str(tmp_path),
                **options.pop("variables", {}),
            },
            **{
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "encoding": "utf-8",
                "start_new_session": True,
                **options,
            },
        )
        processes.append(process)
        return process

    with killed_in_the_end() as processes:
        yield start


@pytest.fixture
def run(start):
    """Run such a program to its end; return the exit code, and what it has written."""

    def run(files, *arguments, **options):
        process = start(files, *arguments, **options)
        stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
        return process.returncode, stdout, stderr

    return run


@pytest.fixture
def labels(collector):
    """Return the labels of the events that arrived."""
    return lambda: [payload["se_la"] for payload in collector.payloads]


def end(process, number=signal.SIGTERM):
    process.send_signal(number)
    process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode


def changed(name, *changes):
    """Return a file of the page with a mistake in it."""
    code = FILES[name]
    for old, new in changes:
        assert old in code
        code = code.replace(old, new)
    return code


def test_collector_can_be_tried_from_the_command_line(collector, monkeypatch):
    """The command of the list delivers one event."""
    (command,) = re.findall(r"`snowplow-tracker (track [^`]+)`", SECTIONS["Before you go live"])
    monkeypatch.setenv("SNOWPLOW_ENDPOINT", collector.url)

    assert main(shlex.split(command)) == 0
    assert [payload["se_ac"] for payload in collector.payloads] == ["check"]


@needs("django")
def test_django_delivers(run, collector, labels):
    """Views find the tracker of the application, and what they track is out at the end of the process."""
    code, stdout, stderr = run({**OF_DJANGO, "drive.py": DJANGO}, "drive.py")

    assert (code, stdout.split(), stderr) == (0, ["204", "204"], "")
    assert labels() == ["A-1", "B-7"]
    assert [(payload["p"], payload["ua"]) for payload in collector.payloads] == [("srv", "Browser/1")] * 2


@needs("django")
def test_django_works_without_an_endpoint(run):
    """The application starts and serves, and tracks nothing."""
    drive = f'import os\n\ndel os.environ["SNOWPLOW_ENDPOINT"]\n{DJANGO}'

    assert run({**OF_DJANGO, "drive.py": drive}, "drive.py") == (0, "204\n204\n", "")


@needs("django")
@pytest.mark.parametrize(("text", "goes"), [("gettext_lazy('tea')", False), ("str(gettext_lazy('tea'))", True)])
def test_lazy_strings_of_django_have_no_json(run, text, goes):
    """They raise, and `str` helps."""
    program = f"""
from django.conf import settings
from django.utils.translation import gettext_lazy

from snowplow_tracker import SelfDescribing, SelfDescribingJson, Tracker
from snowplow_tracker.testing import RecordingEmitter

settings.configure(USE_I18N=False)
event = SelfDescribing(SelfDescribingJson("iglu:com.acme/tea/jsonschema/1-0-0", {{"name": {text}}}))
Tracker("shop", RecordingEmitter()).track(event)
"""

    code, _, stderr = run({"lazy.py": program}, "lazy.py")

    assert (code == 0) == goes
    assert ("there is no JSON for the type __proxy__" in stderr) != goes


@needs_unix
@needs("django")
@pytest.mark.parametrize(("number", "arrived"), [(signal.SIGTERM, []), (signal.SIGINT, ["A-1"])])
def test_server_for_development_sends_after_an_interrupt_only(run, start, tmp_path, labels, number, arrived):
    """What restarts the server kills it at SIGTERM; Ctrl-C reaches both."""
    assert run({}, "-m", "django", "startproject", "shop", ".") == (0, "", "")
    with (tmp_path / "shop" / "settings.py").open("a", encoding="utf-8") as settings:
        settings.write(FILES["settings.py"])
    tracking = changed("tracking.py", ("flush_interval=5", ""))
    files = {"tracking.py": tracking, "shop/urls.py": TRACKING_URLS}
    server = start(
        files,
        *("manage.py", "runserver", "--skip-checks", "0"),
        stderr=subprocess.DEVNULL,
        # A shell that runs the tests in the background has all of them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )

    assert any("Quit the server" in line for line in server.stdout)
    os.killpg(server.pid, number) if arrived else server.send_signal(number)
    server.communicate(timeout=LIMIT_SECONDS)

    assert labels() == arrived


@needs("django")
def test_tracker_that_a_view_creates_fails_the_second_request(run, labels):
    """The namespace is taken by then."""
    in_view = ("    tracker = Snowplow", "    TrackingConfig.ready(None)\n    tracker = Snowplow")
    view = f"from tracking import TrackingConfig\n\n{changed('views.py', in_view)}"
    settings = changed("settings.py", ('["tracking.TrackingConfig"]', "[]"))

    code, stdout, _ = run({**OF_DJANGO, "settings.py": settings, "views.py": view, "drive.py": DJANGO}, "drive.py")

    first, second = stdout.splitlines()
    assert (code, first) == (0, "204")
    assert second.startswith("500 <class 'TypeError'> ")
    assert labels() == ["A-1"]


@needs("flask")
def test_flask_delivers(run, collector, labels):
    """The tracker of the module delivers for all requests, at the end of the process at the latest."""
    code, stdout, stderr = run({"shop.py": FILES["shop.py"], "drive.py": FLASK}, "drive.py")

    assert (code, stdout.split(), stderr) == (0, ["204", "204"], "")
    assert labels() == ["A-1", "B-7"]
    assert [(payload["p"], payload["ua"]) for payload in collector.payloads] == [("srv", "Browser/1")] * 2


@needs("flask")
def test_tracker_that_is_closed_after_a_request_drops_the_next_event(run, labels):
    """`teardown_appcontext` is called after each request."""
    closing = "\n\n@app.teardown_appcontext\ndef close(error):\n    tracker.close()\n"
    logging_too = f"import logging\n\nlogging.basicConfig()\n{FLASK}"

    code, stdout, stderr = run({"shop.py": FILES["shop.py"] + closing, "drive.py": logging_too}, "drive.py")

    assert (code, stdout.split()) == (0, ["204", "204"])
    assert "Dropped 1 payloads: the emitter is closed" in stderr
    assert labels() == ["A-1"]


def post(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
    try:
        connection.request("POST", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def listener():
    """A socket that a server inherits; visitors wait in it until the server is there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@needs_unix
@needs("fastapi")
@needs("uvicorn")
@pytest.mark.parametrize("mistake", [False, True])
def test_fastapi_delivers_if_its_lifespan_closes_the_tracker(start, listener, labels, mistake):
    """After SIGTERM uvicorn ends the lifespan, but leaves no time for exit handlers."""
    service, number = FILES["service.py"], listener.fileno()
    if mistake:
        statement = r"with (Tracker\(.*\)) as app.state.tracker:\n        yield"
        service, count = re.subn(statement, r"app.state.tracker = \1\n    yield", service)
        assert count == 1

    server = start({"service.py": service}, "-m", "uvicorn", "service:app", f"--fd={number}", pass_fds=[number])
    status = post(listener.getsockname()[1], "/basket/B-7")
    code = end(server)

    assert (status, code) == (204, -signal.SIGTERM)
    assert labels() == ([] if mistake else ["B-7"])


WORKER = "-m celery --app=work worker --pool=prefork --concurrency=1 --without-gossip --without-mingle".split()


@needs_unix
@needs("celery")
def test_celery_delivers(start, labels):
    """What tasks of a prefork pool track is out when the worker has shut down, or earlier."""
    files = {"tasks.py": FILES["tasks.py"], "work.py": CELERY}
    worker = start(files, *WORKER, "--loglevel=INFO", stderr=subprocess.STDOUT)

    tasks_done = (line for line in worker.stdout if "succeeded" in line)
    assert len(list(itertools.islice(tasks_done, 3))) == 3
    assert end(worker) == 0
    assert sorted(labels()) == ["0", "1", "2"]


@needs_unix
@needs("celery")
@pytest.mark.parametrize(
    ("limits", "arrived"), [("time_limit=1", []), ("soft_time_limit=1, time_limit=30", ["before"])]
)
def test_hard_time_limit_loses_what_waits_in_the_process(start, labels, collector, limits, arrived):
    """Its process is killed before a retry is due; a soft limit ends the task only."""
    collector.respond_with(Answer(503, headers={"Retry-After": "1"}))
    tasks = changed("tasks.py", ("EmitterConfiguration(flush_interval=5)", "EmitterConfiguration()"))
    files = {"tasks.py": tasks, "work.py": STUCK_TASK.format(limits=limits)}
    worker = start(files, *WORKER, stderr=subprocess.STDOUT)

    for line in worker.stdout:
        if "TimeLimitExceeded" in line or "exited with" in line:
            break
    end(worker)

    assert labels() == arrived


@needs_unix
@needs("gunicorn")
def test_gunicorn_delivers(start, listener, labels, collector):
    """The command of the page serves visitors; their events are out when the workers have shut down."""
    (command,) = blocks(SECTIONS["gunicorn"], "sh")
    program, *arguments = shlex.split(command)
    number = listener.fileno()

    gunicorn = start({"web.py": FILES["web.py"]}, "-m", program, f"--bind=fd://{number}", *arguments, pass_fds=[number])
    statuses = [post(listener.getsockname()[1], f"/{visit}") for visit in range(8)]
    code = end(gunicorn)

    assert (statuses, code) == ([204] * 8, 0)
    assert sorted(payload["url"] for payload in collector.payloads) == [
        f"https://shop.example/{visit}" for visit in range(8)
    ]


@needs_unix
@needs("gunicorn")
@pytest.mark.parametrize("emitter_class", ["Emitter", "AsyncEmitter"])
def test_worker_with_a_plain_emitter_is_killed_when_the_collector_hangs(start, listener, emitter_class):
    """The visitor who completes a batch waits for the collector until gunicorn loses patience."""
    web = changed("web.py", ("AsyncEmitter", emitter_class))
    number, port = listener.fileno(), listener.getsockname()[1]
    options = [f"--bind=fd://{number}", "--workers=1", "--timeout=2"]
    # It takes connections, because the system does, and never answers.
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        endpoint = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        gunicorn = start(
            {"web.py": web},
            *["-m", "gunicorn", *options, "web:app"],
            pass_fds=[number],
            stderr=subprocess.STDOUT,
            variables={"SNOWPLOW_ENDPOINT": endpoint},
        )
        statuses = [post(port, f"/{visit}") for visit in range(9)]
        if emitter_class == "Emitter":
            # Older versions break the connection off.
            with contextlib.suppress(http.client.HTTPException):
                assert post(port, "/9") == 500
            assert any("SIGKILL" in line for line in gunicorn.stdout)
        else:
            statuses.append(post(port, "/9"))

    assert statuses == [204] * len(statuses)


def test_function_has_delivered_when_its_handler_returns(start, labels):
    """Each invocation delivers, so it does not matter whether the instance is used again."""
    instance = start({"handler.py": FILES["handler.py"], "runtime.py": RUNTIME}, "runtime.py")

    for name in ("a.png", "b.png"):
        instance.stdin.write(f"{name}\n")
        instance.stdin.flush()
        assert instance.stdout.readline() == "200\n"
        assert labels()[-1] == name


def test_function_waits_two_seconds_for_a_collector(run, collector):
    """An outage does not fail the invocation."""
    collector.refuse_connections()

    code, stdout, _ = run(
        {
            "handler.py": changed("handler.py", ("request_timeout=2", "request_timeout=2, flush_on_exit=False")),
            "runtime.py": f"{RUNTIME.replace('sys.stdin', '[str()]')}",
        },
        "runtime.py",
    )

    assert (code, stdout) == (0, "200\n")


@needs_unix
def test_function_that_does_not_flush_loses_its_event(start, labels):
    """What waits in an instance is lost when that is frozen, and then thrown away."""
    handler = changed("handler.py", ("tracker.flush(timeout=2)", "pass"))
    instance = start({"handler.py": handler, "runtime.py": RUNTIME}, "runtime.py")

    instance.stdin.write("a.png\n")
    instance.stdin.flush()
    assert instance.stdout.readline() == "200\n"
    instance.send_signal(signal.SIGSTOP)
    instance.kill()
    instance.wait(LIMIT_SECONDS)

    assert labels() == []


def test_command_line_tool_delivers(run, labels):
    """It ends with success when all is out."""
    assert run({"import_orders.py": FILES["import_orders.py"]}, "import_orders.py", "o-1", "o-2") == (0, "", "")
    assert labels() == ["o-1", "o-2"]


def test_command_line_tool_tells_what_is_not_out(run, collector, labels):
    """Its exit code and its output say that events are missing."""
    collector.refuse_connections()
    tool = changed("import_orders.py", ("timeout=30", "timeout=0.1"), ('"])', '"], flush_on_exit=False)'))

    code, stdout, stderr = run({"import_orders.py": tool}, "import_orders.py", "o-1")

    assert (code, stdout, stderr) == (1, "", "some events were not delivered\n")


@pytest.mark.parametrize(("order_id", "statuses"), [("dropped", [503]), ("refused", [400])])
def test_command_line_tool_tells_what_is_lost(run, collector, order_id, statuses):
    """What was dropped or refused for good is not left to be sent, and is missing all the same."""
    collector.respond_with(*statuses)
    tool = changed("import_orders.py", ('"])', '"], batch_size=1, buffer_capacity=1)'))

    outcome = run({"import_orders.py": tool}, "import_orders.py", "first", *["second"] * len(statuses))

    assert outcome == (1, "", "some events were not delivered\n")


@pytest.mark.parametrize("is_mistaken", [False, True])
def test_replay_of_more_events_than_the_buffer_holds(start, collector, labels, tmp_path, is_mistaken):
    """A collector that is down at first gets all of them; without the flush, some are dropped."""
    count = DEFAULT_BUFFER_CAPACITY + 2_000
    orders = tmp_path / "orders.jsonl"
    orders.write_text("".join(f'{{"id": "{number}", "shipped_at": {number}}}\n' for number in range(count)))
    mistake = [("tracker.flush(timeout=3600)", "pass")] if is_mistaken else []
    replay = changed("replay.py", ("batch_size=500", "batch_size=500, max_retry_delay_seconds=0.2"), *mistake)
    collector.respond_always(503)

    with orders.open() as lines:
        program = start({"replay.py": f"import logging\nlogging.basicConfig()\n{replay}"}, "replay.py", stdin=lines)
    collector.wait_for_requests(5, LIMIT_SECONDS)
    if is_mistaken:
        assert any("the buffer is full" in line for line in program.stderr)
    collector.respond_always(200)
    _, stderr = program.communicate(timeout=LIMIT_SECONDS)

    if is_mistaken:
        assert program.returncode == 1
        assert re.fullmatch(r"left 0, dropped [1-9]\d*, rejected 0", stderr.splitlines()[-1])
    else:
        assert program.returncode == 0
        assert labels() == [str(number) for number in range(count)]
        assert [payload["ttm"] for payload in collector.payloads[:2]] == ["0", "1"]


def test_tool_leaves_to_its_next_run_what_is_not_out(run, collector, tmp_path):
    """The collector is down in the first run and up in the second, and gets the events of both."""
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    collector.refuse_connections()
    first = run({"tool.py": FILES["tool.py"]}, "tool.py", variables=home)
    collector.accept_connections()

    second = run({}, "tool.py", variables=home)

    assert (first, second) == ((0, "", ""),) * 2
    assert len({payload["eid"] for payload in collector.payloads}) == len(collector.payloads) == 2


def test_tool_goes_on_where_it_cannot_have_a_folder(run, collector, tmp_path):
    """A home that is no folder costs the event, and nothing else."""
    home = tmp_path / "home"
    home.touch()

    ended = run({"tool.py": FILES["tool.py"]}, "tool.py", variables={"HOME": str(home), "USERPROFILE": str(home)})

    assert ended == (0, "", "")
    assert collector.payloads == []


@pytest.mark.parametrize(
    ("ending", "arrived"),
    [
        ("", ["o-1"]),
        ("raise SystemExit(3)", ["o-1"]),
        ("1 / 0", ["o-1"]),
        ("os._exit(0)", []),
        pytest.param('os.execv(sys.executable, [sys.executable, "-c", ""])', [], marks=needs_unix),
        pytest.param("signal.raise_signal(signal.SIGTERM)", [], marks=needs_unix),
        pytest.param("signal.raise_signal(signal.SIGKILL)", [], marks=needs_unix),
    ],
)
def test_end_without_exit_handlers_loses_events(run, labels, ending, arrived):
    """The exit of the interpreter delivers, an exception included; what bypasses it does not."""
    code, _, _ = FILES["import_orders.py"].partition("is_all_out, stats")
    assert code != FILES["import_orders.py"]

    run({"tool.py": f"import signal\n{code}{ending}\n"}, "tool.py", "o-1")

    assert labels() == arrived


@needs_unix
def test_asyncio_program_delivers_after_sigterm(start, collector):
    """The loop ends in good order, and closes the tracker."""
    listener = changed("listener.py", ("await stopped.wait()", 'print("ready")\n        await stopped.wait()'))
    program = start({"listener.py": listener}, "listener.py")

    assert program.stdout.readline() == "ready\n"
    assert end(program) == 0
    assert [payload["se_ac"] for payload in collector.payloads] == ["start"]


@pytest.mark.parametrize(("emitter_class", "delivered"), [(Emitter, 0), (AsyncEmitter, 1)])
def test_plain_emitter_stops_the_event_loop(collector, emitter_class, delivered):
    """A collector that answers only when the loop goes on never answers a plain `Emitter`."""
    release = threading.Event()
    collector.respond_with(Answer(hold=release))

    async def main():
        asyncio.get_running_loop().call_soon(release.set)
        emitter = emitter_class(collector.url, batch_size=1, request_timeout=1)
        emitter.input({"e": "pv"})
        if emitter_class is AsyncEmitter:
            await asyncio.get_running_loop().run_in_executor(None, emitter.sync_flush)
        return emitter.stats().delivered

    assert asyncio.run(main()) == delivered


@needs_unix
@pytest.mark.parametrize("with_handler", [True, False])
def test_handler_for_sigterm_has_events_sent(start, labels, with_handler):
    """With the handler of the page the program exits in good order; without one it is killed."""
    tool, _, _ = FILES["import_orders.py"].partition("is_all_out, stats")
    handler = FILES["worker.py"] if with_handler else "import signal\n"
    program = start({"tool.py": f'{handler}{tool}print("ready")\nsignal.pause()\n'}, "tool.py", "o-1")

    assert program.stdout.readline() == "ready\n"
    code = end(program)

    assert code == (128 + signal.SIGTERM if with_handler else -signal.SIGTERM)
    assert labels() == (["o-1"] if with_handler else [])


OUTAGE = """
import logging
import os
import sys

from snowplow_tracker import AsyncEmitter, EmitterConfiguration, PageView, Snowplow

logging.basicConfig(level=logging.INFO)
tracker = Snowplow.create_tracker(
    "shop",
    os.environ["SNOWPLOW_ENDPOINT"],
    emitter_config=EmitterConfiguration(event_store=sys.argv[1]),
    emitter_class=AsyncEmitter,
)
for number in range(3):
    tracker.track(PageView("https://shop.example/"))
"""


def test_restart_in_an_outage_loses_what_waits_in_memory(run, collector):
    """There are five seconds, and then the line that the page shows."""
    collector.refuse_connections()
    (shown,) = blocks(SECTIONS["The collector is down for an hour"], "text")

    code, _, stderr = run({"outage.py": OUTAGE}, "outage.py", "memory:")

    assert code == 0
    assert shown in stderr
    assert LOST_AT_EXIT in logged(stderr)


def test_restart_in_an_outage_loses_nothing_from_a_file(run, collector):
    """The first process that tracks sends what waits from before."""
    # So long that no retry is under way in the end.
    collector.respond_always(Answer(503, headers={"Retry-After": "60"}))
    code, _, stderr = run({"outage.py": OUTAGE}, "outage.py", "sqlite:///events.db")

    assert code == 0
    assert LEFT_AT_EXIT in logged(stderr)
    collector.respond_always(200)
    assert run({"outage.py": OUTAGE}, "outage.py", "sqlite:///events.db")[0] == 0

    assert len(collector.payloads) == 6


def test_hour_of_an_outage_makes_as_many_requests_as_the_page_says():
    """The backoff is played with a clock of its own, for many processes."""
    maximum = Emitter("collector.example.com").max_retry_delay_seconds

    def play(seed):
        jitter, seconds, delays = random.Random(seed).random, 0.0, [0.0]
        while seconds < 3600:
            delays.append(next_delay(delays[-1], maximum, jitter=jitter))
            seconds += delays[-1]
        return delays[1:]

    (said,) = re.findall(r"In an hour that makes about (\d+) requests", text_of(PAGE))
    hours = [play(seed) for seed in range(200)]

    assert sum(map(len, hours)) / len(hours) == pytest.approx(int(said), abs=2)
    assert all(hour[0] <= 1 for hour in hours)
    assert all(30 <= delay <= 60 for hour in hours for delay in hour[8:])


def test_figures_of_the_page_are_those_of_the_library():
    """Defaults that the page names are what they are in the code."""
    page = text_of(PAGE)
    store, emitter = InMemoryEventStore(), Emitter("collector.example.com")
    of_stores = [inspect.signature(kind.__init__).parameters for kind in (SQLiteEventStore, RedisEventStore)]

    assert (store.buffer_capacity, emitter.max_request_bytes, emitter.batch_size) == (10_000, 900_000, 10)
    assert "takes 10,000 events" in page
    assert "2.7\n  events per second" in page
    assert int(3600 * 2.7) < store.buffer_capacity < int(3600 * 2.8)
    assert {parameters["buffer_capacity"].default for parameters in of_stores} == {1_000_000}
    assert set(re.findall(r"(\d+) s (?:of trying|together|were not enough)", page)) == {f"{EXIT_SECONDS:g}"}


def test_status_of_an_outage_outlives_it_where_another_emitter_sends(collector):
    """Of a shared store all is sent, and the emitter that could not send it knows of no other status."""
    shelf = Shelf()
    collector.respond_with(503, 200)
    one, other = [Emitter(collector.url, event_store=DurableStore(shelf), flush_on_exit=False) for _ in range(2)]
    one.input({"e": "pv"})
    one.sync_flush()
    one.retry_timer.cancel()

    other.sync_flush()

    stats = one.stats()
    assert (stats.last_status, stats.buffered, other.stats().delivered) == (503, 0, 1)


def test_each_figure_has_a_rule():
    """The table is complete, and the sample gives what it speaks of."""
    rows = re.findall(r"^\| (`.*?`) \| (?:a warning|an alert|no rule)", SECTIONS["What to alert on"], re.MULTILINE)
    names = {"__name__": "figures"}
    Snowplow.reset()
    tracker = Snowplow.create_tracker("shop", "collector.example.com")

    exec(FILES["figures.py"], names)
    figures = names["figures"]()
    Snowplow.reset()

    assert sorted(name.strip("`") for name in rows) == sorted(field.name for field in dataclasses.fields(EmitterStats))
    assert figures == [dataclasses.asdict(tracker.emitters[0].stats())]


class OddEvent(StructuredEvent):
    """An event with a field that no pipeline knows."""

    def build_payload(self, *arguments, **options):
        payload = super().build_payload(*arguments, **options)
        payload.add("x", "y")
        return payload


def report(*arguments):
    raise ZeroDivisionError


def lines_of_the_table(*records):
    """Return the lines of the page's table that are among some records of the log: level, name and message."""
    found = set()
    for level, name, line in LINES:
        # What differs from one time to the next: addresses, times, counts, and what the page leaves out.
        parts = re.split(r"0x7f|\d\.\d\d|\d+(?= payloads)|(?:https://)?\.\.\.", line)
        pattern = ".+".join(map(re.escape, parts))
        about = (level, f"snowplow_tracker{name}")
        if any(about == record[:2] and re.fullmatch(pattern, record[2]) for record in records):
            found.add(line)
    return found


def captured(caplog):
    """Return the lines of the table that this process has written."""
    return lines_of_the_table(*[(record.levelname, record.name, record.getMessage()) for record in caplog.records])


def logged(stderr):
    """Return the lines of the table that a program has written by `logging.basicConfig`."""
    return lines_of_the_table(*[tuple(line.split(":", 2)) for line in stderr.splitlines() if line.count(":") > 1])


def test_lines_of_the_log_are_those_of_the_page(collector, caplog):
    """Each line of the table is written when the table says so, with its level and by its logger."""
    caplog.set_level(logging.DEBUG, logger="snowplow_tracker")
    event, options = StructuredEvent("basket", "add"), {"max_retry_delay_seconds": 60, "flush_on_exit": False}

    Snowplow.reset()
    Snowplow.get_tracker("shop")
    Snowplow.create_tracker("shop", collector.url)
    Snowplow.reset()
    collector.respond_with(400, 503, 200)
    with Tracker("shop", Emitter(collector.url, on_failure=report, **options)) as tracker:
        for _ in range(2):
            for _ in range(10):
                tracker.track(event)
        tracker.track(OddEvent("basket", "add"))
        tracker.flush()
    tracker.track(event)
    collector.refuse_connections()
    tracker = Tracker("shop", Emitter(collector.url, buffer_capacity=3, **options))
    for _ in range(4):
        tracker.track(event)
    tracker.close(timeout=0)

    assert captured(caplog) == {line for _, _, line in LINES} - AT_THE_EXIT - OF_STORES


def test_lines_about_stores_are_those_of_the_page(collector, caplog, tmp_path):
    """Each of them is written when a store fails, recovers, or loses something."""
    caplog.set_level(logging.INFO, logger="snowplow_tracker")
    path, failing = tmp_path / "events.db", DurableStore()
    failing.trouble = {"add_event": OSError(), "get_events_batch": OSError()}
    emitter = Emitter(collector.url, event_store=failing)
    emitter.input({"e": "pv"})
    emitter.input({"e": "pv"})
    emitter.sync_flush()
    emitter.sync_flush()

    store = SQLiteEventStore(path, max_age=86400, timeout=0)
    store.add_event({"e": "pv"})
    batch = store.get_events_batch()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.cleanup(batch, False)
        other.execute("ROLLBACK")
        store.add_event({"e": "pv"})
        other.execute("UPDATE payload SET added_at = 0")
    store.get_events_batch()
    store.close()
    path.write_text("no database, but longer than the head of one" * 10, encoding="utf-8")
    store.add_event({"e": "pv"})
    store.close()

    eventually(lambda: captured(caplog) == OF_STORES)


def test_samples_about_the_log_show_losses():
    """Both configurations let the line through that tells of a recovery, and of course those of losses."""
    samples = [sample for sample in blocks(SECTIONS["What to alert on"], "python") if "logging" in sample.lower()]
    program = "{}\nimport logging.config\nif 'LOGGING' in dir(): logging.config.dictConfig(LOGGING)\n"
    say = "logging.getLogger('snowplow_tracker.emitters').{}('The collector takes payloads again')"

    assert len(samples) == 2
    for sample in samples:
        for level in ("info", "error"):
            code = f"import snowplow_tracker\n{program.format(sample)}{say.format(level)}"
            done = subprocess.run(
                [sys.executable, "-c", code],
                env=environment(PYTHONPATH=PACKAGE_FOLDERS),
                capture_output=True,
                encoding="utf-8",
                check=True,
                timeout=LIMIT_SECONDS,
            )
            assert "The collector takes payloads again" in done.stderr


def test_each_sample_is_one_of_those_above():
    """A sample that is added is run by a test."""
    assert list(FILES) == [
        "settings.py",
        "tracking.py",
        "views.py",
        "shop.py",
        "service.py",
        "tasks.py",
        "web.py",
        "handler.py",
        "import_orders.py",
        "tool.py",
        "replay.py",
        "listener.py",
        "figures.py",
        "worker.py",
    ]
    assert len(blocks(text_of(PAGE), "python")) == len(FILES) + 2
