"""Whether a value contains what is expected of it, and where it does not."""

import math
from collections import deque
from itertools import chain
from typing import Any, Callable, Deque, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from .._json import encode_json, plain

__all__ = ["Comparison", "Difference", "MISSING", "child_path", "compare", "is_contained", "nearness", "plain_form"]

# What goes into JSON as it is; the forms of all else have to be looked for.
_PLAIN_TYPES = frozenset([str, int, bool, type(None), dict, list, tuple])
_SCALAR_TYPES = frozenset([str, int, float, bool, type(None)])

# Stands for a value that is not there.
MISSING = object()


class Difference(NamedTuple):
    """A part of the expectation that is not met.

    Attributes:
        path: Where it stands, such as `data.items[0].price`.
        expected: What was expected there.
        actual: What is there; `MISSING` if nothing is.
        is_item: It is an item that the list at this path was to have, at any position.
    """

    path: str
    expected: Any
    actual: Any
    is_item: bool = False


class Comparison(NamedTuple):
    """How far an expectation is met.

    Attributes:
        agreements: How many single values are as expected.
        differences: What is not.
    """

    agreements: int
    differences: List[Difference]


def compare(expected: Any, actual: Any, path: str) -> Comparison:
    """Look for what is expected in a value out of JSON.

    A dict may have further keys, at any depth. A list may have further items and any order; two expected items need two
    actual ones. Other values have to be equal, as JSON sees it: 1 equals 1.0, but not True. An expected value may be of
    any type that a tracker can encode, or one that decides by its own `==`, such as `unittest.mock.ANY`.

    Args:
        expected: What is to be in the value.
        actual: The value.
        path: Where it stands, for the differences.
    """
    expected = plain_form(expected)
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        return _compare_objects(expected, actual, path)
    if _is_list(expected) and _is_list(actual):
        return _compare_lists(expected, actual, path)
    if _is_equal(expected, actual):
        return Comparison(1, [])
    return Comparison(0, [Difference(path, expected, actual)])


def is_contained(expected: Any, actual: Any) -> bool:
    """Tell whether `compare` would find no difference, for a fraction of the price."""
    expected = plain_form(expected)
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key, expected_value in expected.items():
            name = _member_name(key)
            if name not in actual or not is_contained(expected_value, actual[name]):
                return False
        return True
    if _is_list(expected) and _is_list(actual):
        return len(expected) <= len(actual) and len(_place_items(expected, actual)) == len(expected)
    return _is_equal(expected, actual)


def nearness(comparison: Comparison) -> Any:
    """Give a sort key that puts what comes nearest to the expectation first."""
    missing = sum(difference.actual is MISSING for difference in comparison.differences)
    return -comparison.agreements, missing, len(comparison.differences)


def child_path(path: str, name: str) -> str:
    """Name a member of the object at a path."""
    return f"{path}.{name}" if name.isidentifier() else f"{path}[{name!r}]"


def plain_form(expected: Any) -> Any:
    """Give the form that a tracker sends a value in; the value itself, where a tracker would not know one."""
    if type(expected) in _PLAIN_TYPES:
        return expected
    if isinstance(expected, float):
        return expected if math.isfinite(expected) else None
    try:
        return plain(expected)
    except Exception:
        # An object that decides by its own `==`, or one that equals nothing.
        return expected


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_equal(expected: Any, actual: Any) -> bool:
    if isinstance(expected, (int, float)) and isinstance(expected, bool) is not isinstance(actual, bool):
        return False
    try:
        return bool(expected == actual)
    except Exception:
        # An array, for one, does not tell whether it equals a number.
        return False


def _member_name(key: Any) -> str:
    return key if isinstance(key, str) else encode_json(key, "key")


def _compare_objects(expected: Mapping[Any, Any], actual: Mapping[Any, Any], path: str) -> Comparison:
    agreements, differences = 0 if expected else 1, []
    for key, expected_value in expected.items():
        name = _member_name(key)
        here = child_path(path, name)
        if name not in actual:
            differences.append(Difference(here, plain_form(expected_value), MISSING))
            continue
        comparison = compare(expected_value, actual[name], here)
        agreements += comparison.agreements
        differences += comparison.differences
    return Comparison(agreements, differences)


