"""A collector and trackers that send to it, for the time of a test."""

import typing
import unittest

import pytest
import requests

from snowplow_tracker import (
    AsyncEmitter,
    Emitter,
    EmitterConfiguration,
    PageView,
    Snowplow,
    StructuredEvent,
    Subject,
    Tracker,
    TrackerConfiguration,
)
from snowplow_tracker.testing import Answer, LocalCollector, RecordingEmitter, TrackingKit
from snowplow_tracker.testing._iglu import SchemaFolder
from snowplow_tracker.testing._pipeline import Pipeline


@pytest.fixture(autouse=True)
def _empty_registry():
    yield
    assert Snowplow._trackers == {}
    Snowplow.reset()


@pytest.fixture
def kit():
    with TrackingKit() as kit:
        yield kit


def test_event_is_there_once_it_is_tracked(kit):
    """The kit's trackers send each event at once, so there is nothing to wait for."""
    kit.tracker.track(PageView("https://example.com"))

    kit.collector.assert_event(event_type="page_view", timeout=0)


def test_tracker_is_always_the_same(kit):
    """`tracker` is made when it is first asked for, and is in the registry as `test`."""
    assert Snowplow.get_tracker("test") is None

    assert kit.tracker is kit.tracker is Snowplow.get_tracker("test")


def test_trackers_without_a_name_get_one(kit):
    """Trackers that are made without a namespace do not get in each other's way."""
    namespaces = [kit.create_tracker().get_namespace() for _ in range(3)]

    assert namespaces == ["test", "test-2", "test-3"]


def test_tracker_has_the_settings_that_it_is_given(kit):
    """`create_tracker` takes what `Snowplow.create_tracker` takes, but for the endpoint."""
    tracker = kit.create_tracker(
        "shop",
        "get",
        "web",
        Subject().set_user_id("7"),
        TrackerConfiguration(encode_base64=False),
        EmitterConfiguration(batch_size=2),
        emitter_class=AsyncEmitter,
    )

    tracker.track(StructuredEvent("a", "b"))
    tracker.track(StructuredEvent("a", "c"))
    kit.collector.assert_event(properties={"name_tracker": "shop", "app_id": "web", "user_id": "7"}, count=2)

    assert [request.method for request in kit.collector.requests] == ["GET", "GET"]
    assert isinstance(tracker.emitters[0], AsyncEmitter)
    assert tracker.encode_base64 is False


def test_settings_of_the_emitter_are_completed_in_a_copy(kit):
    """What makes an emitter fit for tests does not go into the configuration of the application."""
    config = EmitterConfiguration()

    (emitter,) = kit.create_tracker(emitter_config=config).emitters

    assert config.emitter_options() == {"custom_retry_codes": {}}
    assert isinstance(emitter, Emitter)
    assert (emitter.batch_size, emitter.flush_on_exit) == (10, False)


def test_settings_of_the_emitter_win(kit):
    """What the test sets itself stays."""
    with requests.Session() as session:
        config = EmitterConfiguration(batch_size=3, session=session, flush_on_exit=True)

        (emitter,) = kit.create_tracker(emitter_config=config).emitters

        assert isinstance(emitter, Emitter)
        assert (emitter.batch_size, emitter.session, emitter.flush_on_exit) == (3, session, True)
        emitter.flush_on_exit = False


def test_proxies_of_the_machine_do_not_matter(kit, monkeypatch):
    """A proxy that the machine is set up for cannot reach the loopback interface of this one."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    kit.tracker.track(PageView("https://example.com"))

    kit.collector.assert_count(good=1, timeout=0)


def test_cookies_are_not_kept(kit):
    """As with any other emitter, one event's cookie does not go out with the next."""
    kit.collector.respond_with(Answer(headers={"Set-Cookie": "sp=1; Path=/"}))

    kit.tracker.track(PageView("https://example.com/1"))
    kit.tracker.track(PageView("https://example.com/2"))

    assert [request.headers.get("cookie") for request in kit.collector.requests] == [None, None]


def test_closing_sends_what_waits():
    """Nothing is lost because the test ends, and what arrived can be looked at afterwards."""
    with TrackingKit() as kit:
        kit.create_tracker(emitter_config=EmitterConfiguration(batch_size=5)).track(PageView("https://example.com"))
        kit.collector.assert_count(good=0, timeout=0)

    kit.collector.assert_count(good=1, timeout=0)


def test_closing_clears_everything_away():
    """Trackers are closed and out of the registry, and the collector does not listen any more."""
    with TrackingKit() as kit:
        tracker = kit.tracker

    tracker.track(PageView("https://example.com"))

    kit.collector.assert_count(good=0, timeout=0)
    assert Snowplow.get_tracker("test") is None
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{kit.collector.url}/health", timeout=10)


def test_closing_leaves_other_trackers_alone():
    """The code under test may have removed a tracker, and put one of its own in its place."""
    with TrackingKit() as kit:
        Snowplow.remove_tracker(kit.tracker)
        other = Tracker("test", Emitter("localhost"))
        Snowplow.add_tracker(other)

    assert Snowplow.get_tracker("test") is other
    Snowplow.reset()


def test_kit_can_be_used_again():
    """After closing, `start` makes a new beginning, with a new collector; closing twice does no harm."""
    kit = TrackingKit()
    for _ in range(2):
        tracker = kit.start().start().tracker
        tracker.track(PageView("https://example.com"))
        kit.close()
        kit.close()

    kit.collector.assert_count(good=1, timeout=0)


