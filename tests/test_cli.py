"""What all commands have in common: help, exit codes, and what their values may be."""

import dataclasses
import errno
import io
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import pytest
from commands import DEAD_URL, run

from snowplow_tracker import Emitter, Subject, __version__
from snowplow_tracker._cli import main, usage
from snowplow_tracker._cli.proxy import no_proxy_before
from snowplow_tracker._cli.subjects import subject_of
from snowplow_tracker._cli.values import (
    described,
    described_list,
    json_argument,
    json_value,
    number,
    port,
    positive_seconds,
    schema_uri,
    size,
    text,
    timestamp,
    whole_number,
)

COMMANDS = [
    ["demo"],
    ["micro"],
    ["track", "page-view"],
    ["track", "struct"],
    ["track", "self-describing"],
    ["track", "screen-view"],
    ["send"],
    ["forward"],
]
URI = "iglu:com.acme/purchase/jsonschema/1-0-0"
LOADED = """
import sys
from snowplow_tracker._cli import main
try:
    main(["track", "--help"])
finally:
    sys.stderr.write(" ".join(name for name in sys.modules if name.partition(".")[0] == "jsonschema"))
"""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_explains_itself(command, capsys, monkeypatch):
    """The help of a command shows how it is called, its exit codes and an example, and is wide as a terminal is."""
    monkeypatch.setenv("COLUMNS", "80")

    with pytest.raises(SystemExit) as end:
        main([*command, "--help"], prog="snowplow-tracker")

    help_text = capsys.readouterr().out
    assert end.value.code == 0
    assert help_text.startswith(f"usage: snowplow-tracker {' '.join(command)} [-h]")
    assert "exit code is" in help_text
    assert f"  snowplow-tracker {' '.join(command)}" in help_text.partition("\nexample")[2]
    assert max(map(len, help_text.splitlines())) <= 90


def test_list_of_commands_shows_each():
    """The program's own help names each command, and the way to more of it."""
    process = run("--help")

    assert (process.returncode, process.stderr) == (0, "")
    assert [line.split()[0] for line in process.stdout.splitlines() if line.startswith("    ")] == [
        "demo",
        "micro",
        "track",
        "send",
        "forward",
    ]


def test_help_calls_the_program_as_it_was_called():
    """Under `python -m` it is that; a console script is its own name."""
    module = run("micro", "--help")
    code = "import sys; sys.argv = ['/usr/bin/snowplow-tracker', 'micro', '--help']; import snowplow_tracker._cli as c"
    script = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit(c.main())"], capture_output=True, text=True, check=False
    )

    assert module.stdout.startswith("usage: python -m snowplow_tracker micro")
    assert script.stdout.startswith("usage: snowplow-tracker micro")


def test_console_script_is_installed():
    """The distribution declares the script that runs the commands."""
    try:
        scripts = metadata.distribution("snowplow-tracker").entry_points
    except metadata.PackageNotFoundError:
        pytest.skip("needs the package to be installed, be it with pip install -e")

    (script,) = (script for script in scripts if script.group == "console_scripts")
    assert (script.name, script.value) == ("snowplow-tracker", "snowplow_tracker._cli:main")


def test_commands_do_not_load_what_they_do_not_need():
    """Validation takes long to load, and is there for those who ask for it."""
    process = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=False)

    assert process.returncode == 0
    assert process.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["track"]])
