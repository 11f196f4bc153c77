"""A Redis that may be away, and how little its users notice of that."""

import importlib
import threading
import time
from typing import Any, Callable, Dict, Optional, Sequence, Union

from typing_extensions import Protocol

from ._shown import shown

__all__ = ["RedisClient", "RedisConnection"]

# How long Redis is left alone after it has failed.
_PAUSE_SECONDS = 1.0


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
            timeout: How many seconds a client that is made here may take, one half to connect, the other to answer.
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
        self._is_probing = False

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
            if is_probe:
                self._is_probing = False

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
            if self._is_probing or self._clock() < self._resumes_at:
                raise ConnectionError(f"Redis is not asked for a moment, because it has failed: {self._failure}")
            self._is_probing = True
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
                function = self._client().register_script(script.encode("ascii"))
                self._functions[script] = function
            return function

    def _client(self) -> RedisClient:
        if not isinstance(self._client_or_url, str):
            return self._client_or_url
        if self._own_client is None:
            self._own_client = _new_client(self._client_or_url, self._timeout / 2)
        return self._own_client  # type: ignore[no-any-return]  # redis-py may be absent, so its types are not used


def _new_client(url: str, timeout: float) -> Any:
    try:
        redis = importlib.import_module("redis")
        never = importlib.import_module("redis.retry").Retry(importlib.import_module("redis.backoff").NoBackoff(), 0)
    except ImportError as error:
        message = "RedisEventStore needs redis-py for a URL: pip install 'snowplow-tracker[redis]'"
        raise ImportError(message) from error
    # With version 3 of the protocol, a server may tell redis-py to wait for longer than it is told here.
    return redis.Redis.from_url(url, protocol=2, socket_timeout=timeout, socket_connect_timeout=timeout, retry=never)


def _is_answer(error: Exception) -> bool:
    """Tell whether an error is what Redis said, and it will say more.

    The classes are known by their names, because a client of the application's may not be that of redis-py.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    # A server that has become a replica refuses whatever is asked here. Up to Redis 6.2 it is the script that fails.
    is_replica = "ReadOnlyError" in names or "READONLY" in shown(error, str)
    return "ResponseError" in names and not is_replica