@pytest.mark.parametrize("outage", ["standing", "prepared", "refused"])
def test_closing_ends_an_outage(outage):
    """A test that ends in an outage does not have to wait for it, and what waits is sent."""
    kit = TrackingKit().start()
    tracker = kit.create_tracker(emitter_config=EmitterConfiguration(batch_size=5))
    tracker.track(PageView("https://example.com"))
    if outage == "standing":
        kit.collector.respond_always(503)
    elif outage == "prepared":
        kit.collector.respond_with(*[503] * 100)
    else:
        kit.collector.refuse_connections()

    kit.close()

    assert [request.status for request in kit.collector.requests] == [200]
    kit.collector.assert_count(good=1, timeout=0)


def test_kit_that_is_not_started_has_no_tracker():
    """A tracker without a collector would send into the void."""
    kit = TrackingKit()
    with pytest.raises(RuntimeError, match="TrackingKit has no tracker before it is started"):
        kit.create_tracker()

    kit.start().close()

    with pytest.raises(RuntimeError, match="TrackingKit has no tracker after it is closed"):
        _ = kit.tracker


def test_collector_of_somebody_else_stays_open(collector):
    """Several kits can share a collector."""
    with TrackingKit(collector=collector) as kit:
        kit.tracker.track(PageView("https://example.com/1"))
    with TrackingKit(collector=collector) as kit:
        assert kit.collector is collector
        kit.tracker.track(PageView("https://example.com/2"))

    collector.assert_count(good=2, timeout=0)


def test_collector_may_speak_tls():
    """The kit's trackers trust the certificate of the collector."""
    with LocalCollector(tls=True) as collector, TrackingKit(collector=collector) as kit:
        kit.tracker.track(PageView("https://example.com"))

        collector.assert_count(good=1, timeout=0)


def test_bad_events_fail_a_kit_that_wants_none():
    """With `fail_on_bad`, closing asserts that there are no bad events; everything is cleared away first."""
    kit = TrackingKit(fail_on_bad=True).start()
    kit.tracker.emitters[0].input({"e": "pv"})

    with pytest.raises(AssertionError, match="Expected no bad events, got 1"):
        kit.close()

    assert Snowplow.get_tracker("test") is None


def test_bad_events_are_no_failure_by_default():
    """A test may want bad events."""
    with TrackingKit() as kit:
        kit.tracker.emitters[0].input({"e": "pv"})

    kit.collector.assert_count(bad=1, timeout=0)


def test_bad_events_hide_no_other_failure():
    """An exception that is under way says more than the bad events that came of it."""

    def fail():
        with TrackingKit(fail_on_bad=True) as kit:
            kit.tracker.emitters[0].input({"e": "pv"})
            raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        fail()


def test_kit_serves_unittest():
    """A `unittest.TestCase` starts it in `setUp` and has it closed by `addCleanup`."""

    class Case(unittest.TestCase):
        def setUp(self):
            self.kit = TrackingKit(fail_on_bad=True).start()
            self.addCleanup(self.kit.close)

        def test_good(self):
            self.kit.tracker.track(PageView("https://example.com"))
            self.kit.collector.assert_event(event_type="page_view")

        def test_bad(self):
            self.kit.tracker.emitters[0].input({"e": "pv"})

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)

    assert (result.testsRun, result.errors) == (2, [])
    assert [case.id().rpartition(".")[2] for case, _ in result.failures] == ["test_bad"]


def test_schemas_are_those_of_the_collector(tmp_path):
    """The kit's collector validates with the schemas that the kit is given."""
    with TrackingKit(schemas=tmp_path, unknown_schemas="accept") as kit:
        kit.tracker.track(PageView("https://example.com"))

        kit.collector.assert_count(good=1, timeout=0)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"fail_on_bad": 1}, TypeError, "fail_on_bad must be True or False, got 1"),
        ({"collector": "x"}, TypeError, "collector must be a LocalCollector, got 'x'"),
        ({"collector": LocalCollector(), "schemas": "x"}, TypeError, "schemas must be given to the collector"),
        (
            {"collector": LocalCollector(), "unknown_schemas": "accept"},
            TypeError,
            "unknown_schemas must be given to the collector, if there is one",
        ),
        (
            {"collector": LocalCollector(), "unknown_schemas": "x"},
            ValueError,
            "unknown_schemas must be one of 'reject', 'accept', got 'x'",
        ),
        ({"unknown_schemas": "x"}, ValueError, "unknown_schemas must be one of 'reject', 'accept', got 'x'"),
    ],
)
def test_wrong_arguments_are_named(words, error, message):
    """A mistake in the set-up of a test is named at the line that makes it."""
    with pytest.raises(error, match=message):
        TrackingKit(**words)


def test_wrong_settings_of_a_tracker_are_named(kit):
    """A namespace that is taken and settings that are none are refused, as everywhere."""
    kit.create_tracker("shop")

    with pytest.raises(TypeError, match="namespace must be free"):
        kit.create_tracker("shop")
    with pytest.raises(TypeError, match="emitter_config must be an EmitterConfiguration, got 1"):
        kit.create_tracker(emitter_config=1)


@pytest.mark.parametrize("described", [LocalCollector, TrackingKit, RecordingEmitter, Pipeline, SchemaFolder])
def test_annotations_can_be_read_at_run_time(described):
    """Tools that build objects by their annotations get them on each Python."""
    assert {"schemas", "path"} & set(typing.get_type_hints(described.__init__))
