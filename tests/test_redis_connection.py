"""How a Redis that is away is left alone, with a client that fails as it is told."""

import sys
import threading
from types import SimpleNamespace

import pytest
from support import PATIENCE_SECONDS

from snowplow_tracker import RedisEventStore, _redis_connection
from snowplow_tracker._redis_connection import RedisConnection, _bounded, _call


class ResponseError(Exception):
    """Like that of redis-py and its forks: Redis has answered, and refused."""


class ReadOnlyError(ResponseError):
    """Like that of redis-py: Redis has become a replica."""


class Client:
    """Runs scripts by a function of the test's."""

    def __init__(self):
        self.failure = None
        self.calls = []
        self.registered = []

    def register_script(self, script):
        self.registered.append(script)
        return self.run

    def run(self, keys, args):
        self.calls.append((keys, args))
        if self.failure is not None:
            raise self.failure
        return len(self.calls)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def connection(client, clock):
    return RedisConnection(client, 1.0, clock)


def fail(connection):
    with pytest.raises(OSError, match=r"^gone$"):
        connection.run("return", "key", ())


def test_script_is_run_with_its_key_and_arguments(connection, client):
    """The answer is what the script returns; a script is registered once."""
    answers = [connection.run("return 1", "key", (1, "b")), connection.run("return 1", "key", ())]

    assert answers == [1, 2]
    assert client.calls == [(["key"], (1, "b")), (["key"], ())]
    assert client.registered == [b"return 1"]


def test_redis_that_failed_is_not_asked_for_a_second(connection, client, clock):
    """Whoever calls meanwhile is told at once why, and does not wait."""
    client.failure = OSError("gone")
    fail(connection)

    clock.now += 0.9
    with pytest.raises(ConnectionError, match=r"^Redis is not asked for a moment, because it has failed: gone$"):
        connection.run("return", "key", ())

    assert len(client.calls) == 1


def test_redis_is_asked_again_after_the_pause(connection, client, clock):
    """A failure then begins another pause; a success ends it all."""
    client.failure = OSError("gone")
    fail(connection)
    clock.now += 1.0
    fail(connection)
    with pytest.raises(ConnectionError):
        connection.run("return", "key", ())

    clock.now += 1.0
    client.failure = None

    assert [connection.run("return", "key", ()) for _ in range(2)] == [3, 4]


def test_one_call_finds_out_for_all(connection, client, clock):
    """While one waits for a Redis that may be back, the others are refused without waiting."""
    client.failure = OSError("gone")
    fail(connection)
    clock.now += 1.0
    is_asked, may_answer = threading.Event(), threading.Event()

    def answer(keys, args):
        is_asked.set()
        assert may_answer.wait(PATIENCE_SECONDS)
        return "back"

    connection._functions["return"] = answer
    answers = []
    prober = threading.Thread(target=lambda: answers.append(connection.run("return", "key", ())))
    prober.start()
    assert is_asked.wait(PATIENCE_SECONDS)
    with pytest.raises(ConnectionError, match="because it has failed: gone"):
        connection.run("return", "key", ())
    may_answer.set()
    prober.join(PATIENCE_SECONDS)

    assert answers == ["back"]
    assert connection.run("return", "key", ()) == "back"


def test_call_that_is_interrupted_holds_up_others_for_its_timeout_only(connection, client, clock):
    """Ctrl-C may come before the call has begun to take note of its end."""
    client.failure = OSError("gone")
    fail(connection)
    clock.now += 1.0
    client.failure = None
    connection._begin()

    with pytest.raises(ConnectionError, match="because it has failed: gone"):
        connection.run("return", "key", ())
    clock.now += 1.0

    assert connection.run("return", "key", ()) == 2


def test_refusal_of_redis_is_no_failure(connection, client):
    """A Redis that says no will answer the next question as quickly."""
    client.failure = ResponseError("OOM")

    for _ in range(2):
        with pytest.raises(ResponseError, match=r"^OOM$"):
            connection.run("return", "key", ())

    assert len(client.calls) == 2


