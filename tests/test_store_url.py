"""Stores by URL: which store it is, where it is, and its options."""

import subprocess
import sys
import types

import pytest

from snowplow_tracker import InMemoryEventStore, StoreOnlyEmitter, _store_url
from snowplow_tracker._store_url import event_store_from_url

NO_URL = "event_store must be the URL of a store (memory:, sqlite:, redis:, rediss:, unix:)"


class Recording(InMemoryEventStore):
    """A store that keeps what it was built with."""

    def __init__(self, *arguments, **options):
        super().__init__()
        self.arguments, self.options = arguments, options


@pytest.fixture
def recorded(monkeypatch):
    """Have both kinds of stores that survive replaced by such that only take notes."""
    for module, name in (("sqlite_event_store", "SQLiteEventStore"), ("redis_event_store", "RedisEventStore")):
        stand_in = types.ModuleType(module)
        setattr(stand_in, name, Recording)
        monkeypatch.setitem(sys.modules, f"snowplow_tracker.{module}", stand_in)


@pytest.mark.parametrize(
    ("url", "arguments", "options"),
    [
        ("sqlite:///events.db", ("events.db",), {}),
        ("sqlite:///folder/events.db", ("folder/events.db",), {}),
        ("sqlite:////var/lib/events.db", ("/var/lib/events.db",), {}),
        ("sqlite:///C:\\events.db", ("C:\\events.db",), {}),
        (" SQLite:///a%20b#c.db\n", ("a%20b#c.db",), {}),
        (
            "sqlite:///events.db?synchronous=full&lease_seconds=60&buffer_capacity=5&max_age=1.5&timeout=2",
            ("events.db",),
            {"synchronous": "full", "lease_seconds": 60.0, "buffer_capacity": 5, "max_age": 1.5, "timeout": 2.0},
        ),
        ("redis://localhost", ("redis://localhost",), {}),
        ("redis://user:pass@host:6380/3", ("redis://user:pass@host:6380/3",), {}),
        (
            "rediss://host?key=my%3Aevents&ssl_cert_reqs=none&db=2&lease_seconds=30&buffer_capacity=9&timeout=.5",
            ("rediss://host?ssl_cert_reqs=none&db=2",),
            {"key": "my:events", "lease_seconds": 30.0, "buffer_capacity": 9, "timeout": 0.5},
        ),
        ("unix:///run/redis.sock?&db=1", ("unix:///run/redis.sock?db=1",), {}),
    ],
)
def test_url_describes_a_store(recorded, url, arguments, options):
    """The path as it stands, as SQLAlchemy has it, or the URL of the server; and options by the names of the class."""
    store = event_store_from_url(url)

    assert isinstance(store, Recording)
    assert (store.arguments, store.options) == (arguments, options)


@pytest.mark.parametrize(
    ("url", "capacity"), [("memory:", 10_000), ("memory://", 10_000), ("memory:?buffer_capacity=5", 5)]
)
def test_store_in_memory_has_a_url(url, capacity):
    """For a place where the configuration must name one."""
    store = event_store_from_url(url)

    assert (type(store), store.buffer_capacity) == (InMemoryEventStore, capacity)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "events.db",
            f"{NO_URL}, got 'events.db'",
        ),
        ("", f"{NO_URL}, got ''"),
        (
            "mysql://root:secret@host",
            f"{NO_URL}, got the scheme 'mysql'",
        ),
        ("memory://name", "a store in memory is memory: and has no name, got '//name'"),
        *[
            (
                url,
                "a SQLite store is sqlite:///relative/path or sqlite:////absolute/path of a file, got "
                f"{url.partition('?')[0]!r}",
            )
            for url in (
                "sqlite:events.db",
                "sqlite://events.db",
                "sqlite:///",
                "sqlite:///:memory:",
                "sqlite://?timeout=1",
            )
        ],
        ("redis:secret", "a Redis store is redis:// and where to find the server, which lacks its two slashes"),
        (
            "sqlite:///events.db?lease=60&buffer_size=3&timeout=1",
            "the URL of a sqlite: store may have buffer_capacity, lease_seconds, max_age, synchronous, timeout; "
            "got 'lease', 'buffer_size'",
        ),
        (
            "redis://:secret@host?socket_timeout=60",
            "the URL of a redis: store may have buffer_capacity, key, lease_seconds, timeout; got 'socket_timeout'",
        ),
        *[
            (
                url,
                "the URL of a Redis store cannot be read: in a user or password each character of /?#@[]% has to be "
                "written as % and its code, and a port is a number",
            )
            for url in ("redis://:sec/ret@host", "rediss://:sec?ret@host", "unix://:sec?ret@/socket")
        ],
        ("user:secret@host", f"{NO_URL}, got something else"),
        ("secret@host", f"{NO_URL}, got something else"),
        ("memory:?key=x", "the URL of a memory: store may have buffer_capacity; got 'key'"),
        (
            "memory:?buffer_capacity=5&buffer_capacity=6",
            "the URL of an event store has the option buffer_capacity twice",
        ),
        ("memory:?buffer_capacity=1.5", "buffer_capacity in the URL of an event store must be an integer, got '1.5'"),
        ("memory:?buffer_capacity", "buffer_capacity in the URL of an event store must be an integer, got ''"),
        ("sqlite:///e.db?max_age=old", "max_age in the URL of an event store must be a number, got 'old'"),
        ("memory:?buffer_capacity=-1", "buffer_capacity must be positive, got -1"),
    ],
)
def test_wrong_url_is_refused(recorded, url, message):
    """The message names what is wrong, and never shows a password."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        event_store_from_url(url)

    assert str(caught.value) == message


@pytest.mark.parametrize("url", [None, b"memory:", 3])
def test_url_must_be_text(url):
    """Anything else is of a wrong type."""
    with pytest.raises(TypeError, match=r"^event_store must be a store or its URL, got "):
        event_store_from_url(url)


def test_option_may_be_a_store_or_its_url(recorded):
    """A URL stays one: each emitter makes a store of its own."""
    store = InMemoryEventStore()

    assert _store_url.event_store_or_url("event_store", store) is store
    assert _store_url.event_store_or_url("event_store", "sqlite:///events.db") == "sqlite:///events.db"
    with pytest.raises(TypeError, match=r"^event_store must have the method add_event"):
        _store_url.event_store_or_url("event_store", 3)


def test_store_only_emitter_takes_a_url():
    """As the other emitters do."""
    assert type(StoreOnlyEmitter("memory:").event_store) is InMemoryEventStore


def test_import_loads_no_database():
    """What a URL names is loaded when it is named; an interpreter may have no sqlite3."""
    script = (
        # A tool that measures the coverage has loaded some before.
        "import sys; before = set(sys.modules); import snowplow_tracker; "
        "print(sorted({'sqlite3', '_sqlite3', 'redis'} & (set(sys.modules) - before)))"
    )

    process = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=30, check=True)

    assert process.stdout.decode().strip() == "[]"
