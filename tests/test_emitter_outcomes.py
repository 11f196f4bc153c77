"""How a batch becomes requests, what each status means for its payloads, and how they are settled."""

import json
import logging
import queue
from types import SimpleNamespace

import pytest
from support import eids, is_balanced, numbered, with_manual_timers

from snowplow_tracker import AsyncEmitter, Emitter, InMemoryEventStore
from snowplow_tracker.testing import Answer

SCHEMA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
both = pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
both_methods = pytest.mark.parametrize("method", ["post", "get"])


class SettlementStore(InMemoryEventStore):
    """Notes in which way each payload was settled."""

    def __init__(self):
        super().__init__()
        self.settled = []

    def cleanup(self, batch, need_retry):
        self.settled += [(payload["eid"], need_retry) for payload in batch]
        super().cleanup(batch, need_retry)


def sent(emitter, payloads):
    for payload in payloads:
        emitter.input(payload)
    emitter.sync_flush()


@both
def test_flush_is_one_post_in_the_envelope(collector, emitter_class):
    """All that waits leaves in one request, without superfluous blanks."""
    emitter = emitter_class(collector.url, batch_size=100)

    sent(emitter, numbered(25))

    (request,) = collector.requests
    body = json.loads(request.body)
    assert body["schema"] == SCHEMA
    assert eids(body["data"]) == [str(number) for number in range(25)]
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    assert request.body.decode("ascii") == json.dumps(body, separators=(",", ":"))


@both
def test_method_may_be_changed_at_any_time(collector, emitter_class):
    """What waits leaves by the new method: to its route, with the values that it needs."""
    paths = {"post": "/com.snowplowanalytics.snowplow/tp2", "get": "/i"}
    emitter = emitter_class(collector.url, batch_size=100)

    endpoints = []
    for method in ("get", "post", "get"):
        emitter.input({"e": "pv", "n": 1, "page": f"before {method} \ud800"})
        emitter.method = method
        endpoints.append(emitter.endpoint)
        emitter.input({"e": "pv", "n": 1, "page": f"after {method} \ud800"})
        emitter.sync_flush()

    assert endpoints == [collector.url + paths[method] for method in ("get", "post", "get")]
    assert [(request.method, request.path) for request in collector.requests] == [
        *2 * [("GET", paths["get"])],
        ("POST", paths["post"]),
        *2 * [("GET", paths["get"])],
    ]
    assert {payload["n"] for payload in collector.payloads} == {"1"}
    assert [payload["page"] for payload in collector.payloads] == [
        "before get ?",
        "after get ?",
        "before post ?",
        "after post \ud800",
        "before get ?",
        "after get ?",
    ]
    assert emitter.stats().rejected == 0


@both
@pytest.mark.parametrize(("method", "other"), [("get", "post"), ("post", "get")])
def test_method_that_changes_in_a_flush_changes_no_request_that_is_under_way(collector, emitter_class, method, other):
    """A batch leaves by one method, to the route of that."""
    emitter = emitter_class(collector.url, method=method, batch_size=100, max_request_bytes=1)
    send = getattr(emitter, f"http_{method}")
    setattr(emitter, f"http_{method}", lambda payload: setattr(emitter, "method", other) or send(payload))

    emitter.send_events(numbered(2))
    sent(emitter, numbered(1))

    assert [request.method.lower() for request in collector.requests] == [method, method, other]
    assert emitter.stats().delivered == 3


def test_endpoint_may_be_a_property_of_a_subclass(collector):
    """It is asked for each request, as an attribute is."""

    class InTurn(Emitter):
        endpoint = property(lambda self: self.urls[0], lambda self, url: setattr(self, "urls", [url]))

    emitter = InTurn(collector.url, batch_size=1)

    emitter.input({"eid": "1"})

    assert eids(collector.payloads) == ["1"]


@pytest.mark.parametrize("suffix", ["?key=value", "#fragment", "?key=value#fragment"])
def test_query_of_an_event_finds_its_place_in_an_endpoint(collector, suffix):
    """Behind a query of the endpoint's own, and before a fragment, which is never sent."""
    emitter = Emitter(collector.url, method="get", batch_size=1)
    emitter.endpoint += suffix

    emitter.input({"e": "pv", "eid": "1"})

    [payload] = collector.payloads
    assert (payload["e"], payload["eid"]) == ("pv", "1")
    assert emitter.stats().delivered == 1


