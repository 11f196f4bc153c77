"""Where payloads wait in Redis, for any number of processes on any number of machines."""

import contextlib
import inspect
import itertools
import json
import os
import secrets
import socket
import threading
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from ._redis_connection import RedisClient, RedisConnection, check_redis_url, redis_and_no_retry
from ._redis_stream import Entry, RedisStream, StreamId
from ._settings import Setting, positive_int, positive_number
from ._shown import shown
from .typing import EventStore, PayloadDict, PayloadDictList

__all__ = ["RedisClient", "RedisEventStore"]

# How much one hand-out may hold: one request, in which each payload has a sent timestamp besides.
_MOST_PAYLOADS = 1_000
_MOST_BYTES = 875_000
# How old the figure of `size` may be. An emitter asks for it twice for each payload.
_COUNT_AGE_SECONDS = 1.0
# A lease that has ended is noticed after another tenth of it.
_LOOKS_PER_LEASE = 10
# One that has not ended is renewed after a quarter of it.
_RENEWALS_PER_LEASE = 4
# Neither what an application takes out and never brings back, nor an outage of Redis, may fill the memory.
_MOST_REMEMBERED = 100_000
_NO_LIMIT = -1


class RedisEventStore(EventStore):
    """Keeps payloads in a stream of Redis 6.2 or later, from which any number of processes send them.

    Payloads survive what the stream survives: the end of the processes that use it always, the end of Redis if that
    has persistence. Without `appendonly yes` all is lost with it; with it and the default `appendfsync everysec` what
    came in the last second or two; with `appendfsync always` nothing. The stream is never trimmed. Redis would evict it
    like any other key, so a `maxmemory-policy` that begins with `allkeys-` loses payloads; the default, `noeviction`,
    refuses new ones instead.

    Each payload is handed out to one store at a time, oldest first, those that came back for a retry before others. It
    comes back at once by `cleanup(..., True)` and `close`. What a process holds that dies comes back when its lease has
    ended, as it does if a request takes longer than that: then it is delivered twice.

    To add a payload waits for Redis no longer than about `timeout`. After a failure each call is refused at once for a
    second, and then one at a time finds out whether Redis is back. A payload that cannot be stored is refused with an
    exception that says why, and is the caller's again; if all that is missing is the answer of Redis, it may be stored
    all the same. Payloads that were delivered while Redis was away are noted, and forgotten when it is back, lest they
    are delivered again.

    All methods may be called from several threads, so that several emitters can share a store. One lock guards what
    the store knows of its payloads; Redis is never waited for under it. A forked child begins anew: what its parent
    took is the parent's, and so is the connection.

    Attributes:
        buffer_capacity: How many payloads may wait; a million by default, which takes about 1 GB of Redis: an outage of
            the collector must not end in the loss of other data that Redis has. May be reassigned at any time.
        is_durable: Payloads outlive the process, so an emitter need not get rid of them before it ends.
        key: The key of the stream.
        lease_seconds: For how long a process may keep what was handed out to it; 120 s by default. It is measured by
            the clock of Redis, and begins anew while an emitter sends. So it should be longer than a request may take.
        timeout: How many seconds a call may wait for Redis in all, to connect and for the answer; 1 s by default. Each
            address of the host gets half of what is left. Not bounded is how long the operating system looks for the
            addresses. A client that was passed in has its own timeouts, which count in place of this one.
    """

    is_durable = True
    buffer_capacity: "Setting[int]" = Setting(positive_int)

    def __init__(
        self,
        client_or_url: Union[RedisClient, str],
        *,
        key: str = "snowplow:events",
        buffer_capacity: int = 1_000_000,
        lease_seconds: float = 120,
        timeout: float = 1.0,
    ) -> None:
        """Open no connection: the first call of a method does.

        Args:
            client_or_url: A URL (`redis://`, `rediss://` or `unix://`; the part after `?` may set options of redis-py),
                which takes the extra `redis`; or a client, with or without `decode_responses`. A client stays the
                application's: it is not closed, and neither its timeouts nor its retries are changed. They should be
                short, as the code that tracks events waits for them.
            key: Stores with the same key share their payloads. In a cluster all of a stream lies on one node.
            buffer_capacity: See the class.
            lease_seconds: See the class.
            timeout: See the class.

        Raises:
            TypeError: An argument has a wrong type, or the client is asynchronous.
            ValueError: An argument has a wrong value.
            ImportError: There is a URL, but not the extra `redis`.
        """
        self._client_or_url = _check_client_or_url(client_or_url)
        if isinstance(client_or_url, str):
            # It cannot be imported any more when the interpreter exits, and the first event may come then.
            redis_and_no_retry()
        self.key = _check_key(key)
        self.buffer_capacity = buffer_capacity
        self.lease_seconds = positive_number("lease_seconds", lease_seconds)
        self.timeout = positive_number("timeout", timeout)
        # By process. What a child has of its parent is kept, but not used: to close a connection would end it for both.
        self._holders: Dict[int, _Holder] = {}

    def add_event(self, payload: PayloadDict) -> bool:
        """Append a payload to the stream, unless too many wait.

        Raises:
            TypeError: A value is neither text nor a number.
            Exception: Redis failed, or has just failed; the text is the reason.
        """
        return self._holder().add([_encode(payload)], self.buffer_capacity)

    def get_events_batch(self, limit: Optional[int] = None) -> PayloadDictList:
        """Hand out the oldest payloads: at most 1,000, and 875,000 bytes of JSON, but at least one if any waits.

        Args:
            limit: How many at the most, if fewer.

        Raises:
            ValueError: There was something else in the stream, which is removed now.
            Exception: Redis failed, or has just failed; the text is the reason.
        """
        count = _MOST_PAYLOADS if limit is None else min(limit, _MOST_PAYLOADS)
        return self._holder().take(count) if count > 0 else []

    def cleanup(self, batch: PayloadDictList, need_retry: bool) -> None:
        """Remove payloads that are settled, or have them wait again in the order of arrival, for whoever takes them.

        If Redis fails, settled payloads are noted, to be removed when it is back; others come back when their lease has
        ended. What was never handed out is appended for a retry, without its sent timestamp.

        Raises:
            Exception: A payload had to be appended, and Redis failed.
        """
        holder = self._holder()
        if not need_retry:
            holder.settle(batch)
            return
        to_append = holder.give_back(batch)
        if to_append:
            texts = [
                _encode({name: value for name, value in payload.items() if name != "stm"}) for payload in to_append
            ]
            holder.add(texts, _NO_LIMIT)

    def size(self) -> int:
        """Count the payloads that wait, by a figure that is at most a second old, and has what this process added.

        Raises:
            Exception: Redis failed, or has just failed; the text is the reason.
        """
        return self._holder().count()

    def in_flight_elsewhere(self) -> int:
        """Count the payloads that other stores on this stream have handed out, or had when their process died.

        `size` knows then what waits at the same moment.

        Raises:
            Exception: Redis failed, or has just failed; the text is the reason.
        """
        return self._holder().count_elsewhere()

    def renew(self) -> None:
        """Keep what is handed out for another lease, if a quarter of it is over; called by an emitter between requests.

        If Redis fails, that is made up for the next time.
        """
        holder = self._holders.get(os.getpid())
        if holder is not None:
            with contextlib.suppress(Exception):
                holder.renew()

    def close(self) -> None:
        """Give back what is handed out, and close the connection. A store that is used again opens it again."""
        holder = self._holders.get(os.getpid())
        if holder is not None:
            holder.close()

    def _holder(self) -> "_Holder":
        pid = os.getpid()
        holder = self._holders.get(pid)
        if holder is None:
            # Threads of a new child may get here at the same time, and have to agree.
            connection = RedisConnection(self._client_or_url, self.timeout)
            holder = self._holders.setdefault(pid, _Holder(connection, self.key, self.lease_seconds))
        return holder


