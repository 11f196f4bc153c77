"""An event in five general-purpose fields."""

from datetime import datetime
from typing import Optional, Sequence, Union

from ..self_describing_json import SelfDescribingJson
from ..subject import Subject
from ._wire_field import WireField
from .event import Event

__all__ = ["StructuredEvent"]


class StructuredEvent(Event):
    """An event in five general-purpose fields, without a schema of its own.

    Attributes:
        category: What kind of thing is concerned.
        action: What happened to it.
        label: Which one it is.
        property_: What else there is to say about it.
        value: A number that goes with it. It goes out as it is, a string too.

    Raises:
        ValueError: If `category` or `action` is not a non-empty string.
    """

    category = WireField[str]("se_ca", required=True)
    action = WireField[str]("se_ac", required=True)
    label = WireField[Optional[str]]("se_la")
    property_ = WireField[Optional[str]]("se_pr")
    value = WireField[Optional[Union[int, float, str]]]("se_va")

    def __init__(
        self,
        category: str,
        action: str,
        label: Optional[str] = None,
        property_: Optional[str] = None,
        value: Optional[Union[int, float, str]] = None,
        event_subject: Optional[Subject] = None,
        context: Optional[Sequence[SelfDescribingJson]] = None,
        true_timestamp: Optional[Union[int, float, datetime]] = None,
    ) -> None:
        super().__init__({"e": "se"}, event_subject, context, true_timestamp)
        self.category = category
        self.action = action
        self.label = label
        self.property_ = property_
        self.value = value
