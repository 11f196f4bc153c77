"""Assertions about the events that arrived, and what they say when they fail."""

from dataclasses import replace
from unittest.mock import ANY
from uuid import UUID

import pytest
from support import PATIENCE_SECONDS

from snowplow_tracker import (
    AsyncEmitter,
    Emitter,
    PagePing,
    PageView,
    SelfDescribing,
    SelfDescribingJson,
    StructuredEvent,
    Tracker,
)
from snowplow_tracker.testing import BadEvent, CollectedRequest, RecordingEmitter
from snowplow_tracker.testing._assertions import EventAssertions
from snowplow_tracker.testing._expectation import EventExpectation

SALE = "iglu:com.acme/sale/jsonschema/1-0-0"
USER = "iglu:com.acme/user/jsonschema/1-0-0"
PAGE = "iglu:com.acme/page/jsonschema/2-0-0"


class Arrivals(EventAssertions):
    """Has what arrives, one event more each time that somebody waits for it."""

    def __init__(self, good=(), bad=(), later=()):
        self._good = list(good)
        self._bad = list(bad)
        self.later = list(later)
        self.timeout = None

    @property
    def good(self):
        return list(self._good)

    @property
    def bad(self):
        return list(self._bad)

    def _wait_until(self, condition, timeout):
        self.timeout = timeout
        while not condition():
            if not self.later:
                return False
            self._good.append(self.later.pop(0))
        return True


@pytest.fixture
def recorder():
    return RecordingEmitter()


@pytest.fixture
def tracker(recorder):
    return Tracker("test", recorder)


@pytest.fixture
def shop(recorder, tracker):
    """A recorder of a page view, a structured event and a sale."""
    tracker.track(PageView("https://example.com/shop", "Shop"))
    tracker.track(StructuredEvent("shop", "add", value=9.99))
    tracker.track(
        SelfDescribing(
            SelfDescribingJson(SALE, {"price": 10, "items": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}]}),
            context=[SelfDescribingJson(USER, {"id": 7}), SelfDescribingJson(PAGE, {"path": "/"})],
        )
    )
    return recorder


def message_of(assertion, *arguments, **words):
    with pytest.raises(AssertionError) as failure:
        assertion(*arguments, **words)
    return str(failure.value)


def without_ids(message):
    """Event ids are random."""
    lines = [line.partition(" (eid ")[0] + line.partition(")")[2] for line in message.split("\n")]
    return "\n".join(line.rstrip() if " (eid " in line else line for line in lines)


def good_event(recorder, **payload):
    recorder.input({"e": "pv", "p": "web", "tv": "x", **payload})
    return recorder.good[-1]


def request(path="/i", timestamp=0.0):
    return CollectedRequest(
        method="GET",
        path=path,
        query={},
        headers={},
        body=b"",
        payloads=[],
        status=200,
        connection=1,
        received_at=0.0,
        timestamp=timestamp,
    )


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"event_type": "unstruct"},
        {"schema": SALE},
        {"data": {"price": 10}},
        {"data": {"items": [{"sku": "b"}]}},
        {"data": {"price": ANY, "items": [{"n": 2}, {"n": 1}]}},
        {"contexts": []},
        {"contexts": [USER]},
        {"contexts": [PAGE, USER]},
        {"contexts": [{"schema": USER, "data": {}}]},
        {"contexts": [{"data": {"id": 7}}]},
        {"contexts": [SelfDescribingJson(USER, {"id": 7}), PAGE]},
        {"contexts": (USER,)},
        {"properties": {}},
        {"properties": {"e": "ue", "tna": "test", "name_tracker": "test", "user_id": None, "uid": None}},
        {"properties": {"platform": ANY}},
        {
            "event_type": "unstruct",
            "schema": SALE,
            "data": {"price": 10},
            "contexts": [USER],
            "properties": {"p": "pc"},
        },
    ],
)
def test_event_is_found_by_what_is_given_of_it(shop, words):
    """What is not mentioned does not matter."""
    assert shop.good[2] in shop.assert_event(**words)


