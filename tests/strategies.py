"""Values for fuzzing: what an application may pass, what it may pass by mistake, and what nobody would."""

import enum
import math
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

from hypothesis import strategies as st

from snowplow_tracker import SelfDescribingJson

SCHEMA = "iglu:com.acme/thing/jsonschema/1-0-0"


class Text(str):
    """A string of a class of its own."""

    __slots__ = ()

    def __str__(self):
        return "not the text"


class Colour(str, enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 3


class Port(int, enum.Enum):
    WEB = 8080


class Kind(enum.Enum):
    PAIR = (1, 2)


class Index:
    """An integer of a library for numbers."""

    def __index__(self):
        return 5


class Array:
    """An array of a library for numbers: it compares to another array, which is neither true nor false."""

    __hash__ = None

    def __eq__(self, other):
        return self

    __ne__ = __lt__ = __gt__ = __eq__

    def __bool__(self):
        raise ValueError("the truth value of an array is ambiguous")


class Hostile:
    """Nothing can be done with it."""

    def __str__(self):
        raise KeyError(self)

    def __eq__(self, other):
        raise ZeroDivisionError

    __repr__ = __bool__ = __str__
    __ne__ = __lt__ = __gt__ = __eq__

    def __hash__(self):
        raise AssertionError

    def _repr_pretty_(self, printer, cycle):
        """Let Hypothesis print what it found."""
        printer.text(f"{type(self).__name__}()")


class HostileKey(Hostile):
    """Hostile, but for what a key of a dict must have."""

    __hash__ = object.__hash__


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


# Too deep for everything that calls itself.
DEEP = nested(30_000)


def deep():
    return DEEP


def contains_itself():
    value = {"a": []}
    value["a"].append(value)
    return value


# With lone surrogates and control characters.
texts = st.text(st.characters())
# Built, because Hypothesis prints values, and prints of these that and how they were built.
too_long_to_print = st.builds(pow, st.just(10), st.just(5000))
numbers = st.integers() | st.floats() | st.sampled_from([10**30, -(10**400), 1e308, 5e-324, True]) | too_long_to_print
subclasses = st.sampled_from([Text("text"), Colour.RED, Size.LARGE, Port.WEB, Kind.PAIR])
odd = st.one_of(
    st.builds("x".__mul__, st.just(30_000)),
    *map(st.builds, [deep, contains_itself, Index, Array, Hostile, object]),
    st.builds(iter, st.just([1])),
    st.sampled_from([b"\xff", "\ud800", "", str, print, Decimal("NaN"), Decimal("sNaN")]),
)

scalars = st.one_of(
    st.none(),
    texts,
    numbers,
    st.binary(max_size=8),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.datetimes(),
    subclasses,
    st.builds(HostileKey),
)
anything = st.recursive(
    scalars | odd | st.sets(st.integers()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(scalars, inner, max_size=3),
        st.builds(SelfDescribingJson, st.just(SCHEMA), inner),
    ),
    max_leaves=4,
)

json_encoders = st.sampled_from(
    [None, lambda value: "substitute", lambda value: [value], lambda value: value, int, str, lambda value: Hostile()]
)

timestamps = st.one_of(
    numbers,
    st.datetimes(),
    st.datetimes(timezones=st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)))),
    anything,
)


def joined(text):
    """Make one character of what stands for one in UTF-16, as those who read JSON do."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def alike(values):
    return values.map(lambda value: (value, value))


# Data that an event may hold, each with what a reader of the JSON finds.
described_data = st.recursive(
    st.one_of(
        alike(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)),
        texts.map(lambda text: (text, joined(text))),
        st.uuids().map(lambda uuid: (uuid, str(uuid))),
        st.datetimes().map(lambda moment: (moment, moment.isoformat())),
        st.integers(-(10**20), 10**20).map(lambda cents: (Decimal(cents).scaleb(-2), json_number(cents))),
        st.sets(st.integers(), max_size=3).map(lambda members: (members, sorted(members))),
        st.text().map(lambda text: (text.encode(), text)),
        st.sampled_from(
            [
                (math.nan, None),
                (-math.inf, None),
                (Text("text"), "text"),
                (Colour.RED, "red"),
                (Size.LARGE, 3),
                (Kind.PAIR, [1, 2]),
                (date(2024, 2, 29), "2024-02-29"),
                (UUID(int=0), str(UUID(int=0))),
                (b"\xff", "/w=="),
                (datetime(2024, 2, 29, tzinfo=timezone.utc), "2024-02-29T00:00:00+00:00"),
            ]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda pairs: ([given for given, _ in pairs], [read for _, read in pairs])),
        st.tuples(inner, inner).map(lambda pairs: (tuple(given for given, _ in pairs), [read for _, read in pairs])),
        st.dictionaries(texts, inner, max_size=4).map(
            lambda pairs: (
                {name: given for name, (given, _) in pairs.items()},
                {joined(name): read for name, (_, read) in pairs.items()},
            )
        ),
        inner.map(lambda pair: (SelfDescribingJson(SCHEMA, pair[0]), {"schema": SCHEMA, "data": pair[1]})),
    ),
    max_leaves=8,
)


def json_number(cents):
    return cents // 100 if cents % 100 == 0 else float(Decimal(cents).scaleb(-2))
