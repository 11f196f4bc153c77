"""Whether a value contains what is expected of it, and where it does not."""

import math
from collections import abc, deque
from heapq import nlargest
from itertools import chain
from typing import (
    Any,
    Callable,
    Counter,
    Deque,
    Dict,
    Generator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from .._json import encode_json, plain
from .._shown import shown

__all__ = [
    "Comparison",
    "Difference",
    "MISSING",
    "child_path",
    "compare",
    "is_akin",
    "is_contained",
    "likeness",
    "nearness",
    "plain_form",
]

# What goes into JSON as it is; the forms of all else have to be looked for.
_PLAIN_TYPES = frozenset([str, int, bool, type(None), dict, list, tuple])
_SCALAR_TYPES = frozenset([str, int, float, bool, type(None)])

# What a failure may cost: for how many items of a list the nearest one is looked for, in how many places, and how many
# values of each are considered for it.
_MAX_SEARCHED = 100
_MAX_LIKELY = 3
_MAX_VALUES = 10_000

# A function on its way: it yields the calls whose results it needs. See `_result`.
_Call = Generator[Any, Any, Any]
# Where it stands, and its rough text.
_SingleValue = Tuple[str, Optional[str]]

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
    comparison: Comparison = _result(_comparing(expected, actual, path))
    return comparison


def is_contained(expected: Any, actual: Any) -> bool:
    """Tell whether `compare` would find no difference, for a fraction of the price."""
    verdict: bool = _result(_containing(expected, actual))
    return verdict


def nearness(comparison: Comparison) -> Any:
    """Give a sort key that puts what comes nearest to the expectation first."""
    missing = sum(difference.actual is MISSING for difference in comparison.differences)
    akin = sum(map(is_akin, comparison.differences))
    return -comparison.agreements - akin, missing, len(comparison.differences)


def is_akin(difference: Difference) -> bool:
    """Tell whether a value is the expected one, but for its type, or for the version of a schema."""
    text = _rough_text(difference.expected)
    return text is not None and text == _rough_text(difference.actual)


def likeness(expected: Any, actual: Any) -> int:
    """Tell roughly how near a value comes to what is expected, for a fraction of the price of `compare`.

    Returns:
        How many single values it has in common with it, wherever they stand in a list.
    """
    return _common(_single_values(expected), _single_values(actual))


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
    return isinstance(value, abc.Sequence) and not isinstance(value, (str, bytes))


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


def _result(call: _Call) -> Any:
    """Carry out a call, and those that it yields because it needs their results, however deep they are nested.

    Python's own stack would be too small for what JSON may hold.
    """
    calls = [call]
    result: Any = None
    while calls:
        try:
            calls.append(calls[-1].send(result))
            result = None
        except StopIteration as end:  # noqa: PERF203  # it is how a generator returns
            calls.pop()
            result = end.value
    return result


def _containing(expected: Any, actual: Any) -> _Call:
    expected = plain_form(expected)
    if isinstance(expected, abc.Mapping) and isinstance(actual, abc.Mapping):
        for key, expected_value in expected.items():
            name = _member_name(key)
            if name not in actual or not (yield _containing(expected_value, actual[name])):
                return False
        return True
    if _is_list(expected) and _is_list(actual):
        if len(expected) > len(actual):
            return False
        place_of = yield from _placing(expected, actual, gives_up=True)
        return len(place_of) == len(expected)
    return _is_equal(expected, actual)


def _comparing(expected: Any, actual: Any, path: str) -> _Call:
    expected = plain_form(expected)
    if isinstance(expected, abc.Mapping) and isinstance(actual, abc.Mapping):
        return (yield from _comparing_objects(expected, actual, path))
    if _is_list(expected) and _is_list(actual):
        return (yield from _comparing_lists(expected, actual, path))
    if _is_equal(expected, actual):
        return Comparison(1, [])
    return Comparison(0, [Difference(path, expected, actual)])


def _comparing_objects(expected: Mapping[Any, Any], actual: Mapping[Any, Any], path: str) -> _Call:
    agreements, differences = 0 if expected else 1, []
    for key, expected_value in expected.items():
        name = _member_name(key)
        here = child_path(path, name)
        if name not in actual:
            differences.append(Difference(here, plain_form(expected_value), MISSING))
            continue
        comparison = yield _comparing(expected_value, actual[name], here)
        agreements += comparison.agreements
        differences += comparison.differences
    return Comparison(agreements, differences)


def _comparing_lists(expected: Sequence[Any], actual: Sequence[Any], path: str) -> _Call:
    agreements, differences = 0 if expected else 1, []
    place_of = yield from _placing(expected, actual)
    # What has a place is as expected, with all that is in it.
    agreements += sum(sum(_single_values(expected[item]).values()) for item in place_of)
    taken = set(place_of.values())
    # A plain scalar that is not there has nothing in common with any of the others, nor is a scalar near to an object.
    values_of = {
        place: _single_values(actual[place])
        for place in range(len(actual))
        if place not in taken and isinstance(actual[place], (abc.Mapping, list))
    }
    searched = 0
    for item in (item for item in range(len(expected)) if item not in place_of):
        comparisons: Dict[int, Comparison] = {}
        if _scalar_key(expected[item]) is None and searched < _MAX_SEARCHED:
            searched += 1
            for place in _likeliest(expected[item], values_of):
                comparisons[place] = yield _comparing(expected[item], actual[place], f"{path}[{place}]")
        nearest = min(comparisons, key=lambda place: nearness(comparisons[place]), default=None)
        if nearest is None or not _has_something(comparisons[nearest]):
            differences.append(Difference(path, plain_form(expected[item]), actual, is_item=True))
            continue
        del values_of[nearest]
        agreements += comparisons[nearest].agreements
        differences += comparisons[nearest].differences
    return Comparison(agreements, differences)


def _has_something(comparison: Comparison) -> bool:
    return comparison.agreements > 0 or any(map(is_akin, comparison.differences))


def _likeliest(expected: Any, values_of: Dict[int, Counter[_SingleValue]]) -> List[int]:
    """Give the few places where it is worth a look what exactly differs."""
    values = _single_values(expected)
    return nlargest(_MAX_LIKELY, values_of, key=lambda place: _common(values, values_of[place]))


def _single_values(value: Any) -> Counter[_SingleValue]:
    """Count the single values in a value by their places, whatever the order of lists; empty containers are such."""
    found: Counter[_SingleValue] = Counter()
    pending = [("", value)]
    # The end is for what an application may expect: something that contains itself.
    for _ in range(_MAX_VALUES):
        if not pending:
            break
        path, value = pending.pop()
        value = plain_form(value)
        if isinstance(value, abc.Mapping) and value:
            pending += [(f"{path}.{_member_name(key)}", member) for key, member in value.items()]
        elif _is_list(value) and value:
            pending += [(f"{path}[]", item) for item in value]
        else:
            found[path, _rough_text(value)] += 1
    return found


def _common(values: Counter[_SingleValue], others: Counter[_SingleValue]) -> int:
    return sum((values & others).values())


def _rough_text(value: Any) -> Optional[str]:
    """Give what two plain scalars have in common if they are akin or equal; None for any other value."""
    if type(value) not in _SCALAR_TYPES:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = shown(value, str)
    return text.rpartition("/")[0] if text.startswith("iglu:") else text


def _placing(expected: Sequence[Any], actual: Sequence[Any], *, gives_up: bool = False) -> _Call:
    """Give as many expected items as possible an actual one of their own; returns the places by the items.

    A plain scalar has nothing to fit but one that equals it, and it does not matter which. So these are paired first,
    and only the rest has to be shared out.

    Args:
        expected: The expected items.
        actual: The actual ones.
        gives_up: Whether to stop at the first item that has to stay without a place.
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
        elif gives_up:
            return place_of
    taken = set(place_of.values())
    free = [place for place in range(len(actual)) if place not in taken]
    known: Dict[Tuple[int, int], bool] = {}

    def fitting(item: int, place: int) -> _Call:
        if (item, place) not in known:
            known[item, place] = yield _containing(expected[rest[item]], actual[free[place]])
        return known[item, place]

    assigned = yield from _assigning(len(rest), len(free), fitting, gives_up)
    return {**place_of, **{rest[item]: free[place] for item, place in assigned.items()}}


def _scalar_key(value: Any) -> Any:
    """Give what two plain scalars have in common if and only if they are equal as JSON; None for any other value."""
    kind = type(value)
    if kind is float and not math.isfinite(value):
        return None
    return (kind is bool, value) if kind in _SCALAR_TYPES else None


def _assigning(item_count: int, place_count: int, fitting: Callable[[int, int], _Call], gives_up: bool) -> _Call:
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
                if place in reached_by or not (yield from fitting(seeker, place)):
                    continue
                reached_by[place] = seeker
                if place not in item_at:
                    free = place
                    break
                seekers.append(item_at[place])
        if free is None and gives_up:
            break
        while free is not None:
            item = reached_by[free]
            place_of[item], item_at[free], free = free, item, place_of.get(item)
    return place_of