def test_command_that_is_not_complete_gets_help(arguments, capsys):
    """Without a command, or without an event, there is help on stdout, and the exit code of wrong usage."""
    exit_code = main(arguments, prog="snowplow-tracker")

    assert exit_code == 2
    assert capsys.readouterr().out.startswith(" ".join(["usage: snowplow-tracker", *arguments]))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["micro", "--port", "x"], "argument --port: must be a whole number, got 'x'"),
        (["micro", "--por", "1"], "unrecognized arguments: --por 1"),
        (["track", "page-view"], "the following arguments are required: --url"),
        (["track", "page-view", "--url", "/"], "--endpoint or the environment variable SNOWPLOW_ENDPOINT must name"),
        (
            ["forward", "--endpoint", "a"],
            "--store or the environment variable SNOWPLOW_STORE must name the event store",
        ),
        (["forward", "--store", "sqlite:///a"], "--endpoint or the environment variable SNOWPLOW_ENDPOINT must name"),
        (["send"], "--endpoint or the environment variable SNOWPLOW_ENDPOINT must name the collector"),
    ],
)
def test_wrong_usage_is_told_from_failure(arguments, complaint, capsys, monkeypatch):
    """What is wrong stands in the last line, below the usage of the very command; the exit code is 2."""
    monkeypatch.setenv("SNOWPLOW_ENDPOINT", "")
    monkeypatch.setenv("SNOWPLOW_STORE", "")

    with pytest.raises(SystemExit) as end:
        main(arguments, prog="snowplow-tracker")

    error = capsys.readouterr().err
    assert end.value.code == 2
    assert error.startswith("usage: snowplow-tracker ")
    assert complaint in error.splitlines()[-1]


def test_version_is_told(capsys):
    """The option prints the name and the version, and nothing else."""
    with pytest.raises(SystemExit) as end:
        main(["--version"])

    assert end.value.code == 0
    assert capsys.readouterr().out == f"snowplow-tracker {__version__}\n"


@pytest.mark.parametrize(
    ("error", "endpoint", "reason"),
    [
        (None, "localhost", "there is no answer yet"),
        (
            "SSLError: [SSL: WRONG_VERSION_NUMBER]",
            "localhost",
            "it does not seem to speak https: put http:// in front of the endpoint (SSLError: "
            "[SSL: WRONG_VERSION_NUMBER])",
        ),
        ("SSLError: WRONG_VERSION_NUMBER", "https://localhost", "no response: SSLError: WRONG_VERSION_NUMBER"),
        ("SSLError: CERTIFICATE_VERIFY_FAILED", "localhost", "no response: SSLError: CERTIFICATE_VERIFY_FAILED"),
        ("ConnectionError: Connection refused", "localhost", "connection refused by localhost:9"),
        ("ProxyError: Connection refused", "localhost", "no response: ProxyError: Connection refused"),
    ],
)
def test_failure_tells_what_to_do(error, endpoint, reason):
    """Errors that a beginner meets are told in words, and others as they are."""
    stats = dataclasses.replace(Emitter("localhost").stats(), last_error=error)

    assert usage.failure_reason(stats, "https://localhost:9/com.snowplowanalytics.snowplow/tp2", endpoint) == reason


def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch, capsys):
    """A command that knows nothing of Ctrl-C ends with the exit code that a shell gives for it."""

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("snowplow_tracker._cli.demo.demo", interrupted)

    assert main(["demo"]) == 130
    assert capsys.readouterr() == ("", "")


def test_output_that_nobody_reads_ends_a_command(collector):
    """A closed pipe is no reason for a traceback, neither at once nor at exit."""
    read_end, write_end = os.pipe()
    os.close(read_end)

    process = subprocess.run(
        [sys.executable, "-m", "snowplow_tracker", "track", "page-view", "--url=/", "--endpoint", collector.url],
        stdout=write_end,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write_end)

    assert (process.returncode, process.stderr) == (1, b"")
    assert len(collector.payloads) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without room, as Linux has it")
def test_output_without_room_is_told_in_a_line(collector):
    """A full disk is no reason for a traceback, either."""
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "snowplow_tracker", "track", "page-view", "--url=/", "--endpoint", collector.url],
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )

    told = "snowplow-tracker: the output cannot be written: No space left on device\n"
    assert (process.returncode, process.stderr) == (1, told)
    assert len(collector.payloads) == 1


def test_other_error_of_the_operating_system_is_not_hidden(monkeypatch):
    """What has nothing to do with the output has a traceback."""

    def fail():
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr("snowplow_tracker._cli.demo.demo", fail)

    with pytest.raises(PermissionError):
        main(["demo"])


def test_terminal_that_lacks_characters_shows_their_codes():
    """A message with other than ASCII characters does not fail where the output is ASCII."""
    process = run("send", "--endpoint", DEAD_URL, stdin='{"e":"pv","é":1}\n', PYTHONIOENCODING="ascii")

    assert process.returncode == 1
    assert r"\xe9" in process.stderr


