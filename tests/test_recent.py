"""The list that forgets the oldest: by number, by size, and what counts as size."""

import sys

import pytest

from snowplow_tracker.testing import CollectedRequest
from snowplow_tracker.testing._recent import Recent, held_bytes, request_bytes


def test_oldest_go_when_there_are_too_many():
    """No more are kept than there may be."""
    recent = Recent(2, 100)

    for item in "abc":
        recent.add(item, 1)

    assert (list(recent), len(recent), recent[0], recent[-1]) == (["b", "c"], 2, "b", "c")


def test_oldest_go_when_they_are_too_large():
    """As many are forgotten as it takes, and no more."""
    recent = Recent(9, 100)

    for item, size_bytes in [("a", 1), ("b", 99), ("c", 1), ("d", 1)]:
        recent.add(item, size_bytes)

    assert list(recent) == ["c", "d"]


def test_newest_is_there_in_any_case():
    """What is too large all by itself stays until something follows."""
    recent = Recent(9, 100)

    recent.add("a", 1)
    recent.add("huge", 101)
    kept = list(recent)
    recent.add("b", 1)

    assert (kept, list(recent)) == (["huge"], ["b"])


def test_nothing_goes_without_a_limit():
    """Where all is to be kept, its size does not matter."""
    recent = Recent(None, 100)

    for item in "abc":
        recent.add(item, 100)

    assert list(recent) == ["a", "b", "c"]


def test_list_that_was_cleared_has_room():
    """What was forgotten does not count any more."""
    recent = Recent(2, 100)
    recent.add("a", 100)

    recent.clear()
    for item in "bc":
        recent.add(item, 50)

    assert list(recent) == ["b", "c"]


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (None, [None]),
        ("text", ["text"]),
        (b"bytes", [b"bytes"]),
        ([], [[]]),
        ({"name": 1.5}, [{"name": 1.5}, "name", 1.5]),
        ({"a": [{"b": "c"}, None]}, [{"a": 1}, "a", [1, 2], {"b": 1}, "b", "c", None]),
    ],
)
def test_all_that_is_in_a_value_counts(value, parts):
    """Names, values and what holds them take memory."""
    assert held_bytes(value) == sum(map(sys.getsizeof, parts))


def test_value_may_be_nested_to_any_depth():
    """No recursion stands in the way."""
    nested = []
    for _ in range(100_000):
        nested = [nested]

    assert held_bytes(nested) > 100_000 * sys.getsizeof([])


def test_all_of_a_request_counts():
    """Whatever a client fills, it is counted."""
    sizes = [
        request_bytes(CollectedRequest("POST", path, query, headers, body, payloads, 200, 1, 0.0, 0.0))
        for path, query, headers, body, payloads in [
            ("", {}, {}, b"", []),
            ("x" * 10_000, {}, {}, b"", []),
            ("", {"x": "x" * 10_000}, {}, b"", []),
            ("", {}, {"x": "x" * 10_000}, b"", []),
            ("", {}, {}, b"x" * 10_000, []),
            ("", {}, {}, b"", [{"x": "x" * 10_000}]),
        ]
    ]

    assert [size > 10_000 for size in sizes] == [False] + [True] * 5
