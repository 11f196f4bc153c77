"""The collector for tests: what it takes, how it answers, and how it misbehaves when told to."""

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
import requests
from support import PATIENCE_SECONDS

from snowplow_tracker.testing import Answer, LocalCollector, _http_server
from snowplow_tracker.testing._http_server import HttpServer, bind

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")

POST_PATH = "/com.snowplowanalytics.snowplow/tp2"


@pytest.fixture
def collector():
    with LocalCollector() as collector:
        yield collector


@pytest.fixture
def session():
    with requests.Session() as session:
        session.trust_env = False
        yield session


def post(session, collector, *event_ids):
    body = {"schema": "iglu:any", "data": [{"eid": event_id} for event_id in event_ids]}
    return session.post(collector.url + POST_PATH, json=body, timeout=10)


def get(session, collector, event_id):
    return session.get(collector.url + "/i", params={"eid": event_id}, timeout=10)


def connect(collector):
    return closing(socket.create_connection((collector.host, collector.port), timeout=10))


def post_bytes(body, headers=""):
    return f"POST {POST_PATH} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def read_to_end(sock):
    return b"".join(iter(lambda: sock.recv(65536), b""))


def event_ids(payloads):
    return [payload["eid"] for payload in payloads]


@contextmanager
def forked_child(action=lambda: None):
    """Run an action in a forked child, which then lives on until the block ends."""
    done_reader, done_writer = os.pipe()
    end_reader, end_writer = os.pipe()
    with warnings.catch_warnings():
        # Python warns from 3.12 on, because the collector's threads are running; that it goes well is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(end_writer)
        try:
            action()
            os.write(done_writer, b"!")
            os.read(end_reader, 1)
        finally:
            os._exit(0)
    os.close(done_writer)
    os.close(end_reader)
    try:
        assert os.read(done_reader, 1) == b"!", "the action failed"
        yield
    finally:
        os.close(done_reader)
        os.close(end_writer)
        os.waitpid(child, 0)


def test_post_is_recorded_with_what_was_sent(collector, session):
    """A POST is recorded with its head, its body and the payloads in it."""
    before = time.monotonic()

    response = post(session, collector, "first", "second")

    (request,) = collector.requests
    assert (response.status_code, response.content, response.headers["Content-Type"]) == (200, b"ok", "text/plain")
    assert (request.method, request.path, request.query, request.status) == ("POST", POST_PATH, {}, 200)
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body)["schema"] == "iglu:any"
    assert request.payloads == collector.payloads == [{"eid": "first"}, {"eid": "second"}]
    assert before <= request.received_at <= time.monotonic()


def test_get_is_recorded_with_its_decoded_query(collector, session):
    """A GET brings one payload, its query, and is answered with an image."""
    query = {"e": "pv", "page": "Größe & Gewicht", "empty": ""}

    response = session.get(collector.url + "/i", params=query)

    (request,) = collector.requests
    assert (response.content[:6], response.headers["Content-Type"]) == (b"GIF89a", "image/gif")
    assert (request.method, request.path, request.body) == ("GET", "/i", b"")
    assert request.query == query
    assert collector.payloads == [query]


def test_get_without_query_brings_no_payload(collector, session):
    """A GET without a query is recorded, but there is no payload in it."""
    session.get(collector.url + "/i")

    assert [request.payloads for request in collector.requests] == [[]]
    assert collector.payloads == []


@pytest.mark.parametrize("prefix", ["/some/prefix", "/"])
def test_path_may_have_a_prefix(collector, prefix):
    """A tracker request is recognised by the end of its path, also where that begins with two slashes."""
    body = b'{"data": [{"eid": "second"}]}'

    with connect(collector) as sock:
        sock.sendall(f"GET {prefix}/i?eid=first HTTP/1.1\r\n\r\n".encode())
        sock.sendall(post_bytes(body, "Connection: close\r\n").replace(b" /com", f" {prefix}/com".encode()))
        read_to_end(sock)

    assert [request.path for request in collector.requests] == [prefix + "/i", prefix + POST_PATH]
    assert event_ids(collector.payloads) == ["first", "second"]


def test_health_is_neither_scripted_nor_recorded(collector, session):
    """The health route answers 200 whatever has been prepared, and leaves no trace."""
    collector.respond_with(503)

    response = session.get(collector.url + "/health")

    assert (response.status_code, response.content) == (200, b"ok")
    assert collector.requests == []
    assert get(session, collector, "first").status_code == 503


def test_unknown_path_is_recorded_and_uses_up_no_answer(collector, session):
    """A request at any other path gets 404, and leaves the prepared answers to tracker requests."""
    collector.respond_with(503)

    response = session.post(collector.url + "/elsewhere", json={"data": [{"eid": "first"}]})

    (request,) = collector.requests
    assert response.status_code == request.status == 404
    assert response.text == (
        "there is nothing here, but at /com.snowplowanalytics.snowplow/tp2, /health, /i, /micro/all, /micro/bad,"
        " /micro/good, /micro/reset, /micro/ui, /micro/ui/events\n"
    )
    assert (request.path, request.payloads, json.loads(request.body)["data"]) == ("/elsewhere", [], [{"eid": "first"}])
    assert collector.payloads == []
    assert get(session, collector, "second").status_code == 503