@pytest.mark.parametrize(
    "words",
    [
        {"event_type": "page_ping"},
        {"schema": "iglu:com.acme/sale/jsonschema/1-0-1"},
        {"event_type": "struct", "schema": SALE},
        {"data": {"price": "10"}},
        {"data": {"items": [{"sku": "b", "n": 1}]}},
        {"contexts": [USER, USER]},
        {"contexts": [{"schema": USER, "data": {"id": 8}}]},
        {"contexts": [SelfDescribingJson(USER, {"id": 7, "name": "x"})]},
        {"event_type": "unstruct", "properties": {"se_category": ANY}},
        {"event_type": "page_view", "data": ANY},
        {"properties": {"app_id": ANY}},
        {"properties": {"name_tracker": None}},
    ],
)
def test_event_without_what_is_expected_is_not_taken(shop, words):
    """All that is given has to be met, by one and the same event."""
    with pytest.raises(AssertionError):
        shop.assert_event(**words)


@pytest.mark.parametrize(
    ("properties", "is_met"),
    [
        ({"page_urlscheme": "https", "page_urlhost": "shop.example", "page_urlpath": "/teas"}, True),
        ({"page_urlport": 443, "page_urlquery": "sort=price"}, True),
        ({"page_urlport": "443", "page_urlfragment": None}, True),
        ({"refr_urlhost": None}, True),
        ({"page_urlpath": "/"}, False),
        ({"page_urlpath": None}, False),
    ],
)
def test_properties_may_be_parts_of_urls(recorder, properties, is_met):
    """A warehouse has fields for them, which no tracker sends."""
    good_event(recorder, url="https://shop.example/teas?sort=price")

    if is_met:
        recorder.assert_event(properties=properties)
    else:
        assert "properties." in message_of(recorder.assert_event, properties=properties)


@pytest.mark.parametrize(
    ("properties", "is_met"),
    [
        ({"se_value": 9.5}, True),
        ({"se_value": "9.5"}, True),
        ({"se_va": 9.5}, True),
        ({"se_va": "9.5"}, True),
        ({"se_va": "9.50"}, False),
        ({"se_va": 9}, False),
        ({"se_value": "nine"}, False),
        ({"vid": 3}, True),
        ({"domain_sessionidx": "3"}, True),
        ({"tna": 12}, True),
        ({"tna": 12.0}, True),
        ({"tna": 10**400}, False),
        ({"cookie": True}, True),
        ({"cookie": "1"}, True),
        ({"cookie": 1}, True),
        ({"br_cookies": True}, True),
        ({"br_cookies": 1}, True),
        ({"br_cookies": "1"}, True),
        ({"br_cookies": False}, False),
        ({"br_cookies": "yes"}, False),
        ({"cookie": False}, False),
        ({"cookie": ["1"]}, False),
        ({"eid": UUID(int=1)}, True),
        ({"event_id": UUID(int=2)}, False),
    ],
)
def test_properties_equal_their_text(recorder, properties, is_met):
    """On the wire all values are text, in the warehouse they are not; a test need not know which is which."""
    good_event(recorder, e="se", se_ca="a", se_ac="b", se_va="9.5", vid="3", tna="12", cookie="1", eid=str(UUID(int=1)))

    if is_met:
        recorder.assert_event(properties=properties)
    else:
        assert "properties." in message_of(recorder.assert_event, properties=properties)


def test_matching_events_are_returned(shop, tracker):
    """A test can look at the events that were found, which come in order of arrival."""
    tracker.track(PageView("https://example.com/2"))

    found = shop.assert_event(event_type="page_view", count=2)

    assert [event.fields["page_url"] for event in found] == ["https://example.com/shop", "https://example.com/2"]


def test_count_of_events_is_exact(shop):
    """With a count, more events than expected are as wrong as fewer."""
    shop.assert_event(event_type="struct", count=1)
    shop.assert_event(event_type="page_ping", count=0)

    assert "but 1 of 3 match" in message_of(shop.assert_event, event_type="struct", count=0)
    assert "but 1 of 3 match" in message_of(shop.assert_event, event_type="struct", count=2)