def test_streams_that_are_no_files_are_left_alone(monkeypatch):
    """An application that runs a command may have put anything in place of stdout."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())

    assert main([], prog="snowplow-tracker") == 2


def test_complaint_is_one_line(capsys):
    """However the reason is written, it takes one line."""
    usage.complain("it\n failed")

    assert capsys.readouterr().err == "snowplow-tracker: it failed\n"


@pytest.mark.parametrize(
    ("endpoint", "exceptions"),
    [
        ("http://127.0.0.1:9090", "127.0.0.1"),
        ("http://localhost/prefix", "localhost"),
        ("http://[::1]:9090", "::1"),
        ("https://collector.example", "intranet.example"),
        ("https://192.0.2.1", "intranet.example"),
    ],
)
def test_proxy_is_not_asked_for_this_machine(endpoint, exceptions, monkeypatch):
    """No proxy can reach the loopback interface of this machine; other hosts are the environment's business."""
    monkeypatch.setenv("no_proxy", "intranet.example")

    with no_proxy_before(endpoint):
        meanwhile = os.environ["no_proxy"]

    assert meanwhile == exceptions
    assert os.environ["no_proxy"] == "intranet.example"


@pytest.mark.parametrize(
    ("check", "value", "meaning"),
    [
        (text, "a", "a"),
        (text, 5, "5"),
        (whole_number, "5", 5),
        (whole_number, 5, 5),
        (number, "5", 5),
        (number, "-2.5", -2.5),
        (positive_seconds, "0.5", 0.5),
        (port, "0", 0),
        (port, "65535", 65535),
        (size, "1920x1080", [1920, 1080]),
        (timestamp, 1700000000000, 1700000000000),
        (timestamp, 100_000_000_000, 100_000_000_000),
        (timestamp, 1700000000000.7, 1700000000000),
        (timestamp, "1700000000000", 1700000000000),
        (timestamp, "2024-02-03T04:05:06Z", datetime(2024, 2, 3, 4, 5, 6, tzinfo=timezone.utc)),
        (timestamp, "2024-02-03 04:05:06", datetime(2024, 2, 3, 4, 5, 6)),
        (schema_uri, URI, URI),
        (json_value, '{"a": [1, null]}', {"a": [1, None]}),
        (json_argument, "[1]", [1]),
    ],
)
def test_value_is_taken(check, value, meaning):
    """Values mean what they say."""
    result = check(value)

    assert result == meaning
    assert type(result) is type(meaning)


