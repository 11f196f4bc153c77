"""Completing events and handing them to emitters."""

import inspect
import logging
import math
import time
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Type, Union

from typing_extensions import Self

from ._event_ids import new_event_id
from ._json import EncodingError
from ._legacy_tracking import LegacyTracking
from ._settings import callback, optional, wait_seconds
from ._shown import shown
from .constants import DEFAULT_ENCODE_BASE64, KNOWN_PAYLOAD_KEYS, REQUIRED_PAYLOAD_KEYS, VERSION
from .contracts import non_empty
from .emitters import Emitter
from .events import Event
from .payload import Payload
from .subject import Subject
from .typing import JsonEncoderFunction, PayloadDict, PayloadReceiver

__all__ = ["Tracker", "VERSION"]

logger = logging.getLogger(__name__)

# An application that puts an id into a name makes a new name with each event.
_MAX_REPORTED_KEYS = 100

_Emitters = Union[PayloadReceiver, Sequence[PayloadReceiver]]


class Tracker(LegacyTracking):
    """Turns events into payloads and hands them to one or several emitters.

    Any number of threads may track at the same time. The attributes may be changed at any time; what is tracked from
    then on follows them.

    A payload that would make the pipeline throw away the whole request it comes in, because it lacks a name that
    `payload_data/1-0-4` requires or has one that it does not know, is logged as an error, once per name and tracker and
    for 100 names at the most, and still sent. After `close`, an emitter of this library drops what is tracked, with a
    line in the log.

    Used in a `with` statement, a tracker is closed at the end of it.

    Args:
        namespace: Name of the tracker, which goes out with each event.
        emitters: One emitter, or a list or tuple of them. An emitter is what has a method `input` that takes a dict of
            name-value pairs.
        subject: See the attribute; a new `Subject` by default.
        app_id: Name of the application, which goes out with each event.
        encode_base64: See the attribute.
        json_encoder: See the attribute.
        emitter: Another name of `emitters`.

    Attributes:
        emitters: Where payloads go, in this order; a list of the tracker's own.
        subject: Who or what events are about, if they have no subject that says otherwise; None for nobody.
        encode_base64: Whether JSON goes out in Base64.
        json_encoder: See `TrackerConfiguration.json_encoder`.
        standard_nv_pairs: The pairs that every payload gets: version, namespace and application.

    Raises:
        TypeError: If there is neither `emitters` nor `emitter`, or both, or one of them is no emitter, or `subject` or
            `json_encoder` is not what it must be.
        ValueError: If the list of emitters is empty.
    """

    def __init__(
        self,
        namespace: str,
        emitters: Optional[_Emitters] = None,
        subject: Optional[Subject] = None,
        app_id: Optional[str] = None,
        encode_base64: bool = DEFAULT_ENCODE_BASE64,
        json_encoder: Optional[JsonEncoderFunction] = None,
        *,
        emitter: Optional[_Emitters] = None,
    ) -> None:
        self.emitters: List[PayloadReceiver] = _as_emitters(emitters, emitter)
        self.subject: Optional[Subject] = Subject() if subject is None else _checked_subject(subject)
        self.encode_base64 = encode_base64
        self.json_encoder: Optional[JsonEncoderFunction] = optional(callback)("json_encoder", json_encoder)
        self.standard_nv_pairs: Dict[str, Any] = {"tv": VERSION, "tna": namespace, "aid": app_id}
        self._reported_keys: Dict[str, object] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: Optional[Type[BaseException]],
        exception: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def track(self, event: Event) -> Optional[str]:
        """Track an event.

        What an emitter raises is logged, and keeps the payload from no other emitter.

        Returns:
            The id that the event got, which differs each time it is tracked.

        Raises:
            TypeError: If it is no event, or a part of it is not what it must be or cannot be encoded. The message names
                the part, and no emitter has got anything.
        """
        nv_pairs = self.complete_payload(event=event).nv_pairs
        given: Any = nv_pairs  # a mock's may be anything
        # Both comparisons run in C, over names only: cheap enough for every event.
        if isinstance(given, dict) and not KNOWN_PAYLOAD_KEYS >= nv_pairs.keys() >= REQUIRED_PAYLOAD_KEYS:
            self._report_keys(nv_pairs)
        unencodable: Optional[EncodingError] = None
        for emitter in self.emitters:
            try:
                emitter.input(nv_pairs)
            except EncodingError as error:  # noqa: PERF203  # one that fails must not starve the others
                # A dict in a plain field becomes JSON only here; it is the caller's mistake all the same.
                unencodable = error
            except Exception:
                logger.exception("%r failed to take an event, which may be lost", emitter)
        if unencodable is not None:
            raise unencodable
        return nv_pairs.get("eid")

    def complete_payload(self, event: Event) -> Payload:
        """Put together what goes out for an event: what it says itself, an id, the time, and the standard pairs.

        Raises:
            TypeError: See `track`.
        """
        given: Any = event
        if not isinstance(given, Event):
            _check_is_like_an_event(given)
        payload: Any = event.build_payload(
            encode_base64=self.encode_base64, json_encoder=self.json_encoder, subject=self.subject
        )
        if not isinstance(payload, Payload):
            raise TypeError(f"build_payload of {type(event).__name__} must return a Payload, got {shown(payload)}")
        nv_pairs = payload.nv_pairs
        nv_pairs["eid"] = self.get_uuid()
        nv_pairs["dtm"] = self.get_timestamp()
        payload.add_dict(self.standard_nv_pairs)
        return payload

    def flush(self, wait: bool = True, *, is_async: Optional[bool] = None, timeout: Optional[float] = None) -> Self:
        """Have the emitters send what waits in them, whether or not it makes up a batch.

        What an emitter raises is logged, and keeps no other from being flushed.

        Args:
            wait: True returns when all has been tried, False at once.
            is_async: False is the same as `wait=True`. True calls the `flush` of each emitter, which blocks for an
                `Emitter` and does not for an `AsyncEmitter`. Takes precedence over `wait`.
            timeout: With `wait`: how long to go on until all is out, in seconds and for all emitters together. None
                means one attempt.

        Returns:
            The tracker.

        Raises:
            ValueError: If the timeout is negative.
            TypeError: If the timeout is no number.
        """
        seconds = optional(wait_seconds)("timeout", timeout)
        if (wait and not is_async) or is_async is False:
            _share_time(self.emitters, seconds, "sync_flush", "flush")
        else:
            for emitter in self.emitters:
                _attempt(emitter, "flush" if is_async else "async_flush", "flush")
        return self

    def close(self, timeout: Optional[float] = 5.0) -> bool:
        """Send what waits in the emitters, and end their timers and threads. Closing again does no harm.

        Emitters without a method `close` are flushed instead. What an emitter raises is logged, and keeps no other from
        being closed.

        Args:
            timeout: How long this may take, in seconds and for all emitters together; None sets no limit.

        Returns:
            Whether all is out, as far as the emitters can tell.

        Raises:
            ValueError: If the timeout is negative.
            TypeError: If the timeout is no number.
        """
        return _share_time(self.emitters, optional(wait_seconds)("timeout", timeout), "close", "sync_flush", "flush")

    def set_subject(self, subject: Optional[Subject]) -> Self:
        """Replace the subject; None leaves events with their own.

        Returns:
            The tracker.

        Raises:
            TypeError: If it is no subject.
        """
        self.subject = None if subject is None else _checked_subject(subject)
        return self

    def add_emitter(self, emitter: PayloadReceiver) -> Self:
        """Hand payloads to one more emitter from now on.

        Returns:
            The tracker.

        Raises:
            TypeError: If it is no emitter.
        """
        self.emitters.append(_checked_emitter(emitter, "emitter"))
        return self

    def addEmitter(self, emitter: PayloadReceiver) -> Self:  # noqa: N802  # as Snowplow's documentation has it
        """Do what `add_emitter` does."""
        return self.add_emitter(emitter)

    def get_namespace(self) -> str:
        """Give the name of the tracker."""
        namespace: str = self.standard_nv_pairs["tna"]
        return namespace

    @staticmethod
    def get_uuid() -> str:
        """Make an id for an event: a random UUID."""
        return new_event_id()

    @staticmethod
    def get_timestamp(tstamp: Optional[float] = None) -> int:
        """Give a timestamp in whole milliseconds since 1970.

        Args:
            tstamp: Taken if it is a finite number; otherwise the clock is read.
        """
        if tstamp is None:
            return int(time.time() * 1000)
        given: Any = tstamp
        is_number = isinstance(given, int) or (isinstance(given, float) and math.isfinite(given))
        return int(given if is_number else time.time() * 1000)

    def _report_keys(self, nv_pairs: PayloadDict) -> None:
        for key in sorted(map(shown, REQUIRED_PAYLOAD_KEYS - nv_pairs.keys())):
            self._report_key(key, "lacks the required name")
        for key in sorted(map(shown, nv_pairs.keys() - KNOWN_PAYLOAD_KEYS)):
            self._report_key(key, "has the unknown name")

    def _report_key(self, key: str, defect: str) -> None:
        mine = object()
        if len(self._reported_keys) < _MAX_REPORTED_KEYS and self._reported_keys.setdefault(key, mine) is mine:
            logger.error(
                "A payload of the tracker %r %s %s; it is sent, but the pipeline may throw its whole request away",
                self.get_namespace(),
                defect,
                key,
            )


