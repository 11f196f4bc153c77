"""Input of all kinds: the documented error, or a payload that arrives; and then all goes on."""

import base64
import contextlib
import functools
import inspect
import json
import re
import warnings
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qsl, urlsplit

import jsonschema
import pytest
import requests
from hypothesis import given, settings, strategies as st
from strategies import SCHEMA, anything, described_data, joined, json_encoders, numbers, odd, scalars, texts, timestamps
from support import is_balanced, with_manual_timers

from snowplow_tracker import (
    AsyncEmitter,
    Emitter,
    EmitterConfiguration,
    Event,
    PagePing,
    PageView,
    ScreenView,
    SelfDescribing,
    SelfDescribingJson,
    Snowplow,
    StructuredEvent,
    Subject,
    Tracker,
    TrackerConfiguration,
    disable_contracts,
    enable_contracts,
)
from snowplow_tracker._json import EncodingError
from snowplow_tracker._settings import Setting
from snowplow_tracker.constants import KNOWN_PAYLOAD_KEYS

pytestmark = pytest.mark.thorough

PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
EVENTS = [Event, PagePing, PageView, ScreenView, SelfDescribing, StructuredEvent]
LEGACY_METHODS = [name for name in dir(Tracker) if name.startswith("track_")]
SETTERS = [name for name in dir(Subject) if name.startswith("set_")]
# What a message about a part of an event begins with, beside the parameter that it was given as.
PARTS = KNOWN_PAYLOAD_KEYS | {"context", "event_json", "screen_view", "a", "schema", "dict_"}
MANY = 30


@pytest.fixture(
    params=["few", pytest.param("many", marks=[pytest.mark.long, pytest.mark.timeout(3600)])],
)
def hold_for(request):
    """Have a rule hold for examples: the same few each time, or many fresh ones."""

    def run(few, **strategies):
        budget = settings(max_examples=few)
        if request.param == "many":
            budget = settings(max_examples=few * MANY, derandomize=False)
        return lambda rule: budget(given(**strategies)(rule))()

    return run


@pytest.fixture
def valid(schema):
    """Hold data against the official schema of a URI."""
    validators = {}

    def validate(uri, data):
        if uri not in validators:
            checker = jsonschema.FormatChecker(formats=["uuid"])
            validators[uri] = jsonschema.Draft4Validator(schema(uri), format_checker=checker)
        validators[uri].validate(data)

    return validate


class Wire(Emitter):
    """Reads each request as a collector does, in place of sending it.

    A query holds each name once and is UTF-8, unless the application made it itself.
    """

    is_of_the_application = False

    @property
    def arrived(self):
        return self.__dict__.setdefault("_arrived", [])

    def http_post(self, data):
        body = json.loads(data.encode("ascii"), parse_constant=not_json)
        assert body["schema"] == PAYLOAD_DATA
        self.arrived.extend(body["data"])
        return 200

    def http_get(self, payload):
        url = requests.Request("GET", self.endpoint, params=payload).prepare().url
        errors = "replace" if self.is_of_the_application else "strict"
        pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True, errors=errors)
        assert self.is_of_the_application or len(dict(pairs)) == len(pairs)
        self.arrived.append(dict(pairs))
        return 200


def not_json(name):
    raise AssertionError(f"{name} is not JSON")


def wires(**options):
    return [Wire("localhost", method=method, flush_on_exit=False, **options) for method in ("post", "get")]


def refusal(names, call):
    """Return the error of a call, which must be a documented one, or None."""
    try:
        call()
    except (TypeError, ValueError) as refused:
        error = refused
    else:
        return None
    assert type(error) in (TypeError, ValueError, EncodingError)
    assert re.match(r"\w+", str(error)).group() in names, str(error)[:500]
    assert len(str(error)) < 10_000
    return error


def check_that_all_goes_on(emitter):
    """An event that is tracked now arrives as well, and there is nothing left."""
    eid = Tracker("after", emitter).track(PageView("http://example.com"))
    emitter.sync_flush()

    stats = emitter.stats()
    assert emitter.arrived[-1]["eid"] == eid
    assert (stats.buffered, stats.in_flight, stats.dropped, is_balanced(emitter)) == (0, 0, 0, True)
    return stats


