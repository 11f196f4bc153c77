"""A user's code, checked by `mypy --strict` against the installed package; it is not run.

It imports every public name, and uses what it imports as an application would.
"""

import logging
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, List, Optional, Type, Union

import requests

import snowplow_tracker
from snowplow_tracker import (
    AsyncEmitter,
    Emitter,
    EmitterConfiguration,
    Event,
    EventStore,
    InMemoryEventStore,
    PagePing,
    PageView,
    RedisEventStore,
    ScreenView,
    SelfDescribing,
    SelfDescribingJson,
    Snowplow,
    SQLiteEventStore,
    StoreOnlyEmitter,
    StructuredEvent,
    Subject,
    Tracker,
    TrackerConfiguration,
    __version__,
    disable_contracts,
    enable_contracts,
    logger,
)
from snowplow_tracker._version import __version_info__
from snowplow_tracker.constants import (
    BASE_SCHEMA_PATH,
    CONTEXT_SCHEMA,
    DEFAULT_ENCODE_BASE64,
    KNOWN_PAYLOAD_KEYS,
    MOBILE_SCHEMA_PATH,
    REQUIRED_PAYLOAD_KEYS,
    SCHEMA_TAG,
    UNSTRUCT_EVENT_SCHEMA,
    VERSION,
)
from snowplow_tracker.contracts import (
    contracts_enabled,
    form_element,
    greater_than,
    non_empty,
    non_empty_string,
    one_of,
    satisfies,
)
from snowplow_tracker.emitters import (
    DEFAULT_MAX_LENGTH,
    DEFAULT_MAX_REQUEST_BYTES,
    METHODS,
    PAYLOAD_DATA_SCHEMA,
    PROTOCOLS,
    FlushTimer,
    Requester,
)
from snowplow_tracker.event_store import DEFAULT_BUFFER_CAPACITY
from snowplow_tracker.payload import Payload
from snowplow_tracker.redis_event_store import RedisClient
from snowplow_tracker.sqlite_event_store import SQLiteFileError
from snowplow_tracker.subject import DEFAULT_PLATFORM
from snowplow_tracker.testing import (
    Answer,
    BadEvent,
    CollectedRequest,
    EventStoreContract,
    GoodEvent,
    LocalCollector,
    RecordingEmitter,
    TrackingKit,
)
from snowplow_tracker.typing import (
    FORM_NODE_NAMES,
    FORM_TYPES,
    SUPPORTED_PLATFORMS,
    ElementClasses,
    EmitterProtocol,
    EmitterStats,
    FailureCallback,
    FormClasses,
    FormNodeName,
    HttpProtocol,
    JsonEncoderFunction,
    Method,
    PayloadDict,
    PayloadDictList,
    PayloadReceiver,
    RequestTimeout,
    SuccessCallback,
    SupportedPlatform,
)

log: logging.Logger = logger


def on_success(delivered: PayloadDictList) -> None:
    log.info("Delivered %d payloads", len(delivered))


def on_failure(delivered: int, not_delivered: PayloadDictList) -> None:
    log.info("Delivered %d payloads, not %s", delivered, [payload["eid"] for payload in not_delivered])


def encode(value: Any) -> Any:
    return str(value)


class PersistentStore:
    """An event store by its shape alone."""

    def __init__(self) -> None:
        self.payloads: PayloadDictList = []

    def add_event(self, payload: PayloadDict) -> bool:
        self.payloads.append(payload)
        return True

    def get_events_batch(self) -> PayloadDictList:
        batch, self.payloads = self.payloads, []
        return batch

    def cleanup(self, batch: PayloadDictList, need_retry: bool) -> None:
        if need_retry:
            self.payloads = batch + self.payloads

    def size(self) -> int:
        return len(self.payloads)


class DeclaredStore(EventStore):
    """An event store that says so."""

    def add_event(self, payload: PayloadDict) -> bool:
        return False

    def get_events_batch(self) -> PayloadDictList:
        return []

    def cleanup(self, batch: PayloadDictList, need_retry: bool) -> None:
        pass

    def size(self) -> int:
        return 0


