"""A collector that records what it gets, judges it as a pipeline does, and answers as a test wants it to.

Its TLS certificate and key are published with this package: they prove nothing to anybody, and are for tests only.
`tests/make_collector_certificates.py` makes new ones.
"""

import ipaddress
import json
import socket
import ssl
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Deque, List, Optional, Tuple, Type, TypeVar, Union
from urllib.parse import urlsplit

from typing_extensions import Literal

from .._settings import optional, positive_int, wait_seconds
from .._shown import shown
from ..typing import PayloadDict, PayloadDictList
from ._assertions import EventAssertions
from ._collected import BadEvent, CollectedRequest, GoodEvent, PathArgument
from ._event_log import EventLog
from ._http_server import MAX_BODY_BYTES, Answer, BodyTooLargeError, HttpServer, IncomingRequest, bind
from ._micro import MicroApi, Routes, text_answer
from ._micro_ui import MicroPage
from ._pipeline import Pipeline
from ._recent import Recent, held_bytes, request_bytes

__all__ = ["LocalCollector"]

_CERTIFICATES = Path(__file__).resolve().parent / "certificates"
_PIXEL = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00"
    b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01D\x00;"
)
# A collector refuses a longer request line with status 400.
_MAX_LINE_CHARACTERS = 20_480
# What a browser asks for before it sends JSON to another site than the page's own, and how long it remembers.
_PREFLIGHT_HEADERS = {"Access-Control-Allow-Headers": "Content-Type, SP-Anonymous", "Access-Control-Max-Age": "3600"}
# A server that listens on all addresses is reached on the loopback interface.
_REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "::1"}
# How much of the memory is for requests, and how much for payloads, if their number is limited at all.
_MAX_KEPT_BYTES = 64_000_000
_LISTED_ON_FAILURE = 20
_T = TypeVar("_T")


