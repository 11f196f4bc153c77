"""A Redis that may be away, and how little its users notice of that."""

import functools
import hashlib
import importlib
import re
import threading
import time
from typing import Any, Callable, Dict, Optional, Sequence, Set, Tuple, Union
from urllib.parse import urlsplit

from typing_extensions import Protocol

from ._shown import shown

__all__ = ["RedisClient", "RedisConnection", "check_redis_url", "redis_and_no_retry"]

_URL_STARTS = ("redis://", "rediss://", "unix://")
# How long Redis is left alone after it has failed.
_PAUSE_SECONDS = 1.0
# What a step gets for which there is no time left: a socket without any would not fail by a timeout.
_LEAST_SECONDS = 0.001


def check_redis_url(name: str, url: str) -> None:
    """See that it is clear where the password in a URL ends, lest a part of it is taken for the host, and shown.

    Raises:
        ValueError: It is no such URL. The message shows nothing of it.
    """
    if not url.startswith(_URL_STARTS):
        raise ValueError(f"{name} must begin with {', '.join(_URL_STARTS)}")
    scheme, _, rest = url.partition("://")
    server = re.split("[/?#]", rest, maxsplit=1)[0]
    try:
        # redis-py would show what it takes for the port.
        urlsplit(url).port  # noqa: B018
        is_clear = "@" not in rest[len(server) :] if scheme != "unix" else server in ("", f"{server.rstrip('@')}@")
    except ValueError:
        is_clear = False
    if not is_clear:
        raise ValueError(
            f"{name} cannot be read: in a user or password each character of /?#@[]% has to be written as % and its "
            "code, and a port is a number"
        )


class RedisClient(Protocol):
    """What is asked of a client: `redis.Redis` has it, and so have the clients for Sentinel and for clusters."""

    def register_script(self, script: Any) -> Any:
        """Return a function that runs a Lua script, given `keys` and `args`."""


