"""The command that sends one event, against a real collector."""

import base64
import json
import uuid

import pytest
from commands import DEAD_URL, run

from snowplow_tracker._cli import main

URI = "iglu:com.acme/purchase/jsonschema/1-0-0"
ENTITY = {"schema": "iglu:com.acme/user/jsonschema/1-0-0", "data": {"tier": "gold"}}


@pytest.fixture
def track(collector, capsys):
    """Track an event by a command; return the payload that arrived."""

    def command(*arguments):
        exit_code = main(["track", *arguments, "--endpoint", collector.url])
        output = capsys.readouterr()
        assert (exit_code, output.err) == (0, "")
        (payload,) = collector.payloads
        assert output.out == f"{payload['eid']}\n"
        return payload

    return command


def decoded(text):
    return json.loads(base64.urlsafe_b64decode(text))["data"]


def test_page_view_has_all_fields(track):
    """Each option goes out under its name on the wire."""
    payload = track("page-view", "--url", "https://a/", "--title", "A page", "--referrer", "https://b/")

    assert {name: payload[name] for name in ("e", "url", "page", "refr", "tna", "p")} == {
        "e": "pv",
        "url": "https://a/",
        "page": "A page",
        "refr": "https://b/",
        "tna": "command-line",
        "p": "pc",
    }


def test_structured_event_has_all_fields(track):
    """Each option goes out under its name on the wire."""
    payload = track("struct", "--category=c", "--action=a", "--label=l", "--property=p", "--value=-2.5")

    assert {name: value for name, value in payload.items() if name.startswith("se_")} == {
        "se_ca": "c",
        "se_ac": "a",
        "se_la": "l",
        "se_pr": "p",
        "se_va": "-2.5",
    }


def test_self_describing_event_brings_its_data(track):
    """The schema and the data are those of the options."""
    payload = track("self-describing", "--schema", URI, "--data", '{"total": 12.5}')

    assert decoded(payload["ue_px"]) == {"schema": URI, "data": {"total": 12.5}}


def test_screen_view_has_all_fields(track):
    """Each option goes out under its name in the schema."""
    payload = track(
        "screen-view",
        "--name=n",
        "--id=i",
        "--type=t",
        "--previous-name=pn",
        "--previous-id=pi",
        "--previous-type=pt",
        "--transition-type=tt",
    )

    assert decoded(payload["ue_px"])["data"] == {
        "name": "n",
        "id": "i",
        "type": "t",
        "previousName": "pn",
        "previousId": "pi",
        "previousType": "pt",
        "transitionType": "tt",
    }


def test_screen_view_gets_an_id(track):
    """A view of a screen that has no id gets a new one, as the schema demands."""
    payload = track("screen-view", "--name", "cart")

    data = decoded(payload["ue_px"])["data"]
    assert data == {"name": "cart", "id": str(uuid.UUID(data["id"]))}


def test_context_comes_from_options_and_files(track, tmp_path):
    """Entities are JSON, one or a list of them, in an option or a file; the option may be repeated."""
    file = tmp_path / "context.json"
    file.write_text(json.dumps([ENTITY, ENTITY]), encoding="utf-8")

    payload = track("page-view", "--url=/", "--context", json.dumps(ENTITY), "--context", f"@{file}")

    assert decoded(payload["cx"]) == [ENTITY] * 3


def test_event_tells_whom_it_is_about(track):
    """All fields of a subject, the application, the tracker and the time can be set."""
    payload = track(
        "page-view",
        "--url=/",
        "--app-id=shop",
        "--namespace=cli",
        "--true-timestamp=2024-02-03T04:05:06Z",
        "--user-id=u",
        "--platform=srv",
        "--screen-resolution=1920x1080",
        "--viewport=640x480",
        "--color-depth=24",
        "--timezone=Europe/London",
        "--lang=en",
        "--domain-user-id=du",
        "--domain-session-id=ds",
        "--domain-session-index=3",
        "--ip-address=192.0.2.1",
        "--useragent=curl",
        "--network-user-id=nu",
    )

    always = {"e", "url", "eid", "dtm", "stm", "tv"}
    assert {name: value for name, value in payload.items() if name not in always} == {
        "aid": "shop",
        "tna": "cli",
        "ttm": "1706933106000",
        "uid": "u",
        "p": "srv",
        "res": "1920x1080",
        "vp": "640x480",
        "cd": "24",
        "tz": "Europe/London",
        "lang": "en",
        "duid": "du",
        "sid": "ds",
        "vid": "3",
        "ip": "192.0.2.1",
        "ua": "curl",
        "tnuid": "nu",
    }


