"""The registry of trackers."""

import logging
import threading
from unittest import mock

import pytest

from snowplow_tracker import (
    AsyncEmitter,
    Emitter,
    EmitterConfiguration,
    Snowplow,
    Subject,
    Tracker,
    TrackerConfiguration,
)

ENDPOINT = "collector.example.com"


class Capture:
    def input(self, payload):
        """Take it."""


class Options(Emitter):
    """An emitter that keeps its arguments instead of using them."""

    def __init__(self, endpoint, **options):
        self.endpoint = endpoint
        self.options = options


@pytest.fixture(autouse=True)
def empty_registry():
    Snowplow.reset()
    yield
    Snowplow.reset()


@pytest.fixture
def info(caplog):
    """What the registry logged for information."""
    caplog.set_level(logging.INFO, logger="snowplow_tracker.snowplow")

    def messages():
        records = [record for record in caplog.records if record.name == "snowplow_tracker.snowplow"]
        assert all(record.levelno == logging.INFO for record in records)
        return [record.getMessage() for record in records]

    return messages


def test_created_tracker_is_in_the_registry(info):
    """A tracker with an emitter of its own is built and added."""
    tracker = Snowplow.create_tracker("test", ENDPOINT)

    assert Snowplow.get_tracker("test") is tracker
    assert tracker.get_namespace() == "test"
    assert tracker.encode_base64 is True
    assert [type(emitter) for emitter in tracker.emitters] == [Emitter]
    assert len(info()) == 1


def test_settings_of_the_tracker_reach_it():
    """Application, subject and both settings of the configuration are the tracker's."""
    subject = Subject()
    config = TrackerConfiguration(encode_base64=False, json_encoder=repr)

    tracker = Snowplow.create_tracker("test", ENDPOINT, app_id="app", subject=subject, tracker_config=config)

    assert tracker.subject is subject
    assert tracker.standard_nv_pairs["aid"] == "app"
    assert (tracker.encode_base64, tracker.json_encoder) == (False, repr)


def test_encoding_that_is_none_is_off():
    """None means JSON text, as it did in 1.1.0."""
    tracker = Snowplow.create_tracker("test", ENDPOINT, tracker_config=TrackerConfiguration(encode_base64=None))

    assert tracker.encode_base64 is False


def test_settings_of_the_emitter_reach_it():
    """Every option that is set is an argument of the emitter."""
    config = EmitterConfiguration(batch_size=3, custom_retry_codes={401: True}, max_request_bytes=5000)

    tracker = Snowplow.create_tracker("test", ENDPOINT, "get", emitter_config=config, emitter_class=Options)

    emitter = tracker.emitters[0]
    assert emitter.endpoint == ENDPOINT
    expected = {"method": "get", "batch_size": 3, "custom_retry_codes": {401: True}, "max_request_bytes": 5000}
    assert {name: emitter.options.get(name) for name in expected} == expected
    assert "byte_limit" not in emitter.options


def test_emitter_may_be_asynchronous():
    """Another class of emitter can be chosen, with its own option."""
    tracker = Snowplow.create_tracker(
        "test", ENDPOINT, emitter_config=EmitterConfiguration(thread_count=2), emitter_class=AsyncEmitter
    )

    assert type(tracker.emitters[0]) is AsyncEmitter


def test_threads_need_an_asynchronous_emitter():
    """An option that the emitter does not have is named together with the class."""
    config = EmitterConfiguration(thread_count=2)

    with pytest.raises(
        TypeError, match=r"^thread_count needs an emitter_class that is an AsyncEmitter, got <class .*E"
    ):
        Snowplow.create_tracker("test", ENDPOINT, emitter_config=config)

    assert Snowplow.get_tracker("test") is None


def test_emitter_may_be_patched():
    """A test that puts a mock in the place of the class gets it, and no request is made."""
    with mock.patch("snowplow_tracker.snowplow.Emitter") as emitter_class:
        tracker = Snowplow.create_tracker("test", ENDPOINT)

    assert tracker.emitters == [emitter_class.return_value]


@pytest.mark.parametrize("emitter_class", ["x", Emitter(ENDPOINT), int, lambda *_, **__: Capture()])
def test_emitter_class_must_be_a_class(emitter_class):
    """What is no class of emitters is refused by name."""
    with pytest.raises(TypeError, match=r"^emitter_class must be a class with a method input, got "):
        Snowplow.create_tracker("test", ENDPOINT, emitter_class=emitter_class)

    assert Snowplow.get_tracker("test") is None


