"""Options: which values they take, and how they say no."""

import enum
import math
import sys

import pytest
import requests

from snowplow_tracker import _settings as settings
from snowplow_tracker.event_store import InMemoryEventStore

NOT_INTEGERS = [True, False, 1.0, math.nan, "10", b"10", [10], None]
NOT_NUMBERS = [True, False, "1.5", b"1", [1.5], 1j, None]
NOT_POSITIVE = [0, -1]
NOT_FINITE = [math.nan, math.inf, -math.inf, 10**400]


class Owner:
    size = settings.Setting(settings.positive_int, 7)
    limit = settings.Setting(settings.optional(settings.positive_int))


@pytest.mark.parametrize("name", ["event_store", "session"])
def test_class_is_no_object(name):
    """Forgotten parentheses are told of at once, not at each event."""
    kind = InMemoryEventStore if name == "event_store" else requests.Session

    with pytest.raises(TypeError, match=f"^{name} must be an object, got the class <class"):
        getattr(settings, name)(name, kind)


def test_setting_reads_its_default_until_it_is_set():
    """An attribute that nobody set reads its default, also where a constructor never ran."""
    owner = Owner.__new__(Owner)

    assert owner.size == 7
    assert owner.limit is None


def test_setting_belongs_to_one_instance():
    """Setting an attribute changes no other instance."""
    first, second = Owner(), Owner()

    first.size = 3

    assert (first.size, second.size) == (3, 7)


def test_deleted_setting_reads_its_default_again():
    """Deleting an attribute brings the default back, and deleting it twice does no harm."""
    owner = Owner()
    owner.size = 3

    del owner.size
    del owner.size

    assert owner.size == 7


def test_setting_of_the_class_is_the_description():
    """Read from the class, the attribute is the descriptor itself."""
    assert isinstance(Owner.size, settings.Setting)


def test_refused_value_leaves_the_old_one():
    """A wrong value raises with the attribute's name and the value, and changes nothing."""
    owner = Owner()
    owner.size = 3

    with pytest.raises(ValueError, match="size must be positive, got 0"):
        owner.size = 0

    assert owner.size == 3


def test_optional_takes_none():
    """None passes an optional check."""
    assert settings.optional(settings.positive_int)("limit", None) is None


def test_optional_checks_everything_else():
    """What is not None is checked as usual."""
    check = settings.optional(settings.positive_int)

    assert check("limit", 5) == 5
    with pytest.raises(ValueError, match="limit must be positive, got -5"):
        check("limit", -5)


@pytest.mark.parametrize("value", [1, 10, 10**30])
def test_positive_int_returns_the_value(value):
    """Positive integers pass."""
    assert settings.positive_int("batch_size", value) == value


@pytest.mark.parametrize("value", NOT_INTEGERS, ids=repr)
def test_positive_int_refuses_other_types(value):
    """What is no integer, a bool included, is a TypeError that shows it."""
    with pytest.raises(TypeError) as caught:
        settings.positive_int("batch_size", value)

    assert str(caught.value) == f"batch_size must be an integer, got {value!r}"


@pytest.mark.parametrize("value", NOT_POSITIVE)
def test_positive_int_refuses_what_is_not_positive(value):
    """Zero and less is a ValueError that shows it."""
    with pytest.raises(ValueError, match=f"^batch_size must be positive, got {value}$"):
        settings.positive_int("batch_size", value)


@pytest.mark.parametrize("value", [1, 0.001, 1e300, sys.float_info.max])
def test_positive_number_returns_the_value_as_it_is(value):
    """Positive integers and floats pass, and an integer stays one."""
    checked = settings.positive_number("max_retry_delay_seconds", value)

    assert checked == value
    assert type(checked) is type(value)


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
def test_positive_number_refuses_other_types(value):
    """What is no number, a bool included, is a TypeError that shows it."""
    with pytest.raises(TypeError) as caught:
        settings.positive_number("max_retry_delay_seconds", value)

    assert str(caught.value) == f"max_retry_delay_seconds must be a number, got {value!r}"


@pytest.mark.parametrize("value", [0, -1, -0.5, 0.0, *NOT_FINITE], ids=lambda value: repr(value)[:10])
def test_positive_number_refuses_what_is_not_positive_and_finite(value):
    """Zero, less, NaN, the infinities and what no float can hold are a ValueError that shows them."""
    with pytest.raises(ValueError, match=r"^max_retry_delay_seconds must be positive and finite, got ") as caught:
        settings.positive_number("max_retry_delay_seconds", value)

    assert str(caught.value).endswith(repr(value))


@pytest.mark.parametrize(
    ("value", "waits"),
    [(0, 0.0), (0.5, 0.5), (3, 3.0), (math.inf, 2_592_000.0), (1e300, 2_592_000.0)],
)
def test_wait_is_cut_to_what_a_lock_can_wait(value, waits):
    """Zero or more seconds pass, but nobody waits longer than 30 days."""
    assert settings.wait_seconds("timeout", value) == waits


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
def test_wait_refuses_other_types(value):
    """What is no number, a bool included, is a TypeError that shows it."""
    with pytest.raises(TypeError) as caught:
        settings.wait_seconds("timeout", value)

    assert str(caught.value) == f"timeout must be a number, got {value!r}"


