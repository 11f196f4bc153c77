"""Delivery through a real nginx: what it refuses, redirects, closes, limits and restarts costs no payload."""

import logging
import threading
from collections import Counter

import pytest
import requests
from nginx import PROGRAM, Nginx
from support import PATIENCE_SECONDS, eids, eventually, is_balanced, numbered, with_manual_timers

from snowplow_tracker import AsyncEmitter, Emitter
from snowplow_tracker.testing import Answer

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs nginx, of the distribution's package nginx-light")

POST_PATH = "/com.snowplowanalytics.snowplow/tp2"
both = pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
both_methods = pytest.mark.parametrize("method", ["post", "get"])


@pytest.fixture
def nginx(tmp_path):
    with Nginx(tmp_path) as nginx:
        yield nginx


@pytest.fixture
def trusted(monkeypatch, collector):
    """Trust the authority of the certificate that nginx presents."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", collector.certificate_file)


def sent(emitter, payloads):
    for payload in payloads:
        emitter.input(payload)
    emitter.sync_flush()


def limited(status, rate):
    """Configure nginx to refuse what comes faster, and to ask for a pause; it does so even where it refuses nothing."""
    return (
        f"limit_req_zone $binary_remote_addr zone=all:64k rate={rate}; limit_req zone=all; limit_req_status {status};"
        "add_header Retry-After 7 always;"
    )


def logged(caplog, level):
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def complaints(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def answered_well(nginx, collector):
    """Count, for each event, the requests with it that nginx answered well, so that the emitter could know of them."""
    status_of = {answer.request_id: answer.status for answer in nginx.answers()}
    good = [request for request in collector.requests if status_of.get(request.headers["x-request-id"]) in (200, 202)]
    return Counter(eid for request in good for eid in eids(request.payloads))


@both
@pytest.mark.parametrize(("limit", "size"), [(2_000, 100), (100_000, 20_000)], ids=["small", "large"])
def test_batch_over_the_body_limit_of_nginx_is_sent_in_halves(nginx, collector, caplog, emitter_class, limit, size):
    """A 413 to several payloads splits them until they fit; it is no failure, even if it comes before all is read."""
    nginx.start_before(collector, f"client_max_body_size {limit};")
    emitter = emitter_class(nginx.url, batch_size=1_000)

    sent(emitter, [{**payload, "ue_pr": "x" * size} for payload in numbered(40)])

    stats = emitter.stats()
    assert eids(collector.payloads) == eids(numbered(40))
    assert max(len(request.body) for request in collector.requests) <= limit
    assert (stats.delivered, stats.retries, stats.buffered) == (40, 0, 0)
    assert 413 in [answer.status for answer in nginx.answers(stats.requests)]
    assert complaints(caplog) == []


@both
def test_payload_over_the_body_limit_of_nginx_is_rejected_alone(nginx, collector, caplog, emitter_class):
    """A 413 to a single payload is for good, reported and logged; the payloads around it arrive."""
    nginx.start_before(collector, "client_max_body_size 2000;")
    reports = []
    emitter = emitter_class(
        nginx.url, batch_size=100, on_failure=lambda count, unsent: reports.append((count, eids(unsent)))
    )
    payloads = numbered(5)
    payloads[3]["ue_pr"] = "x" * 2_000

    sent(emitter, payloads)

    stats = emitter.stats()
    assert eids(collector.payloads) == ["0", "1", "2", "4"]
    assert reports == [(4, ["3"])]
    assert (stats.delivered, stats.rejected, stats.buffered) == (4, 1, 0)
    assert complaints(caplog) == ["Lost 1 payloads: the collector answered 413"]


@both
@pytest.mark.parametrize("is_own", [False, True], ids=["pool", "session"])
def test_post_that_nginx_redirects_to_https_is_kept(nginx, collector, trusted, caplog, emitter_class, is_own):
    """A 301 turns a POST into a GET without payloads, so it is a failure; they are sent when it is gone."""
    session = requests.Session() if is_own else None
    nginx.start(
        f"server {{ listen {nginx.address}; return 301 {nginx.tls_url}$request_uri; }}"
        f"server {{ listen {nginx.tls_address} ssl; location / {{ proxy_pass {collector.url}; }} }}"
    )
    emitter = with_manual_timers(emitter_class(nginx.url, batch_size=100, session=session))

    sent(emitter, numbered(3))
    redirected = emitter.stats()
    nginx.stop()
    nginx.start_before(collector)
    emitter.sync_flush()

    [warning] = logged(caplog, logging.WARNING)
    assert (redirected.last_status, redirected.buffered, redirected.delivered) == (301, 3, 0)
    assert warning.startswith("Status 301: 3 payloads will be retried in ")
    assert f"({nginx.url}{POST_PATH})" in warning
    assert eids(collector.payloads) == ["0", "1", "2"]
    assert [request.method for request in collector.requests] == (["GET", "POST"] if is_own else ["POST"])
    assert is_balanced(emitter)
    if session is not None:
        session.close()


def redirect_to_tls(nginx, collector, status):
    nginx.start(
        f"server {{ listen {nginx.address}; return {status} {nginx.tls_url}$request_uri; }}"
        f"server {{ listen {nginx.tls_address} ssl; location / {{ proxy_pass {collector.url}; }} }}"
    )


@both
@pytest.mark.parametrize("status", [307, 308])
def test_post_follows_a_redirect_to_https_that_keeps_it(nginx, collector, trusted, caplog, emitter_class, status):
    """A 307 or 308 asks for the same request elsewhere, payloads included."""
    redirect_to_tls(nginx, collector, status)
    emitter = emitter_class(nginx.url, batch_size=100)

    sent(emitter, numbered(3))
    sent(emitter, numbered(3, start=3))

    assert [eids(request.payloads) for request in collector.requests] == [["0", "1", "2"], ["3", "4", "5"]]
    assert emitter.stats().requests == 2
    assert complaints(caplog) == []


@both
@pytest.mark.parametrize("status", [301, 308])
def test_get_follows_a_redirect_to_https(nginx, collector, trusted, caplog, emitter_class, status):
    """The payload is in the URL, and stays there."""
    redirect_to_tls(nginx, collector, status)
    emitter = emitter_class(nginx.url, method="get", batch_size=3)

    sent(emitter, numbered(3))

    assert eids(collector.payloads) == ["0", "1", "2"]
    assert complaints(caplog) == []


@both
@pytest.mark.parametrize(("tls", "method"), [(False, "post"), (False, "get"), (True, "post")])
def test_connection_that_nginx_closed_while_idle_costs_nothing(
    nginx, collector, trusted, caplog, emitter_class, method, tls
):
    """After `keepalive_timeout` the next payload leaves at once, and no failure is counted or logged."""
    nginx.start_before(collector, "keepalive_timeout 20ms;")
    emitter = emitter_class(nginx.tls_url if tls else nginx.url, method=method, batch_size=10)

    for payload in numbered(3):
        sent(emitter, [payload])
        eventually(lambda: nginx.open_connections() == 0)

    stats = emitter.stats()
    assert eids(collector.payloads) == ["0", "1", "2"]
    assert len({answer.connection for answer in nginx.answers(3)}) == 3
    assert (stats.requests, stats.retries, stats.last_error) == (3, 0, None)
    assert complaints(caplog) == []


@both
@both_methods
def test_connection_that_nginx_closes_at_the_moment_of_its_use_costs_nothing(
    nginx, collector, caplog, emitter_class, method
):
    """Whoever wins the race between the next request and the end of the connection, the payload arrives once."""
    nginx.start_before(collector, "keepalive_timeout 1ms;")
    emitter = emitter_class(nginx.url, method=method, batch_size=10)

    for payload in numbered(40):
        sent(emitter, [payload])

    stats = emitter.stats()
    assert eids(collector.payloads) == eids(numbered(40))
    assert (stats.requests, stats.retries, stats.last_error) == (40, 0, None)
    assert complaints(caplog) == []


@both
@both_methods
@pytest.mark.parametrize(("limit", "connections"), [(1, 6), (2, 3)])
def test_connections_that_nginx_limits_to_few_requests_cost_nothing(
    nginx, collector, caplog, emitter_class, method, limit, connections
):
    """After `keepalive_requests` the emitter goes on with a new connection."""
    nginx.start_before(collector, f"keepalive_requests {limit};")
    emitter = emitter_class(nginx.url, method=method, batch_size=10)

    for payload in numbered(6):
        sent(emitter, [payload])

    assert eids(collector.payloads) == eids(numbered(6))
    assert len({answer.connection for answer in nginx.answers(6)}) == connections
    assert emitter.stats().retries == 0
    assert complaints(caplog) == []


@both
@both_methods
@pytest.mark.parametrize("status", [429, 503])
def test_pause_that_nginx_asks_for_is_kept(nginx, collector, emitter_class, method, status):
    """`Retry-After` of a refused request is the least time to the next one, and meanwhile payloads only gather."""
    nginx.start_before(collector, limited(status, "1r/m"))
    emitter = with_manual_timers(emitter_class(nginx.url, method=method, batch_size=1))

    sent(emitter, numbered(1))
    sent(emitter, numbered(3, start=1))
    for payload in numbered(5, start=4):
        emitter.input(payload)

    stats = emitter.stats()
    assert eids(collector.payloads) == ["0"]
    assert emitter.retry_timer.delay >= 7
    assert (stats.delivered, stats.buffered, stats.last_status) == (1, 8, status)
    assert stats.requests <= 3


@pytest.mark.parametrize(("emitter_class", "method", "status"), [(Emitter, "get", 429), (AsyncEmitter, "post", 503)])
def test_all_is_delivered_at_the_rate_that_nginx_allows(nginx, collector, caplog, emitter_class, method, status):
    """A pause that is asked for counts within the maximum; after each one a payload gets through."""
    nginx.start_before(collector, limited(status, "6r/s"))
    emitter = emitter_class(nginx.url, method=method, batch_size=1, max_retry_delay_seconds=0.2)

    for payload in numbered(4):
        emitter.input(payload)
    eventually(lambda: emitter.stats().delivered == 4)

    answers = nginx.answers(emitter.stats().requests)
    pauses = [
        later.at_seconds - answer.at_seconds for answer, later in zip(answers, answers[1:]) if answer.status != 200
    ]
    warning = complaints(caplog)[0]
    assert sorted(eids(collector.payloads)) == ["0", "1", "2", "3"]
    # The clock of nginx is a few milliseconds behind at times.
    assert min(pauses) > 0.15
    assert len(answers) <= 10
    assert f"Status {status}: " in warning
    assert " will be retried in 0.20 s" in warning


class Traffic:
    """Four threads that track until the block ends; `eids` are those of all they tracked."""

    def __init__(self, emitter):
        self.eids = []
        self._emitter = emitter
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._track, args=(name,)) for name in "abcd"]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self._is_over.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def _track(self, name):
        number = 0
        while not self._is_over.wait(0.01):
            number += 1
            self.eids.append(f"{name}{number}")
            self._emitter.input({"eid": f"{name}{number}"})


@both
@both_methods
@pytest.mark.parametrize("how", ["reload", "restart"])
def test_new_start_of_nginx_in_the_middle_of_traffic_loses_nothing(nginx, collector, emitter_class, method, how):
    """Each payload is in exactly one request that was answered well, so twice are only those whose answer got lost."""
    nginx.start_before(collector)
    emitter = emitter_class(nginx.url, method=method, batch_size=4, max_retry_delay_seconds=0.1)
    under_way = threading.Event()

    with Traffic(emitter) as traffic:
        collector.wait_for_requests(5)
        collector.respond_with(Answer(202, hold=under_way))
        eventually(lambda: any(request.status == 202 for request in collector.requests))
        getattr(nginx, how)()
        under_way.set()
        collector.wait_for_requests(len(collector.requests) + 5)
    emitter.sync_flush(timeout=PATIENCE_SECONDS)

    stats = emitter.stats()
    tracked = len(traffic.eids)
    assert (stats.accepted, stats.delivered, stats.rejected, stats.dropped) == (tracked, tracked, 0, 0)
    eventually(lambda: answered_well(nginx, collector) == Counter(traffic.eids))
    assert (len(collector.payloads) > tracked) == (how == "restart")


@both
@both_methods
def test_outage_behind_nginx_is_waited_for(nginx, collector, caplog, emitter_class, method):
    """A 502, which says that the collector does not run, is a failure that the emitter recovers from by itself."""
    caplog.set_level(logging.INFO)
    nginx.start_before(collector)
    emitter = emitter_class(nginx.url, method=method, batch_size=3, max_retry_delay_seconds=0.1)
    collector.refuse_connections()

    for payload in numbered(3):
        emitter.input(payload)
    eventually(lambda: emitter.retry_delay > 0)
    collector.accept_connections()
    eventually(lambda: logged(caplog, logging.INFO))

    [warning], [recovery] = complaints(caplog), logged(caplog, logging.INFO)
    assert warning.startswith("Status 502: 3 payloads will be retried in ")
    assert recovery == f"The collector takes payloads again: {emitter.endpoint}"
    assert eids(collector.payloads) == ["0", "1", "2"]
    assert is_balanced(emitter)
    emitter.close()


@both
@both_methods
def test_answer_that_nginx_does_not_wait_for_makes_the_payload_arrive_twice(
    nginx, collector, caplog, emitter_class, method
):
    """A 504 hides that the collector took the payload, so it is sent again: at least once."""
    nginx.start_before(collector, "proxy_read_timeout 50ms;")
    emitter = emitter_class(nginx.url, method=method, batch_size=1, max_retry_delay_seconds=0.1)
    never = threading.Event()
    collector.respond_with(Answer(hold=never))

    emitter.input({"eid": "0"})
    eventually(lambda: emitter.stats().delivered == 1)

    [warning] = complaints(caplog)
    *hidden, known = [answer.status for answer in nginx.answers(emitter.stats().requests)]
    assert set(hidden) == {504}
    assert known == 200
    assert eids(collector.payloads) == ["0"] * (len(hidden) + 1)
    assert warning.startswith("Status 504: 1 payloads will be retried in ")
    never.set()
    emitter.close()


@both
@both_methods
def test_private_authority_is_trusted_by_the_environment(nginx, collector, trusted, caplog, emitter_class, method):
    """`REQUESTS_CA_BUNDLE` is all that a collector with a certificate of one's own takes."""
    nginx.start_before(collector)
    emitter = emitter_class(nginx.tls_url, method=method, batch_size=10)

    sent(emitter, numbered(3))
    sent(emitter, numbered(3, start=3))

    assert eids(collector.payloads) == eids(numbered(6))
    assert len({answer.connection for answer in nginx.answers(len(collector.requests))}) == 1
    assert complaints(caplog) == []


