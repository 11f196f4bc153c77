"""The REST API of Snowplow Micro: shapes, filters and CORS; and what else makes the collector like a real one."""

import base64
import json
import re
import socket
import threading
from contextlib import closing
from dataclasses import replace
from urllib.parse import quote

import pytest
import requests

from snowplow_tracker import Emitter, PageView, SelfDescribing, SelfDescribingJson, StructuredEvent, Subject, Tracker
from snowplow_tracker.testing import (
    Answer,
    BadEvent,
    GoodEvent,
    LocalCollector,
    _event_log,
    collector as collector_module,
)
from snowplow_tracker.testing._event_log import EventLog
from snowplow_tracker.testing._http_server import MAX_BODY_BYTES
from snowplow_tracker.testing._micro import MicroApi

POST_PATH = "/com.snowplowanalytics.snowplow/tp2"
ENVELOPE = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
EVENT_ID = "5628c4c6-3f8a-43f8-a09f-6ff68f68dfb6"
CLICK = "iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1"
PAGE_VIEW = "iglu:com.snowplowanalytics.snowplow/page_view/jsonschema/1-0-0"
STRUCT = "iglu:com.google.analytics/event/jsonschema/1-0-0"
USER = "iglu:com.acme/user/jsonschema/1-0-0"
CART = "iglu:com.acme/cart/jsonschema/1-0-0"
JSON_TYPE = {"Content-Type": "application/json"}
SITE = {"Origin": "https://shop.example"}


@pytest.fixture
def session():
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def ask(collector, session):
    """Asks for something below `/micro`: by GET with a query, or by POST with a body."""

    def ask(name, query=None, body=None):
        url = f"{collector.url}/micro/{name}"
        response = session.get(url, params=query) if body is None else session.post(url, data=body)
        assert response.status_code == 200, response.text
        assert response.headers["Content-Type"] == "application/json"
        return response.json()

    return ask


@pytest.fixture
def tracker(collector):
    with Tracker("shop", Emitter(collector.url, batch_size=1), app_id="web") as tracker:
        yield tracker


@pytest.fixture
def three_good(tracker):
    """A click with two entities, after a structured event with one, after a page view."""
    user, cart = SelfDescribingJson(USER, {"id": 1}), SelfDescribingJson(CART, {"items": []})
    tracker.track(PageView("https://shop.example:8443/teas?sort=price#top", "Teas", "http://search.example/"))
    tracker.track(StructuredEvent("shop", "add", value=2.5, context=[user]))
    tracker.track(SelfDescribing(SelfDescribingJson(CLICK, {"targetUrl": "/cart"}), context=[user, cart]))


def payload(**fields):
    return {"e": "pv", "p": "web", "tv": "js-3", "eid": EVENT_ID, "url": "https://shop.example", **fields}


def post(session, collector, *payloads, **headers):
    body = json.dumps({"schema": ENVELOPE, "data": payloads})
    return session.post(collector.url + POST_PATH, data=body, headers={**JSON_TYPE, **headers})


def event_ids(events):
    return [event.payload["eid"] for event in events]


