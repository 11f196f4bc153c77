"""The benchmark measures what it says, judges it as it says, and the page shows one of its runs."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from benchmarks.chart import chart
from benchmarks.figures import Target, judged, median_of, ratio_of, shown
from benchmarks.page import TABLES, filled
from benchmarks.report import rows_of, table, targets_table, verdict_line
from benchmarks.scenarios import SCENARIOS, TARGETS
from benchmarks.workload import WORKLOADS
from pages import REPOSITORY, text_of

from snowplow_tracker import __version__

PUBLISHED = "snowplow-tracker==1.1.0"
RATE = Target("emitter-http", "events per second", 2, at_least=True)
COST = Target("track-structured", "cost", 1.3, at_least=True)
MEMORY = Target("memory-structured", "bytes", 1)
TAIL = Target("latency-silent", "p99", 10, over="p50")


def run_of(**scenarios):
    """Make results: of each scenario its figures, of each figure the rounds of 1.1.0 and of this library."""
    return {
        "scenarios": {
            name.replace("_", "-"): {
                "title": name,
                "note": "",
                "figures": {figure: {"theirs": theirs, "ours": ours} for figure, (theirs, ours) in figures.items()},
            }
            for name, figures in scenarios.items()
        }
    }


@pytest.fixture(scope="module")
def kept():
    """The run that the page shows."""
    return json.loads(text_of("docs/performance.json"))


def test_median_is_that_of_all_rounds():
    """One disturbed round does not count."""
    results = run_of(import_={"ms": ([9, 1, 2], [4])})

    assert median_of(results, "import-", "ms", "theirs") == 2
    assert median_of(results, "import-", "ms", "ours") == 4
    assert ratio_of(results, "import-", "ms") == 2


@pytest.mark.parametrize(
    ("scenario", "figure"), [("import-", "seconds"), ("export", "ms")], ids=["no such figure", "no such scenario"]
)
def test_what_was_not_measured_has_no_ratio(scenario, figure):
    """It is not judged by chance."""
    results = run_of(import_={"ms": ([1], [1])})

    assert ratio_of(results, scenario, figure) is None
    assert judged(results, Target(scenario, figure, 1)) == (Target(scenario, figure, 1), None, False)


@pytest.mark.parametrize(
    ("target", "theirs", "ours", "ratio", "is_met"),
    [
        (RATE, 100, 200, 2, True),
        (RATE, 100, 199, 1.99, False),
        (COST, 2.6, 2, 1.3, True),  # of what it costs there is less, so it is faster
        (COST, 2, 2.6, 1 / 1.3, False),
        (MEMORY, 1000, 1004, 1.004, True),  # nobody can tell that from the same
        (MEMORY, 1000, 1006, 1.006, False),
    ],
)
def test_target_is_met_from_its_limit_on(target, theirs, ours, ratio, is_met):
    """A speed has to reach it, whichever way it was measured; anything else must not exceed it."""
    results = run_of(**{target.scenario.replace("-", "_"): {target.figure: ([theirs], [ours])}})

    verdict = judged(results, target)

    assert verdict.ratio == pytest.approx(ratio)
    assert verdict.is_met is is_met


def test_target_may_be_about_this_library_alone():
    """The tail of its own latency is held to its own median, whatever 1.1.0 does."""
    results = run_of(latency_silent={"p50": ([1], [10]), "p99": ([1], [100])})

    assert judged(results, TAIL) == (TAIL, 10, True)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (12, "12"), (12345.6, "12,346"), (12.34, "12.3"), (1.234, "1.23"), (0.0123, "0.012")],
)
def test_figures_have_the_digits_that_mean_something(value, text):
    """Three at the most below a hundred, and whole numbers above."""
    assert shown(value) == text


def test_table_tells_both_and_the_ratio():
    """What 1.1.0 cannot do at all has no figure."""
    results = run_of(emitter_http={"events per second": ([100], [200]), "cost": ([], [3])})

    assert rows_of(results, "emitter-http") == [
        "| emitter_http | events per second | 100 | 200 | 2 |",
        "|  | cost, µs of CPU | - | 3 | - |",
    ]
    assert len(table(results).splitlines()) == 4


@pytest.mark.parametrize(
    ("target", "theirs", "ours", "line"),
    [
        (RATE, 100, 250, "| `Emitter`, http: times the events per second | ≥ 2 | 2.50 | met |"),
        (COST, 1, 1, "| `track` alone, structured: times as fast | ≥ 1.3 | 1 | **not met** |"),
        (
            Target("outage-AsyncEmitter", "requests", 1 / 50),
            100,
            1,
            "| `AsyncEmitter` in an outage of 3 s: requests | ≤ 1/50 | 0.01 | met |",
        ),
    ],
)
def test_verdict_says_what_was_wanted_and_what_came(target, theirs, ours, line):
    """In the words of the target."""
    results = run_of(**{target.scenario.replace("-", "_"): {target.figure: ([theirs], [ours])}})

    assert verdict_line(judged(results, target)) == line


def test_only_what_was_run_is_judged():
    """With `--only` the other targets are not missed."""
    results = run_of(track_structured={"cost": ([2], [1])})

    assert len(targets_table(results).splitlines()) == 3


def test_each_scenario_has_a_workload_and_a_name_of_its_own():
    """A name that two scenarios have would be measured once and shown twice."""
    assert {scenario.workload for scenario in SCENARIOS} <= set(WORKLOADS)
    assert len({scenario.key for scenario in SCENARIOS}) == len(SCENARIOS)


def test_chart_shows_each_target_that_was_measured():
    """A bar for each, in the colour of its verdict."""
    results = run_of(
        emitter_http={"events per second": ([100], [300])},
        track_structured={"cost": ([2], [4])},
        memory_structured={"bytes": ([1], [1])},
    )

    picture = ElementTree.fromstring(chart(results))

    rectangles = picture.findall("{http://www.w3.org/2000/svg}rect")
    assert [bar.get("class") for bar in rectangles[1:]] == ["missed", "met", "met"]
    assert all(float(bar.get("width")) >= 1 for bar in rectangles[1:])


def test_each_target_is_about_what_the_run_has_measured(kept):
    """A target whose figure was renamed would be missed for ever, or met by chance."""
    assert [target for target in TARGETS if judged(kept, target).ratio is None] == []


def test_page_shows_a_whole_run_of_this_version(kept):
    """Not a smoke run, nor one of before."""
    assert list(kept["scenarios"]) == [scenario.key for scenario in SCENARIOS]
    assert kept["quick"] is False
    assert kept["versions"]["ours"]["snowplow-tracker"] == __version__
    assert f"snowplow-tracker=={kept['versions']['theirs']['snowplow-tracker']}" == PUBLISHED


def test_page_and_chart_are_made_from_the_run(kept):
    """Nobody has written a figure into a table by hand."""
    page = text_of("docs/performance.md")

    assert filled(page, kept) == page
    assert chart(kept) == text_of("docs/performance.svg")


@pytest.mark.parametrize("name", TABLES)
def test_table_without_a_place_is_refused(kept, name):
    """A mark that an editor has damaged would leave an old table where it is."""
    page = text_of("docs/performance.md").replace(f"<!-- end of {name} -->", "")

    with pytest.raises(ValueError, match=f"place for {name}"):
        filled(page, kept)


in_a_checkout = pytest.mark.skipif(
    not (REPOSITORY / "snowplow_tracker" / "_version.py").is_file(),
    reason="needs the library's source beside the tests",
)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Skip where there is no package index to get 1.1.0 from."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", PUBLISHED]
    if subprocess.run(command, cwd=tmp_path_factory.mktemp("index"), capture_output=True).returncode:
        pytest.skip("needs a package index")


@in_a_checkout
@pytest.mark.thorough
@pytest.mark.timeout(180)
def test_benchmark_runs(index, tmp_path):
    """One command measures both libraries, prints the tables and keeps the figures."""
    command = [sys.executable, str(REPOSITORY / "tests" / "benchmarks"), "--quick", "--json", "run.json"]
    keys = ["track-structured", "outage-AsyncEmitter", "store-only"]
    for key in keys:
        command += ["--only", key]

    process = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")

    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert sorted(results["scenarios"]) == sorted(keys)
    assert table(results) in process.stdout
    assert targets_table(results) in process.stdout
    sides = {name: scenario["figures"] for name, scenario in results["scenarios"].items()}
    assert all(figure["ours"] for figures in sides.values() for figure in figures.values())
    assert all(figure["theirs"] for name in keys[:-1] for figure in sides[name].values())


def test_scenario_that_does_not_exist_is_refused(tmp_path):
    """Before the environments are made, which takes long."""
    command = [sys.executable, str(REPOSITORY / "tests" / "benchmarks"), "--only", "nothing"]

    process = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")

    assert (process.returncode, process.stderr) == (2, "no scenario begins with nothing\n")
