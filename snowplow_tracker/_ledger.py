"""In which state each accepted payload is: buffered, in flight, delivered or rejected."""

import contextlib
import functools
import inspect
import logging
import threading
from operator import attrgetter
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from .event_store import DEFAULT_BUFFER_CAPACITY, InMemoryEventStore
from .typing import EmitterStats, EventStore, PayloadDict, PayloadDictList

__all__ = ["Claim", "Figures", "HandOutError", "Ledger", "Refusal", "knows_limit"]

logger = logging.getLogger(__name__)


class Claim(NamedTuple):
    """One payload in the hands of one sender.

    Attributes:
        hand_out: Number of the hand-out, which grows. Claims are compared by identity: the same payload handed out
            again makes another claim.
        payload: The very object that the store gave.
        thread: The identity of the thread that it was handed out to.
    """

    hand_out: int
    payload: PayloadDict
    thread: int


class HandOutError(Exception):
    """The event store failed to hand out payloads, for the reason that is this error's cause."""


class Refusal(NamedTuple):
    """Why a payload was not accepted."""

    reason: str
    error: Optional[Exception] = None


class Figures:
    """The part of `EmitterStats` that is counted, not derived."""

    def __init__(self) -> None:
        self.accepted = self.delivered = self.rejected = self.dropped = self.retries = self.requests = 0
        self.last_status: Optional[int] = None
        self.last_error: Optional[str] = None


