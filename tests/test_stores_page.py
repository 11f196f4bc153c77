"""The page that helps to choose a store is right, and its recipes work as they are printed."""

import http.client
import importlib.util
import inspect
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from commands import LIMIT_SECONDS, environment
from support import eventually

from snowplow_tracker import EmitterConfiguration, RedisEventStore, Snowplow, SQLiteEventStore
from snowplow_tracker._cli import _parser, main
from snowplow_tracker._cli.forward import _TIMEOUT_SECONDS

pytestmark = pytest.mark.thorough

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs" / "stores.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
SAMPLES = [code for language, code in BLOCKS if language == "python"]
FILES = {match.group(1): code for code in SAMPLES for match in [re.match(r"# (\w+\.py)\n", code)] if match}

needs_unix = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals and forks of Unix")


def blocks(language):
    return [code for name, code in BLOCKS if name == language]


def needs(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"needs {package}, of the extra `hosts`"
    )


@pytest.fixture
def localized(collector, tmp_path):
    """Put this test's collector, and a folder of its own, in place of those of the page."""

    def replace(sample, **others):
        changes = {
            "https://collector.example.com": collector.url,
            "collector.example.com": collector.url,
            "/var/lib/shop": str(tmp_path),
            **others,
        }
        for old, new in changes.items():
            sample = sample.replace(old, new)
        return sample

    return replace


@pytest.fixture
def execute(localized):
    """Run samples one after the other in one namespace, which is returned."""

    def run(*samples, **others):
        namespace = {"__name__": "sample"}
        for sample in samples:
            exec(compile(localized(sample, **others), "<sample>", "exec"), namespace)
        return namespace

    Snowplow.reset()
    yield run
    Snowplow.reset()


def forward(url, collector):
    return main(["forward", "--once", "--store", url, "--endpoint", collector.url])


def test_samples_about_configuration_run(execute, localized, collector, monkeypatch):
    """What is tracked is delivered, and what is stored is there for the command of the page."""
    monkeypatch.setenv("EVENT_STORE", "")
    monkeypatch.delenv("EVENT_STORE")

    names = execute(*[sample for sample in SAMPLES if sample not in FILES.values()])

    assert [payload["url"] for payload in collector.payloads] == ["https://shop.example/"]
    assert names["emitter"].event_store.max_age == names["store"].max_age == 604_800
    command = next(line for line in blocks("sh") if "forward" in line)
    assert main([*shlex.split(localized(command))[1:], "--once"]) == 0
    assert [payload["url"] for payload in collector.payloads][1:] == ["https://shop.example/stored"]


@needs_unix
@needs("gunicorn")
@pytest.mark.parametrize("name", ["web.py", "storing_web.py"])
def test_recipe_for_gunicorn_delivers(localized, collector, tmp_path, name):
    """Workers that share a file deliver what they track, or leave it there for a forwarder."""
    (tmp_path / name).write_text(localized(FILES[name]), encoding="utf-8")
    lines = [line for code in blocks("sh") for line in code.splitlines()]
    (command,) = (shlex.split(line) for line in lines if line.startswith("gunicorn"))
    program, *options, _ = command
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, number = listener.getsockname()[1], listener.fileno()
        with subprocess.Popen(
            [sys.executable, "-m", program, *options, f"--bind=fd://{number}", f"{name[:-3]}:app"],
            cwd=str(tmp_path),
            env=environment(PYTHONPATH=str(REPOSITORY), XDG_RUNTIME_DIR=str(tmp_path)),
            pass_fds=[number],
            stderr=subprocess.DEVNULL,
        ) as gunicorn:
            try:
                for visit in range(20):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
                    connection.request("GET", f"/{visit}")
                    assert connection.getresponse().read() == b"Hello\n"
                    connection.close()
                gunicorn.send_signal(signal.SIGTERM)
                gunicorn.wait(LIMIT_SECONDS)
            finally:
                gunicorn.kill()
    by_workers = len(collector.payloads)

    assert forward(f"sqlite:///{tmp_path}/events.db", collector) == 0
    assert sorted(payload["url"] for payload in collector.payloads) == sorted(
        f"https://shop.example/{visit}" for visit in range(20)
    )
    assert (by_workers > 0) == (name == "web.py")


@needs("celery")
def test_recipe_for_celery_delivers(execute, collector, redis_url):
    """A task tracks into Redis, and sends from there."""
    names = execute(
        FILES["tasks.py"], **{"redis://redis.example:6379/0": "memory://", "redis://redis.example:6379/1": redis_url}
    )

    names["ship"]("o-1")
    names["tracker"].close()

    assert [payload["se_la"] for payload in collector.payloads] == ["o-1"]


def test_handler_that_stores_leaves_the_sending_to_a_forwarder(execute, collector, redis_url):
    """When the handler returns, Redis has the event."""
    names = execute(FILES["storing_handler.py"], **{"redis://redis.example:6379/1": redis_url})

    assert names["handler"]({"name": "a.png"}, None) == {"statusCode": 200}
    assert collector.payloads == []
    assert forward(redis_url, collector) == 0
    assert [payload["se_la"] for payload in collector.payloads] == ["a.png"]