def check_delivery(emitters, names, track):
    """Either the event is refused, or it arrives everywhere; nobody loses anything."""
    before = [len(emitter.arrived) for emitter in emitters]
    error = refusal(names, track)

    for emitter, count in zip(emitters, before):
        emitter.sync_flush()
        assert error or len(emitter.arrived) > count
        for payload in emitter.arrived[count:]:
            assert all(type(value) is str for value in payload.values())
        assert check_that_all_goes_on(emitter).rejected == 0


def arguments_of(function, values):
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return st.fixed_dictionaries({name: values(name) for name in names})


hosts = st.one_of(
    texts,
    st.text("abcABC019.-_~é雪ß☃ .%@:/[]\\", max_size=20),
    st.ip_addresses().map(str),
    st.sampled_from(["collector.example.com", "[::1]", "fe80::1%eth0", "münchen.example", "x" * 64, "a." * 300]),
)
endpoints = st.one_of(
    st.tuples(
        st.sampled_from(["", "http://", "HTTPS://", " https://", "ftp://", "//"]) | texts,
        st.sampled_from(["", "user:pass@", "ü:雪@", "@", "%zz@"]) | texts.map(lambda text: f"{text}@"),
        hosts,
        st.sampled_from(["", ":80", ":0", ":99999", ":x"]) | st.integers().map(lambda port: f":{port}"),
        st.sampled_from(["", "/", "/a/b/", "/a/../b", "/%zz", "/雪", "//", "?a=b", "#", "\n", "/" + "a" * 9999])
        | texts,
    ).map("".join),
    hosts,
    anything,
)


def test_endpoint_is_refused_or_can_be_requested(hold_for):
    """What is no address of a collector is refused by name; to all else `requests` can make a request."""

    @hold_for(
        120,
        endpoint=endpoints,
        protocol=st.sampled_from(["http", "https"]) | anything,
        port=st.none() | st.integers(1, 65535) | anything,
        method=st.sampled_from(["get", "post"]) | anything,
    )
    def rule(**arguments):
        emitters = []
        if refusal(arguments, lambda: emitters.append(Emitter(flush_on_exit=False, **arguments))) is None:
            parts = urlsplit(requests.Request("POST", emitters[0].endpoint, data="{}").prepare().url)
            assert parts.scheme in ("http", "https")
            assert parts.hostname
            assert parts.path.endswith("/i" if arguments["method"] == "get" else "/com.snowplowanalytics.snowplow/tp2")
            assert not parts.query
            assert not parts.fragment


OPTIONS = sorted(inspect.signature(EmitterConfiguration).parameters)


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter, EmitterConfiguration])
def test_option_is_refused_at_the_line_that_sets_it_or_taken(emitter_class, hold_for):
    """A wrong value raises with the option's name, in the constructor and by assignment, and the old value stays."""
    arguments = {} if emitter_class is EmitterConfiguration else {"endpoint": "localhost"}
    options = [name for name in OPTIONS if name in inspect.signature(emitter_class.__init__).parameters]

    @hold_for(70, option=st.sampled_from(options), value=anything | numbers)
    def rule(option, value):
        error = refusal({option}, lambda: emitter_class(**arguments, **{option: value}))

        target = emitter_class(**arguments)
        if isinstance(getattr(emitter_class, option, None), (Setting, property)):
            before = getattr(target, option)
            again = refusal({option}, lambda: setattr(target, option, value))
            assert again is None or getattr(target, option) is before
            assert error is None or again is not None or value is None


def test_emitter_delivers_with_each_option_that_it_takes(hold_for):
    """Once an option is taken, events arrive; and so they do after one was refused."""
    options = [name for name in OPTIONS if isinstance(getattr(Emitter, name, None), (Setting, property))]

    @hold_for(40, chosen=st.dictionaries(st.sampled_from(options), anything | numbers | st.integers(1), max_size=3))
    def rule(chosen):
        for emitter in wires():
            for option, value in chosen.items():
                refusal({option}, lambda: setattr(emitter, option, value))  # noqa: B023  # called at once
            try:
                assert check_that_all_goes_on(emitter).delivered == 1
            finally:
                emitter.close()