def test_other_methods_are_not_allowed(collector, session):
    """Any method but GET, POST and OPTIONS gets 405, HEAD without a body."""
    statuses = [session.request(method, collector.url + "/i").status_code for method in ("HEAD", "PUT", "DELETE")]

    assert statuses == [405, 405, 405]
    assert [request.status for request in collector.requests] == [405, 405, 405]
    assert collector.connections == 1


def test_head_is_answered_without_the_body(collector):
    """The answer to HEAD ends with its headers."""
    with connect(collector) as sock:
        sock.sendall(b"HEAD /i HTTP/1.1\r\nConnection: close\r\n\r\n")
        answer = read_to_end(sock)

    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.endswith(b"\r\n\r\n")


def test_prepared_answers_are_given_in_turn(collector, session):
    """Prepared answers are used up one by one, then the standing answer applies, which is 200 at first."""
    collector.respond_with(500, Answer(status=404))
    collector.respond_with(302)

    statuses = [session.get(collector.url + "/i?eid=1", allow_redirects=False).status_code for _ in range(4)]

    assert statuses == [500, 404, 302, 200]


def test_standing_answer_applies_when_none_is_prepared(collector, session):
    """The standing answer is given again and again, after those that were prepared."""
    collector.respond_always(503)
    collector.respond_with(200)

    statuses = [get(session, collector, "first").status_code for _ in range(3)]

    assert statuses == [200, 503, 503]


def test_only_2xx_accepts_payloads(collector, session):
    """Payloads count as accepted if the status of their request is 2xx."""
    collector.respond_with(200, 299, 300, 404, 500)

    for event_id in ("200", "299", "300", "404", "500"):
        get(session, collector, event_id)

    assert event_ids(collector.payloads) == ["200", "299"]
    assert [request.status for request in collector.requests] == [200, 299, 300, 404, 500]


def test_answer_can_have_headers_and_a_body(collector, session):
    """Headers of the answer are added to those that any answer has, or replace them."""
    collector.respond_with(Answer(429, headers={"Retry-After": "2", "content-type": "text/html"}, body=b"later"))

    response = post(session, collector, "first")

    assert (response.status_code, response.reason, response.content) == (429, "Too Many Requests", b"later")
    assert response.headers == {"Retry-After": "2", "content-type": "text/html", "Content-Length": "5"}


def test_content_type_can_be_replaced(collector, session):
    """The default body can go out under another type."""
    collector.respond_with(Answer(headers={"content-type": "text/html"}))

    response = post(session, collector, "first")

    assert (response.headers["Content-Type"], response.content) == ("text/html", b"ok")


def test_content_length_can_be_wrong(collector):
    """An answer may promise more than it sends."""
    collector.respond_with(Answer(headers={"Content-Length": "100"}, body=b"half", close_connection=True))
    connection = http.client.HTTPConnection(collector.host, collector.port, timeout=10)

    connection.request("GET", "/i")

    with closing(connection), pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()


def test_redirect_is_followed_to_a_path_of_the_collector(collector, session):
    """A redirect leads wherever the answer says, and the request there is recorded as well."""
    collector.respond_with(Answer(302, headers={"Location": "/elsewhere"}))

    response = post(session, collector, "first")

    assert response.status_code == 404
    assert [(request.method, request.path) for request in collector.requests] == [
        ("POST", POST_PATH),
        ("GET", "/elsewhere"),
    ]


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_body_keeps_the_connection_usable(collector, session, status):
    """An answer that must not have a body has none."""
    collector.respond_with(Answer(status, body=b"not sent"))

    answered = post(session, collector, "first")
    following = post(session, collector, "second")

    assert (answered.status_code, answered.content) == (status, b"")
    assert (following.status_code, collector.connections) == (200, 1)


def test_unknown_status_is_sent_as_it_is(collector, session):
    """A status that HTTP gives no name to is sent nevertheless."""
    collector.respond_with(599)

    assert get(session, collector, "first").status_code == 599


def test_delay_comes_before_the_answer(collector, session):
    """A delayed answer takes as many seconds as it says."""
    collector.respond_with(Answer(delay_seconds=0.05))
    before = time.monotonic()

    response = get(session, collector, "first")

    assert response.status_code == 200
    assert time.monotonic() - before >= 0.05


