"""The page that shows events as they arrive: what it asks for, and how it behaves in a browser."""

import base64
import hashlib
import json
import os
import re
import shutil
import threading
import uuid
from urllib.parse import quote

import pytest
import requests

from snowplow_tracker import Emitter, PageView, SelfDescribing, SelfDescribingJson, StructuredEvent, Tracker
from snowplow_tracker.testing import Answer, BadEvent, GoodEvent, _micro_ui
from snowplow_tracker.testing._event_log import EventLog
from snowplow_tracker.testing._micro_ui import MicroPage

pytestmark = pytest.mark.thorough

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
POST_PATH = "/com.snowplowanalytics.snowplow/tp2"
CLICK = "iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1"
USER = "iglu:com.acme/user/jsonschema/1-0-0"
EVENT_ID = "5628c4c6-3f8a-43f8-a09f-6ff68f68dfb6"
PATIENCE_SECONDS = 20
CHROMIUM_FLAGS = """
    --headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-dev-shm-usage --no-proxy-server
"""


@pytest.fixture
def tracker(collector):
    with Tracker("shop", Emitter(collector.url, batch_size=1), app_id="web") as tracker:
        yield tracker


@pytest.fixture
def ask(collector):
    """Asks for events the way that the page does."""
    with requests.Session() as session:
        session.trust_env = False
        yield lambda **query: session.get(collector.url + "/micro/ui/events", params=query)


def track_click(tracker, target="/cart"):
    user = SelfDescribingJson(USER, {"id": 17, "plan": None})
    return tracker.track(SelfDescribing(SelfDescribingJson(CLICK, {"targetUrl": target}), context=[user]))


def send(collector, payloads):
    """Send payloads in one request, as they are."""
    envelope = {"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": payloads}
    requests.post(collector.url + POST_PATH, json=envelope, proxies={"http": ""}).raise_for_status()


def page_views(count, first=0):
    return [
        {"e": "pv", "p": "web", "tv": "x", "eid": str(uuid.uuid4()), "page": f"page-{first + number}"}
        for number in range(count)
    ]


def spoil(collector, value="abc"):
    """Send an event that is bad, with something in it that can be decoded."""
    inner = {"schema": CLICK, "data": {"targetUrl": "/spoiled"}}
    envelope = {"schema": "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0", "data": inner}
    encoded = base64.urlsafe_b64encode(json.dumps(envelope).encode()).decode().rstrip("=")
    query = f"e=ue&p=web&tv=x&dtm={quote(value)}&ue_px={encoded}"
    requests.get(f"{collector.url}/i?{query}", proxies={"http": ""}).raise_for_status()


def test_page_is_complete_in_itself(collector):
    """The page refers to nothing outside of it, and is not recorded."""
    response = requests.get(collector.url + "/micro/ui")

    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert collector.requests == []
    assert re.findall(r'(?:src|href)="(?!data:)', response.text) == []
    assert "@import" not in response.text
    assert "innerHTML" not in response.text