def build_stores(folder: Path) -> List[EventStore]:
    durable = SQLiteEventStore(
        folder / "events.db",
        buffer_capacity=50_000,
        max_age=86_400,
        lease_seconds=60.5,
        synchronous="full",
        timeout=0.5,
    )
    durable.cleanup(durable.get_events_batch(limit=10), True)
    durable.max_age = None
    path: str = durable.path
    survives: bool = durable.is_durable
    log.info("%s %s %d", path, survives, durable.expired)
    try:
        log.info("%d wait, %d are elsewhere", durable.size(), durable.in_flight_elsewhere())
    except SQLiteFileError as error:
        log.warning("%s", error)
    durable.close()
    return [durable, SQLiteEventStore("events.db"), PersistentStore(), InMemoryEventStore()]


class QueueEmitter:
    """An emitter by its shape alone."""

    def input(self, payload: PayloadDict) -> None:
        log.debug("%s", payload)

    def flush(self) -> None:
        pass

    def async_flush(self) -> None:
        pass

    def sync_flush(self) -> None:
        pass


class PrintingEmitter:
    """An emitter with all that is required, and no more."""

    def input(self, payload: PayloadDict) -> None:
        log.debug("%s", payload)


def build_smallest_tracker() -> Tracker:
    receivers: List[PayloadReceiver] = [PrintingEmitter()]
    return Tracker("smallest", receivers).add_emitter(PrintingEmitter())


class SignedEmitter(Emitter):
    """An emitter that sends by a client of its own."""

    def http_post(self, data: str) -> int:
        return requests.post(self.endpoint, data=data, timeout=5).status_code

    def http_get(self, payload: PayloadDict) -> int:
        return 200

    def flush(self) -> None:
        super().flush()


class Purchase(Event):
    """An event type of the application's own."""

    def build_payload(
        self,
        encode_base64: bool,
        json_encoder: Optional[JsonEncoderFunction],
        subject: Optional[Subject] = None,
    ) -> Payload:
        payload = super().build_payload(encode_base64, json_encoder, subject)
        payload.add("e", "ue")
        return payload


def build_emitters(session: requests.Session) -> List[EmitterProtocol]:
    protocol: HttpProtocol = "http"
    method: Method = "get"
    timeout: RequestTimeout = (3.05, 27)
    success: SuccessCallback = on_success
    failure: FailureCallback = on_failure
    store: EventStore = PersistentStore()
    emitter = Emitter(
        "collector.example.com",
        protocol,
        8080,
        method,
        5,
        success,
        failure,
        40_000,
        timeout,
        60,
        5000,
        {500: False, 401: True},
        store,
        session,
        max_request_bytes=500_000,
        flush_on_exit=False,
        flush_interval=5.0,
    )
    asynchronous = AsyncEmitter(
        endpoint="collector.example.com",
        thread_count=2,
        request_timeout=10,
        event_store=InMemoryEventStore(buffer_capacity=100),
    )
    asynchronous.set_flush_timer(5)
    asynchronous.cancel_flush_timer()
    asynchronous.cancel_flush()
    documented = Emitter("collector.example.com", buffer_size=3, event_store=DeclaredStore())
    documented.on_success = None
    documented.batch_size = 7
    documented.byte_limit = None
    return [emitter, asynchronous, documented, SignedEmitter("https://collector.example.com"), QueueEmitter()]


class TestDeclaredStore(EventStoreContract):
    """A test of one's own store."""

    def make_store(self) -> EventStore:
        return DeclaredStore()


def build_emitters_of_urls() -> List[PayloadReceiver]:
    config = EmitterConfiguration(event_store="sqlite:///events.db?lease_seconds=60")
    config.event_store = "memory:"
    config.event_store = DeclaredStore()
    with StoreOnlyEmitter(PersistentStore(), on_failure=on_failure) as storing:
        stats: EmitterStats = storing.stats()
        log.info("%d", stats.dropped)
    return [Emitter("collector.example.com", event_store="redis://localhost"), StoreOnlyEmitter("memory:"), storing]


def build_shared_store(client: RedisClient) -> List[EventStore]:
    store = RedisEventStore("redis://localhost", key="k", buffer_capacity=10, lease_seconds=60, timeout=0.5)
    store.buffer_capacity = 20
    shown: str = f"{store.key} {store.lease_seconds} {store.timeout} {store.is_durable}"
    elsewhere: int = store.in_flight_elsewhere()
    log.debug("%s %s %d", shown, store.get_events_batch(5), elsewhere)
    store.close()
    return [store, RedisEventStore(client)]