def test_held_request_has_arrived_before_it_is_answered(collector, session):
    """A held answer goes out when its event is set; the request and its payloads are there before."""
    release = threading.Event()
    collector.respond_with(Answer(202, hold=release))

    with ThreadPoolExecutor() as pool:
        answered = pool.submit(post, session, collector, "first")
        (request,) = collector.wait_for_requests(1)
        accepted, done_before_release = collector.payloads, answered.done()
        release.set()

        assert (request.status, event_ids(accepted), done_before_release) == (202, ["first"], False)
        assert answered.result(10).status_code == 202


def test_held_request_does_not_hold_up_the_others(collector, session):
    """Each connection is served by itself."""
    release = threading.Event()
    collector.respond_with(Answer(hold=release))

    with ThreadPoolExecutor() as pool:
        held = pool.submit(get, requests.Session(), collector, "held")
        collector.wait_for_requests(1)
        other = get(session, collector, "other")
        release.set()
        held.result(10).close()

    assert other.status_code == 200


@pytest.mark.parametrize("tls", [False, True])
def test_reset_after_body_hides_that_payloads_were_taken(session, tls):
    """A reset after the body gives no answer, but the payloads are taken if the status is 2xx."""
    with LocalCollector(tls=tls) as collector:
        session.verify = collector.certificate_file
        collector.respond_with(Answer(reset="after_body"), Answer(503, reset="after_body"))

        for event_id in ("taken", "refused"):
            with pytest.raises(requests.ConnectionError):
                post(session, collector, event_id)

        assert event_ids(collector.payloads) == ["taken"]
        assert [(request.status, event_ids(request.payloads)) for request in collector.requests] == [
            (0, ["taken"]),
            (0, ["refused"]),
        ]


@pytest.mark.parametrize("reset", ["before_body", "after_body"])
def test_reset_is_a_tcp_reset(collector, reset):
    """The client sees a connection reset, not a closed connection."""
    collector.respond_with(Answer(reset=reset))

    with connect(collector) as sock:
        sock.sendall(post_bytes(b"{}"))
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_reset_before_body_takes_nothing(collector):
    """A connection can be reset before the body is there; the request is recorded without it."""
    collector.respond_with(Answer(reset="before_body"))

    with connect(collector) as sock:
        sock.sendall(f"POST {POST_PATH} HTTP/1.1\r\nContent-Length: 10\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            sock.recv(1)

    (request,) = collector.requests
    assert (request.path, request.status, request.body, request.payloads) == (POST_PATH, 0, b"", [])
    assert collector.payloads == []


def test_reset_before_body_takes_nothing_when_another_request_overtook(collector, session):
    """A request that is to be reset before the body only when its body is there is recorded without it."""
    body = b'{"data": [{"eid": "overtaken"}]}'
    collector.respond_with(200, Answer(reset="before_body"))

    with connect(collector) as sock:
        sock.sendall(post_bytes(b"", "Expect: 100-continue\r\n").replace(b"Length: 0", b"Length: %d" % len(body)))
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        post(session, collector, "overtaker")
        sock.sendall(body)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)

    assert event_ids(collector.payloads) == ["overtaker"]
    assert [(request.status, request.payloads) for request in collector.requests][1:] == [(0, [])]


