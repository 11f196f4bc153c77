"""The pages for those who track events are right: samples run as printed, and tables agree with the code."""

import ast
import enum
import inspect
import json
import re
import subprocess
import sys
import uuid
from base64 import urlsafe_b64decode
from datetime import date, datetime, time, timezone
from decimal import Decimal
from functools import partial
from operator import eq, lt
from typing import Any, Dict, List, Optional, Set

import pytest
import requests
from commands import DEAD_URL, LIMIT_SECONDS, end, environment, running
from pages import REPOSITORY, blocks, named_files, sections, text_of
from support import PACKAGE_FOLDERS

import snowplow_tracker
from snowplow_tracker import (
    AsyncEmitter,
    Emitter,
    EmitterConfiguration,
    PagePing,
    PageView,
    ScreenView,
    SelfDescribing,
    SelfDescribingJson,
    Snowplow,
    StructuredEvent,
    Subject,
    Tracker,
    contracts,
    typing as shapes,
)
from snowplow_tracker._legacy_tracking import LegacyTracking
from snowplow_tracker._transport import DEFAULT_TIMEOUT_SECONDS
from snowplow_tracker.testing import RecordingEmitter

# Each page with Python on it, and the tests that run that.
RUNNERS = {
    "emitters.md": "test_readme.py",
    "get-started.md": "test_pages.py",
    "moving-from-1.1.0.md": "test_moving_page.py",
    "running-in-production.md": "test_production_page.py",
    "stores.md": "test_stores_page.py",
    "testing.md": "test_docs.py",
    "tracking-events.md": "test_pages.py",
}

GET_STARTED = sections("docs/get-started.md")
TRACKING = sections("docs/tracking-events.md")
FILES = named_files(text_of("docs/get-started.md"), "python")

needs_unix = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of Unix")


class Size(enum.Enum):
    LARGE = "L"


@pytest.fixture(autouse=True)
def _own_registry():
    Snowplow.reset()
    yield
    Snowplow.reset()


@pytest.fixture
def tracked(collector):
    """What is left of the samples about tracking when all of them have run, one after the other."""
    names: Dict[str, Any] = {"__name__": "sample"}
    for sample in blocks(text_of("docs/tracking-events.md"), "python"):
        exec(compile(sample.replace("collector.example.com", collector.url), "<sample>", "exec"), names)
    for namespace in ("shop", "priced", "readable"):
        Snowplow.get_tracker(namespace).flush()
    return names


@pytest.fixture
def recorder():
    return RecordingEmitter()


@pytest.fixture
def run_file(tmp_path):
    """Run a file of the first page in a process of its own, with another collector in place of that of the page."""

    def run(name, url):
        code = FILES[name].replace("http://127.0.0.1:9090", url).replace("127.0.0.1:9090", url.partition("//")[2])
        (tmp_path / name).write_text(code, encoding="utf-8")
        return subprocess.run(
            [sys.executable, name],
            cwd=str(tmp_path),
            env=environment(PYTHONPATH=PACKAGE_FOLDERS),
            capture_output=True,
            encoding="utf-8",
            timeout=LIMIT_SECONDS,
            check=True,
        )

    return run


def rows(text: str, first: str) -> List[List[str]]:
    """Return the rows of a table as lists of cells, by the heading of its first column."""
    _, _, rest = text.partition(f"| {first} |")
    table = rest.partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def codes(cell: str) -> List[str]:
    return re.findall(r"`([^`]+)`", cell)


def described(payload):
    """Return the data of a self-describing event, and the schemas of its entities."""
    names = {"ue_px": "ue_pr", "cx": "co"}
    texts = {
        name: urlsafe_b64decode(payload[encoded]) if encoded in payload else payload.get(name, "null")
        for encoded, name in names.items()
    }
    event, entities = json.loads(texts["ue_pr"]), json.loads(texts["co"])
    return event and event["data"]["data"], [entity["schema"] for entity in entities["data"]] if entities else []