def test_good_and_bad_events_are_counted(recorder, tracker):
    """Either number may be left out."""
    tracker.track(PageView("https://example.com"))
    recorder.input({"e": "pv"})

    recorder.assert_count(good=1)
    recorder.assert_count(bad=1)
    recorder.assert_count(good=1, bad=1)


def test_bad_events_are_reported_with_what_is_wrong(recorder, tracker):
    """`assert_no_bad` says which payloads are bad, and why."""
    tracker.track(PageView("https://example.com"))
    recorder.assert_no_bad()
    recorder.input({"e": "pv", "p": "web"})

    message = message_of(recorder.assert_no_bad)

    assert message.startswith("Expected no bad events, got 1:\n    page_view (without an eid)\n        ")
    assert "tv" in message


def test_bad_event_is_called_by_what_can_be_read_of_it(recorder, tracker):
    """The reader sees which event it is, and no Base64, though a part of it is bad."""
    tracker.track(SelfDescribing(SelfDescribingJson(SALE, {}), context=[SelfDescribingJson("no schema", {})]))

    message = message_of(recorder.assert_no_bad)

    assert f"    unstruct {SALE} (eid " in message


def test_wait_that_was_not_needed_is_not_told_of(recorder, tracker):
    """One event too many is seen at once, whatever the timeout."""
    tracker.track(PageView("https://example.com"))

    message = message_of(recorder.assert_event, event_type="page_view", count=0, timeout=60)

    assert message.startswith("Expected 0 good events with the following, but 1 of 1 match:\n")


def test_events_are_ordered_by_their_creation(recorder):
    """The time at which the tracker made an event counts, not that of its arrival."""
    for e, dtm in [("pp", "3000"), ("se", "1000"), ("pv", "2000")]:
        good_event(recorder, e=e, dtm=dtm)

    recorder.assert_order(["struct", "page_view", "page_ping"])
    recorder.assert_order(["struct", "page_ping"])
    recorder.assert_order([])


def test_events_of_one_moment_are_ordered_by_arrival(recorder):
    """A millisecond is long enough for several events."""
    for url in ("b", "a", "b"):
        good_event(recorder, url=url, dtm="1000")

    recorder.assert_order([{"properties": {"url": url}} for url in ("b", "a", "b")])


def test_event_without_time_of_creation_is_ordered_by_arrival(recorder):
    """A tracker of another kind may leave out when it made the event."""
    first = good_event(recorder, url="first")
    second = replace(good_event(recorder, url="second"), request=request(timestamp=2.0))
    third = good_event(recorder, url="third", dtm="3000")

    Arrivals([third, second, first]).assert_order(
        [{"properties": {"url": url}} for url in ("first", "second", "third")]
    )


def test_order_takes_dicts_types_and_schemas(shop):
    """An entry may be the words of `assert_event`, or the type or schema alone."""
    shop.assert_order(
        ["page_view", {"event_type": "struct", "properties": {"se_action": "add"}}, SALE],
    )


def test_one_event_is_not_two_entries_of_an_order(shop):
    """Each entry needs an event of its own."""
    assert "none for expected[1] after that for expected[0]" in message_of(shop.assert_order, ["struct", "struct"])


def test_assertions_wait_for_what_is_under_way(recorder):
    """An asynchronous emitter may not have sent the event yet."""
    events = [good_event(recorder, url=url) for url in ("a", "b", "c")]

    Arrivals(later=events).assert_event(properties={"url": "b"})
    Arrivals(later=events).assert_event(event_type="page_view", count=3)
    Arrivals(later=events).assert_count(good=2)
    Arrivals(later=events).assert_order([{"properties": {"url": url}} for url in ("a", "c")])


def test_assertions_wait_no_longer_than_needed(recorder):
    """What is there is not waited for."""
    arrivals = Arrivals(later=[good_event(recorder), good_event(recorder)])

    arrivals.assert_event(event_type="page_view")

    assert len(arrivals.later) == 1


