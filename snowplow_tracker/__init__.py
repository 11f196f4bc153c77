"""Snowplow events from Python: build them, buffer them, and get them to a collector.

A `Tracker` completes events and hands them to one or more emitters; an `Emitter` or `AsyncEmitter` buffers and sends
them. `Snowplow.create_tracker` builds both.
"""

import importlib
import logging
from typing import TYPE_CHECKING, List

from ._version import __version__
from .contracts import disable_contracts, enable_contracts
from .emitter_configuration import EmitterConfiguration
from .emitters import AsyncEmitter, Emitter
from .event_store import EventStore, InMemoryEventStore
from .events import Event, PagePing, PageView, ScreenView, SelfDescribing, StructuredEvent
from .self_describing_json import SelfDescribingJson
from .snowplow import Snowplow
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

if TYPE_CHECKING:
    from .redis_event_store import RedisClient, RedisEventStore
    from .sqlite_event_store import SQLiteEventStore

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

# Imported when they are asked for: nobody should pay for a database that is not used.
_MODULES = {
    "RedisClient": "redis_event_store",
    "RedisEventStore": "redis_event_store",
    "SQLiteEventStore": "sqlite_event_store",
}


# A type checker would take any name for one that is there.
if not TYPE_CHECKING:  # pragma: no branch (always so at run time)

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
