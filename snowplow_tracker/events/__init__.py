"""The events that a tracker can track."""

from .event import Event
from .page_ping import PagePing
from .page_view import PageView
from .screen_view import ScreenView
from .self_describing import SelfDescribing
from .structured_event import StructuredEvent

__all__ = ["Event", "PagePing", "PageView", "ScreenView", "SelfDescribing", "StructuredEvent"]