def build_tracker(emitters: List[EmitterProtocol]) -> Tracker:
    encoder: JsonEncoderFunction = encode
    tracker = Tracker("shop", emitters, Subject(), "web", False, encoder)
    tracker.add_emitter(emitters[0])
    tracker.addEmitter(emitters[0])
    tracker.set_subject(None)
    namespace: str = Tracker(namespace="other", emitter=emitters[0]).get_namespace()
    Tracker(namespace, (emitters[0], emitters[1]))
    return tracker


def build_subject() -> Subject:
    platform: SupportedPlatform = "headset"
    return (
        Subject()
        .set_platform(platform)
        .set_user_id("1234")
        .set_screen_resolution(1920, 1080)
        .set_viewport(1000, 800)
        .set_color_depth(24)
        .set_timezone("Europe/London")
        .set_lang("en")
        .set_domain_user_id("a")
        .set_domain_session_id("b")
        .set_domain_session_index(1)
        .set_ip_address("192.0.2.1")
        .set_useragent("curl")
        .set_network_user_id("c")
    )


def build_events(subject: Subject) -> List[Event]:
    context = [SelfDescribingJson("iglu:com.example/page/jsonschema/1-0-0", {"price": Decimal(1)})]
    timestamp: Union[float, datetime] = datetime.now()
    view = PageView("https://example.com", "Title", None, subject, context, timestamp)
    view.page_title = None
    nv_pairs: PayloadDict = subject.combine_subject(None)
    log.debug("%s", nv_pairs)
    view.context = None
    title: Optional[str] = view.page_title
    view.true_timestamp = 1_700_000_000_000
    return [
        view,
        PagePing("https://example.com", title, min_x=0, max_x=100, min_y=0, max_y=200),
        ScreenView(id_="1", name="Home", type="feed", previous_name="Start"),
        StructuredEvent("shop", "add", label="l", property_="p", value=9.99),
        SelfDescribing(SelfDescribingJson("iglu:com.example/sale/jsonschema/1-0-0", {"a": [1]}), context=context),
        Purchase(event_subject=subject, true_timestamp=1.5),
    ]


def track(tracker: Tracker, events: List[Event]) -> None:
    for event in events:
        tracker.track(event)
    node: FormNodeName = "INPUT"
    element_classes: ElementClasses = ["wide"]
    form_classes: FormClasses = ["tall"]
    tracker.track_page_view("https://example.com").track_struct_event("shop", "add")
    tracker.track_link_click("https://example.com", element_classes=element_classes)
    tracker.track_form_change("form", "element", node, "value")
    tracker.track_form_submit("form", form_classes)
    tracker.flush()
    tracker.flush(False)
    tracker.flush(is_async=True)
    tracker.flush(timeout=5.0)


def use_registry(emitter_class: Type[Emitter]) -> Optional[bool]:
    emitter_config = EmitterConfiguration(
        batch_size=5,
        on_success=on_success,
        on_failure=on_failure,
        request_timeout=(1, 2.5),
        custom_retry_codes={500: False},
        event_store=PersistentStore(),
        session=requests.Session(),
        thread_count=4,
    )
    emitter_config.batch_size = None
    emitter_config.set_retry_code(418, True)
    tracker_config = TrackerConfiguration(encode_base64=False, json_encoder=encode)
    tracker_config.encode_base64 = True
    tracker = Snowplow.create_tracker(
        "shop",
        "collector.example.com",
        "post",
        "web",
        build_subject(),
        tracker_config,
        emitter_config,
        emitter_class=emitter_class,
    )
    Snowplow.remove_tracker(tracker)
    Snowplow.add_tracker(tracker)
    found: Optional[Tracker] = Snowplow.get_tracker("shop")
    Snowplow.remove_tracker_by_namespace("shop")
    Snowplow.reset()
    return found.close(timeout=2.0) if found else None


def watch(emitter: Emitter) -> str:
    stats: EmitterStats = emitter.stats()
    counted: int = stats.accepted - stats.delivered - stats.rejected - stats.buffered - stats.in_flight
    later: Optional[float] = stats.retry_in_seconds
    timer = FlushTimer(emitter, repeating=True)
    timer.start(timeout=5)
    if timer.is_active():
        timer.cancel()
    with emitter:
        emitter.input({"e": "pv"})
    all_out: bool = emitter.close(timeout=1.5)
    return f"{counted} {later} {all_out} {stats.last_status} {stats.last_error} {stats.dropped} {stats.retries}"