@both
def test_endpoint_may_be_changed_at_any_time(emitter_class):
    """A URL with the collector's route for one method tells that for the other, too; one's own URL serves both."""
    uris = []
    session = SimpleNamespace(
        post=lambda uri, **arguments: uris.append(f"POST {uri}") or SimpleNamespace(status_code=200),
        get=lambda uri, **arguments: uris.append(f"GET {uri}") or SimpleNamespace(status_code=200),
    )
    emitter = emitter_class("collector.invalid", batch_size=100, session=session)

    for endpoint in (Emitter.as_collector_uri("other.invalid"), "https://own.invalid/i"):
        emitter.method = "post"
        emitter.endpoint = endpoint
        sent(emitter, numbered(1))
        emitter.method = "get"
        sent(emitter, numbered(1))

    assert uris == [
        "POST https://other.invalid/com.snowplowanalytics.snowplow/tp2",
        "GET https://other.invalid/i",
        "POST https://own.invalid/i",
        "GET https://own.invalid/i",
    ]


def test_endpoint_that_is_no_string_is_refused():
    """A request to it would fail each time."""
    emitter = Emitter("collector.example.com")

    with pytest.raises(TypeError, match=r"^endpoint must be a string, got None"):
        emitter.endpoint = None


@both
def test_post_over_the_size_limit_becomes_several_in_order(collector, emitter_class):
    """No request exceeds `max_request_bytes`, and none is smaller than it must be."""
    emitter = emitter_class(collector.url, batch_size=1_000, max_request_bytes=1_000)

    sent(emitter, numbered(50))

    sizes = [len(request.body) for request in collector.requests]
    assert max(sizes) <= 1_000
    assert min(sizes[:-1]) > 850
    assert eids(collector.payloads) == [str(number) for number in range(50)]


def test_payload_over_the_size_limit_is_sent_alone(collector):
    """A single payload cannot be split, and is not held back."""
    emitter = Emitter(collector.url, max_request_bytes=500)

    sent(emitter, [{"eid": "0"}, {"eid": "1", "ue_px": "x" * 1_000}, {"eid": "2"}])

    assert [eids(request.payloads) for request in collector.requests] == [["0"], ["1"], ["2"]]


@both
def test_get_sends_each_payload_in_a_request_of_its_own(collector, emitter_class):
    """The payload is the query."""
    emitter = emitter_class(collector.url, method="get", batch_size=10)

    sent(emitter, [{"eid": "0", "n": 1, "ok": True, "none": None, "list": [1], "text": "a b&c=d é漢🙂"}, {"eid": "1"}])

    first, second = collector.requests
    assert first.path == "/i"
    assert {**first.query, "stm": ""} == {
        "eid": "0",
        "n": "1",
        "ok": "true",
        "list": "[1]",
        "text": "a b&c=d é漢🙂",
        "stm": "",
    }
    assert second.query["eid"] == "1"


@both_methods
def test_long_url_is_warned_about(collector, caplog, method):
    """A GET that collectors refuse for its length is named by its event id; a POST has no such limit."""
    emitter = Emitter(collector.url, method=method)

    sent(emitter, [{"eid": "long", "ue_px": "x" * 20_480}])

    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [("Event long" in warning, "20480" in warning) for warning in warnings] == [(True, True)] * (method == "get")


@both_methods
def test_sent_timestamp_is_new_at_each_attempt(collector, monkeypatch, method):
    """`stm` tells when the attempt was made, in milliseconds."""
    emitter = with_manual_timers(Emitter(collector.url, method=method, batch_size=1))
    collector.respond_with(503)

    monkeypatch.setattr("time.time", lambda: 1_700_000_000.123)
    emitter.input({"eid": "0"})
    monkeypatch.setattr("time.time", lambda: 1_700_000_060.456)
    emitter.retry_timer.fire()

    assert [request.payloads[0]["stm"] for request in collector.requests] == ["1700000000123", "1700000060456"]