def test_each_page_with_python_is_run():
    """A page with code is known to the tests that run it, and each block on it is seen by them."""
    pages = {file.name: file.read_text(encoding="utf-8") for file in (REPOSITORY / "docs").glob("*.md")}
    with_python = {name: text for name, text in pages.items() if re.search(r"```+ *(?:python|py)\b", text)}

    assert set(with_python) == set(RUNNERS)
    for name, text in with_python.items():
        assert len(re.findall(r"```+ *(?:python|py)\b", text)) == len(blocks(text, "python"))
        assert name in (REPOSITORY / "tests" / RUNNERS[name]).read_text(encoding="utf-8")


def test_index_leads_to_each_page():
    """The table of the first page and the contents of the site name the same pages: all of them."""
    index = text_of("docs/index.md")
    linked = re.findall(r"\]\(([\w.-]+)\.md\)", index)
    listed = re.search(r":hidden:\n\n(.*?)```", index, re.DOTALL).group(1).split()

    assert sorted(linked) == sorted(listed)
    assert {*listed, "index"} == {page.name[:-3] for page in (REPOSITORY / "docs").glob("*.md")}


def test_installation_is_that_of_the_readme():
    """There is one way to install the library."""
    assert blocks(GET_STARTED["Install"], "sh") == blocks(text_of("README.md"), "sh")[:1]


@needs_unix
@pytest.mark.thorough
def test_first_event_is_seen(run_file):
    """The collector says where it is, and shows the two events as the page does, the one good and the other bad."""
    (command,) = blocks(GET_STARTED["Start a collector"], "sh")
    (greeting,) = blocks(GET_STARTED["Start a collector"], "text")
    with running("micro", "--port", "0") as process:
        lines = process.stdout.readline() + process.stdout.readline()
        url = lines.split()[2]
        page = requests.get(f"{url}/micro/ui", timeout=LIMIT_SECONDS)
        run_file("first_event.py", url)
        events = process.stdout.readline()
        run_file("bad_event.py", url)
        events += process.stdout.readline()
        _, rest, _ = end(process)

    assert command == "snowplow-tracker micro\n"
    assert blocks(GET_STARTED["Track an event"], "sh") == ["python first_event.py\n"]
    assert lines == greeting.replace("http://127.0.0.1:9090", url)
    assert f"<{url}/micro/ui>" in GET_STARTED["Start a collector"].replace("http://127.0.0.1:9090", url)
    assert page.status_code == 200
    shown = "".join(blocks(GET_STARTED["See it arrive"], "text"))
    assert re.sub(r"^[\d:]{8}  ", "", events, flags=re.MULTILINE) == shown
    assert rest == "good 1, bad 1, requests 2\n"


def test_application_delivers_at_its_end(run_file, collector):
    """Without a flush the event is delivered when the process ends."""
    run_file("application.py", collector.url)

    collector.assert_event(event_type="page_view", properties={"name_tracker": "web"}, count=1)


def test_log_and_statistics_say_why_nothing_arrives(run_file, collector):
    """The mistake of the sample is in the log and in what it prints, and is mended as the page says."""
    outcome = run_file("nothing_arrives.py", collector.url)
    mended = FILES["nothing_arrives.py"].replace('"127.0.0.1:9090"', f'"{collector.url}"')

    assert outcome.stdout.startswith("1 -1 SSLError: ")
    assert re.match(r"WARNING:snowplow_tracker\.emitters:No response: 1 payloads will be retried in ", outcome.stderr)
    assert collector.payloads == []
    exec(compile(mended, "<mended>", "exec"), {})
    collector.assert_event(event_type="page_view", properties={"name_tracker": "lost"}, count=1)


def fed(emitter, count=1):
    for number in range(count):
        emitter.input({"e": "pv", "p": "srv", "tv": "test", "eid": str(number)})
    return emitter.stats()


def of_a_refusing_collector(collector):
    collector.respond_always(400)
    return fed(Emitter(collector.url, batch_size=1))