@pytest.mark.parametrize(
    ("name", "kind"), [("tracker_config", "a TrackerConfiguration"), ("emitter_config", "an EmitterConfiguration")]
)
def test_configurations_must_be_configurations(name, kind):
    """Anything else is refused by name."""
    with pytest.raises(TypeError, match=f"^{name} must be {kind}, got {{}}$"):
        Snowplow.create_tracker("test", ENDPOINT, **{name: {}})


@pytest.mark.parametrize("endpoint", ["", "ftp://collector.example.com"])
def test_tracker_with_a_wrong_endpoint_is_not_added(endpoint):
    """What the emitter refuses leaves no tracker behind."""
    with pytest.raises(ValueError, match="endpoint"):
        Snowplow.create_tracker("test", endpoint)

    assert Snowplow.get_tracker("test") is None


def test_namespaces_are_unique():
    """A second tracker with the same namespace raises, with advice, whichever way it comes, and the first one stays."""
    tracker = Snowplow.create_tracker("test", ENDPOINT)
    message = (
        "^namespace must be free, but there is a tracker with 'test' already: "
        "get_tracker gives it, and remove_tracker_by_namespace frees its namespace$"
    )

    with pytest.raises(TypeError, match=message):
        Snowplow.create_tracker("test", ENDPOINT)
    with pytest.raises(TypeError, match=message):
        Snowplow.add_tracker(Tracker("test", Capture()))
    with pytest.raises(TypeError, match=message):
        Snowplow.add_tracker(tracker)

    assert Snowplow.get_tracker("test") is tracker


def test_one_of_several_threads_gets_the_namespace():
    """Threads that build a tracker of the same name at the same time end up with one, and the others are told."""
    meeting = threading.Barrier(4)

    class Slow(Options):
        def __init__(self, endpoint, **options):
            super().__init__(endpoint, **options)
            meeting.wait(10)

    outcomes = []

    def create():
        try:
            outcomes.append(Snowplow.create_tracker("test", ENDPOINT, emitter_class=Slow))
        except TypeError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    built = [outcome for outcome in outcomes if isinstance(outcome, Tracker)]
    assert built == [Snowplow.get_tracker("test")]
    assert len(outcomes) == 4


def test_trackers_can_be_added(info):
    """A tracker that was built elsewhere can be found by its namespace."""
    tracker = Tracker("test", Capture())

    assert Snowplow.add_tracker(tracker) is tracker
    assert Snowplow.get_tracker("test") is tracker
    assert len(info()) == 1


@pytest.mark.parametrize("nothing", [None, "x", 5, Tracker])
def test_no_tracker_is_not_added(nothing, info):
    """None, and what is no tracker, is not added, with a line in the log, as in 1.1.0."""
    assert Snowplow.add_tracker(nothing) is None
    assert info() == [f"There is no tracker to add: tracker must be a Tracker, got {nothing!r}"]


@pytest.mark.parametrize("nothing", [None, "x", Tracker])
def test_no_tracker_cannot_be_removed(nothing):
    """What is no tracker is refused by name."""
    with pytest.raises(TypeError, match=r"^tracker must be a Tracker, got "):
        Snowplow.remove_tracker(nothing)


@pytest.mark.parametrize(
    "remove",
    [
        Snowplow.remove_tracker,
        lambda tracker: Snowplow.remove_tracker_by_namespace(tracker.get_namespace()),
        lambda tracker: Snowplow.remove_tracker(Tracker("test", Capture())),
    ],
)
def test_trackers_can_be_removed(remove, info):
    """A tracker is removed by its namespace; removing it again leaves a line in the log."""
    tracker = Snowplow.create_tracker("test", ENDPOINT)

    remove(tracker)
    remove(tracker)

    assert Snowplow.get_tracker("test") is None
    assert len(info()) == 4


def test_unknown_tracker_is_none(info):
    """A namespace without a tracker gives None, with a line in the log."""
    assert Snowplow.get_tracker("nobody") is None
    assert info() == ["There is no tracker with the namespace 'nobody'"]


def test_reset_removes_all():
    """The registry can be emptied."""
    Snowplow.create_tracker("one", ENDPOINT)
    Snowplow.create_tracker("two", ENDPOINT)

    Snowplow.reset()

    assert Snowplow.get_tracker("one") is Snowplow.get_tracker("two") is None
    assert Snowplow.create_tracker("one", ENDPOINT)


def test_namespace_that_cannot_be_looked_up_is_refused():
    """What has no hash is no namespace."""
    with pytest.raises(TypeError, match=r"^namespace must be a string, got \[\]$"):
        Snowplow.create_tracker([], "collector.example.com")