def test_page_may_run_nothing_but_its_own_script(collector):
    """The policy names the script and the style by their hashes, and forbids all else."""
    response = requests.get(collector.url + "/micro/ui")
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))

    for tag in ("script", "style"):
        (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_events_of_the_page_are_decoded(tracker, ask):
    """A good event comes with its data, entities and fields."""
    event_id = track_click(tracker)

    answer = ask().json()
    (event,) = answer["events"]

    assert (answer["good"], answer["bad"], answer["oldest"], event["id"]) == (1, 0, 1, 1)
    assert (event["good"], event["type"], event["schema"], event["data"]) == (
        True,
        "unstruct",
        CLICK,
        {"targetUrl": "/cart"},
    )
    assert event["contexts"] == [{"schema": USER, "data": {"id": 17, "plan": None}}]
    assert (event["fields"]["event_id"], event["payload"]["eid"]) == (event_id, event_id)
    assert (event["errors"], event["request"]["method"], event["request"]["path"]) == ([], "POST", POST_PATH)
    assert event["time"].endswith("Z")


def test_bad_events_of_the_page_are_decoded_as_far_as_can_be(collector, ask):
    """What a bad event holds is what one looks for the mistake in."""
    spoil(collector)

    (event,) = ask().json()["events"]

    assert (event["good"], event["type"], event["schema"]) == (False, "unstruct", CLICK)
    assert (event["data"], event["contexts"]) == ({"targetUrl": "/spoiled"}, [])
    assert "dtm" in event["errors"][0]


def test_request_that_cannot_be_read_is_shown_as_it_came(collector, ask):
    """Where there is no payload, there is the body, but not all of a long one."""
    requests.post(collector.url + POST_PATH, data="{" + "x" * 20_000, headers={"Content-Type": "application/json"})

    (event,) = ask().json()["events"]

    assert (event["type"], event["payload"], event["body"]) == ("unreadable", None, "{" + "x" * 9_999)


ENTITIES = {"schema": "iglu:x", "data": [{"schema": USER, "data": {}}]}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"e": "pv"}, ("page_view", None, None, [])),
        ({"e": ["pv"]}, ("unknown", None, None, [])),
        (["no", "payload"], ("unknown", None, None, [])),
        ({"e": "ue", "ue_pr": '{"data": {"schema": "a", "data": 1}}'}, ("unstruct", "a", 1, [])),
        ({"e": "ue", "ue_pr": '{"data": {"schema": "a"}}'}, ("unstruct", None, {"schema": "a"}, [])),
        ({"e": "ue", "ue_pr": '{"data": {"schema": 1, "data": 2}}'}, ("unstruct", None, {"schema": 1, "data": 2}, [])),
        ({"e": "ue", "ue_pr": "{"}, ("unstruct", None, None, [])),
        ({"e": "ue", "ue_pr": "[" * 100_000}, ("unstruct", None, None, [])),
        ({"e": "ue", "ue_pr": "[]"}, ("unstruct", None, None, [])),
        ({"e": "ue", "ue_pr": "{}"}, ("unstruct", None, None, [])),
        ({"e": "ue", "ue_px": 1}, ("unstruct", None, None, [])),
        ({"e": "ue", "ue_px": "x"}, ("unstruct", None, None, [])),
        ({"e": "pv", "co": json.dumps(ENTITIES)}, ("page_view", None, None, ENTITIES["data"])),
        ({"e": "pv", "co": '{"data": 1}'}, ("page_view", None, None, [])),
    ],
)
def test_bad_payload_may_be_anything(payload, expected):
    """No payload is so bad that it cannot be shown."""
    (event,) = shown_events(BadEvent(payload, ["bad"], None))

    assert (event["type"], event["schema"], event["data"], event["contexts"]) == expected
    assert event["payload"] == payload


def test_event_that_no_request_brought_is_shown():
    """Time and request are left out where nothing is known of them."""
    events = shown_events(GoodEvent({}, "struct", "a", None, [], {}, None), BadEvent(None, ["bad"], None))

    assert [set(event) & {"time", "request", "body"} for event in events] == [set(), set()]


def shown_events(*events):
    return answer_about(*events)["events"]


def answer_about(*events):
    class Surprises:
        def judge_request(self, request):
            return list(events)

    log = EventLog(Surprises())
    log.add(type("Request", (), {"payloads": []}))
    respond = MicroPage(log).routes()["GET", "/micro/ui/events"]
    return json.loads(respond(type("Request", (), {"query": {}})).body)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [4, 3, 2, 1]),
        ({"limit": 2}, [4, 3]),
        ({"after": 3}, [4]),
        ({"before": 3}, [2, 1]),
        ({"before": 3, "limit": 1}, [2]),
        ({"limit": 10**30}, [4, 3, 2, 1]),
        ({"limit": 0}, []),
    ],
)
def test_page_asks_for_what_it_lacks(collector, ask, query, expected):
    """The page asks for the newest events, those after an event, or those before one."""
    send(collector, page_views(4))

    assert [event["id"] for event in ask(**query).json()["events"]] == expected