class RedisConnection:
    """Runs scripts in Redis, and refuses to at once while Redis is away.

    After a failure each call is refused for `_PAUSE_SECONDS`. Then one call at a time finds out whether Redis is back,
    while others are still refused, so that threads do not wait for it one after the other.

    The lock guards the client and what is known of the failure; Redis is never waited for under it. It is reentrant,
    because a signal handler may interrupt whatever happens here.
    """

    def __init__(
        self,
        client_or_url: Union[RedisClient, str],
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open nothing yet.

        Args:
            client_or_url: A client, which stays its owner's; or the URL to make one for.
            timeout: How many seconds a call may take with a client that is made here, to connect and to answer.
            clock: Gives the time in seconds.
        """
        self._client_or_url = client_or_url
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.RLock()
        self._own_client: Any = None
        self._functions: Dict[str, Any] = {}
        self._failure: Optional[str] = None
        self._resumes_at = 0.0
        self._probe_ends_at = 0.0

    def run(self, script: str, key: str, args: Sequence[Any]) -> Any:
        """Run a script.

        Args:
            script: Lua, in ASCII.
            key: The only key that it uses.
            args: Its arguments.

        Raises:
            ConnectionError: Redis has just failed, and is not asked.
            Exception: Redis fails, or refuses; of a class of the client's.
        """
        is_probe = self._begin()
        # A signal handler may have interrupted another call of this thread.
        ends_at_before, _call.ends_at = _call.ends_at, time.monotonic() + self._timeout
        try:
            answer = self._function(script)(keys=[key], args=args)
        except Exception as error:
            if _is_answer(error):
                self._note_success()
            else:
                self._note_failure(error)
            raise
        else:
            self._note_success()
            return answer
        finally:
            _call.ends_at = ends_at_before
            if is_probe:
                self._probe_ends_at = 0.0

    def close(self) -> None:
        """Close what was opened here. The next call opens it again."""
        with self._lock:
            if self._own_client is not None:
                # One that another thread uses is left to it.
                self._own_client.connection_pool.disconnect(inuse_connections=False)

    def _begin(self) -> bool:
        """Return whether the call that begins finds out for others if Redis is back.

        Raises:
            ConnectionError: The call must not be made.
        """
        with self._lock:
            if self._failure is None:
                return False
            now = self._clock()
            if now < max(self._resumes_at, self._probe_ends_at):
                raise ConnectionError(f"Redis is not asked for a moment, because it has failed: {self._failure}")
            # An end that is certain, because Ctrl-C may keep the call from saying that it is over.
            self._probe_ends_at = now + self._timeout
            return True

    def _note_success(self) -> None:
        # Looked at without the lock, as it is seldom set; a failure of another thread in between is noted again.
        if self._failure is not None:
            with self._lock:
                self._failure = None

    def _note_failure(self, error: Exception) -> None:
        with self._lock:
            self._failure = shown(error, str)
            self._resumes_at = self._clock() + _PAUSE_SECONDS
        # The address may lead to another server next time.
        self.close()

    def _function(self, script: str) -> Any:
        with self._lock:
            function = self._functions.get(script)
            if function is None:
                function = self._functions[script] = self._new_function(script)
            return function

    def _new_function(self, script: str) -> Any:
        if not isinstance(self._client_or_url, str):
            return self._client_or_url.register_script(script.encode("ascii"))
        if self._own_client is None:
            self._own_client = _new_client(self._client_or_url)
        return _Script(self._own_client, script)


class _Script:
    """A script that takes one round trip, where `register_script` would take three for the first call."""

    def __init__(self, client: Any, text: str) -> None:
        self._client = client
        self._text = text
        self._digest = hashlib.sha1(text.encode("ascii")).hexdigest()
        self._is_loaded = False

    def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        if self._is_loaded:
            try:
                return self._client.evalsha(self._digest, len(keys), *keys, *args)
            except Exception as error:
                if "NoScriptError" not in _class_names(error):
                    raise
        answer = self._client.eval(self._text, len(keys), *keys, *args)
        self._is_loaded = True
        return answer


class _Call(threading.local):
    """The call that a thread makes: when it must have ended, as a monotonic time."""

    ends_at = 0.0

    def seconds_left(self) -> float:
        return max(_LEAST_SECONDS, self.ends_at - time.monotonic())


_call = _Call()


class _Bounded:
    """Makes a class of redis-py's connections wait no longer than is left for the call.

    redis-py has timeouts for single steps only, of which a call has many: the addresses of the host, TLS, what a client
    tells a server about itself, the password, the database, the script.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What Redis need not know takes no round trips, whatever the version of redis-py calls it.
        self.lib_name = self.lib_version = self.driver_info = None

    @property
    def socket_connect_timeout(self) -> float:
        """Asked for at each address; something is left for the next one, and for the answer."""
        return _call.seconds_left() / 2

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, value: Any) -> None:
        """Take no other."""

    @property
    def socket_timeout(self) -> float:
        """Asked for when there is a connection."""
        return _call.seconds_left()

    @socket_timeout.setter
    def socket_timeout(self, value: Any) -> None:
        """Take no other."""

    def send_packed_command(self, *args: Any, **kwargs: Any) -> Any:
        self._limit()
        return super().send_packed_command(*args, **kwargs)  # type: ignore[misc]  # redis-py's

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        self._limit()
        return super().read_response(*args, **kwargs)  # type: ignore[misc]  # redis-py's

    def _limit(self) -> None:
        connected_socket = getattr(self, "_sock", None)
        if connected_socket is not None:
            connected_socket.settimeout(_call.seconds_left())


@functools.lru_cache(maxsize=None)
def _bounded(kind: type) -> type:
    return type(f"Bounded{kind.__name__}", (_Bounded, kind), {})


def _new_client(url: str) -> Any:
    redis, never = redis_and_no_retry()
    # With version 3 of the protocol, a server may tell redis-py to wait for longer than it is told here.
    client = redis.Redis.from_url(url, protocol=2, retry=never)
    pool = client.connection_pool
    pool.connection_class = _bounded(pool.connection_class)
    # In older releases it is not reentrant: a signal handler that tracks would wait for what it interrupts.
    pool._lock = threading.RLock()
    return client


def redis_and_no_retry() -> Tuple[Any, Any]:
    """Import redis-py, and give what has its clients try nothing twice.

    Raises:
        ImportError: It is not installed; the message says what to do.
    """
    try:
        redis = importlib.import_module("redis")
        never = importlib.import_module("redis.retry").Retry(importlib.import_module("redis.backoff").NoBackoff(), 0)
    except ImportError as error:
        message = "RedisEventStore needs redis-py for a URL: pip install 'snowplow-tracker[redis]'"
        raise ImportError(message) from error
    return redis, never


def _is_answer(error: Exception) -> bool:
    """Tell whether an error is what Redis said, and it will say more."""
    names = _class_names(error)
    # A server that has become a replica refuses whatever is asked here. Up to Redis 6.2 it is the script that fails.
    is_replica = "ReadOnlyError" in names or "READONLY" in shown(error, str)
    return "ResponseError" in names and not is_replica


def _class_names(error: Exception) -> Set[str]:
    """Return what an error is by name, because a client of the application's may not be that of redis-py."""
    return {kind.__name__ for kind in type(error).__mro__}
