"""The command that runs a collector, run as a user runs it, and in this process where that shows more."""

import contextlib
import json
import re
import signal
import socket
import sys
import time
from urllib.request import urlopen

import pytest
import requests
from commands import end, run, running

from snowplow_tracker import Emitter, PagePing, PageView, ScreenView, SelfDescribing, SelfDescribingJson, Tracker
from snowplow_tracker._cli import main
from snowplow_tracker._cli.event_lines import event_line
from snowplow_tracker._cli.micro import _NotifyingCollector
from snowplow_tracker.testing import BadEvent, CollectedRequest, GoodEvent
from snowplow_tracker.testing._pipeline import Pipeline

URI = "iglu:com.acme/purchase/jsonschema/1-0-0"

pytestmark = pytest.mark.thorough

sends_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of Unix")


@contextlib.contextmanager
def micro(*arguments, **options):
    """Run the command at a free port; gives the process and the URL."""
    with running("micro", "--port", "0", *arguments, **options) as process:
        first_line, second_line = process.stdout.readline(), process.stdout.readline()
        url = re.search(r"http://\S+", first_line).group()
        assert f"{url}/micro/ui" in second_line
        yield process, url


@pytest.fixture
def collector(capsys):
    """The collector of the command, in this process."""
    with _NotifyingCollector("127.0.0.1", 0, None) as collector:
        yield collector


def tracker_to(url, **options):
    return Tracker("web", Emitter(url, batch_size=1), app_id="shop", **options)


def request_at(seconds, **changes):
    values = {
        "method": "POST",
        "path": "/com.snowplowanalytics.snowplow/tp2",
        "query": {},
        "headers": {},
        "body": b"",
        "payloads": [],
        "status": 200,
        "connection": 1,
        "received_at": seconds,
        "timestamp": seconds,
        "ip_address": "192.0.2.1",
    }
    return CollectedRequest(**{**values, **changes})


@sends_signals
def test_output_that_nobody_reads_holds_up_no_tracker():
    """A pager or a stopped terminal keeps lines from being printed, and not requests from being answered."""
    with micro() as (_, url):
        tracker = tracker_to(url, encode_base64=False)
        for _ in range(100):
            tracker.track(PageView("https://a/", "A page", context=[SelfDescribingJson(URI, {"x": "y" * 1_000})]))
        for _ in range(2_000):
            tracker.track(PageView("https://a/" + "p" * 150))

        assert tracker.close()


@sends_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_events_are_printed_until_a_signal_ends_it(number):
    """Each event is a line at once; Ctrl-C, and what a service is ended by, gives the sums and the exit code 0."""
    with micro() as (process, url):
        tracker = tracker_to(url)
        tracker.track(PageView("https://a/", "A page"))
        first = process.stdout.readline()
        requests.post(f"{url}/com.snowplowanalytics.snowplow/tp2", data="{", timeout=10)
        second = process.stdout.readline()
        with urlopen(f"{url}/micro/all", timeout=10) as answer:
            counts = json.load(answer)
        exit_code, rest, error = end(process, number)
        tracker.close()

    assert re.fullmatch(r"\d\d:\d\d:\d\d  good  page_view +https://a/  A page  app=shop  ns=web\n", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d  BAD   no payload +POST /com\.snowplow\S+  -- .*\n", second)
    assert counts == {"total": 2, "good": 1, "bad": 1}
    assert (exit_code, rest, error) == (0, "good 1, bad 1, requests 2\n", "")


@sends_signals
def test_data_is_validated_by_schemas(tmp_path):
    """With a folder of schemas, data that does not obey its schema makes an event bad, and its line says why."""
    folder = tmp_path / "com.acme" / "purchase" / "jsonschema"
    folder.mkdir(parents=True)
    (folder / "1-0-0").write_text('{"type": "object", "properties": {"total": {"type": "number"}}}', encoding="utf-8")

    with micro("--schemas", str(tmp_path)) as (process, url):
        tracker = tracker_to(url)
        tracker.track(SelfDescribing(SelfDescribingJson(URI, {"total": 1})))
        tracker.track(SelfDescribing(SelfDescribingJson(URI, {"total": "x"})))
        lines = [process.stdout.readline() for _ in range(2)]
        end(process)
        tracker.close()

    assert ' com.acme/purchase/1-0-0  {"total":1}  ' in lines[0]
    assert re.search(r"  BAD   unstruct .*  -- .*'x' is not of type 'number' \(at \$\.total ", lines[1])


def test_port_that_is_taken_is_one_line_and_exit_code_2():
    """What a newcomer with two of them sees is no traceback."""
    with contextlib.closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])

        process = run("micro", "--port", port)

    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith(f"snowplow-tracker: cannot listen on port {port} of 127.0.0.1: ")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64])