# What leads to each row of the table about statistics.
SITUATIONS = {
    "`accepted=0`, `dropped=0`": lambda collector: Emitter(collector.url).stats(),
    "`buffered` above 0, `requests=0`": lambda collector: fed(Emitter(collector.url)),
    "`last_status=-1`": lambda collector: fed(Emitter(DEAD_URL, batch_size=1)),
    "`rejected` above 0": of_a_refusing_collector,
    "`dropped` above 0": lambda collector: fed(Emitter(DEAD_URL, buffer_capacity=1), 2),
    "`delivered` above 0": lambda collector: fed(Emitter(collector.url, batch_size=1)),
}


def figures(text):
    """Read what a row says of figures: each name, and whether a figure is as it should be."""
    exact = {name: partial(eq, int(value)) for name, value in re.findall(r"`(\w+)=(-?\d+)`", text)}
    return {**exact, **dict.fromkeys(re.findall(r"`(\w+)` above 0", text), partial(lt, 0))}


def test_table_of_statistics_is_complete():
    """Each row is put to the test."""
    assert [row[0] for row in rows(GET_STARTED["Nothing arrives?"], "`stats()` says")] == list(SITUATIONS)


@pytest.mark.parametrize("said", SITUATIONS)
def test_statistics_tell_situations_apart(collector, said):
    """In the situation that a row explains, the figures are as it says; and they are not when nothing was tracked."""
    stats = SITUATIONS[said](collector)

    checks = figures(said)
    assert len(checks) == len(codes(said))
    assert all(is_right(getattr(stats, name)) for name, is_right in checks.items())
    if stats.accepted:
        fresh = Emitter(collector.url).stats()
        assert not all(is_right(getattr(fresh, name)) for name, is_right in checks.items())


def test_samples_about_tracking_deliver(collector, tracked):
    """The samples run one after the other, and each of their events arrives, and is good."""
    assert [event.event_type for event in collector.good] == [
        *["page_view"] * 2,
        "page_ping",
        "struct",
        *["unstruct"] * 3,
        *["page_view"] * 3,
        *["struct"] * 2,
        *["unstruct"] * 2,
    ]
    assert collector.bad == []
    assert collector.payloads[0]["eid"] == tracked["event_id"]
    assert {payload["aid"] for payload in collector.payloads[:12]} == {"web-shop"}


def test_samples_about_tracking_say_what_they_are_said_to(collector, tracked):
    """Data, entities, subjects and timestamps of the samples are on the wire."""
    payloads = collector.payloads

    assert described(payloads[4]) == ({"id": "o-1", "total": 42}, [])
    first, second = described(payloads[5])[0], described(payloads[6])[0]
    assert (first["name"], second["previousName"], second["previousId"]) == ("basket", "basket", first["id"])
    assert described(payloads[7])[1] == [tracked["product"].schema, tracked["visitor"].schema]
    assert [payload["p"] for payload in payloads[7:10]] == ["pc", "pc", "srv"]
    assert {(payload["uid"], payload["lang"]) for payload in payloads[8:10]} == {("c-17", "fr-CH")}
    assert [payload["ttm"] for payload in payloads[10:12]] == ["1795163400000"] * 2
    assert described(payloads[12])[0] == {"price": {"amount": 21, "currency": "EUR"}}
    assert {"ue_px", "cx"} & set(payloads[13]) == set()
    assert described(payloads[13]) == ({"id": "o-1", "total": 42}, [tracked["product"].schema])