@pytest.mark.parametrize("raw", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Le", b""])
def test_raw_bytes_replace_the_answer(collector, raw):
    """Raw bytes are all that the client gets before the connection is closed, and nothing counts as accepted."""
    collector.respond_with(Answer(raw=raw))

    with connect(collector) as sock:
        sock.sendall(b"GET /i?eid=first HTTP/1.1\r\n\r\n")
        answer = read_to_end(sock)

    assert answer == raw
    assert [request.status for request in collector.requests] == [0]
    assert collector.payloads == []


def test_connection_is_kept_alive(collector, session):
    """A client that reuses its connection is counted once; requests tell which connection they came by."""
    for event_id in ("first", "second"):
        post(session, collector, event_id)
    with requests.Session() as other_session:
        post(other_session, collector, "third")

    assert collector.connections == 2
    assert [request.connection for request in collector.requests] == [1, 1, 2]


def test_connection_is_closed_when_the_answer_announces_it(collector, session):
    """The header `Connection: close` in an answer is true."""
    collector.respond_with(Answer(headers={"connection": "Close"}))

    with connect(collector) as sock:
        sock.sendall(b"GET /i HTTP/1.1\r\n\r\n")
        answer = read_to_end(sock)

    assert answer.lower().count(b"connection: close") == 1


def test_connection_can_be_closed_without_announcement(collector):
    """A connection can be closed after a complete answer that says nothing of it."""
    collector.respond_with(Answer(close_connection=True))

    with connect(collector) as sock:
        sock.sendall(b"GET /i HTTP/1.1\r\n\r\n")
        answer = read_to_end(sock)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"onnection" not in answer


@pytest.mark.parametrize("head", [b"GET /i HTTP/1.0\r\n", b"GET /i HTTP/1.1\r\nConnection: close\r\n"])
def test_connection_is_closed_when_the_client_wants_it(collector, head):
    """A client that does not keep its connection alive gets it closed, with notice."""
    with connect(collector) as sock:
        sock.sendall(head + b"\r\n")
        answer = read_to_end(sock)

    assert b"Connection: close\r\n" in answer


def test_chunked_body_is_put_together(collector):
    """A body may come in chunks, with extensions and trailers."""
    with connect(collector) as sock:
        sock.sendall(f"POST {POST_PATH} HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode())
        sock.sendall(b'9;name=value\r\n{"data": \r\n11\r\n[{"eid": "first"}\r\n2\r\n]}\r\n0\r\nTrailer: 1\r\n\r\n')
        answer = read_to_end(sock)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert event_ids(collector.payloads) == ["first"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"data": {}}',
        b'{"data": [1]}',
        b"[" * 100_000,
        '{"data": [{"e": "pv"}]}'.encode("utf-8-sig"),
        '{"data": [{"e": "pv"}]}'.encode("utf-16"),
    ],
    ids=["empty", "cut", "not text", "list", "no list", "not payloads", "deep", "byte order mark", "UTF-16"],
)
def test_undecodable_body_is_answered_all_the_same(collector, session, body):
    """A collector takes what it cannot decode; there are just no payloads in it."""
    response = session.post(collector.url + POST_PATH, data=body)

    (request,) = collector.requests
    assert response.status_code == 200
    assert (request.body, request.payloads) == (body, [])


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\r\n",
        b"GET /i SPDY/3\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET /i HTTP/1.1\r\nno header\r\n\r\n",
        b"POST /elsewhere HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /elsewhere HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /elsewhere HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n",
    ],
)
def test_malformed_request_gets_400(collector, request_bytes):
    """What is not HTTP is answered with 400 and not recorded."""
    with connect(collector) as sock:
        sock.sendall(request_bytes)
        answer = read_to_end(sock)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert collector.requests == []


def line_of(size):
    return b"GET /i?".ljust(size - len(b" HTTP/1.1"), b"x") + b" HTTP/1.1"


def headers_of(size):
    return b"X: ".ljust(size - len(b"\r\n\r\n"), b"x") + b"\r\n\r\n"


CHUNKED = b"POST /elsewhere HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "answer_line"),
    [
        (line_of(262_145) + b"\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (line_of(262_145) + b"\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET /i HTTP/1.1\r\n" + headers_of(65_537), b"HTTP/1.1 431 Request Header Fields Too Large"),
        (b"GET /i HTTP/1.1\r\n" + b"X: x\r\n" * 20_000 + b"\r\n", b"HTTP/1.1 431 Request Header Fields Too Large"),
        (CHUNKED + b"0\r\n" + headers_of(65_537), b"HTTP/1.1 431 Request Header Fields Too Large"),
        (CHUNKED + b"1;".ljust(262_145, b"x") + b"\r\n", b"HTTP/1.1 400 Bad Request"),
    ],
    ids=["line", "line without a carriage return", "header", "headers", "trailers", "chunk"],
)
def test_request_that_would_fill_the_memory_is_turned_away(collector, request_bytes, answer_line):
    """What is longer than any client needs is not kept; a client that sends all before it listens hears why."""
    with connect(collector) as sock:
        sock.sendall(request_bytes)
        sock.sendall(b"x" * 20_000_000)
        answer = read_to_end(sock)

    assert answer.splitlines()[0] == answer_line
    assert b"\r\nConnection: close\r\n" in answer
    assert collector.requests == []


def test_largest_head_is_read(collector, session):
    """A line of exactly 262,144 bytes and headers of 65,536 are read; the line is still too long for an event."""
    with connect(collector) as sock:
        sock.sendall(b"GET /i HTTP/1.0\r\n" + headers_of(65_536))
        taken = read_to_end(sock)
    with connect(collector) as sock:
        sock.sendall(line_of(262_144).replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n\r\n")
        refused = read_to_end(sock)

    assert (taken.split()[1], refused.split()[1]) == (b"200", b"400")
    assert refused.endswith(b"a request line may have 20480 characters\n")
    assert [request.status for request in collector.requests] == [200, 400]


def test_silent_client_that_was_turned_away_does_not_hold_up_the_end(collector, monkeypatch):
    """Closing the collector cuts the connection of a client that has its answer and does nothing about it."""
    monkeypatch.setattr(_http_server, "_LINGER_SECONDS", 60)
    with connect(collector) as sock:
        sock.sendall(b"GET\r\n")
        answer = read_to_end(sock)

        collector.close()

        assert not any(thread.name.startswith("local-collector") for thread in threading.enumerate())
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET /i HTTP/1.1\r\nHost", post_bytes(b"{}")[:-1], CHUNKED + b"1"],
    ids=["head", "body", "chunk"],
)
def test_half_a_request_is_not_recorded(collector, session, capfd, request_bytes):
    """A client that hangs up in the middle of its request uses up no answer, and nothing is said about it."""
    collector.respond_with(503)

    with connect(collector) as sock:
        sock.sendall(request_bytes)
        sock.shutdown(socket.SHUT_WR)
        answer = read_to_end(sock)

    assert answer == b""
    assert collector.requests == []
    assert get(session, collector, "first").status_code == 503
    assert capfd.readouterr() == ("", "")