def test_event_goes_out_by_the_method_of_choice(track, collector):
    """A GET is as good as a POST."""
    payload = track("page-view", "--url=/", "--method", "get")

    assert payload["url"] == "/"
    assert [request.method for request in collector.requests] == ["GET"]


def test_endpoint_comes_from_the_environment(collector):
    """The environment names the collector where no option does; a proxy for it is not asked."""
    process = run(
        "track",
        "page-view",
        "--url=/",
        "--protocol=http",
        SNOWPLOW_ENDPOINT=collector.url[len("http://") :],
        http_proxy=DEAD_URL,
    )

    (payload,) = collector.payloads
    assert (process.returncode, process.stdout, process.stderr) == (0, f"{payload['eid']}\n", "")


def test_data_comes_from_standard_input(collector):
    """What another program writes can be tracked."""
    arguments = ["self-describing", "--schema", URI, "--data", "@-", "--endpoint", collector.url]
    process = run("track", *arguments, stdin='{"total": "é"}')

    assert process.returncode == 0
    assert decoded(collector.payloads[0]["ue_px"])["data"] == {"total": "é"}


def test_event_is_tried_again_in_time(track, collector):
    """A collector that fails once gets the event all the same."""
    collector.respond_with(503)

    assert track("page-view", "--url=/")["url"] == "/"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "the event is refused: the collector answered 400"),
        (503, "the event is not delivered within 0.2 s: the collector answered 503"),
    ],
)
def test_collector_that_does_not_take_the_event_is_a_failure(collector, capsys, status, reason):
    """The exit code is 1 and one line tells the status; the id is printed, because a collector may have the event."""
    collector.respond_always(status)

    exit_code = main(["track", "page-view", "--url=/", "--endpoint", collector.url, "--timeout", "0.2"])

    output = capsys.readouterr()
    assert exit_code == 1
    assert uuid.UUID(output.out.strip())
    assert output.err == f"snowplow-tracker: {reason}\n"


def test_collector_that_does_not_answer_is_a_failure():
    """One line on stderr says who refused the connection, and nothing else is there."""
    process = run("track", "page-view", "--url=/", "--endpoint", DEAD_URL, "--timeout", "0.2")

    (line,) = process.stderr.splitlines()
    assert process.returncode == 1
    assert line.startswith(
        "snowplow-tracker: the event is not delivered within 0.2 s: connection refused by 127.0.0.1:9"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["page-view", "--url", ""], "page_url must be a non-empty string, got ''"),
        (["page-view", "--url", "/", "--endpoint", "ftp://a"], "endpoint must be an http or https address"),
        (["page-view", "--url", "/", "--platform", "fridge"], "platform must be one of 'app', 'cnsl'"),
        (["page-view", "--url", "/", "--context", "{}"], "--context: must be an object with schema and data, got {}"),
        (["page-view", "--url", "/", "--true-timestamp", "now"], "--true-timestamp: must be milliseconds since 1970"),
        (["page-view", "--url", "/", "--timeout", "0"], "--timeout: must be a positive number of seconds, got '0'"),
        (["self-describing", "--schema", "x", "--data", "{}"], "--schema: must be a URI such as iglu:"),
        (["self-describing", "--schema", URI, "--data", "{"], "--data: is not JSON: "),
        (["struct", "--category", "c", "--action", "a", "--value", "x"], "--value: must be a number, got 'x'"),
    ],
)
def test_wrong_arguments_send_nothing(arguments, complaint, capsys, monkeypatch, collector):
    """What cannot be an event is wrong usage, told below the usage of the command."""
    monkeypatch.setenv("SNOWPLOW_ENDPOINT", collector.url)

    with pytest.raises(SystemExit) as end:
        main(["track", *arguments])

    error = capsys.readouterr().err
    assert end.value.code == 2
    assert complaint in error.splitlines()[-1]
    assert collector.requests == []
