"""A collector that misbehaves at random, and remembers what it took and whether its client can know."""

import random
import socket
import threading
from collections import defaultdict
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple
from urllib.parse import urlencode

from snowplow_tracker.testing import Answer, LocalCollector
from snowplow_tracker.testing._http_server import HttpServer

ACCEPTED = (200, 201, 202, 299)
REJECTED = (400, 401, 403, 410, 422)
TO_RETRY = (300, 404, 408, 418, 429, 451, 500, 502, 503, 504, 599, 600, 999)
REDIRECTS = (301, 302, 303, 307, 308)
RETRY_AFTER = (
    b"",
    b"Retry-After: 0\r\n",
    b"Retry-After: 86400\r\n",
    b"Retry-After: soon\r\n",
    b"Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n",
)
KINDS = 4 * (ACCEPTED,) + 3 * (TO_RETRY,) + 3 * (REDIRECTS,) + (REJECTED,)
LOCATIONS = (
    "{path}{query}",
    "/moved{path}{query}",
    "{path}",
    "/i",
    "/nowhere",
    "http://127.0.0.1:9/{query}",
    "{other_scheme}://127.0.0.1:{port}{path}{query}",
    "http://[",
    "gopher://127.0.0.1/",
)
# One in so many is reset before its body was read.
RESETS = (True,) + 19 * (False,)
COOKIE = b"Set-Cookie: sp=the-same-for-all; Path=/\r\n"

# Marks in the bytes of an answer: wait for a moment here; keep the connection after all of it.
PAUSE = b"<pause>"
KEEP = b"<keep>"
PAUSE_SECONDS = 0.01
# Longer than the timeout of a request in the tests, and as many pauses as make a whole request take too long.
STALL = 40 * PAUSE
DRIPS = 80


class Manner(NamedTuple):
    """How an answer goes out.

    Attributes:
        script: Makes the bytes out of status line, headers and body.
        hides: What of it may not reach a client: nothing, its `body`, or its `status`.
        spoils: Whether the connection stays open with something left in it, which may hide what comes next.
    """

    script: Callable[[bytes, bytes, bytes], bytes]
    hides: str = ""
    spoils: bool = False


def _answer(line: bytes, headers: bytes, body: bytes) -> bytes:
    return b"%s\r\n%s\r\n%s" % (line, headers, body)


def _complete(line: bytes, headers: bytes, body: bytes) -> bytes:
    return _answer(line, headers + b"Content-Length: %d\r\n" % len(body.replace(PAUSE, b"")), body)


def _with(header: bytes, body: bytes) -> Callable[[bytes, bytes, bytes], bytes]:
    return lambda line, headers, _: _answer(line, headers + header + b"\r\n", body)


def _dripped(data: bytes) -> bytes:
    return PAUSE.join(data[start : start + 25] for start in range(0, len(data), 25))


