"""An HTTP/1.1 server that answers, or misbehaves, as it is told."""

import http.client
import os
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Callable, Dict, Iterator, Mapping, Optional, Tuple
from urllib.parse import parse_qsl, urlsplit

from typing_extensions import Literal

from .._shown import shown

__all__ = ["Answer", "BodyTooLargeError", "HttpServer", "IncomingRequest", "MAX_BODY_BYTES", "bind"]

# A collector refuses larger bodies with status 413.
MAX_BODY_BYTES = 2_097_152
# No client that means well comes near these. They bound what a broken one can make this process keep.
_MAX_LINE_BYTES = 262_144
_MAX_HEADERS_BYTES = 65_536

_PIECE_BYTES = 65_536
_BACKLOG = 1024
_HANDSHAKE_SECONDS = 5.0
# How long `stop` waits for clients to take their answers.
_LAST_ANSWERS_SECONDS = 1.0
_JOIN_SECONDS = 5.0
# How long a client that is turned away may pause in what it still has to send.
_LINGER_SECONDS = 5.0
# Where shutting a listening socket down does not wake `accept` (macOS, Windows), this bounds how long `stop` takes.
_ACCEPT_SECONDS = 0.25
_HOLD_POLL_SECONDS = 0.02
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUSES_WITHOUT_BODY = (204, 304)


@dataclass(frozen=True)
class Answer:
    """How to answer one request.

    The request is read first, then `delay_seconds` and `hold` are waited for, then the answer goes out. Closing the
    collector cuts the wait short, and the connection with it.

    Attributes:
        status: HTTP status code, 200 to 599. With `reset` and `raw` it is not sent; with `reset="after_body"` it still
            decides whether the payloads count as accepted.
        headers: Response headers, added to `Content-Type` and `Content-Length` or in place of them, such as
            `{"Retry-After": "2"}` or `{"Location": "/elsewhere"}`. `{"Connection": "close"}` closes the connection
            after the answer.
        body: Response body. By default what a collector sends: `ok` for a POST, an image of one pixel for a GET. It is
            left out where HTTP has none (status 204 and 304).
        delay_seconds: How long to wait before answering.
        hold: Answer only once this event is set. A test that holds an answer needs no sleep.
        reset: Reset the TCP connection instead of answering: `"before_body"` or `"after_body"` is read.
        close_connection: Close the connection after a complete answer without having announced it, as a server does
            when a kept-alive connection has been idle for too long.
        raw: Send these bytes instead of an HTTP answer (garbage, or half an answer), then close the connection. With
            `b""` it is closed without an answer.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Optional[bytes] = None
    delay_seconds: float = 0.0
    hold: Optional[threading.Event] = None
    reset: Optional[Literal["before_body", "after_body"]] = None
    close_connection: bool = False
    raw: Optional[bytes] = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            TypeError: If the status is not an integer, the headers are not a dict, or `body` or `raw` is not bytes.
            ValueError: If the status, the delay or the kind of reset is not one of those above, or HTTP has no way to
                write a header.
        """
        status: object = self.status
        if not isinstance(status, int) or isinstance(status, bool):
            raise TypeError(f"status must be an integer, got {status!r}")
        if not 200 <= self.status <= 599:
            raise ValueError(f"status must be 200 to 599, got {self.status!r}")
        if not 0 <= self.delay_seconds <= threading.TIMEOUT_MAX:
            raise ValueError(f"delay_seconds must be finite and not negative, got {self.delay_seconds!r}")
        if self.reset not in (None, "before_body", "after_body"):
            raise ValueError(f"reset must be 'before_body' or 'after_body', got {self.reset!r}")
        headers: object = self.headers
        if not isinstance(headers, Mapping):
            raise TypeError(f"headers must be a dict, got {shown(headers)}")
        for name, value in headers.items():
            _check_header(f"{name}: {value}")
        for option, content in (("body", self.body), ("raw", self.raw)):
            if not isinstance(content, (bytes, type(None))):
                raise TypeError(f"{option} must be bytes, got {shown(content)}")


