"""The options of an emitter: each is checked at the line that sets it, and nothing is shared."""

import inspect
import math

import pytest
import requests

from snowplow_tracker import AsyncEmitter, Emitter, EmitterConfiguration
from snowplow_tracker.event_store import InMemoryEventStore

GOOD_VALUES = {
    "batch_size": 25,
    "on_success": print,
    "on_failure": print,
    "byte_limit": 25_000,
    "request_timeout": (3, 4),
    "max_retry_delay_seconds": 2.5,
    "buffer_capacity": 1000,
    "custom_retry_codes": {500: False},
    "event_store": InMemoryEventStore(),
    "session": requests.Session(),
    "protocol": "http",
    "port": 9090,
    "max_request_bytes": 500_000,
    "flush_interval": 0.5,
    "flush_on_exit": False,
    "thread_count": 4,
}
INTEGERS = ["batch_size", "byte_limit", "buffer_capacity", "port", "max_request_bytes", "thread_count"]
NUMBERS = ["max_retry_delay_seconds", "flush_interval", "request_timeout"]
WRONG_TYPES = [
    *[(name, value) for name in INTEGERS for value in (True, 1.5, math.nan, "10", [10])],
    *[(name, value) for name in NUMBERS for value in (True, "10", b"10", {})],
    *[(name, value) for name in ("on_success", "on_failure") for value in (True, "print", [])],
    *[("custom_retry_codes", value) for value in (True, 500, [500], {"500": True}, {True: True}, {500: 1})],
    *[("event_store", value) for value in (True, b"memory:", [])],
    *[("session", value) for value in (True, "name", [])],
    *[("protocol", value) for value in (True, 80, b"http")],
    *[("flush_on_exit", value) for value in (0, 1, "yes")],
]
WRONG_VALUES = [
    *[(name, value) for name in INTEGERS for value in (0, -1)],
    ("port", 65536),
    *[(name, value) for name in NUMBERS for value in (0, -1, -0.5, math.nan, math.inf)],
    *[("request_timeout", value) for value in ((), (1, 2, 3), (0, 1), (1, math.inf))],
    *[("custom_retry_codes", {code: True}) for code in (0, 99, 200, 299, 600)],
    *[("protocol", value) for value in ("ftp", "HTTP", "")],
    *[("event_store", value) for value in ("name", "", "mysql://localhost")],
]


def test_every_option_is_none_by_default():
    """None stands for the emitter's own default; the retry codes are an empty dict."""
    configuration = EmitterConfiguration()

    values = {name: getattr(configuration, name) for name in GOOD_VALUES}

    assert values.pop("custom_retry_codes") == {}
    assert set(values.values()) == {None}


@pytest.mark.parametrize("name", GOOD_VALUES)
def test_option_may_be_given_to_the_constructor(name):
    """What is given is what is read."""
    configuration = EmitterConfiguration(**{name: GOOD_VALUES[name]})

    assert getattr(configuration, name) == GOOD_VALUES[name]


@pytest.mark.parametrize("name", GOOD_VALUES)
def test_option_may_be_set_and_taken_back(name):
    """An attribute may be reassigned, and None brings the default back."""
    configuration = EmitterConfiguration()

    setattr(configuration, name, GOOD_VALUES[name])
    given = getattr(configuration, name)
    setattr(configuration, name, None)

    assert given == GOOD_VALUES[name]
    assert configuration.emitter_options() == EmitterConfiguration().emitter_options()


@pytest.mark.parametrize(("name", "value"), WRONG_TYPES, ids=repr)
def test_wrong_type_is_refused_where_it_is_set(name, value):
    """It is a TypeError with the option's name, in the constructor and at an assignment."""
    configuration = EmitterConfiguration()
    before = getattr(configuration, name)

    with pytest.raises(TypeError, match=f"^{name}"):
        EmitterConfiguration(**{name: value})
    with pytest.raises(TypeError, match=f"^{name}"):
        setattr(configuration, name, value)

    assert getattr(configuration, name) == before


@pytest.mark.parametrize(("name", "value"), WRONG_VALUES, ids=repr)
def test_wrong_value_is_refused_where_it_is_set(name, value):
    """It is a ValueError with the option's name, in the constructor and at an assignment."""
    configuration = EmitterConfiguration()
    before = getattr(configuration, name)

    with pytest.raises(ValueError, match=f"^{name}"):
        EmitterConfiguration(**{name: value})
    with pytest.raises(ValueError, match=f"^{name}"):
        setattr(configuration, name, value)

    assert getattr(configuration, name) == before


