"""A collector that costs next to nothing: it looks for the length of a request, counts the events in it and answers.

Runs in a process of its own: `python3 collector.py CERTIFICATE` prints a line of JSON with its ports, and ends with its
standard input. Three ports listen, for plain requests, TLS and control; a fourth refuses connections.

Control knows three requests, each answered in JSON:

- `GET /begin?status=503&delay=0.2&silent=1` counts from zero, and answers like this from now on; by default with 200
  and at once. All connections from before are closed, so that nothing left over from another client is counted.
- `GET /counts` tells the counts.
- `GET /wait?events=100&seconds=2` tells them as soon as so many events have come, or that time is over.
"""

import asyncio
import json
import re
import socket
import ssl
import sys
from typing import Any, Callable, Dict, List, Optional, Set, Tuple
from urllib.parse import parse_qsl, urlsplit

__all__ = ["Collector", "Connection"]

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


class Collector:
    """What all connections share: how to answer, and what has come."""

    def __init__(self) -> None:
        self.connections: Set[Connection] = set()
        self.waiting: List[Tuple[int, asyncio.Future[None]]] = []
        self.begin()

    def begin(self, status: int = 200, delay: float = 0.0, silent: bool = False) -> None:
        for connection in list(self.connections):
            connection.abandon()
        self.answer = f"HTTP/1.1 {status} OK\r\nContent-Length: 2\r\n\r\nok".encode("ascii")
        self.delay = delay
        self.silent = silent
        self.events = self.requests = self.bytes = self.accepted = 0

    def counts(self) -> Dict[str, int]:
        return {
            "events": self.events,
            "requests": self.requests,
            "bytes": self.bytes,
            "connections": self.accepted,
        }

    def count(self, head: bytes, body: bytes) -> None:
        self.requests += 1
        self.bytes += len(head) + len(body)
        # Base64 has no quotation marks, so this is the name of a field, and every event has it once.
        self.events += body.count(b'"eid"') if body else head.count(b"eid=")
        for number, future in self.waiting:
            if self.events >= number and not future.done():
                future.set_result(None)

    async def wait(self, events: int, seconds: float) -> None:
        if self.events >= events:
            return
        entry = (events, asyncio.get_running_loop().create_future())
        self.waiting.append(entry)
        await asyncio.wait([entry[1]], timeout=seconds)
        self.waiting.remove(entry)


class Connection(asyncio.Protocol):
    """One kept-alive connection of a client."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._data = bytearray()
        self._needed = 0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._collector.connections.add(self)
        self._collector.accepted += 1

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._collector.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= self._needed:
            end_of_head = self._data.find(b"\r\n\r\n")
            if end_of_head < 0:
                return
            head = bytes(self._data[: end_of_head + 4])
            length = _LENGTH.search(head)
            self._needed = len(head) + (int(length.group(1)) if length else 0)
            if len(self._data) < self._needed:
                return
            body = bytes(self._data[len(head) : self._needed])
            del self._data[: self._needed]
            self._needed = 0
            self._collector.count(head, body)
            self._reply()

    def abandon(self) -> None:
        """Count nothing any more of what this client sends."""
        self._transport.abort()
        self._collector.connections.discard(self)

    def _reply(self) -> None:
        collector = self._collector
        if collector.silent:
            return
        if collector.delay:
            asyncio.get_running_loop().call_later(collector.delay, self._write, collector.answer)
        else:
            self._write(collector.answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def _control(collector: Collector, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    url = urlsplit(head.split(b" ", 2)[1].decode("ascii"))
    given = dict(parse_qsl(url.query))
    if url.path == "/begin":
        collector.begin(int(given.get("status", 200)), float(given.get("delay", 0)), bool(given.get("silent")))
    elif url.path == "/wait":
        await collector.wait(int(given["events"]), float(given["seconds"]))
    body = json.dumps(collector.counts()).encode("ascii")
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


async def _serve(certificate: str) -> None:
    loop = asyncio.get_running_loop()
    collector = Collector()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    new_connection: Callable[[], Connection] = lambda: Connection(collector)  # noqa: E731
    plain = await loop.create_server(new_connection, "127.0.0.1", 0, backlog=1024)
    tls = await loop.create_server(new_connection, "127.0.0.1", 0, backlog=1024, ssl=context)
    control = await asyncio.start_server(
        lambda reader, writer: _control(collector, reader, writer), "127.0.0.1", 0, backlog=16
    )
    with socket.socket() as refusing:
        # Bound and not listening: nobody else gets the port, and whoever connects to it is refused.
        refusing.bind(("127.0.0.1", 0))
        ports = {name: server.sockets[0].getsockname()[1] for name, server in _named(plain, tls, control)}
        print(json.dumps({**ports, "refusing": refusing.getsockname()[1]}), flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


def _named(plain: Any, tls: Any, control: Any) -> List[Tuple[str, Any]]:
    return [("http", plain), ("https", tls), ("control", control)]


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