def test_host_that_does_not_exist_is_one_line_and_exit_code_2(host, capsys):
    """An address that is not this machine's, or none at all, is told the same way."""
    exit_code = main(["micro", "--port", "0", "--host", host])

    error = capsys.readouterr().err
    assert exit_code == 2
    assert error.startswith(f"snowplow-tracker: cannot listen on port 0 of {host}: ")
    assert error.count("\n") == 1


def test_folder_that_does_not_exist_is_wrong_usage(capsys, tmp_path):
    """Schemas that are not there are a mistake of the caller's."""
    with pytest.raises(SystemExit) as end:
        main(["micro", "--schemas", str(tmp_path / "nowhere")])

    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"there is none at {tmp_path / 'nowhere'}")


def test_it_ends_when_nobody_reads_its_output():
    """In a pipe to `head` the next line ends it, without a traceback."""
    with micro() as (process, url):
        process.stdout.close()
        process.stdin.close()
        tracker = tracker_to(url)
        tracker.track(PageView("/"))
        error = process.stderr.read()
        exit_code = process.wait()
        tracker.close()

    assert (exit_code, error) == (1, "")


def test_signal_before_the_waiting_is_not_missed(monkeypatch, capsys):
    """Ctrl-C while the collector starts ends it as well."""
    start = _NotifyingCollector.start

    def interrupted_start(collector):
        signal.raise_signal(signal.SIGTERM)
        return start(collector)

    monkeypatch.setattr(_NotifyingCollector, "start", interrupted_start)
    before = signal.getsignal(signal.SIGTERM)

    exit_code = main(["micro", "--port", "0"])

    assert exit_code == 0
    assert capsys.readouterr().out.splitlines()[-1] == "good 0, bad 0, requests 0"
    assert signal.getsignal(signal.SIGTERM) is before


def test_signal_while_events_are_judged_loses_none(monkeypatch, capsys):
    """Ctrl-C in the middle of the judging waits for its end: what was accepted is counted, and printed."""
    start, judge = _NotifyingCollector.start, Pipeline.judge_request

    def start_and_track(collector):
        start(collector)
        tracker = tracker_to(collector.url)
        tracker.track(PageView("/"))
        tracker.close()

    def interrupted_judging(pipeline, request):
        signal.raise_signal(signal.SIGINT)
        return judge(pipeline, request)

    monkeypatch.setattr(_NotifyingCollector, "start", start_and_track)
    monkeypatch.setattr(Pipeline, "judge_request", interrupted_judging)

    assert main(["micro", "--port", "0"]) == 0

    *_, event, summary = capsys.readouterr().out.splitlines()
    assert "page_view" in event
    assert summary == "good 1, bad 0, requests 1"


def test_waiting_goes_on_while_nothing_happens(monkeypatch, capsys):
    """A pause between two looks is not the end."""
    monkeypatch.setattr("snowplow_tracker._cli.micro._LONGEST_WAIT_SECONDS", 0.001)

    class News:
        def __init__(self):
            self.waits = 0

        def wait(self, seconds):
            self.waits += 1
            if self.waits == 3:
                signal.raise_signal(signal.SIGINT)
            return False

        def clear(self):
            pass

    created = _NotifyingCollector.__init__

    def create(collector, *arguments):
        created(collector, *arguments)
        collector.has_news = News()

    monkeypatch.setattr(_NotifyingCollector, "__init__", create)

    assert main(["micro", "--port", "0"]) == 0
    assert capsys.readouterr().out.endswith("good 0, bad 0, requests 0\n")


def test_events_are_printed_once_whoever_asks_for_them(collector, capsys):
    """Events that were judged for the REST API, or forgotten by a reset, are printed and counted once."""
    tracker = tracker_to(collector.url)

    tracker.track(PageView("/1"))
    assert len(collector.good) == 1
    collector.print_news()
    tracker.track(PageView("/2"))
    collector.print_news()
    requests.post(f"{collector.url}/micro/reset", timeout=10)
    tracker.track(PageView("/3"))
    collector.print_news()
    collector.print_news()
    tracker.close()

    assert re.findall(r"/\d", capsys.readouterr().out) == ["/1", "/2", "/3"]
    assert collector.summary() == "good 3, bad 0, requests 3"
    assert len(collector.good) == 1