def test_answer_to_the_page_is_bounded(collector, ask):
    """There are never more than 1,000 events in one answer."""
    send(collector, page_views(1001))

    answers = [ask(**query).json()["events"] for query in ({}, {"limit": 5000})]

    assert [(len(answer), answer[-1]["id"]) for answer in answers] == [(1000, 2)] * 2


@pytest.mark.parametrize(
    ("query", "complete"),
    [({}, False), ({"after": 1}, True), ({"before": 1001}, True), ({"limit": 1001}, False), ({"limit": 0}, False)],
)
def test_answer_tells_whether_there_is_more(collector, ask, query, complete):
    """Who does not get all that there is to a question can ask for the rest."""
    send(collector, page_views(1001))

    assert ask(**query).json()["complete"] is complete


def test_answer_about_nothing_is_complete(ask):
    """Where there are no events, there are no more of them either."""
    assert ask().json()["complete"] is True


def test_answer_to_the_page_is_bounded_in_size(collector, ask):
    """An answer has at most 8,000,000 characters, but always an event; the others come when they are asked for."""
    for number in range(5):
        send(collector, [{**page_views(1)[0], "page": f"{number}" + "x" * 900_000}])

    first = ask()
    events = first.json()["events"]
    rest = ask(before=events[-1]["id"]).json()

    assert 5_000_000 < len(first.text) <= 8_000_000
    assert (len(events), first.json()["complete"], rest["complete"]) == (4, False, True)
    assert [event["payload"]["page"][0] for event in events + rest["events"]] == list("43210")


def test_answer_has_an_event_in_any_case(monkeypatch):
    """What is too large all by itself is shown by itself."""
    monkeypatch.setattr(_micro_ui, "_MOST_CHARACTERS", 10)
    answer = answer_about(BadEvent(None, ["first"], None), BadEvent(None, ["second"], None))

    assert (len(answer["events"]), answer["events"][0]["errors"], answer["complete"]) == (1, ["second"], False)


def nested(depth):
    deep = []
    for _ in range(depth):
        deep = [deep]
    return deep


@pytest.mark.parametrize("is_good", [True, False])
@pytest.mark.parametrize("data", [nested(100_000), object()], ids=["too deep", "no JSON"])
def test_event_that_has_no_json_hides_no_other(data, is_good):
    """What cannot be written is told of, with its number, and what is to be seen else is seen."""
    hidden = GoodEvent({}, "unstruct", CLICK, data, [], {}, None) if is_good else BadEvent(data, ["bad"], None)

    newest, oldest = shown_events(BadEvent(None, ["seen"], None), hidden)

    assert (newest["id"], newest["good"], newest["payload"]) == (2, is_good, None)
    assert newest["errors"][0].startswith("This event cannot be shown: ")
    assert oldest["errors"] == ["seen"]


@pytest.mark.parametrize("query", [{"limit": "x"}, {"after": "-1"}, {"before": ""}])
def test_wrong_question_is_refused(collector, ask, query):
    """A number that is none gets status 400, and is told why."""
    response = ask(**query)

    assert response.status_code == 400
    assert response.text.startswith(f"{next(iter(query))} must be a whole number, 0 or more, got ")