class _Claim(NamedTuple):
    """A payload that is handed out.

    Attributes:
        id: Its entry in the stream.
        payload: The very object, kept alive so that its identity stays its own.
        lease_ends_at: Until when it is surely nobody else's, by the monotonic clock; 0.0 if the store was closed since.
    """

    id: StreamId
    payload: PayloadDict
    lease_ends_at: float


class _Holder:
    """What one process has taken out of the stream, and knows of what waits there.

    `_lock` guards all of it; Redis is never asked under it. `_giving_back` is held while entries go back that nobody
    here knows of, and for a moment by whoever is about to take some, which would look like those otherwise. It is taken
    before `_lock`. Both are reentrant, as a signal handler may track an event.
    """

    def __init__(self, connection: RedisConnection, key: str, lease_seconds: float) -> None:
        self._connection = connection
        self._stream = RedisStream(connection, key, f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")
        self._key = key
        self._lease_seconds = lease_seconds
        self._lock = threading.RLock()
        self._giving_back = threading.RLock()
        # By the payload's identity, as equal payloads are not the same payload.
        self._claims: Dict[int, _Claim] = {}
        self._to_forget: Dict[StreamId, None] = {}
        self._takes_under_way = 0
        self._may_have_more = False
        # How many of these could not be given back, and wait for that.
        self._not_given_back = 0
        self._ends_leases_at: Optional[float] = None
        self._renew_at = 0.0
        self._waiting = 0
        self._added = 0
        self._counted_at: Optional[float] = None

    def add(self, texts: Sequence[str], capacity: int) -> bool:
        if not self._stream.add(texts, capacity):
            return False
        self._count_added(len(texts))
        return True

    def take(self, limit: int) -> PayloadDictList:
        self._catch_up()
        now = time.monotonic()
        with self._giving_back, self._lock:
            self._takes_under_way += 1
            added_before = self._added
            ends_leases = self._ends_leases_at is None or now >= self._ends_leases_at
            if ends_leases:
                self._ends_leases_at = now + self._lease_seconds / _LOOKS_PER_LEASE
        try:
            lease_milliseconds = max(1, round(self._lease_seconds * 1000))
            entries, waiting = self._stream.take(limit, _MOST_BYTES, lease_milliseconds, ends_leases)
            batch = self._hold(entries, now + self._lease_seconds)
        except BaseException:
            self._may_have_more = True
            raise
        finally:
            with self._lock:
                self._takes_under_way -= 1
        self._note_count(waiting, added_before)
        return batch

    def renew(self) -> None:
        now = time.monotonic()
        with self._lock:
            if now < self._renew_at or not self._claims:
                return
            claims = dict(filter(lambda item: item[1].lease_ends_at > 0.0, self._claims.items()))
        self._stream.renew([claim.id for claim in claims.values()])
        with self._lock:
            self._renew_at = now + self._lease_seconds / _RENEWALS_PER_LEASE
            # Another thread may have brought some back meanwhile.
            held = list(filter(lambda item: self._claims.get(item[0]) is item[1], claims.items()))
            lease_ends_at = now + self._lease_seconds
            self._claims.update({key: claim._replace(lease_ends_at=lease_ends_at) for key, claim in held})

    def settle(self, batch: PayloadDictList) -> None:
        """Have Redis forget payloads: now, or else as soon as it answers, lest they are delivered again."""
        with self._lock:
            claims, _ = self._release(batch)
            self._to_forget.update((claim.id, None) for claim in claims)
            _shorten(self._to_forget)
        # What Redis could not be told now is told before it hands out more.
        with contextlib.suppress(Exception):
            self._catch_up()

    def give_back(self, batch: PayloadDictList) -> PayloadDictList:
        """Have payloads wait again.

        Returns:
            Those that were never handed out, or that Redis has lost since: it was flushed, or replaced by an empty one.
        """
        with self._lock:
            claims, others = self._release(batch)
        if not claims:
            return others
        try:
            count, missing = self._stream.give_back([claim.id for claim in claims])
        except Exception:
            # They come back when Redis answers again, or at the end of their lease.
            with self._lock:
                self._may_have_more = True
                self._not_given_back += len(claims)
            return others
        self._count_added(count)
        now, is_missing = time.monotonic(), set(missing)
        # After the end of the lease somebody else may have had a payload, and have delivered it.
        lost = [claim.payload for claim in claims if claim.id in is_missing and now < claim.lease_ends_at]
        return lost + others

    def count(self) -> int:
        with self._lock:
            if self._counted_at is not None and time.monotonic() - self._counted_at < _COUNT_AGE_SECONDS:
                return self._waiting + self._not_given_back
            added_before = self._added
        return self._note_count(self._stream.count(), added_before) + self._not_given_back

    def count_elsewhere(self) -> int:
        with self._lock:
            added_before = self._added
        waiting, elsewhere = self._stream.count_with_elsewhere()
        self._note_count(waiting, added_before)
        return elsewhere

    def close(self) -> None:
        with self._lock:
            has_taken = self._ends_leases_at is not None
            # What is still handed out is anybody's from now on.
            self._claims = {key: claim._replace(lease_ends_at=0.0) for key, claim in self._claims.items()}
            self._counted_at = None
        if has_taken:
            # Otherwise it comes back at the end of its lease.
            with contextlib.suppress(Exception):
                self._catch_up()
                self._stream.leave()
        self._connection.close()

    def _catch_up(self) -> None:
        """Tell Redis what it could not be told before."""
        with self._lock:
            ids = list(self._to_forget)
        self._stream.forget(ids)
        with self._lock:
            for id_ in ids:
                self._to_forget.pop(id_, None)
        with self._giving_back:
            with self._lock:
                if not self._may_have_more or self._takes_under_way:
                    return
                self._may_have_more = False
                # What was given away may have come back, and have been taken again.
                held = filter(lambda claim: claim.lease_ends_at > 0.0, self._claims.values())
                known = [*(claim.id for claim in held), *self._to_forget]
            try:
                self._stream.give_back_all_but(known)
            except BaseException:
                self._may_have_more = True
                raise
            self._not_given_back = 0

    def _hold(self, entries: Sequence[Entry], lease_ends_at: float) -> PayloadDictList:
        decoded = [(entry.id, _decode(entry.text)) for entry in entries]
        alien = [id_ for id_, payload in decoded if payload is None]
        if alien:
            self._stream.forget(alien)
            raise ValueError(f"removed {len(alien)} entries from the stream {self._key!r} that were no payloads")
        claims = [_Claim(id_, payload, lease_ends_at) for id_, payload in decoded if payload is not None]
        with self._lock:
            if not self._claims:
                self._renew_at = lease_ends_at - self._lease_seconds * (1 - 1 / _RENEWALS_PER_LEASE)
            self._claims.update((id(claim.payload), claim) for claim in claims)
            _shorten(self._claims)
        return [claim.payload for claim in claims]

    def _release(self, batch: PayloadDictList) -> Tuple[List[_Claim], PayloadDictList]:
        """Return the claims to what is handed out, and the rest of the payloads."""
        found = [(payload, self._claims.pop(id(payload), None)) for payload in batch]
        claims = [claim for _, claim in found if claim is not None]
        return claims, [payload for payload, claim in found if claim is None]

    def _count_added(self, count: int) -> None:
        with self._lock:
            self._waiting += count
            self._added += count

    def _note_count(self, waiting: int, added_before: int) -> int:
        with self._lock:
            # The figure may lack what was added since it was asked for.
            self._waiting = waiting + self._added - added_before
            self._counted_at = time.monotonic()
            return self._waiting


def _shorten(memory: Dict[Any, Any]) -> None:
    for key in list(itertools.islice(memory, max(0, len(memory) - _MOST_REMEMBERED))):
        del memory[key]


def _encode(payload: PayloadDict) -> str:
    """Write a payload as JSON in ASCII, which any client passes on as it is."""
    for name, value in payload.items():
        if not isinstance(name, str):
            raise TypeError(f"the names in a payload must be strings, got {shown(name)}")
        if not isinstance(value, (str, int, float)):
            raise TypeError(f"{name} must be a string or a number to be stored, got {shown(value)}")
    return json.dumps(payload, separators=(",", ":"))


def _decode(text: Union[bytes, str]) -> Optional[PayloadDict]:
    """Read a payload; None if the text is something else."""
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


def _check_client_or_url(value: Any) -> Union[RedisClient, str]:
    if isinstance(value, str):
        check_redis_url("client_or_url", value)
        return value
    if not callable(getattr(value, "register_script", None)) or isinstance(value, type):
        raise TypeError(f"client_or_url must be a client or a URL, got {shown(value)}")
    if inspect.iscoroutinefunction(getattr(value, "execute_command", None)):
        raise TypeError(f"client_or_url must be a client that is not asynchronous, got {type(value).__module__}")
    return value  # type: ignore[no-any-return]  # checked above


def _check_key(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"key must be a string, got {shown(value)}")
    if not value:
        raise ValueError("key must not be empty")
    return value