PLAIN = Manner(lambda *parts: _complete(*parts) + KEEP)
RESET = Manner(lambda *parts: b"", hides="status")
MANNERS = {
    "slow headers": Manner(lambda *parts: _dripped(_complete(*parts)) + KEEP),
    "slow body": Manner(lambda line, headers, body: _complete(line, headers, PAUSE.join([body] * 4)) + KEEP),
    "chunked": Manner(_with(b"Transfer-Encoding: chunked", b"2\r\nok\r\n0\r\n\r\n" + KEEP)),
    "closed": Manner(_complete),
    "dripped body": Manner(
        lambda line, headers, body: _complete(line, headers, PAUSE.join(DRIPS * [b"o"])),
    ),
    "announced close": Manner(lambda line, headers, body: _complete(line, headers + b"Connection: close\r\n", body)),
    "until the end": Manner(_answer),
    "continue": Manner(lambda *parts: b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + _complete(*parts) + KEEP),
    "huge": Manner(lambda line, headers, body: _complete(line, headers, 300_000 * b"x") + KEEP),
    "stalled body": Manner(_with(b"Content-Length: 2", b"o" + STALL + b"k"), "body"),
    "cut body": Manner(_with(b"Content-Length: 9", b"ok"), "body"),
    "odd chunk": Manner(_with(b"Transfer-Encoding: chunked", b"odd\r\nok"), "body"),
    "cut chunk": Manner(_with(b"Transfer-Encoding: chunked", b"ff\r\nok"), "body"),
    "odd length": Manner(_with(b"Content-Length: many", b"ok"), "body"),
    "not gzip": Manner(_with(b"Content-Encoding: gzip", b"ok"), "body"),
    "reset": RESET,
    "dripped headers": Manner(
        lambda line, headers, body: PAUSE.join([line + b"\r\nX: ", *DRIPS * [b"x"], b"\r\n\r\n"]), "status"
    ),
    "stalled": Manner(lambda *parts: STALL + _complete(*parts), "status"),
    "stalled headers": Manner(lambda line, headers, body: line + STALL + b"\r\n\r\n", "status"),
    "cut status": Manner(lambda line, headers, body: line[: len("HTTP/1.1 2")], "status"),
    "cut headers": Manner(lambda line, headers, body: line + b"\r\nContent-Le", "status"),
    "nothing": Manner(lambda *parts: b"", "status"),
    "garbage": Manner(lambda *parts: b"\x00\xff\r\n\r\nnonsense\r\n", "status"),
    "another protocol": Manner(lambda *parts: b"220 mail.example.com ESMTP\r\n", "status"),
    "another version": Manner(lambda *parts: b"HTTP/9 200 OK\r\n\r\n", "status"),
    "TLS alert": Manner(lambda *parts: b"\x15\x03\x01\x00\x02\x02\x28", "status"),
    "endless header": Manner(lambda line, headers, body: line + b"\r\nX: " + 70_000 * b"x" + b"\r\n\r\n", "status"),
    "surplus": Manner(lambda *parts: _complete(*parts) + b"surplus" + KEEP, spoils=True),
    "late surplus": Manner(lambda *parts: _complete(*parts) + 3 * PAUSE + b"surplus" + KEEP, spoils=True),
    # Clients take the first of the two for the answer.
    "early hints": Manner(
        lambda *parts: b"HTTP/1.1 103 Early Hints\r\n\r\n" + 3 * PAUSE + _complete(*parts) + KEEP, "status", spoils=True
    ),
}


