"""Shapes of data that cross the library's border, and the protocols that users implement."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Set, Tuple, Union

from typing_extensions import Literal, Protocol, runtime_checkable

__all__ = [
    "ElementClasses",
    "EmitterProtocol",
    "EmitterStats",
    "EventStore",
    "FORM_NODE_NAMES",
    "FORM_TYPES",
    "FailureCallback",
    "FormClasses",
    "FormNodeName",
    "HttpProtocol",
    "JsonEncoderFunction",
    "Method",
    "PayloadDict",
    "PayloadDictList",
    "PayloadReceiver",
    "RequestTimeout",
    "SUPPORTED_PLATFORMS",
    "SuccessCallback",
    "SupportedPlatform",
]

PayloadDict = Dict[str, Any]
PayloadDictList = List[PayloadDict]
JsonEncoderFunction = Callable[[Any], Any]

SuccessCallback = Callable[[PayloadDictList], None]
FailureCallback = Callable[[int, PayloadDictList], None]

HttpProtocol = Literal["http", "https"]
Method = Literal["get", "post"]
RequestTimeout = Union[float, Tuple[float, float]]

# `headset` is accepted as well; the set keeps the members that 1.1.0 published, because code compares with it.
SupportedPlatform = Literal["pc", "tv", "mob", "cnsl", "iot", "web", "srv", "app", "headset"]
SUPPORTED_PLATFORMS: Set[str] = {"pc", "tv", "mob", "cnsl", "iot", "web", "srv", "app"}

FormNodeName = Literal["INPUT", "TEXTAREA", "SELECT"]
FORM_NODE_NAMES: Set[str] = {"INPUT", "TEXTAREA", "SELECT"}
FORM_TYPES: Set[str] = {
    "button",
    "checkbox",
    "color",
    "date",
    "datetime",
    "datetime-local",
    "email",
    "file",
    "hidden",
    "image",
    "month",
    "number",
    "password",
    "radio",
    "range",
    "reset",
    "search",
    "submit",
    "tel",
    "text",
    "time",
    "url",
    "week",
}
FormClasses = Union[List[str], Tuple[str, Any]]
ElementClasses = Union[List[str], Tuple[str, Any]]


class PayloadReceiver(Protocol):
    """All that a `Tracker` needs of an emitter of the application's own."""

    def input(self, payload: PayloadDict) -> None:
        """Take a payload over.

        Args:
            payload: The tracker's own dict. An emitter that keeps it makes a copy.
        """


class EmitterProtocol(PayloadReceiver, Protocol):
    """What a `Tracker` calls on an emitter; all but `input` only where it exists, and `close` besides."""

    def flush(self) -> None:
        """Send what waits, unless a backoff holds it back."""

    def async_flush(self) -> None:
        """Have what waits sent by another thread, without blocking this one."""

    def sync_flush(self) -> None:
        """Send what waits, and return when it has been tried."""


@runtime_checkable
class EventStore(Protocol):
    """Where payloads wait until an emitter has sent them.

    An emitter calls each method with its own lock held, so a store that serves one emitter needs no lock. A method that
    raises does no harm to the application: the emitter logs it, and counts a payload that could not be added as
    dropped.

    A store may have more than these methods; an emitter looks whether it does:

    - The attribute `buffer_capacity`: how many payloads may wait or be in flight, unless the emitter has a figure of
      its own.
    - The attribute `is_durable`, True if payloads outlive the process, and may be shared with other processes. Such a
      store hands out no more than about one request at a time, and lends payloads: those that never come back, because
      a process died, are handed out again. So an emitter need not fight for what is left in it.
    - The method `renew`, of a durable store whose lending ends by time: what this object has lent stays lent. It is
      called after each request, since a hand-out may take many, and should do nothing while there is much time left.
    - The argument `limit` of `get_events_batch`: hand out no more than so many payloads.
    - The method `close`, for the emitter that made the store from a URL: give back what is lent, connections and files.
      A store that is used again after it takes new ones.

    `snowplow_tracker.testing.EventStoreContract` puts a store to the test.
    """

    def add_event(self, payload: PayloadDict) -> bool:
        """Keep a payload.

        Returns:
            False if the payload was refused, because the store is full or out of order.
        """

    def get_events_batch(self) -> PayloadDictList:
        """Hand payloads out, oldest first, as many as the store sees fit; an empty list if none waits.

        A payload is handed out once, until `cleanup(..., True)` returns it.
        """

    def cleanup(self, batch: PayloadDictList, need_retry: bool) -> None:
        """Take back what was handed out: each payload once, and the very objects, in any selection.

        Payloads that never were in the store (an application may pass its own to `Emitter.send_events`) are added when
        they need a retry, and ignored otherwise.

        Args:
            batch: Payloads that are settled.
            need_retry: True if they must be handed out again, before any that came later; this is never refused. False
                if they are delivered or given up, and can be forgotten.
        """

    def size(self) -> int:
        """Count the payloads that wait, without those that are handed out."""


@dataclass(frozen=True)
class EmitterStats:
    """Figures about one emitter since it was built, or since its process forked.

    At every moment `accepted == delivered + rejected + buffered + in_flight`, unless the store held payloads before, or
    shares them with other emitters or processes: then `buffered` counts all that wait there, and some are delivered by
    another emitter than the one that accepted them.

    Attributes:
        accepted: Payloads that the event store took, or that were passed to `send_events` directly.
        delivered: Payloads that the collector took.
        rejected: Payloads that were given up, because the collector refused them for good.
        dropped: Payloads that were never accepted: the buffer was full, the store failed, or the emitter was closed.
        retries: How many times a payload went back to the store to be sent again.
        requests: HTTP requests that were attempted.
        buffered: Payloads that wait in the event store.
        in_flight: Payloads that are being sent at this moment.
        last_status: HTTP status of the last request, -1 if it had no response, None before the first.
        last_error: Why the last request had no response, None if it had one.
        retry_in_seconds: Seconds until the end of the backoff, None without one.
    """

    accepted: int
    delivered: int
    rejected: int
    dropped: int
    retries: int
    requests: int
    buffered: int
    in_flight: int
    last_status: Optional[int]
    last_error: Optional[str]
    retry_in_seconds: Optional[float]