def test_client_that_does_not_wait_for_its_answer_is_passed_over(collector, session, capfd):
    """An answer that nobody takes any more is dropped in silence."""
    release = threading.Event()
    collector.respond_with(Answer(hold=release, body=b"x" * 10_000_000))

    with connect(collector) as sock:
        sock.sendall(b"GET /i?eid=first HTTP/1.1\r\n\r\n")
        collector.wait_for_requests(1)
    release.set()
    get(session, collector, "second")
    collector.close()

    assert event_ids(collector.payloads) == ["first", "second"]
    assert capfd.readouterr() == ("", "")


def test_collector_can_stand_in_for_a_proxy(collector, session):
    """A request for another host, as a proxy gets it, is recorded under its path."""
    session.proxies = {"http": collector.url}

    session.get("http://collector.example.com/i?eid=first")

    (request,) = collector.requests
    assert (request.path, request.headers["host"]) == ("/i", "collector.example.com")
    assert event_ids(collector.payloads) == ["first"]


def test_repeated_headers_are_joined(collector):
    """Values of a header that comes more than once are joined with a comma."""
    with connect(collector) as sock:
        sock.sendall(b"GET /i HTTP/1.0\r\nAccept: a\r\nACCEPT: b\r\n\r\n")
        read_to_end(sock)

    assert collector.requests[0].headers == {"accept": "a, b"}


def test_wait_for_payloads_returns_what_was_accepted(collector, session):
    """Waiting ends when enough payloads have arrived, and returns them all."""
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(collector.wait_for_payloads, 3)
        post(session, collector, "first", "second")
        post(session, collector, "third", "fourth")

        assert event_ids(waiting.result(10)) == ["first", "second", "third", "fourth"]


def test_waiting_in_vain_tells_what_did_arrive(collector, session):
    """An assertion error lists what arrived in time: requests, or payloads and then the requests."""
    collector.respond_with(200, 503)
    post(session, collector, "first", "second")
    get(session, collector, "third")

    with pytest.raises(AssertionError) as about_requests:
        collector.wait_for_requests(3, timeout=0)
    with pytest.raises(AssertionError) as about_payloads:
        collector.wait_for_payloads(3, timeout=0.01)

    assert str(about_requests.value).splitlines() == [
        "3 requests expected within 0 s, 2 arrived",
        f"  POST {POST_PATH} -> 200, 2 payloads",
        "  GET /i -> 503, 1 payloads",
    ]
    assert str(about_payloads.value).splitlines() == [
        "3 payloads expected within 0.01 s, 2 arrived",
        "  {'eid': 'first'}",
        "  {'eid': 'second'}",
        "  there were 2 requests:",
        f"  POST {POST_PATH} -> 200, 2 payloads",
        "  GET /i -> 503, 1 payloads",
    ]


def test_waiting_without_a_request_says_no_more(collector):
    """When nothing came at all, there is nothing to list."""
    with pytest.raises(AssertionError, match=r"^1 payloads expected within 0 s, 0 arrived$"):
        collector.wait_for_payloads(1, timeout=0)


@pytest.mark.parametrize("wait", [LocalCollector.wait_for_requests, LocalCollector.wait_for_payloads])
@pytest.mark.parametrize(
    ("timeout", "error", "message"),
    [
        (float("nan"), ValueError, "timeout must not be negative, got nan"),
        (-1, ValueError, "timeout must not be negative, got -1"),
        ("x", TypeError, "timeout must be a number, got 'x'"),
    ],
)
def test_time_to_wait_must_make_sense(wait, timeout, error, message):
    """A timeout that is none is an error at once, and no wait without an end."""
    with pytest.raises(error, match=message):
        wait(LocalCollector(), 1, timeout=timeout)


def test_message_of_waiting_in_vain_is_kept_short(collector, session):
    """Twenty payloads are enough to see what is wrong."""
    post(session, collector, *map(str, range(25)))

    with pytest.raises(AssertionError) as error:
        collector.wait_for_payloads(26, timeout=0)

    assert str(error.value).splitlines()[20:22] == ["  {'eid': '19'}", "  and 5 more"]


def test_reset_forgets_all_but_the_connections(collector, session):
    """After a reset the collector is as new, but for its connections."""
    collector.respond_with(200, 500)
    collector.respond_always(503)
    get(session, collector, "first")

    collector.reset()

    assert (collector.requests, collector.payloads, collector.connections) == ([], [], 1)
    assert get(session, collector, "second").status_code == 200
    assert event_ids(collector.payloads) == ["second"]


