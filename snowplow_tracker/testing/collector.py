"""A collector on the loopback interface that records what it gets and answers as a test wants it to.

Its TLS certificate and key are published with this package: they prove nothing to anybody, and are for tests only.
`tests/make_collector_certificates.py` makes new ones.
"""

import json
import socket
import ssl
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple, Type, TypeVar, Union

from ..typing import PayloadDictList
from ._collected import CollectedRequest
from ._http_server import HOST, Answer, HttpServer, IncomingRequest, bind

__all__ = ["LocalCollector"]

_CERTIFICATES = Path(__file__).resolve().parent / "certificates"
_PIXEL = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00"
    b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01D\x00;"
)
_LISTED_ON_FAILURE = 20
_T = TypeVar("_T")


class LocalCollector:
    """A Snowplow collector for tests: a real HTTP or HTTPS server on 127.0.0.1, in threads of this process.

        with LocalCollector() as collector:
            collector.respond_with(503)
            tracker = Snowplow.create_tracker(namespace="test", endpoint=collector.url)
            ...
            assert collector.payloads[0]["e"] == "pv"

    It takes tracker requests at `GET /i` and `POST /com.snowplowanalytics.snowplow/tp2`, with or without a path prefix
    in front, and answers them with status 200 unless told otherwise. `GET /health` gets 200 at all times and is not
    recorded. Any other path gets 404 and any method but GET and POST 405; they are recorded, and use up no answer that
    was prepared for a tracker request.

    What it recorded stays readable after it is closed, and a closed collector can be started again, at the same port.

    Any thread may call anything at any time, but only one at a time `start`, `close`, `refuse_connections` and
    `accept_connections`. The collector belongs to the process that started it: all that a forked child should do with
    it is to close it, which leaves the parent's alone.
    """

    def __init__(self, *, tls: bool = False, port: int = 0) -> None:
        """Describe a collector; `start`, or a `with` statement, starts it.

        Args:
            tls: Speak HTTPS instead of HTTP. Clients have to trust `certificate_file`.
            port: The port to listen on, 0 to 65535; 0, the default, stands for any free one.

        Raises:
            TypeError: If the port is no integer.
            ValueError: If there is no such port.
        """
        self._tls = tls
        self._port = _checked_port(port)
        self._tls_context: Optional[ssl.SSLContext] = None
        self._listener: Optional[socket.socket] = None
        self._server: Optional[HttpServer] = None
        # Guards all that follows; it is not held while anything is sent or read.
        self._arrival = threading.Condition()
        self._requests: List[CollectedRequest] = []
        self._payloads: PayloadDictList = []
        self._connection_count = 0
        self._queued_answers: Deque[Answer] = deque()
        self._standing_answer = Answer()

    def __enter__(self) -> "LocalCollector":
        """Start the collector."""
        return self.start()

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Close the collector."""
        self.close()

    def start(self) -> "LocalCollector":
        """Listen, and answer from now on; does nothing if the collector is started.

        Returns:
            The collector itself.

        Raises:
            OSError: If the port is taken.
        """
        if self._server is None and self._listener is None:
            if self._tls:
                self._tls_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._tls_context.load_cert_chain(str(_CERTIFICATES / "server.pem"))
            self._listener = bind(self._port)
            self._port = self._listener.getsockname()[1]
            self.accept_connections()
        return self

    def close(self) -> None:
        """Stop listening, cut all connections, delayed and held answers too, and end all threads.

        Does nothing if the collector is not started.
        """
        server, self._server = self._server, None
        listener, self._listener = self._listener, None
        if server is not None:
            server.stop()
        if listener is not None:
            listener.close()

    def refuse_connections(self) -> None:
        """Begin an outage: new connections are refused, and those that are open are cut, with what they wait for.

        The port stays reserved. Does nothing if the collector is not started, or refuses already.
        """
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            self._listener = bind(self._port)

    def accept_connections(self) -> None:
        """End an outage that `refuse_connections` began; does nothing without one.

        Raises:
            OSError: If another server listens on the port by now.
        """
        if self._listener is not None:
            self._server = HttpServer(self._listener, self._respond, self._count_connection, self._tls_context)
            self._listener = None

    @property
    def host(self) -> str:
        """The address it listens on, always 127.0.0.1."""
        return HOST

    @property
    def port(self) -> int:
        """The port it listens on, the same through outages and restarts.

        Raises:
            RuntimeError: If it is to be any free one, and the collector has not been started yet.
        """
        if self._port == 0:
            raise RuntimeError("LocalCollector has no port before it is started: call start() or use a with statement")
        return self._port

    @property
    def url(self) -> str:
        """The URL to give to an emitter as its endpoint, such as `http://127.0.0.1:49152`.

        Raises:
            RuntimeError: As for `port`.
        """
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    @property
    def certificate_file(self) -> str:
        """Path of a PEM file with the authority that signed the TLS certificate.

        It is what `REQUESTS_CA_BUNDLE`, or `verify` of a `requests.Session`, is to be set to. The certificate is good
        for `localhost` as well.
        """
        return str(_CERTIFICATES / "authority.pem")

    @property
    def requests(self) -> List[CollectedRequest]:
        """A new list of the requests that arrived, in the order in which it was decided how to answer them.

        A request is in it before its answer goes out, and whatever becomes of it then.
        """
        with self._arrival:
            return list(self._requests)

    @property
    def payloads(self) -> PayloadDictList:
        """A new list of the payloads that were accepted, in order of arrival.

        These are the payloads of requests with a status of 2xx, answered or about to be. A connection that is reset
        after the body makes no difference: the collector took what its client cannot know about. One that is reset
        before the body, or gets raw bytes, brought no payloads.
        """
        with self._arrival:
            return list(self._payloads)

    @property
    def connections(self) -> int:
        """The number of TCP connections that were accepted so far."""
        with self._arrival:
            return self._connection_count

    def respond_with(self, *answers: Union[int, Answer]) -> None:
        """Prepare answers to the next tracker requests, one each, in turn, after those that were prepared earlier.

        Args:
            answers: `Answer` objects or bare status codes.
        """
        prepared = [_as_answer(answer) for answer in answers]
        with self._arrival:
            self._queued_answers.extend(prepared)

    def respond_always(self, answer: Union[int, Answer]) -> None:
        """Set the answer to all tracker requests for which none was prepared by `respond_with`; at first it is 200.

        Args:
            answer: An `Answer` or a bare status code.
        """
        prepared = _as_answer(answer)
        with self._arrival:
            self._standing_answer = prepared

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> List[CollectedRequest]:
        """Wait until at least this many requests have arrived since the start or the last `reset`.

        A request has arrived when it was received, before any delay of its answer.

        Args:
            count: The number of requests, those at unknown paths included.
            timeout: How long to wait, in seconds.

        Returns:
            All that arrived, as in `requests`.

        Raises:
            AssertionError: If there are fewer when the time is up. The message lists them.
        """
        return self._wait_for(count, timeout, "requests", self._requests, _summary)

    def wait_for_payloads(self, count: int, timeout: float = 10.0) -> PayloadDictList:
        """Wait until at least this many payloads have been accepted since the start or the last `reset`.

        Args:
            count: The number of payloads.
            timeout: How long to wait, in seconds.

        Returns:
            All that were accepted, as in `payloads`.

        Raises:
            AssertionError: If there are fewer when the time is up. The message lists them, and the requests that came,
                with the statuses they got.
        """
        return self._wait_for(count, timeout, "payloads", self._payloads, repr)

    def reset(self) -> None:
        """Forget requests, payloads, prepared answers and the standing answer; the count of connections stays."""
        with self._arrival:
            self._requests.clear()
            self._payloads.clear()
            self._queued_answers.clear()
            self._standing_answer = Answer()

    def _wait_for(
        self, count: int, timeout: float, what: str, arrived: List[_T], describe: Callable[[_T], str]
    ) -> List[_T]:
        with self._arrival:
            self._arrival.wait_for(lambda: len(arrived) >= count, timeout)
            snapshot, requests = list(arrived), list(self._requests)
        if len(snapshot) >= count:
            return snapshot
        lines = [f"{count} {what} expected within {timeout} s, {len(snapshot)} arrived"]
        lines += _listed(snapshot, describe)
        if what != "requests" and requests:
            lines.append(f"there were {len(requests)} requests:")
            lines += _listed(requests, _summary)
        raise AssertionError("\n  ".join(lines))

    def _count_connection(self) -> int:
        with self._arrival:
            self._connection_count += 1
            return self._connection_count

    def _respond(self, request: IncomingRequest) -> Answer:
        for (method, path), handle in self._routes().items():
            if request.method == method and request.path.endswith(path):
                return handle(request)
        return self._respond_to_unknown(request)

    def _routes(self) -> Dict[Tuple[str, str], Callable[[IncomingRequest], Answer]]:
        """Tell who answers what: by method, and by what the path ends with."""
        return {
            ("POST", "/com.snowplowanalytics.snowplow/tp2"): self._respond_to_post,
            ("GET", "/i"): self._respond_to_get,
            ("GET", "/health"): self._respond_to_health,
        }

    def _respond_to_post(self, request: IncomingRequest) -> Answer:
        answer = self._refuse_body(request) or self._collect(request, _payloads_of_body(request.body()))
        return _with_default_body(answer, "text/plain", b"ok")

    def _respond_to_get(self, request: IncomingRequest) -> Answer:
        payloads = [dict(request.query)] if request.query else []
        answer = self._refuse_body(request) or self._collect(request, payloads)
        return _with_default_body(answer, "image/gif", _PIXEL)

    def _respond_to_health(self, _: IncomingRequest) -> Answer:
        return _with_default_body(Answer(), "text/plain", b"ok")

    def _respond_to_unknown(self, request: IncomingRequest) -> Answer:
        answer = Answer(404 if request.method in ("GET", "POST") else 405, body=b"")
        body = request.body()
        with self._arrival:
            self._record(request, body, [], answer)
        return answer

    def _refuse_body(self, request: IncomingRequest) -> Optional[Answer]:
        """Take the next answer if it says not to read the body."""
        with self._arrival:
            if self._next_answer().reset != "before_body":
                return None
            answer = self._take_answer()
            self._record(request, b"", [], answer)
            return answer

    def _collect(self, request: IncomingRequest, payloads: PayloadDictList) -> Answer:
        body = request.body()
        with self._arrival:
            answer = self._take_answer()
            # Another thread may have put this one at the head of the queue while this thread read the body.
            if answer.reset == "before_body":
                body, payloads = b"", []
            self._record(request, body, payloads, answer)
            return answer

    def _next_answer(self) -> Answer:
        return self._queued_answers[0] if self._queued_answers else self._standing_answer

    def _take_answer(self) -> Answer:
        return self._queued_answers.popleft() if self._queued_answers else self._standing_answer

    def _record(self, request: IncomingRequest, body: bytes, payloads: PayloadDictList, answer: Answer) -> None:
        status = 0 if answer.reset is not None or answer.raw is not None else answer.status
        self._requests.append(
            CollectedRequest(
                method=request.method,
                path=request.path,
                query=request.query,
                headers=request.headers,
                body=body,
                payloads=payloads,
                status=status,
                connection=request.connection,
                received_at=time.monotonic(),
                timestamp=time.time(),
            )
        )
        if answer.raw is None and 200 <= answer.status <= 299:
            self._payloads.extend(payloads)
        self._arrival.notify_all()


def _checked_port(port: Any) -> int:
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be an integer, got {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be between 0 and 65535, got {port!r}")
    return port


def _listed(arrived: List[_T], describe: Callable[[_T], str]) -> List[str]:
    lines = [describe(one) for one in arrived[:_LISTED_ON_FAILURE]]
    if len(arrived) > _LISTED_ON_FAILURE:
        lines.append(f"and {len(arrived) - _LISTED_ON_FAILURE} more")
    return lines


def _as_answer(answer: Union[int, Answer]) -> Answer:
    return answer if isinstance(answer, Answer) else Answer(answer)


def _with_default_body(answer: Answer, content_type: str, body: bytes) -> Answer:
    if answer.body is not None:
        return answer
    headers = dict(answer.headers)
    if "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = content_type
    return replace(answer, headers=headers, body=body)


def _payloads_of_body(body: bytes) -> PayloadDictList:
    try:
        envelope: Any = json.loads(body)
    except (ValueError, RecursionError):
        return []
    payloads = envelope.get("data") if isinstance(envelope, dict) else None
    if not isinstance(payloads, list) or not all(isinstance(payload, dict) for payload in payloads):
        return []
    return payloads


def _summary(request: CollectedRequest) -> str:
    return f"{request.method} {request.path} -> {request.status}, {len(request.payloads)} payloads"