@needs_unix
def test_recipe_for_cron_delivers(localized, collector, tmp_path):
    """The tool leaves its event in a file, and the line of the crontab sends it, and is silent but for a new file."""
    backup = tmp_path / "backup.py"
    backup.write_text(FILES["backup.py"], encoding="utf-8")
    script = tmp_path / ".local" / "bin" / "snowplow-tracker"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m snowplow_tracker "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    (line,) = blocks("")
    command = localized(line).split(maxsplit=5)[-1]
    home = environment(HOME=str(tmp_path), PYTHONPATH=str(REPOSITORY))

    for tool in ([], [sys.executable, str(backup)]):
        if tool:
            subprocess.run(tool, env=home, check=True, timeout=LIMIT_SECONDS)
        process = subprocess.run(["sh", "-c", command], env=home, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        assert (process.returncode, process.stdout) == (0, "")
        assert re.fullmatch("" if tool else r".+/events\.db did not exist, and was created\n", process.stderr)

    eventually(lambda: [payload["se_ac"] for payload in collector.payloads] == ["done"])


@needs_unix
@pytest.mark.parametrize(("name", "stored"), [("we ird?#%41ü", 1), ("file", 0)])
def test_tool_for_cron_goes_on_in_any_home(tmp_path, name, stored):
    """The name of the folder does not matter, and without a folder only the event is missing."""
    (tmp_path / "backup.py").write_text(FILES["backup.py"], encoding="utf-8")
    (tmp_path / "file").touch()
    home = tmp_path / name

    process = subprocess.run(
        [sys.executable, "backup.py"],
        cwd=tmp_path,
        env=environment(HOME=str(home), PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )

    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    files = [str(file.relative_to(home)) for file in home.rglob("*.db")]
    assert files == [".local/state/backup/events.db"] * stored
    assert [SQLiteEventStore(home / file).size() for file in files] == [1] * stored


@needs_unix
def test_store_of_the_page_keeps_the_contract(tmp_path):
    """Its tests pass as they are printed; `test_event_store_contract` has stores like it that fail them."""
    for name in ("folder_store.py", "test_folder_store.py"):
        (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(tmp_path)]

    process = subprocess.run(
        command, cwd=tmp_path, env=environment(PYTEST_ADDOPTS=""), capture_output=True, text=True, timeout=LIMIT_SECONDS
    )

    assert process.returncode == 0, process.stdout
    assert " skipped" not in process.stdout


def commands():
    """Return the arguments of each forwarder on the page."""
    lines = [line for language in ("sh", "ini", "") for code in blocks(language) for line in code.splitlines()]
    in_shells = [shlex.split(line.partition(" forward ")[2].partition(">")[0]) for line in lines if " forward " in line]
    in_yaml = re.findall(r"command: \[snowplow-tracker, forward(?:, )?(.*)\]", "".join(blocks("yaml")))
    return [*in_shells, *([word.strip('"') for word in filter(None, text.split(", "))] for text in in_yaml)]


def test_commands_are_understood():
    """Each option of a forwarder exists."""
    found = [_parser(None).parse_args(["forward", *arguments]) for arguments in commands()]

    assert len(found) == 5
    assert [options.once for options in found].count(True) == 1


def test_time_to_end_is_longer_than_the_timeout():
    """Who ends a forwarder waits for longer than it does."""
    times = re.findall(r"(?:terminationGracePeriodSeconds: |TimeoutStopSec=)(\d+)", PAGE)

    assert len(times) == 3
    assert min(map(int, times)) > _TIMEOUT_SECONDS


def test_table_of_options_is_complete():
    """It has each option that a store can be given, and says which store that is, with the right defaults."""
    rows = re.findall(r"^\| `(\w+)` \| (both|SQLite|Redis) \|", PAGE, flags=re.MULTILINE)
    of_both = {"SQLite": SQLiteEventStore, "Redis": RedisEventStore}
    signatures = {kind: inspect.signature(store.__init__).parameters for kind, store in of_both.items()}

    for kind, parameters in signatures.items():
        options = {name for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
        assert {name for name, whose in rows if whose in (kind, "both")} == options
    assert {parameters["buffer_capacity"].default for parameters in signatures.values()} == {1_000_000}
    assert {parameters["lease_seconds"].default for parameters in signatures.values()} == {120}
    assert [parameters["timeout"].default for parameters in signatures.values()] == [5, 1]


def test_files_of_the_page_are_all_tested():
    """A recipe that is added is run by a test."""
    assert list(FILES) == [
        "web.py",
        "storing_web.py",
        "tasks.py",
        "storing_handler.py",
        "backup.py",
        "folder_store.py",
        "test_folder_store.py",
    ]


def test_links_within_the_page_lead_to_a_heading():
    """The name of a heading in a link is spelled the way that GitHub does it."""
    headings = re.findall(r"^#+ (.*)$", PAGE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors


def test_options_of_the_page_are_those_of_an_emitter():
    """A recipe configures emitters by options that exist."""
    names = set(re.findall(r"(\w+)=", " ".join(re.findall(r"EmitterConfiguration\((.*?)\)", PAGE))))

    assert names <= set(inspect.signature(EmitterConfiguration).parameters)
