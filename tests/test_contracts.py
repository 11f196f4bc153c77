"""Contracts: what they refuse, how they say it, and the switch."""

import re

import pytest

from snowplow_tracker import PageView, StructuredEvent, Subject, contracts
from snowplow_tracker.contracts import (
    contracts_enabled,
    disable_contracts,
    enable_contracts,
    form_element,
    greater_than,
    non_empty,
    non_empty_string,
    one_of,
    satisfies,
)

ELEMENT = {"name": "n", "value": None, "nodeName": "INPUT", "type": "text"}


class Text(str):
    __slots__ = ()


@pytest.fixture
def disabled():
    disable_contracts()
    yield
    enable_contracts()


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (non_empty, (["x"],)),
        (non_empty, ("x",)),
        (non_empty_string, ("x",)),
        (non_empty_string, (Text("x"),)),
        (one_of, ("a", {"a", "b"})),
        (one_of, ({}, [{}])),
        (greater_than, (2, 1)),
        (satisfies, (2, lambda value: value == 2)),
        (form_element, (ELEMENT,)),
        (form_element, ({"name": "", "value": "", "nodeName": "SELECT"},)),
    ],
)
def test_good_values_pass(check, arguments):
    """A check returns nothing and raises nothing for what is allowed."""
    assert check(*arguments) is None


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (non_empty, ([],), "limit must not be empty, got []"),
        (non_empty_string, ("",), "limit must be a non-empty string, got ''"),
        (non_empty_string, (3,), "limit must be a non-empty string, got 3"),
        (non_empty_string, (None,), "limit must be a non-empty string, got None"),
        (one_of, ("c", {"b", "a"}), "limit must be one of 'a', 'b', got 'c'"),
        (one_of, ([], {"a"}), "limit must be one of 'a', got []"),
        (greater_than, (1, 1), "limit must be greater than 1, got 1"),
        (satisfies, (1, lambda value: value == 2), "limit is not allowed, got 1"),
        (form_element, ({"value": 1, "nodeName": "INPUT"},), "limit must have the key 'name', got {'value': 1,"),
        (form_element, ({"name": 1, "nodeName": "INPUT"},), "limit must have the key 'value', got"),
        (form_element, ({"name": 1, "value": 1},), "limit must have the key 'nodeName', got"),
        (form_element, ({**ELEMENT, "nodeName": "DIV"},), "limit['nodeName'] must be one of 'INPUT', 'SELECT',"),
        (form_element, ({**ELEMENT, "type": "Text"},), "limit['type'] must be one of 'button', "),
    ],
)
def test_bad_values_are_refused_by_name(check, arguments, message):
    """A broken contract raises ValueError with the parameter's name and the value."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        check(*arguments, name="limit")


@pytest.mark.parametrize(
    ("check", "arguments"),
    [(non_empty, (3,)), (greater_than, ("a", 0)), (form_element, (3,))],
)
def test_values_of_a_type_that_cannot_be_checked_are_type_errors(check, arguments):
    """Where the value has no length, no order or no keys, the error is a TypeError."""
    with pytest.raises(TypeError):
        check(*arguments)


def test_type_error_of_a_comparison_names_the_parameter():
    """What cannot be compared is shown with the name of the parameter."""
    with pytest.raises(TypeError, match=r"^width must be a number greater than 0, got 'wide'$"):
        Subject().set_viewport("wide", 1)


def test_name_may_be_left_out():
    """The recorded signatures need no name."""
    with pytest.raises(ValueError, match=r"^value must be a non-empty string, got ''$"):
        non_empty_string("")


def test_contracts_are_enabled_by_default():
    """Nobody has to switch checks on."""
    assert contracts_enabled()


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (non_empty, (3,)),
        (non_empty_string, (3,)),
        (one_of, (1, [])),
        (greater_than, ("a", 0)),
        (satisfies, (1, lambda value: False)),
        (form_element, (3,)),
    ],
)
def test_disabled_contracts_check_nothing(disabled, check, arguments):
    """The switch turns all checks off."""
    check(*arguments)

    assert not contracts_enabled()


def test_disabled_contracts_let_events_and_subjects_take_anything(disabled):
    """The switch reaches constructors and setters alike."""
    event = PageView("")
    event.page_url = 3
    subject = Subject().set_platform("fridge").set_viewport(-1, 0)

    assert event.page_url == 3
    assert StructuredEvent("", "").category is None
    assert subject.standard_nv_pairs == {"p": "fridge", "vp": "-1x0"}


def test_enabling_brings_the_checks_back():
    """The switch works both ways."""
    disable_contracts()
    enable_contracts()

    with pytest.raises(ValueError, match="page_url"):
        PageView("")


def test_switch_is_the_one_of_the_package():
    """The package's own names are these functions."""
    import snowplow_tracker

    assert snowplow_tracker.enable_contracts is contracts.enable_contracts
    assert snowplow_tracker.disable_contracts is contracts.disable_contracts


class Array:
    def __eq__(self, other):
        return self

    __gt__ = __eq__
    __hash__ = None

    def __bool__(self):
        raise ValueError("the truth value of an array is ambiguous")

    def __len__(self):
        raise ZeroDivisionError

    def __repr__(self):
        return "<array>"


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (non_empty, (Array(),), "limit must be something that is not empty, got <array>"),
        (one_of, (Array(), ["a"]), "limit must be one of 'a', got <array>"),
        (greater_than, (Array(), 0), "limit must be a number greater than 0, got <array>"),
    ],
)
def test_value_that_cannot_be_compared_is_refused_by_name(check, arguments, message):
    """Errors of the value's own methods do not come out."""
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        check(*arguments, name="limit")
