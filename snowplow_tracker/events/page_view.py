"""A user saw a web page."""

from datetime import datetime
from typing import Optional, Sequence, Union

from ..self_describing_json import SelfDescribingJson
from ..subject import Subject
from ._wire_field import WireField
from .event import Event

__all__ = ["PageView"]


class PageView(Event):
    """A user saw a web page.

    Attributes:
        page_url: URL of the page.
        page_title: Title of the page.
        referrer: URL of the page that led here.

    Raises:
        ValueError: If `page_url` is not a non-empty string.
    """

    page_url = WireField[str]("url", required=True)
    page_title = WireField[Optional[str]]("page")
    referrer = WireField[Optional[str]]("refr")

    def __init__(
        self,
        page_url: str,
        page_title: Optional[str] = None,
        referrer: Optional[str] = None,
        event_subject: Optional[Subject] = None,
        context: Optional[Sequence[SelfDescribingJson]] = None,
        true_timestamp: Optional[Union[int, float, datetime]] = None,
    ) -> None:
        super().__init__({"e": "pv"}, event_subject, context, true_timestamp)
        self.page_url = page_url
        self.page_title = page_title
        self.referrer = referrer
