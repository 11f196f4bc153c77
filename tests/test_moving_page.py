"""The page for those who come from 1.1.0 is right: its samples run, and its tables agree with the code."""

import ast
import inspect
import json
import re
import shlex
import subprocess
import sys
import textwrap
from unittest import mock

import pytest
from commands import LIMIT_SECONDS, environment
from pages import blocks, sections, text_of
from support import PACKAGE_FOLDERS

import snowplow_tracker
from snowplow_tracker import (
    AsyncEmitter,
    Emitter,
    EmitterConfiguration,
    PageView,
    ScreenView,
    Snowplow,
    StoreOnlyEmitter,
    Tracker,
    __version__,
)
from snowplow_tracker._cli import main
from snowplow_tracker.testing import RecordingEmitter

PAGE = "docs/moving-from-1.1.0.md"
SECTIONS = sections(PAGE)
NAMES = {"Emitter": Emitter, "AsyncEmitter": AsyncEmitter, "EmitterConfiguration": EmitterConfiguration}
NEW_NAMES = {
    row[0]: set(re.findall(r"`(\w+)`", row[1]))
    for row in re.findall(r"^\| (.*?) \| (.*) \|$", SECTIONS["Going back"], re.MULTILINE)
}
RAISING = re.findall(r"^\| `([^`]*)` \| `(TypeError|ValueError)` \|$", SECTIONS["What to check"], re.MULTILINE)


@pytest.fixture
def surface(shared_folder):
    """The public names of 1.1.0, and their parameters."""
    return json.loads((shared_folder / "compat" / "api_surface.json").read_text(encoding="utf-8"))


def members_of(entry):
    return set(entry["members"]), {parameter["name"] for parameter in entry["members"]["__init__"]["params"]}


def public(names):
    return {name for name in names if not name.startswith("_")}


def test_version_to_install_is_this_one():
    """The commands install the version that the page is about, and the one before it."""
    versions = re.findall(r"snowplow-tracker(?:\[\w+\])?==([\d.]+)", text_of(PAGE))

    assert sorted(set(versions)) == ["1.1.0", __version__]


def test_mock_of_requests_is_called():
    """The sample passes as it stands."""
    sample, *_ = blocks(text_of(PAGE), "python")

    exec(compile(sample, "<sample>", "exec"), {})


def collisions_of(members, capsys):
    """Ask the sample about a subclass that has these members."""
    _, sample = blocks(text_of(PAGE), "python")
    namespace = {"AsyncEmitter": AsyncEmitter}
    exec(f"class MyEmitter(AsyncEmitter):\n{textwrap.indent(members, '    ')}", namespace)
    exec(compile(sample, "<sample>", "exec"), namespace)
    return ast.literal_eval(capsys.readouterr().out)


def test_names_that_collide_are_found(capsys):
    """Methods, attributes of the class and attributes of its objects are, whatever is private in the library."""
    private, *_ = sorted(name for name in vars(Emitter("h")) if name.startswith("_"))
    members = f"""\
def __init__(self, *args):
    super().__init__(*args)
    self.{private} = {{}}
    self.stats = {{}}
session = None
def close(self):
    self.flush()
def __enter__(self):
    return self
"""

    assert collisions_of(members, capsys) == sorted(["__enter__", "close", private, "session", "stats"])


def test_names_that_were_there_to_be_overridden_are_not_found(capsys):
    """An emitter that only uses what 1.1.0 had, and names of its own, needs no look."""
    members = """\
retries: int = 0
def __init__(self, *args, session=None):
    super().__init__(*args, session=session)
    self._my_own = [self.lock, self.batch_size, self.event_store, self.on_success, self.timer, self.queue]
def http_post(self, data):
    return 200
def _should_retry(self, status_code):
    return True
def _retry_failed_events(self, failed_events):
    self.retries += 1
    super()._retry_failed_events(failed_events)
"""

    assert collisions_of(members, capsys) == []


def test_new_names_of_emitters_are_complete(surface):
    """The sample knows each public name that is new; what emitters had as attributes, 1.1.0 told at run time only."""
    _, sample = blocks(text_of(PAGE), "python")
    had = (
        "batch_size byte_limit bytes_queued custom_retry_codes endpoint event_store lock max_retry_delay_seconds method"
    )
    had += " on_failure on_success queue request_method request_timeout retry_delay retry_timer timer"
    members, _ = members_of(surface["snowplow_tracker.emitters"]["AsyncEmitter"])

    new = public({*dir(AsyncEmitter), *vars(AsyncEmitter("h"))}) - members - set(had.split())

    assert set(re.findall(r'"([a-z]\w+)"', sample)) == new


def mock_of_post(status):
    return mock.patch("requests.post", return_value=mock.Mock(status_code=status))