@pytest.mark.parametrize("name", ["all", "reset", "good", "bad"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_micro_leaves_no_trace(collector, session, name, method):
    """Requests of the API are not recorded, and use up no answer, under a prefix neither."""
    collector.respond_with(503)

    statuses = [session.request(method, f"{collector.url}{prefix}/micro/{name}").status_code for prefix in ("", "/x")]

    assert statuses == [200, 200]
    assert collector.requests == []
    assert session.get(collector.url + "/i").status_code == 503


@pytest.mark.parametrize("body", [None, "", "{}"], ids=["GET", "POST", "POST with a body"])
def test_all_counts_events(collector, session, ask, body):
    """`/micro/all` tells how many events are good and bad."""
    post(session, collector, payload(), payload(eid="x"))
    post(session, collector, payload())

    assert ask("all", body=body) == {"total": 3, "good": 2, "bad": 1}


@pytest.mark.parametrize("body", [None, "", "{}"], ids=["GET", "POST", "POST with a body"])
def test_reset_forgets_events_and_answers_with_counts(collector, session, ask, body):
    """`/micro/reset` forgets what arrived, and leaves the prepared answers."""
    post(session, collector, payload(), payload(eid="x"))
    collector.respond_with(503)

    assert ask("reset", body=body) == ask("all") == {"total": 0, "good": 0, "bad": 0}
    assert (collector.good, collector.bad, collector.requests, collector.payloads) == ([], [], [], [])
    assert post(session, collector, payload()).status_code == 503


def test_only_accepted_requests_bring_events(collector, session, ask):
    """What the collector refused is neither good nor bad."""
    collector.respond_with(503, Answer(raw=b""))

    post(session, collector, payload())
    with pytest.raises(requests.ConnectionError):
        post(session, collector, payload())
    session.post(collector.url + "/elsewhere", data="x")

    assert ask("all")["total"] == 0


@pytest.mark.parametrize(("reset", "total"), [("after_body", 1), ("before_body", 0)])
def test_events_of_a_connection_that_is_reset(collector, session, ask, reset, total):
    """A collector has events that it has read, whether the client knows or not."""
    collector.respond_with(Answer(reset=reset))

    with pytest.raises(requests.ConnectionError):
        post(session, collector, payload())

    assert ask("all") == {"total": total, "good": total, "bad": 0}
    assert [request.status for request in collector.requests] == [0]


def test_good_event_has_the_shape_of_micro(ask, three_good):
    """A good event comes with its raw form, its type, its schemas and its fields."""
    click, structured, page_view = ask("good")

    assert {frozenset(item) for item in (click, structured, page_view)} == {
        frozenset({"rawEvent", "eventType", "schema", "contexts", "event"})
    }
    assert [(item["eventType"], item["schema"], item["contexts"]) for item in (click, structured, page_view)] == [
        ("unstruct", CLICK, [USER, CART]),
        ("struct", STRUCT, [USER]),
        ("page_view", PAGE_VIEW, []),
    ]


def test_raw_event_tells_what_arrived_and_how(collector, session, ask):
    """The raw event is the payload, with all about the request that brought it."""
    post(session, collector, payload(), **{"User-Agent": "Browser/1", "Referer": "https://shop.example/"})

    (item,) = ask("good")
    raw = item["rawEvent"]

    assert list(raw) == ["api", "parameters", "contentType", "source", "context"]
    assert raw["api"] == {"vendor": "com.snowplowanalytics.snowplow", "version": "tp2"}
    assert raw["parameters"] == payload()
    assert raw["contentType"] == "application/json"
    assert {name: raw["source"][name] for name in ("encoding", "hostname")} == {
        "encoding": "UTF-8",
        "hostname": "127.0.0.1",
    }
    assert "local-collector" in raw["source"]["name"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", raw["context"].pop("timestamp"))
    headers = raw["context"].pop("headers")
    assert {"User-Agent: Browser/1", f"Host: 127.0.0.1:{collector.port}"} <= set(headers)
    assert raw["context"] == {
        "ipAddress": "127.0.0.1",
        "useragent": "Browser/1",
        "refererUri": "https://shop.example/",
        "userId": None,
    }


def test_raw_event_of_a_get_has_no_content_type(collector, session, ask):
    """A GET is the first version of the protocol, and has no body."""
    session.get(collector.url + "/i", params=payload(), headers={"User-Agent": None, "Host": "["})

    (item,) = ask("good")
    raw = item["rawEvent"]

    assert (raw["api"]["version"], raw["parameters"], raw["contentType"]) == ("tp1", payload(), None)
    assert (raw["source"]["hostname"], raw["context"]["refererUri"]) == (None, None)


def test_address_that_a_proxy_names_counts(collector, session, ask):
    """Behind a proxy, the address is that of the client which the proxy has seen first."""
    post(session, collector, payload(), **{"X-Forwarded-For": "192.0.2.7, 10.0.0.1"})

    (item,) = ask("good")

    assert item["rawEvent"]["context"]["ipAddress"] == item["event"]["user_ipaddress"] == "192.0.2.7"


def test_event_has_every_field_of_the_warehouse(ask, three_good):
    """Fields that an event does not have are null."""
    click, structured, page_view = (item["event"] for item in ask("good"))

    assert len(click) == 131
    assert list(click) == list(structured) == list(page_view)
    assert {name: structured[name] for name in ("se_category", "se_action", "se_label", "se_value", "page_url")} == {
        "se_category": "shop",
        "se_action": "add",
        "se_label": None,
        "se_value": 2.5,
        "page_url": None,
    }
    assert (structured["app_id"], structured["event"], structured["name_tracker"]) == ("web", "struct", "shop")
    assert (click["event_vendor"], click["event_name"]) == ("com.snowplowanalytics.snowplow", "link_click")
    assert (click["event_format"], click["event_version"]) == ("jsonschema", "1-0-1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", click["collector_tstamp"])
    assert (page_view["contexts"], page_view["unstruct_event"], page_view["geo_country"]) == (None, None, None)


def test_event_holds_its_data_and_its_entities(ask, three_good):
    """They stand in their envelopes, decoded."""
    event = ask("good")[0]["event"]

    assert event["unstruct_event"] == {
        "schema": "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0",
        "data": {"schema": CLICK, "data": {"targetUrl": "/cart"}},
    }
    assert event["contexts"] == {
        "schema": "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1",
        "data": [{"schema": USER, "data": {"id": 1}}, {"schema": CART, "data": {"items": []}}],
    }


def test_urls_are_taken_apart(ask, three_good):
    """The parts of the page's URL and of the referrer have fields of their own."""
    event = ask("good")[2]["event"]

    assert [event[f"page_url{part}"] for part in ("scheme", "host", "port", "path", "query", "fragment")] == [
        "https",
        "shop.example",
        8443,
        "/teas",
        "sort=price",
        "top",
    ]
    assert [event[f"refr_url{part}"] for part in ("scheme", "host", "port", "path", "query", "fragment")] == [
        "http",
        "search.example",
        80,
        "/",
        None,
        None,
    ]


def test_url_that_cannot_be_taken_apart_stays_whole(collector, session, ask):
    """An event may have any text for its URL."""
    post(session, collector, payload(url="http://["))

    (item,) = ask("good")

    assert (item["event"]["page_url"], item["event"]["page_urlhost"]) == ("http://[", None)


def test_payload_speaks_for_itself(collector, tracker, ask):
    """What the payload says of the address and the browser goes before what the request shows."""
    subject = Subject().set_ip_address("192.0.2.9").set_useragent("Browser/2")

    tracker.track(PageView("https://shop.example", event_subject=subject))

    event = ask("good")[0]["event"]
    assert (event["user_ipaddress"], event["useragent"]) == ("192.0.2.9", "Browser/2")


GOOD_FILTERS = [
    ({}, ["unstruct", "struct", "page_view"]),
    ({"event_type": "struct"}, ["struct"]),
    ({"event_type": "page_ping"}, []),
    ({"schema": CLICK}, ["unstruct"]),
    ({"schema": PAGE_VIEW}, ["page_view"]),
    ({"schema": CLICK, "event_type": "struct"}, []),
    ({"contexts": [USER]}, ["unstruct", "struct"]),
    ({"contexts": [CART, USER]}, ["unstruct"]),
    ({"contexts": [USER, PAGE_VIEW]}, []),
    ({"contexts": []}, ["unstruct", "struct", "page_view"]),
    ({"limit": 2}, ["unstruct", "struct"]),
    ({"limit": 0}, []),
    ({"contexts": [USER], "limit": 1}, ["unstruct"]),
    ({"event_type": "struct", "limit": 1}, ["struct"]),
]


@pytest.mark.parametrize(("filters", "expected"), GOOD_FILTERS)
def test_good_events_can_be_filtered(ask, three_good, filters, expected):
    """Filters of good events all have to hold, by the body of a POST or the query of a GET; the newest come first."""
    by_post = ask("good", body=json.dumps(filters))
    by_get = ask("good", query=filters)

    assert [item["eventType"] for item in by_post] == expected
    assert by_get == by_post


def test_contexts_may_be_separated_by_commas(ask, three_good):
    """In a query, one value may hold several schemas."""
    items = ask("good", query={"contexts": f"{USER},{CART}"})

    assert [item["eventType"] for item in items] == ["unstruct"]


def test_filter_that_is_null_is_none(ask, three_good):
    """A client may write out what it does not ask for."""
    nothing = dict.fromkeys(("event_type", "schema", "contexts", "limit"))

    assert len(ask("good", body=json.dumps(nothing))) == 3


def test_bad_event_has_the_shape_of_micro(collector, session, ask):
    """A bad event comes with its request, its raw form and what is wrong with it."""
    post(session, collector, payload(eid="x"))

    (item,) = ask("bad")

    assert list(item) == ["collectorPayload", "rawEvent", "errors"]
    collected = item["collectorPayload"]
    assert list(collected) == ["api", "querystring", "contentType", "body", "source", "context"]
    assert collected["api"] == {"vendor": "com.snowplowanalytics.snowplow", "version": "tp2"}
    assert (collected["querystring"], collected["contentType"]) == ([], "application/json")
    assert json.loads(collected["body"])["data"] == [payload(eid="x")]
    assert item["rawEvent"]["parameters"] == payload(eid="x")
    assert {name: item["rawEvent"][name] for name in ("source", "context")} == {
        name: collected[name] for name in ("source", "context")
    }
    (error,) = item["errors"]
    assert "eid" in error


def test_bad_event_of_a_get_has_its_query(collector, session, ask):
    """The query comes as a list of names and values."""
    session.get(collector.url + "/i?e=pv&page=a%20b")

    (item,) = ask("bad")

    assert item["collectorPayload"]["querystring"] == [{"name": "e", "value": "pv"}, {"name": "page", "value": "a b"}]
    assert item["collectorPayload"]["body"] is None


def test_request_that_cannot_be_read_is_a_bad_event(collector, session, ask):
    """Where there is no payload, there is no raw event."""
    session.post(collector.url + POST_PATH, data=b"\xff{", headers=JSON_TYPE)

    (item,) = ask("bad")

    assert (item["collectorPayload"]["body"], item["rawEvent"]) == ("�{", None)
    assert len(item["errors"]) == 1


BAD_FILTERS = [
    ({}, ["tp1", "tp2"]),
    ({"vendor": "com.snowplowanalytics.snowplow"}, ["tp1", "tp2"]),
    ({"vendor": "com.acme"}, []),
    ({"version": "tp2"}, ["tp2"]),
    ({"version": "tp1", "vendor": "com.snowplowanalytics.snowplow"}, ["tp1"]),
    ({"version": "tp3"}, []),
    ({"limit": 1}, ["tp1"]),
    ({"version": "tp2", "limit": 1}, ["tp2"]),
]


@pytest.mark.parametrize(("filters", "expected"), BAD_FILTERS)
def test_bad_events_can_be_filtered(collector, session, ask, filters, expected):
    """Filters of bad events all have to hold; the newest come first."""
    post(session, collector, payload(eid="x"))
    session.get(collector.url + "/i?e=pv")

    by_post = ask("bad", body=json.dumps(filters))
    by_get = ask("bad", query=filters)

    assert [item["collectorPayload"]["api"]["version"] for item in by_post] == expected
    assert by_get == by_post


@pytest.mark.parametrize(
    ("name", "body", "complaint"),
    [
        ("good", "{", "the filters are not JSON: "),
        ("good", b"\xff", "the filters are not JSON: "),
        ("bad", "[" * 100_000, "the filters are not JSON: "),
        ("good", "[]", "the filters must be a JSON object, got []"),
        ("good", '{"limit": "x"}', "limit must be a whole number, 0 or more, got 'x'"),
        ("good", '{"limit": -1}', "limit must be a whole number, 0 or more, got -1"),
        ("bad", '{"limit": 1.5}', "limit must be a whole number, 0 or more, got 1.5"),
        ("bad", '{"limit": true}', "limit must be a whole number, 0 or more, got True"),
        ("good", '{"schema": 1}', "schema must be a string, got 1"),
        ("good", '{"contexts": "iglu:a"}', "contexts must be a list of strings, got 'iglu:a'"),
        ("good", '{"contexts": [1]}', "contexts must be a list of strings, got [1]"),
        ("bad", '{"vendor": ["a"]}', "vendor must be a string, got ['a']"),
        ("good", '{"vendor": "a"}', "there is no filter 'vendor', but there are event_type, schema, contexts, limit"),
        ("bad", '{"schema": "a"}', "there is no filter 'schema', but there are vendor, version, limit"),
        ("bad", '{"\\ud800": 1}', "there is no filter "),
    ],
)
def test_wrong_filter_is_refused(collector, session, name, body, complaint):
    """A filter that cannot be understood gets status 400, and is told why."""
    response = session.post(f"{collector.url}/micro/{name}", data=body)

    assert (response.status_code, response.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert response.text.startswith(complaint)
    assert collector.requests == []


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("limit=x", "limit must be a whole number, 0 or more, got 'x'"),
        ("limit=-1", "limit must be a whole number, 0 or more, got '-1'"),
        ("limit=", "limit must be a whole number, 0 or more, got ''"),
        ("limits=1", "there is no filter 'limits', but there are event_type, schema, contexts, limit"),
    ],
)
def test_wrong_query_is_refused(collector, session, query, complaint):
    """A query is held to the same rules."""
    response = session.get(f"{collector.url}/micro/good?{query}")

    assert (response.status_code, response.text) == (400, f"{complaint}\n")


def test_filters_that_are_too_large_are_refused(collector, session):
    """Filters have no more room than events, and are not recorded either."""
    response = session.post(f"{collector.url}/micro/good", data=b"x" * (MAX_BODY_BYTES + 1))

    assert response.status_code == 413
    assert collector.requests == []


class Surprises:
    """Stands in for a pipeline that finds events which no request brought."""

    def __init__(self, *events):
        self._events = events

    def judge_request(self, request):
        return list(self._events)


def answer_about(name, *events):
    log = EventLog(Surprises(*events))
    log.add(None if not events else type("Request", (), {"payloads": []}))
    request = type("Request", (), {"method": "GET", "query_string": ""})
    return MicroApi(log, log.reset).routes()["GET", f"/micro/{name}"](request)


@pytest.mark.parametrize(
    ("name", "event"),
    [("good", GoodEvent(payload(), "page_view", PAGE_VIEW, None, [], {}, None)), ("bad", BadEvent({}, ["bad"], None))],
)
def test_event_that_no_request_brought_has_empty_shapes(name, event):
    """The shape is the same where nothing is known of a request."""
    (item,) = json.loads(answer_about(name, event).body)

    assert item["rawEvent"]["context"]["ipAddress"] is item["rawEvent"]["source"]["hostname"] is None


@pytest.mark.parametrize(
    ("name", "hidden", "seen", "errors"),
    [
        ("good", {"data": object()}, {"eventType": "unstruct", "schema": PAGE_VIEW, "contexts": []}, []),
        ("bad", {"payload": object()}, {}, ["bad"]),
    ],
)
def test_event_that_has_no_json_hides_no_other(name, hidden, seen, errors):
    """What cannot be written is told of, and the others are as they are."""
    event = {
        "good": GoodEvent(payload(e="ue"), "unstruct", PAGE_VIEW, None, [], {}, None),
        "bad": BadEvent({}, ["bad"], None),
    }[name]

    newest, oldest = json.loads(answer_about(name, event, replace(event, **hidden)).body)

    assert {key: newest[key] for key in seen} == seen
    assert newest["rawEvent"] is newest.get("event") is None
    assert newest["errors"][:-1] == errors
    assert newest["errors"][-1].startswith("This event cannot be shown: ")
    assert oldest["rawEvent"] is not None


@pytest.mark.parametrize("path", [POST_PATH, "/i", "/prefix/i", "/health"])
def test_browser_may_ask_before_it_sends(collector, session, path):
    """OPTIONS is answered as a collector does, is not recorded, and uses up no answer."""
    collector.respond_with(503)

    response = session.options(collector.url + path, headers={**SITE, "Access-Control-Request-Method": "POST"})

    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert response.headers["Access-Control-Allow-Headers"] == "Content-Type, SP-Anonymous"
    assert int(response.headers["Access-Control-Max-Age"]) > 0
    assert collector.requests == []
    assert session.get(collector.url + "/i").status_code == 503


def test_browser_learns_nothing_about_unknown_paths(collector, session):
    """OPTIONS of a path that is not the collector's is a method that is not allowed."""
    response = session.options(collector.url + "/elsewhere", headers=SITE)

    assert response.status_code == 405
    assert "Access-Control-Allow-Origin" not in response.headers
    assert [request.method for request in collector.requests] == ["OPTIONS"]


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("path", ["/i", "/prefix/i"])
def test_browser_may_read_the_answer(collector, session, path, status):
    """The site whose page asks is allowed to read the answer, whatever it is."""
    collector.respond_always(status)

    response = session.get(collector.url + path, headers=SITE)

    assert response.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize("path", ["/micro/all", "/micro/reset", "/micro/ui", "/x/micro/good"])
@pytest.mark.parametrize(
    "headers", [{"Origin": "https://shop.example"}, {"Origin": "null"}, {"Host": "rebound.example:9090"}], ids=str
)
def test_page_of_another_site_sees_no_events(collector, session, path, headers):
    """Whatever page a browser shows, it can neither read events nor forget them, unless it is of this machine."""
    post(session, collector, payload())

    response = session.get(collector.url + path, headers=headers)

    assert (response.status_code, response.headers.get("Access-Control-Allow-Origin")) == (403, None)
    assert len(collector.payloads) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Referer": "https://shop.example/"}, 403),
        ({"Referer": "https://shop.example/"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Referer": "http://localhost:3000/"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
    ids=str,
)
def test_image_of_another_site_forgets_no_events(collector, session, headers, status):
    """Browsers give no origin for an image or a link, but they say where it stands, unless it is typed in."""
    post(session, collector, payload())

    response = session.get(f"{collector.url}/micro/reset", headers=headers)

    assert response.status_code == status
    assert len(collector.payloads) == (status == 403)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:8000", "https://[::1]:8443"])
def test_page_of_this_machine_sees_events(collector, session, origin):
    """A test in a browser may ask from the page of the application that it tests."""
    response = session.get(f"{collector.url}/micro/all", headers={"Origin": origin})

    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (200, origin)


def test_collector_for_other_machines_is_asked_by_any_name(session):
    """Whoever opens it to the network decides who may read."""
    with LocalCollector(host="0.0.0.0") as collector:
        response = session.get(f"{collector.url}/micro/all", headers={"Host": "build.example:9090"})

    assert response.status_code == 200


def test_body_of_a_request_is_told_once(collector, session, ask):
    """Many bad events of one request do not make the answer grow with the square of their number."""
    post(session, collector, *(3 * [{"e": "pv"}]))

    bodies = [item["collectorPayload"]["body"] for item in ask("bad")]

    assert [body is None for body in bodies] == [False, True, True]


def test_prepared_answer_can_shut_browsers_out(collector, session):
    """Headers of a prepared answer stay as they are."""
    collector.respond_with(Answer(headers={"access-control-allow-origin": "null"}))

    response = session.get(collector.url + "/i", headers=SITE)

    assert response.headers["Access-Control-Allow-Origin"] == "null"


def test_other_clients_get_no_headers_for_browsers(collector, session):
    """Without an origin there is nobody to allow anything."""
    response = session.get(collector.url + "/i")

    assert [name for name in response.headers if name.startswith("Access-Control")] == []


def body_of(size):
    head, tail = b'{"schema":"%s","data":[{"e":"pv","p":"web","tv":"' % ENVELOPE.encode(), b'"}]}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


@pytest.mark.parametrize("chunked", [False, True])
def test_body_that_is_too_large_is_refused(collector, session, chunked):
    """More than 2,097,152 bytes get status 413; they are not kept, and the connection goes on."""
    collector.respond_with(503)
    body = body_of(2_097_153)

    response = session.post(collector.url + POST_PATH, data=iter([body[:1000], body[1000:]]) if chunked else body)

    (request,) = collector.requests
    assert (response.status_code, response.text) == (413, "a body may have 2097152 bytes\n")
    assert (request.status, request.body, request.payloads) == (413, b"", [])
    assert (collector.payloads, collector.good, collector.bad) == ([], [], [])
    assert session.get(collector.url + "/i").status_code == 503
    assert collector.connections == 1


def test_body_that_is_too_large_is_read_to_its_end(collector):
    """A client that sends everything before it listens gets its answer as well."""
    body = b"x" * 20_000_000

    with closing(socket.create_connection((collector.host, collector.port), timeout=30)) as sock:
        sock.sendall(f"POST {POST_PATH} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        sock.sendall(body)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_body_that_nobody_asks_for_may_be_too_large(collector, session):
    """Who needs no body does not mind its size."""
    assert session.post(collector.url + "/micro/all", data=b"x" * (MAX_BODY_BYTES + 1)).status_code == 200


def test_largest_body_is_taken(collector, session):
    """Exactly 2,097,152 bytes are accepted, though the pipeline throws them away."""
    response = session.post(collector.url + POST_PATH, data=body_of(2_097_152), headers=JSON_TYPE)

    assert (response.status_code, len(collector.requests[0].body)) == (200, 2_097_152)
    assert len(collector.bad) == 1


def test_size_violation_is_accepted_and_bad(collector, session):
    """One byte more than 1,048,576 is answered with 200, and bad."""
    statuses = [
        session.post(collector.url + POST_PATH, data=body_of(size), headers=JSON_TYPE).status_code
        for size in (1_048_576, 1_048_577)
    ]

    assert (statuses, len(collector.payloads)) == ([200, 200], 2)
    assert len(collector.good) == 1
    assert [event.errors[0].startswith("Size violation") for event in collector.bad] == [True]


def line_of(characters):
    path = "/i?e=pv&page="
    return path + "x" * (characters - len(f"GET {path} HTTP/1.1"))


def test_line_that_is_too_long_is_refused(collector, session):
    """A request line of more than 20,480 characters gets status 400, whatever has been prepared."""
    collector.respond_with(202)

    refused = session.get(collector.url + line_of(20_481))
    taken = session.get(collector.url + line_of(20_480))

    assert (refused.status_code, refused.text) == (400, "a request line may have 20480 characters\n")
    assert taken.status_code == 202
    assert [(request.status, len(request.payloads)) for request in collector.requests] == [(400, 0), (202, 1)]


@pytest.mark.parametrize(
    ("host", "url_host"), [("localhost", "localhost"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")]
)
def test_collector_listens_where_it_is_told_to(session, host, url_host):
    """The host may be any address of this machine, and the URL leads there."""
    try:
        with LocalCollector(host=host) as collector:
            assert (collector.host, collector.url) == (host, f"http://{url_host}:{collector.port}")
            post(session, collector, payload())
            collector.refuse_connections()
            collector.accept_connections()
            post(session, collector, payload())
            assert len(collector.good) == 2
            assert collector.requests[0].ip_address
    except OSError:
        if ":" not in host:
            raise
        pytest.skip("this machine has no IPv6")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"host": 1}, TypeError, "host must be a string, got 1"),
        ({"host": ""}, ValueError, "host must not be empty"),
        ({"max_events": 0}, ValueError, "max_events must be positive, got 0"),
        ({"max_events": "1"}, TypeError, "max_events must be an integer, got '1'"),
        ({"unknown_schemas": "maybe"}, ValueError, "unknown_schemas must be .*, got 'maybe'"),
        ({"schemas": "/nowhere/at/all"}, ValueError, "schemas .*/nowhere/at/all"),
    ],
)
def test_options_must_make_sense(options, error, message):
    """What can be no option is refused by the constructor, by name."""
    with pytest.raises(error, match=message):
        LocalCollector(**options)


def test_host_that_is_not_here_is_an_error():
    """An address of another machine cannot be listened on."""
    with pytest.raises(OSError, match=r"assign|requested|address"):
        LocalCollector(host="192.0.2.1").start()


def test_data_is_validated_with_schemas(session, tmp_path):
    """With a folder of schemas, data has to obey its schema; an unknown schema is bad or good as one wishes."""
    folder = tmp_path / "com.acme" / "cart" / "jsonschema"
    folder.mkdir(parents=True)
    (folder / "1-0-0").write_text('{"type": "object", "required": ["items"]}')

    def outcome(unknown_schemas, schema, data):
        inner = {"schema": schema, "data": data}
        envelope = {"schema": "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0", "data": inner}
        encoded = base64.urlsafe_b64encode(json.dumps(envelope).encode()).decode()
        with LocalCollector(schemas=tmp_path, unknown_schemas=unknown_schemas) as collector:
            session.get(f"{collector.url}/i?e=ue&p=web&tv=x&eid={EVENT_ID}&ue_px={quote(encoded)}")
            return len(collector.good), len(collector.bad)

    assert outcome("reject", CART, {"items": []}) == (1, 0)
    assert outcome("reject", CART, {}) == (0, 1)
    assert outcome("reject", USER, {}) == (0, 1)
    assert outcome("accept", USER, {}) == (1, 0)


def test_collector_keeps_as_much_as_it_is_told_to(session):
    """Of requests, payloads and events, the newest are kept; counts and waiting go by all."""
    with LocalCollector(max_events=3) as collector:
        for number in range(5):
            session.get(collector.url + f"/i?e=pv&p=web&tv=x&eid={EVENT_ID}&page={number}")

        assert len(collector.wait_for_requests(5)) == 3
        assert [payload["page"] for payload in collector.wait_for_payloads(5)] == ["2", "3", "4"]
        assert [event.payload["page"] for event in collector.good] == ["2", "3", "4"]
        assert session.get(collector.url + "/micro/all").json()["good"] == 5
        with pytest.raises(AssertionError, match=r"^6 requests expected within 0 s, 5 arrived\n"):
            collector.wait_for_requests(6, timeout=0)


def test_bad_event_that_is_no_longer_kept_came_all_the_same(session):
    """That the collector forgets does not make what arrived good."""
    with LocalCollector(max_events=1) as collector:
        post(session, collector, {"e": "pv"})
        collector.assert_count(bad=1)
        post(session, collector, payload())

        with pytest.raises(AssertionError) as failure:
            collector.assert_no_bad()

    assert collector.bad == []
    assert str(failure.value) == "Expected no bad events, got 1:\n    and 1 no longer kept"


def test_limited_collector_is_limited_in_bytes(session, monkeypatch):
    """The newest are kept as long as they are not too much; requests of other kinds do not push events out."""
    monkeypatch.setattr(collector_module, "_MAX_KEPT_BYTES", 10_000)
    monkeypatch.setattr(_event_log, "_MAX_KEPT_BYTES", 60_000)
    with LocalCollector(max_events=100) as collector:
        for number in range(9):
            post(session, collector, payload(page=f"{number}".ljust(1_500)))
        for _ in range(40):
            session.post(collector.url + "/elsewhere", data=b"x" * 100)

        assert {request.path for request in collector.requests} == {"/elsewhere"}
        for kept in (collector.payloads, [event.payload for event in collector.good]):
            assert [payload["page"][0] for payload in kept] == list("012345678")[-len(kept) :]
            assert 1 < len(kept) < 9
        assert session.get(collector.url + "/micro/all").json()["good"] == 9


def test_waiting_for_events_ends_with_their_arrival(collector, session):
    """A test that waits for events is woken by them."""
    asked = threading.Event()
    outcome = []

    def has_event():
        asked.set()
        return event_ids(collector.good) == [EVENT_ID]

    waiting = threading.Thread(target=lambda: outcome.append(collector._wait_until(has_event, 10)))
    waiting.start()
    assert asked.wait(10)
    post(session, collector, payload())
    waiting.join(10)

    assert outcome == [True]


def test_subclass_hears_of_accepted_requests_before_they_are_answered(session):
    """A subclass is told of each accepted request, with no lock held, and of no other."""
    heard = []

    class Listening(LocalCollector):
        def _accepted(self, request):
            asking = threading.Thread(target=lambda: heard.append((request.method, len(self.good), len(self.requests))))
            asking.start()
            asking.join(10)

    with Listening() as collector:
        collector.respond_with(503, 200, 200)
        post(session, collector, payload())
        post(session, collector, payload())
        session.get(collector.url + "/i", params=payload())

    assert heard == [("POST", 1, 2), ("GET", 2, 3)]
