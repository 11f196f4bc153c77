"""A user saw a screen of an application."""

from datetime import datetime
from typing import Any, Optional, Sequence, TypeVar, Union

from ..constants import MOBILE_SCHEMA_PATH, SCHEMA_TAG, UNSTRUCT_EVENT_SCHEMA
from ..payload import Payload
from ..self_describing_json import SelfDescribingJson
from ..subject import Subject
from ..typing import JsonEncoderFunction, PayloadDict
from ._wire_field import WireField
from .event import Event

__all__ = ["ScreenView"]

_T = TypeVar("_T")

_SCREEN_VIEW_SCHEMA = f"{MOBILE_SCHEMA_PATH}/screen_view/{SCHEMA_TAG}/1-0-0"


class _ScreenViewField(WireField[_T]):
    """A field that goes out inside the event's JSON, where an empty string is a value."""

    def __set__(self, event: Any, value: _T) -> None:
        self.set_or_clear(event, value)

    @staticmethod
    def pairs_of(event: Any) -> PayloadDict:
        pairs: PayloadDict = event.screen_view_properties
        return pairs

    @staticmethod
    def has_meaning(value: object) -> bool:
        return value is not None


class ScreenView(Event):
    """A user saw a screen of an application.

    Attributes:
        id_: Identifies this view of the screen; a UUID as a string.
        name: Name of the screen.
        type: Kind of the screen, such as `feed` or `carousel`.
        previous_name: Name of the screen that was seen before.
        previous_id: The `id_` of its view.
        previous_type: Its kind.
        transition_type: How the application got from there to here.
        screen_view_properties: All of these by their names in the schema.

    Raises:
        ValueError: If `id_` or `name` is not a non-empty string.
    """

    id_ = _ScreenViewField[str]("id", required=True)
    name = _ScreenViewField[str]("name", required=True)
    type = _ScreenViewField[Optional[str]]("type")
    previous_name = _ScreenViewField[Optional[str]]("previousName")
    previous_id = _ScreenViewField[Optional[str]]("previousId")
    previous_type = _ScreenViewField[Optional[str]]("previousType")
    transition_type = _ScreenViewField[Optional[str]]("transitionType")

    def __init__(
        self,
        id_: str,
        name: str,
        type: Optional[str] = None,  # noqa: A002  # named in 1.1.0
        previous_name: Optional[str] = None,
        previous_id: Optional[str] = None,
        previous_type: Optional[str] = None,
        transition_type: Optional[str] = None,
        event_subject: Optional[Subject] = None,
        context: Optional[Sequence[SelfDescribingJson]] = None,
        true_timestamp: Optional[Union[int, float, datetime]] = None,
    ) -> None:
        super().__init__({"e": "ue"}, event_subject, context, true_timestamp)
        self.screen_view_properties: PayloadDict = {}
        self.id_ = id_
        self.name = name
        self.type = type
        self.previous_name = previous_name
        self.previous_id = previous_id
        self.previous_type = previous_type
        self.transition_type = transition_type

    def build_payload(
        self,
        encode_base64: bool,
        json_encoder: Optional[JsonEncoderFunction],
        subject: Optional[Subject] = None,
    ) -> Payload:
        """See `Event.build_payload`."""
        payload = super().build_payload(encode_base64, json_encoder, subject)
        event_json = {"schema": _SCREEN_VIEW_SCHEMA, "data": self.screen_view_properties}
        payload.add_enveloped(
            UNSTRUCT_EVENT_SCHEMA, event_json, "screen_view", encode_base64, "ue_px", "ue_pr", json_encoder
        )
        return payload