class ChaoticCollector(LocalCollector):
    """Answers at random until it is healed.

    `_arrival` guards the attributes.

    Attributes:
        replies: Event ids and status of each answer.
        taken: How many times each event was accepted.
        hidden: How many times of these its client may not have learnt about it, and has to send the event again.
        cookies: What clients sent back.
        odd_answers: How many were drawn at random.
        untried: Manners and status codes that were not drawn yet.
    """

    def __init__(self, seed: int, *, tls: bool, sanity: float, reads_bodies: bool, max_bytes: Optional[int]) -> None:
        """Describe a collector.

        Args:
            seed: Makes it misbehave in another way.
            tls: Speak HTTPS.
            sanity: The share of requests that are taken, and answered as they should be.
            reads_bodies: Whether its client insists on a proper body, as a `requests.Session` does.
            max_bytes: A longer body or query gets status 413.
        """
        super().__init__(tls=tls)
        self.replies: List[Tuple[List[str], int]] = []
        self.taken: Dict[str, int] = defaultdict(int)
        self.hidden: Dict[str, int] = defaultdict(int)
        self.cookies: List[str] = []
        self.odd_answers = 0
        self.untried: Set[Any] = {"reset before the body", *ACCEPTED, *TO_RETRY, *REDIRECTS, *REJECTED}
        if max_bytes is not None:
            self.untried.add(413)
        self._random = random.Random(seed)
        self._sanity = sanity
        self._max_bytes = max_bytes
        self._hiding = ("status", "body") if reads_bodies else ("status",)
        # A session of the application's keeps a connection in which an answer is still to come.
        kept = [manner for name, manner in MANNERS.items() if not (reads_bodies and name == "early hints")]
        self._manners = len(kept) // 2 * [PLAIN] + kept
        self.untried.update(kept)
        self._packs: Dict[int, List[Any]] = {}
        # By the serial number of the connection: whether it is spoilt, and the events whose answer is on the way.
        self._spoilt: Set[int] = set()
        self._unanswered: Dict[int, List[str]] = {}

    def accept_connections(self) -> None:
        """Serve with the marks in the answers."""
        if self._listener is not None:
            self._server = _Server(self, self._listener)
            self._listener = None

    def heal(self) -> None:
        """Behave from now on."""
        with self._arrival:
            self._sanity, self._max_bytes = 1.0, None

    def has_answered(self, connection: int) -> None:
        """Note that all of an answer is on its way: its client will know that the events were accepted."""
        with self._arrival:
            for eid in self._unanswered.pop(connection, []):
                self.hidden[eid] -= 1

    def _refusal(self, request: Any) -> Optional[Answer]:
        with self._arrival:
            if "cookie" in request.headers:
                self.cookies.append(request.headers["cookie"])
            is_refused = self._random.random() > self._sanity and self._next_of(RESETS)
            if is_refused:
                self.untried.discard("reset before the body")
        return Answer(reset="before_body") if is_refused else None

    def _collect(self, request: Any, payloads: Any) -> Answer:
        eids = [payload["eid"] for payload in payloads]
        size = len(request.body()) + len(request.query_string)
        with self._arrival:
            status, headers, manner = self._draw(request, size)
            self.replies.append((eids, status))
            if 200 <= status <= 299:
                self._take(eids, request.connection, manner)
            if manner.spoils:
                self._spoilt.add(request.connection)
        if manner is RESET:
            return Answer(reset="after_body")
        return Answer(raw=manner.script(b"HTTP/1.1 %d Whatever" % status, headers, b"ok"))

    def _draw(self, request: Any, size: int) -> Tuple[int, bytes, Manner]:
        if self._max_bytes is not None and size > self._max_bytes:
            self.untried.discard(413)
            return 413, b"", PLAIN
        if self._random.random() < self._sanity:
            return 200, COOKIE, PLAIN
        self.odd_answers += 1
        manner = self._next_of(self._manners)
        kind = self._next_of(KINDS)
        status, headers = self._next_of(kind), COOKIE
        if kind is REDIRECTS:
            headers = self._draw_location(request)
        elif kind is TO_RETRY:
            headers += self._next_of(RETRY_AFTER)
        self.untried -= {status, manner}
        return status, headers, manner

    def _draw_location(self, request: Any) -> bytes:
        query = f"?{urlencode(request.query)}" if request.query else ""
        location = self._next_of(LOCATIONS).format(
            path=request.path, query=query, port=self.port, other_scheme="http" if self._tls else "https"
        )
        return f"Location: {location}\r\n".encode()

    def _next_of(self, choices: Sequence[Any]) -> Any:
        """Draw from a pack that is shuffled when it is used up, so that a short storm has something of everything."""
        pack = self._packs.setdefault(id(choices), [])
        if not pack:
            pack.extend(self._random.sample(choices, len(choices)))
        return pack.pop()

    def _take(self, eids: List[str], connection: int, manner: Manner) -> None:
        for eid in eids:
            self.taken[eid] += 1
            self.hidden[eid] += 1
        if manner.hides not in self._hiding and connection not in self._spoilt:
            self._unanswered[connection] = eids


class _Server(HttpServer):
    def __init__(self, collector: ChaoticCollector, listener: socket.socket) -> None:
        self._collector = collector
        super().__init__(listener, collector._respond, collector._count_connection, collector._tls_context)

    def _serve_request(self, sock: Any, stream: Any, serial: int, *others: Any) -> bool:
        wire = _Wire(sock, self._stopping)
        super()._serve_request(wire, stream, serial, *others)
        if wire.has_sent:
            self._collector.has_answered(serial)
        return wire.keeps


class _Wire:
    """A socket that obeys the marks in what it sends."""

    def __init__(self, sock: socket.socket, stopping: threading.Event) -> None:
        self._sock = sock
        self._stopping = stopping
        self.has_sent = False
        self.keeps = False

    def sendall(self, script: bytes) -> None:
        for number, piece in enumerate(script.replace(KEEP, b"").split(PAUSE)):
            if number:
                self._stopping.wait(PAUSE_SECONDS)
            self._sock.sendall(piece)
        self.has_sent, self.keeps = True, script.endswith(KEEP)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