def test_with_local_collector() -> None:
    with LocalCollector(tls=True) as collector:
        collector.respond_with(503, Answer(status=429, headers={"Retry-After": "1"}))
        emitter = Emitter(collector.url, batch_size=1)
        with Tracker("test", emitter) as tracker:
            tracker.track(PageView("https://example.com"))
        request: CollectedRequest = collector.wait_for_requests(1, timeout=5.0)[0]
        payload: PayloadDict = collector.payloads[0]
        assert request.status == int(payload["status"])


def test_with_judging_collector() -> None:
    with LocalCollector(
        host="localhost", schemas=Path("schemas"), unknown_schemas="accept", max_events=100
    ) as collector:
        good: List[GoodEvent] = collector.good
        bad: List[BadEvent] = collector.bad
        assert good[0].fields["page_url"] == "https://example.com", bad[0].errors


def test_with_recorder() -> None:
    recorder = RecordingEmitter(schemas=None, unknown_schemas="accept")
    tracker = Tracker("test", recorder)
    tracker.track(PageView("https://example.com"))
    found: List[GoodEvent] = recorder.assert_event(
        event_type="page_view",
        schema="iglu:com.snowplowanalytics.snowplow/page_view/jsonschema/1-0-0",
        contexts=["iglu:com.example/page/jsonschema/1-0-0", {"data": {}}, SelfDescribingJson("iglu:a/b/c/1-0-0", {})],
        properties={"page_url": "https://example.com"},
        count=1,
        timeout=0.5,
    )
    recorder.assert_count(good=len(found), bad=0)
    recorder.assert_order(["page_view", {"event_type": "struct"}])
    bad: List[BadEvent] = recorder.bad
    payloads: PayloadDictList = recorder.payloads
    recorder.reset()
    log.debug("%s %s", payloads, bad)


def test_with_kit() -> None:
    with TrackingKit(fail_on_bad=True) as kit:
        kit.tracker.track(PageView("https://example.com"))
        other: Tracker = kit.create_tracker("other", app_id="shop", emitter_class=AsyncEmitter)
        other.track(PageView("https://example.com"))
        kit.collector.assert_count(good=2)
        kit.collector.assert_no_bad()
    TrackingKit(collector=LocalCollector().start()).start().close()


def use_contracts() -> bool:
    disable_contracts()
    enable_contracts()
    greater_than(1, 0)
    non_empty([1])
    non_empty_string("s")
    one_of("web", SUPPORTED_PLATFORMS)
    satisfies("web", lambda value: len(value) == 3)
    form_element({"name": "n", "value": "v", "nodeName": "INPUT"})
    return contracts_enabled()


def use_payload() -> PayloadDict:
    payload = Payload({"e": "pv"})
    payload.add("p", "web")
    payload.add_dict({"aid": "shop"}, base64=False)
    payload.add_json({"schema": "iglu:a/b/c/1-0-0"}, True, "ue_px", "ue_pr", encode)
    return payload.get()


texts: List[str] = [
    BASE_SCHEMA_PATH,
    CONTEXT_SCHEMA,
    DEFAULT_PLATFORM,
    MOBILE_SCHEMA_PATH,
    PAYLOAD_DATA_SCHEMA,
    SCHEMA_TAG,
    UNSTRUCT_EVENT_SCHEMA,
    VERSION,
    __version__,
    snowplow_tracker.__version__,
    *sorted(METHODS | PROTOCOLS | FORM_NODE_NAMES | FORM_TYPES),
    *sorted(REQUIRED_PAYLOAD_KEYS | KNOWN_PAYLOAD_KEYS),
]
numbers: List[int] = [
    DEFAULT_BUFFER_CAPACITY,
    DEFAULT_MAX_LENGTH,
    DEFAULT_MAX_REQUEST_BYTES,
    *__version_info__,
    int(DEFAULT_ENCODE_BASE64),
]
requester = Requester(requests.post, requests.get)


def a_name_that_is_not_there() -> None:
    """The stores that are imported late do not make a typo look like a name."""
    snowplow_tracker.Emiter  # type: ignore[attr-defined]  # noqa: B018