class LocalCollector(EventAssertions):
    """A Snowplow collector for tests: a real HTTP or HTTPS server, in threads of this process.

    In a `with` statement::

        with LocalCollector() as collector:
            collector.respond_with(503)
            tracker = Snowplow.create_tracker(namespace="test", endpoint=collector.url)
            ...
            collector.assert_event(event_type="page_view")
            collector.assert_no_bad()

    It takes tracker requests at `GET /i` and `POST /com.snowplowanalytics.snowplow/tp2`, with or without a path prefix
    in front, and answers them with status 200 unless told otherwise. Like other collectors, it refuses a body of more
    than 2,097,152 bytes (413) and a request line of more than 20,480 characters (400) whatever has been prepared; such
    a request is recorded without body and payloads. Any other path gets 404 and any method but GET, POST and OPTIONS
    405; these requests are recorded, and use up no answer that was prepared for a tracker request.
    What no client needs is turned away unread: a request line of more than 262,144 bytes (400), and headers of more
    than 65,536 (431).

    Browsers may send events from pages of any site (CORS). `OPTIONS`, which they ask first, and `GET /health` get 200
    at all times and are not recorded. Nor are requests at `/micro/all`, `/micro/good`, `/micro/bad` and `/micro/reset`,
    the REST API of Snowplow Micro, and at `/micro/ui`, a page that shows the events as they arrive.

    What it recorded stays readable after it is closed, and a closed collector can be started again, at the same port.

    Any thread may call anything at any time, but only one at a time `start`, `close`, `refuse_connections` and
    `accept_connections`. The collector belongs to the process that started it: all that a forked child should do with
    it is to close it, which leaves the parent's alone.
    """

    def __init__(
        self,
        *,
        tls: bool = False,
        port: int = 0,
        host: str = "127.0.0.1",
        schemas: Optional[PathArgument] = None,
        unknown_schemas: Literal["reject", "accept"] = "reject",
        max_events: Optional[int] = None,
    ) -> None:
        """Describe a collector; `start`, or a `with` statement, starts it.

        Args:
            tls: Speak HTTPS instead of HTTP. Clients have to trust `certificate_file`.
            port: The port to listen on, 0 to 65535; 0, the default, stands for any free one.
            host: The address to listen on, or a name for it. By default only this machine can reach the collector;
                `0.0.0.0` lets all others do so, and read the events.
            schemas: A folder of schemas in the layout of an Iglu registry (`vendor/name/jsonschema/1-0-0`). With it,
                the data of self-describing events and of entities is validated; it needs the extra `validation`.
            unknown_schemas: Whether data of a schema that is not in the folder makes an event bad (`"reject"`).
            max_events: How many events are kept, and how many requests and payloads, as long as the events do not take
                more than about 128 MB, and the others 64 MB each; the oldest go first. None, the default, stands for
                all.

        Raises:
            ImportError: If there are schemas, and the extra `validation` is not installed.
            TypeError: If the port or the number of events is no integer, or the host no string.
            ValueError: If there is no such port, folder or choice, the host is empty, or the number not positive.
        """
        self._tls = tls
        self._port = _checked_port(port)
        self._host = _checked_host(host)
        self._max_events = optional(positive_int)("max_events", max_events)
        self._events = EventLog(Pipeline(schemas, unknown_schemas), self._max_events)
        self._micro = MicroApi(self._events, self._forget_events)
        self._page = MicroPage(self._events)
        self._tls_context: Optional[ssl.SSLContext] = None
        self._listener: Optional[socket.socket] = None
        self._server: Optional[HttpServer] = None
        # Guards all that follows; it is not held while anything is sent or read.
        self._arrival = threading.Condition()
        self._requests: Recent[CollectedRequest] = Recent(self._max_events, _MAX_KEPT_BYTES)
        self._payloads: Recent[PayloadDict] = Recent(self._max_events, _MAX_KEPT_BYTES)
        self._request_count = 0
        self._payload_count = 0
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
            self._listener = bind(self._host, self._port)
            self._port = self._listener.getsockname()[1]
            self.accept_connections()
        return self

    def close(self) -> None:
        """Stop listening, cut all connections, delayed and held answers too, and end all threads.

        Other answers to requests that are recorded still go out, so that their clients do not send them again. Does
        nothing if the collector is not started.
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
            self._listener = bind(self._host, self._port)

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
        """The address it listens on, as it was given."""
        return self._host

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
        """The URL to give to an emitter on this machine as its endpoint, with its scheme and port.

        Raises:
            RuntimeError: As for `port`.
        """
        host = _REACHED_AT.get(self._host, self._host)
        return f"{'https' if self._tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"

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
    def good(self) -> List[GoodEvent]:
        """A new list of the accepted payloads that a pipeline would take, oldest first.

        They are judged when somebody asks for the first time.
        """
        return self._events.good()

    @property
    def bad(self) -> List[BadEvent]:
        """A new list of the accepted payloads that a pipeline would throw away, oldest first.

        An accepted request without payloads that can be read is in it as well, as one bad event.
        """
        return self._events.bad()

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
            TypeError: If the timeout is no number.
            ValueError: If the timeout is negative or NaN.
        """
        return self._wait_for(count, timeout, "requests", self._requests, lambda: self._request_count, _summary)

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
            TypeError: If the timeout is no number.
            ValueError: If the timeout is negative or NaN.
        """
        return self._wait_for(count, timeout, "payloads", self._payloads, lambda: self._payload_count, repr)

    def reset(self) -> None:
        """Forget requests, payloads, events, prepared answers and the standing answer.

        The count of connections stays.
        """
        with self._arrival:
            self._forget_events()
            self._queued_answers.clear()
            self._standing_answer = Answer()

    def _forget_events(self) -> None:
        with self._arrival:
            self._requests.clear()
            self._payloads.clear()
            self._request_count = self._payload_count = 0
            self._events.reset()

    def _wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until something is true of the events; the condition is called without a lock."""
        return self._events.wait_until(condition, timeout)

    def _counts(self) -> Tuple[int, int]:
        return self._events.counts()

    def _wait_for(
        self,
        count: int,
        timeout: float,
        what: str,
        arrived: Recent[_T],
        count_arrived: Callable[[], int],
        describe: Callable[[_T], str],
    ) -> List[_T]:
        seconds = wait_seconds("timeout", timeout)
        with self._arrival:
            is_enough = self._arrival.wait_for(lambda: count_arrived() >= count, seconds)
            so_far, snapshot, requests = count_arrived(), list(arrived), list(self._requests)
        if is_enough:
            return snapshot
        lines = [f"{count} {what} expected within {seconds:g} s, {so_far} arrived"]
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
        matching = {key: handle for key, handle in self._routes().items() if request.path.endswith(key[1])}
        handlers = {method: handle for (method, _), handle in matching.items()}
        shows_events = any(path.startswith("/micro/") for _, path in matching)
        if shows_events and not self._may_see_events(request):
            return text_answer(403, "only pages and programs of this machine may see or forget the events")
        try:
            answer = handlers.get(request.method, self._respond_to_unknown)(request)
        except BodyTooLargeError:
            answer = self._refuse(request, 413, f"a body may have {MAX_BODY_BYTES} bytes")
        return _with_cors(answer, request) if handlers else answer

    def _may_see_events(self, request: IncomingRequest) -> bool:
        """Keep pages of other sites from reading events, be it by the name of their own that leads to this machine.

        And from having them forgotten, which takes no more than an image or a link.
        """
        origin, host = request.headers.get("origin"), request.headers.get("host")
        if origin is None and request.path.endswith("/micro/reset"):
            origin = _referring_page(request)
        if origin is not None and not _is_loopback(urlsplit(origin).hostname):
            return False
        return host is None or not _is_loopback(self._host) or _is_loopback(urlsplit(f"//{host}").hostname)

    def _routes(self) -> Routes:
        """Tell who answers what."""
        routes: Routes = {
            ("POST", "/com.snowplowanalytics.snowplow/tp2"): self._respond_to_post,
            ("GET", "/i"): self._respond_to_get,
            ("GET", "/health"): self._respond_to_health,
            **self._micro.routes(),
            **self._page.routes(),
        }
        return {**routes, **{("OPTIONS", path): self._respond_to_options for _, path in routes}}

    def _respond_to_post(self, request: IncomingRequest) -> Answer:
        answer = self._refusal(request) or self._collect(request, _payloads_of_body(request.body()))
        return _with_default_body(answer, "text/plain", b"ok")

    def _respond_to_get(self, request: IncomingRequest) -> Answer:
        payloads = [dict(request.query)] if request.query else []
        answer = self._refusal(request) or self._collect(request, payloads)
        return _with_default_body(answer, "image/gif", _PIXEL)

    def _respond_to_options(self, _: IncomingRequest) -> Answer:
        return Answer(headers=_PREFLIGHT_HEADERS, body=b"")

    def _respond_to_health(self, _: IncomingRequest) -> Answer:
        return _with_default_body(Answer(), "text/plain", b"ok")

    def _respond_to_unknown(self, request: IncomingRequest) -> Answer:
        answer = self._no_such_path() if request.method in ("GET", "POST") else Answer(405, body=b"")
        body = request.body()
        with self._arrival:
            self._record(request, body, [], answer)
        return answer

    def _no_such_path(self) -> Answer:
        paths = sorted({path for _, path in self._routes()})
        return text_answer(404, f"there is nothing here, but at {', '.join(paths)}")

    def _refusal(self, request: IncomingRequest) -> Optional[Answer]:
        """Refuse a request whose line is too long, or take the next answer if it says not to read the body."""
        if request.line_length > _MAX_LINE_CHARACTERS:
            return self._refuse(request, 400, f"a request line may have {_MAX_LINE_CHARACTERS} characters")
        with self._arrival:
            if self._next_answer().reset != "before_body":
                return None
            answer = self._take_answer()
            self._record(request, b"", [], answer)
            return answer

    def _refuse(self, request: IncomingRequest, status: int, reason: str) -> Answer:
        answer = text_answer(status, reason)
        with self._arrival:
            self._record(request, b"", [], answer)
        return answer

    def _collect(self, request: IncomingRequest, payloads: PayloadDictList) -> Answer:
        body = request.body()
        with self._arrival:
            answer = self._take_answer()
            # Another thread may have put this one at the head of the queue while this thread read the body.
            if answer.reset == "before_body":
                body, payloads = b"", []
            collected = self._record(request, body, payloads, answer)
            is_accepted = _is_accepted(answer)
            if is_accepted:
                for payload in payloads:
                    self._payloads.add(payload, self._measured(payload, held_bytes))
                self._payload_count += len(payloads)
                # A pipeline does not know of connections that are reset afterwards.
                self._events.add(collected if collected.status else replace(collected, status=answer.status))
        if is_accepted:
            self._events.limit_backlog()
            self._accepted(collected)
        return answer

    def _accepted(self, request: CollectedRequest) -> None:
        """Hear of a request that was accepted, before it is answered, in the thread of its connection.

        Subclasses may do something about it here, with no lock held.
        """

    def _next_answer(self) -> Answer:
        return self._queued_answers[0] if self._queued_answers else self._standing_answer

    def _take_answer(self) -> Answer:
        return self._queued_answers.popleft() if self._queued_answers else self._standing_answer

    def _record(
        self, request: IncomingRequest, body: bytes, payloads: PayloadDictList, answer: Answer
    ) -> CollectedRequest:
        collected = CollectedRequest(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            body=body,
            payloads=payloads,
            status=0 if answer.reset is not None or answer.raw is not None else answer.status,
            connection=request.connection,
            received_at=time.monotonic(),
            timestamp=time.time(),
            ip_address=request.ip_address,
        )
        self._requests.add(collected, self._measured(collected, request_bytes))
        self._request_count += 1
        self._arrival.notify_all()
        return collected

    def _measured(self, value: _T, measure: Callable[[_T], int]) -> int:
        """Tell what a value takes of the memory, if that matters."""
        return 0 if self._max_events is None else measure(value)