def test_request_that_was_reset_meanwhile_prints_nothing(collector, capsys):
    """A reset between the arrival of a request and its printing leaves nothing to print."""
    collector._accepted(request_at(0.0))
    collector.print_news()

    assert collector.has_news.is_set()
    assert capsys.readouterr().out == ""
    assert collector.summary() == "good 0, bad 0, requests 1"


def test_memory_is_bounded(collector, capsys):
    """What the collector keeps does not grow with what arrives; the sums count all, and what is not shown is told."""
    emitter = Emitter(collector.url, batch_size=3_000, buffer_capacity=10_000)
    for _ in range(9_000):
        emitter.input({"e": "pv", "p": "srv", "tv": "t"})
    emitter.close()
    collector.print_news()

    assert collector.summary() == "good 9000, bad 0, requests 3"
    assert capsys.readouterr().out.startswith("4000 events came too fast to be shown\n")
    assert (len(collector.good), len(collector.payloads)) == (5_000, 5_000)


@pytest.mark.parametrize(
    ("event", "about"),
    [
        (PageView("https://a/", "A page"), "page_view         https://a/  A page"),
        (PagePing("https://a/"), "page_ping         https://a/"),
        (SelfDescribing(SelfDescribingJson(URI, {"é": 1})), 'unstruct          com.acme/purchase/1-0-0  {"é":1}'),
        (
            ScreenView("7f6bd0ae-6d56-44ad-9b0c-4a0a8f6c1b57", "cart"),
            'unstruct          com.snowplowanalytics.mobile/screen_view/1-0-0  {"id":"7f6bd0ae-6d56-44ad-9b0c-'
            '4a0a8f6c1b57","name":"cart"}',
        ),
        (PageView("/\x1b[31m\n"), "page_view         /?[31m?"),
        (PageView("/" * 200), f"page_view         {'/' * 160}..."),
    ],
)
def test_line_shows_what_matters(collector, capsys, event, about):
    """Each type of event has its own fields in the line; they are cut, and cannot play tricks on a terminal."""
    tracker = tracker_to(collector.url)
    tracker.track(event)
    tracker.close()

    collector.print_news()
    line = capsys.readouterr().out
    assert line[8:] == f"  good  {about}  app=shop  ns=web\n"


@pytest.mark.parametrize(
    ("payload", "errors", "line"),
    [
        ({"e": "pv", "url": "/", "aid": "a"}, ["p is missing"], "page_view         /  app=a  -- p is missing"),
        ({"e": "pv"}, ["one", "two", "three"], "page_view         -- one (and 2 more)"),
        ({"e": 5}, ["wrong"], f"{'e=5':16}  -- wrong"),
        ({"e": "ue"}, ["a\nb"], "unstruct          -- a?b"),
        ({"e": "\x1b"}, ["w" * 1_000], f"{'e=?':16}  -- {'w' * 320}..."),
        ("text", ["wrong"], "no payload        POST /com.snowplowanalytics.snowplow/tp2  -- wrong"),
        (None, ["wrong"], "no payload        POST /com.snowplowanalytics.snowplow/tp2  -- wrong"),
    ],
)
def test_line_of_a_bad_event_says_what_is_wrong(payload, errors, line):
    """The first error ends the line; how many more there are is told."""
    shown = event_line(BadEvent(payload, errors, request_at(0.0)))

    assert shown == f"{time.strftime('%H:%M:%S', time.localtime(0))}  BAD   {line}"


def test_event_without_a_request_has_a_line_too():
    """An event that came by no request happened now."""
    good = GoodEvent({"e": "tr", "tr_id": "o1"}, "transaction", URI, None, [], {}, None)
    bad = BadEvent(None, ["wrong"], None)

    assert event_line(good)[8:] == "  good  transaction       o1"
    assert event_line(bad)[8:] == "  BAD   no payload        -- wrong"


def test_data_that_is_too_deep_to_write_is_left_out():
    """What could be read may be too deep to be written again."""
    data = []
    for _ in range(100_000):
        data = [data]

    line = event_line(GoodEvent({"e": "ue"}, "unstruct", URI, data, [], {}, None))

    # Or else the test would end in a crash, when so deep a list is shown or thrown away.
    while data:
        data = data.pop()
    assert line[8:] == "  good  unstruct          com.acme/purchase/1-0-0  (nested too deeply)"
