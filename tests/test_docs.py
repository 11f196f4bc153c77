"""The recipes of the pages about testing and about the command line work as they are printed."""

import gzip
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import requests
from pages import blocks, named_files, sections, text_of
from support import PACKAGE_FOLDERS, PYTEST_PLUGIN

from snowplow_tracker import Emitter, PageView, Snowplow, StoreOnlyEmitter, Tracker
from snowplow_tracker._cli import _parser

pytestmark = pytest.mark.thorough

README = sections("README.md")
RECIPES = sections("docs/testing.md")
COMMANDS = sections("docs/command-line.md")
PRODUCTION = sections("docs/running-in-production.md")
LIMIT_SECONDS = 50

# The section whose test is run by a command of its own, and those with samples that are no files of tests.
BY_DJANGO = "Django"
WITH_UNNAMED_SAMPLES = ["unittest", "The REST API", "Watch events live"]

URLS_OF_DJANGO = """
from django.urls import path
from views import add_to_basket

urlpatterns = [path("basket", add_to_basket)]
"""

# Assertions fail as they do after their time is up, but at once.
IMPATIENT = """
from snowplow_tracker.testing import LocalCollector

LocalCollector._wait_until = lambda self, condition, timeout: condition()
"""

# Does what the tracker in the page would do in a browser: asks first, because the page comes from elsewhere.
STAND_IN_FOR_A_BROWSER = """
import re
import uuid

import pytest
import requests

PATH = "/com.snowplowanalytics.snowplow/tp2"


class Page:
    def goto(self, url):
        words = r'newTracker\\("(.+?)", "(.+?)", { appId: "(.+?)" }\\);\\s+trackPageView\\(\\);'
        name, endpoint, application = re.search(words, requests.get(url).text).groups()
        origin = {"Origin": url.rstrip("/")}
        assert requests.options(endpoint + PATH, headers=origin).headers["Access-Control-Allow-Origin"] in url
        payload = {"e": "pv", "p": "web", "tv": "js-4.10.1", "tna": name, "aid": application, "url": url}
        envelope = {
            "schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4",
            "data": [{**payload, "eid": str(uuid.uuid4())}],
        }
        requests.post(endpoint + PATH, json=envelope, headers=origin).raise_for_status()


@pytest.fixture
def page():
    return Page()
"""

needs_unix = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell and the signals of Unix")


@pytest.fixture
def project(pytester, monkeypatch):
    """Put the named files of a section into an empty folder; return what runs pytest there."""
    monkeypatch.setenv("PYTHONPATH", PACKAGE_FOLDERS)
    # A run inside of this one must not take over what this one is told.
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def create(title, *changes, **more_modules):
        files = named_files(RECIPES[title], "python", "ini")
        files.update({f"{name}.py": code for name, code in more_modules.items()})
        if any("from flask" in code for code in files.values()) and not importlib.util.find_spec("flask"):
            pytest.skip("needs flask, of the extra `hosts`")
        for name, code in files.items():
            for old, new in changes:
                code = code.replace(old, new)
            (pytester.path / name).write_text(code, encoding="utf-8")
        for schema in map(json.loads, blocks(RECIPES[title], "json")):
            about = schema["self"]
            folder = pytester.path / "schemas" / about["vendor"] / about["name"] / about["format"]
            folder.mkdir(parents=True)
            (folder / about["version"]).write_text(json.dumps(schema), encoding="utf-8")

        def run(*options):
            return pytester.runpytest_subprocess("-p", PYTEST_PLUGIN, *options, timeout=LIMIT_SECONDS)

        return run

    return create


@pytest.fixture
def run_samples(capsys):
    """Run the Python samples of a section in this process; return what they print."""

    def run(title, *changes):
        namespace = {"__name__": "sample"}
        for sample in blocks(RECIPES[title], "python"):
            for old, new in changes:
                assert old in sample
                sample = sample.replace(old, new)
            exec(compile(sample, f"<{title}>", "exec"), namespace)
        return capsys.readouterr().out.splitlines()

    Snowplow.reset()
    yield run
    Snowplow.reset()


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Run a sample in a shell, in an empty folder, with the command at hand; events go to a URL."""
    script = tmp_path / "bin" / "snowplow-tracker"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m snowplow_tracker "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", PACKAGE_FOLDERS)
    monkeypatch.chdir(tmp_path)

    def run(sample, url):
        command = ["sh", "-euc", sample.replace("http://127.0.0.1:9090", url)]
        return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=LIMIT_SECONDS, check=True).stdout

    return run


def count_of_tests(title):
    """Tell how many tests a section has."""
    return sum(len(re.findall(r"^ *def test_", code, re.MULTILINE)) for code in files_of_tests(title).values())


def files_of_tests(title):
    return {name: code for name, code in named_files(RECIPES[title], "python").items() if "def test_" in code}


def masked(text):
    """Put the same id in place of each event's own."""
    return re.sub(r"eid [0-9a-f-]{36}", "eid ...", text)