def test_refusal_ends_the_pause(connection, client, clock):
    """A Redis that says no is back."""
    client.failure = OSError("gone")
    fail(connection)
    clock.now += 1.0

    client.failure = ResponseError("OOM")
    for _ in range(2):
        with pytest.raises(ResponseError):
            connection.run("return", "key", ())

    assert len(client.calls) == 3


@pytest.mark.parametrize(
    "failure", [ReadOnlyError("You can't write"), ResponseError("Error running script: -READONLY You can't write")]
)
def test_replica_is_a_failure(connection, client, failure):
    """A server that has become a replica is not the one to ask, be it Redis 7 or Redis 6 that says so."""
    client.failure = failure
    with pytest.raises(ResponseError):
        connection.run("return", "key", ())

    with pytest.raises(ConnectionError, match="You can't write"):
        connection.run("return", "key", ())


def test_interrupt_is_no_failure(connection, client, clock):
    """Ctrl-C tells nothing about Redis, and does not keep others from asking."""
    client.failure = OSError("gone")
    fail(connection)
    clock.now += 1.0
    client.failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        connection.run("return", "key", ())

    client.failure = None

    assert connection.run("return", "key", ()) == 3


def test_failure_is_kept_as_text(connection, client, clock):
    """What an exception holds on to, such as the payloads of its frames, is not kept for as long as Redis is away."""
    client.failure = OSError("gone")
    fail(connection)

    assert connection._failure == "gone"


class Host:
    """Connects like redis-py: to one address after the other, each of which takes all the time that it gets."""

    def __init__(self, clock, socket_timeout=None, socket_connect_timeout=None):
        self.socket_timeout = socket_timeout
        self.socket_connect_timeout = socket_connect_timeout
        self.clock = clock
        self.waits = []

    def send_packed_command(self, command):
        for _ in range(4):
            self.waits.append(self.socket_connect_timeout)
            self.clock.now += self.waits[-1]
        self.waits.append(self.socket_timeout)


def test_addresses_of_a_host_share_the_time_of_a_call(monkeypatch, clock):
    """However many there are that do not answer, the call ends in time; and the last one still has a chance."""
    monkeypatch.setattr(_redis_connection, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(_call, "ends_at", clock.now + 1)
    host = _bounded(Host)(clock, socket_timeout=7, socket_connect_timeout=7)

    host.send_packed_command("EVAL")

    assert host.waits == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16]


def test_nothing_gets_no_time_at_all(monkeypatch, clock):
    """A socket without a moment would not wait, and fail in another way than by a timeout."""
    monkeypatch.setattr(_redis_connection, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(_call, "ends_at", clock.now - 1)

    assert _call.seconds_left() == 0.001


def test_call_in_a_call_has_its_own_time(connection, client, clock, monkeypatch):
    """A signal handler may track an event while its thread waits for Redis."""
    monkeypatch.setattr(_redis_connection, "time", SimpleNamespace(monotonic=clock))
    ends = []

    def answer(keys, args):
        ends.append(_call.ends_at)
        if len(ends) == 1:
            clock.now += 0.5
            connection.run("return", "key", ())
            ends.append(_call.ends_at)

    connection._functions["return"] = answer
    connection.run("return", "key", ())

    assert ends == [101.0, 101.5, 101.0]


def test_connection_needs_no_client_to_be_closed(client):
    """What belongs to the application, or was never opened, is left alone."""
    RedisConnection(client, 1.0).close()
    RedisConnection("redis://localhost", 1.0).close()

    assert client.calls == []


def test_missing_redis_py_is_named(monkeypatch):
    """A URL takes redis-py; whoever does not have it is told what to install, at the line that gives the URL."""
    monkeypatch.setitem(sys.modules, "redis", None)

    with pytest.raises(ImportError, match=r"needs redis-py for a URL: pip install 'snowplow-tracker\[redis\]'$"):
        RedisEventStore("redis://localhost")