@pytest.mark.parametrize("value", [-1, -0.001, -math.inf, math.nan])
def test_wait_refuses_negative_seconds(value):
    """Less than no time, or no number of seconds at all, is a ValueError that shows it."""
    with pytest.raises(ValueError, match=f"^timeout must not be negative, got {value!r}$"):
        settings.wait_seconds("timeout", value)


@pytest.mark.parametrize("value", [1, 443, 65535])
def test_port_is_returned(value):
    """1 to 65535 are ports."""
    assert settings.port_number("port", value) == value


@pytest.mark.parametrize("value", [0, -1, 65536])
def test_port_out_of_range_is_refused(value):
    """Any other integer is a ValueError that shows it."""
    with pytest.raises(ValueError, match=f"^port must be .*, got {value}$"):
        settings.port_number("port", value)


@pytest.mark.parametrize("value", NOT_INTEGERS, ids=repr)
def test_port_refuses_other_types(value):
    """A port is an integer."""
    with pytest.raises(TypeError) as caught:
        settings.port_number("port", value)

    assert str(caught.value) == f"port must be an integer, got {value!r}"


@pytest.mark.parametrize("value", [True, False])
def test_flag_is_returned(value):
    """A bool is a flag."""
    assert settings.flag("flush_on_exit", value) is value


@pytest.mark.parametrize("value", [0, 1, "yes", "", None], ids=repr)
def test_flag_refuses_what_is_merely_true_or_false(value):
    """Anything but a bool is a TypeError that shows it."""
    with pytest.raises(TypeError) as caught:
        settings.flag("flush_on_exit", value)

    assert str(caught.value) == f"flush_on_exit must be True or False, got {value!r}"


def test_choice_returns_what_is_allowed():
    """An allowed string passes."""
    assert settings.choice("get", "post")("method", "get") == "get"


@pytest.mark.parametrize("value", ["put", "GET", ""])
def test_choice_refuses_other_strings(value):
    """Another string is a ValueError that shows it and what is allowed."""
    with pytest.raises(ValueError, match=f"^method must be one of 'get', 'post', got {value!r}$"):
        settings.choice("get", "post")("method", value)


@pytest.mark.parametrize("value", [True, 1, b"get", ["get"], None], ids=repr)
def test_choice_refuses_other_types(value):
    """What is no string is a TypeError that shows it."""
    with pytest.raises(TypeError) as caught:
        settings.choice("get", "post")("method", value)

    assert str(caught.value) == f"method must be a string, got {value!r}"


def test_callback_is_returned():
    """Whatever can be called is a callback."""
    assert settings.callback("on_success", print) is print


@pytest.mark.parametrize("value", [True, 1, "print", []], ids=repr)
def test_callback_refuses_what_cannot_be_called(value):
    """Anything else is a TypeError that shows it."""
    with pytest.raises(TypeError) as caught:
        settings.callback("on_success", value)

    assert str(caught.value) == f"on_success must be callable, got {value!r}"


@pytest.mark.parametrize(
    ("value", "timeout"),
    [
        (5, 5),
        (0.5, 0.5),
        ((3, 4), (3, 4)),
        ([3.5, 4], (3.5, 4)),
        ((None, 4), (10.0, 4)),
        ((3, None), (3, 30.0)),
        ((None, None), (10.0, 30.0)),
    ],
)
def test_request_timeout_is_seconds_or_a_pair(value, timeout):
    """A pair may leave one of the two at its default; it comes back as a tuple that nobody can change."""
    assert settings.request_timeout("request_timeout", value) == timeout


@pytest.mark.parametrize("value", [*NOT_NUMBERS[:3], (True, 1), (1, "2"), [b"1", 2]], ids=repr)
def test_request_timeout_refuses_other_types(value):
    """What is no number, alone or in a pair, is a TypeError."""
    with pytest.raises(TypeError, match=r"^request_timeout must be a number, got "):
        settings.request_timeout("request_timeout", value)


@pytest.mark.parametrize("value", [0, -1, *NOT_FINITE, (0, 1), (1, -1), (math.nan, 1), [1, math.inf]], ids=str)
def test_request_timeout_refuses_what_is_not_positive_and_finite(value):
    """No time at all, or for ever, is a ValueError, alone or in a pair."""
    with pytest.raises(ValueError, match=r"^request_timeout must be positive and finite, got "):
        settings.request_timeout("request_timeout", value)


@pytest.mark.parametrize("value", [(), (1,), [1, 2, 3]], ids=repr)
def test_request_timeout_refuses_what_is_no_pair(value):
    """A tuple or list of another length is a ValueError that shows it."""
    with pytest.raises(ValueError, match=r"^request_timeout must be seconds or a pair of them, got ") as caught:
        settings.request_timeout("request_timeout", value)

    assert str(caught.value).endswith(repr(value))