def _checked_port(port: Any) -> int:
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be an integer, got {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be between 0 and 65535, got {port!r}")
    return port


def _checked_host(host: Any) -> str:
    if not isinstance(host, str):
        raise TypeError(f"host must be a string, got {shown(host)}")
    if not host:
        raise ValueError("host must not be empty")
    return host


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


def _is_accepted(answer: Answer) -> bool:
    """Tell whether the payloads count as accepted; never for a request whose body is not read."""
    return answer.reset != "before_body" and answer.raw is None and 200 <= answer.status <= 299


def _is_loopback(name: Optional[str]) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False


def _referring_page(request: IncomingRequest) -> Optional[str]:
    """Tell which page has an image or a link that leads here, for which browsers give no origin.

    Returns:
        Its URL; "null" if it is of another site and hides itself; None if there is none.
    """
    is_of_other_site = request.headers.get("sec-fetch-site") == "cross-site"
    return request.headers.get("referer", "null" if is_of_other_site else None)


def _with_cors(answer: Answer, request: IncomingRequest) -> Answer:
    """Allow the page that a browser says it asks for to read the answer, as collectors do."""
    origin = request.headers.get("origin")
    if origin is None:
        return answer
    allowed = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}
    given = {name.lower() for name in answer.headers}
    added = {name: value for name, value in allowed.items() if name.lower() not in given}
    return replace(answer, headers={**answer.headers, **added})


def _payloads_of_body(body: bytes) -> PayloadDictList:
    try:
        # Bytes may be of other encodings for Python, but not for a pipeline.
        envelope: Any = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return []
    payloads = envelope.get("data") if isinstance(envelope, dict) else None
    if not isinstance(payloads, list) or not all(isinstance(payload, dict) for payload in payloads):
        return []
    return payloads


def _summary(request: CollectedRequest) -> str:
    return f"{request.method} {request.path} -> {request.status}, {len(request.payloads)} payloads"
