"""When payloads are sent, and what the outcome means for each of them."""

import functools
import logging
import queue
import threading
import time
import warnings
from typing import Any, Callable, Dict, List, Optional, Union

import requests
from typing_extensions import Self

from ._delivery import Outcome, deliver
from ._endpoint import METHODS, PROTOCOLS, collector_uri, uris_by_method
from ._flush_timer import FlushTimer
from ._ledger import Claim, HandOutError, Ledger, knows_limit
from ._lifecycle import lifecycle
from ._reporting import Drops, Occurrences, call_back
from ._retry import MIN_RETRY_DELAY_SECONDS, NO_RESPONSE, is_good_status_code, next_delay, should_retry
from ._settings import (
    Setting,
    callback,
    choice,
    event_store as check_event_store,
    flag,
    optional,
    positive_int,
    positive_number,
    request_timeout as check_request_timeout,
    retry_codes,
    session as check_session,
    wait_seconds,
)
from ._store_url import event_store_from_url
from ._transport import (
    DEFAULT_TIMEOUT_SECONDS,
    Requester,
    SessionPool,
    Status,
    forget_connections,
    requester_for,
    status_of,
    within,
)
from ._wire import PAYLOAD_DATA_SCHEMA, fitting_count, request_overhead_bytes, wire_bytes, wire_payload
from ._worker_pool import WorkerPool
from .event_store import InMemoryEventStore
from .typing import (
    EmitterProtocol,
    EmitterStats,
    EventStore,
    FailureCallback,
    HttpProtocol,
    Method,
    PayloadDict,
    PayloadDictList,
    RequestTimeout,
    SuccessCallback,
)

__all__ = [
    "AsyncEmitter",
    "DEFAULT_MAX_LENGTH",
    "DEFAULT_MAX_REQUEST_BYTES",
    "Emitter",
    "FlushTimer",
    "METHODS",
    "PAYLOAD_DATA_SCHEMA",
    "PROTOCOLS",
    "Requester",
]

logger = logging.getLogger(__name__)

DEFAULT_MAX_LENGTH = 10
# A collector with a stream sink silently destroys what is larger than 1,048,576 bytes once it has added its own fields.
DEFAULT_MAX_REQUEST_BYTES = 900_000

_FAILURES_REPORTED_EVERY_SECONDS = 60.0
# How often a flush that waits for a worker makes sure that there is one.
# Between two attempts to empty a full buffer that were in vain, though no backoff is on.
_PAUSE_WHEN_FULL_SECONDS = 1.0
_WORKER_CHECK_SECONDS = 0.2
# How many requests at the most, or `batch_size` if that is more, a thread that tracks makes for a backlog by GET.
_GETS_AT_A_TIME = 10


class _ThreadState(threading.local):
    """What a thread is doing with an emitter at the moment.

    Attributes:
        is_sending: It is inside `send_events`, be it in a request or in a callback.
        is_flushing: It is inside a flush that will look at `wants_flush` in the end.
        wants_flush: Something inside `send_events` asked for a flush, which must not nest.
        is_explicit: Its flush was asked for, so that a backoff does not count.
        is_tracking: Its flush keeps the application waiting, which only wanted to track an event.
        waiting: How many payloads waited after the one that it has just put in; None if it did nothing of the kind.
        has_failed: A request of its last flush has to be retried.
        deadline: Monotonic time at which an explicit flush must end.
        backoffs_seen: How many backoffs there had been when the attempt began; None outside of an attempt.
        retry_after_seconds: What the collector asked for in the attempt.
        lost: How many payloads the store failed to take back, of those that the callbacks are about to be told of; None
            if there is no such report ahead.
    """

    is_sending = False
    is_flushing = False
    wants_flush = False
    is_explicit = False
    is_tracking = False
    waiting: Optional[int] = None
    has_failed = False
    deadline: Optional[float] = None
    backoffs_seen: Optional[int] = None
    retry_after_seconds = 0.0
    lost: Optional[int] = None


class _Sends(threading.local):
    """How many sends the current thread is inside of, of whichever emitters: one inside of another must not wait."""

    depth = 0


_sends = _Sends()


class _Kept:
    """Leaves what a thread is doing as it was before the block, whatever ends that.

    Ctrl-C may come in the end of the block as well. So there are always two of these, and one of them is not hit.
    """

    def __init__(self, mine: _ThreadState) -> None:
        self._thread_state = mine
        self._before = (
            mine.is_sending,
            mine.is_flushing,
            mine.is_explicit,
            mine.is_tracking,
            mine.waiting,
            mine.deadline,
            mine.backoffs_seen,
            mine.lost,
            _sends.depth,
        )

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        mine = self._thread_state
        (
            mine.is_sending,
            mine.is_flushing,
            mine.is_explicit,
            mine.is_tracking,
            mine.waiting,
            mine.deadline,
            mine.backoffs_seen,
            mine.lost,
            _sends.depth,
        ) = self._before


