"""Fixtures for pytest, in runs of pytest of their own."""

import json
from importlib import metadata

import pytest
from support import PACKAGE_FOLDERS, PYTEST_PLUGIN

pytestmark = pytest.mark.thorough

SALE = "iglu:com.acme/sale/jsonschema/1-0-0"
SALE_SCHEMA = {
    "$schema": "http://iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0#",
    "self": {"vendor": "com.acme", "name": "sale", "format": "jsonschema", "version": "1-0-0"},
    "type": "object",
    "properties": {"price": {"type": "number"}},
}

# What the tests that run in those runs have in common.
HEADER = f"""
import pytest
from snowplow_tracker import PageView, SelfDescribing, SelfDescribingJson, Snowplow, StructuredEvent

def sale(data, version="1-0-0"):
    return SelfDescribing(SelfDescribingJson("{SALE[:-5]}" + version, data))

def send_bad(tracker):
    tracker.emitters[0].input({{"e": "pv", "p": "web"}})
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs tests with the plugin, and with no other that happens to be installed; all warnings are errors."""
    # Tests may have been started with a relative path, and with options for themselves.
    monkeypatch.setenv("PYTHONPATH", PACKAGE_FOLDERS)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run_tests(source, *options, plugin=PYTEST_PLUGIN):
        pytester.makepyfile(source)
        return pytester.runpytest_subprocess("-W", "error", "-p", plugin, *options, timeout=50)

    return run_tests


def test_fixtures_make_a_test_of_a_few_lines(run):
    """A tracker and a collector that belong together are all that a test needs; the message shows what differs."""
    result = run(
        HEADER
        + """
def test_right(snowplow_tracker, snowplow_collector):
    snowplow_tracker.track(StructuredEvent("shop", "add"))
    snowplow_collector.assert_event(event_type="struct", properties={"se_action": "add"})

def test_wrong(snowplow_tracker, snowplow_collector):
    snowplow_tracker.track(StructuredEvent("shop", "add"))
    snowplow_collector.assert_event(event_type="struct", properties={"se_action": "buy"}, timeout=0)
"""
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       snowplow_collector.assert_event(*",
            "E       AssertionError: Expected a good event with the following, but 0 of 1 match:",
            "E           event_type: 'struct'",
            "E           properties: {'se_action': 'buy'}",
            "E       The nearest:",
            "E           struct shop / add (eid *",
            "E               properties.se_action: expected 'buy', got 'add'",
            "",
            "test_*.py:*: AssertionError",
        ],
        consecutive=True,
    )


def test_each_test_begins_anew(run):
    """Events, answers, outages and trackers of one test do not reach the next; what waits is sent in between."""
    result = run(
        HEADER
        + """
from snowplow_tracker import AsyncEmitter, EmitterConfiguration

collectors = []

@pytest.fixture(autouse=True)
def _fresh(snowplow_collector):
    collectors.append(snowplow_collector)
    assert len({collector.port for collector in collectors}) == len(collectors)
    assert snowplow_collector.requests == []
    assert Snowplow.get_tracker("test") is None
    yield
    assert Snowplow.get_tracker("shop") is None

def test_first(snowplow_tracker, snowplow_collector):
    assert snowplow_tracker is Snowplow.get_tracker("test")
    snowplow_collector.respond_always(400)
    snowplow_tracker.track(PageView("https://example.com"))
    snowplow_collector.refuse_connections()

def test_second(snowplow_tracker, snowplow_collector):
    snowplow_tracker.track(PageView("https://example.com"))
    snowplow_collector.assert_count(good=1, timeout=0)
    snowplow_collector.close()

def test_third(snowplow_tracker_factory, snowplow_collector):
    tracker = snowplow_tracker_factory("shop", app_id="web", emitter_class=AsyncEmitter)
    tracker.track(PageView("https://example.com"))
    snowplow_collector.assert_event(properties={"app_id": "web"})
    snowplow_tracker_factory().track(PageView("https://example.com"))

@pytest.fixture
def _sent_at_the_end(snowplow_collector):
    yield
    snowplow_collector.assert_count(good=1, timeout=0)

def test_last(_sent_at_the_end, snowplow_tracker_factory, snowplow_collector):
    tracker = snowplow_tracker_factory(emitter_config=EmitterConfiguration(batch_size=5))
    tracker.track(PageView("https://example.com"))
    assert snowplow_collector.payloads == []
"""
    )

    result.assert_outcomes(passed=4)


def test_emitter_that_an_earlier_test_left_behind_does_not_reach_the_next(run):
    """What comes late belongs to no test but the one whose collector it was sent to."""
    result = run(
        HEADER
        + """
from snowplow_tracker import EmitterConfiguration

left_behind = []

def test_first(snowplow_collector):
    config = EmitterConfiguration(batch_size=5, flush_on_exit=False)
    tracker = Snowplow.create_tracker("left", snowplow_collector.url, emitter_config=config)
    left_behind.append(tracker)
    tracker.track(PageView("https://example.com"))

def test_second(snowplow_collector):
    left_behind[0].flush(timeout=0.1)
    assert snowplow_collector.requests == []
"""
    )

    result.assert_outcomes(passed=2)


