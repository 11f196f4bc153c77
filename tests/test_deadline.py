"""One deadline for a whole exchange, with a collector that never lets the timeout of a socket be reached."""

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from unittest import mock

import pytest
import requests
import urllib3.connection

import snowplow_tracker.testing
from snowplow_tracker import Emitter, _transport
from snowplow_tracker._deadline import BoundedAdapter, exchange
from snowplow_tracker._transport import SessionPool, status_of
from snowplow_tracker.testing import Answer, LocalCollector

CERTIFICATES = Path(snowplow_tracker.testing.__file__).parent / "certificates"
POST_PATH = "/com.snowplowanalytics.snowplow/tp2"
OK = b"HTTP/1.1 200 OK\r\n"
HEADS = {"status line": b"HTTP/1.1 200 ", "header": OK + b"X-Drip: ", "interim": b"HTTP/1.1 100 Continue\r\nX-Drip: "}
BODIES = {
    "with a length": OK + b"Content-Length: 1000000\r\n\r\n",
    "size of a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n",
    "chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n",
    "without a length": OK + b"\r\n",
}
# Each pause of the collector is much shorter.
TIMEOUT = (0.1, 0.3)
PAUSE_SECONDS = 0.01


class DrippingCollector:
    """Begins its answers, and goes on by a byte at a time until it is closed or nobody listens any more."""

    def __init__(self, *begins, tls=False):
        self.begins = begins
        self.is_reading = True
        self._tls = tls
        self._stopping = threading.Event()
        self._connections = []

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *exception):
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in [self._acceptor, *self._connections]:
            thread.join(10)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self._connections.append(thread)
                thread.start()

    def _serve(self, sock):
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(str(CERTIFICATES / "server.pem"))
            sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with contextlib.suppress(OSError), sock:
            while not self.is_reading and not self._stopping.wait(PAUSE_SECONDS):
                sock.recv(1)
            for begin in self.begins:
                if not sock.recv(65_536):
                    return
                sock.sendall(begin)
            while not self._stopping.wait(PAUSE_SECONDS):
                sock.sendall(b"0")


@pytest.fixture
def pool():
    pool = SessionPool()
    yield pool
    pool.close()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("begin", HEADS.values(), ids=HEADS)