@pytest.mark.parametrize("title", [title for title in RECIPES if files_of_tests(title) and title != BY_DJANGO])
def test_recipe_passes(project, title):
    """The files of a section, in a folder of their own, are tests that pass."""
    run = project(title, conftest=STAND_IN_FOR_A_BROWSER if "page.goto" in RECIPES[title] else "")

    run().assert_outcomes(passed=count_of_tests(title))


@pytest.fixture
def django_project(pytester, monkeypatch, collector):
    """A project as Django makes it, with the files of both pages, and the endpoint of a collector in the environment.

    Returns:
        A function that runs a command of it.
    """
    pytest.importorskip("django")
    monkeypatch.setenv("PYTHONPATH", PACKAGE_FOLDERS)
    monkeypatch.setenv("SNOWPLOW_ENDPOINT", collector.url)
    assert pytester.run(sys.executable, "-m", "django", "startproject", "shop", ".").ret == 0
    files = {**named_files(PRODUCTION[BY_DJANGO], "python"), **named_files(RECIPES[BY_DJANGO], "python")}
    with (pytester.path / "shop" / "settings.py").open("a", encoding="utf-8") as settings:
        settings.write(files.pop("settings.py"))
    for name, code in {**files, "shop/urls.py": URLS_OF_DJANGO}.items():
        (pytester.path / name).write_text(code, encoding="utf-8")

    def run(command):
        python, *arguments = shlex.split(command)
        assert python == "python"
        return pytester.run(sys.executable, *arguments, timeout=LIMIT_SECONDS)

    return run


def test_recipe_of_django_passes(django_project, collector):
    """With the application of the other page, the command runs the test in Django's own way, whatever is exported."""
    (command,) = blocks(RECIPES[BY_DJANGO], "")

    result = django_project(command)

    assert result.ret == 0
    result.stderr.fnmatch_lines(["Ran 1 test in *", "OK"])
    assert collector.payloads == []


def test_recipe_of_django_fails_when_the_application_has_its_tracker(django_project, collector):
    """With other settings it says why, and sends nothing to the collector of the environment."""
    result = django_project("python manage.py test")

    assert result.ret == 1
    result.stderr.fnmatch_lines(["TypeError: namespace must be free, *"])
    assert collector.payloads == []


def test_commands_of_django_run_without_an_endpoint(django_project, monkeypatch):
    """The application of the other page needs none to start."""
    monkeypatch.delenv("SNOWPLOW_ENDPOINT")

    assert django_project("python manage.py makemigrations").ret == 0


def test_recipe_of_unittest_passes_without_pytest(project, pytester):
    """A test for unittest is run by unittest."""
    project("unittest")

    result = pytester.runpython("test_basket.py")

    assert result.ret == 0
    result.stderr.fnmatch_lines([f"Ran {count_of_tests('unittest')} tests in *", "OK"])


@pytest.mark.parametrize(
    ("title", "change"),
    [
        ("A first test", ('"se_label": "green tea"', '"se_label": "black tea"')),
        ("Schemas", ('"total": 42})\n    snowplow', '"total": "42"})\n    snowplow')),
    ],
)
def test_failure_looks_as_the_page_says(project, title, change):
    """With the mistake that the page speaks of, a test fails with the message that the page shows."""
    run = project(title, change, conftest=IMPATIENT)

    result = run()

    (shown,) = blocks(RECIPES[title], "text")
    assert result.ret == 1
    # pytest puts a mark in front of each line.
    printed = "".join(re.sub(r"^E {7}", "", line) + "\n" for line in result.outlines)
    assert masked(shown) in masked(printed)