def test_any_request_timeout_that_is_taken_lets_a_request_through(hold_for, collector):
    """However long a request may take, it is a time that sockets know."""
    seconds = st.floats(5, allow_infinity=False) | st.integers(5, 10**300)

    @hold_for(8, timeout=seconds | st.tuples(seconds, seconds))
    def rule(timeout):
        with Emitter(collector.url, request_timeout=timeout) as emitter:
            emitter.input({"e": "pv"})
            emitter.sync_flush()

            assert emitter.stats().delivered == 1


@pytest.mark.parametrize("call", ["flush", "close"])
def test_any_wait_is_refused_or_ends(call, hold_for):
    """A flush and a close with nothing to do return, whatever time they got."""

    @hold_for(25, timeout=numbers | anything)
    def rule(timeout):
        refusal({"timeout"}, lambda: getattr(Tracker("test", wires()), call)(timeout=timeout))


@pytest.mark.parametrize("base64_", [True, False], ids=["base64", "text"])
def test_what_is_valid_arrives_as_it_was_given(base64_, hold_for, valid):
    """An event and its entities obey the schemas on the wire, and hold the same data by POST and by GET."""

    @hold_for(35, data=described_data, entities=st.lists(described_data, max_size=2), user=texts, title=texts)
    def rule(data, entities, user, title):
        emitters = wires()
        tracker = Tracker("test", emitters, Subject().set_user_id(user), encode_base64=base64_)
        event = SelfDescribing(SelfDescribingJson(SCHEMA, data[0]))
        event.context = [SelfDescribingJson(SCHEMA, entity) for entity, _ in entities]
        event.payload.add("page", title)

        tracker.track(event)
        tracker.flush()

        for payload in (emitter.arrived[0] for emitter in emitters):
            valid(PAYLOAD_DATA, [payload])
            described = read(payload, "ue_px", "ue_pr")
            valid(described["schema"], described["data"])
            assert described["data"] == {"schema": SCHEMA, "data": data[1]}
            context = read(payload, "cx", "co") or {"data": []}
            assert not context["data"] or valid(context["schema"], context["data"]) is None
            assert context["data"] == [{"schema": SCHEMA, "data": entity} for _, entity in entities]
        posted, got = ({**emitter.arrived[0], "stm": ""} for emitter in emitters)
        assert posted.get("uid", "") == joined(user)
        assert posted.get("page", "") == joined(title)
        assert {name: as_in_a_url(value) for name, value in posted.items()} == {
            name: as_in_a_url(value) for name, value in got.items()
        }


@pytest.mark.parametrize("text", ["x" * 1_000_000, '雪\ud800\x00"' * 100_000], ids=["ascii", "escapes"])
def test_megabyte_arrives(text, valid):
    """A huge text is sent as it is, alone in its request."""
    emitters = wires()
    tracker = Tracker("test", emitters)

    tracker.track(SelfDescribing(SelfDescribingJson(SCHEMA, {"text": text})))
    tracker.flush()

    for emitter in emitters:
        assert read(emitter.arrived[0], "ue_px", "ue_pr")["data"]["data"] == {"text": text}
        valid(PAYLOAD_DATA, emitter.arrived)


def read(payload, in_base64, in_text):
    if in_base64 in payload:
        return json.loads(base64.urlsafe_b64decode(payload[in_base64]))
    return json.loads(payload[in_text]) if in_text in payload else None


def as_in_a_url(text):
    """A URL has no surrogates; each is a question mark there, be it one of a pair."""
    return re.sub("[\ud800-\udfff\U00010000-\U0010ffff]|[?]+", "?", text)