@pytest.mark.parametrize("code", [100, 199, 300, 413, 599])
def test_retry_codes_take_any_status_but_success(code):
    """100 to 599 without 2xx may have a rule, either way."""
    assert settings.retry_codes("custom_retry_codes", {code: True}) == {code: True}
    assert settings.retry_codes("custom_retry_codes", {code: False}) == {code: False}


def test_retry_codes_are_a_copy():
    """A dict that the caller goes on using is not shared."""
    rules = {500: False}

    checked = settings.retry_codes("custom_retry_codes", rules)
    rules[503] = False

    assert checked == {500: False}


def test_no_retry_codes_are_a_dict_of_ones_own():
    """None stands for no rules, in a new dict each time."""
    first = settings.retry_codes("custom_retry_codes", None)
    second = settings.retry_codes("custom_retry_codes", None)

    assert first == second == {}
    assert first is not second


@pytest.mark.parametrize("value", [True, 500, "500", [(500, True)], {500}], ids=repr)
def test_retry_codes_must_be_a_dict(value):
    """Anything else is a TypeError that shows it."""
    with pytest.raises(TypeError) as caught:
        settings.retry_codes("custom_retry_codes", value)

    assert str(caught.value) == f"custom_retry_codes must be a dict, got {value!r}"


@pytest.mark.parametrize("code", [True, "500", 500.0, None], ids=repr)
def test_retry_code_must_be_an_integer(code):
    """A status code of another type, a bool included, is a TypeError that shows it."""
    with pytest.raises(TypeError) as caught:
        settings.retry_codes("custom_retry_codes", {code: True})

    assert str(caught.value) == f"custom_retry_codes must have integer status codes, got {code!r}"


@pytest.mark.parametrize("code", [-1, 0, 99, 600])
def test_retry_code_must_be_a_status(code):
    """Less than 100 or more than 599 is a ValueError that shows it."""
    with pytest.raises(ValueError, match=f"^custom_retry_codes must have status codes from 100 to 599, got {code}$"):
        settings.retry_codes("custom_retry_codes", {code: True})


@pytest.mark.parametrize("code", [200, 204, 299])
def test_retry_code_cannot_be_a_success(code):
    """A rule for a success is a ValueError that shows it."""
    with pytest.raises(ValueError, match=f"^custom_retry_codes cannot change what a success is, got {code}$"):
        settings.retry_codes("custom_retry_codes", {code: False})


@pytest.mark.parametrize("retry", [0, 1, "no", None], ids=repr)
def test_retry_rule_must_be_a_bool(retry):
    """A rule that is not True or False is a TypeError that shows it and its status code."""
    with pytest.raises(TypeError) as caught:
        settings.retry_codes("custom_retry_codes", {500: retry})

    assert str(caught.value) == f"custom_retry_codes[500] must be True or False, got {retry!r}"


def test_event_store_is_whatever_has_its_methods():
    """A store is known by its four methods."""
    store = InMemoryEventStore()

    assert settings.event_store("event_store", store) is store


@pytest.mark.parametrize("missing", ["add_event", "get_events_batch", "cleanup", "size"])
def test_event_store_must_have_each_method(missing):
    """A store without one of them, or with something else in its place, is a TypeError that names it."""
    store = InMemoryEventStore()
    setattr(store, missing, None)

    with pytest.raises(TypeError) as caught:
        settings.event_store("event_store", store)

    assert str(caught.value) == f"event_store must have the method {missing}, got {store!r}"


def test_session_is_whatever_posts_and_gets():
    """A session is known by its two methods."""
    with requests.Session() as session:
        assert settings.session("session", session) is session


@pytest.mark.parametrize("missing", ["post", "get"])
def test_session_must_have_each_method(missing):
    """A session without one of them is a TypeError that names it."""
    with requests.Session() as session:
        setattr(session, missing, None)

        with pytest.raises(TypeError) as caught:
            settings.session("session", session)

    assert str(caught.value) == f"session must have the method {missing}, got {session!r}"


def test_wait_may_be_a_number_that_no_float_holds():
    """It is cut like any other."""
    assert settings.wait_seconds("timeout", 10**400) == 2_592_000.0


def test_request_timeout_is_cut_to_what_a_socket_can_wait():
    """A timeout that sockets do not know would make each request fail."""
    assert settings.request_timeout("request_timeout", 1e300) == 2_592_000.0
    assert settings.request_timeout("request_timeout", (1e300, 5)) == (2_592_000.0, 5)


def test_choice_returns_the_plain_string():
    """A string enum is what it holds, not what it prints."""

    class Method(str, enum.Enum):
        GET = "get"

    method = settings.choice("get", "post")("method", Method.GET)

    assert method == "get"
    assert type(method) is str