class Page:
    """The page in a browser, by what a user sees and does."""

    def __init__(self, driver, wait, keys):
        self._driver = driver
        self._wait = wait
        self.keys = keys

    def open(self, collector):
        self._driver.get(collector.url + "/micro/ui")
        self.until(lambda: self.text("#status") == "Live")

    def until(self, condition):
        """Wait until something is so; what is found may be replaced in the very moment."""
        self._wait.until(lambda _: condition())

    def all(self, selector):
        return self._driver.find_elements("css selector", selector)

    def one(self, selector):
        return self._driver.find_element("css selector", selector)

    def texts(self, selector):
        """What the elements say, asked for in one go: they may change in between."""
        script = "return [...document.querySelectorAll(arguments[0])].map((found) => found.textContent)"
        return self._driver.execute_script(script, selector)

    def text(self, selector):
        return "".join(self.texts(selector))

    def rows(self):
        return self.texts("#events .type")

    def row_count(self):
        return self.run("return document.querySelectorAll('#events li').length")

    def counts(self):
        return [int(text.replace(",", "")) for text in self.texts(".segments b")]

    def is_shown(self, selector):
        return self.one(selector).is_displayed()

    def click(self, selector):
        self.one(selector).click()

    def press(self, *keys):
        """Press keys, wherever the focus is."""
        self._driver.switch_to.active_element.send_keys(*keys)

    def focused(self):
        return self._driver.switch_to.active_element.get_attribute("id")

    def run(self, script):
        return self._driver.execute_script(script)

    def complaints(self):
        """What the browser's console says, but for connections that failed."""
        return [entry["message"] for entry in self._driver.get_log("browser") if "ERR_CONN" not in entry["message"]]

    def resize(self, width, height, dark=False):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A browser, from the distribution's packages; nothing is downloaded."""
    selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*CHROMIUM_FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    environment = {**os.environ, "SE_OFFLINE": "true", "SE_AVOID_STATS": "true"}
    service = selenium.ChromeService(CHROMEDRIVER, env=environment)
    with selenium.Chrome(options=options, service=service) as driver:
        yield driver


@pytest.fixture
def page(driver, collector):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    page = Page(driver, WebDriverWait(driver, PATIENCE_SECONDS, poll_frequency=0.05), Keys)
    page.resize(1280, 800)
    page.open(collector)
    driver.get_log("browser")
    yield page
    complaints = page.complaints()
    # The collector is about to go, and the page need not ask for it any more.
    driver.get("about:blank")
    assert complaints == []


def test_page_shows_events_as_they_arrive(page, collector, tracker):
    """Events appear by themselves, good and bad, newest first, and are counted."""
    assert page.is_shown("#no-events")
    assert collector.url in page.text("#no-events")

    tracker.track(PageView("https://shop.example/teas", "Teas"))
    tracker.track(StructuredEvent("shop", "add", "green tea"))
    page.until(lambda: page.rows() == ["struct", "page_view"])
    track_click(tracker)
    spoil(collector)
    page.until(lambda: page.rows() == ["link_click", "link_click", "struct", "page_view"])

    assert page.counts() == [4, 3, 1]
    assert not page.is_shown("#no-events")
    assert page.texts("#events .what")[2:] == ["shop · add · green tea", "Teas · https://shop.example/teas"]
    assert page.texts("#events li.bad .what")[0].startswith("dtm ")
    assert page.run("return document.title") == "4 events, 1 bad"


def test_page_shows_events_that_were_there_before(collector, tracker, driver, page):
    """A page that is opened late shows what it missed."""
    tracker.track(PageView("https://shop.example"))

    page.open(collector)

    page.until(lambda: page.rows() == ["page_view"])


def test_click_shows_what_is_in_an_event(page, tracker):
    """The details of an event are its decoded data, its entities, its fields and its payload."""
    track_click(tracker)
    page.until(page.rows)

    page.click("#events li")

    details = page.text("#details")
    assert page.text("#details h2") == "link_click good"
    assert page.texts("#details .uri") == [CLICK, USER]
    assert [json.loads(text) for text in page.texts("#details pre")] == [
        {"targetUrl": "/cart"},
        {"id": 17, "plan": None},
    ]
    assert "app_id" in details
    assert "ue_px" in details
    assert "What is wrong" not in details


def test_click_shows_what_is_wrong_with_a_bad_event(page, collector):
    """The details of a bad event begin with the errors, and hold what could be decoded."""
    spoil(collector)
    page.until(page.rows)

    page.click("#events li")

    assert page.text("#details h3:first-of-type").startswith("What is wrong")
    assert page.texts("#details .errors li") == collector.bad[0].errors
    assert [json.loads(text) for text in page.texts("#details pre")] == [{"targetUrl": "/spoiled"}]
    assert page.is_shown("#details table")