@pytest.mark.parametrize(
    ("created", "stm"),
    [("1700000000999", "1700000000999"), ("1600000000000", "1700000000123"), ("nonsense", "1700000000123")],
)
def test_sent_timestamp_is_never_before_the_event(monkeypatch, created, stm):
    """A clock that was set back does not make an event leave before it happened."""
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.123)
    payload = {"dtm": created}

    Emitter.attach_sent_timestamp([payload])

    assert payload["stm"] == stm


@both
@both_methods
@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_success_delivers(collector, emitter_class, method, status):
    """Any 2xx means that the collector has the payloads."""
    store = SettlementStore()
    emitter = emitter_class(collector.url, method=method, batch_size=5, event_store=store)
    collector.respond_always(status)

    sent(emitter, numbered(2))

    assert store.settled == [("0", False), ("1", False)]
    assert emitter.stats().delivered == 2


@both
@both_methods
@pytest.mark.parametrize("status", [400, 401, 403, 410, 422])
def test_refusal_rejects(collector, caplog, emitter_class, method, status):
    """Payloads that the collector refuses for good are counted, logged as lost, and not sent again."""
    store = SettlementStore()
    reports = []
    emitter = emitter_class(
        collector.url,
        method=method,
        batch_size=5,
        event_store=store,
        on_failure=lambda count, unsent: reports.append((count, eids(unsent))),
    )
    collector.respond_always(status)

    sent(emitter, numbered(2))

    assert store.settled == [("0", False), ("1", False)]
    assert reports == [(0, ["0", "1"])]
    assert emitter.stats().rejected == 2
    assert f"Lost 2 payloads: the collector answered {status}" in caplog.text


@both
@both_methods
@pytest.mark.parametrize(
    "answer", [500, 503, 404, 429, 301, Answer(reset="before_body"), Answer(raw=b"garbage\r\n\r\n")], ids=str
)
def test_failure_puts_back(collector, emitter_class, method, answer):
    """Everything else, no response included, means that the payloads are sent again."""
    store = SettlementStore()
    emitter = with_manual_timers(emitter_class(collector.url, method=method, batch_size=5, event_store=store))
    collector.respond_always(answer)

    sent(emitter, numbered(1))

    assert store.settled == [("0", True)]
    assert eids(store.event_buffer) == ["0"]
    assert emitter.retry_timer.is_active()
    assert is_balanced(emitter)


@both_methods
def test_custom_retry_codes_win(collector, method):
    """A rule of the user's replaces the built-in one, in both directions."""
    emitter = with_manual_timers(
        Emitter(collector.url, method=method, batch_size=1, custom_retry_codes={500: False, 401: True})
    )
    collector.respond_with(500, 401)

    emitter.input({"eid": "given up"})
    emitter.input({"eid": "kept"})

    assert eids(emitter.event_store.event_buffer) == ["kept"]


def test_failed_get_is_kept_when_a_later_one_succeeds(collector):
    """Each GET is judged by its own status."""
    collector.respond_with(500, 200)
    emitter = with_manual_timers(Emitter(collector.url, method="get", batch_size=2))

    emitter.input({"eid": "first"})
    emitter.input({"eid": "second"})

    assert eids(emitter.event_store.event_buffer) == ["first"]
    assert emitter.retry_timer.is_active()


@pytest.mark.parametrize(
    "answers",
    [[503, 503], [200, 500, 502], [Answer(503, headers={"Retry-After": "7"})], [Answer(reset="before_body")]],
    ids=["twice in a row", "twice after a success", "asked to wait", "no response"],
)
def test_sick_collector_gets_no_more_gets(collector, answers):
    """One failed GET may be due to its payload; more than that, and the rest of the flush is held back."""
    collector.respond_with(*answers)
    emitter = with_manual_timers(Emitter(collector.url, method="get", batch_size=10))

    sent(emitter, numbered(6))

    delivered = [answer for answer in answers if answer == 200]
    assert len(collector.requests) == len(answers)
    assert eids(emitter.event_store.event_buffer) == [str(number) for number in range(len(delivered), 6)]


