"""The options of an emitter, each described here."""

from typing import Any, Dict, Optional, Union

import requests

from ._settings import (
    Setting,
    callback,
    choice,
    flag,
    optional,
    port_number,
    positive_int,
    positive_number,
    request_timeout as check_request_timeout,
    retry_code,
    retry_codes,
    session as check_session,
)
from ._store_url import event_store_or_url
from .typing import EventStore, FailureCallback, HttpProtocol, RequestTimeout, SuccessCallback

__all__ = ["EmitterConfiguration"]


class EmitterConfiguration:
    """Options for the emitter that `Snowplow.create_tracker` builds.

    Each option is an attribute that may be reassigned; None stands for the emitter's default. A wrong value raises
    `TypeError` or `ValueError`, with the option's name and the value, at the line that sets it.

    Attributes:
        batch_size: Send as soon as so many payloads wait. 1 or more; 10 by default for POST, 1 for GET. More payloads
            share a request's cost, but wait longer.
        on_success: Called after each flush with the list of payloads that the collector took, if it took any. Runs in
            the thread that sends, without a lock; what it raises is logged.
        on_failure: Called after each flush with the number of payloads taken and the list of those that are not, be
            they put off or lost, if there are any; and with 0 and a single payload that was dropped before it was
            accepted.
        byte_limit: Send as soon as what waits would make a request body (for GET: query strings) of so many bytes. 1 or
            more; no such limit by default.
        request_timeout: Seconds for connecting, and for each wait for the response; or a pair for the one and the
            other. A whole request takes no longer than both together. By default 10 s to connect and 30 s to read.
        max_retry_delay_seconds: The longest pause between attempts while the collector fails; 60 s by default.
        buffer_capacity: How many payloads may wait or be in flight at a time. More are dropped. By default what the
            event store says, and that is 10,000 in memory.
        custom_retry_codes: Whether to retry (True) or give up (False), by HTTP status code from 100 to 599, but for
            2xx. By default everything but 400, 401, 403, 410 and 422 is retried; 413 only in smaller requests.
        event_store: Where payloads wait; an `InMemoryEventStore` by default. Or the URL of a store, such as
            `sqlite:///events.db`, `redis://localhost` or `memory:`, with its options as a query: each emitter makes a
            store of its own from it, and closes it in the end. One that was given is not closed, as others may use it.
        session: A `requests.Session` that sends all requests, in place of the emitter's own kept-alive connections.
        protocol: `https` (the default) or `http`, for an endpoint that names none.
        port: 1 to 65535; by default the endpoint's own, or the protocol's.
        max_request_bytes: The largest POST body; more payloads make several requests. 900,000 by default, because a
            collector may destroy what is larger than 1,048,576 bytes. A single payload that is larger is sent all the
            same.
        flush_interval: Flush every so many seconds, from the first payload on; never by default.
        flush_on_exit: Whether to send what waits when the interpreter exits, which takes 5 s at the most; True by
            default. What a durable store holds gets one attempt then, and stays there otherwise.
        thread_count: How many requests an `AsyncEmitter` has under way at a time; 1 by default.
    """

    batch_size: "Setting[Optional[int]]" = Setting(optional(positive_int))
    on_success: "Setting[Optional[SuccessCallback]]" = Setting(optional(callback))
    on_failure: "Setting[Optional[FailureCallback]]" = Setting(optional(callback))
    byte_limit: "Setting[Optional[int]]" = Setting(optional(positive_int))
    request_timeout: "Setting[Optional[RequestTimeout]]" = Setting(optional(check_request_timeout))
    max_retry_delay_seconds: "Setting[Optional[float]]" = Setting(optional(positive_number))
    buffer_capacity: "Setting[Optional[int]]" = Setting(optional(positive_int))
    custom_retry_codes: "Setting[Dict[int, bool]]" = Setting(retry_codes)
    event_store: "Setting[Union[EventStore, str, None]]" = Setting(optional(event_store_or_url))
    session: "Setting[Optional[requests.Session]]" = Setting(optional(check_session))
    protocol: "Setting[Optional[Any]]" = Setting(optional(choice("http", "https")))
    port: "Setting[Optional[int]]" = Setting(optional(port_number))
    max_request_bytes: "Setting[Optional[int]]" = Setting(optional(positive_int))
    flush_interval: "Setting[Optional[float]]" = Setting(optional(positive_number))
    flush_on_exit: "Setting[Optional[bool]]" = Setting(optional(flag))
    thread_count: "Setting[Optional[int]]" = Setting(optional(positive_int))

    def __init__(
        self,
        batch_size: Optional[int] = None,
        on_success: Optional[SuccessCallback] = None,
        on_failure: Optional[FailureCallback] = None,
        byte_limit: Optional[int] = None,
        request_timeout: Optional[RequestTimeout] = None,
        buffer_capacity: Optional[int] = None,
        custom_retry_codes: Optional[Dict[int, bool]] = None,
        event_store: Union[EventStore, str, None] = None,
        session: Optional[requests.Session] = None,
        *,
        max_retry_delay_seconds: Optional[float] = None,
        protocol: Optional[HttpProtocol] = None,
        port: Optional[int] = None,
        max_request_bytes: Optional[int] = None,
        flush_interval: Optional[float] = None,
        flush_on_exit: Optional[bool] = None,
        thread_count: Optional[int] = None,
    ) -> None:
        """Takes a value for each attribute of the class.

        Raises:
            TypeError: An option has a wrong type.
            ValueError: An option has a wrong value.
        """
        self.batch_size = batch_size
        self.on_success = on_success
        self.on_failure = on_failure
        self.byte_limit = byte_limit
        self.request_timeout = request_timeout
        self.buffer_capacity = buffer_capacity
        self.custom_retry_codes = {} if custom_retry_codes is None else custom_retry_codes
        self.event_store = event_store
        self.session = session
        self.max_retry_delay_seconds = max_retry_delay_seconds
        self.protocol = protocol
        self.port = port
        self.max_request_bytes = max_request_bytes
        self.flush_interval = flush_interval
        self.flush_on_exit = flush_on_exit
        self.thread_count = thread_count

    def set_retry_code(self, status_code: int, retry: bool = True) -> bool:
        """Add or replace one rule of `custom_retry_codes`.

        Args:
            status_code: 100 to 599, but no 2xx.
            retry: Whether payloads are sent again after this status.

        Returns:
            True, as code that was written for 1.1.0 may look at it.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: The status code cannot have a rule.
        """
        status_code, retry = retry_code("status_code", status_code, retry)
        self.custom_retry_codes[status_code] = retry
        return True

    def emitter_options(self) -> Dict[str, Any]:
        """Return the options that were set, as keyword arguments of an emitter's constructor."""
        options = {name: getattr(self, name) for name in _OPTIONS}
        return {name: value for name, value in options.items() if value is not None}


_OPTIONS = [name for name, attribute in vars(EmitterConfiguration).items() if isinstance(attribute, Setting)]