def test_request_that_cannot_be_read_has_details(page, collector):
    """Without a payload, the body is shown."""
    requests.post(collector.url + POST_PATH, data="{broken", headers={"Content-Type": "application/json"})
    page.until(lambda: page.rows() == ["unreadable"])

    page.click("#events li")

    assert page.texts("#details pre") == ["{broken"]


def test_what_events_hold_stays_text(page, collector, tracker):
    """Markup in an event is shown as it is, and does nothing."""
    markup = "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"
    tracker.track(PageView(markup, markup))
    track_click(tracker, markup)
    spoil(collector, markup)
    send(collector, [{"e": markup, "p": [markup], markup: {markup: None}}, markup, None, 1, [markup]])
    page.until(lambda: len(page.rows()) == 8)

    for row in page.all("#events li"):
        row.click()
        assert page.all("#events img, #events script, #details img, #details script") == []

    assert page.counts() == [8, 2, 6]
    assert page.run("return document.title") == "8 events, 6 bad"


def test_events_can_be_filtered(page, collector, tracker):
    """Good or bad, the type and words in the text narrow the list down, together."""
    tracker.track(PageView("https://shop.example/teas", "Teas"))
    tracker.track(StructuredEvent("shop", "add", "Green Tea"))
    track_click(tracker, "/tea")
    spoil(collector)
    page.until(lambda: len(page.rows()) == 4)

    page.click("[data-show=bad]")
    assert (len(page.rows()), page.all("#events li.good")) == (1, [])
    page.click("[data-show=good]")
    assert (len(page.rows()), page.all("#events li.bad")) == (3, [])
    page.click("[data-show=all]")

    assert page.texts("#type option") == ["All types", "link_click", "page_view", "struct"]
    page.one("#type").send_keys("link_click")
    page.until(lambda: page.rows() == ["link_click", "link_click"])
    page.one("#text").send_keys("targeturl TEA")
    assert page.rows() == ["link_click"]
    page.one("#text").send_keys("x")
    assert page.rows() == []

    page.click("#clear")
    assert len(page.rows()) == 4
    page.press("tea green")
    assert page.rows() == ["struct"]


def test_filter_applies_to_what_arrives(page, tracker):
    """New events that a filter does not let through are counted, and not listed."""
    page.one("#text").send_keys("oolong")

    tracker.track(StructuredEvent("shop", "add", "green tea"))
    tracker.track(StructuredEvent("shop", "add", "oolong"))
    page.until(lambda: page.counts() == [2, 2, 0])

    assert page.texts("#events .what") == ["shop · add · oolong"]


def test_keyboard_is_enough(page, tracker):
    """A slash leads to the filter, arrows move, Enter opens, and Escape closes and goes back."""
    for label in "abc":
        tracker.track(StructuredEvent("shop", label))
    page.until(lambda: len(page.rows()) == 3)

    page.press("/")
    assert page.focused() == "text"
    page.press("shop/")
    assert page.one("#text").get_attribute("value") == "shop/"
    page.press(page.keys.ESCAPE)
    assert (page.one("#text").get_attribute("value"), len(page.rows())) == ("", 3)
    page.press(page.keys.ARROW_DOWN)
    assert (page.focused(), active(page)) == ("events", "shop · c")
    page.press(page.keys.ARROW_DOWN)
    assert active(page) == "shop · b"
    assert not page.is_shown("#details")

    page.press(page.keys.ENTER)
    assert (page.focused(), page.is_shown("#details")) == ("details", True)
    assert page.texts("#events [aria-selected=true] .what") == ["shop · b"]
    page.press(page.keys.ESCAPE)
    assert (page.focused(), page.is_shown("#details"), active(page)) == ("events", False, "shop · b")

    page.press(page.keys.ENTER)
    page.one("#events").send_keys(page.keys.END)
    assert (active(page), "se_action" in page.text("#details")) == ("shop · a", True)
    page.press(page.keys.ARROW_DOWN)
    assert active(page) == "shop · a"
    page.press(page.keys.HOME)
    assert active(page) == "shop · c"
    page.press(page.keys.PAGE_DOWN, page.keys.ARROW_UP)
    assert active(page) == "shop · b"


