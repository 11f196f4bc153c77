"""The command that sends lines of JSON, against a real collector, and stopped in every way."""

import base64
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import uuid

import pytest
from commands import DEAD_URL, LIMIT_SECONDS, end, environment, run, running
from support import eids, eventually

from snowplow_tracker import AsyncEmitter, Tracker
from snowplow_tracker._cli import flow, json_lines, main
from snowplow_tracker._cli.json_lines import MAX_LINE_BYTES, Line, payload_of
from snowplow_tracker._cli.progress import Progress
from snowplow_tracker.testing import Answer, LocalCollector

URI = "iglu:com.acme/purchase/jsonschema/1-0-0"
ENTITY = {"schema": "iglu:com.acme/user/jsonschema/1-0-0", "data": {"tier": "gold"}}

pytestmark = pytest.mark.thorough

sends_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of Unix")


def raw_lines(count, start=1):
    """Lines whose event ids are their numbers."""
    return [f'{{"e":"pv","eid":"{number}","url":"/"}}' for number in range(start, start + count)]


def numbers(collector):
    return [int(eid) for eid in eids(collector.payloads)]


def decoded(text):
    return json.loads(base64.urlsafe_b64decode(text))["data"]


@pytest.fixture
def send(capsys, tmp_path):
    """Send lines from a file; return the exit code, and the lines on stdout and stderr."""

    def command(lines, url, *arguments):
        file = tmp_path / "events.jsonl"
        file.write_bytes(b"".join(line if isinstance(line, bytes) else f"{line}\n".encode() for line in lines))
        exit_code = main(["send", "--endpoint", url, *arguments, str(file)])
        output = capsys.readouterr()
        return exit_code, output.out, [line[len("snowplow-tracker: ") :] for line in output.err.splitlines()]

    return command


@pytest.fixture
def tracker():
    return Tracker("cli", AsyncEmitter("localhost"), app_id="shop")


def payload_from(value, tracker):
    return payload_of(Line(json.dumps(value).encode()), tracker)


def test_lines_arrive_in_their_order(send, collector):
    """All lines are delivered, each once, and the closing line and the exit code say so."""
    outcome = send(raw_lines(5_000), collector.url)

    assert outcome == (0, "read 5000, delivered 5000, rejected 0, failed 0\n", [])
    assert numbers(collector) == list(range(1, 5_001))


def test_lines_come_from_standard_input(collector):
    """Without a file, or with `-`, lines come from another program; the last one needs no end."""
    outcomes = [
        run("send", *arguments, stdin="\n".join(raw_lines(3)), SNOWPLOW_ENDPOINT=collector.url, http_proxy=DEAD_URL)
        for arguments in ([], ["-"])
    ]

    assert [(process.returncode, process.stdout, process.stderr) for process in outcomes] == [
        (0, "read 3, delivered 3, rejected 0, failed 0\n", "")
    ] * 2
    assert numbers(collector) == [1, 2, 3] * 2