def test_requests_after_a_failed_post_stay_unsent(collector):
    """Once the backoff has begun, the rest of the flush goes back to the store, in its order."""
    reports = []
    emitter = with_manual_timers(
        Emitter(
            collector.url,
            batch_size=100,
            max_request_bytes=250,
            on_failure=lambda count, unsent: reports.append((count, eids(unsent))),
        )
    )
    collector.respond_with(200, 503)

    sent(emitter, numbered(10))

    delivered = eids(collector.payloads)
    held_back = [str(number) for number in range(len(delivered), 10)]
    assert len(collector.requests) == 2
    assert eids(emitter.event_store.event_buffer) == held_back
    assert reports == [(len(delivered), held_back)]


@both
def test_too_large_request_is_sent_in_halves(collector, emitter_class):
    """413 for several payloads means that fewer of them may pass; the order is kept."""
    collector.respond_with(413, 413)
    emitter = emitter_class(collector.url, batch_size=100)

    sent(emitter, numbered(9))

    assert [len(request.payloads) for request in collector.requests] == [9, 5, 3, 2, 4]
    assert eids(collector.payloads) == [str(number) for number in range(9)]
    assert not emitter.retry_timer.is_active()


@both_methods
def test_too_large_payload_is_rejected(collector, method):
    """413 for a single payload is final, for the others it is not."""
    collector.respond_with(413, 413) if method == "post" else collector.respond_with(413)
    emitter = Emitter(collector.url, method=method, batch_size=100)

    sent(emitter, numbered(2))

    assert eids(collector.payloads) == ["1"]
    assert emitter.stats().rejected == 1


@both_methods
def test_too_large_payload_is_retried_if_a_rule_says_so(collector, method):
    """`custom_retry_codes[413]` keeps even a single payload."""
    collector.respond_always(413)
    emitter = with_manual_timers(Emitter(collector.url, method=method, custom_retry_codes={413: True}))

    sent(emitter, numbered(1))

    assert eids(emitter.event_store.event_buffer) == ["0"]


def test_too_large_request_is_given_up_if_a_rule_says_so(collector):
    """With `custom_retry_codes[413]` false there are no halves."""
    collector.respond_always(413)
    emitter = Emitter(collector.url, custom_retry_codes={413: False})

    sent(emitter, numbered(4))

    assert len(collector.requests) == 1
    assert emitter.stats().rejected == 4


@both
@pytest.mark.parametrize("status", [301, 302, 303])
def test_redirect_that_loses_the_payloads_is_a_failure(collector, emitter_class, status):
    """A POST that became a GET has delivered nothing, whatever the redirect's target answered."""
    collector.respond_with(Answer(status, headers={"Location": f"{collector.url}/health"}))
    emitter = with_manual_timers(emitter_class(collector.url))

    sent(emitter, numbered(1))

    assert emitter.stats().last_status == status
    assert eids(emitter.event_store.event_buffer) == ["0"]


@pytest.mark.parametrize("status", [307, 308])
def test_redirect_that_keeps_the_payloads_is_followed(collector, status):
    """A POST that stays a POST counts by its last answer."""
    target = f"{collector.url}/elsewhere/com.snowplowanalytics.snowplow/tp2"
    collector.respond_with(Answer(status, headers={"Location": target}))
    emitter = Emitter(collector.url)

    sent(emitter, numbered(1))

    assert eids(collector.payloads) == ["0"]


@pytest.mark.parametrize("status", [301, 302, 307])
def test_redirected_get_counts_by_its_last_answer(collector, status):
    """A GET stays a GET."""
    collector.respond_with(Answer(status, headers={"Location": f"{collector.url}/moved/i?eid=0"}))
    emitter = Emitter(collector.url, method="get")

    sent(emitter, numbered(1))

    assert emitter.stats().delivered == 1


