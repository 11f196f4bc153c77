"""What a collector for tests remembers: the requests, and what a pipeline would make of their payloads."""

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Union

from typing_extensions import Protocol

from ..typing import PayloadDict, PayloadDictList

__all__ = ["BadEvent", "CollectedRequest", "GoodEvent", "PathArgument", "SelfDescribingDict"]

SelfDescribingDict = Dict[str, Any]


class _TextPath(Protocol):
    """What `os.PathLike[str]` says, which Python 3.8 can only read as a comment."""

    def __fspath__(self) -> str: ...


PathArgument = Union[str, _TextPath]


@dataclass(frozen=True)
class CollectedRequest:
    """A request that arrived.

    Attributes:
        method: `GET`, `POST`, and so on.
        path: The path as sent (still percent-encoded), without the query.
        query: The decoded query; the last value of a repeated name.
        headers: Header values by lower-cased name.
        body: The body as sent; empty if the connection was reset before it was read.
        payloads: The payloads in it: the `data` of a POST, the query of a GET; none if they cannot be decoded.
        status: The HTTP status it is answered with, 0 if it gets a reset connection or raw bytes.
        connection: Serial number of the TCP connection that it came by, counted from 1.
        received_at: When it was received, by `time.monotonic()` in seconds.
        timestamp: The same by the wall clock, in seconds since 1970.
        ip_address: Where its connection came from; empty if that is not known.
    """

    method: str
    path: str
    query: Dict[str, str]
    headers: Dict[str, str]
    body: bytes
    payloads: PayloadDictList
    status: int
    connection: int
    received_at: float
    timestamp: float
    ip_address: str = ""


@dataclass(frozen=True)
class GoodEvent:
    """A payload that a pipeline takes.

    Attributes:
        payload: The payload as it came: wire names, text values.
        event_type: Its type by the name that it has in the warehouse: `page_view`, `page_ping`, `struct`, `unstruct`,
            `transaction` or `transaction_item`.
        schema: The `iglu:` URI of the event's schema; a type of event without one of its own has that which the
            pipeline gives it.
        data: The data of a self-describing event (`unstruct`); None for other types.
        contexts: The entities, each a dict of `schema` and `data`, in their order.
        fields: The payload's fields by the names that they have in the warehouse, such as `page_url` for `url`, with
            numbers as numbers. Fields that the event does not have are not in it.
        request: The request that brought it; None if there was none.
    """

    payload: PayloadDict
    event_type: str
    schema: str
    data: Optional[Any]
    contexts: List[SelfDescribingDict]
    fields: Dict[str, Any]
    request: Optional[CollectedRequest]


@dataclass(frozen=True)
class BadEvent:
    """A payload that a pipeline throws away, or a request that holds no payloads that could be read.

    Attributes:
        payload: The payload as it came, which may be anything that JSON knows; None for a request without readable
            payloads.
        errors: What is wrong with it, a sentence each; never empty.
        request: The request that brought it; None if there was none.
    """

    payload: Optional[Any]
    errors: List[str]
    request: Optional[CollectedRequest]