def test_lists_are_snapshots(collector, session):
    """What the collector hands out does not change afterwards, and changing it does no harm."""
    requests_before, payloads_before = collector.requests, collector.payloads

    get(session, collector, "first")
    collector.payloads.clear()
    collector.requests.clear()

    assert (requests_before, payloads_before) == ([], [])
    assert (len(collector.requests), len(collector.payloads)) == (1, 1)


def test_many_clients_are_served_at_once(collector):
    """Requests of many threads are all recorded, and each prepared answer is given once."""
    collector.respond_with(*[503] * 40)

    def send_twenty(client):
        with requests.Session() as session:
            return [get(session, collector, f"{client}-{number}").status_code for number in range(20)]

    with ThreadPoolExecutor(8) as pool:
        statuses = [status for twenty in pool.map(send_twenty, range(8)) for status in twenty]

    assert (statuses.count(503), statuses.count(200)) == (40, 120)
    assert len(collector.requests) == 160
    assert len(set(event_ids(collector.payloads))) == 120
    assert collector.connections == 8


def test_outage_refuses_and_cuts_connections(collector, session):
    """In an outage kept-alive connections are cut and new ones refused; afterwards it all goes on at the same URL."""
    url = collector.url
    with connect(collector) as kept_alive:
        kept_alive.sendall(b"GET /i HTTP/1.1\r\n\r\n")
        assert kept_alive.recv(1000)

        collector.refuse_connections()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((collector.host, collector.port))
        rest = kept_alive.recv(1)
        collector.accept_connections()

    assert rest == b""
    assert collector.url == url
    assert get(session, collector, "first").status_code == 200


def test_outage_can_be_declared_and_ended_twice(collector, session):
    """Refusing and accepting connections twice is the same as once."""
    collector.refuse_connections()
    collector.refuse_connections()
    collector.accept_connections()
    collector.accept_connections()

    assert get(session, collector, "first").status_code == 200


def test_port_that_was_taken_in_an_outage_is_an_error(collector, session):
    """An outage cannot end while another server listens on the port."""
    collector.refuse_connections()

    with LocalCollector(port=collector.port), pytest.raises(OSError, match="in use"):
        collector.accept_connections()
    collector.accept_connections()

    assert session.get(collector.url + "/health").status_code == 200


def test_collector_can_be_closed_in_an_outage():
    """Closing ends an outage for good: the port is free."""
    with LocalCollector() as collector:
        collector.refuse_connections()

    with LocalCollector(port=collector.port) as successor:
        assert successor.port == collector.port


def test_outage_needs_a_started_collector(session):
    """A collector that is not started neither refuses nor accepts anything."""
    collector = LocalCollector()

    collector.refuse_connections()
    collector.accept_connections()

    with pytest.raises(RuntimeError):
        collector.url  # noqa: B018


def test_tls_is_trusted_with_the_certificate_file(session):
    """The certificate is good for the URL and for `localhost`, if its authority is trusted, and only then."""
    with LocalCollector(tls=True) as collector:
        by_url = session.get(collector.url + "/i?eid=first", verify=collector.certificate_file)
        by_name = session.get(f"https://localhost:{collector.port}/i?eid=second", verify=collector.certificate_file)
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(collector.url + "/i?eid=third", verify=True)

        assert collector.url == f"https://127.0.0.1:{collector.port}"
        assert (by_url.status_code, by_name.status_code) == (200, 200)
        assert event_ids(collector.payloads) == ["first", "second"]


@pytest.mark.skipif(not hasattr(ssl, "VERIFY_X509_STRICT"), reason="this OpenSSL is too old")
def test_certificate_passes_the_strict_check():
    """The certificate keeps to RFC 5280, which Python checks from 3.13 on."""
    with LocalCollector(tls=True) as collector, connect(collector) as sock:
        context = ssl.create_default_context(cafile=collector.certificate_file)
        context.verify_flags |= ssl.VERIFY_X509_STRICT

        with context.wrap_socket(sock, server_hostname="localhost") as tls_sock:
            subject = dict(pair for (pair,) in tls_sock.getpeercert()["subject"])

        assert subject["commonName"] == "localhost"


def test_silent_client_does_not_hold_up_a_handshake(session):
    """A client that connects and says nothing is in nobody's way."""
    with LocalCollector(tls=True) as collector, connect(collector):
        session.verify = collector.certificate_file

        assert get(session, collector, "first").status_code == 200
        assert collector.connections == 2


def test_failed_handshake_is_no_news(session, capfd):
    """A client that speaks HTTP to an HTTPS collector is hung up on in silence."""
    with LocalCollector(tls=True) as collector, connect(collector) as sock:
        sock.sendall(b"GET /i HTTP/1.1\r\n\r\n")
        answer = read_to_end(sock)

        assert not answer.startswith(b"HTTP/")
        assert collector.requests == []
    assert capfd.readouterr() == ("", "")


