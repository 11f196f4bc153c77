"""The commands of `python -m snowplow_tracker`, run as a user runs them, and in this process where that shows more."""

import os
import re
import subprocess
import sys

import pytest
from support import eids

from snowplow_tracker import Snowplow
from snowplow_tracker.__main__ import main
from snowplow_tracker._cli.demo import demo, rehearse

WAYS = ["POST", "GET", "AsyncEmitter", "outage"]
EVENT_TYPES = ["page view", "page ping", "screen view", "self-describing", "structured event"]

# Nothing listens at the discard port of a machine of our days; a request that went there would fail.
DEAD_PROXY = "http://127.0.0.1:9"


def run(*arguments):
    """Run the package in an interpreter of its own that shows each warning."""
    return subprocess.run(
        [sys.executable, "-W", "always", "-m", "snowplow_tracker", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def table_of(output):
    """Return the rows of the printed table as lists of their columns."""
    lines = output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("WAY"))
    return [re.split(r" {2,}", line) for line in lines[start + 1 : lines.index("", start)]]


def test_demo_delivers_all_that_it_tracks():
    """The demo ends with exit code 0 and the three figures, and says nothing on stderr."""
    process = run("demo")

    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.splitlines()[-1] == "tracked 20, delivered 20, lost 0"


def test_demo_shows_each_event_type_by_each_way(capsys):
    """The table has one row for each event type and each way, with the event's main fields."""
    exit_code = main(["demo"])

    rows = table_of(capsys.readouterr().out)
    assert exit_code == 0
    assert [row[:2] for row in rows] == [[way, event_type] for way in WAYS for event_type in EVENT_TYPES]
    assert [row[2] for row in rows[:5]] == [
        "url: https://shop.example/cart, page: Your cart",
        "url: https://shop.example/cart, pp_miy: 0, pp_may: 640",
        "schema: screen_view, id: 7f6bd0ae-6d56-44ad-9b0c-4a0a8f6c1b57, name: cart",
        "schema: delivery_choice, speed: express",
        "se_ca: shop, se_ac: add-to-cart, se_la: green tea, se_va: 2",
    ]


def test_columns_are_aligned(collector, capsys):
    """Each column of the table begins at one and the same place."""
    rehearse(collector)

    output = capsys.readouterr().out.splitlines()
    lines = [line for line in output if line.startswith(("WAY  ", *(f"{way}  " for way in WAYS)))]
    assert len(lines) == 21
    assert {line.index(re.split(r" {2,}", line)[1]) for line in lines} == {14}
    assert {line.index(re.split(r" {2,}", line)[2]) for line in lines} == {32}


def test_demo_uses_both_routes_and_an_outage(collector, capsys):
    """What the table calls the ways are requests of these kinds: batches, single events, and some in vain."""
    rehearse(collector)

    requests = collector.requests
    assert [len(request.payloads) for request in requests if request.method == "GET"] == [1] * 5
    assert [len(request.payloads) for request in requests if request.method == "POST"][:2] == [5, 5]
    in_vain = [request for request in requests if request.status == 503]
    assert len(in_vain) >= 3
    assert f"answered {len(in_vain)} requests with status 503" in capsys.readouterr().out
    assert len(set(eids(collector.payloads))) == 20


def test_lost_events_show_in_the_exit_code(collector, capsys):
    """Events that the collector refuses for good are lost: the closing line counts them, and the exit code is 1."""
    collector.respond_with(400)

    exit_code = rehearse(collector)

    assert exit_code == 1
    assert capsys.readouterr().out.splitlines()[-1] == "tracked 20, delivered 15, lost 5"


@pytest.mark.parametrize("exceptions", [None, "intranet.example"])
def test_demo_leaves_nothing_behind(monkeypatch, exceptions):
    """In the end no tracker of the demo is in the registry, and the environment is what it was.

    A proxy that the environment names cannot reach this machine's loopback interface, so it is not asked meanwhile.
    """
    monkeypatch.setenv("http_proxy", DEAD_PROXY)
    monkeypatch.delenv("no_proxy", raising=False)
    if exceptions is not None:
        monkeypatch.setenv("no_proxy", exceptions)

    exit_code = demo()

    assert exit_code == 0
    assert [Snowplow.get_tracker(way) for way in WAYS] == [None] * 4
    assert os.environ.get("no_proxy") == exceptions


def test_call_without_a_command_prints_help():
    """Without a command there is help on stdout, and the exit code that argparse gives to wrong usage."""
    process = run()

    assert (process.returncode, process.stderr) == (2, "")
    assert process.stdout.startswith("usage: python -m snowplow_tracker")
    assert "demo" in process.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code"), [(["--help"], 0), (["demo", "--help"], 0), (["nonsense"], 2), (["demo", "more"], 2)]
)
def test_exit_code_tells_wrong_usage(arguments, exit_code, capsys):
    """Help that was asked for is a success; arguments that nobody knows are a mistake, and shown as one."""
    with pytest.raises(SystemExit) as end:
        main(arguments, prog="python -m snowplow_tracker")

    assert end.value.code == exit_code
    output = capsys.readouterr()
    assert (output.err if exit_code else output.out).startswith("usage: python -m snowplow_tracker")


def test_command_is_needed(capsys):
    """Without a command nothing is done."""
    exit_code = main([])

    assert exit_code == 2
    assert "commands:" in capsys.readouterr().out