def _compare_lists(expected: Sequence[Any], actual: Sequence[Any], path: str) -> Comparison:
    known: Dict[Tuple[int, int], Comparison] = {}

    def compared(item: int, place: int) -> Comparison:
        if (item, place) not in known:
            known[item, place] = compare(expected[item], actual[place], f"{path}[{place}]")
        return known[item, place]

    place_of = _place_items(expected, actual)
    agreements = sum(compared(item, place).agreements for item, place in place_of.items()) if expected else 1
    differences: List[Difference] = []
    taken = set(place_of.values())
    spare = [place for place in range(len(actual)) if place not in taken]
    # A plain scalar that is not there has nothing in common with any of the others, nor is a scalar near to an object.
    open_spare = [place for place in spare if isinstance(actual[place], (Mapping, list))]
    for item in (item for item in range(len(expected)) if item not in place_of):
        candidates = open_spare if _scalar_key(expected[item]) is None else []
        nearest = min(candidates, key=lambda place: nearness(compared(item, place)), default=None)
        if nearest is None or not compared(item, nearest).agreements:
            differences.append(Difference(path, plain_form(expected[item]), actual, is_item=True))
            continue
        open_spare.remove(nearest)
        agreements += compared(item, nearest).agreements
        differences += compared(item, nearest).differences
    return Comparison(agreements, differences)


def _place_items(expected: Sequence[Any], actual: Sequence[Any]) -> Dict[int, int]:
    """Give as many expected items as possible an actual one of their own; returns the places by the items.

    A plain scalar has nothing to fit but one that equals it, and it does not matter which. So these are paired first,
    and only the rest has to be shared out.
    """
    places_of: Dict[Any, Deque[int]] = {}
    for place, value in enumerate(actual):
        key = _scalar_key(value)
        if key is not None:
            places_of.setdefault(key, deque()).append(place)
    place_of: Dict[int, int] = {}
    rest: List[int] = []
    for item, value in enumerate(expected):
        key = _scalar_key(value)
        if key is None:
            rest.append(item)
        elif places_of.get(key):
            place_of[item] = places_of[key].popleft()
    taken = set(place_of.values())
    free = [place for place in range(len(actual)) if place not in taken]
    known: Dict[Tuple[int, int], bool] = {}

    def fits(item: int, place: int) -> bool:
        if (item, place) not in known:
            known[item, place] = is_contained(expected[rest[item]], actual[free[place]])
        return known[item, place]

    assigned = _assign(len(rest), len(free), fits)
    return {**place_of, **{rest[item]: free[place] for item, place in assigned.items()}}


def _scalar_key(value: Any) -> Any:
    """Give what two plain scalars have in common if and only if they are equal as JSON; None for any other value."""
    kind = type(value)
    if kind is float and not math.isfinite(value):
        return None
    return (kind is bool, value) if kind in _SCALAR_TYPES else None


def _assign(item_count: int, place_count: int, fits: Callable[[int, int], bool]) -> Dict[int, int]:
    """Give as many items as possible a place of their own that fits.

    The first place that fits is not always the right one: an item may have to move on for one that fits nowhere else.
    """
    place_of: Dict[int, int] = {}
    item_at: Dict[int, int] = {}
    for newcomer in range(item_count):
        reached_by: Dict[int, int] = {}
        seekers: Deque[int] = deque([newcomer])
        free = None
        while seekers and free is None:
            seeker = seekers.popleft()
            # Lists are mostly in the expected order, so the place with the same number comes first.
            for place in chain(range(seeker, min(seeker + 1, place_count)), range(place_count)):
                if place in reached_by or not fits(seeker, place):
                    continue
                reached_by[place] = seeker
                if place not in item_at:
                    free = place
                    break
                seekers.append(item_at[place])
        while free is not None:
            item = reached_by[free]
            place_of[item], item_at[free], free = free, item, place_of.get(item)
    return place_of