def test_head_of_an_answer_that_drips_is_no_response(pool, monkeypatch, begin, tls):
    """A request ends when its timeouts together are over, though no wait for a byte is that long."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATES / "authority.pem"))
    with DrippingCollector(begin, tls=tls) as collector, pytest.raises(requests.Timeout):
        pool.post(collector.url, data="{}", timeout=TIMEOUT)


@pytest.mark.parametrize("begin", BODIES.values(), ids=BODIES)
def test_body_of_an_answer_that_drips_costs_nothing_but_its_connection(pool, begin):
    """The status counts; the body is given up after a second, or with the request."""
    with DrippingCollector(begin) as collector:
        response = pool.get(collector.url, timeout=10)

        assert response.raw.closed

    assert status_of(response) == 200


def test_body_of_an_answer_that_stops_costs_nothing_but_its_connection(pool, monkeypatch):
    """It is not waited for as long as for an answer."""
    monkeypatch.setattr(_transport, "_MAX_ANSWER_SECONDS", 0.05)
    with DrippingCollector(BODIES["with a length"], b"") as collector:
        response = pool.get(collector.url, timeout=3600)

        assert response.raw.closed

    assert status_of(response) == 200


def test_tool_that_looks_for_its_own_connections_finds_none_of_another_kind(collector):
    """One that fakes HTTP puts a class of its own there, and drops connections that are not of that class."""
    emitter = Emitter(collector.url, batch_size=1)
    emitter.input({"e": "pv", "eid": "1"})
    adapter = emitter._session_pool._idle[0].get_adapter(collector.url)
    [key] = adapter.poolmanager.pools.keys()
    pool = adapter.poolmanager.pools[key]

    class Fake(urllib3.connection.HTTPConnection):
        pass

    with mock.patch.object(urllib3.HTTPConnectionPool, "ConnectionCls", Fake):
        assert issubclass(pool.ConnectionCls, Fake)
    assert not issubclass(pool.ConnectionCls, Fake)


def test_kept_alive_connection_is_bounded_as_well(pool):
    """The deadline is that of the request, whatever connection it goes through."""
    begin = OK + b"Content-Length: 0\r\n\r\n"
    with DrippingCollector(begin, begin, HEADS["header"]) as collector:
        for _ in range(2):
            pool.get(collector.url, timeout=10)
        with pytest.raises(requests.Timeout):
            pool.get(collector.url, timeout=TIMEOUT)


def test_redirect_has_no_time_of_its_own(pool):
    """A dripping target ends with the request that was sent to it."""
    with DrippingCollector(HEADS["header"]) as target, LocalCollector() as collector:
        collector.respond_with(Answer(307, headers={"Location": target.url}))

        with pytest.raises(requests.Timeout):
            pool.post(collector.url + POST_PATH, data="{}", timeout=TIMEOUT)


def test_body_of_a_redirect_that_drips_is_not_read_to_its_end(pool):
    """`requests` reads it before it follows, and the time is over then."""
    begin = b"HTTP/1.1 307 Elsewhere\r\nLocation: /there\r\nContent-Length: 1000000\r\n\r\n"
    with DrippingCollector(begin) as collector, pytest.raises(requests.RequestException):
        pool.post(collector.url, data="{}", timeout=TIMEOUT)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_drips_is_bounded(pool, monkeypatch, scheme):
    """Its own answer, to a CONNECT, and what it passes on."""
    with DrippingCollector(HEADS["header"]) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url)

        with pytest.raises(requests.RequestException):
            pool.post(f"{scheme}://collector.invalid/", data="{}", timeout=TIMEOUT)


def test_proxy_stays_bounded(pool, monkeypatch):
    """The deadline is that of each request, whoever serves the connection."""
    begin = OK + b"Content-Length: 0\r\n\r\n"
    with DrippingCollector(begin, HEADS["header"]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        pool.get("http://collector.invalid/i", timeout=10)

        with pytest.raises(requests.Timeout):
            pool.get("http://collector.invalid/i", timeout=TIMEOUT)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_collector_that_reads_byte_by_byte_is_bounded(pool, monkeypatch, tls):
    """A request that it does not take in time has failed."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATES / "authority.pem"))
    with DrippingCollector(tls=tls) as collector:
        collector.is_reading = False

        with pytest.raises(requests.ConnectionError):
            # Enough time to connect for TLS, too.
            pool.post(collector.url, data="x" * 30_000_000, timeout=(2, 0.3))


@pytest.mark.parametrize("begin", BODIES.values(), ids=BODIES)
def test_body_of_an_answer_is_bounded_without_a_timeout(pool, monkeypatch, begin):
    """It is never worth more than its own second."""
    monkeypatch.setattr(_transport, "_MAX_ANSWER_SECONDS", 0.05)
    with DrippingCollector(begin) as collector:
        assert pool.get(collector.url).raw.closed


def test_request_whose_time_is_up_before_it_connects_has_failed(collector):
    """Nothing is sent any more."""
    session = requests.Session()
    session.mount("http://", BoundedAdapter())

    with session, exchange(0), pytest.raises(requests.ConnectionError):
        session.get(collector.url + "/i", timeout=10)

    assert collector.requests == []


def test_exchange_inside_another_has_its_own_time(pool, collector):
    """A signal handler may send something while its thread sends, or may have interrupted it for good."""
    with exchange(0):
        assert pool.get(collector.url + "/i", timeout=10).status_code == 200


def test_connection_class_of_another_tool_is_used(pool, collector, monkeypatch):
    """Tools that record HTTP, or fake it, replace the class of urllib3's connections, whenever they are installed."""
    made = []
    original = urllib3.connectionpool.HTTPConnectionPool.ConnectionCls

    def make(**options):
        made.append(options)
        return original(**options)

    monkeypatch.setattr(urllib3.connectionpool.HTTPConnectionPool, "ConnectionCls", staticmethod(make))

    assert pool.get(collector.url + "/i", timeout=10).status_code == 200
    assert len(made) == 1


@pytest.mark.parametrize("call", [lambda emitter: emitter.close(timeout=1), lambda emitter: emitter._flush_at_exit(1)])
def test_emitter_with_a_deadline_is_done_by_then(call):
    """A collector that drips for ever keeps neither `close` nor the exit of the interpreter."""
    with DrippingCollector(HEADS["header"]) as collector:
        emitter = Emitter(collector.url, request_timeout=0.5)
        emitter.input({"eid": "1"})

        assert call(emitter) is False