@pytest.mark.parametrize(
    ("title", "event_class"), [("Page view", PageView), ("Page ping", PagePing), ("Structured event", StructuredEvent)]
)
def test_table_of_an_event_is_right(recorder, title, event_class):
    """Each argument is in the table, by its names on the wire and in the warehouse, and whether it is required."""
    parameters = own_parameters(event_class)
    values = {name: "x" if text_is_meant(parameter) else 7 for name, parameter in parameters.items()}
    Tracker("test", recorder).track(event_class(**values))

    (payload,), (event,) = recorder.payloads, recorder.good
    table = [[*map(codes, row[:3]), row[3]] for row in rows(TRACKING[title], "Argument")]
    assert [name for (name,), _, _, _ in table] == list(parameters)
    for (name,), (wire_name,), (column,), required in table:
        assert payload[wire_name] == str(values[name])
        assert event.fields[column] == values[name]
        assert (required == "yes") == (parameters[name].default is inspect.Parameter.empty)


def test_table_of_screen_views_is_right(recorder):
    """Each argument is in the table, by its name in the data, and whether it is required."""
    parameters = own_parameters(ScreenView)
    values = {name: f"the {name}" for name in parameters}
    Tracker("test", recorder).track(ScreenView(**values))

    table = rows(TRACKING["Screen view"], "Argument")
    assert f"`{recorder.good[0].schema}`" in TRACKING["Screen view"]
    assert recorder.good[0].data == {codes(row[1])[0]: values[codes(row[0])[0]] for row in table}
    required = {name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty}
    assert {codes(row[0])[0] for row in table if row[2] == "yes"} == required


def own_parameters(event_class):
    common = {"event_subject", "context", "true_timestamp"}
    return {name: parameter for name, parameter in parameters_of(event_class).items() if name not in common}


def text_is_meant(parameter):
    return parameter.annotation in (str, Optional[str])


def test_table_of_subjects_is_right():
    """Each setter is in the table, and sets what is said to be on the wire and in the warehouse."""
    table = [[codes(row[0])[0], codes(row[1])[0], codes(row[2])] for row in rows(TRACKING["Subjects"], "Setter")]

    setters = {name for name in vars(Subject) if name.startswith("set_")}
    assert {call.partition("(")[0] for call, _, _ in table} == setters
    for call, wire_name, columns in table:
        recorder = RecordingEmitter()
        subject = eval(f"Subject().{call}", {"Subject": Subject})
        Tracker("test", recorder, subject=subject).track(PageView("https://shop.example/"))
        assert set(subject.standard_nv_pairs) == {"p", wire_name}
        assert subject.standard_nv_pairs["p"] == ("srv" if wire_name == "p" else "pc")
        assert set(columns) <= set(recorder.good[0].fields)


def test_platforms_of_the_page_are_all():
    """The row of the platform names each that is supported, and the default."""
    (row,) = (row for row in rows(TRACKING["Subjects"], "Setter") if "`p`" in row)

    assert set(codes(row[3])) == {*shapes.SUPPORTED_PLATFORMS, "headset"}
    assert f"`{Subject().standard_nv_pairs['p']}` (the default)" in row[3]


@pytest.mark.parametrize("setter", ["set_platform(None)", "set_viewport(None, 1)", "set_screen_resolution(1, None)"])
def test_platform_and_sizes_are_not_cleared(setter):
    """None clears all fields but these, of which the page says so."""
    with pytest.raises((TypeError, ValueError)):
        eval(f"Subject().{setter}", {"Subject": Subject})


def test_event_without_a_platform_is_bad(recorder):
    """A tracker without a subject makes bad events of those that have none either."""
    tracker = Tracker("test", recorder).set_subject(None)

    tracker.track(PageView("https://shop.example/"))

    assert len(recorder.bad) == 1


def test_table_of_timestamps_is_right(collector):
    """The three are on the wire and in the warehouse by these names."""
    with Tracker("test", Emitter(collector.url)) as tracker:
        tracker.track(PageView("https://shop.example/", true_timestamp=1_795_163_400_000))

    (event,) = collector.good
    for wire_name, column, *_ in rows(TRACKING["Timestamps"], "On the wire"):
        assert event.payload[codes(wire_name)[0]].isdigit()
        assert event.fields[codes(column)[0]].startswith("20")