@pytest.mark.parametrize("key", ["ARROW_DOWN", "ARROW_UP", "END"])
def test_first_key_selects_the_newest_event(page, tracker, key):
    """On a fresh page, nothing has to be clicked before the keys work; the next key moves on."""
    for label in "ab":
        tracker.track(StructuredEvent("shop", label))
    page.until(lambda: len(page.rows()) == 2)

    page.press(getattr(page.keys, key))
    assert (page.focused(), active(page)) == ("events", "shop · b")
    page.press(page.keys.ARROW_DOWN)
    assert active(page) == "shop · a"

    page.run("document.activeElement.blur()")
    page.press(page.keys.ARROW_UP)
    assert active(page) == "shop · b"
    page.press(page.keys.ENTER)
    assert page.is_shown("#details")


def test_keys_do_nothing_on_a_page_without_events(page):
    """There is nothing to select, so nothing takes the focus."""
    page.press(page.keys.ARROW_DOWN)

    assert page.focused() == ""


def active(page):
    """What the row says that assistive technology is told to be the active one."""
    row = page.one("#events").get_attribute("aria-activedescendant")
    return page.text(f"[id='{row}'] .what")


def test_focus_can_be_seen(page, tracker):
    """Each thing that can have the focus shows it when the keyboard brings it there."""
    track_click(tracker)
    page.until(page.rows)

    seen = []
    page.run("document.body.focus()")
    for _ in range(8):
        page.press(page.keys.TAB)
        outline = "getComputedStyle(document.activeElement.querySelector('.active') || document.activeElement)"
        seen.append((page.run("return document.activeElement.id"), page.run(f"return {outline}.outlineStyle")))

    assert [focused for focused, _ in seen] == ["pause", "reset", "", "", "", "type", "text", "events"]
    assert {style for _, style in seen} == {"solid"}


def test_pause_stops_the_list_and_loses_nothing(page, tracker):
    """A paused page stays as it is, tells how much is new, and shows it all when it goes on."""
    tracker.track(StructuredEvent("shop", "before"))
    page.until(lambda: len(page.rows()) == 1)

    page.click("#pause")
    tracker.track(StructuredEvent("shop", "meanwhile"))
    tracker.track(StructuredEvent("shop", "meanwhile"))
    page.until(lambda: page.text("#status") == "Paused, 2 new")
    assert (page.texts("#events .what"), page.counts()) == (["shop · before"], [3, 3, 0])

    page.click("#pause")
    assert page.texts("#events .what") == ["shop · meanwhile", "shop · meanwhile", "shop · before"]
    assert page.text("#status") == "Live"


def test_paused_page_outlives_a_reset(page, collector, tracker):
    """Somebody who looks at an event can go on doing so while a test begins anew."""
    tracker.track(StructuredEvent("shop", "before"))
    page.until(page.rows)
    page.click("#pause")

    collector.reset()
    tracker.track(StructuredEvent("shop", "after"))
    page.until(lambda: page.text("#status") == "Paused, 1 new")
    assert page.texts("#events .what") == ["shop · before"]

    page.click("#events li")
    assert page.is_shown("#details")

    page.click("#pause")
    assert page.texts("#events .what") == ["shop · after"]
    assert not page.is_shown("#details")


def test_reset_button_forgets_all(page, collector, tracker):
    """The button empties the collector, and the page with it."""
    track_click(tracker)
    page.until(page.rows)
    page.click("#events li")
    page.click("#pause")

    page.click("#reset")
    page.until(lambda: page.is_shown("#no-events"))

    assert (collector.good, page.counts(), page.is_shown("#details")) == ([], [0, 0, 0], False)
    assert page.text("#pause") == "Pause"
    track_click(tracker)
    page.until(lambda: page.rows() == ["link_click"])


def test_page_notices_a_reset_by_others(page, collector, tracker):
    """After a reset the page shows what came since, even if that is more than before."""
    track_click(tracker)
    page.until(page.rows)

    collector.reset()
    send(collector, page_views(3))

    page.until(lambda: page.rows() == ["page_view"] * 3)
    assert page.counts() == [3, 3, 0]