@both
@both_methods
def test_unknown_authority_gets_no_payload(nginx, collector, caplog, emitter_class, method):
    """Payloads are kept, and the log and `last_error` name the certificate as the problem."""
    nginx.start_before(collector)
    emitter = with_manual_timers(emitter_class(nginx.tls_url, method=method, batch_size=10))

    sent(emitter, numbered(3))

    stats = emitter.stats()
    [warning] = complaints(caplog)
    assert collector.requests == []
    assert (stats.delivered, stats.buffered, stats.last_status) == (0, 3, -1)
    assert "certificate verify failed" in stats.last_error
    assert warning.startswith("No response: 3 payloads will be retried in ")
    assert stats.last_error in warning


PROXY = "proxy_set_header Via nginx; location / { proxy_pass http://$http_host$request_uri; }"


@both
@pytest.mark.parametrize(("name", "method"), [("http_proxy", "post"), ("HTTP_PROXY", "get"), ("all_proxy", "post")])
def test_proxy_of_the_environment_is_used(nginx, collector, monkeypatch, caplog, emitter_class, method, name):
    """Payloads go through it, by one connection."""
    nginx.start(f"server {{ listen {nginx.address}; {PROXY} }}")
    monkeypatch.setenv(name, nginx.url)
    emitter = emitter_class(collector.url, method=method, batch_size=10)

    sent(emitter, numbered(2))
    sent(emitter, numbered(2, start=2))

    assert eids(collector.payloads) == ["0", "1", "2", "3"]
    assert {request.headers.get("via") for request in collector.requests} == {"nginx"}
    assert len({answer.connection for answer in nginx.answers(len(collector.requests))}) == 1
    assert complaints(caplog) == []