@pytest.mark.parametrize(
    ("value", "text"),
    [(value, codes(row[1])[0]) for row in rows(TRACKING["Values in JSON"], "Value") for value in codes(row[0])],
)
def test_table_of_values_is_right(recorder, value, text):
    """Each value becomes the JSON that the page shows."""
    names = {
        "date": date,
        "datetime": datetime,
        "Decimal": Decimal,
        "SelfDescribingJson": SelfDescribingJson,
        "Size": Size,
        "time": time,
        "timezone": timezone,
        "UUID": uuid.UUID,
    }
    event_json = SelfDescribingJson("iglu:com.acme/thing/jsonschema/1-0-0", {"value": eval(value, names)})

    Tracker("test", recorder, encode_base64=False).track(SelfDescribing(event_json))

    assert recorder.payloads[0]["ue_pr"].endswith(f'"data":{{"value":{text}}}}}}}')


MISTAKES = [[codes(cell)[0] for cell in row] for row in rows(TRACKING["What raises, and when"], "Code")]


@pytest.fixture
def make_mistake(recorder):
    """Run the code of a row with the names of the package."""

    def run(code):
        eval(code, {**vars(snowplow_tracker), "tracker": Tracker("test", recorder)})

    return run


@pytest.mark.parametrize(("code", "error"), MISTAKES)
def test_mistake_raises_what_the_page_says(make_mistake, recorder, code, error):
    """The class and the message are as printed, and no emitter has got anything."""
    name, _, message = error.partition(": ")

    with pytest.raises({"TypeError": TypeError, "ValueError": ValueError}[name]) as caught:
        make_mistake(code)

    assert str(caught.value) == message
    assert recorder.payloads == []


@pytest.mark.parametrize(("number", "code"), list(enumerate(code for code, _ in MISTAKES)))
def test_contracts_are_for_the_first_four(make_mistake, number, code):
    """Without contracts the first four rows raise nothing, and the others what they did."""
    contracts.disable_contracts()
    try:
        if number < 4:
            make_mistake(code)
        else:
            with pytest.raises(TypeError):
                make_mistake(code)
    finally:
        contracts.enable_contracts()


def test_table_of_deprecated_methods_is_right():
    """Each method is in the table, with what its docstring says to use."""
    table = {name: codes(row[1])[0] for row in rows(TRACKING["Deprecated methods"], "Method") for name in codes(row[0])}

    replacements = {
        name: re.search(r"Deprecated: use `(.+)`\.", method.__doc__).group(1)
        for name, method in vars(LegacyTracking).items()
        if name.startswith("track_")
    }
    assert table == replacements


OPTIONS = rows(sections("docs/emitters.md")["Options"], "Option")

# By what the page says of the range of an option: values that are taken, and values that are refused.
RANGES: Dict[str, Any] = {
    "integer, 1 or more": ([1, 10**9], [0, -1, 1.5, "1", True]),
    "integer, 1 to 65,535": ([1, 65_535], [0, 65_536, "80"]),
    "seconds, above 0": ([0.001, 1, 10**9], [0, -1, float("nan"), float("inf"), "1"]),
    "seconds, above 0, or a pair of them": ([0.001, (1, 2.5)], [0, -1, (1, 0), (1, 2, 3), "1"]),
    "function of one argument": ([print], [1]),
    "function of two arguments": ([print], [1]),
    "dict of status codes, 100 to 599 but no 2xx, to True or False": (
        [{100: True, 599: False}],
        [{99: True}, {600: True}, {200: False}, {299: False}, {500: 1}, [500]],
    ),
    "store, or URL of one": (
        [snowplow_tracker.InMemoryEventStore(), "memory:"],
        [object(), "nowhere:", snowplow_tracker.InMemoryEventStore],
    ),
    "True or False": ([True, False], [1, "yes"]),
    "object with `post` and `get`": ([requests.Session()], [object(), requests.Session]),
    "`http` or `https`": (["http", "https"], ["ftp", 1]),
}