@pytest.mark.parametrize("focused", ["details", "text"])
def test_details_close_when_others_reset(page, collector, tracker, focused):
    """What is forgotten is not shown any more; who types goes on typing, and the keys work from where they are."""
    track_click(tracker)
    page.until(page.rows)
    page.click("#events li")
    page.run(f"document.getElementById('{focused}').focus()")

    collector.reset()
    page.until(lambda: page.is_shown("#no-events"))

    assert not page.is_shown("#details")
    assert (page.focused() == "text") == (focused == "text")
    send(collector, page_views(2))
    page.until(lambda: len(page.rows()) == 2)
    page.press(page.keys.ARROW_DOWN)
    assert active(page) == "page-1"


def test_page_tells_when_the_collector_is_gone(page, collector, tracker):
    """The page keeps what it has, says that the collector is gone, and goes on when it is back."""
    track_click(tracker)
    page.until(page.rows)

    collector.refuse_connections()
    page.until(lambda: page.text("#problem") == "The collector is gone, trying again")
    page.click("#reset")
    assert (page.rows(), page.text("#status"), page.is_shown("#problem")) == (["link_click"], "Not live", True)

    collector.accept_connections()
    page.until(lambda: page.text("#status") == "Live")
    assert (page.rows(), page.text("#problem"), page.is_shown("#problem")) == (["link_click"], "", False)


def test_paused_page_tells_both_that_it_is_and_that_the_collector_is_gone(page, collector, tracker):
    """What the page says of a failure takes the place of nothing else."""
    track_click(tracker)
    page.until(page.rows)
    page.click("#pause")
    track_click(tracker)
    page.until(lambda: page.text("#status") == "Paused, 1 new")

    collector.refuse_connections()

    page.until(lambda: page.text("#problem") == "The collector is gone, trying again")
    assert page.text("#status") == "Paused, 1 new"


def test_page_tells_what_the_collector_answers(page, monkeypatch):
    """An answer that is none is named by its status."""
    monkeypatch.setattr(MicroPage, "_respond_with_events", lambda *_: Answer(503))

    page.until(lambda: page.text("#problem") == "The collector answers with status 503, trying again")
    monkeypatch.undo()
    page.until(lambda: page.text("#status") == "Live")

    assert all("503" in complaint for complaint in page.complaints())


def test_page_gets_all_of_a_large_arrival(page, collector, monkeypatch):
    """What does not fit into one answer is asked for until it is there, without a gap."""
    release = threading.Event()
    respond = MicroPage._respond_with_events
    send(collector, page_views(1))
    page.until(page.rows)
    monkeypatch.setattr(MicroPage, "_respond_with_events", lambda *of: release.wait(10) and respond(*of))

    for number in range(1, 10):
        send(collector, [{**page_views(1, first=number)[0], "refr": "x" * 900_000}])
    release.set()

    page.until(lambda: page.counts() == [10, 10, 0])
    assert page.texts("#events .what") == [f"page-{number}" for number in range(9, -1, -1)]
    assert page.text("#extent") == ""


def test_page_stays_small_however_much_arrives(page, collector):
    """The page lists 200 rows, more of them on request, and gets older events when they are asked for."""
    send(collector, page_views(2500))
    page.until(lambda: page.counts() == [2500, 2500, 0])

    assert (page.row_count(), page.text("#extent")) == (200, "200 shown, 1,000 loaded of 2,500")
    assert page.text("#events li:first-child .what") == "page-2499"
    for _ in range(4):
        page.click("#more")
    assert (page.row_count(), page.text("#more")) == (1000, "Load older events")

    page.click("#more")
    page.until(lambda: page.row_count() == 1200)
    assert page.text("#extent") == "1,200 shown, 2,000 loaded of 2,500"
    assert page.texts("#events .what") == [f"page-{number}" for number in range(2499, 1299, -1)]

    send(collector, page_views(1, first=2500))
    page.until(lambda: page.text("#events li:first-child .what") == "page-2500")
    assert page.row_count() == 1200