@pytest.mark.parametrize(("words", "seconds"), [({}, 5.0), ({"timeout": 2}, 2.0), ({"timeout": 0.5}, 0.5)])
def test_timeout_is_said_in_the_message(words, seconds):
    """The time that was waited is given, or 5 seconds."""
    arrivals = Arrivals()

    messages = [
        message_of(arrivals.assert_event, **words),
        message_of(arrivals.assert_count, good=1, **words),
        message_of(arrivals.assert_order, ["struct"], **words),
    ]

    assert arrivals.timeout == seconds
    assert all(f" within {seconds:g} s" in message for message in messages)


def test_each_event_is_looked_at_once(recorder):
    """Waiting for many events is not slow because all of them are compared again at each arrival."""
    looked_at = []

    class Url:
        def __eq__(self, other):
            looked_at.append(other)
            return True

        __hash__ = None

    Arrivals(later=[good_event(recorder, url=str(n)) for n in range(10)]).assert_event(
        properties={"page_url": Url()}, count=10
    )

    assert looked_at == [str(n) for n in range(10)]


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
def test_collector_asserts_what_arrives_over_the_wire(collector, emitter_class):
    """The same assertions hold for a real collector, whichever emitter sends."""
    with Tracker("test", emitter_class(collector.url, batch_size=1)) as tracker:
        tracker.track(StructuredEvent("shop", "add"))
        tracker.track(PageView("https://example.com"))

        collector.assert_event(event_type="page_view", timeout=PATIENCE_SECONDS)
        collector.assert_count(good=2, bad=0, timeout=PATIENCE_SECONDS)
        collector.assert_order(["struct", "page_view"])
        collector.assert_no_bad()


def test_message_shows_what_differs(shop):
    """The event that comes nearest is shown with its differences only, and those that are far away not at all."""
    message = message_of(
        shop.assert_event,
        event_type="struct",
        properties={"se_category": "shop", "se_action": "remove", "se_label": "x"},
    )

    assert without_ids(message) == (
        "Expected a good event with the following, but 0 of 3 match:\n"
        "    event_type: 'struct'\n"
        "    properties: {'se_category': 'shop', 'se_action': 'remove', 'se_label': 'x'}\n"
        "The nearest:\n"
        "    struct shop / add\n"
        "        properties.se_action: expected 'remove', got 'add'\n"
        "        properties.se_label: expected 'x', missing"
    )


def test_message_names_places_in_data_and_contexts(shop):
    """A difference is named by its path, at any depth; what does not fit into a line stands below each other."""
    message = message_of(
        shop.assert_event,
        schema=SALE,
        data={"price": 11, "items": [{"sku": "b", "n": 3}, {"sku": "c"}]},
        contexts=[SelfDescribingJson(USER, {"id": 8}), "iglu:com.acme/cart/jsonschema/1-0-0"],
        properties={"name_tracker": None},
    )

    assert without_ids(message).partition("The nearest:\n")[2] == (
        f"    unstruct {SALE}\n"
        "        data.price: expected 11, got 10\n"
        "        data.items[1].n: expected 3, got 2\n"
        "        data.items: expected an item {'sku': 'c'}, got [{'sku': 'a', 'n': 1}, {'sku': 'b', 'n': 2}]\n"
        "        contexts[0].data.id: expected 8, got 7\n"
        "        contexts:\n"
        "          expected an item {'schema': 'iglu:com.acme/cart/jsonschema/1-0-0'}\n"
        f"          got              [{{'schema': '{USER}', 'data': {{'id': 7}}}}, "
        f"{{'schema': '{PAGE}', 'data': {{'path': '/'}}}}]\n"
        "        properties.name_tracker: expected nothing, got 'test'"
    )


def test_message_lists_the_events_if_none_comes_near(shop):
    """When nothing of the expectation is met, it helps to see what is there."""
    assert without_ids(message_of(shop.assert_event, event_type="page_ping")) == (
        "Expected a good event with the following, but 0 of 3 match:\n"
        "    event_type: 'page_ping'\n"
        "None comes near; these are there:\n"
        "    page_view https://example.com/shop\n"
        "    struct shop / add\n"
        f"    unstruct {SALE}"
    )


def test_message_says_that_nothing_arrived(recorder):
    """The first thing to know is whether anything was tracked at all."""
    assert message_of(recorder.assert_event) == (
        "Expected a good event with the following, but no good event arrived:\n    anything"
    )