@pytest.mark.parametrize("method", ["post", "get"])
def test_what_is_valid_arrives_over_a_socket(method, hold_for, collector):
    """What the tests read as a collector does is what a real one reads."""

    @hold_for(15, data=described_data, label=st.text(min_size=1))
    def rule(data, label):
        with Emitter(collector.url, method=method) as emitter:
            event = SelfDescribing(SelfDescribingJson(SCHEMA, data[0]))
            event.payload.add("se_la", label)
            Tracker("test", emitter).track(event)
        payload = collector.payloads[-1]

        assert payload["se_la"] == label
        assert read(payload, "ue_px", "ue_pr")["data"]["data"] == data[1]


def test_screen_views_with_uuids_obey_their_schema(hold_for, valid):
    """Fields that are strings make a screen view of the official schema, with the UUIDs that it asks for."""
    uuids = st.uuids().map(str)

    @hold_for(20, ids=st.tuples(uuids, st.none() | uuids), name=st.text(min_size=1), type_=st.none() | texts)
    def rule(ids, name, type_):
        emitters = wires()
        Tracker("test", emitters).track(ScreenView(ids[0], name, type_, previous_id=ids[1]))

        for emitter in emitters:
            emitter.sync_flush()
            described = read(emitter.arrived[0], "ue_px", "ue_pr")["data"]
            valid(described["schema"], described["data"])


@functools.lru_cache(maxsize=None)
def field(name):
    good = {
        "context": st.lists(st.builds(SelfDescribingJson, st.just(SCHEMA), anything), max_size=2),
        "event_json": st.builds(SelfDescribingJson, st.just(SCHEMA), anything),
        "event_subject": st.none() | st.builds(Subject),
        "true_timestamp": timestamps,
        "tstamp": timestamps,
        "dict_": st.dictionaries(st.sampled_from(sorted(KNOWN_PAYLOAD_KEYS)), anything, max_size=3) | odd,
        "node_name": st.sampled_from(["INPUT", "SELECT"]),
        "type_": st.none() | st.sampled_from(["text", "URL"]),
        "elements": st.lists(st.just({"name": "n", "value": None, "nodeName": "INPUT"}), max_size=2),
        "items": st.lists(st.fixed_dictionaries({"sku": texts, "price": numbers, "quantity": numbers}), max_size=2),
        "terms": st.lists(texts, min_size=1),
    }
    # The names in a dict are in messages too, so there they are those that a payload has.
    return good[name] if name == "dict_" else st.one_of(good.get(name, st.text(min_size=1)), st.none(), anything)


@pytest.fixture(params=[True, False], ids=["contracts", "no contracts"])
def _contracts(request):
    if not request.param:
        disable_contracts()
    yield
    enable_contracts()


@pytest.mark.usefixtures("_contracts")
@pytest.mark.parametrize("event_class", EVENTS)
def test_event_is_refused_by_name_or_arrives(event_class, hold_for):
    """Whatever is in its fields, an event raises what is documented, or arrives by POST and by GET."""

    @hold_for(20, fields=arguments_of(event_class.__init__, field), base64_=st.booleans(), json_encoder=json_encoders)
    def rule(fields, base64_, json_encoder):
        emitters = wires()
        tracker = Tracker("test", emitters, encode_base64=base64_, json_encoder=json_encoder)

        check_delivery(emitters, PARTS | set(fields), lambda: tracker.track(event_class(**fields)))


@pytest.mark.usefixtures("_contracts")
def test_deprecated_method_refuses_by_name_or_delivers(hold_for):
    """The deprecated methods know no other errors either."""

    calls = st.one_of(st.tuples(st.just(name), arguments_of(getattr(Tracker, name), field)) for name in LEGACY_METHODS)

    @hold_for(40, call=calls)
    def rule(call):
        name, arguments = call
        emitters = wires(byte_limit=1_000)
        method = getattr(Tracker("test", emitters), name)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_delivery(emitters, PARTS | set(arguments), lambda: method(**arguments))


