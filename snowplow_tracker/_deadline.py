"""One deadline for all that an HTTP exchange waits for, where timeouts bound each single wait."""

import contextlib
import functools
import http.client
import io
import socket
import threading
import time
from typing import Any, Dict, Iterator, Optional, Tuple

import requests

__all__ = ["BoundedAdapter", "at_most", "exchange"]


class _Exchange(threading.local):
    """The exchange that the current thread is inside of: the monotonic time at which it must end, None for never."""

    ends_at: Optional[float] = None


_exchange = _Exchange()


@contextlib.contextmanager
def exchange(seconds: Optional[float]) -> Iterator[None]:
    """End what a `BoundedAdapter` does inside the block when the time is up.

    A block inside of another is an exchange of its own, such as a signal handler's, and has its own time.

    Args:
        seconds: None for no limit.
    """
    before = _exchange.ends_at
    try:
        _exchange.ends_at = None if seconds is None else time.monotonic() + seconds
        yield
    finally:
        _exchange.ends_at = before


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Give a part of an exchange only so much of the time that is left."""
    before = _exchange.ends_at
    ends_at = time.monotonic() + seconds
    try:
        _exchange.ends_at = ends_at if before is None else min(before, ends_at)
        yield
    finally:
        _exchange.ends_at = before


class BoundedAdapter(requests.adapters.HTTPAdapter):
    """An adapter of `requests` whose connections end an exchange with a timeout when the thread's time is up.

    A collector that sends its answer byte by byte begins the timeout of a socket anew with each of them. So before each
    wait the socket is given no more than what is left. Proxies and their answers are bounded as well.
    """

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Do what the base class does, with bounded connections."""
        self._last_pool: Tuple[Any, Any] = None, None
        super().init_poolmanager(*arguments, **options)
        _bound(self.poolmanager)

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Look for a pool only if it is another than last time, because the search costs more than the rest."""
        key = (str(request.url).split("/", 3)[:3], verify, proxies, cert)
        if self._last_pool[0] != key:
            self._last_pool = key, super().get_connection_with_tls_context(request, verify, proxies, cert)
        return self._last_pool[1]

    def close(self) -> None:
        """Do what the base class does, which closes the pools."""
        self._last_pool = None, None
        super().close()

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        """Do what the base class does, with bounded connections."""
        manager = super().proxy_manager_for(*arguments, **options)
        _bound(manager)
        return manager


class _BoundedPool:
    """Mixed into a connection pool of urllib3's."""

    @property
    def ConnectionCls(self) -> Any:  # noqa: N802  # urllib3's name
        # Looked up late, because tools that record or fake HTTP put a class of their own there.
        base: Any = super()
        return _bounded_connection(base.ConnectionCls)


class _BoundedAnswer(http.client.HTTPResponse):
    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        if type(self.fp) is io.BufferedReader:  # pragma: no branch  # a fake socket may give anything
            self.fp = io.BufferedReader(_BoundedStream(self.fp.detach(), sock))


class _BoundedConnection:
    """Mixed into a connection of urllib3's."""

    sock: Any
    timeout: Any
    response_class = _BoundedAnswer
    # Of a request with a body: what comes before the body, and is sent together with it.
    _head: Optional[bytes] = None

    def connect(self) -> None:
        self.timeout = _shortened(self.timeout)
        base: Any = super()
        base.connect()

    def request(self, method: str, url: str, body: Any = None, *arguments: Any, **options: Any) -> None:
        base: Any = super()
        self._head = b"" if body and isinstance(body, (bytes, str)) else None
        try:
            base.request(method, url, body, *arguments, **options)
        finally:
            self._head = None

    def send(self, data: Any) -> None:
        if self._head == b"":
            # One packet less, and one wait less for other threads, which may run whenever something is sent.
            self._head = data
            return
        if self._head is not None:
            data, self._head = self._head + data, None
        if self.sock is not None:
            # One timeout is for all of the data.
            self.sock.settimeout(_shortened(self.timeout))
        base: Any = super()
        base.send(data)


class _BoundedStream(io.RawIOBase):
    """What comes from a socket, each byte of it before the time is up."""

    def __init__(self, stream: io.RawIOBase, sock: Any) -> None:
        self._stream = stream
        self._sock = sock
        self._timeout = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        self._sock.settimeout(_shortened(self._timeout))
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _shortened(timeout: Any) -> Any:
    """Cut a timeout to what is left; raise one if nothing is."""
    if _exchange.ends_at is None:
        return timeout
    left = _exchange.ends_at - time.monotonic()
    if left <= 0:
        raise socket.timeout("timed out")
    return min(timeout, left) if isinstance(timeout, (int, float)) else left


def _bound(manager: Any) -> None:
    pools: Dict[str, Any] = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _mixed(_BoundedPool, pool) for scheme, pool in pools.items()}


def _bounded_connection(connection: Any) -> Any:
    is_real = isinstance(connection, type) and issubclass(connection, http.client.HTTPConnection)
    return _mixed(_BoundedConnection, connection) if is_real else connection


@functools.lru_cache(maxsize=32)
def _mixed(mixin: type, base: type) -> type:
    if issubclass(base, mixin):
        return base
    bases: Tuple[type, ...] = (mixin, base)
    # The name is part of messages.
    return type(base.__name__, bases, {})
