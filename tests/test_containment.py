"""Whether a value contains what is expected of it."""

import random
from datetime import datetime
from decimal import Decimal
from enum import Enum
from unittest.mock import ANY
from uuid import UUID

import pytest
from hypothesis import given, settings, strategies as st

from snowplow_tracker import SelfDescribingJson
from snowplow_tracker.testing import _containment
from snowplow_tracker.testing._containment import MISSING, Difference, compare, is_contained

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=2), children, max_size=4),
    max_leaves=20,
)

USER = "iglu:com.acme/user/jsonschema/"
CART = "iglu:com.acme/cart/jsonschema/"
OTHER_VERSION = Difference("data[1].s", f"{USER}1-0-1", f"{USER}1-0-0")


class Colour(Enum):
    RED = "red"


class Unprintable:
    def __eq__(self, other):
        raise ValueError("cannot be compared")

    __hash__ = None


def part_of(value, rng):
    """Leave something out here and there, and bring lists into another order."""
    if isinstance(value, dict):
        return {key: part_of(item, rng) for key, item in value.items() if rng.random() < 0.7}
    if isinstance(value, list):
        parts = [part_of(item, rng) for item in value if rng.random() < 0.7]
        rng.shuffle(parts)
        return parts
    return value


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ({}, {"a": 1}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1, "d": 2}, "e": 3}}),
        ([], ["a"]),
        (["b", "a"], ["a", "b", "c"]),
        (("b",), ["a", "b"]),
        ([{"n": 1}, {"n": 1}], [{"n": 1}, {"n": 2}, {"n": 1, "m": 0}]),
        ([{"a": [2]}], [{"a": [1]}, {"a": [1, 2]}]),
        (1, 1.0),
        (Decimal("5.00"), 5),
        (Decimal("5.5"), 5.5),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (0.5, 0.5),
        (True, True),
        (Colour.RED, "red"),
        ({"b", "a"}, ["a", "b"]),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 1, 2), "2026-01-02T00:00:00"),
        (SelfDescribingJson("iglu:a/b/c/1-0-0", [1]), {"schema": "iglu:a/b/c/1-0-0", "data": [1]}),
        ({"a": ANY}, {"a": True}),
        ({"a": ANY}, {"a": {"b": 1}}),
        ([ANY, "a"], ["a", 1]),
        ({"a": pytest.approx(0.3)}, {"a": 0.1 + 0.2}),
        ({2: "a", None: "b", True: "c"}, {"true": "c", "2": "a", "null": "b"}),
    ],
)
def test_expected_is_contained(expected, actual):
    """A dict may have further keys, a list further items and any order, and values are compared as JSON."""
    assert compare(expected, actual, "data").differences == []
    assert is_contained(expected, actual)


@pytest.mark.parametrize(
    ("expected", "actual", "difference"),
    [
        (1, 2, Difference("data", 1, 2)),
        (1, True, Difference("data", 1, True)),
        (True, 1, Difference("data", True, 1)),
        (False, None, Difference("data", False, None)),
        (1, "1", Difference("data", 1, "1")),
        ("a", ["a"], Difference("data", "a", ["a"])),
        (["a"], "a", Difference("data", ["a"], "a")),
        ({"a": 1}, [1], Difference("data", {"a": 1}, [1])),
        ({"a": 1}, {}, Difference("data.a", 1, MISSING)),
        ({"a": Colour.RED}, {}, Difference("data.a", "red", MISSING)),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, Difference("data.a.b", 1, 2)),
        ({"a b": {"c": 1}}, {"a b": {"c": 2}}, Difference("data['a b'].c", 1, 2)),
        ([{"a": 1, "b": 1}], [{"a": 2}, {"a": 1, "b": 2}], Difference("data[1].b", 1, 2)),
        (["c"], ["a", "b"], Difference("data", "c", ["a", "b"], is_item=True)),
        (["a", "a"], ["a"], Difference("data", "a", ["a"], is_item=True)),
        ([Colour.RED], [], Difference("data", "red", [], is_item=True)),
        ([1], [True], Difference("data", 1, [True], is_item=True)),
        ([{"id": 2}], [{"id": 1}], Difference("data", {"id": 2}, [{"id": 1}], is_item=True)),
        ([{"id": "1"}], [{"id": 2}, {"id": 1}], Difference("data[1].id", "1", 1)),
        ([{"id": "5"}], [{"id": 5.5}, {"id": 5.0}], Difference("data[1].id", "5", 5.0)),
        ([{"s": f"{USER}1-0-1"}], [{"s": f"{CART}1-0-1"}, {"s": f"{USER}1-0-0"}], OTHER_VERSION),
    ],
)
def test_difference_is_named(expected, actual, difference):
    """Each part that is not met is named by its path, with what was expected and what is there."""
    assert compare(expected, actual, "data").differences == [difference]
    assert not is_contained(expected, actual)


def nested(depth, value, make):
    for _ in range(depth):
        value = make(value)
    return value


@pytest.mark.parametrize(
    ("make", "depth"), [(lambda value: [value], 400), (lambda value: {"a": value}, 1000)], ids=["lists", "objects"]
)
@pytest.mark.parametrize(("expected", "is_met"), [([1], True), ([2], False)])
def test_depth_does_not_matter(make, depth, expected, is_met):
    """Whatever JSON can hold can be expected, though the stack of Python has no room for a call at each level."""
    actual = [1, 3]

    assert is_contained(nested(1000, expected, make), nested(1000, actual, make)) is is_met
    assert len(compare(nested(depth, expected, make), nested(depth, actual, make), "data").differences) == (not is_met)