@pytest.mark.parametrize(
    ("statuses", "line"),
    [
        ([], "No request came. An emitter may still hold events: flush the tracker"),
        ([503], "1 request came, answered 503"),
        ([503, 400, 503, 0], "4 requests came, answered 503 (2 times), 400, without a status"),
    ],
)
def test_message_tells_of_the_requests_if_no_good_event_arrived(statuses, line):
    """What was sent and refused, and what was not sent at all, look the same to a test that only sees no event."""
    arrivals = Arrivals()
    arrivals.requests = [replace(request(), status=status) for status in statuses]

    messages = [
        message_of(arrivals.assert_event, event_type="struct"),
        message_of(arrivals.assert_count, good=1),
        message_of(arrivals.assert_order, ["struct"]),
    ]

    assert [message.split("\n")[-1] for message in messages] == [line] * 3


def test_schema_of_another_version_is_near(shop):
    """A schema that has got a new version is the most frequent reason for a missing event."""
    message = message_of(shop.assert_event, schema="iglu:com.acme/sale/jsonschema/1-0-1")

    assert without_ids(message).endswith(
        f"The nearest:\n    unstruct {SALE}\n"
        f"        schema: expected 'iglu:com.acme/sale/jsonschema/1-0-1', got '{SALE}'"
    )


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            {"contexts": [USER.replace("1-0-0", "1-0-1")]},
            [
                "contexts[0].schema:",
                "  expected 'iglu:com.acme/user/jsonschema/1-0-1'",
                "  got      'iglu:com.acme/user/jsonschema/1-0-0'",
            ],
        ),
        ({"contexts": [{"data": {"id": "7"}}]}, ["contexts[0].data.id: expected '7', got 7"]),
        (
            {"contexts": [{"data": {"id": 8}}]},
            [
                "contexts:",
                "  expected an item {'data': {'id': 8}}",
                "  got              [{'schema': 'iglu:com.acme/user/jsonschema/1-0-0', 'data': {'id': 7}}]",
            ],
        ),
        ({"data": {"ids": ["1"]}}, ["data.ids: expected an item '1', got [1]"]),
    ],
)
def test_items_of_lists_are_shown_though_no_value_is_as_expected(recorder, tracker, words, lines):
    """What differs in type or version alone, or what else the list has, is what one has to see."""
    tracker.track(SelfDescribing(SelfDescribingJson(SALE, {"ids": [1]}), context=[SelfDescribingJson(USER, {"id": 7})]))

    message = message_of(recorder.assert_event, **words)

    assert message.split("\n")[-len(lines) :] == [f"        {line}" for line in lines]


def test_event_without_any_entity_is_not_near(recorder, tracker):
    """An empty list has nothing to show."""
    tracker.track(PageView("https://example.com"))

    assert "None comes near; these are there:" in message_of(recorder.assert_event, contexts=[USER])


def test_only_the_likeliest_events_are_compared(recorder, tracker, monkeypatch):
    """Of many events few are shown, and what the others lack need not be found out."""
    compared = []
    compare = EventExpectation.compare
    monkeypatch.setattr(EventExpectation, "compare", lambda self, event: compared.append(event) or compare(self, event))
    for n in range(20):
        tracker.track(SelfDescribing(SelfDescribingJson(SALE, {"items": [{"sku": str(n), "n": 1}, {"sku": "x"}]})))

    message = message_of(recorder.assert_event, schema=SALE, data={"items": [{"sku": "19", "n": 2}]})

    assert len(compared) == 5
    assert compared[0] is recorder.good[-1]
    assert message.split("\n")[5] == "        data.items[0].n: expected 2, got 1"


def test_property_that_must_not_be_there_is_shown(shop):
    """A single expectation that is not met shows what is there instead."""
    message = message_of(shop.assert_event, properties={"name_tracker": None})

    assert "        properties.name_tracker: expected nothing, got 'test'" in message