@pytest.mark.parametrize(("emitter_class", "method"), [(Emitter, "get"), (AsyncEmitter, "post")])
def test_connection_that_a_proxy_closed_costs_nothing(nginx, collector, monkeypatch, caplog, emitter_class, method):
    """A proxy may end idle connections as well, at the moment of their use too."""
    nginx.start(f"keepalive_timeout 1ms; server {{ listen {nginx.address}; {PROXY} }}")
    monkeypatch.setenv("http_proxy", nginx.url)
    emitter = emitter_class(collector.url, method=method, batch_size=10)

    for payload in numbered(30):
        sent(emitter, [payload])

    assert eids(collector.payloads) == eids(numbered(30))
    assert emitter.stats().retries == 0
    assert complaints(caplog) == []


@both
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_exception_from_the_proxy_is_respected(nginx, collector, monkeypatch, emitter_class, name):
    """A collector that is named by `NO_PROXY` is reached directly."""
    nginx.start(f"server {{ listen {nginx.address}; {PROXY} }}")
    monkeypatch.setenv("http_proxy", nginx.url)
    monkeypatch.setenv(name, f"example.com,{collector.host}")
    emitter = emitter_class(collector.url, batch_size=10)

    sent(emitter, numbered(2))

    assert eids(collector.payloads) == ["0", "1"]
    assert [request.headers.get("via") for request in collector.requests] == [None]