def test_expected_value_may_contain_itself():
    """It is met by nothing, but there is an end to it."""
    expected = []
    expected.append(expected)

    assert len(compare([expected], [[1]], "data").differences) == 1


def test_value_that_cannot_be_compared_is_a_difference():
    """An `==` of the application's that raises makes no assertion raise anything but its message."""
    assert len(compare({"a": Unprintable()}, {"a": 1}, "data").differences) == 1


def test_item_moves_on_for_one_that_fits_nowhere_else():
    """Two expected items need two actual ones, in whichever way they can be shared out."""
    expected = [{}, {"a": 1}, {"a": 1, "b": 2}]
    actual = [{"a": 1, "b": 2}, {"a": 1}, {"c": 3}]

    assert compare(expected, actual, "data").differences == []
    assert compare(list(reversed(expected)), actual, "data").differences == []


@pytest.fixture
def compared(monkeypatch):
    """The pairs of single values that were compared."""
    pairs = []
    is_equal = _containment._is_equal

    def counted(expected, actual):
        pairs.append((expected, actual))
        return is_equal(expected, actual)

    monkeypatch.setattr(_containment, "_is_equal", counted)
    return pairs


@pytest.mark.parametrize("missing", [0, 300])
def test_scalars_of_a_list_are_not_all_compared_with_each_other(compared, missing):
    """The price of a list of plain values grows with its length, not with the square of it."""
    expected, actual = list(range(600)), [*reversed(range(missing, 600)), *["other"] * missing]

    assert len(compare(expected, actual, "data").differences) == missing
    assert is_contained(expected, actual) is (missing == 0)
    assert len(compared) <= 600


def test_item_without_a_place_is_enough_for_a_verdict(compared):
    """If the first item is not there, it does not matter whether the others are."""
    assert not is_contained([{"n": n} for n in range(1, 200)], [{"n": -n} for n in range(200)])
    assert not is_contained([1, {"n": 1}], [{"n": 0}, 2])
    assert len(compared) <= 200


def test_nearest_is_looked_for_in_few_places_and_for_few_items(monkeypatch):
    """A long list in which nothing is right has a price that is bounded; each item is told of all the same."""
    monkeypatch.setattr(_containment, "_MAX_SEARCHED", 2)
    compared = []
    comparing = _containment._comparing_objects

    def counted(expected, actual, path):
        compared.append(path)
        return comparing(expected, actual, path)

    monkeypatch.setattr(_containment, "_comparing_objects", counted)
    expected = [{"id": n, "n": -1, "m": 1} for n in range(20)]

    differences = compare(expected, [{"id": n, "n": n, "m": 1} for n in range(20)], "data").differences

    assert [difference.path for difference in differences] == ["data[0].n", "data[1].n", *["data"] * 18]
    assert len(compared) <= 6


def test_what_comes_nearest_is_looked_for_only_for_a_message(monkeypatch):
    """Whether a list has the items is known without a look at how near the others come."""
    monkeypatch.setattr(_containment, "nearness", None)

    assert not is_contained([{"a": 1, "b": 1}], [{"a": 1}, {"b": 1}])


@pytest.mark.parametrize(
    ("expected", "actual", "is_met"),
    [
        ([1, True], [True, 1.0], True),
        ([1, 1], [True, 1], False),
        ([0, False, None, ""], ["", None, False, 0.0], True),
        (["a", "a"], ["a", "b"], False),
        ([float("nan")], [None], True),
        ([ANY, 1], [1, 2], True),
        ([Decimal(1), 1], [1, 1.0], True),
        ([Decimal(1), 1], [1, True], False),
    ],
)
def test_scalars_of_a_list_are_equal_as_json_sees_it(expected, actual, is_met):
    """In a list, too, 1 equals 1.0, but not True, and each item needs one of its own."""
    assert is_contained(expected, actual) is is_met
    assert (compare(expected, actual, "data").differences == []) is is_met


def test_each_difference_of_a_list_has_an_item_of_its_own():
    """Two expected items that are not there are compared with two different ones that are."""
    expected = [{"id": 1, "a": 1}, {"id": 2, "a": 1}]
    actual = [{"id": 2, "a": 5}, {"id": 1, "a": 4}]

    differences = compare(expected, actual, "data").differences

    assert differences == [Difference("data[1].a", 1, 4), Difference("data[0].a", 1, 5)]


@pytest.mark.parametrize(
    ("expected", "agreements"),
    [({}, 1), ([], 0), (1, 0), ({"a": 1, "b": [1, 2], "c": 4}, 3), ({"a": {"b": 1}}, 0), ({"b": []}, 1)],
)
def test_agreements_count_single_values(expected, agreements):
    """What comes nearest is what has most of the values."""
    assert compare(expected, {"a": 1, "b": [1, 2, 3], "c": 3}, "data").agreements == agreements


@pytest.mark.thorough
@settings(max_examples=30)
@given(value=JSON, seed=st.integers(0, 1000))
def test_every_value_contains_its_parts(value, seed):
    """Whatever is left out of a value, and in whichever order its lists are, it is contained."""
    part = part_of(value, random.Random(seed))

    assert compare(value, value, "data").differences == []
    assert compare(part, value, "data").differences == []
    assert is_contained(part, value)