def _as_emitters(emitters: Any, emitter: Any) -> List[PayloadReceiver]:
    if emitters is not None and emitter is not None:
        raise TypeError("emitters and emitter are two names of one parameter, got both")
    name, given = ("emitters", emitters) if emitter is None else ("emitter", emitter)
    if not isinstance(given, (list, tuple)):
        return [_checked_emitter(given, name)]
    non_empty(given, name=name)
    return [_checked_emitter(each, f"{name}[{index}]") for index, each in enumerate(given)]


def _checked_emitter(emitter: Any, name: str) -> PayloadReceiver:
    if isinstance(emitter, type) or not callable(getattr(emitter, "input", None)):
        raise TypeError(f"{name} must be an object with a method input, got {shown(emitter)}")
    checked: PayloadReceiver = emitter
    return checked


def _checked_subject(subject: Any) -> Subject:
    if isinstance(subject, type) or not callable(getattr(subject, "combine_subject", None)):
        raise TypeError(f"subject must be a Subject, got {shown(subject)}")
    checked: Subject = subject
    return checked


def _check_is_like_an_event(event: Any) -> None:
    if isinstance(event, type) or not callable(getattr(event, "build_payload", None)):
        raise TypeError(f"event must be an Event, got {shown(event)}")


def _share_time(emitters: Iterable[PayloadReceiver], timeout: Optional[float], *names: str) -> bool:
    """Call a method of each emitter within a time for all of them together.

    First each gets its share, so that a collector that hangs costs only its own emitter; then what is left over.

    Returns:
        False if something is left in an emitter, or one of them failed.
    """
    end = None if timeout is None else time.monotonic() + timeout
    unfinished = list(emitters)
    for _ in range(2):
        left = []
        for position, emitter in enumerate(unfinished):
            share = None if end is None else max(0.0, end - time.monotonic()) / (len(unfinished) - position)
            if not _attempt(emitter, *names, timeout=share) or _holds_payloads(emitter):
                left.append(emitter)
        unfinished = left
        if end is None or time.monotonic() >= end:
            break
    return not unfinished


def _holds_payloads(emitter: PayloadReceiver) -> bool:
    # A mock of an emitter cannot tell, nor can one whose class has a constructor of its own.
    if not (isinstance(emitter, Emitter) and getattr(emitter, "_is_complete", False)):
        return False
    # Not an override: in a subclass of an application's, the name may mean something else.
    stats = Emitter.stats(emitter)
    return stats.buffered + stats.in_flight > 0


def _attempt(emitter: PayloadReceiver, *names: str, timeout: Optional[float] = None) -> bool:
    """Call the first of these methods that an emitter has, with the timeout if one is set and the method takes it.

    Returns:
        False if the method says so or raises.
    """
    method = next((method for method in (getattr(emitter, name, None) for name in names) if callable(method)), None)
    if method is None:
        return True
    try:
        outcome = method(timeout=timeout) if timeout is not None and _takes_timeout(method) else method()
    except Exception:
        logger.exception("%r failed", method)
        return False
    return outcome is not False


def _takes_timeout(method: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # not written in Python
        return False
    return any(parameter.name == "timeout" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
