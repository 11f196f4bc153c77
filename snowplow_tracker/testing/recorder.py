"""An emitter that keeps what it gets, for unit tests that want no socket."""

import threading
from typing import Callable, List, Optional

from typing_extensions import Literal

from .._shown import shown
from .._wire import wire_payload
from ..typing import EmitterProtocol, PayloadDict, PayloadDictList
from ._assertions import EventAssertions
from ._changes import Changes
from ._collected import BadEvent, GoodEvent, PathArgument
from ._pipeline import JudgedEvent, Pipeline

__all__ = ["RecordingEmitter"]


class RecordingEmitter(EventAssertions, EmitterProtocol):
    """Takes the place of an emitter, keeps each payload as it would go out, and judges it as a pipeline does.

    In place of an emitter::

        recorder = RecordingEmitter()
        tracker = Tracker("test", recorder)
        ...
        recorder.assert_event(event_type="page_view")

    `Snowplow.add_tracker(tracker)` lets the code under test find it; `Snowplow.create_tracker` takes no emitter.

    There is no socket and no thread, so an event is there as soon as it was tracked, and assertions do not wait unless
    they are told to. Each payload is judged by itself: there are no batches that one of them could spoil.

    Any thread may call anything at any time. Closing the tracker makes no difference.
    """

    _default_timeout = 0.0

    def __init__(
        self,
        *,
        schemas: Optional[PathArgument] = None,
        unknown_schemas: Literal["reject", "accept"] = "reject",
    ) -> None:
        """Make an emitter without payloads.

        Args:
            schemas: See `LocalCollector`.
            unknown_schemas: See `LocalCollector`.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: If an argument has a wrong value.
            ImportError: If there are schemas, but not the extra `validation`.
        """
        self._pipeline = Pipeline(schemas, unknown_schemas)
        # Guards all that follows; it is not held while anything is judged.
        self._lock = threading.Lock()
        self._changes = Changes(self._lock)
        self._payloads: PayloadDictList = []
        self._judged: List[JudgedEvent] = []

    def input(self, payload: PayloadDict) -> None:
        """Keep a copy of a payload.

        Raises:
            TypeError: If it is no dict, or a value in it cannot be encoded.
        """
        if not isinstance(payload, dict):
            raise TypeError(f"payload must be a dict, got {shown(payload)}")
        recorded = wire_payload(payload, "post")
        # A copy, so that a test that changes what it got out of `payloads` does not change the events.
        judged = self._pipeline.judge_batch([dict(recorded)])
        with self._lock:
            self._payloads.append(recorded)
            self._judged += judged
            self._changes.note()

    def flush(self) -> None:
        """Do nothing: nothing waits."""

    def async_flush(self) -> None:
        """Do nothing: nothing waits."""

    def sync_flush(self, timeout: Optional[float] = None) -> None:
        """Do nothing: nothing waits."""

    def close(self, timeout: Optional[float] = None) -> bool:  # noqa: ARG002  # as emitters have it
        """Do nothing; what is tracked later is recorded, too.

        Returns:
            True, as nothing waits.
        """
        return True

    @property
    def payloads(self) -> PayloadDictList:
        """A new list of the payloads, in order of arrival, with the values that a POST request would have."""
        with self._lock:
            return list(self._payloads)

    @property
    def good(self) -> List[GoodEvent]:
        """A new list of the good events, in order of arrival."""
        return [event for event in self._judged_so_far() if isinstance(event, GoodEvent)]

    @property
    def bad(self) -> List[BadEvent]:
        """A new list of the bad events, in order of arrival."""
        return [event for event in self._judged_so_far() if isinstance(event, BadEvent)]

    def reset(self) -> None:
        """Forget all payloads and events."""
        with self._lock:
            self._payloads.clear()
            self._judged.clear()
            self._changes.note()

    def _judged_so_far(self) -> List[JudgedEvent]:
        with self._lock:
            return self._judged.copy()

    def _wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        return self._changes.wait_until(condition, timeout)