def parameters_of(described_class):
    # Of the constructor, because Python 3.8 takes a class that obeys a protocol for one without arguments.
    parameters = dict(inspect.signature(described_class.__init__).parameters)
    del parameters["self"]
    return parameters


def test_table_of_options_is_complete():
    """It has the options of `EmitterConfiguration`, and below it are the arguments that only emitters have."""
    options = [codes(row[0])[0] for row in OPTIONS]
    others = {"endpoint", "method", "buffer_size"}

    assert len(options) == len(set(options))
    assert set(options) == set(parameters_of(EmitterConfiguration))
    assert {*options, *others} == set(parameters_of(AsyncEmitter))
    assert {*options, *others} - {"thread_count"} == set(parameters_of(Emitter))
    rest = sections("docs/emitters.md")["Options"].rpartition("|\n")[2]
    assert others <= set(codes(rest))


@pytest.mark.parametrize(("option", "default"), [(codes(row[0])[0], row[1]) for row in OPTIONS])
def test_default_of_an_option_is_right(option, default):
    """The table has the default of the signature; a configuration leaves it to the emitter."""
    value = ast.literal_eval(codes(default)[0])

    classes = [AsyncEmitter] if option == "thread_count" else [Emitter, AsyncEmitter]
    assert [parameters_of(emitter_class)[option].default for emitter_class in classes] == [value] * len(classes)
    assert parameters_of(EmitterConfiguration)[option].default is None


def test_what_none_stands_for_is_right():
    """Where the default is None, the table tells what the emitter makes of it."""
    said = {codes(row[0])[0]: row[1].partition(": ")[2] for row in OPTIONS if row[1].startswith("`None`: ")}
    by_post, by_get = Emitter("localhost"), Emitter("localhost", method="get")
    stores = [snowplow_tracker.SQLiteEventStore("events.db"), snowplow_tracker.RedisEventStore("redis://localhost")]

    assert said["batch_size"] == f"{by_post.batch_size} by POST, {by_get.batch_size} by GET"
    assert said["request_timeout"] == "{:g} s to connect, {:g} s to read".format(*DEFAULT_TIMEOUT_SECONDS)
    in_memory = f"{by_post.event_store.buffer_capacity:,} in memory"
    assert said["buffer_capacity"] == f"{in_memory}, {stores[0].buffer_capacity:,} in SQLite and Redis"
    assert stores[0].buffer_capacity == stores[1].buffer_capacity
    assert isinstance(by_post.event_store, snowplow_tracker.InMemoryEventStore)


@pytest.mark.parametrize(("option", "values"), [(codes(row[0])[0], row[2]) for row in OPTIONS])
def test_range_of_an_option_is_right(option, values):
    """Both ends of the range are taken, and what lies beyond is refused by its name."""
    good, bad = RANGES[values]

    for value in good:
        EmitterConfiguration(**{option: value})
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=f"^{option}"):
            EmitterConfiguration(**{option: value})


@pytest.mark.parametrize(
    ("name", "code"),
    [(name, codes(row[1])[0]) for row in rows(sections("docs/api.md")["Typing"], "Name") for name in codes(row[0])],
)
def test_shape_is_what_the_reference_says(name, code):
    """The reference shows what an alias stands for."""
    if code == "Set[str]":
        assert {type(member) for member in getattr(shapes, name)} == {str}
    else:
        assert eval(code, dict(vars(shapes))) == getattr(shapes, name)


def test_reference_has_each_shape():
    """A name of `snowplow_tracker.typing` is described by its docstring, or is in the table."""
    in_table = {name for row in rows(sections("docs/api.md")["Typing"], "Name") for name in codes(row[0])}

    assert in_table | names_described() >= set(shapes.__all__)


def names_described() -> Set[str]:
    """Return the last parts of the names whose docstrings are on the page."""
    text = text_of("docs/api.md")
    named = re.findall(r"autoclass:: ([\w.]+)", text)
    members = re.findall(r":members: (.+)", text)
    return {name.rpartition(".")[2] for name in [*named, *", ".join(members).split(", ")]}