def test_bad_events_fail_the_tests_that_say_so(run):
    """The marker is for one test; the error at its teardown names the payload and what is wrong with it."""
    result = run(
        HEADER
        + """
@pytest.mark.snowplow_no_bad
def test_marked(snowplow_tracker):
    send_bad(snowplow_tracker)

@pytest.mark.snowplow_no_bad
def test_marked_and_good(snowplow_tracker):
    snowplow_tracker.track(PageView("https://example.com"))

@pytest.mark.snowplow_no_bad(False)
def test_marked_as_unimportant(snowplow_tracker):
    send_bad(snowplow_tracker)

def test_not_marked(snowplow_tracker):
    send_bad(snowplow_tracker)
""",
        "--strict-markers",
    )

    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_marked *",
            "Expected no bad events, got 1:",
            "    page_view (without an eid)",
            "        *tv*",
        ]
    )
    assert result.ret == 1


def test_bad_events_fail_all_tests_by_an_option(run, pytester):
    """The ini option is for all tests, and the marker for exceptions."""
    pytester.makeini("[pytest]\nsnowplow_no_bad = true")

    result = run(
        HEADER
        + """
def test_bad(snowplow_tracker):
    send_bad(snowplow_tracker)

def test_good(snowplow_tracker):
    snowplow_tracker.track(PageView("https://example.com"))

@pytest.mark.snowplow_no_bad(enabled=False)
def test_exception(snowplow_tracker):
    send_bad(snowplow_tracker)

def test_that_uses_no_collector():
    pass
"""
    )

    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_bad *"])


@pytest.mark.parametrize(
    "arguments",
    ["'yes'", "None", "False, True", "False, enabled=False", "enabled='no'", "enable=False"],
)
def test_marker_with_other_arguments_is_refused(run, arguments):
    """A marker that means nothing must not look as if it had been obeyed."""
    result = run(f"import pytest\n\n@pytest.mark.snowplow_no_bad({arguments})\ndef test_it():\n    pass")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"The marker snowplow_no_bad takes one bool, enabled, got ({arguments})"])


@pytest.fixture
def schemas(pytester):
    """A folder of schemas beside the ini file."""
    folder = pytester.mkdir("schemas") / "com.acme" / "sale" / "jsonschema"
    folder.mkdir(parents=True)
    (folder / "1-0-0").write_text(json.dumps(SALE_SCHEMA), encoding="utf-8")


TEST_OF_SCHEMAS = """
def test_sale(snowplow_tracker, snowplow_collector):
    snowplow_tracker.track(sale({"price": 1}))
    snowplow_tracker.track(sale({"price": "one"}))
    snowplow_tracker.track(sale({}, version="2-0-0"))
    snowplow_collector.assert_count(good=GOOD, bad=3 - GOOD, timeout=0)
"""


def test_schemas_are_found_from_the_ini_file(run, pytester, schemas):
    """The folder is named in the ini file, and pytest may be started anywhere."""
    pytester.makeini("[pytest]\nsnowplow_schemas = schemas")

    run(HEADER + TEST_OF_SCHEMAS.replace("GOOD", "1"), "--rootdir", "/").assert_outcomes(passed=1)


def test_schemas_are_found_without_an_ini_file(run, schemas):
    """The option may be given on the command line; what is not in the folder can be accepted."""
    result = run(
        HEADER + TEST_OF_SCHEMAS.replace("GOOD", "2"),
        "-o",
        "snowplow_schemas=schemas",
        "-o",
        "snowplow_unknown_schemas=accept",
    )

    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("option", "value"),
    [("snowplow_schemas", "nowhere"), ("snowplow_unknown_schemas", "perhaps"), ("snowplow_no_bad", "perhaps")],
)
def test_wrong_ini_option_is_named(run, option, value):
    """A mistake in the ini file must not look as if the events were bad."""
    result = run(HEADER + "def test_it(snowplow_tracker): pass", "-o", f"{option}={value}")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"E *UsageError: The ini option {option} is wrong: *{value}*"])


def test_tests_of_several_workers_have_a_collector_each(run):
    """With pytest-xdist, tests that run side by side do not see each other's events."""
    pytest.importorskip("xdist")

    result = run(
        HEADER
        + """
@pytest.mark.parametrize("number", range(20))
def test_alone(number, snowplow_tracker, snowplow_collector):
    snowplow_tracker.track(StructuredEvent("test", str(number)))
    snowplow_collector.assert_event(properties={"se_action": str(number)}, count=1, timeout=0)
    snowplow_collector.assert_count(good=1, bad=0, timeout=0)
""",
        "-p",
        "xdist",
        "-n",
        "2",
    )

    result.assert_outcomes(passed=20)


UNUSED = """
import sys

def test_unused():
    assert [name for name in sys.modules if name.split(".")[0] in ("snowplow_tracker", "requests")] == []

def test_used(snowplow_tracker):
    assert "snowplow_tracker" in sys.modules
"""


def test_plugin_costs_nothing_until_it_is_used(run):
    """The package is imported when a test asks for a fixture."""
    run(UNUSED).assert_outcomes(passed=2)


def test_installation_brings_the_plugin(run, monkeypatch):
    """Nothing has to be configured: pytest finds the plugin by its entry point."""
    try:
        metadata.distribution("snowplow-tracker")
    except metadata.PackageNotFoundError:
        pytest.skip("needs the package to be installed, be it with pip install -e")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")

    result = run(UNUSED, plugin="terminal")

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["plugins:*snowplow-tracker-*"])
