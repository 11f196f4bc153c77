"""A testing kit: a local collector, assertions about what it gets, trackers that send to it, and tests for stores."""

from ._collected import BadEvent, CollectedRequest, GoodEvent
from ._http_server import Answer
from .collector import LocalCollector
from .event_store_contract import EventStoreContract
from .kit import TrackingKit
from .recorder import RecordingEmitter

__all__ = [
    "Answer",
    "BadEvent",
    "CollectedRequest",
    "EventStoreContract",
    "GoodEvent",
    "LocalCollector",
    "RecordingEmitter",
    "TrackingKit",
]