def test_filter_finds_older_events_when_they_are_loaded(page, collector):
    """A filter goes through all that is loaded; when the oldest event is there, there is no more to ask for."""
    send(collector, page_views(1100))
    page.until(lambda: page.counts() == [1100, 1100, 0])
    page.one("#text").send_keys('"page-7')
    page.until(lambda: page.row_count() == 100)
    assert page.text("#more") == "Load older events"

    page.click("#more")
    page.until(lambda: page.row_count() == 111)

    assert not page.is_shown("#more")


def test_burst_leaves_no_gap(page, collector):
    """Where more arrives at once than the page gets, what came before it has to be asked for."""
    send(collector, page_views(1))
    page.until(page.rows)

    send(collector, page_views(1500, first=1))
    page.until(lambda: page.counts() == [1501, 1501, 0])

    page.until(lambda: page.text("#extent") == "200 shown, 1,000 loaded of 1,501")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_page_fits_the_screen(page, collector, tracker, width, dark):
    """Nothing is wider than the screen; on a small one, the details take the place of the list."""
    track_click(tracker, "https://shop.example/" + "long/" * 200)
    spoil(collector, "x" * 500)
    page.resize(width, 740, dark)
    page.until(lambda: len(page.rows()) == 2)

    for row in range(2):
        assert fits(page, width)
        page.all("#events li")[row].click()
        assert fits(page, width)
        assert page.is_shown("#events") == (width == 1280)
        page.press(page.keys.ESCAPE)
        assert page.is_shown("#events")

    background = page.run("return getComputedStyle(document.querySelector('header')).backgroundColor")
    assert (int(re.findall(r"\d+", background)[0]) < 128) == dark


@pytest.mark.parametrize("width", [1280, 360])
def test_page_itself_does_not_scroll(page, collector, width):
    """However long the list is, what stands above it stays where it is."""
    send(collector, page_views(100))
    page.resize(width, 740)
    page.until(lambda: page.row_count() == 100)

    for selector in ("#events li", "#details .button"):
        assert page.run("return document.documentElement.scrollHeight") == 740
        page.click(selector)


def test_filter_leads_back_to_the_list_on_a_small_screen(page, tracker):
    """Where the details take the place of the list, a filter shows what it finds, and keeps the focus."""
    page.resize(360, 740)
    tracker.track(PageView("https://shop.example"))
    track_click(tracker)
    page.until(lambda: len(page.rows()) == 2)
    page.click("#events li")

    page.one("#text").send_keys("page_view")

    assert (page.is_shown("#events"), page.is_shown("#details"), page.focused()) == (True, False, "text")
    assert page.rows() == ["page_view"]


def fits(page, width):
    return page.run("return Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)") <= width


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(page, collector, tracker, dark):
    """Text stands out from its background with a contrast of at least 4.5 to 1."""
    page.resize(1280, 800, dark)
    track_click(tracker)
    spoil(collector)
    page.until(lambda: len(page.rows()) == 2)

    too_faint = []
    for row in page.all("#events li"):
        row.click()
        too_faint += page.run(FAINT_TEXTS)

    assert too_faint == []


# Lists each text whose colour is too close to that of the nearest background that is not transparent.
FAINT_TEXTS = """
    const colour = (text) => text.match(/[\\d.]+/g).map(Number);
    const isClear = ([, , , alpha]) => alpha === 0;
    const luminance = ([red, green, blue]) => [red, green, blue]
      .map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
      .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const behind = (element) => {
      const found = colour(getComputedStyle(element).backgroundColor);
      return isClear(found) && element.parentElement ? behind(element.parentElement) : found;
    };
    document.getAnimations().forEach((animation) => animation.finish());
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const faint = [];
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || element.closest("script") || !element.getClientRects().length) continue;
      const [darker, lighter] = [luminance(colour(getComputedStyle(element).color)), luminance(behind(element))]
        .sort((one, other) => one - other);
      if ((lighter + 0.05) / (darker + 0.05) < 4.5) faint.push(element.outerHTML.slice(0, 100));
    }
    return faint;
"""