def test_events_of_the_expected_kind_come_first(shop):
    """Of events of another kind it matters less how much else they have."""
    message = message_of(
        shop.assert_event,
        event_type="struct",
        properties={"page_url": "https://example.com/shop", "page_title": "Shop"},
    )

    nearest = without_ids(message).partition("The nearest:\n")[2]
    assert nearest.startswith("    struct shop / add\n")


def test_message_shows_bad_events(recorder):
    """The event that is missing is often among the bad ones."""
    recorder.input({"e": "pv", "p": "web"})

    messages = [
        message_of(recorder.assert_event, event_type="page_view"),
        message_of(recorder.assert_count, good=1),
        message_of(recorder.assert_order, ["page_view"]),
    ]

    assert all("There is 1 bad event:\n    page_view (without an eid)\n        " in message for message in messages)


def test_message_of_a_count_lists_the_events(shop):
    """The events that are there tell which one is missing, or too many."""
    shop.input({"p": "web"})
    shop.input({"p": "web"})

    message = message_of(shop.assert_count, good=1, bad=0)

    assert without_ids(message).startswith(
        "Expected 1 good event and 0 bad events, got 3 good and 2 bad\n"
        "The good events:\n"
        "    page_view https://example.com/shop\n"
        "    struct shop / add\n"
        f"    unstruct {SALE}\n"
        "There are 2 bad events:\n"
        "    unknown (without an eid)\n"
    )
    assert message_of(shop.assert_count, bad=1).startswith("Expected 1 bad event, got 3 good and 2 bad\n")


def test_message_of_too_many_events_lists_them(shop, tracker):
    """With more events than expected there is nothing that they lack."""
    tracker.track(PageView("https://example.com/2"))

    assert without_ids(message_of(shop.assert_event, event_type="page_view", count=1)) == (
        "Expected 1 good event with the following, but 2 of 4 match:\n"
        "    event_type: 'page_view'\n"
        "2 events with it:\n"
        "    page_view https://example.com/shop\n"
        "    page_view https://example.com/2"
    )


def test_message_of_an_order_shows_where_it_breaks(shop, tracker):
    """An event that was found too early is marked, and the nearest of the later ones is shown."""
    tracker.track(PagePing("https://example.com/shop"))

    message = message_of(
        shop.assert_order,
        ["struct", {"event_type": "page_view", "properties": {"page_url": "https://example.com/shop"}}],
    )

    assert without_ids(message) == (
        "Expected 2 good events in order of creation, but there is none for expected[1] after that for expected[0]:\n"
        "    event_type: 'page_view'\n"
        "    properties: {'page_url': 'https://example.com/shop'}\n"
        "The good events in order of creation:\n"
        "    1. page_view https://example.com/shop  <- expected[1] would be met, but comes too early\n"
        "    2. struct shop / add  <- expected[0]\n"
        f"    3. unstruct {SALE}\n"
        "    4. page_ping https://example.com/shop\n"
        "The nearest:\n"
        "    page_ping https://example.com/shop\n"
        "        event_type: expected 'page_view', got 'page_ping'"
    )


def test_message_of_an_order_without_events(recorder):
    """Nothing is listed where nothing is."""
    assert message_of(recorder.assert_order, ["struct"]) == (
        "Expected 1 good event in order of creation, but there is none for expected[0]:\n    event_type: 'struct'"
    )


def test_message_of_a_long_order_shows_the_place_where_it_breaks(recorder):
    """Of many events, the last that were found are shown, the first after them, and the one that comes too early."""
    for n in range(30):
        good_event(recorder, url=str(n), dtm=str(n))
    expected = [{"properties": {"url": str(n)}} for n in [*range(20), 3]]

    message = message_of(recorder.assert_order, expected)

    lines = [line for line in message.split("\n") if ". page_view" in line]
    assert "\nOf the 30 good events:\n" in message
    assert [line.split(".")[0].strip() for line in lines] == [str(n) for n in [4, *range(16, 26)]]
    assert lines[0].endswith("<- expected[3]  <- expected[20] would be met, but comes too early")


def test_long_texts_are_shown_from_where_they_differ(recorder):
    """Two long texts with the same beginning would look the same if they were cut."""
    good_event(recorder, url="x" * 500 + "/actual")

    message = message_of(recorder.assert_event, properties={"url": "x" * 500 + "/expected"})

    assert f"expected '...{'x' * 19}/expected', got '...{'x' * 19}/actual'" in message