def test_command_for_ci_runs_tests_side_by_side(project):
    """With the settings and the command, the README's test passes; runs on GitHub do the same as those elsewhere."""
    pytest.importorskip("xdist")
    title = "Continuous integration"
    (sample,) = blocks(README["Test what you track"], "python")
    run = project(title, test_readme=sample)
    commands, github = blocks(RECIPES[title], "")[0].splitlines(), blocks(RECIPES[title], "yaml")[0]

    result = run("--strict-config", "-p", "xdist", *shlex.split(commands[-1].replace("auto", "2"))[1:])

    result.assert_outcomes(passed=1)
    assert re.findall(r"- run: (.*)\n", github) == commands


def test_kit_can_be_used_in_a_statement(run_samples):
    """The section about unittest has a sample without a test class, which stands on the one before."""
    assert run_samples("unittest") == []


def test_samples_of_the_rest_api_print_what_arrived(run_samples):
    """The sample asks a collector, and gets counts and events."""
    printed = run_samples("The REST API")

    assert printed == ["{'total': 1, 'good': 1, 'bad': 0}", "page_view /basket"]


def test_table_of_the_rest_api_is_right(collector):
    """Each path of the table answers, and takes the filters that it is said to take."""
    rows = re.findall(r"^\| `(/micro/\w+)` \| .*? \| (.*)\|$", RECIPES["The REST API"], re.MULTILINE)
    values = {"limit": 1, "contexts": []}

    assert [path for path, _ in rows] == ["/micro/all", "/micro/good", "/micro/bad", "/micro/reset"]
    for path, names in rows:
        filters = {name: values.get(name, "x") for name in re.findall(r"`(\w+)`", names)}
        assert requests.post(collector.url + path, json=filters).status_code == 200


def test_shapes_of_the_rest_api_are_right(collector):
    """The page names what is in an item, and nothing else is."""
    track_page_view(collector.url)
    Emitter(collector.url, batch_size=1).input({"e": "pv"})
    (shapes,) = re.findall(r"An item of `good` has (.*)\. One of `bad` has (.*)\.\n", joined(RECIPES["The REST API"]))

    for kind, words in zip(("good", "bad"), shapes):
        (item,) = requests.get(f"{collector.url}/micro/{kind}").json()
        assert set(re.findall(r"`(\w+)`", words)) == set(item)


@needs_unix
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_shell_can_ask_the_rest_api(collector, shell):
    """The commands answer with counts, good events, bad events, and counts."""
    track_page_view(collector.url)
    (sample,) = blocks(RECIPES["The REST API"], "sh")

    lines = [json.loads(shell(f"{command} -s", collector.url)) for command in sample.splitlines()]

    assert [lines[0]["total"], len(lines[1]), lines[2], lines[3]["total"]] == [1, 1, [], 0]


def test_page_can_be_watched_from_a_program(run_samples, monkeypatch):
    """The sample keeps a collector with its page open until somebody presses Enter."""
    answers = []

    def press_enter(prompt):
        answers.append(requests.get(re.search(r"http://\S+/micro/ui", prompt).group()).status_code)

    monkeypatch.setattr("builtins.input", press_enter)

    # Port 9090 may be taken on this machine.
    run_samples("Watch events live", ("port=9090", "port=0"))

    assert answers == [200]


def test_each_sample_is_one_of_those_above():
    """A section that is added has its samples run by a test."""
    unnamed = [
        title for title, text in RECIPES.items() if len(blocks(text, "python")) > len(named_files(text, "python"))
    ]

    assert unnamed == WITH_UNNAMED_SAMPLES


@needs_unix
@pytest.mark.parametrize("sample", blocks(COMMANDS["track"], "sh"))
def test_samples_of_track_deliver(collector, shell, sample):
    """Each command prints the id of an event that arrives, and is good."""
    printed = shell(sample, collector.url).split()

    assert printed == [event.payload["eid"] for event in collector.good]
    assert len(printed) == sample.count("snowplow-tracker track")


