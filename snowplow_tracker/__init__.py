"""Snowplow events from Python: build them, buffer them, and get them to a collector.

A `Tracker` completes events and hands them to one or more emitters; an `Emitter` or `AsyncEmitter` buffers and sends
them. `Snowplow.create_tracker` builds both.
"""

import logging

from ._version import __version__
from .contracts import disable_contracts, enable_contracts
from .emitter_configuration import EmitterConfiguration
from .emitters import AsyncEmitter, Emitter
from .event_store import EventStore, InMemoryEventStore
from .events import Event, PagePing, PageView, ScreenView, SelfDescribing, StructuredEvent
from .redis_event_store import RedisClient, RedisEventStore
from .self_describing_json import SelfDescribingJson
from .snowplow import Snowplow
from .sqlite_event_store import SQLiteEventStore
from .store_only_emitter import StoreOnlyEmitter
from .subject import Subject
from .tracker import Tracker
from .tracker_configuration import TrackerConfiguration
from .typing import (
    ElementClasses,
    EmitterProtocol,
    EmitterStats,
    FailureCallback,
    FormClasses,
    FormNodeName,
    HttpProtocol,
    JsonEncoderFunction,
    Method,
    PayloadDict,
    PayloadDictList,
    PayloadReceiver,
    RequestTimeout,
    SuccessCallback,
    SupportedPlatform,
)

__all__ = [
    "AsyncEmitter",
    "ElementClasses",
    "Emitter",
    "EmitterConfiguration",
    "EmitterProtocol",
    "EmitterStats",
    "Event",
    "EventStore",
    "FailureCallback",
    "FormClasses",
    "FormNodeName",
    "HttpProtocol",
    "InMemoryEventStore",
    "JsonEncoderFunction",
    "Method",
    "PagePing",
    "PageView",
    "PayloadDict",
    "PayloadDictList",
    "PayloadReceiver",
    "RedisClient",
    "RedisEventStore",
    "RequestTimeout",
    "SQLiteEventStore",
    "ScreenView",
    "SelfDescribing",
    "SelfDescribingJson",
    "Snowplow",
    "StoreOnlyEmitter",
    "StructuredEvent",
    "Subject",
    "SuccessCallback",
    "SupportedPlatform",
    "Tracker",
    "TrackerConfiguration",
    "__version__",
    "disable_contracts",
    "enable_contracts",
]

logger = logging.getLogger(__name__)
logger.addHandler(logging.NullHandler())