class Ledger:
    """The event store of an emitter, together with what is in flight and what became of the rest.

    `lock` guards everything here and the store itself, whose methods are called with it held, as their contract says.
    Nobody logs or calls back under it. `changed` is notified when payloads are settled or come back. The lock is
    reentrant, so that a signal handler which tracks an event cannot deadlock with the code that it interrupted. No loop
    with a condition at its end stands in a block that takes it, nor a comprehension with one: there, from CPython 3.12
    on, Ctrl-C may leave the lock taken.

    So a handler may come between any two steps, and may end them by an exception, as Ctrl-C does. Therefore nothing is
    called between reading a figure and changing it; what is counted and what is noted in one line belongs together; a
    payload is in flight before it leaves the store, and until it is back there.

    A durable store may be shared with other processes: what waits in it need not have been accepted here, and what was
    accepted here may be delivered elsewhere.

    Attributes:
        has_found: The first `add` since `reset` has found payloads in a durable store, which others have left there.
    """

    def __init__(self, store: EventStore) -> None:
        self.store = store
        self.closed = False
        self.measure: Optional[Callable[[PayloadDict], int]] = None
        self.reset()

    def reset(self) -> None:
        """Begin anew with nothing in flight, as a forked child must: what waits in memory is the parent's to send."""
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.figures = Figures()
        self.bytes_queued = 0
        self.wire_bytes = 0
        self.has_found = False
        self._has_looked = False
        self._hand_outs = 0
        # By the payload's identity; the claim keeps the payload alive, so that the identity stays its own.
        self._in_flight: Dict[int, Claim] = {}

    def forget_memory(self) -> None:
        """Empty a store that a forked child has only as a copy of its parent's."""
        if isinstance(self.store, InMemoryEventStore):
            self.store.clear()
            return
        # Stores in the wild are built like that of 1.1.0.
        buffer = getattr(self.store, "event_buffer", None)
        if isinstance(buffer, list) and not self.is_durable:
            buffer.clear()

    def close_store(self, store: Any) -> None:
        """Close a store that an emitter has made for itself, if it is one that can be closed.

        That is left alone while something is in flight: a store that is closed gives what it has lent to others, though
        the collector may be about to take it.
        """
        close = getattr(store, "close", None)
        if close is None:
            return
        error = None
        with self.lock:
            try:
                if not self._in_flight:
                    close()
            except Exception as failure:
                error = failure
        if error is not None:
            logger.error("The event store failed to close", exc_info=error)

    @property
    def is_durable(self) -> bool:
        """Tell whether what waits outlives the process."""
        return getattr(self.store, "is_durable", False) is True

    def close(self) -> None:
        """Accept nothing from now on."""
        with self.lock:
            self.closed = True

    def waiting(self, if_unknown: int = 0) -> int:
        """Count the payloads in the store.

        Args:
            if_unknown: The answer if the store cannot tell, which the next `add` reports.
        """
        with self.lock:
            try:
                return self._size()
            except Exception:
                return if_unknown

    def has_unsettled(self) -> bool:
        """Tell, without a lock, whether payloads would be lost with this ledger: in a durable store none that wait."""
        if self.is_durable:
            return bool(self._in_flight)
        return self.figures.accepted > self.figures.delivered + self.figures.rejected

    def capacity(self, own: Optional[int]) -> int:
        """Return how many payloads may wait or be in flight: the emitter's own figure, or else the store's."""
        if own is not None:
            return own
        of_store = getattr(self.store, "buffer_capacity", None)
        return of_store if isinstance(of_store, int) else DEFAULT_BUFFER_CAPACITY

    def in_flight(self) -> int:
        """Count the payloads that are being sent."""
        return len(self._in_flight)

    def done(self) -> int:
        """Count the payloads whose fate is known."""
        return self.figures.delivered + self.figures.rejected

    def last_hand_out(self) -> int:
        """Return the number of the newest hand-out."""
        return self._hand_outs

    def is_settled(self, last_hand_out: int) -> bool:
        """Tell whether others have nothing in flight of what was handed out up to a number.

        What the calling thread itself has taken does not count: a signal handler may have come between that and its
        sending, and cannot wait for what it interrupts.
        """
        mine = threading.get_ident()
        with self.lock:
            return all(claim.hand_out > last_hand_out or claim.thread == mine for claim in self._in_flight.values())

    def stats(self, retry_in_seconds: Optional[float] = None) -> EmitterStats:
        """Return all figures of one moment, together with one that the emitter knows."""
        with self.lock:
            return EmitterStats(
                **vars(self.figures),
                buffered=self.waiting(),
                in_flight=self.in_flight(),
                retry_in_seconds=retry_in_seconds,
            )

    def count_request(self, status: int, error: Optional[str]) -> None:
        """Note how a request ended, and have the store keep what is in flight: more requests may follow."""
        with self.lock:
            self.figures.requests += 1
            self.figures.last_status = int(status)
            self.figures.last_error = error
            renew = getattr(self.store, "renew", None) if self.is_durable else None
            if renew is not None:
                # If it fails, others may get that when its lease ends, and it arrives twice.
                with contextlib.suppress(Exception):
                    renew()

    def add(self, payload: PayloadDict, capacity: Optional[int]) -> Tuple[Optional[Refusal], int]:
        """Accept a payload.

        Args:
            payload: The emitter's own copy.
            capacity: How many payloads may wait or be in flight; None for what the store says.

        Returns:
            Why the payload was not accepted, None if it was; and how many wait now, 0 if the store could not tell.
        """
        figures, is_counted, waiting = self.figures, False, 0
        with self.lock:
            try:
                try:
                    waiting = 0 if self.closed else self._size()
                    refusal = self._offer(payload, capacity, waiting)
                except Exception as error:
                    refusal = Refusal("the event store failed", error)
                if refusal is None:
                    figures.accepted, is_counted = figures.accepted + 1, True
                    waiting += 1
                    if self.measure is not None:
                        self._count_bytes([payload], 1)
                else:
                    figures.dropped += 1
            except BaseException:
                if not is_counted and not self.is_durable:
                    # The payload may be anywhere by now: what has interrupted this may have sent it.
                    known = figures.delivered + figures.rejected + len(self._in_flight) + self.waiting()
                    figures.accepted = max(figures.accepted, known)
                raise
        return refusal, waiting

    def take(self, limit: Optional[int] = None, unless_in_flight: bool = False) -> List[Claim]:
        """Have the store hand payloads out, oldest first.

        Args:
            limit: How many at the most, for a store that `knows_limit`; None for what the store sees fit.
            unless_in_flight: Take nothing while others are in flight.

        Raises:
            HandOutError: If the store fails.
        """
        with self.lock:
            if unless_in_flight and self._in_flight:
                return []
            batch: PayloadDictList = []
            claims: List[Claim] = []
            try:
                if _shows_what_comes_next(self.store):
                    claims = self._claim(self._waiting_payloads()[:limit])
                    batch = self._get_limited_batch(len(claims))
                else:
                    # Some stores in the wild give None if nothing waits.
                    batch = (self.store.get_events_batch() if limit is None else self._get_limited_batch(limit)) or []
                    claims = self._claim(batch)
            except Exception as error:
                raise HandOutError from error
            except BaseException:
                self._claim(batch)
                raise
            if batch or not self.is_durable:
                self._count_bytes(batch, -1)
            else:
                # Others have taken what was counted.
                self.bytes_queued = self.wire_bytes = 0
            return claims

    def admit(self, batch: PayloadDictList) -> List[Claim]:
        """Return the claims of a batch that is about to be sent.

        Payloads that did not come from the store are accepted on the way.
        """
        with self.lock:
            strangers = list(filter(lambda payload: id(payload) not in self._in_flight, batch))
            # An application may have taken payloads out of the store itself; those were accepted when they came. What
            # is gone from a durable store is with other emitters.
            figures, is_counted = self.figures, False
            # In this order, what a signal handler adds in between counts as waiting, and not as gone.
            unsettled = figures.accepted - figures.delivered - figures.rejected - len(self._in_flight)
            size = self.waiting()
            gone = 0 if self.is_durable else max(0, unsettled - size)
            newcomers = max(0, len(strangers) - gone)
            if not size:
                self.bytes_queued = self.wire_bytes = 0
            try:
                self._claim(strangers)
                figures.accepted, is_counted = figures.accepted + newcomers, True
            except BaseException:
                if not is_counted and strangers and id(strangers[0]) in self._in_flight:
                    figures.accepted += newcomers
                raise
            return list(map(self._in_flight.__getitem__, map(id, batch)))

    def settle(self, delivered: PayloadDictList, rejected: PayloadDictList) -> None:
        """Forget payloads whose fate is known."""
        done = delivered + rejected
        if not done:
            return
        with self.lock:
            error = self._clean_up(done, need_retry=False)
            self._close_account(done, len(delivered), len(rejected))
        if error is not None:
            outlook = ", which may be delivered again when their lease ends" if self.is_durable else ""
            logger.error("The event store failed to forget %d payloads%s", len(done), outlook, exc_info=error)

    def put_back(self, batch: PayloadDictList, is_retry: bool = True) -> Optional[Exception]:
        """Return payloads to the store.

        Args:
            batch: Payloads in flight, in their order.
            is_retry: Whether they count as retries in the figures.

        Returns:
            Why the store failed. Then the payloads are lost and count as rejected, unless the store is durable: it has
            only lent them, and has them again when the lease ends.
        """
        if not batch:
            return None
        with self.lock:
            error = self._clean_up(batch, need_retry=True)
            if error is not None:
                # A durable store has only lent them.
                self._close_account(batch, 0, 0 if self.is_durable else len(batch))
            else:
                retries = len(batch) if is_retry else 0
                self.figures.retries += retries
                self._count_bytes(batch, 1)
                self._land(batch)
        return error

    def unsettled(self, claims: List[Claim]) -> PayloadDictList:
        """Return the payloads of those claims that were neither settled nor put back yet."""
        with self.lock:
            unsettled = filter(lambda claim: self._in_flight.get(id(claim.payload)) is claim, claims)
            return list(map(attrgetter("payload"), unsettled))

    def stranded(self, claims: Optional[List[Claim]] = None) -> PayloadDictList:
        """Return payloads whose sending was interrupted, and that nobody has put back into the store yet.

        Args:
            claims: Which to look at; all claims of the calling thread by default.
        """
        with self.lock:
            if claims is None:
                mine = threading.get_ident()
                claims = list(filter(lambda claim: claim.thread == mine, list(self._in_flight.values())))
            return self.release(self.unsettled(claims)) if claims else []

    def release(self, batch: PayloadDictList) -> PayloadDictList:
        """Forget that payloads are in flight, because the application has put them into the store itself.

        Returns:
            Those that are not there.
        """
        with self.lock:
            waiting = set(map(id, self._waiting_payloads()))
            self._land(list(filter(lambda payload: id(payload) in waiting, batch)))
            return list(filter(lambda payload: id(payload) not in waiting, batch))

    def is_locked_here(self) -> bool:
        """Tell whether this thread has the lock: then it is in a signal handler, and keeps all others waiting."""
        return self.changed._is_owned()  # type: ignore[attr-defined,no-any-return]  # what `wait` makes sure of, too

    def use_lock(self, lock: Any) -> None:
        """Use a lock of the application's."""
        self.lock = lock
        self.changed = threading.Condition(lock)

    def count_again(self) -> None:
        """Measure all that waits, after `measure` was set."""
        with self.lock:
            self.bytes_queued = self.wire_bytes = 0
            self._count_bytes(self._waiting_payloads(), 1)

    def _offer(self, payload: PayloadDict, capacity: Optional[int], size: int) -> Optional[Refusal]:
        if self.closed:
            return Refusal("the emitter is closed")
        if not self._has_looked:
            self._has_looked = True
            self.has_found = self.is_durable and size > 0
        if size + len(self._in_flight) >= self.capacity(capacity):
            return Refusal("the buffer is full")
        # Stores in the wild return nothing; only a plain False is a refusal.
        return Refusal("the event store refused") if self.store.add_event(payload) is False else None

    def _size(self) -> int:
        # A store of the application's may answer anything. What is no number counts as a failure of the store.
        return int(self.store.size())

    def _claim(self, batch: PayloadDictList) -> List[Claim]:
        if not batch:
            return []
        self._hand_outs += 1
        mine = threading.get_ident()
        claims = [Claim(self._hand_outs, payload, mine) for payload in batch]
        # In one step, all of them or none.
        self._in_flight.update({id(claim.payload): claim for claim in claims})
        return claims

    def _waiting_payloads(self) -> PayloadDictList:
        """Copy what waits, as far as the store shows it."""
        try:
            return list(getattr(self.store, "event_buffer", []))
        except TypeError:  # it is called so, and is something else
            return []

    def _get_limited_batch(self, limit: int) -> PayloadDictList:
        return self.store.get_events_batch(limit=limit)  # type: ignore[call-arg]  # only for a store that knows_limit

    def _clean_up(self, batch: PayloadDictList, need_retry: bool) -> Optional[Exception]:
        try:
            self.store.cleanup(batch, need_retry)
        except Exception as failure:
            return failure
        return None

    def _close_account(self, batch: PayloadDictList, delivered: int, rejected: int) -> None:
        """Count payloads and forget them: both, whatever comes in between."""
        figures, is_counted = self.figures, False
        try:
            figures.delivered, figures.rejected, is_counted = (
                figures.delivered + delivered,
                figures.rejected + rejected,
                True,
            )
            self._land(batch)
        except BaseException:
            if is_counted:
                self._land(batch)
            raise

    def _land(self, batch: PayloadDictList) -> None:
        """Note that payloads are in flight no more."""
        for payload in batch:
            self._in_flight.pop(id(payload), None)
        self.changed.notify_all()

    def _count_bytes(self, payloads: List[PayloadDict], sign: int) -> None:
        if self.measure is not None:
            printed, on_wire = sum(map(_printed_length, payloads)), sum(map(self.measure, payloads))
            # Payloads that others have put into the store are taken without having been counted here.
            self.bytes_queued = max(0, self.bytes_queued + sign * printed)
            self.wire_bytes = max(0, self.wire_bytes + sign * on_wire)


def _printed_length(payload: PayloadDict) -> int:
    try:
        return len(str(payload))
    except Exception:  # of a value that an application passed to `send_events` itself
        return 0


def _shows_what_comes_next(store: EventStore) -> bool:
    """Tell whether a store hands out just what is first in its `event_buffer`."""
    return getattr(type(store), "get_events_batch", None) is InMemoryEventStore.get_events_batch


def knows_limit(store: EventStore) -> bool:
    """Tell whether a store hands out no more payloads than it is asked for.

    Stores in the wild, subclasses of `InMemoryEventStore` among them, have a `get_events_batch` without the argument.
    """
    method = store.get_events_batch
    return _takes_limit(getattr(method, "__func__", method))


@functools.lru_cache(maxsize=16)
def _takes_limit(function: Callable[..., Any]) -> bool:
    try:
        limit = inspect.signature(function).parameters.get("limit")
    except (TypeError, ValueError):  # not written in Python
        return False
    return limit is not None and limit.kind in (limit.POSITIONAL_OR_KEYWORD, limit.KEYWORD_ONLY)