@needs_unix
def test_samples_of_send_deliver(collector, shell, tmp_path):
    """The lines that the page shows are sent from a file and from a pipe, and the closing line is as shown."""
    (lines,) = blocks(COMMANDS["send"], "json")
    (tmp_path / "events.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "events.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    whole, resumed = blocks(COMMANDS["send"], "sh")
    (closing,) = blocks(COMMANDS["send"], "text")

    assert shell(whole, collector.url) == closing * 2
    assert [event.event_type for event in collector.good] == ["unstruct", "unstruct", "page_view"] * 2
    assert shell(resumed, collector.url) == closing.replace("3", "2")


@needs_unix
def test_samples_of_the_readme_deliver(collector, shell, tmp_path):
    """The commands of the README send an event each to a collector that runs already."""
    (sample,) = blocks(README["Test what you track"], "")
    micro, *others = sample.splitlines()
    (tmp_path / "events.jsonl").write_text('{"e": "pp"}\n', encoding="utf-8")

    shell("\n".join(others), collector.url)

    assert micro == "snowplow-tracker micro"
    assert [event.event_type for event in collector.good] == ["page_view", "page_ping"]


@needs_unix
@pytest.mark.parametrize("sample", blocks(COMMANDS["micro"], "sh"))
def test_samples_of_micro_run_a_collector(shell, tmp_path, sample):
    """The command says where the collector is, takes events, and ends with Ctrl-C and a sum."""
    (tmp_path / "schemas").mkdir()
    # The ports of the page may be taken on this machine.
    arguments = [*shlex.split(sample.replace("--port 9091", "")), "--port", "0"]

    with subprocess.Popen(arguments, stdout=subprocess.PIPE, encoding="utf-8", start_new_session=True) as process:
        try:
            first, second = process.stdout.readline(), process.stdout.readline()
            url = first.split()[2]
            track_page_view(url)
            event = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=LIMIT_SECONDS)
        finally:
            process.kill()

    (shown,) = blocks(COMMANDS["micro"], "text")
    assert first + second == shown.replace("http://127.0.0.1:9090", url)
    assert re.match(r"[\d:]{8}  good  page_view ", event)
    assert (process.returncode, rest) == (0, "good 1, bad 0, requests 1\n")


def store_events(url):
    """Put as many events into a store as the page speaks of."""
    with Tracker("shop", StoreOnlyEmitter(url)) as tracker:
        for number in range(3):
            tracker.track(PageView(f"https://shop.example/{number}"))


@needs_unix
@pytest.mark.parametrize("number", [0, 1])
def test_samples_of_forward_send_until_they_are_stopped(collector, shell, tmp_path, request, number):
    """What waits in the store is sent, and what comes later; after SIGTERM there is the sum that the page shows."""
    sample, shown = blocks(COMMANDS["forward"], "sh")[number], blocks(COMMANDS["forward"], "text")[0]
    url = request.getfixturevalue("redis_url") if "redis" in sample else f"sqlite:///{tmp_path}/events.db"
    for of_page, here in [
        ("sqlite:////var/lib/shop/events.db", url),
        ("redis://127.0.0.1:6379/1", url),
        ("http://127.0.0.1:9090", collector.url),
        # A shell would not pass the signal on.
        ("snowplow-tracker forward", "exec snowplow-tracker forward"),
    ]:
        sample = sample.replace(of_page, here)
    store_events(url)

    with subprocess.Popen(
        ["sh", "-euc", sample], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        try:
            collector.wait_for_payloads(3, LIMIT_SECONDS)
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
        finally:
            process.kill()

    assert process.returncode == 0
    assert stderr + stdout == shown.replace("http://127.0.0.1:9090", collector.url)


@needs_unix
def test_sample_of_forward_ends_when_the_store_is_empty(collector, shell, tmp_path):
    """With `--once` it needs no signal, and the exit code is 0."""
    sample = blocks(COMMANDS["forward"], "sh")[2].replace("/var/lib/shop", str(tmp_path))
    store_events(f"sqlite:///{tmp_path}/events.db")

    assert shell(sample, collector.url) == "delivered 3, rejected 0, left 0 in the store\n"
    assert len(collector.payloads) == 3


def test_each_command_has_a_section_and_a_row():
    """The page tells of each command that there is, in the order of its table."""
    rows = re.findall(r"^\| \[`(\w+)`\]\(#\1\) \|", text_of("docs/command-line.md"), re.MULTILINE)
    commands = re.findall(r"^ {4}(\w+) {2,}", _parser(None).format_help(), re.MULTILINE)

    assert rows == list(COMMANDS)
    assert sorted(rows) == sorted(commands)


@needs_unix
def test_sample_of_the_demo_succeeds(shell):
    """The command ends with exit code 0, and loses nothing."""
    (sample,) = blocks(COMMANDS["demo"], "sh")

    assert shell(sample, "").endswith("lost 0\n")


def track_page_view(url):
    with Tracker("test", Emitter(url)) as tracker:
        tracker.track(PageView("https://shop.example/"))


def joined(text):
    """Undo the breaks of lines within paragraphs."""
    return re.sub(r"(?<=[^\n])\n(?=[^\n])", " ", text)