def test_other_mocks_see_what_the_table_says():
    """A patched session gets the method by position, and neither uuid nor threading is what a test has to patch."""
    with mock.patch("requests.Session.request", return_value=mock.Mock(status_code=200)) as request:
        Emitter("h", batch_size=1).input({"e": "pv"})
    with mock.patch("threading.Timer") as timer, Emitter("h") as emitter:
        emitter.set_flush_timer(30)
    recorder = RecordingEmitter()
    with mock.patch("uuid.uuid4", return_value="ours"):
        Tracker("n", recorder).track(PageView("u"))
    with mock.patch.object(Tracker, "get_uuid", return_value="ours"):
        Tracker("n", recorder).track(PageView("u"))

    assert request.call_args[0] == ("POST", "https://h/com.snowplowanalytics.snowplow/tp2")
    assert not timer.called
    assert [payload["eid"] == "ours" for payload in recorder.payloads] == [False, True]


def outcome_of(emitter_class, status):
    """What an emitter makes of a status: delivered, rejected or buffered."""
    with mock_of_post(status), emitter_class("h", batch_size=1, flush_on_exit=False) as emitter:
        emitter.input({"e": "pv"})
        stats = emitter.stats()
        emitter.event_store.get_events_batch()
    return [name for name in ("delivered", "rejected", "buffered") if getattr(stats, name)]


def test_overrides_do_what_the_page_says():
    """The override of a good status is asked, that of the sent timestamp and of the threads' work as well or not."""

    class Below400(Emitter):
        @staticmethod
        def is_good_status_code(status_code):
            return status_code < 400

    class Only200(Emitter):
        @staticmethod
        def is_good_status_code(status_code):
            return status_code == 200

    class Float(Emitter):
        def http_post(self, data):
            return float(super().http_post(data))

    class Stamped(Emitter):
        @staticmethod
        def attach_sent_timestamp(events):
            for event in events:
                event["stm"] = "1"

    with mock_of_post(200) as post:
        Stamped("h", batch_size=1).input({"e": "pv"})

    assert outcome_of(Below400, 302) == ["delivered"]
    assert outcome_of(Only200, 204) == ["rejected"]
    assert outcome_of(Float, 200) == ["buffered"]
    assert json.loads(post.call_args[1]["data"])["data"][0]["stm"] == "1"


def test_consume_of_a_subclass_is_not_called(collector):
    """The threads have their own loop, and the page says which private methods are gone."""
    calls = []

    class Counting(AsyncEmitter):
        def consume(self):
            calls.append(1)

    with Counting(collector.url, batch_size=1) as emitter:
        emitter.input({"e": "pv"})
    gone = re.search(r"threads any more\. (.*?) are gone", SECTIONS["What to check"], re.DOTALL).group(1)

    assert (calls, len(collector.payloads)) == ([], 1)
    assert [hasattr(emitter, name) for name in re.findall(r"`(\w+)`", gone)] == [False] * 4


def test_imports_that_are_gone_have_the_place_that_the_page_names():
    """What it names is not in the module of trackers, and is where it says."""
    assert not {"SelfDescribingJson", "PageView", "EmitterProtocol"} & set(vars(snowplow_tracker.tracker))
    assert snowplow_tracker.typing.EmitterProtocol
    assert snowplow_tracker.contracts.non_empty_string


def test_flush_of_an_emitter_in_a_backoff_makes_a_request():
    """It was asked for."""
    with mock_of_post(503) as post, Emitter("h", batch_size=1, flush_on_exit=False) as emitter:
        emitter.input({"e": "pv"})
        before = post.call_count
        Tracker("n", emitter).flush()
        after = post.call_count
        emitter.event_store.get_events_batch()

    assert (before, after) == (1, 2)


@pytest.mark.parametrize(("code", "error"), RAISING)
def test_setting_raises(code, error):
    """What the table says raises does so, at once."""
    with pytest.raises((TypeError, ValueError)) as caught:
        eval(code, {**NAMES, "Tracker": Tracker})

    assert type(caught.value).__name__ == error


def test_settings_beside_the_table_are_right():
    """So is what the paragraph below it says."""
    with pytest.raises(TypeError):
        EmitterConfiguration().batch_size = "50"
    assert Emitter("HTTP://h").endpoint.startswith("http://h/")
    assert Emitter(" h ").endpoint.startswith("https://h/")
    assert len(RAISING) == 24


def test_calls_of_the_table_do_what_it_says():
    """What can be seen without a second thread is right."""
    view, page = ScreenView("i", "n"), PageView("u", page_title="T")
    page.page_title = None
    recorder = RecordingEmitter()
    Tracker("n", recorder).track(page)

    assert view.previous_name is None
    assert "page" not in recorder.payloads[0]
    with pytest.raises(TypeError):
        Tracker("n", recorder).track("no event")
    with pytest.raises(TypeError):
        Snowplow.remove_tracker(None)