def test_nothing_happens_before_the_start():
    """A new collector has no port, no thread and no connection."""
    threads = threading.active_count()

    collector = LocalCollector()

    assert threading.active_count() == threads
    assert (collector.requests, collector.payloads, collector.connections) == ([], [], 0)
    with pytest.raises(RuntimeError, match="no port before it is started"):
        collector.port  # noqa: B018


def test_closing_ends_the_threads_of_connections_that_have_just_ended():
    """No thread outlives the collector, not even for the moment in which it ends by itself."""
    threads = threading.active_count()

    for _ in range(50):
        with LocalCollector() as collector, connect(collector) as sock:
            sock.sendall(b"GET /i HTTP/1.0\r\n\r\n")
            read_to_end(sock)
        assert threading.active_count() == threads


def test_starting_twice_is_starting_once(collector):
    """Starting a started collector changes nothing, in an outage neither."""
    port = collector.port

    assert collector.start() is collector
    collector.refuse_connections()
    collector.start()

    assert collector.port == port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((collector.host, port))


def test_closed_collector_can_be_read_and_started_again(session):
    """Closing keeps the records and the port."""
    with LocalCollector() as collector:
        get(session, collector, "first")
    url = collector.url

    with pytest.raises(requests.ConnectionError):
        get(session, collector, "lost")
    with collector:
        get(session, collector, "second")

    assert collector.url == url
    assert event_ids(collector.payloads) == ["first", "second"]


@pytest.mark.parametrize(
    ("port", "error"), [("x", TypeError), ("80", TypeError), (True, TypeError), (-1, ValueError), (65536, ValueError)]
)
def test_port_must_be_a_port(port, error):
    """What can be no port is refused by the constructor, by name."""
    with pytest.raises(error, match=f"^port must be .*, got {port!r}$"):
        LocalCollector(port=port)


def test_port_that_is_taken_is_an_error(collector):
    """A collector does not share its port."""
    with pytest.raises(OSError, match="in use"):
        LocalCollector(port=collector.port).start()


def test_request_that_was_recorded_is_answered_though_the_collector_closes():
    """Its client would send it again, and it would be there twice."""
    has_recorded = threading.Event()

    class ClosingCollector(LocalCollector):
        def _accepted(self, request):
            server = self._server
            has_recorded.set()
            server._stopping.wait(PATIENCE_SECONDS)

    with ClosingCollector() as collector, connect(collector) as sock:
        sock.sendall(b"GET /i?eid=first HTTP/1.1\r\n\r\n")
        has_recorded.wait(PATIENCE_SECONDS)

        collector.close()

        assert read_to_end(sock).startswith(b"HTTP/1.1 200 ")
    assert event_ids(collector.payloads) == ["first"]


def test_closing_does_not_wait_for_clients_that_do_not_take_their_answers(collector, monkeypatch):
    """A connection that nobody reads from is cut in the end."""
    monkeypatch.setattr(_http_server, "_LAST_ANSWERS_SECONDS", 0.0)
    collector.respond_with(Answer(body=b"x" * 50_000_000))
    with connect(collector) as sock:
        sock.sendall(b"GET /i?eid=first HTTP/1.1\r\n\r\n")
        sock.recv(1)

        collector.close()

        assert not any(thread.name.startswith("local-collector") for thread in threading.enumerate())


@pytest.mark.parametrize("answer", [Answer(delay_seconds=60), Answer(hold=threading.Event())], ids=["delay", "hold"])
def test_closing_does_not_wait_for_answers(session, answer):
    """Closing cuts held and delayed answers short and ends all threads, of idle connections too."""
    threads = threading.active_count()
    with LocalCollector() as collector, connect(collector), connect(collector) as sock:
        collector.respond_with(answer)
        sock.sendall(b"GET /i?eid=first HTTP/1.1\r\n\r\n")
        collector.wait_for_requests(1)
        before = time.monotonic()

        collector.close()
        collector.close()

        assert time.monotonic() - before < 5
        assert threading.active_count() == threads
        assert read_to_end(sock) == b""


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"status": "200"}, TypeError, "status must be an integer, got '200'"),
        ({"status": True}, TypeError, "status must be an integer, got True"),
        ({"status": 100}, ValueError, "status must be 200 to 599, got 100"),
        ({"status": 600}, ValueError, "status must be 200 to 599, got 600"),
        ({"delay_seconds": -1}, ValueError, "delay_seconds must be finite and not negative, got -1"),
        ({"delay_seconds": float("inf")}, ValueError, "delay_seconds must be finite and not negative, got inf"),
        ({"reset": "now"}, ValueError, "reset must be 'before_body' or 'after_body', got 'now'"),
        ({"headers": [("X", "a")]}, TypeError, r"headers must be a dict, got \[\('X', 'a'\)\]"),
        ({"headers": {"X": "\u2603"}}, ValueError, "headers must be in Latin-1, got 'X: \u2603'"),
        ({"headers": {"\u2603": "a"}}, ValueError, "headers must be in Latin-1, got '\u2603: a'"),
        ({"body": "ok"}, TypeError, "body must be bytes, got 'ok'"),
        ({"raw": "ok"}, TypeError, "raw must be bytes, got 'ok'"),
    ],
)
def test_answer_must_make_sense(options, error, message):
    """An answer that cannot be given is an error where it is made."""
    with pytest.raises(error, match=message):
        Answer(**options)


