"""Event stores by URL, where a string is handier: in the environment, on a command line."""

import importlib
from typing import Any, Callable, Dict, List, NamedTuple, Tuple, Union
from urllib.parse import unquote_plus

from ._settings import event_store as check_event_store
from ._shown import shown
from .typing import EventStore

__all__ = ["event_store_from_url", "event_store_or_url"]


class _Kind(NamedTuple):
    """What a scheme stands for.

    Attributes:
        module: Loaded only when a URL names it, with all that it needs.
        store: The name of the class.
        options: What the query may set, and what makes a value of the text.
    """

    module: str
    store: str
    options: Dict[str, Callable[[str], Any]]


_REDIS = _Kind(
    "redis_event_store",
    "RedisEventStore",
    {"key": str, "buffer_capacity": int, "lease_seconds": float, "timeout": float},
)
_KINDS = {
    "memory": _Kind("event_store", "InMemoryEventStore", {"buffer_capacity": int}),
    "sqlite": _Kind(
        "sqlite_event_store",
        "SQLiteEventStore",
        {
            "buffer_capacity": int,
            "lease_seconds": float,
            "max_age": float,
            "synchronous": str,
            "timeout": float,
        },
    ),
    "redis": _REDIS,
    "rediss": _REDIS,
    "unix": _REDIS,
}
# What redis-py itself reads in the query. Its timeouts are not among them: the store has an option for them.
_OPTIONS_OF_REDIS_PY = {"client_name", "db", "password", "protocol", "username"}
_TLS_OPTIONS_OF_REDIS_PY = "ssl_"


def event_store_from_url(url: str) -> EventStore:
    """Build the store that a URL describes; nothing is opened yet.

    `sqlite:///relative/path.db`, `sqlite:////absolute/path.db`, `redis://host:6379/0`, `rediss://…` for TLS,
    `unix:///path/of/a/socket`, or `memory:`. The query sets options of the store's class by their names, such as
    `?lease_seconds=60&buffer_capacity=50000`. Those of `redis-py` that say how to reach and enter a server (`db`,
    `ssl_…`) are passed on.

    Raises:
        TypeError: It is no string.
        ValueError: It is no such URL, or an option is unknown or has a wrong value. The message shows no password.
    """
    if not isinstance(url, str):
        raise TypeError(f"event_store must be a store or its URL, got {shown(url)}")
    scheme, colon, rest = url.strip().partition(":")
    scheme = scheme.lower()
    kind = _KINDS.get(scheme)
    if kind is None or not colon:
        # A path is shown. What looks like a URL may have a user and a password in it.
        given = f"the scheme {shown(scheme)}" if colon else shown(url)
        if "@" in url and not rest.startswith("//"):
            given = "something else"
        raise ValueError(f"event_store must be the URL of a store ({', '.join(f'{s}:' for s in _KINDS)}), got {given}")
    if kind is _REDIS:
        if not rest.startswith("//"):
            raise ValueError(f"a Redis store is {scheme}:// and where to find the server, which lacks its two slashes")
        check = importlib.import_module("._redis_connection", __package__).check_redis_url
        check("the URL of a Redis store", f"{scheme}:{rest}")
    location, _, query = rest.partition("?")
    options, others = _read_query(scheme, kind, query)
    store_class = getattr(importlib.import_module(f".{kind.module}", __package__), kind.store)
    store: EventStore = store_class(*_arguments(scheme, location, others), **options)
    return store


def event_store_or_url(name: str, value: Any) -> Union[EventStore, str]:
    """Check an option that is either: returns a URL as it is, because each emitter makes a store of its own of it."""
    if not isinstance(value, str):
        store: EventStore = check_event_store(name, value)
        return store
    event_store_from_url(value)
    return value


def _read_query(scheme: str, kind: _Kind, query: str) -> Tuple[Dict[str, Any], List[str]]:
    options: Dict[str, Any] = {}
    others, unknown = [], []
    for part in filter(None, query.split("&")):
        name, _, value = map(unquote_plus, part.partition("="))
        if name in options:
            raise ValueError(f"the URL of an event store has the option {name} twice")
        if name in kind.options:
            options[name] = _converted(name, value, kind.options[name])
        elif kind is _REDIS and (name in _OPTIONS_OF_REDIS_PY or name.startswith(_TLS_OPTIONS_OF_REDIS_PY)):
            others.append(part)
        else:
            unknown.append(name)
    if unknown:
        names = ", ".join(map(shown, unknown))
        raise ValueError(f"the URL of a {scheme}: store may have {', '.join(sorted(kind.options))}; got {names}")
    return options, others


def _converted(name: str, value: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(value)
    except ValueError:
        what = "an integer" if convert is int else "a number"
        raise ValueError(f"{name} in the URL of an event store must be {what}, got {shown(value)}") from None


def _arguments(scheme: str, location: str, others: List[str]) -> Tuple[str, ...]:
    """Return what the class of the store takes beside options."""
    if scheme == "memory":
        if location not in ("", "//"):
            raise ValueError(f"a store in memory is memory: and has no name, got {shown(location)}")
        return ()
    if scheme == "sqlite":
        path = location[len("///") :]
        if not location.startswith("///") or path in ("", ":memory:"):
            raise ValueError(
                "a SQLite store is sqlite:///relative/path or sqlite:////absolute/path of a file, "
                f"got {shown(f'sqlite:{location}')}"
            )
        return (path,)
    return (f"{scheme}:{location}{'?' if others else ''}{'&'.join(others)}",)