@pytest.mark.parametrize("method", ["post", "get"])
def test_values_go_out_as_the_table_says(collector, method):
    """None is left out, and others are as JSON has them."""
    Emitter(collector.url, method=method, batch_size=1).input({"e": "pv", "a": None, "b": True, "c": {"x": 1}})

    (payload,) = collector.payloads
    assert {name: payload.get(name) for name in "abc"} == {"a": None, "b": "true", "c": '{"x":1}'}
    assert 'left out, `true`, `{"x":1}`' in SECTIONS["What to check"]


def test_logger_has_the_name_that_the_page_says():
    """All lines come from below it."""
    assert snowplow_tracker.logger.name == "snowplow_tracker"


def test_lines_of_an_application_without_configuration_are_bare():
    """The library has no part in what Python shows of them."""
    process = subprocess.run(
        [sys.executable, "-c", "import logging, snowplow_tracker; logging.getLogger('app').warning('low on stock')"],
        env=environment(PYTHONPATH=PACKAGE_FOLDERS),
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=True,
        timeout=LIMIT_SECONDS,
    )

    assert process.stderr == "low on stock\n"


def test_new_names_of_the_root_are_complete(surface):
    """The table names each that 1.1.0 did not have anywhere; the others are where the page says."""
    new = set(snowplow_tracker.__all__) - set(surface["snowplow_tracker"])
    elsewhere = {*surface["snowplow_tracker.typing"], "InMemoryEventStore"}

    assert NEW_NAMES["`snowplow_tracker`"] == new - elsewhere
    assert "InMemoryEventStore" in surface["snowplow_tracker.event_store"]


@pytest.mark.parametrize(
    ("row", "module", "of"),
    [
        ("`Emitter`, `AsyncEmitter`", "snowplow_tracker.emitters", Emitter),
        ("`EmitterConfiguration`", "snowplow_tracker.emitter_configuration", EmitterConfiguration),
        ("`Tracker`", "snowplow_tracker.tracker", Tracker),
    ],
)
def test_new_names_of_a_class_are_complete(surface, row, module, of):
    """The table names each method and argument that 1.1.0 did not have, and none that it had."""
    members, parameters = members_of(surface[module][of.__name__])
    new_parameters = set(inspect.signature(of.__init__).parameters) - parameters - {"self"}
    functions = {name for name, value in inspect.getmembers(of) if inspect.isfunction(value)}
    new_methods = public(functions) - members

    assert new_parameters <= NEW_NAMES[row]
    assert new_methods <= NEW_NAMES[row] | {"emitter_options"}
    assert NEW_NAMES[row] - {"with", "event_store"} <= new_parameters | new_methods


def test_what_a_store_holds_is_sent_before_going_back(collector, tmp_path):
    """The last command empties the store, and its exit code says so."""
    *_, commands = blocks(SECTIONS["Going back"], "sh")
    *_, command = commands.replace("/var/lib/shop", str(tmp_path)).splitlines()
    with Tracker("shop", StoreOnlyEmitter(f"sqlite:///{tmp_path}/events.db")) as tracker:
        tracker.track(PageView("https://shop.example/"))

    program, *arguments = shlex.split(command.replace("https://collector.example.com", collector.url))

    assert program == "drain/bin/snowplow-tracker"
    assert main(arguments) == 0
    assert len(collector.payloads) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell and grep")
def test_searches_find_what_they_are_for(tmp_path):
    """Each command for a search finds each of the things that it names."""
    searches = re.findall(r"^   (grep .*)$", SECTIONS["An hour of checks"], re.MULTILINE)
    code = [
        [
            'patch("requests.post")',
            "import responses",
            "requests_mock.Mocker()",
            "patch('requests.Session.send')",
        ],
        ['AsyncEmitter("h")', "tracker.flush(False)", "emitter.queue.qsize()", "on_failure=report", "sync_flush()"],
        ["class My(Emitter):", "class My(AsyncEmitter):", "class My(EventStore):", '"snowplow_tracker.emitters"'],
    ]
    code.append(
        [
            'patch("uuid.uuid4")',
            'patch("threading.Timer")',
            "byte_limit=1_000",
            'request_timeout="5"',
            'max_retry_delay_seconds="5"',
            "port=0",
            "batch_size=True",
        ]
    )
    code.append(
        [
            "def is_good_status_code(status_code):",
            "def attach_sent_timestamp(events):",
            "def consume(self):",
            "def http_post(self, data):",
            "from snowplow_tracker.tracker import SelfDescribingJson",
        ]
    )
    (tmp_path / "tests").mkdir()

    assert len(searches) == len(code)
    for search, lines in zip(searches, code):
        (tmp_path / "tests" / "file.py").write_text("\n".join(lines), encoding="utf-8")
        found = subprocess.run(
            ["sh", "-c", search], cwd=str(tmp_path), stdout=subprocess.PIPE, encoding="utf-8", check=True, timeout=20
        )
        assert len(found.stdout.splitlines()) == len(lines)