def test_connection_is_closed_whatever_goes_wrong(monkeypatch):
    """A subclass that raises leaves no client waiting."""
    failures = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: failures.append(failure.exc_type))

    class Broken(LocalCollector):
        def _accepted(self, _):
            raise ZeroDivisionError

    with Broken() as collector, connect(collector) as sock:
        sock.sendall(b"GET /i?eid=first HTTP/1.1\r\n\r\n")

        assert read_to_end(sock) == b""
    assert failures == [ZeroDivisionError]


@pytest.mark.parametrize("prepare", [LocalCollector.respond_with, LocalCollector.respond_always])
def test_bare_status_must_make_sense(prepare):
    """A bare status is checked when it is prepared."""
    with pytest.raises(ValueError, match="got 42"):
        prepare(LocalCollector(), 42)


@needs_fork
def test_forked_child_leaves_the_collector_alone(collector, session):
    """A child that closes its copy does not disturb the parent's collector, nor its connections."""
    post(session, collector, "before")

    with forked_child(collector.close):
        post(session, collector, "after")

    assert event_ids(collector.payloads) == ["before", "after"]
    assert collector.connections == 1


@needs_fork
def test_forked_child_does_not_keep_the_port_open(collector, session):
    """While a forked child lives, an outage is an outage, and the parent can end it."""
    with connect(collector) as kept_alive:
        kept_alive.sendall(b"GET /i HTTP/1.1\r\n\r\n")
        assert kept_alive.recv(1000)

        with forked_child():
            collector.refuse_connections()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((collector.host, collector.port))
            rest = kept_alive.recv(1)
            collector.accept_connections()
            status = get(session, collector, "first").status_code

    assert (rest, status) == (b"", 200)


def test_requests_at_the_exit_of_the_interpreter_are_served():
    """A collector in the process that exits still serves what `atexit` handlers send, and says nothing."""
    script = """
        import atexit, http.client
        from snowplow_tracker.testing import LocalCollector

        collector = LocalCollector().start()

        @atexit.register
        def send():
            for event_id in ("first", "second"):
                connection = http.client.HTTPConnection(collector.host, collector.port, timeout=10)
                connection.request("GET", f"/i?eid={event_id}")
                connection.getresponse().read()
                connection.close()
            collector.close()
            print([payload["eid"] for payload in collector.payloads])
    """

    process = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, timeout=60)

    assert process.stderr == b""
    assert process.stdout.decode().strip() == "['first', 'second']"


def test_without_new_threads_connections_are_served_in_turn(collector, monkeypatch):
    """Where no thread can be started, each connection is good for one request."""

    def refuse_to_start(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse_to_start)

    for _ in range(2):
        with connect(collector) as sock:
            sock.sendall(b"GET /i?eid=first HTTP/1.1\r\n\r\n")
            assert b"Connection: close\r\n" in read_to_end(sock)

    assert event_ids(collector.payloads) == ["first", "first"]


def test_connection_that_breaks_before_the_handshake_is_dropped():
    """A client that resets its connection before the collector can speak TLS to it disturbs nobody."""
    accepted, broken = threading.Event(), threading.Event()

    def connected():
        accepted.set()
        return broken.wait(10)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener = bind("127.0.0.1", 0)
    server = HttpServer(listener, lambda _: Answer(), connected, context)
    sock = socket.create_connection(listener.getsockname())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    accepted.wait(10)
    sock.close()
    broken.set()
    server.stop()

    assert not server._acceptor.is_alive()
    assert server._connections == {}


def test_connection_that_comes_while_stopping_is_dropped():
    """A connection that was accepted at the last moment does not outlive the server."""
    listener = bind("127.0.0.1", 0)
    accepted, stopping = threading.Event(), threading.Event()

    def connected():
        accepted.set()
        return stopping.wait(10)

    server = HttpServer(listener, lambda _: Answer(), connected)
    with closing(socket.create_connection(listener.getsockname(), timeout=10)) as sock, ThreadPoolExecutor() as pool:
        accepted.wait(10)
        stopped = pool.submit(server.stop)
        server._stopping.wait(10)
        stopping.set()
        stopped.result(10)

        assert sock.recv(1) == b""
        assert server._connections == {}
