"""A testing kit: a local collector, assertions about what it gets, and trackers that send to it."""

from ._collected import BadEvent, CollectedRequest, GoodEvent
from ._http_server import Answer
from .collector import LocalCollector
from .kit import TrackingKit
from .recorder import RecordingEmitter

__all__ = [
    "Answer",
    "BadEvent",
    "CollectedRequest",
    "GoodEvent",
    "LocalCollector",
    "RecordingEmitter",
    "TrackingKit",
]
