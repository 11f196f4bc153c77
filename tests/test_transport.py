"""One HTTP exchange: connections, credentials, proxies, redirects, and the status that comes of it."""

import base64
import http.client
import threading
from types import SimpleNamespace

import pytest
import requests

from snowplow_tracker import Emitter, _transport
from snowplow_tracker._deadline import BoundedAdapter
from snowplow_tracker._retry import NO_RESPONSE
from snowplow_tracker._transport import (
    DEFAULT_TIMEOUT_SECONDS,
    SessionPool,
    Status,
    forget_connections,
    requester_for,
    status_of,
    within,
)
from snowplow_tracker.testing import Answer, LocalCollector

POST_PATH = "/com.snowplowanalytics.snowplow/tp2"
BODY = '{"schema":"iglu:any","data":[{"eid":"1"}]}'


@pytest.fixture
def pool():
    pool = SessionPool()
    yield pool
    pool.close()


def post(pool, collector, timeout=10):
    return pool.post(collector.url + POST_PATH, data=BODY, timeout=timeout)


def get(pool, collector):
    return pool.get(collector.url + "/i", params={"eid": "1"}, timeout=10)


def connections_of(collector):
    return [request.connection for request in collector.requests]


def is_closed(session):
    """Tell whether a session has no connections any more."""
    return not len(session.get_adapter("http://").poolmanager.pools)