@pytest.mark.parametrize(
    ("expected", "actual"), [("y" * 500, "x" * 500), ("x", "x" * 500), ("x" * 500, "x"), ("x" * 600, "x" * 500)]
)
def test_long_values_are_cut(recorder, expected, actual):
    """A message stays readable whatever stands in the events."""
    good_event(recorder, url=actual)

    message = message_of(recorder.assert_event, properties={"url": expected})

    assert "properties.url:" in message
    assert max(map(len, message.split("\n"))) < 350


def test_long_value_that_is_missing_stands_on_its_own_line(recorder):
    """The word that matters must not be lost at the end of a long line."""
    good_event(recorder, url="x")

    message = message_of(recorder.assert_event, event_type="page_view", properties={"page": "x" * 100})

    assert message.endswith(f"        properties.page:\n          expected '{'x' * 100}'\n          missing")


def test_long_lists_are_cut(recorder):
    """Of many events the first are shown, of many differences too."""
    for n in range(12):
        good_event(recorder, url=str(n))
        recorder.input({"e": "pv"})

    count_message = message_of(recorder.assert_count, good=1)
    difference_message = message_of(recorder.assert_event, properties={f"{name}_id": 1 for name in ("user",)})
    data = {str(n): n for n in range(13)}
    recorder.reset()
    Tracker("test", recorder).track(SelfDescribing(SelfDescribingJson(SALE, {})))
    data_message = message_of(recorder.assert_event, schema=SALE, data=data)

    assert count_message.count("    and 2 more") == 2
    assert "    and 2 more" in difference_message
    assert data_message.endswith("        data['9']: expected 9, missing\n        and 3 more differences")