@both
@both_methods
def test_each_payload_is_settled_once(collector, emitter_class, method):
    """Delivered, rejected and retried ones, each one time, and before any callback runs."""
    store = SettlementStore()
    at_callback = []
    emitter = with_manual_timers(
        emitter_class(
            collector.url,
            method=method,
            batch_size=100,
            max_request_bytes=200,
            event_store=store,
            on_success=lambda delivered: at_callback.append(len(store.settled)),
            on_failure=lambda count, unsent: at_callback.append(len(store.settled)),
        )
    )
    collector.respond_with(200, 400, 503, 503)

    sent(emitter, numbered(4))

    assert sorted(store.settled)[:2] == [("0", False), ("1", False)]
    assert sorted(eid for eid, _ in store.settled) == ["0", "1", "2", "3"] or emitter_class is AsyncEmitter
    assert at_callback[-1] == len(store.settled)
    assert is_balanced(emitter)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
@both_methods
def test_interruption_puts_the_batch_back(method, interruption):
    """Ctrl-C in a request passes through; payloads that have an answer stay settled, the others wait again."""
    emitter = Emitter("collector.example.com", method=method, batch_size=100, max_request_bytes=200)
    requests = []

    def interrupted_at_the_second(argument):
        requests.append(argument)
        if len(requests) == 2:
            raise interruption
        return 200

    emitter.http_post = emitter.http_get = interrupted_at_the_second
    for payload in numbered(5):
        emitter.input(payload)

    with pytest.raises(interruption):
        emitter.flush()

    stats = emitter.stats()
    assert stats.delivered >= 1
    assert stats.in_flight == 0
    assert eids(emitter.event_store.event_buffer) == [str(number) for number in range(stats.delivered, 5)]
    assert is_balanced(emitter)


def interrupted_at_the_second(status):
    """An emitter whose second payload meets Ctrl-C on its way; the others are answered with `status`."""
    emitter = Emitter("collector.example.com", method="get")

    def http_get(payload):
        if payload["eid"] == "1":
            raise KeyboardInterrupt
        return status

    emitter.http_get = http_get
    return emitter


def test_interruption_of_a_direct_send_keeps_the_payloads():
    """Ctrl-C in `send_events` leaves the application's own payloads in the store, but for what has an answer."""
    emitter = interrupted_at_the_second(200)

    with pytest.raises(KeyboardInterrupt):
        emitter.send_events(numbered(3))

    assert eids(emitter.event_store.event_buffer) == ["1", "2"]
    assert is_balanced(emitter)


def test_loss_before_an_interruption_is_logged(caplog):
    """What the collector refused stays refused, and is not lost in silence."""
    emitter = interrupted_at_the_second(400)

    with pytest.raises(KeyboardInterrupt):
        emitter.send_events(numbered(2))

    assert emitter.stats().rejected == 1
    assert "Lost 1 payloads: the collector answered 400" in caplog.text


def test_payload_that_no_json_can_hold_is_rejected_alone(collector, caplog):
    """An object that `send_events` is given directly does not spoil its batch."""
    emitter = Emitter(collector.url)

    emitter.send_events([{"eid": "0"}, {"eid": "1", ("no", "key"): 1}, {"eid": "2"}])

    assert eids(collector.payloads) == ["0", "2"]
    assert "Lost 1 payloads: they cannot be encoded as JSON" in caplog.text


def test_batch_that_no_json_can_hold_makes_no_request(collector):
    """There is nothing to send once the unencodable is out."""
    emitter = Emitter(collector.url)

    emitter.send_events([{("no", "key"): 1}])

    assert collector.requests == []
    assert emitter.stats().rejected == 1


@pytest.mark.parametrize("byte_limit", [None, 1_000])
def test_store_may_call_something_else_its_event_buffer(byte_limit):
    """What cannot be looked through is no list of what waits."""

    class QueueStore:
        def __init__(self):
            self.event_buffer = queue.Queue()

        def add_event(self, payload):
            self.event_buffer.put(payload)

        def get_events_batch(self):
            return [self.event_buffer.get() for _ in range(self.event_buffer.qsize())]

        def cleanup(self, batch, need_retry):
            for payload in batch if need_retry else []:
                self.event_buffer.put(payload)

        def size(self):
            return self.event_buffer.qsize()

    told = []
    emitter = with_manual_timers(
        Emitter(
            "collector.example.com",
            event_store=QueueStore(),
            byte_limit=byte_limit,
            on_failure=lambda count, payloads: told.append(eids(payloads)),
        )
    )
    emitter.http_post = lambda data: 500

    emitter.input({"eid": "1"})
    emitter.sync_flush()

    assert told == [["1"]]
    assert (emitter.stats().buffered, emitter.stats().in_flight) == (1, 0)