def _check_header(line: str) -> None:
    try:
        line.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"headers must be in Latin-1, got {shown(line)}") from None


class BodyTooLargeError(Exception):
    """A body has more than `MAX_BODY_BYTES`. It has been read to its end, and thrown away."""


class _HeadersTooLargeError(Exception):
    """The headers of a request have more than `_MAX_HEADERS_BYTES`, or those after a body."""


class IncomingRequest:
    """A request whose head has been read, and whose body is read when it is asked for.

    Attributes:
        method: `GET`, `POST`, and so on.
        path: The path as sent (still percent-encoded), without the query.
        query: The decoded query; the last value of a repeated name.
        query_string: The query as sent.
        line_length: How many characters the request line has.
        headers: Header values by lower-cased name; those of a repeated name joined with a comma.
        connection: Serial number of the TCP connection.
        ip_address: Where the connection comes from.
        keep_alive: Whether the client means to send more requests on this connection.
    """

    def __init__(
        self,
        stream: BinaryIO,
        connection: int,
        ip_address: str,
        start_line: bytes,
        send_continue: Callable[[], None],
    ) -> None:
        """Read the head.

        Raises:
            EOFError: If the client hangs up in the middle of it.
            ValueError: If it is not HTTP, or its first line is too long.
            _HeadersTooLargeError: If there is too much of its headers.
        """
        self._stream = stream
        self._body: Optional[bytes] = None
        self._send_continue = send_continue
        self.connection = connection
        self.ip_address = ip_address
        self.line_length = len(start_line.rstrip(b"\r\n"))
        if self.line_length > _MAX_LINE_BYTES:
            raise ValueError(f"the request line has more than {_MAX_LINE_BYTES} bytes")
        self.method, target, version = start_line.decode("latin-1").split()
        if not version.startswith("HTTP/1."):
            raise ValueError(f"unsupported version {version!r}")
        # A client that takes this server for its proxy sends an absolute URL, and a path may begin with two slashes.
        if not target.startswith("/"):
            absolute = urlsplit(target)
            target = f"{absolute.path}?{absolute.query}"
        self.path, _, self.query_string = target.partition("?")
        self.query: Dict[str, str] = dict(parse_qsl(self.query_string, keep_blank_values=True))
        self.headers = self._read_headers()
        self.keep_alive = version != "HTTP/1.0" and self.headers.get("connection", "").lower() != "close"

    def body(self) -> bytes:
        """Read the body, at the first call.

        Raises:
            BodyTooLargeError: At the first call, if there is too much of it; later calls give an empty body.
            EOFError: If the client hangs up in the middle of it.
            ValueError: If its length is not given the way HTTP does.
            _HeadersTooLargeError: If there is too much of the headers that follow it.
        """
        if self._body is None:
            if self.headers.get("expect", "").lower() == "100-continue":
                self._send_continue()
            self._body, size = self._read_body()
            if size > MAX_BODY_BYTES:
                raise BodyTooLargeError
        return self._body

    def _read_body(self) -> Tuple[bytes, int]:
        """Read to the end, or else the client would not see the answer; keep no more than is allowed."""
        kept = bytearray()
        size = 0
        for piece in self._pieces():
            size += len(piece)
            if size > MAX_BODY_BYTES:
                kept.clear()
            else:
                kept += piece
        return bytes(kept), size

    def _pieces(self) -> Iterator[bytes]:
        if self.headers.get("transfer-encoding", "identity").lower() == "identity":
            yield from self._read(int(self.headers.get("content-length", "0")))
            return
        while True:
            size = int(self._read_line().partition(b";")[0], 16)
            if size == 0:
                break
            yield from self._read(size)
            self._read_line()
        self._read_headers()

    def _read_headers(self) -> Dict[str, str]:
        headers: Dict[str, str] = {}
        for line in self._header_lines():
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon:
                raise ValueError(f"not a header: {line!r}")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers

    def _header_lines(self) -> Iterator[bytes]:
        left = _MAX_HEADERS_BYTES
        while True:
            line = self._stream.readline(left + 1)
            left -= len(line)
            if left < 0:
                raise _HeadersTooLargeError
            if not line.endswith(b"\n"):
                raise EOFError
            text = line.rstrip(b"\r\n")
            if not text:
                return
            yield text

    def _read(self, size: int) -> Iterator[bytes]:
        if size < 0:
            raise ValueError(f"negative length {size}")
        while size:
            piece = self._stream.read(min(size, _PIECE_BYTES))
            if not piece:
                raise EOFError
            size -= len(piece)
            yield piece

    def _read_line(self) -> bytes:
        line = self._stream.readline(_MAX_LINE_BYTES)
        if line.endswith(b"\n"):
            return line
        if len(line) == _MAX_LINE_BYTES:
            raise ValueError("a line between two chunks is too long")
        raise EOFError