@both
def test_proxy_that_is_down_keeps_payloads(nginx, collector, monkeypatch, caplog, emitter_class):
    """The log names the proxy as the problem; when it runs, the payloads go through it."""
    monkeypatch.setenv("http_proxy", nginx.url)
    emitter = with_manual_timers(emitter_class(collector.url, batch_size=10))

    sent(emitter, numbered(2))
    [warning] = complaints(caplog)
    nginx.start(f"server {{ listen {nginx.address}; {PROXY} }}")
    emitter.sync_flush()

    assert warning.startswith("No response: 2 payloads will be retried in ")
    assert "ProxyError" in warning
    assert [request.headers.get("via") for request in collector.requests] == ["nginx"]
    assert eids(collector.payloads) == ["0", "1"]


@pytest.mark.parametrize(
    ("emitter_class", "method", "path"), [(Emitter, "post", POST_PATH), (AsyncEmitter, "get", "/i")]
)
@pytest.mark.parametrize("prefix", ["", "/", "/events", "/events/", "/a/b/"])
def test_path_of_the_endpoint_leads_through_a_location(nginx, collector, emitter_class, method, path, prefix):
    """What is before the collector's own path is for nginx, which takes it away."""
    location = prefix.rstrip("/")
    nginx.start(
        f"server {{ listen {nginx.address}; location / {{ return 404; }}"
        f" location {location}/ {{ proxy_pass {collector.url}/; }} }}"
        if location
        else f"server {{ listen {nginx.address}; location / {{ proxy_pass {collector.url}/; }} }}"
    )
    emitter = emitter_class(nginx.url + prefix, method=method, batch_size=10)

    sent(emitter, numbered(1))

    [request], [answer] = collector.requests, nginx.answers(1)
    assert eids(collector.payloads) == ["0"]
    assert request.path == path
    assert answer.uri.partition("?")[0] == location + path


@both
@both_methods
@pytest.mark.parametrize(
    "directives",
    [
        "gzip on; gzip_min_length 0; gzip_types *; gzip_proxied any;",
        "proxy_request_buffering off; proxy_buffering off; proxy_http_version 1.1;",
    ],
    ids=["compressed", "unbuffered"],
)
def test_connection_is_kept_whatever_nginx_makes_of_the_answer(nginx, collector, emitter_class, method, directives):
    """Compressed and chunked answers are read to their end."""
    nginx.start_before(collector, directives)
    emitter = emitter_class(nginx.url, method=method, batch_size=100)

    for number in range(3):
        sent(emitter, numbered(2, start=2 * number))

    assert eids(collector.payloads) == eids(numbered(6))
    assert len({answer.connection for answer in nginx.answers(len(collector.requests))}) == 1
