"""A local collector for tests: your own and this library's."""

from ._http_server import Answer
from .collector import CollectedRequest, LocalCollector

__all__ = ["Answer", "CollectedRequest", "LocalCollector"]