class HttpServer:
    """Serves one listening socket, with one thread to accept connections and one per connection, all of them daemons.

    `_lock` guards `_connections`, and that none is added once `_stopping` is set. Nobody waits for anything with it.
    """

    def __init__(
        self,
        listener: socket.socket,
        respond: Callable[[IncomingRequest], Answer],
        connected: Callable[[], int],
        tls_context: Optional[ssl.SSLContext] = None,
    ) -> None:
        """Start to serve.

        Args:
            listener: A bound socket, which the server listens on and closes.
            respond: Called with each request, by many threads.
            connected: Called with each connection, for its serial number.
            tls_context: What to speak HTTPS with; HTTP if None.
        """
        self._listener = listener
        self._respond = respond
        self._connected = connected
        self._tls_context = tls_context
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._connections: Dict[socket.socket, threading.Thread] = {}
        listener.settimeout(_ACCEPT_SECONDS)
        listener.listen(_BACKLOG)
        self._acceptor = threading.Thread(target=self._accept, name="local-collector", daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Stop listening, read no more, and wait until the threads have ended.

        What has been read to its end is still answered, unless it is to wait for its answer. Connections of clients
        that do not take their answers are cut.

        In a forked child it only lets go of the child's copies of the sockets.
        """
        if os.getpid() != self._process:
            for sock in [self._listener, *self._connections]:
                sock.close()
            return
        with self._lock:
            self._stopping.set()
            connections = dict(self._connections)
        _shut_down(self._listener)
        threads = [self._acceptor, *connections.values()]
        for how, seconds in ((socket.SHUT_RD, _LAST_ANSWERS_SECONDS), (socket.SHUT_RDWR, _JOIN_SECONDS)):
            for sock in connections:
                _shut_down(sock, how)
            deadline = time.monotonic() + seconds
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                # Usually the timeout. The pause is for a process that is out of file descriptors.
                self._stopping.wait(0.01)
                continue
            self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        serial = self._connected()
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls_context is not None:
                # If the client is gone already, wrapping fails as well, but leaves a socket open that nobody can close.
                sock.getpeername()
                sock = self._tls_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            sock.close()
            return
        thread = threading.Thread(
            target=self._serve,
            args=(sock, serial),
            name=f"local-collector-connection-{serial}",
            daemon=True,
        )
        with self._lock:
            if self._stopping.is_set():
                sock.close()
                return
            # Threads leave their entry behind when they end, so that `stop` misses none that is about to.
            self._connections = {other: served for other, served in self._connections.items() if served.is_alive()}
            with suppress(RuntimeError):
                thread.start()
                self._connections[sock] = thread
                return
            self._connections[sock] = self._acceptor
        # An interpreter that shuts down starts no threads any more, but emitters may have payloads left to send.
        self._serve(sock, serial, may_keep_alive=False)
        with self._lock:
            del self._connections[sock]

    def _serve(self, sock: socket.socket, serial: int, may_keep_alive: bool = True) -> None:
        try:
            with suppress(OSError, EOFError), sock.makefile("rb") as stream:
                if isinstance(sock, ssl.SSLSocket):
                    sock.settimeout(_HANDSHAKE_SECONDS)
                    sock.do_handshake()
                sock.settimeout(None)
                ip_address = sock.getpeername()[0]
                while self._serve_request(sock, stream, serial, ip_address, may_keep_alive):
                    if self._stopping.is_set():
                        break
        finally:
            # Whatever went wrong, the client must not wait for an answer that never comes.
            _shut_down(sock)
            sock.close()

    def _serve_request(
        self, sock: socket.socket, stream: BinaryIO, serial: int, ip_address: str, may_keep_alive: bool
    ) -> bool:
        """Serve one request.

        Returns:
            Whether another may follow on the same connection.
        """
        # With room for the line's end, so that what is cut off is too long in any case.
        start_line = stream.readline(_MAX_LINE_BYTES + 2)
        if not start_line:
            return False
        try:
            request = IncomingRequest(stream, serial, ip_address, start_line, lambda: sock.sendall(_CONTINUE))
            request.keep_alive = request.keep_alive and may_keep_alive
            answer = self._respond(request)
            if answer.reset != "before_body":
                with suppress(BodyTooLargeError):
                    request.body()
        except _HeadersTooLargeError:
            return _turn_away(sock, 431)
        except ValueError:
            return _turn_away(sock, 400)
        return self._wait(answer) and _send(sock, request, answer)

    def _wait(self, answer: Answer) -> bool:
        """Wait until the answer is due; False if the server stops before."""
        if answer.delay_seconds and self._stopping.wait(answer.delay_seconds):
            return False
        while answer.hold is not None and not answer.hold.wait(_HOLD_POLL_SECONDS):
            if self._stopping.is_set():
                return False
        return True


def bind(host: str, port: int) -> socket.socket:
    """Reserve a port; connections to it are refused as long as nobody listens.

    Args:
        host: An address of this machine, or a name for one.
        port: The port, 0 for any free one.

    Raises:
        OSError: If the port is taken, or this machine has no such address.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Elsewhere than on POSIX systems this option would let two servers share one port.
        if os.name == "posix":  # pragma: no branch (coverage is measured on one of them)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _turn_away(sock: socket.socket, status: int) -> bool:
    """Answer a request that was not read to its end, and end the connection.

    What the client still sends is taken and thrown away, or else it would not see the answer.
    """
    sock.sendall(_encode(Answer(status), keep_alive=False))
    sock.shutdown(socket.SHUT_WR)
    sock.settimeout(_LINGER_SECONDS)
    while sock.recv(_PIECE_BYTES):
        pass
    return False


def _send(sock: socket.socket, request: IncomingRequest, answer: Answer) -> bool:
    if answer.reset is not None:
        # With this option a socket says RST instead of FIN, if it is closed without having been shut down.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
        sock.close()
        return False
    if answer.raw is not None:
        sock.sendall(answer.raw)
        return False
    announced = any(name.lower() == "connection" and value.lower() == "close" for name, value in answer.headers.items())
    keep_alive = request.keep_alive and not announced
    sock.sendall(_encode(answer, keep_alive))
    return keep_alive and not answer.close_connection


def _encode(answer: Answer, keep_alive: bool) -> bytes:
    body = b"" if answer.body is None or answer.status in _STATUSES_WITHOUT_BODY else answer.body
    lines = [f"HTTP/1.1 {answer.status} {http.client.responses.get(answer.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    names = {name.lower() for name in answer.headers}
    if answer.status not in _STATUSES_WITHOUT_BODY and "content-length" not in names:
        lines.append(f"Content-Length: {len(body)}")
    if not keep_alive and "connection" not in names:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _shut_down(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    # The method of the base class: that of `SSLSocket` would pull the TLS state away under the thread that reads.
    # Unlike closing, this reaches the peer even if a forked child holds a copy of the socket.
    with suppress(OSError):
        socket.socket.shutdown(sock, how)