@pytest.mark.parametrize(
    ("check", "value", "complaint"),
    [
        (text, True, "must be text, got True"),
        (text, ["a"], "must be text, got"),
        (whole_number, "1.5", "must be a whole number, got '1.5'"),
        (whole_number, 1.5, "must be a whole number, got 1.5"),
        (whole_number, True, "must be a whole number, got True"),
        (number, "a", "must be a number, got 'a'"),
        (number, "nan", "must be a number, got 'nan'"),
        (number, "1e999", "must be a number, got '1e999'"),
        (positive_seconds, "0", "must be a positive number of seconds, got '0'"),
        (positive_seconds, "1e9", "must be a positive number of seconds, got '1e9'"),
        (port, "65536", "must be between 0 and 65535, got '65536'"),
        (port, "-1", "must be between 0 and 65535, got '-1'"),
        (size, "1920", "must be a width and a height such as 1920x1080, got '1920'"),
        (size, "0x1", "must be a width and a height"),
        (size, 5, "must be a width and a height"),
        (timestamp, "yesterday", "must be milliseconds since 1970 or a date and time in ISO 8601, got 'yesterday'"),
        (timestamp, True, "must be milliseconds"),
        (timestamp, "1706933106", "must be milliseconds since 1970, not seconds, got '1706933106'"),
        (timestamp, 99_999_999_999, "must be milliseconds since 1970, not seconds, got 99999999999"),
        (timestamp, -1, "must be from 1970 to the year 9999, got -1"),
        (timestamp, 253402300800000, "must be from 1970 to the year 9999"),
        (timestamp, "1969-12-31T23:59:59Z", "must be from 1970 to the year 9999"),
        (schema_uri, "iglu:com.acme/purchase/avro/1-0-0", "must be a URI"),
        (json_value, "[NaN]\n", "is not JSON: NaN is none"),
        (json_value, "{\n", "is not JSON: Expecting property name enclosed in double quotes: column 2"),
        (json_value, "[1,\n x]", "is not JSON: Expecting value: line 2, column 2"),
        (timestamp, float("inf"), "must be milliseconds"),
        (timestamp, [], "must be milliseconds"),
        (schema_uri, "purchase", f"must be a URI such as {URI}, got 'purchase'"),
        (schema_uri, f"{URI}\n", "must be a URI"),
        (schema_uri, None, "must be a URI"),
        (described, {"schema": URI}, "must be an object with schema and data, got"),
        (described, "a", "must be an object with schema and data, got 'a'"),
        (described, {"schema": "a", "data": {}}, "schema must be a URI such as"),
        (described_list, [{}], "must be an object with schema and data"),
        (json_value, "{", "is not JSON: Expecting property name"),
        (json_value, "[NaN]", "is not JSON: NaN is none"),
        (json_value, "[" * 100_000, "is nested too deeply"),
        (json_argument, "@/nowhere/at/all", "/nowhere/at/all cannot be read: No such file"),
    ],
)
def test_value_is_refused(check, value, complaint):
    """A wrong value is told from a right one, with the reason."""
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the message is compared below
        check(value)

    assert str(error.value).startswith(complaint)


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (b'{"a": 1}', {"a": 1}),
        ('\ufeff{"a": "é"}'.encode(), {"a": "é"}),
    ],
)
def test_json_comes_from_a_file(content, outcome, tmp_path):
    """What begins with an `@` names a file, and it may begin with a byte order mark."""
    file = tmp_path / "data.json"
    file.write_bytes(content)

    assert json_argument(f"@{file}") == outcome


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"{", "is not JSON: Expecting property name"), (b'"\xff"', "is not in UTF-8")]
)
def test_what_is_wrong_in_a_file_is_said_of_the_file(content, complaint, tmp_path):
    """The message names the file."""
    file = tmp_path / "data.json"
    file.write_bytes(content)

    with pytest.raises(ValueError) as error:  # noqa: PT011  # the message is compared below
        json_argument(f"@{file}")

    assert str(error.value).startswith(f"{file} {complaint}")


def test_json_comes_from_standard_input(monkeypatch):
    """The name `-` stands for the standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"a": 1}'))

    assert json_argument("@-") == {"a": 1}


def test_subject_is_made_of_names_and_values():
    """The names are those of the setters; a value of None sets nothing."""
    subject = subject_of({"user_id": 5, "viewport": "640x480", "color_depth": "24", "lang": None})

    assert subject is not None
    assert subject.standard_nv_pairs == {"p": "pc", "uid": "5", "vp": "640x480", "cd": 24}


def test_subject_without_values_is_none():
    """Who sets nothing has no subject."""
    assert subject_of({"lang": None}) is None


def test_subject_has_an_option_for_each_setter(capsys):
    """What a subject can tell, a command can say."""
    with pytest.raises(SystemExit):
        main(["track", "struct", "--help"])

    help_text = capsys.readouterr().out
    setters = [name[len("set_") :] for name in dir(Subject) if name.startswith("set_")]
    assert [name for name in setters if f"--{name.replace('_', '-')} " not in help_text] == []


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"name": "x"}, "has no 'name', only user_id, platform,"),
        ({"user_id": {}}, "user_id must be text, got {}"),
        ({"platform": "x"}, "platform must be one of 'app', 'cnsl'"),
    ],
)
def test_wrong_subject_is_refused(values, complaint):
    """A name that no subject has, and a value that its setter refuses, are mistakes."""
    with pytest.raises(ValueError, match=r"must be|has no") as error:
        subject_of(values)

    assert str(error.value).startswith(complaint)


def test_values_of_json_are_not_changed():
    """What the decoder of the commands takes, it takes as Python's own does."""
    value = {"a": [1, 2.5, "é", None, True, {"b": {}}]}

    assert json_value(json.dumps(value)) == value