class Emitter(EmitterProtocol):
    """Buffers payloads and sends them to a collector, in the thread that completes a batch.

    All methods may be called from several threads, and from callbacks. None of them raises because of the network, the
    collector, a callback or the event store. The options are attributes, described at `EmitterConfiguration`; they may
    be reassigned at any time.

    There is one lock, `lock`, which belongs to the ledger: it guards the event store, what is in flight, the figures
    and the backoff. No request, no callback and no log line happens while it is held.

    Attributes:
        retry_delay: The current backoff in seconds; 0 while the collector answers.
        retry_timer: Flushes at the end of a backoff.
        timer: Flushes at intervals.
    """

    retry_delay: float
    # Whether the backoff began because the store failed, and no request has failed since.
    _awaits_store: bool
    # Whether the last attempt is made, or was, and what fails in it is left in a durable store.
    _leaves_retries: bool
    # The `flush_interval` that the timer follows.
    _timer_interval: Optional[float]
    # How many payloads were taken and put back because time was up; it grows.
    _untried: int
    batch_size: "Setting[int]" = Setting(positive_int, DEFAULT_MAX_LENGTH)
    byte_limit: "Setting[Optional[int]]" = Setting(optional(positive_int))
    custom_retry_codes: "Setting[Dict[int, bool]]" = Setting(retry_codes)
    flush_interval: "Setting[Optional[float]]" = Setting(optional(positive_number))
    flush_on_exit: "Setting[bool]" = Setting(flag, True)
    max_request_bytes: "Setting[int]" = Setting(positive_int, DEFAULT_MAX_REQUEST_BYTES)
    max_retry_delay_seconds: "Setting[float]" = Setting(positive_number, 60)
    method: "Setting[Any]" = Setting(choice(*sorted(METHODS)), "post")
    on_failure: "Setting[Optional[FailureCallback]]" = Setting(optional(callback))
    on_success: "Setting[Optional[SuccessCallback]]" = Setting(optional(callback))
    request_timeout: "Setting[Optional[RequestTimeout]]" = Setting(optional(check_request_timeout))
    session: "Setting[Optional[requests.Session]]" = Setting(optional(check_session))

    def __init__(
        self,
        endpoint: str,
        protocol: HttpProtocol = "https",
        port: Optional[int] = None,
        method: Method = "post",
        batch_size: Optional[int] = None,
        on_success: Optional[SuccessCallback] = None,
        on_failure: Optional[FailureCallback] = None,
        byte_limit: Optional[int] = None,
        request_timeout: Optional[RequestTimeout] = None,
        max_retry_delay_seconds: float = 60,
        buffer_capacity: Optional[int] = None,
        custom_retry_codes: Optional[Dict[int, bool]] = None,
        event_store: Union[EventStore, str, None] = None,
        session: Optional[requests.Session] = None,
        *,
        buffer_size: Optional[int] = None,
        max_request_bytes: int = DEFAULT_MAX_REQUEST_BYTES,
        flush_interval: Optional[float] = None,
        flush_on_exit: bool = True,
    ) -> None:
        """Neither start a thread nor open a connection: emitters are built while applications are imported.

        The options are described at `EmitterConfiguration`, all but these: `endpoint` is the collector's host name,
        address or URL. A scheme and a port in it count before `protocol`; a path is kept before the collector's own.
        `method` is `post`, which sends batches, or `get`, which sends each event in a request of its own. `buffer_size`
        is a deprecated name of `batch_size`.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument has a wrong value.
        """
        uri = self.as_collector_uri(endpoint, protocol, port, method)
        self.method = method
        self.endpoint = uri
        batch_size = _batch_size(batch_size, buffer_size)
        self.batch_size = (DEFAULT_MAX_LENGTH if method == "post" else 1) if batch_size is None else batch_size
        self.on_success = on_success
        self.on_failure = on_failure
        self.byte_limit = byte_limit
        self.request_timeout = request_timeout
        self.max_retry_delay_seconds = max_retry_delay_seconds
        # Only a store that nobody else knows takes the emitter's capacity over, and is closed with the emitter.
        self._own_store: Any = None
        if event_store is None or isinstance(event_store, str):
            self._own_store = InMemoryEventStore(logger) if event_store is None else event_store_from_url(event_store)
            self._own_capacity = self._own_store.buffer_capacity
        self.buffer_capacity = buffer_capacity
        self.custom_retry_codes = {} if custom_retry_codes is None else custom_retry_codes
        self.session = session
        self.max_request_bytes = max_request_bytes
        self.flush_interval = flush_interval
        self.flush_on_exit = flush_on_exit

        self._ledger = Ledger(
            check_event_store("event_store", event_store) if self._own_store is None else self._own_store
        )
        self._measured_method: Any = None
        self._done_when_full, self._empties_again_at = -1, 0.0
        self._session_pool = SessionPool()
        self._worker_pool = WorkerPool(self, "snowplow-emitter")
        self.timer = FlushTimer(self, repeating=True)
        self.retry_timer = FlushTimer(self, repeating=False)
        self._begin_anew()
        lifecycle.register(self)
        lifecycle.hold(self, self._ledger)
        self._is_complete = True

    @staticmethod
    def as_collector_uri(
        endpoint: str, protocol: HttpProtocol = "https", port: Optional[int] = None, method: Method = "post"
    ) -> str:
        """Build the URL that requests go to.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument has a wrong value, or the endpoint and the port disagree.
        """
        return collector_uri(endpoint, protocol, port, method)

    @property
    def endpoint(self) -> str:
        """The URL that requests go to by the present `method`. One that is assigned is used as it is."""
        return self._collector_uris[self.method]

    @endpoint.setter
    def endpoint(self, uri: str) -> None:
        self._collector_uris = uris_by_method(uri, self.method)

    def _uri_of(self, method: Method) -> str:
        # An application's class may have a property of its own, to take another collector in turn.
        return self._collector_uris[method] if type(self).endpoint is _ENDPOINT else self.endpoint

    @property
    def request_method(self) -> Any:
        """The session that makes the requests, or else the module `requests`. An older name of `session`."""
        return requests if self.session is None else self.session

    @request_method.setter
    def request_method(self, session: Any) -> None:
        self.session = None if session is requests else session

    @property
    def buffer_capacity(self) -> Optional[int]:
        """How many payloads may wait or be in flight; None for what the event store says."""
        return self._given_capacity

    @buffer_capacity.setter
    def buffer_capacity(self, capacity: Optional[int]) -> None:
        self._given_capacity = optional(positive_int)("buffer_capacity", capacity)
        if self._own_store is not None:
            self._own_store.buffer_capacity = capacity or self._own_capacity

    @property
    def event_store(self) -> EventStore:
        """Where payloads wait."""
        return self._ledger.store

    @event_store.setter
    def event_store(self, store: EventStore) -> None:
        self._ledger.store = check_event_store("event_store", store)

    @property
    def lock(self) -> Any:
        """The reentrant lock under which the event store is called."""
        return self._ledger.lock

    @lock.setter
    def lock(self, lock: Any) -> None:
        self._ledger.use_lock(lock)

    @property
    def bytes_queued(self) -> Optional[int]:
        """The length of the waiting payloads, each printed as a dict; None without a `byte_limit`."""
        return None if self.byte_limit is None else self._ledger.bytes_queued

    @bytes_queued.setter
    def bytes_queued(self, count: Optional[int]) -> None:
        self._ledger.bytes_queued = count or 0

    def input(self, payload: PayloadDict) -> None:
        """Accept a payload, and flush if a limit is reached.

        What is accepted is a copy. A payload that does not fit into the buffer is dropped: counted, logged, no error.

        Args:
            payload: Name-value pairs. `None` is left out; bools, dicts and lists become text, and for POST all values.

        Raises:
            TypeError: The payload is no dict, or a value in it cannot be encoded.
        """
        accepted = wire_payload(payload, self.method)
        if self.byte_limit is not None and self._measured_method != self.method:
            self._measure_from_now_on()

        refusal, waiting = self._ledger.add(accepted, self.buffer_capacity)
        if refusal is not None:
            self._drop_reports.report(accepted, *refusal, self.on_failure)
            if self._ledger.closed:
                return
        interval = self.flush_interval
        if interval != self._timer_interval or (interval is not None and not self.timer.is_active()):
            self._follow_interval(interval)
        self._flush_if_due(waiting, is_full=refusal is not None)
        seconds_to_exit = lifecycle.seconds_to_exit()
        if seconds_to_exit is None or self._is_inside_flush():
            return
        # Another exit handler tracks an event after ours has run.
        if not self.flush_on_exit:
            if refusal is None and not self._ledger.is_durable and self._count_left():
                logger.error("Lost 1 payloads: the interpreter exits, and flush_on_exit is off")
        elif not self._flush_at_exit(seconds_to_exit):
            self._give_up("an event was tracked too late in the exit of the interpreter")

    def _follow_interval(self, interval: Optional[float]) -> None:
        """Start the timer if it does not run yet, or if the option was changed."""
        self._timer_interval = interval
        if interval is not None:
            self.timer.start(interval)
        if interval is None or self._ledger.closed or self.flush_interval is None:
            # Another thread may have closed the emitter, or cancelled the timer, before the lines above.
            self.timer.cancel()

    def _flush_if_due(self, waiting: int, is_full: bool) -> None:
        """Flush if a limit is reached, or if earlier emitters have left payloads in a durable store.

        Args:
            waiting: How many waited when the event had been put in. Another thread may have taken them by now.
            is_full: The event found no room. Mostly somebody is about to make some; but what fills the store may come
                from other emitters, and a capacity may have been lowered, or the thread have died that was to send.
        """
        ledger = self._ledger
        if is_full:
            is_due = waiting > 0 and not ledger.in_flight() and not self._is_backing_off() and self._may_empty()
        else:
            is_due = self._has_reached_limit(waiting) if self._has_own_limit() else self._is_limit(waiting)
        if is_due or ledger.has_found:
            ledger.has_found = False
            self._flush_for_event()

    def _may_empty(self) -> bool:
        """Tell whether to send what fills the buffer: not at once again if that was in vain, as an own retry has it."""
        now, done = time.monotonic(), self._ledger.done()
        if done == self._done_when_full and now < self._empties_again_at:
            return False
        self._done_when_full, self._empties_again_at = done, now + _PAUSE_WHEN_FULL_SECONDS
        return True

    def _has_own_limit(self) -> bool:
        """Tell whether an application has replaced `reached_limit`, in a class or in this object."""
        return "reached_limit" in self.__dict__ or type(self).reached_limit is not _REACHED_LIMIT

    def _has_reached_limit(self, waiting: int) -> bool:
        """Ask the application's own `reached_limit`, which may ask ours."""
        mine = self._thread_state
        with _Kept(mine), _Kept(mine):
            mine.waiting = waiting
            return self.reached_limit()

    def _is_limit(self, waiting: int) -> bool:
        if waiting >= self.batch_size or waiting >= self._ledger.capacity(self.buffer_capacity):
            return True
        byte_limit = self.byte_limit
        if byte_limit is None:
            return False
        return request_overhead_bytes(self.method) + self._ledger.wire_bytes >= byte_limit

    def _flush_for_event(self) -> None:
        """Flush, while the application waits, which only wanted to track an event."""
        mine = self._thread_state
        with _Kept(mine), _Kept(mine):
            mine.is_tracking = True
            self.flush()

    def reached_limit(self) -> bool:
        """Tell whether what waits has reached `batch_size` or `byte_limit`, or fills the buffer."""
        waiting = self._thread_state.waiting
        return self._is_limit(self._ledger.waiting() if waiting is None else waiting)

    def flush(self) -> None:
        """Send all that waits, in this thread, unless a backoff is on.

        Called by `input`, it sends no more of what waits in a durable store than the store hands out at once. From
        inside a callback or an `http_post` of one's own the flush happens after the one that is under way.
        """
        if self._is_inside_flush():
            self._thread_state.wants_flush = True
        else:
            self._put_back_stranded()
            self._flush_here(hold_back=not self._thread_state.is_explicit)

    def async_flush(self) -> None:
        """Have another thread flush. Never blocks; a backoff is respected."""
        if not self._ledger.closed:
            self._hand_over_flush()

    def sync_flush(self, timeout: Optional[float] = None) -> None:
        """Try to send all that waits, backoff or not, and return when all of it has been tried.

        When a request fails, what has not been sent yet waits for the retry. From inside a callback or an `http_post`
        of one's own this is an asynchronous flush, with a warning.

        Args:
            timeout: Seconds to go on for, at the backoff's pace, until all is out; 0 or more. By default there is one
                attempt, which takes as long as its requests.

        Raises:
            TypeError: The timeout is no number.
            ValueError: The timeout is negative.
        """
        seconds = optional(wait_seconds)("timeout", timeout)
        if self._must_not_wait():
            logger.warning("A flush from inside a flush cannot wait for itself, so it happens asynchronously")
            self.async_flush()
            return
        self._flush_within(seconds)

    def send_events(self, evts: PayloadDictList) -> None:
        """Send payloads, settle each of them by the outcome, and call the callbacks.

        Args:
            evts: Payloads in the order to send them. They get a sent timestamp; those that never were in the event
                store are put there if they have to be retried.
        """
        if not evts:
            logger.debug("There is nothing to send")
            return
        batch = list(evts)
        is_outermost = not self._is_inside_flush()
        claims: List[Claim] = []
        try:
            with _Kept(self._thread_state), _Kept(self._thread_state):
                self._begin_sending()
                claims = self._ledger.admit(batch)
                outcome = self._deliver_batch(batch)
                self._settle_outcome(outcome, claims)
                self._report_outcome(outcome)
        except BaseException:
            self._put_back_stranded(None if is_outermost else claims)
            raise
        finally:
            self._close_if_ended()
        if self._thread_state.wants_flush and not self._is_inside_flush():
            # The application called this method itself; a callback completed the next batch.
            self.flush()

    def http_post(self, data: str) -> int:
        """Send one POST request. May be overridden.

        Args:
            data: The body, JSON in ASCII.

        Returns:
            The status code, -1 if there was no response. An override may also return a response, or raise.
        """
        requester = requester_for(self.session, requests, self._session_pool)
        try:
            response = requester.post(
                self._uri_of("post"),
                data=data,
                headers={"Content-Type": "application/json; charset=utf-8"},
                timeout=self._timeout_of_request(),
            )
        except requests.RequestException as error:
            return Status.no_response(error)
        return status_of(response)

    def http_get(self, payload: PayloadDict) -> int:
        """Send one GET request. May be overridden, like `http_post`.

        Args:
            payload: The parameters of the query.
        """
        requester = requester_for(self.session, requests, self._session_pool)
        try:
            response = requester.get(self._uri_of("get"), params=payload, timeout=self._timeout_of_request())
        except requests.RequestException as error:
            return Status.no_response(error)
        return status_of(response)

    @staticmethod
    def attach_sent_timestamp(events: PayloadDictList) -> None:
        """Put the current time in milliseconds into payloads as `stm`, but no time before their `dtm`.

        Args:
            events: Payloads that are sent at once; changed in place.
        """
        now = int(time.time() * 1000)
        for payload in events:
            # A clock that was set back must not make an event leave before it happened.
            payload["stm"] = str(max(now, _milliseconds(payload.get("dtm"))))

    @staticmethod
    def is_good_status_code(status_code: int) -> bool:
        """Tell whether the collector took the payloads: 200 to 299."""
        return is_good_status_code(status_code)

    def set_flush_timer(self, timeout: float) -> None:
        """Flush at intervals from now on; an interval set before is replaced.

        Args:
            timeout: Seconds, positive. While a backoff is on, nothing is sent.

        Raises:
            TypeError: The timeout is no number.
            ValueError: The timeout is not positive.
        """
        self.flush_interval = self._timer_interval = positive_number("timeout", timeout)
        if not self._ledger.closed:
            self.timer.start(timeout)

    def cancel_flush_timer(self) -> None:
        """Flush no more at intervals."""
        self.flush_interval = self._timer_interval = None
        self.timer.cancel()

    def cancel_flush(self) -> None:
        """Do what `cancel_flush_timer` does."""
        self.cancel_flush_timer()

    def stats(self) -> EmitterStats:
        """Return figures about delivery, all of the same moment."""
        with self._ledger.lock:
            return self._ledger.stats(self.retry_timer.remaining_seconds() if self.retry_timer.is_active() else None)

    def close(self, timeout: Optional[float] = 5.0) -> bool:
        """Accept no more payloads, send what waits, and end timers, threads and connections.

        May be called again, to try once more. From inside a callback it does not wait for the sending. What waits in a
        durable store is safe there: it gets one attempt, and none during a backoff.

        Args:
            timeout: Seconds to send in, at the backoff's pace; 0 or more. None stands for one attempt, however long its
                requests take.

        Returns:
            Whether all payloads are out, those that others have put into a shared store included. What was dropped or
            rejected is in none of them: `stats` has its figures.

        Raises:
            TypeError: The timeout is no number.
            ValueError: The timeout is negative.
        """
        seconds = optional(wait_seconds)("timeout", timeout)
        self._ledger.close()
        self._is_ended = False
        self.timer.cancel()
        if self._must_not_wait():
            self._hand_over_flush()
        elif not self._is_all_out():
            self._flush_within(seconds, is_last=True)
        self._end_for_good()
        self._drop_reports.report_rest()
        left = self._count_left()
        if left and self._ledger.is_durable:
            self._tell_what_is_left("the emitter is closed")
        elif left:
            logger.error("Closed with %d payloads that are not delivered", left)
        self._ledger.close_store(self._own_store)
        return not left and self._is_all_out()

    def _end_for_good(self) -> None:
        """Begin nothing any more by oneself."""
        with self._ledger.lock:
            self._is_ended = True
            self.timer.cancel()
            self.retry_timer.cancel()
        self._worker_pool.stop()
        self._session_pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        # An attribute that only a complete constructor sets; applications' tests patch constructors away.
        if not self.__dict__.get("_is_complete"):
            return
        lifecycle.release(self)
        self._session_pool.close()
        if self._ledger.closed:
            return
        has_payloads = self._ledger.has_unsettled() or self._worker_pool.has_batches()
        if has_payloads or self._worker_pool.has_threads() or self.timer.has_thread():
            # The garbage collector has cut the weak references to all that is in a reference cycle.
            self._worker_pool.belong_to(self)
            lifecycle.adopt(self)

    def _should_retry(self, status_code: int) -> bool:
        """Tell whether payloads of a request with this status are sent again. May be overridden."""
        return should_retry(status_code, self.custom_retry_codes)

    def _retry_failed_events(self, failed_events: PayloadDictList) -> None:
        """Put payloads back for a retry, and begin a backoff or make it longer. May be overridden.

        Args:
            failed_events: In their order. Those that an override keeps for itself count as rejected.
        """
        with self._ledger.lock:
            self._begin_backoff()
            error = self._ledger.put_back(failed_events)
        self._report_lost_batch(failed_events, error)

    def _call_retry(self, failed_events: PayloadDictList) -> None:
        try:
            self._retry_failed_events(list(failed_events))
        except Exception:
            logger.exception("%s failed to put back what is to be retried", type(self).__name__)
            Emitter._retry_failed_events(self, list(failed_events))

    def _begin_backoff(self) -> None:
        """Plan the next retry; called with the lock held."""
        mine, maximum = self._thread_state, self.max_retry_delay_seconds
        # Of several requests that ran when the collector failed, only the first makes the delay longer.
        if mine.backoffs_seen in (None, self._backoffs) or not self.retry_timer.is_active():
            self._backoffs += 1
            self.retry_delay = next_delay(self.retry_delay, maximum, mine.retry_after_seconds)
            self._start_retry_timer(self.retry_delay)
        elif min(mine.retry_after_seconds, maximum) > self.retry_timer.remaining_seconds():
            self.retry_delay = min(mine.retry_after_seconds, maximum)
            self._start_retry_timer(self.retry_delay)

    def _start_retry_timer(self, seconds: float) -> None:
        if not (self._is_ended or self._leaves_retries):
            self.retry_timer.start(seconds)

    def _is_backing_off(self) -> bool:
        """Tell whether automatic flushes must send nothing.

        That is so until the retry timer fires, and then while its flush is on the way: one request finds out whether
        the collector is back.
        """
        # A failed request starts the timer and puts its payloads back in one step, which must be seen as one.
        with self._ledger.lock:
            return self.retry_timer.is_active() or (self.retry_delay > 0 and self._ledger.in_flight() > 0)

    def _send_all_waiting(self, hold_back: bool) -> None:
        """Send what waits now, hand-out by hand-out, until a request fails or the deadline is reached.

        Args:
            hold_back: Whether a backoff counts.
        """
        mine, figures = self._thread_state, self._ledger.figures
        mine.has_failed = False
        retries = figures.retries
        # A durable store is asked in any case: what processes that died had in flight does not wait yet.
        left = max(self._ledger.waiting(if_unknown=1), int(self._ledger.is_durable))
        while left > 0 and not mine.has_failed and not self._is_time_up():
            if hold_back and self._is_backing_off():
                return
            claims = self._take_waiting(unless_in_flight=hold_back and self.retry_delay > 0)
            if not claims:
                return
            # What another thread has put back meanwhile comes before what waited, and is counted in addition. There may
            # be more than were counted, because events came meanwhile.
            retries, retries_before = figures.retries, retries
            left = max(0, left + retries - retries_before - len(claims))
            self._send_claims(claims)
            if hold_back and self._leaves_rest():
                return

    def _leaves_rest(self) -> bool:
        """Tell whether what waits in a durable store may stay there, after one hand-out at the most.

        The next event goes on with it, or a timer, or another emitter.
        """
        return self._ledger.is_durable and (self._thread_state.is_tracking or self._is_ended)

    def _take_waiting(self, unless_in_flight: bool) -> List[Claim]:
        """Take what waits, or this thread's share of it. A store that fails is asked again after a backoff."""
        try:
            return self._take_share(unless_in_flight)
        except HandOutError as failure:
            self._report_hand_out_failure(failure)
        self._put_back_stranded()
        with self._ledger.lock:
            self._thread_state.retry_after_seconds = 0.0
            self._awaits_store = self._awaits_store or not self.retry_delay
            self._begin_backoff()
        return []

    def _take_share(self, unless_in_flight: bool) -> List[Claim]:
        limit = None
        if self.method == "get" and self._leaves_rest() and knows_limit(self._ledger.store):
            limit = max(self.batch_size, _GETS_AT_A_TIME)
        return self._ledger.take(limit, unless_in_flight)

    def _send_claims(self, claims: List[Claim]) -> None:
        """Send payloads of the store, and make sure that none of them stays in flight."""
        try:
            with _Kept(self._thread_state), _Kept(self._thread_state):
                self._begin_sending()
                try:
                    self.send_events([claim.payload for claim in claims])
                except Exception:
                    # Only code of the application gets here: an override, or a replaced static method.
                    logger.exception("Sending %d payloads failed", len(claims))
                    self._thread_state.has_failed = True
                    self._call_retry(self._ledger.unsettled(claims))
        except BaseException:
            self._put_back_stranded(claims)
            raise
        finally:
            self._close_if_ended()
        # An override of `send_events` has taken care of what it did not pass on.
        self._ledger.settle(self._ledger.unsettled(claims), [])

    def _is_inside_flush(self) -> bool:
        return self._thread_state.is_sending or self._thread_state.is_flushing

    def _must_not_wait(self) -> bool:
        # Nor for another emitter: its callback may be waiting for this one.
        return _sends.depth > 0 or self._thread_state.is_flushing

    def _begin_sending(self) -> None:
        """Note that this thread sends; what it did before is kept by `_Kept`."""
        mine = self._thread_state
        mine.is_sending, mine.backoffs_seen, mine.retry_after_seconds, mine.lost = True, self._backoffs, 0.0, None
        _sends.depth += 1

    def _close_if_ended(self) -> None:
        # The connection of a send was in use when the others were closed.
        if self._is_ended:
            self._session_pool.close()

    def _as_flush(self, work: Callable[[], None]) -> None:
        """Do something as a flush of this thread: afterwards, whatever ends it, nothing of it is in flight."""
        is_outermost = not self._is_inside_flush()
        try:
            with _Kept(self._thread_state), _Kept(self._thread_state):
                self._thread_state.is_flushing = True
                work()
        except BaseException:
            if is_outermost:
                self._put_back_stranded()
            raise

    def _put_back_stranded(self, claims: Optional[List[Claim]] = None) -> None:
        """Put back what an interrupted flush left in flight: of some claims, or all that this thread has taken."""
        self._put_back_batch(self._ledger.stranded(claims))

    def _deliver_batch(self, batch: PayloadDictList) -> Outcome:
        """Make the requests. Whatever interrupts them, the payloads without an answer go back to the store."""
        outcome = Outcome()
        try:
            deliver(batch, self, outcome)
        except BaseException:
            settled = set(map(id, outcome.delivered + outcome.rejected))
            self._settle_done(outcome)
            self._put_back_batch([payload for payload in batch if id(payload) not in settled])
            # A retry may have been due meanwhile, and have left it to this send.
            self._catch_up(self._has_recovered(outcome))
            raise
        return outcome

    def _count_request(self, status: Status) -> None:
        self._ledger.count_request(status, status.error)

    def _settle_done(self, outcome: Outcome) -> None:
        self._ledger.settle(outcome.delivered, outcome.rejected)
        if outcome.rejected:
            logger.error("Lost %d payloads: %s", len(outcome.rejected), outcome.rejection)

    def _settle_outcome(self, outcome: Outcome, claims: List[Claim]) -> None:
        # The callbacks are told of all that is not delivered, whatever becomes of it here.
        self._thread_state.lost = 0
        self._settle_done(outcome)
        has_recovered = self._has_recovered(outcome)
        if outcome.failure is not None:
            mine = self._thread_state
            mine.has_failed = True
            self._awaits_store = False
            mine.retry_after_seconds = outcome.failure.retry_after_seconds
            self._call_retry(outcome.to_retry)
            # An override may have put them into the store itself, or else keep them.
            kept = self._ledger.release(self._ledger.unsettled(claims))
            self._ledger.settle([], kept)
            self._report_failed_request(outcome.failure, len(outcome.to_retry) - len(kept) - (mine.lost or 0))
            if kept:
                logger.error("Lost %d payloads: %s did not put them back", len(kept), type(self).__name__)
        else:
            # Time was up before these were tried.
            with self._ledger.lock:
                self._untried += len(outcome.to_retry)
            self._put_back_batch(outcome.to_retry, is_retry=False)
            self._catch_up(has_recovered)

    def _has_recovered(self, outcome: Outcome) -> bool:
        return bool(outcome.delivered) and self._end_backoff()

    def _end_backoff(self) -> bool:
        """Note that the collector has taken something; True if that ends a backoff."""
        with self._ledger.lock:
            if not self.retry_delay:
                return False
            self.retry_delay = 0.0
            self.retry_timer.cancel()
            awaited_store, self._awaits_store = self._awaits_store, False
        self._failure_reports.take_unreported()
        if awaited_store:
            logger.info("The event store hands out payloads again")
        else:
            logger.info("The collector takes payloads again: %s", self.endpoint)
        return True

    def _catch_up(self, has_recovered: bool) -> None:
        """Have what waits for a retry sent without waiting for the next limit."""
        with self._ledger.lock:
            if not self._ledger.waiting() or self.retry_timer.is_active():
                return
            if has_recovered:
                self._start_retry_timer(MIN_RETRY_DELAY_SECONDS)
            elif self.retry_delay:
                self._start_retry_timer(self.retry_delay)

    def _put_back_batch(self, batch: PayloadDictList, is_retry: bool = True) -> None:
        self._report_lost_batch(batch, self._ledger.put_back(batch, is_retry))

    def _report_lost_batch(self, payloads: PayloadDictList, error: Optional[Exception]) -> None:
        """Report payloads that the event store failed to take back, if it did."""
        if error is None:
            return
        count, reason = len(payloads), "the event store failed to take them back"
        if self._ledger.is_durable:
            logger.warning("%d payloads will be retried when their lease ends: %s", count, reason, exc_info=error)
            return
        logger.error("Lost %d payloads: %s", count, reason, exc_info=error)
        on_failure = self.on_failure
        if self._thread_state.lost is not None:
            self._thread_state.lost += count
        elif on_failure is not None:
            call_back(on_failure, 0, payloads)

    def _report_failed_request(self, status: Status, count: int) -> None:
        failures = self._failure_reports.add(int(status))
        if failures:
            logger.warning(
                "%s%s: %d payloads will be retried in %.2f s (%s)",
                "No response" if status == NO_RESPONSE else f"Status {status:d}",
                f", {failures} times" if failures > 1 else "",
                count,
                self.retry_delay,
                status.error or self.endpoint,
            )

    def _report_hand_out_failure(self, failure: HandOutError) -> None:
        failures = self._failure_reports.add(HandOutError)
        if failures:
            times = f", {failures} times" if failures > 1 else ""
            logger.error("The event store failed to hand out payloads%s", times, exc_info=failure.__cause__)

    def _report_outcome(self, outcome: Outcome) -> None:
        # A callback may change the list that it gets.
        delivered_count, not_delivered = len(outcome.delivered), outcome.rejected + outcome.to_retry
        # Each option is read once, as another thread may take it away.
        on_success = self.on_success
        if outcome.delivered and on_success is not None:
            call_back(on_success, outcome.delivered)
        on_failure = self.on_failure
        if not_delivered and on_failure is not None:
            call_back(on_failure, delivered_count, not_delivered)

    def _flush_here(self, hold_back: bool) -> None:
        """Flush in this thread, and once more if a callback asked for it."""
        mine = self._thread_state
        self._as_flush(functools.partial(self._send_all_and_more, hold_back))
        if mine.wants_flush:
            # A callback that tracks an event for each success would keep this thread for ever.
            mine.wants_flush = False
            self.async_flush()

    def _send_all_and_more(self, hold_back: bool) -> None:
        mine = self._thread_state
        mine.wants_flush = False
        self._send_all_waiting(hold_back)
        if mine.wants_flush:
            mine.wants_flush = False
            self._send_all_waiting(hold_back=True)

    def _flush_within(self, seconds: Optional[float], is_last: bool = False) -> bool:
        """Make one attempt, and with a time limit go on until it is reached or all is out; True if all was out then.

        Args:
            seconds: The time limit.
            is_last: Whether the emitter ends after it. Then one attempt is enough if the store is durable, and none is
                made while the collector fails.
        """
        mine, ledger = self._thread_state, self._ledger
        if self._is_ended and self._is_all_out():
            return True
        self._put_back_stranded()
        leaves_rest = self._leaves_retries = is_last and ledger.is_durable
        try:
            with _Kept(mine), _Kept(mine):
                mine.deadline = None if seconds is None else time.monotonic() + seconds
                hold_back = leaves_rest
                while True:
                    before, last_hand_out = ledger.done(), ledger.last_hand_out()
                    if leaves_rest and self.retry_delay > 0:
                        self._wait_for_hand_outs(last_hand_out)
                    else:
                        self._flush_once(hold_back)
                    if seconds is None or leaves_rest or self._is_rest_with_others(last_hand_out):
                        return self._is_all_out()
                    self._wait_until_due(was_in_vain=ledger.done() == before)
                    is_all_out = self._is_all_out()
                    if is_all_out or self._is_time_up():
                        return is_all_out
                    hold_back = True
        finally:
            if self._is_ended:
                self._end_for_good()

    def _is_rest_with_others(self, last_hand_out: int) -> bool:
        """Tell whether a durable store has handed out nothing since then, for no reason that will be over soon."""
        ledger = self._ledger
        return ledger.is_durable and ledger.last_hand_out() == last_hand_out and not self._is_backing_off()

    def _flush_once(self, hold_back: bool) -> None:
        """Make one attempt at all that waits, and return when it is made."""
        while True:
            untried = self._untried
            if self._has_own_flush() and not self._thread_state.is_explicit:
                self._call_own_flush(hold_back)
            else:
                self._flush_here(hold_back)
            # Another thread may have taken what waited, and its time may have been up before it came to all of that.
            self._wait_for_hand_outs(self._ledger.last_hand_out())
            if self._untried == untried or self._is_time_up():
                return

    def _has_own_flush(self) -> bool:
        """Tell whether an application has replaced `flush`, in a subclass or in this object."""
        return "flush" in self.__dict__ or type(self).flush not in _FLUSHES

    def _call_own_flush(self, hold_back: bool) -> None:
        with _Kept(self._thread_state), _Kept(self._thread_state):
            self._thread_state.is_explicit = not hold_back
            try:
                self.flush()
            except Exception:
                logger.exception("A flush of the application's failed")

    def _wait_for_hand_outs(self, last: int) -> None:
        # Not `with changed`, which is not one step, so that Ctrl-C in it would leave the lock taken for ever.
        with self._ledger.lock:
            while True:
                if self._ledger.is_settled(last) or self._is_time_up():
                    return
                self._wait_for_change(self._seconds_to_wait())

    def _wait_for_change(self, seconds: float) -> None:
        """Wait until something is settled or comes back; called with the lock held."""
        began_at = time.monotonic()
        if not self._ledger.changed.wait(seconds):
            self._count_waited(seconds, began_at)

    def _count_waited(self, seconds: float, began_at: float) -> None:
        """Bring the deadline nearer by a wait that the clock knows nothing of, as one that is frozen in a test."""
        mine, unnoticed = self._thread_state, seconds - (time.monotonic() - began_at)
        if mine.deadline is not None and unnoticed > 0:
            mine.deadline -= unnoticed

    def _seconds_to_wait(self) -> float:
        deadline = self._thread_state.deadline
        left = _WORKER_CHECK_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
        return min(_WORKER_CHECK_SECONDS, left)

    def _wait_until_due(self, was_in_vain: bool) -> None:
        """Wait for the end of the backoff, or for others to finish, or for the deadline.

        Args:
            was_in_vain: Whether the last flush settled nothing; then another one at once would do no better.
        """
        with self._ledger.lock:
            while True:
                if self._is_time_up() or self._is_all_out():
                    return
                if self._ledger.waiting() and not self._is_backing_off() and not was_in_vain:
                    return
                left = max(0.0, (self._thread_state.deadline or 0.0) - time.monotonic())
                # A timer that is due takes a moment to become inactive.
                pause = max(0.01, self.retry_timer.remaining_seconds()) if self.retry_timer.is_active() else 1.0
                self._wait_for_change(min(left, pause, 1.0))
                was_in_vain = False

    def _is_time_up(self) -> bool:
        deadline = self._thread_state.deadline
        return deadline is not None and time.monotonic() >= deadline

    def _is_all_out(self) -> bool:
        return not self._count_left()

    def _count_left(self) -> int:
        # In one step, lest a payload that comes back meanwhile is overlooked.
        with self._ledger.lock:
            # A durable store that cannot tell may be full of what was accepted.
            unknown = int(self._ledger.is_durable)
            return self._ledger.waiting(if_unknown=unknown) + self._ledger.in_flight()

    def _timeout_of_request(self) -> RequestTimeout:
        timeout = self.request_timeout or DEFAULT_TIMEOUT_SECONDS
        deadline = self._thread_state.deadline
        return timeout if deadline is None else within(timeout, max(0.01, deadline - time.monotonic()))

    def _measure_from_now_on(self) -> None:
        self._measured_method = method = self.method
        # Not a bound method: it would keep the emitter alive.
        self._ledger.measure = functools.partial(wire_bytes, method=method)
        self._ledger.count_again()

    def _hand_over_flush(self) -> bool:
        return self._worker_pool.hand_over(self._thread_limit())

    def _thread_limit(self) -> int:
        return 1

    def _do_task(self, task: object) -> None:  # noqa: ARG002  # an AsyncEmitter has several kinds of tasks
        """Do a worker's task; called in a thread of the pool."""
        self.flush()

    def _flush_at_exit(self, timeout: float) -> bool:
        """Send what waits while the interpreter exits; True if all is out, or left in a durable store."""
        self.timer.cancel()
        if self._leaves_rest() and not self._ledger.in_flight():
            # It has made its last attempt before.
            return True
        # One look only: what another thread tracks from now on, that thread sends itself.
        is_all_out = self._is_all_out() or self._flush_within(timeout, is_last=True)
        self._session_pool.close()
        self._drop_reports.report_rest()
        if self._ledger.is_durable:
            if not is_all_out:
                self._tell_what_is_left("the interpreter exits")
            self._ledger.close_store(self._own_store)
            return True
        return is_all_out

    def _give_up(self, reason: str) -> None:
        """Say what is lost, now that nothing can be done about it any more, and end timers and threads."""
        was_ended = self._is_ended
        self._end_for_good()
        self._drop_reports.report_rest()
        if not self._ledger.is_durable:
            left = self._count_left()
            if left:
                logger.error("Lost %d payloads: %s", left, reason)
        elif not was_ended:
            # One that has ended has told it before, and its store may be closed.
            self._tell_what_is_left(reason)
        self._ledger.close_store(self._own_store)

    def _tell_what_is_left(self, reason: str) -> None:
        with self._ledger.lock:
            waiting, in_flight = self._ledger.waiting(if_unknown=-1), self._ledger.in_flight()
        if waiting < 0:
            logger.info("The event store cannot tell what is left in it: %s", reason)
        elif waiting:
            logger.info("Left %d payloads in the event store: %s", waiting, reason)
        if in_flight:
            logger.info("Left %d payloads in flight, which their lease brings back: %s", in_flight, reason)

    def _begin_anew(self) -> None:
        self._thread_state = _ThreadState()
        self._drop_reports = Drops()
        self._failure_reports = Occurrences(_FAILURES_REPORTED_EVERY_SECONDS)
        self._backoffs = self._untried = 0
        self._awaits_store = self._leaves_retries = False
        self._is_ended = False
        self._timer_interval = None
        self.retry_delay = 0.0

    def _begin_anew_in_child(self) -> None:
        """Drop what belongs to the parent of a forked child: locks, threads, connections, payloads in memory."""
        # The child may have been forked in a callback.
        _sends.depth = 0
        self._ledger.reset()
        self._ledger.forget_memory()
        self._worker_pool.reset()
        self.timer.reset()
        self.retry_timer.reset()
        self._session_pool.forget()
        forget_connections(self.session)
        self._begin_anew()


