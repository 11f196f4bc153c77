"""An emitter that keeps what it gets."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import PATIENCE_SECONDS

from snowplow_tracker import PageView, SelfDescribing, SelfDescribingJson, Snowplow, StructuredEvent, Tracker
from snowplow_tracker.testing import RecordingEmitter


@pytest.fixture
def recorder():
    return RecordingEmitter()


def test_payloads_are_as_a_post_would_have_them(recorder):
    """Values are text, and what is None is left out."""
    recorder.input({"e": "se", "se_va": 5, "aid": None, "cookie": True})

    assert recorder.payloads == [{"e": "se", "se_va": "5", "cookie": "true"}]


def test_recorder_keeps_copies(recorder):
    """What becomes of the caller's dict, or of a payload that a test got, changes no event."""
    payload = {"e": "pv", "p": "web", "tv": "x"}

    recorder.input(payload)
    payload["e"] = "se"
    recorder.payloads[0]["e"] = "pp"

    recorder.assert_event(event_type="page_view", properties={"e": "pv"})


def test_events_are_decoded(recorder):
    """Self-describing events and entities can be read as they were tracked."""
    event = SelfDescribingJson("iglu:com.acme/sale/jsonschema/1-0-0", {"price": 10})
    entity = SelfDescribingJson("iglu:com.acme/user/jsonschema/1-0-0", {"id": 7})

    Tracker("test", recorder).track(SelfDescribing(event, context=[entity]))

    (good,) = recorder.good
    assert (good.schema, good.data, good.contexts) == (event.schema, event.data, [entity.to_json()])


def test_bad_payload_spoils_no_other(recorder):
    """Each payload is judged by itself, because there are no batches."""
    recorder.input({"e": "pv"})
    Tracker("test", recorder).track(PageView("https://example.com"))

    recorder.assert_count(good=1, bad=1)


def test_recorder_stands_in_for_every_method_of_an_emitter(recorder):
    """A tracker may be flushed and closed; nothing ever waits in a recorder, and it goes on recording."""
    tracker = Snowplow.add_tracker(Tracker("recorded", recorder))
    try:
        tracker.track(StructuredEvent("a", "b"))
        tracker.flush()
        tracker.flush(False)
        tracker.flush(is_async=True)
        tracker.flush(timeout=1)
        assert tracker.close()
        tracker.track(StructuredEvent("a", "c"))
    finally:
        Snowplow.remove_tracker(tracker)

    recorder.assert_event(event_type="struct", count=2)


def test_reset_forgets_everything(recorder):
    """A recorder may be used by several tests."""
    recorder.input({"e": "pv"})
    recorder.input({"e": "pv", "p": "web", "tv": "x"})

    recorder.reset()

    assert (recorder.payloads, recorder.good, recorder.bad) == ([], [], [])


@pytest.mark.parametrize(("payload", "name"), [([], "payload must be a dict"), ({"co": {"a": object()}}, "co")])
def test_what_an_emitter_refuses_is_refused(recorder, payload, name):
    """A mistake in the application is the same error with a recorder."""
    with pytest.raises(TypeError, match=name):
        recorder.input(payload)

    assert recorder.payloads == []


def test_recorder_does_not_wait_unless_told_to(recorder):
    """What was tracked is there, so that a failing test fails at once."""
    with pytest.raises(AssertionError) as failure:
        recorder.assert_event(event_type="page_view")

    assert " within " not in str(failure.value)


def test_recorder_waits_for_other_threads(recorder):
    """A test may give the threads of the application time."""
    tracker = Tracker("test", recorder)
    waits = threading.Event()
    wait_until = recorder._wait_until

    def told(condition, timeout):
        waits.set()
        return wait_until(condition, timeout)

    recorder._wait_until = told
    with ThreadPoolExecutor() as pool:
        assertion = pool.submit(recorder.assert_event, event_type="page_view", timeout=PATIENCE_SECONDS)
        assert waits.wait(PATIENCE_SECONDS)
        tracker.track(PageView("https://example.com"))

        assert len(assertion.result()) == 1


def test_comparison_holds_up_no_other_thread(recorder):
    """An `==` of the test's own may wait for a thread that tracks."""
    tracker = Tracker("test", recorder)
    tracker.track(StructuredEvent("a", "first"))

    class TracksMeanwhile:
        __hash__ = None

        def __eq__(self, other):
            if other == "first":
                with ThreadPoolExecutor() as pool:
                    pool.submit(tracker.track, StructuredEvent("a", "second")).result(PATIENCE_SECONDS)
            return other == "second"

    found = recorder.assert_event(properties={"se_action": TracksMeanwhile()}, timeout=PATIENCE_SECONDS)

    assert [event.fields["se_action"] for event in found] == ["second"]


def test_threads_record_side_by_side(recorder):
    """No event of several threads gets lost, and payloads and events stand in the same order."""
    tracker = Tracker("test", recorder)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(tracker.track, StructuredEvent("a", str(n))) for n in range(200)]:
            future.result()

    recorder.assert_count(good=200, bad=0)
    assert [event.payload for event in recorder.good] == recorder.payloads


def test_schemas_are_those_of_a_pipeline(shared_folder):
    """With a folder of schemas, data is validated, and a schema that is not there makes an event bad."""
    unknown = SelfDescribing(SelfDescribingJson("iglu:com.acme/sale/jsonschema/1-0-0", {}))
    invalid = SelfDescribing(
        SelfDescribingJson("iglu:com.snowplowanalytics.mobile/screen_view/jsonschema/1-0-0", {"name": 5})
    )
    strict = RecordingEmitter(schemas=shared_folder / "iglu")
    lenient = RecordingEmitter(schemas=str(shared_folder / "iglu"), unknown_schemas="accept")
    tracker = Tracker("test", [strict, lenient])

    tracker.track(unknown)
    tracker.track(invalid)

    strict.assert_count(good=0, bad=2)
    lenient.assert_count(good=1, bad=1)


def test_wrong_arguments_are_named():
    """The arguments are those of a collector."""
    with pytest.raises(ValueError, match="unknown_schemas must be one of 'reject', 'accept', got 'x'"):
        RecordingEmitter(unknown_schemas="x")
