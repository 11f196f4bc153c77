"""What all events have in common, and the event without a type of its own."""

from datetime import datetime, timedelta, timezone
from typing import Any, List, Mapping, Optional, Sequence, Union

from .._shown import shown
from ..constants import CONTEXT_SCHEMA
from ..payload import Payload
from ..self_describing_json import SelfDescribingJson
from ..subject import Subject
from ..typing import JsonEncoderFunction, PayloadDict

__all__ = ["Event"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)


class Event:
    """Something that happened.

    Tracking does not change an event: it can be tracked again, by another tracker too, with the same outcome. Classes
    of your own either pass their pairs to the constructor, or add to `payload`, or override `build_payload` and add to
    what `super().build_payload(...)` returns.

    Args:
        dict_: First fields, by their wire names. All other parameters, here and in the subclasses, are attributes too.

    Attributes:
        payload: The event's own fields, by their wire names.
        context: The entities that describe the circumstances: a list, which is empty if there are none. A list that is
            set is kept as it is, so that entities may be appended later; of another iterable a list is made; None
            clears.
        event_subject: Who or what the event is about, on top of the tracker's subject.
        true_timestamp: When it really happened, if that is known better than by the clock of this machine at the time
            of tracking: milliseconds since 1970 as an int or a float, or a datetime. A datetime without a time zone is
            in local time. A value of another type, NaN, or a time that cannot be converted is left out.
    """

    event_subject: Optional[Subject] = None
    true_timestamp: Optional[Union[int, float, datetime]] = None

    def __init__(
        self,
        dict_: Optional[Mapping[str, Any]] = None,
        event_subject: Optional[Subject] = None,
        context: Optional[Sequence[SelfDescribingJson]] = None,
        true_timestamp: Optional[Union[int, float, datetime]] = None,
    ) -> None:
        self.payload = Payload(dict_)
        self.event_subject = event_subject
        self._context: Any = [] if context is None else _as_list(context)
        self.true_timestamp = true_timestamp

    @property
    def context(self) -> List[SelfDescribingJson]:
        """See the attributes of the class."""
        context: List[SelfDescribingJson] = self._context
        return context

    @context.setter
    def context(self, value: Optional[Sequence[SelfDescribingJson]]) -> None:
        self._context = [] if value is None else _as_list(value)

    def build_payload(
        self,
        encode_base64: bool,
        json_encoder: Optional[JsonEncoderFunction],
        subject: Optional[Subject] = None,
    ) -> Payload:
        """Put together what goes out for this event, except what only a tracker knows.

        Args:
            encode_base64: Whether JSON goes out in URL-safe Base64.
            json_encoder: Asked first for a substitute of each value that JSON does not know.
            subject: The tracker's.

        Returns:
            A new payload each time.

        Raises:
            TypeError: If the context, the subject or the data is not what it must be, or cannot be encoded; the message
                names the part.
        """
        payload = Payload()
        # Over a copy, which is made in one step: another thread may be changing the event.
        payload.nv_pairs = {name: value for name, value in self.payload.nv_pairs.copy().items() if value is not None}
        if type(self._context) is not list or self._context:
            entities = _described_entities(self._context)
            payload.add_enveloped(CONTEXT_SCHEMA, entities, "context", encode_base64, "cx", "co", json_encoder)
        if self.true_timestamp is not None:
            payload.add("ttm", _milliseconds(self.true_timestamp))
        if self.event_subject is not None:
            payload.add_dict(_combined(self.event_subject, subject))
        elif subject is not None:
            payload.add_dict(subject.standard_nv_pairs)
        return payload


def _as_list(context: Any) -> Any:
    if isinstance(context, list):
        return context
    try:
        return list(context)
    except TypeError:
        return context  # What is no context at all is for `track` to report.


def _described_entities(context: Any) -> List[Mapping[str, Any]]:
    if not isinstance(context, list):
        raise TypeError(f"context must be a list of SelfDescribingJson, got {shown(context)}")
    for index, entity in enumerate(context):
        if not isinstance(entity, SelfDescribingJson):
            raise TypeError(f"context[{index}] must be a SelfDescribingJson, got {shown(entity)}")
    return [entity.to_json() for entity in context]


def _milliseconds(timestamp: Any) -> Optional[int]:
    if isinstance(timestamp, datetime):
        try:
            aware = timestamp.astimezone() if timestamp.utcoffset() is None else timestamp
            # Whole numbers, because a float of seconds times 1000 may end up in the millisecond before.
            return (aware - _EPOCH) // _MILLISECOND
        except Exception:  # the ends of the calendar, and whatever a time zone of the application's own raises
            return None
    if not isinstance(timestamp, (int, float)):
        return None
    try:
        return int(timestamp)
    except (ValueError, OverflowError):  # NaN and the infinities
        return None


def _combined(event_subject: Any, subject: Optional[Subject]) -> PayloadDict:
    combine = getattr(event_subject, "combine_subject", None)
    if combine is None or isinstance(event_subject, type):
        raise TypeError(f"event_subject must be a Subject, got {shown(event_subject)}")
    combined: PayloadDict = combine(subject)
    return combined