def basic(credentials):
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def run_in_threads(*actions):
    threads = [threading.Thread(target=action, daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    return threads


def test_request_arrives_as_it_would_by_requests(pool, collector):
    """Body, headers and parameters are passed on, and the response is one of `requests`."""
    response = pool.post(collector.url + POST_PATH, data=BODY, headers={"X-Mine": "yes"}, timeout=10)
    get(pool, collector)

    posted, got = collector.requests
    assert (posted.method, posted.body, posted.headers["x-mine"]) == ("POST", BODY.encode(), "yes")
    assert (got.method, got.query) == ("GET", {"eid": "1"})
    assert isinstance(response, requests.Response)
    assert response.status_code == 200


def test_connection_is_kept_alive(pool, collector):
    """Many requests, GET and POST, go through one connection."""
    for _ in range(5):
        post(pool, collector)
        get(pool, collector)

    assert collector.connections == 1


@pytest.mark.parametrize("status", [204, 404, 500, 503])
def test_connection_is_kept_alive_after_any_status(pool, collector, status):
    """A failure costs no new connection."""
    collector.respond_with(status)

    post(pool, collector)
    post(pool, collector)

    assert connections_of(collector) == [1, 1]


def test_requests_at_once_have_a_connection_each(pool, collector):
    """Threads do not wait for each other, and what they leave idle is used again."""
    release = threading.Event()
    collector.respond_with(Answer(hold=release), Answer(hold=release))
    threads = run_in_threads(lambda: post(pool, collector), lambda: post(pool, collector))
    collector.wait_for_requests(2)

    release.set()
    for thread in threads:
        thread.join(10)
    post(pool, collector)

    assert collector.connections == 2


def test_https_connection_is_kept_alive(pool, monkeypatch):
    """The TLS handshake is made once, with the CA bundle of the environment."""
    with LocalCollector(tls=True) as collector:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", collector.certificate_file)

        statuses = [post(pool, collector).status_code for _ in range(3)]

    assert statuses == [200, 200, 200]
    assert collector.connections == 1


def test_certificate_of_an_unknown_authority_is_refused(pool):
    """Without the CA bundle there is no connection to the same collector."""
    with LocalCollector(tls=True) as collector, pytest.raises(requests.exceptions.SSLError):
        post(pool, collector)

    assert collector.requests == []


def test_cookies_are_not_stored(pool, collector):
    """A shared `sp` cookie would give all events one network user id."""
    collector.respond_always(Answer(headers={"Set-Cookie": "sp=everybody; Path=/"}))

    post(pool, collector)
    response = post(pool, collector)

    assert response.headers["Set-Cookie"] == "sp=everybody; Path=/"
    assert ["cookie" in request.headers for request in collector.requests] == [False, False]


def test_netrc_is_not_read(pool, collector, monkeypatch, tmp_path):
    """Credentials that lie in the home directory are for other programs."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    requests.get(f"{collector.url}/i", timeout=10)

    post(pool, collector)

    by_requests, by_pool = collector.requests
    assert by_requests.headers["authorization"] == basic("ann:secret")
    assert "authorization" not in by_pool.headers


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [("ann:secret", "ann:secret"), ("ann:", "ann:"), (":key", ":key"), ("a%40b:s%3Ac%2Fr", "a@b:s:c/r")],
)
def test_credentials_in_the_url_authenticate(pool, collector, userinfo, credentials):
    """A collector behind basic authentication gets them, decoded, with each request."""
    url = collector.url.replace("://", f"://{userinfo}@")

    pool.post(url + POST_PATH, data=BODY, timeout=10)
    pool.get(url + "/i", timeout=10)

    assert [request.headers.get("authorization") for request in collector.requests] == [basic(credentials)] * 2


def test_credentials_go_along_with_a_redirect_to_the_same_host(pool, collector):
    """A collector that moved its route still knows who comes."""
    collector.respond_with(Answer(307, headers={"Location": f"/v2{POST_PATH}"}))
    url = collector.url.replace("://", "://ann:secret@")

    response = pool.post(url + POST_PATH, data=BODY, timeout=10)

    assert response.status_code == 200
    assert [request.headers.get("authorization") for request in collector.requests] == [basic("ann:secret")] * 2


def test_credentials_stay_behind_at_a_redirect_to_another_host(pool, collector):
    """Nobody else gets to see them."""
    with LocalCollector() as other:
        collector.respond_with(Answer(307, headers={"Location": other.url + POST_PATH}))
        url = collector.url.replace("://", "://ann:secret@")

        pool.post(url + POST_PATH, data=BODY, timeout=10)

    assert len(other.requests) == 1
    assert "authorization" not in other.requests[0].headers


def test_proxy_of_the_environment_is_used(pool, collector, monkeypatch):
    """The collector stands in for a proxy, because the host does not exist."""
    monkeypatch.setenv("http_proxy", collector.url)

    response = pool.post(f"http://collector.invalid{POST_PATH}", data=BODY, timeout=10)

    assert response.status_code == 200
    assert collector.requests[0].headers["host"] == "collector.invalid"


def test_no_proxy_of_the_environment_is_used(pool, collector, monkeypatch):
    """A host that is excepted is reached directly."""
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    assert post(pool, collector).status_code == 200


def test_environment_counts_at_the_next_request(pool, collector, monkeypatch):
    """A connection that is kept alive leads to where the last request went, and the next may have to go elsewhere."""
    with LocalCollector() as proxy:
        for _ in range(2):
            post(pool, collector)
            monkeypatch.setenv("http_proxy", proxy.url)
            post(pool, collector)
            monkeypatch.delenv("http_proxy")

    assert (len(collector.requests), collector.connections) == (2, 1)
    assert (len(proxy.requests), proxy.connections) == (2, 1)


@pytest.mark.skipif(
    not hasattr(requests.adapters.HTTPAdapter, "get_connection_with_tls_context"),
    reason="before 2.32, requests keeps its connections whatever it is to trust",
)
def test_certificates_count_at_the_next_request(pool, monkeypatch):
    """A connection is not used any more when other authorities are to be trusted."""
    with LocalCollector(tls=True) as collector:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", collector.certificate_file)
        post(pool, collector)
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with pytest.raises(requests.exceptions.SSLError):
            post(pool, collector)

    assert len(collector.requests) == 1


def test_adapter_that_is_closed_can_be_used_again(collector):
    """As any of `requests`: it makes new connections."""
    session = requests.Session()
    session.mount("http://", BoundedAdapter())

    for _ in range(2):
        session.post(collector.url + POST_PATH, data=BODY, timeout=10)
        session.post(collector.url + POST_PATH, data=BODY, timeout=10)
        session.close()

    assert connections_of(collector) == [1, 1, 2, 2]


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_connection_that_was_closed_while_idle_costs_nothing(pool, monkeypatch, tls):
    """The next request goes out on a fresh one, and only once."""
    with LocalCollector(tls=tls) as collector:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", collector.certificate_file)
        collector.respond_with(Answer(close_connection=True))

        statuses = [post(pool, collector).status_code for _ in range(3)]

    assert statuses == [200, 200, 200]
    assert connections_of(collector) == [1, 2, 2]


CUT = {
    "closed": Answer(raw=b""),
    "reset before the body": Answer(reset="before_body"),
    "reset after the body": Answer(reset="after_body"),
}


@pytest.mark.parametrize("answer", CUT.values(), ids=CUT)
@pytest.mark.parametrize("send", [post, get])
def test_request_that_met_a_closing_connection_is_repeated_at_once(pool, collector, answer, send):
    """The peer ended a kept-alive connection at the moment of its use, which says nothing about the request."""
    collector.respond_with(200, answer, 200)
    send(pool, collector)

    response = send(pool, collector)

    assert response.status_code == 200
    assert connections_of(collector) == [1, 1, 2]


def test_request_that_met_a_closing_tls_connection_is_repeated_at_once(pool, monkeypatch):
    """The same goes for HTTPS."""
    with LocalCollector(tls=True) as collector:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", collector.certificate_file)
        collector.respond_with(200, Answer(raw=b""), 200)
        post(pool, collector)

        response = post(pool, collector)

    assert response.status_code == 200
    assert connections_of(collector) == [1, 1, 2]


def test_request_is_repeated_on_a_fresh_connection(pool, collector):
    """Not on another idle one, which the peer may have closed as well."""
    release = threading.Event()
    collector.respond_with(Answer(hold=release), Answer(hold=release), Answer(raw=b""), 200)
    threads = run_in_threads(lambda: post(pool, collector), lambda: post(pool, collector))
    collector.wait_for_requests(2)
    release.set()
    for thread in threads:
        thread.join(10)

    post(pool, collector)

    assert connections_of(collector)[-1] == 3


@pytest.mark.parametrize("answer", CUT.values(), ids=CUT)
def test_request_is_repeated_once_only(pool, collector, answer):
    """If the fresh connection is cut as well, the request has failed."""
    collector.respond_with(200, answer, answer)
    post(pool, collector)

    with pytest.raises(requests.ConnectionError):
        post(pool, collector)

    assert connections_of(collector) == [1, 1, 2]


@pytest.mark.parametrize("answer", CUT.values(), ids=CUT)
def test_first_request_is_not_repeated(pool, collector, answer):
    """On a fresh connection a cut is a failure like any other, and for the backoff."""
    collector.respond_with(answer)

    with pytest.raises(requests.ConnectionError):
        post(pool, collector)

    assert len(collector.requests) == 1


def test_garbage_is_not_asked_for_again(pool, collector):
    """A kept-alive connection that answers something else than HTTP was not closed by the peer."""
    collector.respond_with(200, Answer(raw=b"garbage\r\n\r\n"))
    post(pool, collector)

    with pytest.raises(requests.ConnectionError):
        post(pool, collector)

    assert len(collector.requests) == 2


def test_timeout_is_not_repeated(pool, collector):
    """A collector that is too slow would only get more to do."""
    release = threading.Event()
    collector.respond_with(200, Answer(hold=release))
    post(pool, collector)

    with pytest.raises(requests.Timeout):
        post(pool, collector, timeout=0.05)
    arrived = collector.wait_for_requests(2)
    release.set()

    assert len(arrived) == 2


def test_connection_of_a_failed_request_is_not_used_again(pool, collector):
    """What comes late on it would be taken for the answer to another request."""
    release = threading.Event()
    collector.respond_with(Answer(503, hold=release))
    with pytest.raises(requests.Timeout):
        post(pool, collector, timeout=0.05)
    collector.wait_for_requests(1)

    release.set()
    response = post(pool, collector)

    assert response.status_code == 200
    assert connections_of(collector) == [1, 2]


def test_interrupted_request_leaves_a_usable_pool(pool, collector, monkeypatch):
    """Ctrl-C in the middle of a request propagates, and the session that it hit is closed."""
    post(pool, collector)
    [session] = pool._idle

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(requests.adapters.HTTPAdapter, "send", interrupt)
        with pytest.raises(KeyboardInterrupt):
            post(pool, collector)
    post(pool, collector)

    assert connections_of(collector) == [1, 2]
    assert is_closed(session)


def test_short_answer_is_read_so_that_its_connection_can_be_used_again(pool, collector):
    """65,536 bytes are few enough."""
    collector.respond_with(Answer(body=b"x" * 65_536))

    post(pool, collector)
    post(pool, collector)

    assert connections_of(collector) == [1, 1]


def test_oversized_answer_is_not_read_to_its_end(pool, collector):
    """Its status counts, and its connection is given up."""
    collector.respond_with(Answer(201, body=b"x" * 10_000_000))

    response = post(pool, collector)
    post(pool, collector)

    assert response.status_code == 201
    assert response.raw.closed
    assert connections_of(collector) == [1, 2]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", b"HTTP/1.1 200 OK\r\n\r\nok"])
def test_answer_that_breaks_off_has_its_status(pool, collector, answer):
    """The collector took the payloads; the rest of its answer does not matter."""
    collector.respond_with(Answer(raw=answer))

    response = post(pool, collector)

    assert response.status_code == 200


def test_answer_that_breaks_off_by_a_reset_has_its_status(pool, collector, monkeypatch):
    """The same if the operating system says so."""
    collector.respond_with(Answer(body=b"x" * 100))

    def reset(*_, **__):
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr("urllib3.response.HTTPResponse.read", reset)
        patch.setattr("urllib3.response.HTTPResponse.read1", reset, raising=False)
        response = post(pool, collector)

    assert response.status_code == 200
    assert response.raw.closed


def test_answer_without_a_stream_is_taken(pool, collector, monkeypatch):
    """Libraries that fake HTTP answers below `requests` may give none."""

    def answer(adapter, request, **_):
        response = requests.Response()
        response.status_code, response.request, response.url = 202, request, request.url
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", answer)

    assert post(pool, collector).status_code == 202


def test_closed_pool_stays_usable(pool, collector):
    """Its connections are closed, and new ones are made."""
    post(pool, collector)
    [session] = pool._idle

    pool.close()
    post(pool, collector)

    assert connections_of(collector) == [1, 2]
    assert is_closed(session)


def test_connection_that_comes_back_while_others_are_closed_is_closed(pool, collector):
    """A thread that has its answer at that moment leaves no connection in a list that nobody looks at any more."""
    post(pool, collector)
    [first] = pool._idle
    idle, last = pool._idle, requests.Session()
    last.get(f"{collector.url}/i", timeout=10)

    class ComesBackLate(requests.Session):
        def close(self):
            idle.insert(0, last)

    idle.append(ComesBackLate())
    pool.close()

    assert pool._idle == []
    assert is_closed(first)
    assert is_closed(last)


def test_forgotten_connections_are_not_used_and_not_closed(pool, collector):
    """A forked child makes its own, while its parent goes on using the old ones."""
    post(pool, collector)
    [parents] = pool._idle

    pool.forget()
    post(pool, collector)
    parents.post(collector.url + POST_PATH, data=BODY, timeout=10)

    assert connections_of(collector) == [1, 2, 1]
    parents.close()


def test_session_of_the_application_gets_new_connections(collector):
    """A forked child does not share the connections of its parent, which stay open."""
    with requests.Session() as session:
        session.get(f"{collector.url}/i", timeout=10)
        parents = session.get_adapter(collector.url).poolmanager

        forget_connections(session)
        session.get(f"{collector.url}/i", timeout=10)
        own = session.get_adapter(collector.url).poolmanager

    assert own is not parents
    assert connections_of(collector) == [1, 2]
    parents.clear()


def test_adapter_of_another_kind_is_left_alone():
    """What is no `HTTPAdapter` has connections that nobody else can know."""

    class Adapter(requests.adapters.BaseAdapter):
        def __init__(self):
            super().__init__()
            self.state = "untouched"

        def close(self):
            pass

    with requests.Session() as session:
        adapter = Adapter()
        session.mount("http://", adapter)

        forget_connections(session)

        assert session.get_adapter("http://localhost") is adapter
        assert adapter.state == "untouched"


@pytest.mark.parametrize(
    "session", [None, object(), SimpleNamespace(adapters=None)], ids=["none", "object", "likeness"]
)
def test_session_of_another_kind_is_left_alone(session):
    """Only a session of `requests` is known well enough."""
    forget_connections(session)


@pytest.mark.parametrize("status", [301, 302, 303])
def test_redirect_that_loses_the_payloads_has_its_own_status(pool, collector, status):
    """A POST that would become a GET delivers nothing, so the target is not even asked."""
    collector.respond_with(Answer(status, headers={"Location": "/i"}), 200)

    response = post(pool, collector)

    assert [request.method for request in collector.requests] == ["POST"]
    assert status_of(response) == status


@pytest.mark.parametrize("status", [307, 308])
def test_redirect_that_keeps_the_payloads_has_the_status_of_its_target(pool, collector, status):
    """A POST that stays a POST arrives."""
    collector.respond_with(Answer(status, headers={"Location": f"/v2{POST_PATH}"}), 201)

    response = post(pool, collector)

    assert [(request.method, request.body) for request in collector.requests] == [("POST", BODY.encode())] * 2
    assert status_of(response) == 201


def test_redirect_after_a_redirect_that_keeps_the_payloads_may_lose_them(pool, collector):
    """Of several redirects the one that made a GET of the POST counts."""
    collector.respond_with(
        Answer(307, headers={"Location": f"/v2{POST_PATH}"}), Answer(302, headers={"Location": "/i"}), 200
    )

    assert status_of(post(pool, collector)) == 302


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirected_get_has_the_status_of_its_target(pool, collector, status):
    """A GET keeps its payload in the URL that the collector made of it."""
    collector.respond_with(Answer(status, headers={"Location": "/v2/i?eid=1"}), 204)

    assert status_of(get(pool, collector)) == 204


@pytest.mark.parametrize("own_session", [False, True])
@pytest.mark.parametrize("location", ["/i", "/login", "/i?eid=2", "/i?e=pv"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_that_loses_the_payload_of_a_get_has_its_own_status(pool, collector, status, location, own_session):
    """A target that never saw the event has not taken it, whatever it answers."""
    collector.respond_with(Answer(status, headers={"Location": location}), 200)

    with requests.Session() as session:
        response = get(session if own_session else pool, collector)

    assert status_of(response) == status


def test_get_may_lose_its_payload_in_a_later_redirect(pool, collector):
    """Of several redirects the one that lost the event counts."""
    collector.respond_with(
        Answer(301, headers={"Location": "/v2/i?eid=1"}), Answer(302, headers={"Location": "/login/i"}), 200
    )

    assert status_of(get(pool, collector)) == 302


def test_loop_of_redirects_ends_soon(pool, collector):
    """One attempt makes six requests at the most, because a collector that redirects to itself is a sick one."""
    collector.respond_always(Answer(308, headers={"Location": "/i"}))

    with pytest.raises(requests.TooManyRedirects):
        get(pool, collector)

    assert len(collector.requests) == 6


@pytest.mark.parametrize("interim", [102, 103])
def test_connection_is_not_kept_after_an_interim_answer(pool, collector, interim):
    """The final answer that follows is for that request, and never for the next one."""
    collector.respond_with(
        Answer(raw=b"HTTP/1.1 %d Interim\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" % interim)
    )

    response = post(pool, collector)

    assert status_of(response) == interim
    assert pool._idle == []


def test_retry_after_is_read_from_the_answer(pool, collector):
    """The status carries what the collector asked for."""
    collector.respond_with(Answer(503, headers={"Retry-After": "7"}))

    status = status_of(post(pool, collector))

    assert (status, status.retry_after_seconds, status.error) == (503, 7.0, None)


def test_answer_without_retry_after_asks_for_nothing(pool, collector):
    """No header, no wait."""
    assert status_of(post(pool, collector)).retry_after_seconds == 0.0


@pytest.mark.parametrize("value", [200, 503, NO_RESPONSE])
def test_bare_status_code_is_a_status(value):
    """An override may return an int."""
    status = status_of(value)

    assert isinstance(status, Status)
    assert (status, status.retry_after_seconds, status.error) == (value, 0.0, None)


def test_status_is_passed_on_as_it_is():
    """What it carries is not lost on the way."""
    status = Status(503, 7.0)

    assert status_of(status) is status


@pytest.mark.parametrize(
    "headers",
    [None, "Retry-After: 7", [("Retry-After", "7")], {"Retry-After": 7}, {}],
    ids=["none", "str", "list", "int", "empty"],
)
def test_likeness_of_a_response_is_a_status(headers):
    """An override may return whatever has a `status_code`, with headers or without."""
    status = status_of(SimpleNamespace(status_code=503, headers=headers))

    assert (status, status.retry_after_seconds) == (503, 0.0)


def test_likeness_of_a_response_may_have_a_history_without_requests():
    """What the history does not tell does not count."""
    response = SimpleNamespace(status_code=200, history=[SimpleNamespace(status_code=302)])

    assert status_of(response) == 200


@pytest.mark.parametrize(
    "value",
    [None, True, "200", 200.0, b"200", object(), SimpleNamespace(status_code="200"), SimpleNamespace(status_code=True)],
    ids=repr,
)
def test_anything_else_is_no_response(value):
    """It is told what came instead."""
    status = status_of(value)

    assert status == NO_RESPONSE
    assert status.error == f"neither a status code nor a response: {value!r}"


def test_no_response_tells_no_more_than_can_be_read():
    """An exception whose text is huge fills neither the log nor the memory; the reason behind a long URL stays."""
    huge = Status.no_response(OSError("x" * 1_000_000))
    long_url = Status.no_response(OSError(f"for url: /i?{'x' * 1_000_000} (refused)"))

    assert len(huge.error) == 1_000
    assert long_url.error == "OSError: for url: /i?... (refused)"


def test_exception_that_cannot_be_printed_is_no_response():
    """An override may raise anything; its type is told."""

    class UnprintableError(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    status = Status.no_response(UnprintableError())

    assert status == NO_RESPONSE
    assert status.error.startswith("UnprintableError: ")


def test_no_response_tells_why():
    """An exception is told with its type, anything else as it prints."""
    by_exception = Status.no_response(ValueError("broken"))
    by_text = Status.no_response("gone")

    assert (by_exception, by_exception.error) == (NO_RESPONSE, "ValueError: broken")
    assert (by_text, by_text.error) == (NO_RESPONSE, "gone")


def test_default_timeout_is_finite():
    """10 s to connect and 30 s to read."""
    assert DEFAULT_TIMEOUT_SECONDS == (10.0, 30.0)


@pytest.mark.parametrize(
    ("timeout", "remaining", "expected"),
    [
        ((10.0, 30.0), 4.0, (1.0, 3.0)),
        ((10.0, 30.0), 400.0, (10.0, 30.0)),
        ([0.5, 30.0], 4.0, (0.5, 3.0)),
        (2.0, 4.0, (1.0, 2.0)),
        (2, 400.0, (2, 2)),
    ],
)
def test_timeout_is_cut_to_what_is_left(timeout, remaining, expected):
    """To connect and to read take no longer than the time that is left, together."""
    assert within(timeout, remaining) == expected


def test_pool_sends_what_nobody_claims(pool):
    """Without a session, and with `requests` as it is, the requests are the pool's."""
    requester = requester_for(None, requests, pool)

    assert (requester.post, requester.get) == (pool.post, pool.get)


def test_session_of_the_application_wins(pool, monkeypatch):
    """It counts before a replaced function of `requests`."""
    monkeypatch.setattr(requests, "post", print)
    session = SimpleNamespace(post=object(), get=object())

    requester = requester_for(session, requests, pool)

    assert (requester.post, requester.get) == (session.post, session.get)


@pytest.mark.parametrize("method", ["post", "get"])
def test_each_function_of_requests_is_replaced_on_its_own(pool, monkeypatch, method):
    """To replace the one leaves the other to the pool."""
    monkeypatch.setattr(requests, method, print)

    requester = requester_for(None, requests, pool)

    assert {"post": requester.post, "get": requester.get} == {"post": pool.post, "get": pool.get, method: print}


@pytest.mark.parametrize("target", ["requests", "snowplow_tracker.emitters.requests"])
@pytest.mark.parametrize("method", ["post", "get"])
def test_emitter_calls_a_replaced_function_of_requests(monkeypatch, target, method):
    """A mock or a wrapper of the application is called with the arguments of old, wherever it was put."""
    calls = []

    def replacement(*arguments, **options):
        calls.append((arguments, options))
        return SimpleNamespace(status_code=200)

    monkeypatch.setattr(f"{target}.{method}", replacement)
    emitter = Emitter("http://collector.invalid", method=method, batch_size=1)

    emitter.input({"eid": "1"})

    assert [arguments for arguments, _ in calls] == [(emitter.endpoint,)]
    assert emitter.stats().delivered == 1


class RecordingSession:
    def __init__(self):
        self.calls = []

    def post(self, *arguments, **options):
        self.calls.append(("post", arguments, options))
        return SimpleNamespace(status_code=200)

    def get(self, *arguments, **options):
        self.calls.append(("get", arguments, options))
        return SimpleNamespace(status_code=200)


def test_session_posts_with_exactly_the_documented_arguments():
    """`session.post(url, data=, headers=, timeout=)`, and nothing else."""
    session = RecordingSession()
    emitter = Emitter("http://collector.invalid", batch_size=1, session=session, request_timeout=(3, 4))
    bodies = []
    emitter.on_success = bodies.extend

    emitter.input({"eid": "1"})

    [(method, arguments, options)] = session.calls
    assert (method, arguments) == ("post", (emitter.endpoint,))
    assert set(options) == {"data", "headers", "timeout"}
    assert options["timeout"] == (3, 4)
    assert options["headers"] == {"Content-Type": "application/json; charset=utf-8"}
    assert f'"stm":"{bodies[0]["stm"]}"' in options["data"]


def test_session_gets_with_exactly_the_documented_arguments():
    """`session.get(url, params=, timeout=)`, and nothing else."""
    session = RecordingSession()
    emitter = Emitter("http://collector.invalid", method="get", session=session, request_timeout=5)
    delivered = []
    emitter.on_success = delivered.extend

    emitter.input({"eid": "1"})

    assert session.calls == [("get", (emitter.endpoint,), {"params": delivered[0], "timeout": 5})]


def test_session_of_the_application_sends_the_requests(collector):
    """Headers that it carries arrive, and its connection is kept alive."""
    with requests.Session() as session:
        session.headers["X-Mine"] = "yes"
        emitter = Emitter(collector.url, batch_size=1, session=session)

        emitter.input({"eid": "1"})
        emitter.input({"eid": "2"})

    assert [request.headers["x-mine"] for request in collector.requests] == ["yes", "yes"]
    assert collector.connections == 1


def test_adapter_of_another_kind_closes_itself(pool, collector):
    """Closing knows the connections of an `HTTPAdapter` only; another adapter closes its own."""
    post(pool, collector)
    closed = []

    class Other(requests.adapters.BaseAdapter):
        def close(self):
            closed.append(self)

    pool._idle[0].mount("other://", Other())
    pool.close()

    assert len(closed) == 1


@pytest.mark.parametrize("method", ["post", "get"])
def test_request_is_sent_in_one_piece(collector, monkeypatch, method):
    """Its head does not go ahead of its body, and each piece would be one more chance to wait for other threads."""
    pieces, send = [], http.client.HTTPConnection.send

    def recording(connection, data):
        pieces.append(bytes(data))
        send(connection, data)

    monkeypatch.setattr(http.client.HTTPConnection, "send", recording)
    emitter = Emitter(collector.url, method=method, batch_size=1)
    for number in range(2):
        emitter.input({"e": "pv", "eid": str(number)})

    assert [piece.split(b" ")[0].decode().lower() for piece in pieces] == [method, method]
    assert [payload["eid"] for payload in collector.payloads] == ["0", "1"]


def test_answer_is_read_to_its_announced_end_only():
    """Where its length is known, nobody asks for more."""
    reads = []

    def read1(size):
        reads.append(size)
        raw.length_remaining = 0
        return b"ok"

    raw = SimpleNamespace(read1=read1, read=None, length_remaining=2)
    response = SimpleNamespace(raw=raw, close=lambda: reads.append("closed"))

    _transport._read_answer(response)

    assert len(reads) == 1
    assert reads != ["closed"]


def test_parameters_of_a_get_need_not_be_a_dict(collector):
    """An override of `http_get` may put a query of its own together, as `requests` takes it."""
    emitter = Emitter(collector.url, method="get")

    assert emitter.http_get("e=pv&eid=1") == 200
    assert emitter.http_get([("e", "pv"), ("eid", "2")]) == 200

    assert [payload["eid"] for payload in collector.payloads] == ["1", "2"]