@pytest.mark.usefixtures("_contracts")
def test_subject_refuses_by_name_or_is_sent(hold_for):
    """A setter of a subject, or the tracking of the next event, raises what is documented, or the field arrives."""

    calls = st.one_of(
        st.tuples(st.just(name), arguments_of(getattr(Subject, name), lambda _: anything | numbers)) for name in SETTERS
    )

    @hold_for(40, call=calls)
    def rule(call):
        name, arguments = call
        subject = Subject()
        setter = getattr(subject, name)
        refusal({"platform", *arguments}, lambda: setter(**arguments))

        emitters = wires()
        check_delivery(emitters, PARTS, lambda: Tracker("test", emitters, subject).track(PageView("url")))


def test_tracker_refuses_by_name_or_delivers(hold_for):
    """`create_tracker` and `TrackerConfiguration` raise what is documented, or make a tracker that works."""
    plain = anything | st.text()

    @hold_for(
        50,
        namespace=plain,
        app_id=plain,
        subject=st.none() | anything,
        method=st.sampled_from(["post", "get"]),
        config=st.none() | st.dictionaries(st.sampled_from(["encode_base64", "json_encoder"]), anything),
        emitter_config=st.none() | anything,
    )
    def rule(config, **arguments):
        Snowplow.reset()
        made = []

        def create():
            tracker_config = None if config is None else TrackerConfiguration(**config)
            made.append(
                Snowplow.create_tracker(
                    endpoint="localhost", emitter_class=Wire, tracker_config=tracker_config, **arguments
                )
            )

        if refusal({*arguments, "encode_base64", "json_encoder"}, create) is None:
            tracker = made[0]
            check_delivery(tracker.emitters, PARTS, lambda: tracker.track(PageView("url")))
        Snowplow.reset()


def test_true_timestamp_is_milliseconds_or_left_out(hold_for):
    """A number or a time is sent as whole milliseconds; what is neither is left out, and the event arrives."""

    @hold_for(70, timestamp=timestamps)
    def rule(timestamp):
        (emitter, _) = emitters = wires()
        too_long = isinstance(timestamp, int) and abs(timestamp) > 10**4000
        tracked = refusal({"ttm"}, lambda: Tracker("test", emitters).track(PageView("u", true_timestamp=timestamp)))
        emitter.sync_flush()

        if tracked is not None:
            assert too_long
            return
        ttm = emitter.arrived[0].get("ttm")
        assert ttm is None or re.match(r"-?\d+$", ttm)
        if isinstance(timestamp, datetime) and timestamp.tzinfo is not None:
            since_1970 = timestamp - datetime(1970, 1, 1, tzinfo=timezone.utc)
            assert ttm == str(since_1970 // timedelta(milliseconds=1))
        elif isinstance(timestamp, int) and not too_long:
            assert ttm == str(int(timestamp))
        elif not isinstance(timestamp, (float, datetime, int)):
            assert ttm is None


def test_input_takes_any_dict_or_raises_a_type_error(hold_for):
    """`Emitter.input` delivers names and values as strings, or refuses them; what came before is not lost."""

    @hold_for(70, payload=st.dictionaries(scalars, anything, max_size=5) | anything)
    def rule(payload):
        for emitter in wires():
            emitter.input({"eid": "before"})
            with contextlib.suppress(TypeError):
                emitter.input(payload)
            emitter.sync_flush()

            assert emitter.arrived[0]["eid"] == "before"
            for arrived in emitter.arrived:
                assert all(type(value) is str for value in arrived.values())
            assert check_that_all_goes_on(emitter).rejected == 0


def test_send_events_rejects_what_no_request_can_hold(hold_for):
    """Payloads that went past `input` arrive or are given up, and hold up nothing."""

    @hold_for(50, batch=st.lists(st.dictionaries(scalars, anything, max_size=3), max_size=3), limit=st.booleans())
    def rule(batch, limit):
        for emitter in map(with_manual_timers, wires(byte_limit=1_000 if limit else None)):
            emitter.is_of_the_application = True
            emitter.send_events([dict(payload) for payload in batch])
            emitter.is_of_the_application = False

            stats = check_that_all_goes_on(emitter)
            assert stats.delivered + stats.rejected == len(batch) + 1