class ForgetfulStore:
    """A store of a user's own that takes nothing back."""

    def __init__(self):
        self.payloads = []

    def add_event(self, payload):
        self.payloads.append(payload)

    def get_events_batch(self):
        batch, self.payloads = self.payloads, []
        return batch

    def cleanup(self, batch, need_retry):
        if need_retry:
            raise OSError("the disk is full")

    def size(self):
        return len(self.payloads)


def test_payloads_that_a_thread_cannot_give_back_are_reported(collector, caplog):
    """They are lost, though no request of theirs has failed."""
    told = []
    emitter = AsyncEmitter(
        collector.url, event_store=ForgetfulStore(), batch_size=100, max_request_bytes=150, on_failure=hear(told)
    )
    for payload in numbered(3):
        emitter.input(payload)

    emitter.sync_flush()

    assert told == [(0, ["1", "2"])]
    assert eids(collector.payloads) == ["0"]
    assert emitter.stats().rejected == 2
    assert "Lost 2 payloads: the event store failed to take them back" in caplog.text


def hear(told):
    return lambda count, payloads: told.append((count, eids(payloads)))


def test_payloads_that_are_lost_after_an_interruption_are_reported():
    """Nobody else tells of them."""
    told = []
    emitter = interrupted_at_the_second(200)
    emitter.event_store = ForgetfulStore()
    emitter.on_failure = hear(told)

    with pytest.raises(KeyboardInterrupt):
        emitter.send_events(numbered(3))

    assert told == [(0, ["1", "2"])]
    assert is_balanced(emitter)


def test_payloads_of_a_failed_override_that_are_lost_are_reported():
    """`send_events` of a subclass has raised, and the store takes nothing back."""
    told = []

    class Failing(Emitter):
        def send_events(self, evts):
            raise RuntimeError("from an override")

    emitter = Failing("collector.example.com", event_store=ForgetfulStore(), batch_size=1, on_failure=hear(told))
    emitter.input({"eid": "1"})

    assert told == [(0, ["1"])]


def test_loss_is_logged_where_nobody_listens(caplog):
    """Without an `on_failure` the log is all there is."""
    emitter = interrupted_at_the_second(200)
    emitter.event_store = ForgetfulStore()

    with pytest.raises(KeyboardInterrupt):
        emitter.send_events(numbered(3))

    assert "Lost 2 payloads: the event store failed to take them back" in caplog.text


def test_payloads_of_a_failed_request_that_are_lost_are_reported_once(caplog):
    """The report of their flush has them, and the log does not call them retried."""
    told = []
    emitter = Emitter("collector.example.com", event_store=ForgetfulStore(), batch_size=1, on_failure=hear(told))
    emitter.http_post = lambda data: 500

    emitter.input({"eid": "1"})

    assert told == [(0, ["1"])]
    assert "Status 500: 0 payloads will be retried" in caplog.text


def test_payloads_that_an_override_keeps_are_called_lost(caplog):
    """They count as rejected, so the log does not call them retried."""

    class Keeping(Emitter):
        def _retry_failed_events(self, failed_events):
            """Keep them."""

    emitter = Keeping("collector.example.com", batch_size=1)
    emitter.http_post = lambda data: 500

    emitter.input({"eid": "1"})

    assert "Status 500: 0 payloads will be retried" in caplog.text
    assert "Lost 1 payloads: Keeping did not put them back" in caplog.text


def test_interrupt_in_a_flush_inside_a_flush_leaves_the_outer_one_alone():
    """What the outer one has in flight is its own to put back."""
    emitter = Emitter("collector.example.com")
    emitter.input({"eid": "1"})
    emitter._ledger.take()
    emitter._thread_state.is_sending = True

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emitter._as_flush(interrupt)

    assert emitter.stats().in_flight == 1
    emitter._thread_state.is_sending = False