def test_at_most_three_events_are_compared_in_a_message(recorder):
    """The best come first."""
    for n in range(6):
        good_event(recorder, url=str(n), page="title", aid=str(n // 5))

    message = message_of(recorder.assert_event, properties={"url": "x", "page": "title", "aid": "1"})

    assert [line.split()[1] for line in message.split("\n") if line.startswith("    page_view ")] == ["5", "0", "1"]


@pytest.mark.parametrize(
    ("payload", "label"),
    [
        ({"e": "pv", "url": "u"}, "page_view u"),
        ({"e": "pp", "url": "u"}, "page_ping u"),
        ({"e": "se", "se_ca": "a", "se_ac": "b"}, "struct a / b"),
        ({"e": "tr", "tr_id": "1"}, "transaction 1"),
        ({"e": "ti", "ti_id": "2"}, "transaction_item 2"),
    ],
)
def test_events_are_told_apart_by_what_they_are_about(recorder, payload, label):
    """A list of events shows more than their types."""
    good_event(recorder, **payload)

    assert f"    {label} (without an eid)" in message_of(recorder.assert_count, good=0)


def test_long_url_does_not_take_the_id_with_it(recorder):
    """The id is what the event is found by elsewhere."""
    eid = str(UUID(int=1))
    good_event(recorder, url="x" * 500, eid=eid)

    assert f"    page_view {'x' * 300}... (eid {eid})" in message_of(recorder.assert_count, good=0)


def test_bad_event_is_labelled_though_it_cannot_be_printed(recorder):
    """What is wrong with an event must not break the message about it."""
    deep = []
    for _ in range(100_000):
        deep = [deep]

    message = message_of(
        Arrivals(bad=[BadEvent({"e": "se", "se_ca": deep, "eid": deep}, ["wrong"], None)]).assert_no_bad
    )

    assert "    struct <list that cannot be printed> / None (eid <list that cannot be printed>)" in message


@pytest.mark.parametrize(
    ("event", "label"),
    [
        (BadEvent(None, ["wrong"], request("/com.acme/tp2")), "GET /com.acme/tp2 -> 200"),
        (BadEvent(None, ["wrong"], None), "a request"),
        (BadEvent(["x"], ["wrong"], None), "['x']"),
    ],
)
def test_bad_event_is_shown_whatever_it_is(event, label):
    """A bad event may be anything, or a whole request."""
    message = message_of(Arrivals(bad=[event]).assert_no_bad)

    assert message == f"Expected no bad events, got 1:\n    {label}\n        wrong"


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"event_type": 1}, TypeError, "event_type must be a string, got 1"),
        ({"event_type": "pv"}, ValueError, "event_type must be one of page_view, .*, got 'pv'"),
        ({"schema": 1}, TypeError, "schema must be a string, got 1"),
        ({"schema": "com.acme/sale"}, ValueError, "schema must be like iglu:.*, got 'com.acme/sale'"),
        (
            {"schema": "iglu:com.acme/sale/jsonschema/0-0-1"},
            ValueError,
            "schema must be like iglu:.*, got 'iglu:com.acme/sale/jsonschema/0-0-1'",
        ),
        ({"contexts": USER}, TypeError, "contexts must be a list, got 'iglu:"),
        ({"contexts": {"schema": USER}}, TypeError, "contexts must be a list, got {"),
        ({"contexts": [USER, 1]}, TypeError, r"contexts\[1\] must be a schema, a dict or a SelfDescribingJson, got 1"),
        ({"contexts": ["user"]}, ValueError, r"contexts\[0\] must be like iglu:.*, got 'user'"),
        ({"contexts": [{}]}, ValueError, r"contexts\[0\] must have a schema or data and nothing else, got {}"),
        (
            {"contexts": [{"id": 7}]},
            ValueError,
            r"contexts\[0\] must have a schema or data and nothing else, got {'id'",
        ),
        ({"contexts": [{"schema": "user"}]}, ValueError, r"contexts\[0\].schema must be like iglu:.*, got 'user'"),
        ({"properties": ["e"]}, TypeError, r"properties must be a dict, got \['e'\]"),
        ({"properties": {"se_catgory": 1}}, ValueError, "got 'se_catgory', similar to se_category"),
        (
            {"properties": {"?": 1}},
            ValueError,
            r"names of what a tracker sends, in the warehouse or on the wire, got '\?'$",
        ),
        ({"count": "1"}, TypeError, "count must be an integer, got '1'"),
        ({"count": True}, TypeError, "count must be an integer, got True"),
        ({"count": -1}, ValueError, "count must not be negative, got -1"),
        ({"timeout": "1"}, TypeError, "timeout must be a number, got '1'"),
        ({"timeout": -1}, ValueError, "timeout must not be negative, got -1"),
    ],
)
def test_expectation_that_no_event_can_meet_is_refused(recorder, words, error, message):
    """A mistake in the test is no failure of what is tested: it is named at once."""
    with pytest.raises(error, match=message):
        recorder.assert_event(**words)


@pytest.mark.parametrize(
    ("expected", "error", "message"),
    [
        ("struct", TypeError, "expected must be a list, got 'struct'"),
        ({"event_type": "struct"}, TypeError, "expected must be a list, got {"),
        (1, TypeError, "expected must be a list, got 1"),
        (["struct", 1], TypeError, r"expected\[1\] must be an event type, a schema or a dict, got 1"),
        (["pv"], ValueError, r"expected\[0\]: event_type must be one of"),
        (["iglu:x"], ValueError, r"expected\[0\]: schema must be like"),
        ([{"count": 1}], ValueError, r"expected\[0\] must have no words but event_type, .*, got 'count'"),
        ([{"properties": 1}], TypeError, r"expected\[0\]: properties must be a dict"),
    ],
)
def test_order_that_no_events_can_have_is_refused(recorder, expected, error, message):
    """The entry that is wrong is named."""
    with pytest.raises(error, match=message):
        recorder.assert_order(expected)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({}, TypeError, "good or bad must be given, got neither"),
        ({"good": 1.0}, TypeError, "good must be an integer, got 1.0"),
        ({"bad": -1}, ValueError, "bad must not be negative, got -1"),
    ],
)
def test_count_that_cannot_be_is_refused(recorder, words, error, message):
    """A count is a number of events."""
    with pytest.raises(error, match=message):
        recorder.assert_count(**words)
