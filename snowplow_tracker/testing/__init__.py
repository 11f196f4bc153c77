"""A local collector for tests: your own and this library's."""

from ._collected import BadEvent, CollectedRequest, GoodEvent
from ._http_server import Answer
from .collector import LocalCollector

__all__ = ["Answer", "BadEvent", "CollectedRequest", "GoodEvent", "LocalCollector"]
