"""An event that brings its own schema."""

from datetime import datetime
from typing import Optional, Sequence, Union

from .._shown import shown
from ..constants import UNSTRUCT_EVENT_SCHEMA
from ..payload import Payload
from ..self_describing_json import SelfDescribingJson
from ..subject import Subject
from ..typing import JsonEncoderFunction
from .event import Event

__all__ = ["SelfDescribing"]


class SelfDescribing(Event):
    """An event that brings its own schema.

    Attributes:
        event_json: The event's data with its schema. Tracking anything else raises `TypeError`.
    """

    def __init__(
        self,
        event_json: SelfDescribingJson,
        event_subject: Optional[Subject] = None,
        context: Optional[Sequence[SelfDescribingJson]] = None,
        true_timestamp: Optional[Union[int, float, datetime]] = None,
    ) -> None:
        super().__init__({"e": "ue"}, event_subject, context, true_timestamp)
        self.event_json = event_json

    @property
    def event_json(self) -> SelfDescribingJson:
        """See the attributes of the class."""
        return self._event_json

    @event_json.setter
    def event_json(self, value: SelfDescribingJson) -> None:
        self._event_json = value

    def build_payload(
        self,
        encode_base64: bool,
        json_encoder: Optional[JsonEncoderFunction],
        subject: Optional[Subject] = None,
    ) -> Payload:
        """See `Event.build_payload`."""
        if not isinstance(self.event_json, SelfDescribingJson):
            raise TypeError(f"event_json must be a SelfDescribingJson, got {shown(self.event_json)}")
        payload = super().build_payload(encode_base64, json_encoder, subject)
        event_json = self.event_json.to_json()
        payload.add_enveloped(
            UNSTRUCT_EVENT_SCHEMA, event_json, "event_json", encode_base64, "ue_px", "ue_pr", json_encoder
        )
        return payload