def test_options_that_were_set_are_what_an_emitter_gets():
    """What was left alone is left to the emitter."""
    configuration = EmitterConfiguration(batch_size=5, flush_on_exit=False)

    configuration.port = 9090

    assert configuration.emitter_options() == {
        "batch_size": 5,
        "flush_on_exit": False,
        "port": 9090,
        "custom_retry_codes": {},
    }


def test_all_options_reach_the_emitter():
    """There is none that an `AsyncEmitter` would not take, and none of its own that is missing here."""
    configuration = EmitterConfiguration(**GOOD_VALUES)

    emitter = AsyncEmitter("localhost", **configuration.emitter_options())

    assert {name: getattr(emitter, name) for name in GOOD_VALUES if name not in ("protocol", "port")} == {
        name: value for name, value in GOOD_VALUES.items() if name not in ("protocol", "port")
    }
    assert emitter.endpoint.startswith("http://localhost:9090/")
    own = set(inspect.signature(AsyncEmitter.__init__).parameters)
    assert own - set(GOOD_VALUES) == {"self", "endpoint", "method", "buffer_size"}


def test_plain_emitter_takes_all_options_but_the_threads():
    """`thread_count` is for an `AsyncEmitter`."""
    own = set(inspect.signature(Emitter.__init__).parameters)

    assert set(GOOD_VALUES) - own == {"thread_count"}


def test_retry_codes_are_copied():
    """A dict that the application goes on using is not shared."""
    rules = {500: False}
    configuration = EmitterConfiguration(custom_retry_codes=rules)

    rules[503] = False
    configuration.set_retry_code(502, False)

    assert configuration.custom_retry_codes == {500: False, 502: False}
    assert rules == {500: False, 503: False}


def test_retry_codes_are_not_shared_between_configurations():
    """Each instance begins with rules of its own."""
    first, second = EmitterConfiguration(), EmitterConfiguration()

    first.set_retry_code(500, False)

    assert second.custom_retry_codes == {}


def test_retry_codes_are_not_shared_with_an_emitter():
    """A rule that comes after the emitter was built does not reach it."""
    configuration = EmitterConfiguration(custom_retry_codes={500: False})
    emitter = Emitter("localhost", **configuration.emitter_options())

    configuration.set_retry_code(503, False)

    assert emitter.custom_retry_codes == {500: False}


def test_retry_code_is_retried_by_default():
    """A rule says yes, unless it says no, and the last one counts."""
    configuration = EmitterConfiguration()

    assert configuration.set_retry_code(400) is True
    configuration.set_retry_code(500, False)
    configuration.set_retry_code(503, True)
    configuration.set_retry_code(503, False)

    assert configuration.custom_retry_codes == {400: True, 500: False, 503: False}


@pytest.mark.parametrize(
    ("code", "retry", "error"),
    [
        (True, True, TypeError),
        ("500", True, TypeError),
        (500.0, True, TypeError),
        (500, 1, TypeError),
        (500, None, TypeError),
        (99, True, ValueError),
        (600, True, ValueError),
        (200, True, ValueError),
        (204, False, ValueError),
    ],
)
def test_wrong_retry_code_is_refused(code, retry, error):
    """It names the argument, shows the value, and changes nothing."""
    configuration = EmitterConfiguration()
    wrong = code if retry is True or error is ValueError else retry

    with pytest.raises(error, match=r"^status_code") as caught:
        configuration.set_retry_code(code, retry)

    assert str(caught.value).endswith(f"got {wrong!r}")
    assert configuration.custom_retry_codes == {}


def test_signature_keeps_the_order_of_the_documentation():
    """Options may be given by position, as they always could; later ones by name only."""
    parameters = inspect.signature(EmitterConfiguration).parameters.values()

    by_position = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    by_name = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}

    assert by_position == [
        "batch_size",
        "on_success",
        "on_failure",
        "byte_limit",
        "request_timeout",
        "buffer_capacity",
        "custom_retry_codes",
        "event_store",
        "session",
    ]
    assert by_name == set(GOOD_VALUES) - set(by_position)