def test_input_need_not_be_a_file(collector, monkeypatch):
    """An application that runs the command may have put anything in place of the standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(raw_lines(3)).encode())))

    assert main(["send", "--endpoint", collector.url]) == 0
    assert numbers(collector) == [1, 2, 3]


def test_event_has_what_its_line_says(tracker):
    """The data, the entities, the subject and the time of a line end up where they belong."""
    line = {
        "schema": URI,
        "data": {"total": 12.5, "name": "é"},
        "contexts": [ENTITY],
        "subject": {"user_id": "u", "platform": "srv", "screen_resolution": "1x2"},
        "timestamp": "2024-02-03T04:05:06Z",
    }

    payload = payload_from(line, tracker)

    assert decoded(payload["ue_px"]) == {"schema": URI, "data": line["data"]}
    assert decoded(payload["cx"]) == [ENTITY]
    always = {"ue_px", "cx", "eid", "dtm", "tv"}
    assert {name: value for name, value in payload.items() if name not in always} == {
        "e": "ue",
        "uid": "u",
        "p": "srv",
        "res": "1x2",
        "ttm": 1706933106000,
        "tna": "cli",
        "aid": "shop",
    }


def test_event_needs_only_schema_and_data(tracker):
    """What a line leaves out, or sets to null, is left out."""
    nothing = dict.fromkeys(["contexts", "subject", "timestamp", "event_id"])

    for line in ({"schema": URI, "data": {}}, {"schema": URI, "data": {}, **nothing}):
        payload = payload_from(line, tracker)
        assert payload.keys() == {"e", "ue_px", "p", "tv", "tna", "aid", "eid", "dtm"}


def test_event_may_bring_its_id(send, collector):
    """What arrives twice, because a run was resumed, is one event; without an id it would be two."""
    line = {"schema": URI, "data": {}, "event_id": "0B6A5C5D-3F1D-4E0B-9C1D-6C2E0C1F0A11"}

    for _ in range(2):
        send([json.dumps(line), json.dumps({"schema": URI, "data": {}})], collector.url)

    first, second = eids(collector.payloads)[::2], eids(collector.payloads)[1::2]
    assert first == ["0b6a5c5d-3f1d-4e0b-9c1d-6c2e0c1f0a11"] * 2
    assert len(set(second)) == 2


def test_payload_is_completed_by_what_it_lacks(tracker):
    """What each payload has, and no pipeline does without, is added; null is as good as nothing."""
    payload = payload_from({"e": "pv", "url": "/", "p": None}, tracker)

    assert payload == {
        "e": "pv",
        "url": "/",
        "p": "pc",
        "tv": tracker.standard_nv_pairs["tv"],
        "tna": "cli",
        "aid": "shop",
        "eid": str(uuid.UUID(payload["eid"])),
        "dtm": str(int(payload["dtm"])),
    }


def test_payload_that_is_complete_is_sent_as_it_is(send, collector):
    """Nothing that is there is replaced, but what changes with each attempt: the sent timestamp."""
    line = {"e": "pv", "p": "srv", "tv": "x", "tna": "n", "aid": "a", "eid": "i", "dtm": "1", "vid": 2, "stm": "0"}

    send([json.dumps(line)], collector.url)

    (payload,) = collector.payloads
    assert {**payload, "stm": "0"} == {**line, "vid": "2"}


def test_bad_lines_are_reported_and_skipped(send, collector):
    """Each bad line is told by its number and the reason, and counts as rejected; the others are sent."""
    first, last = raw_lines(2)

    exit_code, out, errors = send(["\ufeff" + first, "", "  ", "{", b'{"e":"\xff"}\n', last], collector.url)

    assert (exit_code, out) == (1, "read 4, delivered 2, rejected 2, failed 0\n")
    assert errors == [
        "line 4: is not JSON: Expecting property name enclosed in double quotes: column 2",
        "line 5: is not in UTF-8",
    ]
    assert numbers(collector) == [1, 2]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (5, "must be an object, got 5"),
        ({"data": {}}, "must have schema and data, or e as a payload has"),
        ({"schema": URI}, "must have data for its schema"),
        ({"schema": None, "data": {}}, "must have a schema for its data"),
        ({"schema": "x", "data": {}}, "schema must be a URI such as iglu:com.acme"),
        (
            {"schema": URI, "data": {}, "context": []},
            "has no use for 'context', only for contexts, data, event_id, schema, subject, timestamp",
        ),
        ({"schema": URI, "data": {}, "contexts": ENTITY}, "contexts must be a list, got {"),
        ({"schema": URI, "data": {}, "contexts": [{}]}, "contexts must be an object with schema and data, got {}"),
        ({"schema": URI, "data": {}, "subject": "u"}, "subject must be an object, got 'u'"),
        ({"schema": URI, "data": {}, "subject": {"id": 1}}, "subject has no 'id', only user_id"),
        ({"schema": URI, "data": {}, "timestamp": "now"}, "timestamp must be milliseconds since 1970"),
        (
            {"schema": URI, "data": {}, "timestamp": 1706933106},
            "timestamp must be milliseconds since 1970, not seconds",
        ),
        ({"schema": URI, "data": {}, "event_id": "o-1"}, "event_id must be a UUID, got 'o-1'"),
        ({"schema": URI, "data": {}, "event_id": [1]}, "event_id must be a UUID, got [1]"),
        ({"e": None}, "e must be the type of an event such as pv, got None"),
        ({"e": ""}, "e must be the type of an event such as pv, got ''"),
        ({"e": ["pv"]}, "e must be the type of an event such as pv, got ['pv']"),
        ({"e": "pv", "eid": 5}, "eid must be text, got 5"),
        ({"e": "pv", "page_url": "/"}, "has the name 'page_url', which no payload has"),
        ({"e": "ue", "ue_pr": {}}, "ue_pr must be text or a number, got {}"),
        ({"e": "pv", "url": True}, "url must be text or a number, got True"),
    ],
)
def test_line_that_is_no_event_is_told_why(value, complaint, tracker):
    """A line says what is wrong with it; what would spoil all that is sent along with it is bad, too."""
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the message is compared below
        payload_from(value, tracker)

    assert str(error.value).startswith(complaint)


def test_data_that_is_too_deep_to_write_is_bad(tracker, monkeypatch):
    """What could be read may be too deep to be written again."""
    monkeypatch.setattr(json_lines, "json_value", lambda _: {"schema": URI, "data": circle})
    circle = []
    circle.append(circle)

    with pytest.raises(ValueError, match=r"event_json\.data.* cannot be encoded as JSON"):
        payload_of(Line(b"{}"), tracker)


def test_line_that_is_too_long_is_bad(send, collector):
    """A line that no pipeline would take is not even kept in memory, and those behind it are sent."""
    first, last = raw_lines(2)

    exit_code, out, errors = send([first, "x" * (3 * MAX_LINE_BYTES), last, "x" * 2 * MAX_LINE_BYTES], collector.url)

    assert (exit_code, out) == (1, "read 4, delivered 2, rejected 2, failed 0\n")
    assert errors == [f"line {number}: is longer than {MAX_LINE_BYTES} bytes" for number in (2, 4)]
    assert numbers(collector) == [1, 2]


@pytest.mark.parametrize(("letter", "fits", "is_too_much"), [("/", 1_048_000, 1_048_400), ("é", 174_600, 174_750)])
def test_line_that_makes_too_large_a_request_is_bad(send, collector, letter, fits, is_too_much):
    """A collector would answer 200, and the pipeline throw the event away in silence."""
    lines = [f'{{"e":"pv","eid":"{count}","url":"{letter * count}"}}' for count in (fits, is_too_much)]

    exit_code, out, errors = send(lines, collector.url)

    assert (exit_code, out) == (1, "read 2, delivered 1, rejected 1, failed 0\n")
    assert re.fullmatch(r"line 2: takes \d+ bytes to send, and no pipeline takes more than 1048576", errors[0])
    assert numbers(collector) == [fits]
    assert len(collector.requests[0].body) <= 1_048_576


def test_strict_stops_at_a_bad_line(send, collector):
    """What came before the bad line is sent, and what comes from it on is for the next time."""
    exit_code, out, errors = send([*raw_lines(2), "{}", *raw_lines(1, start=4)], collector.url, "--strict")

    assert (exit_code, out) == (1, "read 3, delivered 2, rejected 1, failed 0\n")
    assert errors == [
        "line 3: must have schema and data, or e as a payload has",
        "resume from line 3: --from-line 3",
    ]
    assert numbers(collector) == [1, 2]


def test_sending_begins_at_the_line_of_choice(send, collector):
    """Lines before it are passed over, bad ones too, and not counted; the numbers stay those of the file."""
    exit_code, out, errors = send(["{}", *raw_lines(2, start=2), "{}"], collector.url, "--from-line", "3")

    assert (exit_code, out) == (1, "read 2, delivered 1, rejected 1, failed 0\n")
    assert errors == ["line 4: must have schema and data, or e as a payload has"]
    assert numbers(collector) == [3]


def test_lines_that_the_collector_refuses_are_named(send, collector, monkeypatch):
    """What a collector refuses for good counts as rejected, and is told by line; the rest is delivered."""
    monkeypatch.setattr("snowplow_tracker._cli.send._BATCH_SIZE", 2)
    monkeypatch.setattr(flow, "MAX_PAYLOADS", 2)
    monkeypatch.setattr("snowplow_tracker._cli.send.MAX_PAYLOADS", 2)
    # Too large for two together, and for the second of them alone.
    collector.respond_with(413, 200, 413, 400)

    exit_code, out, errors = send(raw_lines(6), collector.url)

    assert (exit_code, out) == (1, "read 6, delivered 3, rejected 3, failed 0\n")
    assert errors == [
        "line 2: refused for good: the collector answered 413",
        "2 of lines 3 to 4: refused for good: the collector answered 400",
    ]
    assert numbers(collector) == [1, 5, 6]


def test_outage_is_waited_for(send, collector):
    """A collector that recovers gets all lines, in order; the log of the emitter tells of the outage."""
    collector.respond_with(503)

    exit_code, out, errors = send(raw_lines(5_000), collector.url)

    assert (exit_code, out) == (0, "read 5000, delivered 5000, rejected 0, failed 0\n")
    assert re.fullmatch(r"WARNING Status 503: \d+ payloads will be retried in [\d.]+ s \(http://.*\)", errors[0])
    assert errors[1:] == [f"The collector takes payloads again: {collector.url}/com.snowplowanalytics.snowplow/tp2"]
    assert numbers(collector) == list(range(1, 5_001))


@pytest.mark.parametrize(
    ("is_down", "reason"), [(True, "connection refused by 127.0.0.1:"), (False, "the collector answered 503")]
)
def test_what_is_not_delivered_in_time_has_failed(send, collector, is_down, reason):
    """When the input has ended, there is a time to deliver the rest; then it is told why, and from where to resume."""
    collector.respond_always(503)
    if is_down:
        collector.refuse_connections()

    exit_code, out, errors = send(["{}", *raw_lines(2, start=2)], collector.url, "--timeout", "0.1")

    assert (exit_code, out) == (3, "read 3, delivered 0, rejected 1, failed 2\n")
    assert errors[-2].startswith(f"not delivered in time: {reason}")
    assert errors[-1] == "resume from line 2: --from-line 2"


def test_sending_is_given_up_if_nothing_is_ever_delivered(send, collector, monkeypatch):
    """An endpoint where no collector is does not hold up the input for ever."""
    monkeypatch.setattr(flow, "MAX_PAYLOADS", 10)
    monkeypatch.setattr("snowplow_tracker._cli.send._BATCH_SIZE", 10)
    collector.refuse_connections()

    exit_code, out, errors = send(raw_lines(20), collector.url, "--timeout", "0.1")

    assert (exit_code, out) == (3, "read 10, delivered 0, rejected 0, failed 10\n")
    assert errors[-3] == "nothing could be delivered within 0.1 s: giving up"
    assert errors[-2].startswith("not delivered in time: connection refused by ")
    assert errors[-1] == "resume from line 1: --from-line 1"


def test_outage_is_told_of_again_and_again(send, collector, monkeypatch):
    """Once something was delivered there is a collector, and a line now and then tells that it is down."""
    monkeypatch.setattr(flow, "MAX_PAYLOADS", 10)
    monkeypatch.setattr("snowplow_tracker._cli.send._BATCH_SIZE", 10)
    monkeypatch.setattr("snowplow_tracker._cli.send._OUTAGE_TOLD_EVERY_SECONDS", 0.0)
    collector.respond_with(200, 503, 200)

    exit_code, out, errors = send(raw_lines(21), collector.url)

    assert (exit_code, out) == (0, "read 21, delivered 21, rejected 0, failed 0\n")
    assert any(
        re.fullmatch(r"no answer for \d+ s: the collector answered 503; Ctrl-C ends it", line) for line in errors
    )


@pytest.mark.parametrize(("first", "outcome"), [(5, 1), (4, 0)])
def test_line_beyond_the_end_is_told(send, collector, first, outcome):
    """A line that the input does not have is a mistake; the one behind the last is where a run resumes that is done."""
    exit_code, out, errors = send(raw_lines(3), collector.url, "--from-line", str(first))

    assert (exit_code, out) == (outcome, "read 0, delivered 0, rejected 0, failed 0\n")
    assert errors == ["--from-line 5 is beyond the end: the input has 3 lines"] * outcome


def test_never_more_than_so_many_payloads_are_under_way(send, collector, monkeypatch):
    """While the collector takes its time, the input waits; a line more is read, and nothing is dropped."""
    released = threading.Event()
    collector.respond_with(Answer(hold=released))
    monkeypatch.setattr(flow, "MAX_PAYLOADS", 50)
    counts = []

    class Watching(flow.Flow):
        def wait_a_while(self):
            counts.append(len(self._under_way))
            released.set()
            super().wait_a_while()

    monkeypatch.setattr("snowplow_tracker._cli.send.Flow", Watching)
    monkeypatch.setattr("snowplow_tracker._cli.send._BATCH_SIZE", 10)

    exit_code, out, _ = send(raw_lines(200), collector.url)

    assert (exit_code, out) == (0, "read 200, delivered 200, rejected 0, failed 0\n")
    assert max(counts) == 50
    assert numbers(collector) == list(range(1, 201))


def test_large_lines_are_bounded_by_their_bytes(send, collector, monkeypatch):
    """Few payloads that are large fill the memory as well as many that are small."""
    monkeypatch.setattr(flow, "MAX_BYTES", 100)
    counts = []

    class Watching(flow.Flow):
        def put(self, payload, number, size):
            super().put(payload, number, size)
            counts.append(len(self._under_way))

    monkeypatch.setattr("snowplow_tracker._cli.send.Flow", Watching)
    monkeypatch.setattr("snowplow_tracker._cli.send._BATCH_SIZE", 1)

    exit_code, out, _ = send(raw_lines(20), collector.url)

    assert (exit_code, out) == (0, "read 20, delivered 20, rejected 0, failed 0\n")
    assert max(counts) <= 4


def test_waiting_ends_when_there_is_room(monkeypatch):
    """Payloads that are settled between two looks leave nothing to wait for."""
    monkeypatch.setattr(flow, "_LONGEST_WAIT_SECONDS", threading.TIMEOUT_MAX)

    flow.Flow(AsyncEmitter("localhost"), lambda *_: None).wait_a_while()


@sends_signals
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_reading(collector, number, exit_code):
    """What has been read is sent, and then it is told from where to resume."""
    with running("send", "--endpoint", collector.url) as process:
        process.stdin.write("\n".join([*raw_lines(600), ""]))
        process.stdin.flush()
        # The first 500 go at once, so from then on the command is waiting for the rest.
        collector.wait_for_payloads(600, LIMIT_SECONDS)
        outcome = end(process, number)

    assert outcome == (
        exit_code,
        "read 600, delivered 600, rejected 0, failed 0\n",
        "snowplow-tracker: interrupted: sending what has been read, for 5 s at most\n"
        "snowplow-tracker: resume from line 601: --from-line 601\n",
    )


@sends_signals
def test_sending_resumes_where_ctrl_c_ended_it(collector, tmp_path):
    """No line is lost between two runs; what was on its way at the end of the first may come twice."""
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(raw_lines(6_000)), encoding="utf-8")
    held = Answer(hold=threading.Event())
    collector.respond_with(200)
    collector.respond_always(held)

    with running("send", "--endpoint", collector.url, "--timeout", "0.2", str(file)) as process:
        collector.wait_for_requests(2, LIMIT_SECONDS)
        exit_code, out, error = end(process)
    first_run = collector.requests
    delivered, failed = map(int, re.search(r"delivered (\d+), rejected 0, failed (\d+)", out).groups())
    resume_at = re.search(r"resume from line (\d+): --from-line \1\n", error).group(1)

    assert exit_code == 130
    assert delivered == len(first_run[0].payloads)
    assert failed > 0
    assert int(resume_at) == delivered + 1

    collector.reset()
    process = run("send", "--endpoint", collector.url, "--from-line", resume_at, str(file))

    assert process.stdout == f"read {6_000 - delivered}, delivered {6_000 - delivered}, rejected 0, failed 0\n"
    assert numbers(collector) == list(range(delivered + 1, 6_001))


@sends_signals
def test_second_ctrl_c_ends_at_once(collector):
    """Nobody has to wait for a collector that does not answer."""
    collector.respond_always(Answer(hold=threading.Event()))

    with running("send", "--endpoint", collector.url) as process:
        process.stdin.write("\n".join([*raw_lines(500), ""]))
        process.stdin.flush()
        collector.wait_for_requests(1, LIMIT_SECONDS)
        process.send_signal(signal.SIGTERM)
        told = process.stderr.readline()
        exit_code, out, error = end(process)

    assert exit_code == 143
    assert told == "snowplow-tracker: interrupted: sending what has been read, for 5 s at most\n"
    assert out == "read 500, delivered 0, rejected 0, failed 500\n"
    assert error == "snowplow-tracker: resume from line 1: --from-line 1\n"


def test_ctrl_c_ends_the_waiting_for_room(send, monkeypatch):
    """Ctrl-C counts while the input waits for the collector, and the line that waits is read again the next time."""
    monkeypatch.setattr(flow, "MAX_PAYLOADS", 10)
    monkeypatch.setattr("snowplow_tracker._cli.send._BATCH_SIZE", 10)

    is_interrupted = threading.Event()

    class Interrupted(flow.Flow):
        def wait_a_while(self):
            is_interrupted.set()
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("snowplow_tracker._cli.send.Flow", Interrupted)
    with LocalCollector() as collector:
        # An answer that came earlier would make room.
        collector.respond_always(Answer(hold=is_interrupted))
        exit_code, out, errors = send(raw_lines(50), collector.url)

    assert (exit_code, out) == (130, "read 10, delivered 10, rejected 0, failed 0\n")
    assert errors[-1] == "resume from line 11: --from-line 11"


def test_ctrl_c_ends_the_last_attempts(send, collector):
    """Ctrl-C when all has been read ends the waiting for the rest, and the next run begins with that."""
    collector.respond_always(503)

    class Interrupting(AsyncEmitter):
        def close(self, timeout=5.0):
            if timeout:
                signal.raise_signal(signal.SIGINT)
            return super().close(timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("snowplow_tracker._cli.send.AsyncEmitter", Interrupting)
        exit_code, out, errors = send(raw_lines(5), collector.url)

    assert (exit_code, out) == (130, "read 5, delivered 0, rejected 0, failed 5\n")
    assert errors[-1] == "resume from line 1: --from-line 1"


def test_input_that_breaks_off_is_told(send, collector, monkeypatch):
    """What was read before is sent, and it is told from where to resume."""
    lines = iter([Line(raw_lines(1)[0].encode()), OSError(5, "Input/output error")])

    def read(stream):
        line = next(lines)
        if isinstance(line, OSError):
            raise line
        return line

    monkeypatch.setattr("snowplow_tracker._cli.send.read_line", read)

    exit_code, out, errors = send([], collector.url)

    assert (exit_code, out) == (1, "read 1, delivered 1, rejected 0, failed 0\n")
    assert errors == ["line 2: cannot be read: Input/output error", "resume from line 2: --from-line 2"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--endpoint", "ftp://a"], "endpoint must be an http or https address, got 'ftp://a'"),
        (["--endpoint", "a", "/nowhere/at/all"], "/nowhere/at/all cannot be read: No such file or directory"),
        (["--endpoint", "a", "--from-line", "0"], "argument --from-line: must be 1 or more, got 0"),
        (["--endpoint", "a", "--timeout", "-1"], "argument --timeout: must be a positive number of seconds"),
    ],
)
def test_wrong_arguments_read_nothing(arguments, complaint, capsys):
    """What cannot work is wrong usage, told below the usage of the command."""
    with pytest.raises(SystemExit) as end:
        main(["send", *arguments])

    assert end.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("is_file", [True, False])
def test_input_that_is_compressed_is_wrong_usage(collector, tmp_path, monkeypatch, capsys, is_file):
    """One line tells what to do, instead of one for each line that is none."""
    file = tmp_path / "events.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(raw_lines(5_000)).encode()))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))

    with pytest.raises(SystemExit) as end:
        main(["send", "--endpoint", collector.url, "--from-line", "2", *([str(file)] if is_file else [])])

    output = capsys.readouterr()
    name = file if is_file else "FILE"
    assert (end.value.code, output.out) == (2, "")
    assert output.err.endswith(f"error: the input is compressed: use gzip -dc {name} | snowplow-tracker send\n")
    assert collector.requests == []


def test_input_that_is_closed_is_wrong_usage(monkeypatch, capsys):
    """A process may have no standard input at all."""
    monkeypatch.setattr(sys, "stdin", None)

    with pytest.raises(SystemExit) as end:
        main(["send", "--endpoint", "a"])

    assert end.value.code == 2
    assert "there is no standard input" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="needs the terminals of Unix")
@pytest.mark.parametrize("is_file", [True, False])
def test_terminal_shows_a_bar(collector, tmp_path, is_file):
    """On a terminal a bar shows how far it is, below the messages; of a pipe nobody knows the length."""
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join([*raw_lines(100), "{}", *raw_lines(5_000)]), encoding="utf-8")
    terminal, shown_in = os.openpty()
    source = [str(file)] if is_file else []

    process = subprocess.run(
        [sys.executable, "-m", "snowplow_tracker", "send", "--endpoint", collector.url, *source],
        input=None if is_file else file.read_bytes(),
        stdout=subprocess.PIPE,
        stderr=shown_in,
        timeout=LIMIT_SECONDS,
        check=False,
        env=environment(),
    )
    os.close(shown_in)
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        shown = screen.read(65_536).decode()

    assert process.stdout == b"read 5101, delivered 5100, rejected 1, failed 0\n"
    bar = "[------------------------]   0%  " if is_file else ""
    assert shown.startswith(f"\r{bar}1 read, 0 delivered, 0/s")
    assert re.search(r"\r *\rsnowplow-tracker: line 101: must have schema and data, or e as a payload has\r\n", shown)
    # Nothing of the bar is left, which need not have been drawn again after the message.
    assert re.search(r"(\r *\r|\r\n)$", shown)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_is_redrawn_now_and_then(monkeypatch):
    """The bar takes the width of the terminal at most, and is not drawn more often than anybody can read."""
    monkeypatch.setattr(sys, "stderr", _Terminal())
    now = [100.0]
    monkeypatch.setattr("snowplow_tracker._cli.progress.time.monotonic", lambda: now[0])
    progress = Progress(lambda seconds: f"{seconds:g} s {'x' * 100}", lambda: 0.5)

    progress.draw()
    now[0] = 100.05
    progress.draw()
    now[0] = 105.0
    progress.draw()

    bar = "[############------------]  50%  "
    drawn = sys.stderr.getvalue().split("\r")[1:]
    assert [line.rstrip("x") for line in drawn] == [f"{bar}0 s ", f"{bar}5 s "]
    assert {len(line) for line in drawn} == {79}


def test_no_terminal_no_bar(capsys):
    """In a log, there are only messages."""
    progress = Progress(str, lambda: None)

    progress.draw()
    progress.say("a message")
    progress.end()

    assert capsys.readouterr().err == "snowplow-tracker: a message\n"


def write_many(file, count):
    with file.open("w", encoding="utf-8") as stream:
        for number in range(count):
            stream.write(
                f'{{"schema":"{URI}","data":{{"id":{number},"items":["tea","cup"]}},"contexts":[{json.dumps(ENTITY)}],'
                f'"subject":{{"user_id":"{number % 1000}"}}}}\n'
            )


MEASURING = r"""
import re, resource, sys
from pathlib import Path
from snowplow_tracker._cli import main
exit_code = main(sys.argv[1:])
if sys.platform == "linux":  # where the other figure begins with the peak of the process that started this one
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print("peak", peak)
sys.exit(exit_code)
"""


@sends_signals
@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [2_000, pytest.param(200_000, marks=pytest.mark.long)])
def test_send_and_micro_work_together_in_bounded_memory(tmp_path, count):
    """All that the one sends arrives at the other, and neither takes more than 150 MB, however much it is."""
    file, lines = tmp_path / "events.jsonl", tmp_path / "lines"
    write_many(file, count)
    command = [sys.executable, "-c", MEASURING]
    with lines.open("w") as sink, subprocess.Popen(
        [*command, "micro", "--port", "0"], stdout=sink, env=environment(PYTHONUNBUFFERED="1")
    ) as micro:
        try:
            eventually(lambda: "/micro/ui" in lines.read_text(encoding="utf-8"))
            url = re.search(r"http://\S+", lines.read_text(encoding="utf-8")).group()
            sender = subprocess.run(
                [*command, "send", "--endpoint", url, str(file)], capture_output=True, text=True, check=False
            )
        finally:
            micro.send_signal(signal.SIGINT)

    *_, sums, micro_peak = lines.read_text(encoding="utf-8").splitlines()
    closing, sender_peak = sender.stdout.splitlines()
    assert (sender.returncode, sender.stderr) == (0, "")
    assert closing == f"read {count}, delivered {count}, rejected 0, failed 0"
    assert sums.startswith(f"good {count}, bad 0, requests ")
    assert max(int(peak.split()[1]) for peak in (sender_peak, micro_peak)) < 150_000