class AsyncEmitter(Emitter):
    """Sends payloads from a fixed number of threads, so that tracking never waits for the collector.

    The threads start when there is something to send. While all of them are busy, payloads wait in the event store; a
    thread that comes free takes all that waits, up to one request. Like an `Emitter` otherwise; callbacks are called in
    the threads.
    """

    thread_count: "Setting[int]" = Setting(positive_int, 1)

    def __init__(
        self,
        endpoint: str,
        protocol: HttpProtocol = "https",
        port: Optional[int] = None,
        method: Method = "post",
        batch_size: Optional[int] = None,
        on_success: Optional[SuccessCallback] = None,
        on_failure: Optional[FailureCallback] = None,
        thread_count: int = 1,
        byte_limit: Optional[int] = None,
        request_timeout: Optional[RequestTimeout] = None,
        max_retry_delay_seconds: float = 60,
        buffer_capacity: Optional[int] = None,
        custom_retry_codes: Optional[Dict[int, bool]] = None,
        event_store: Union[EventStore, str, None] = None,
        session: Optional[requests.Session] = None,
        *,
        buffer_size: Optional[int] = None,
        max_request_bytes: int = DEFAULT_MAX_REQUEST_BYTES,
        flush_interval: Optional[float] = None,
        flush_on_exit: bool = True,
    ) -> None:
        """Takes the arguments of an `Emitter`, in its order, with one between.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument has a wrong value.
        """
        self.thread_count = thread_count
        super().__init__(
            endpoint=endpoint,
            protocol=protocol,
            port=port,
            method=method,
            batch_size=_batch_size(batch_size, buffer_size),
            on_success=on_success,
            on_failure=on_failure,
            byte_limit=byte_limit,
            request_timeout=request_timeout,
            max_retry_delay_seconds=max_retry_delay_seconds,
            buffer_capacity=buffer_capacity,
            custom_retry_codes=custom_retry_codes,
            event_store=event_store,
            session=session,
            max_request_bytes=max_request_bytes,
            flush_interval=flush_interval,
            flush_on_exit=flush_on_exit,
        )

    @property
    def queue(self) -> "queue.Queue[Any]":
        """The threads' tasks. A list of payloads that is put here is sent."""
        return self._worker_pool.queue

    def flush(self) -> None:
        """Have a thread send what waits, unless a backoff is on. Never blocks."""
        if self._thread_state.is_explicit:
            self._worker_pool.queue.put(_Flush(hold_back=False))
            self._worker_pool.keep_running(self.thread_count)
        elif not self._ledger.closed and not self._is_backing_off():
            self._hand_over_flush()

    def _flush_for_event(self) -> None:
        if self._has_own_flush():
            super()._flush_for_event()
        else:
            # It keeps nobody waiting.
            self.flush()

    def async_flush(self) -> None:
        """Do what `flush` does."""
        self.flush()

    def consume(self) -> None:
        """Work as one of the threads, in the calling thread, until the emitter is closed."""
        self._worker_pool.run(lambda: self._is_ended)

    def _take_share(self, unless_in_flight: bool) -> List[Claim]:
        """Take one thread's share of what waits, so that the others can send the rest."""
        store, is_post = self._ledger.store, self.method == "post"
        if is_post and self._ledger.is_durable:
            # It hands out about one request at a time by itself.
            return self._ledger.take(unless_in_flight=unless_in_flight)
        if knows_limit(store):
            if not is_post:
                return self._ledger.take(max(1, self._part_of(self._ledger.waiting())), unless_in_flight)
            buffer = getattr(store, "event_buffer", None)
            if isinstance(buffer, list):
                return self._ledger.take(self._share_of(buffer), unless_in_flight)
        # In one step, so that nothing that comes meanwhile gets in between.
        with self._ledger.lock:
            claims = self._ledger.take(unless_in_flight=unless_in_flight)
            share = self._share_of([claim.payload for claim in claims])
            rest = [claim.payload for claim in claims[share:]]
            error = self._ledger.put_back(rest, is_retry=False)
        self._report_lost_batch(rest, error)
        return claims[:share]

    def _share_of(self, waiting: PayloadDictList) -> int:
        """Count the payloads that one thread should take: about one POST request, or its part of the GET requests."""
        if self.method == "get":
            return self._part_of(len(waiting))
        return fitting_count(waiting, self.max_request_bytes)

    def _part_of(self, count: int) -> int:
        return -(-count // self.thread_count)

    def _flush_once(self, hold_back: bool) -> None:
        """Have a thread flush, and wait for it; so the order is kept that one thread gives."""
        if self._has_own_flush() and not self._thread_state.is_explicit:
            self._call_own_flush(hold_back)
            self._wait_for_tasks()
            self._wait_for_hand_outs(self._ledger.last_hand_out())
            return
        task = _Flush(hold_back)
        self._worker_pool.queue.put(task)
        if self.thread_count > 1:
            self.flush()
        while True:
            if not self._worker_pool.keep_running(self.thread_count):
                # There are no new threads any more while the interpreter exits.
                if task.begin():
                    self._flush_here(hold_back)
                break
            seconds, began_at = self._seconds_to_wait(), time.monotonic()
            if task.wait(seconds):
                break
            self._count_waited(seconds, began_at)
            if self._is_time_up():
                # Nobody waits for it any more, so nobody must do it.
                task.begin()
                self._worker_pool.withdraw(task)
                break
        self._wait_for_hand_outs(self._ledger.last_hand_out())

    def _wait_for_tasks(self) -> None:
        tasks = self._worker_pool.queue
        with tasks.mutex:
            while True:
                is_over = not tasks.unfinished_tasks or self._is_time_up()
                if is_over or not self._worker_pool.keep_running(self.thread_count):
                    return
                seconds, began_at = self._seconds_to_wait(), time.monotonic()
                if not tasks.all_tasks_done.wait(seconds):
                    self._count_waited(seconds, began_at)

    def _must_not_wait(self) -> bool:
        # A signal handler that came while its thread had a lock would keep the workers from what it waits for.
        return super()._must_not_wait() or self._ledger.is_locked_here() or self._worker_pool.is_locked_here()

    def _thread_limit(self) -> int:
        return self.thread_count

    def _is_all_out(self) -> bool:
        return super()._is_all_out() and not self._worker_pool.has_batches()

    def _do_task(self, task: object) -> None:
        if isinstance(task, _Flush):
            try:
                if task.begin():
                    self._flush_here(task.hold_back)
            finally:
                task.finish()
        elif isinstance(task, list):
            try:
                self.send_events(task)
            finally:
                self._worker_pool.end_batch(task)
                with self._ledger.lock:
                    self._ledger.changed.notify_all()
        else:
            self._send_one_request()

    def _send_one_request(self) -> None:
        if not self._is_backing_off() and not self._leaves_rest():
            self._as_flush(self._take_and_send)

    def _take_and_send(self) -> None:
        claims = self._take_waiting(unless_in_flight=self.retry_delay > 0)
        if not claims:
            return
        if self._ledger.waiting() and not self.retry_delay and not self._leaves_rest():
            # Whatever did not fit goes to the next thread at once. After a failure, it first takes a success.
            self._hand_over_flush()
        self._send_claims(claims)


# What `flush` is unless an application replaces it, in these classes too.
_FLUSHES = (Emitter.flush, AsyncEmitter.flush)
# And `reached_limit`.
_REACHED_LIMIT = Emitter.reached_limit
# And `endpoint`.
_ENDPOINT = Emitter.endpoint


class _Flush:
    """A flush that somebody waits for."""

    def __init__(self, hold_back: bool) -> None:
        self.hold_back = hold_back
        self._tickets = [None]
        # To wait for a lock is one step. In the midst of an event, Ctrl-C would keep the worker from setting it.
        self._running = threading.Lock()
        self._running.acquire()

    def finish(self) -> None:
        """Have the one that waits go on."""
        self._running.release()

    def wait(self, seconds: float) -> bool:
        """Wait until the flush is done; False if it is not done in time."""
        return self._running.acquire(timeout=seconds)

    def begin(self) -> bool:
        """True for the first caller only."""
        try:
            self._tickets.pop()
        except IndexError:
            return False
        return True


def _batch_size(batch_size: Optional[int], buffer_size: Optional[int]) -> Optional[int]:
    """Deprecated: `buffer_size` is called `batch_size`."""
    if buffer_size is None:
        return batch_size
    if batch_size is not None:
        raise TypeError(f"batch_size={batch_size!r} and buffer_size={buffer_size!r} are the same option; give one")
    warnings.warn("buffer_size is deprecated; use batch_size", DeprecationWarning, stacklevel=3)
    return buffer_size


def _milliseconds(created: Any) -> int:
    try:
        return 0 if created is None else int(created)
    except (TypeError, ValueError, OverflowError):
        return 0
