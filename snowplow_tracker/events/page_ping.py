"""A user is still on a web page."""

from datetime import datetime
from typing import Optional, Sequence, Union

from ..self_describing_json import SelfDescribingJson
from ..subject import Subject
from ._wire_field import WireField
from .event import Event

__all__ = ["PagePing"]


class PagePing(Event):
    """A user is still on a web page, and has scrolled so far since the last ping.

    Attributes:
        page_url: URL of the page.
        page_title: Title of the page.
        referrer: URL of the page that led here.
        min_x: Leftmost offset of the viewport from the page's left edge, in pixels.
        max_x: Rightmost such offset.
        min_y: Topmost offset of the viewport from the page's upper edge, in pixels.
        max_y: Lowest such offset.

    Raises:
        ValueError: If `page_url` is not a non-empty string.
    """

    page_url = WireField[str]("url", required=True)
    page_title = WireField[Optional[str]]("page")
    referrer = WireField[Optional[str]]("refr")
    min_x = WireField[Optional[int]]("pp_mix")
    max_x = WireField[Optional[int]]("pp_max")
    min_y = WireField[Optional[int]]("pp_miy")
    max_y = WireField[Optional[int]]("pp_may")

    def __init__(
        self,
        page_url: str,
        page_title: Optional[str] = None,
        referrer: Optional[str] = None,
        min_x: Optional[int] = None,
        max_x: Optional[int] = None,
        min_y: Optional[int] = None,
        max_y: Optional[int] = None,
        event_subject: Optional[Subject] = None,
        context: Optional[Sequence[SelfDescribingJson]] = None,
        true_timestamp: Optional[Union[int, float, datetime]] = None,
    ) -> None:
        super().__init__({"e": "pp"}, event_subject, context, true_timestamp)
        self.page_url = page_url
        self.page_title = page_title
        self.referrer = referrer
        self.min_x = min_x
        self.max_x = max_x
        self.min_y = min_y
        self.max_y = max_y
