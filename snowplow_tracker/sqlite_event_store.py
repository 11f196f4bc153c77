"""Where payloads wait in a file, for any number of processes of one machine."""

import collections
import functools
import json
import logging
import os
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, NamedTuple, Optional, Tuple, TypeVar, Union

from ._process_identity import is_gone, own_identity
from ._reporting import Occurrences
from ._settings import Setting, choice, optional, positive_int, positive_number, wait_seconds
from ._shown import shown
from ._sqlite_file import SQLiteFile, SQLiteFileError, figure, log_apart, transaction
from .typing import EventStore, PayloadDict, PayloadDictList

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteEventStore", "SQLiteFileError"]

# What one hand-out may have, which is little in memory. With a sent timestamp in each payload it fits into the largest
# request; otherwise each hand-out would be two of them.
_MAX_BATCH = 1_000
_MAX_BATCH_BYTES = 875_000
# What one transaction may remove because it is too old; others wait meanwhile.
_MAX_EXPIRED = 5_000
# How often a store looks after its lease, the payloads of processes that are gone, and the size of the file.
_LOOK_EVERY_SECONDS = 1.0
_FAILURES_REPORTED_EVERY_SECONDS = 10.0

_WAITING = "(SELECT seq FROM sqlite_sequence WHERE name = 'payload') - (SELECT gone FROM figures)"
_ADD = f"INSERT INTO payload (added_at, json) SELECT ?, ? WHERE {_WAITING} < ?"
_ADD_ANYWAY = "INSERT INTO payload (added_at, json) VALUES (?, ?)"
_OLDEST = """
    SELECT id, added_at, json FROM payload
    WHERE NOT EXISTS (SELECT 1 FROM claim WHERE payload_id = payload.id) ORDER BY id
"""
_ELSEWHERE = "SELECT COUNT(*) FROM claim WHERE owner_id IS NOT ?"
_OTHER_OWNERS = "SELECT id, identity, renewed_at, lease_seconds FROM owner WHERE id IS NOT ?"
_REMOVE = "DELETE FROM payload WHERE id = ?"
_RELEASE = "DELETE FROM claim WHERE payload_id = ? AND owner_id = ?"
_RELEASE_ALL = "DELETE FROM claim WHERE owner_id = ?"

_T = TypeVar("_T")
_encode = json.JSONEncoder(separators=(",", ":")).encode


class _Settlement(NamedTuple):
    """What `cleanup` was called with."""

    batch: PayloadDictList
    need_retry: bool


class SQLiteEventStore(EventStore):
    """Keeps payloads in a SQLite file, which outlives the process and which other processes may use at the same time.

    Give each process a store on the same path: web workers, cron jobs, a forwarder. A payload that one of them hands
    out is claimed for that store, and no other hands it out until it comes back: by `cleanup(..., True)`, by `close`,
    when the process is seen to be gone (within a second or so, where there is a `/proc`), or at the end of the lease.
    A payload is delivered twice only if its sender ended, or was suspended beyond its lease, between the collector's
    answer and `cleanup`.

    Payloads are handed out in the order in which they came, of whichever process. At most 1,000 of them, or about
    875,000 bytes, are in one hand-out, so a backlog of any length stays out of memory. The file must be on a local
    disk: SQLite's write-ahead log does not work over a network. It is created for its owner's eyes only. It becomes
    smaller again after a backlog.

    Unlike a store in memory it has a lock of its own, and may be used by several emitters and threads. The lock guards
    all that the store knows, and is held while SQLite works. It is reentrant: a signal handler that interrupts a call
    has its own done right after it. In a forked child the store begins anew, with a connection of its own.

    A file that cannot be used makes the methods raise an error that says why; the next call tries again. A file that is
    corrupt is moved aside to ``<path>.corrupt-<time>``, with an error in the log, and a new one begun. A file that was
    deleted or renamed is begun anew. While the disk has less than 8 MB left, payloads are handed out and removed but
    none are added, because to remove them takes space.

    Attributes:
        is_durable: Payloads outlive the process.
        path: The absolute path of the file. SQLite keeps two more beside it while it is in use: `-wal` and `-shm`.
        buffer_capacity: How many payloads may wait. The default of 1,000,000 is about a gigabyte: hours of outage at
            a hundred events per second, and yet no full disk.
        max_age: How many seconds a payload may wait; None for ever. What is older when it would be handed out is
            dropped, counted and logged.
        lease_seconds: For how long a claim holds when the store gives no sign of life. It is renewed whenever the store
            is used, and by an emitter after each request. So it should be longer than a request may take.
        expired: How many payloads this store has dropped because they were too old.
    """

    is_durable: bool = True
    buffer_capacity: "Setting[int]" = Setting(positive_int, 1_000_000)
    max_age: "Setting[Optional[float]]" = Setting(optional(positive_number))
    lease_seconds: "Setting[float]" = Setting(positive_number, 120)

    def __init__(
        self,
        path: "Union[str, os.PathLike[str]]",
        *,
        buffer_capacity: int = 1_000_000,
        max_age: Optional[float] = None,
        lease_seconds: float = 120,
        synchronous: str = "normal",
        timeout: float = 5.0,
    ) -> None:
        """Open nothing yet: the first call does, and creates the file.

        Args:
            path: Of the file; its folder must exist.
            buffer_capacity: See the class.
            max_age: See the class.
            lease_seconds: See the class.
            synchronous: When to wait for the disk. Whatever it is, nothing is lost when a process is killed. `normal`
                loses the last payloads when the machine loses power or its operating system crashes; the file
                stays sound. `full` loses nothing then either, and has each event wait for the disk. `off` never waits;
                then such a crash may make the file corrupt, so that all that was in it is lost.
            timeout: Seconds to wait while another process writes, 0 or more. After a wait in vain there are only short
                ones until something could be written again, so that threads do not queue up.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument has a wrong value.
        """
        location = _checked_path(path)
        self.path = str(location)
        self.buffer_capacity = buffer_capacity
        self.max_age = max_age
        self.lease_seconds = lease_seconds
        self.expired = 0
        self._file = SQLiteFile(
            location, wait_seconds("timeout", timeout), choice("off", "normal", "full")("synchronous", synchronous)
        )
        self._begin_anew()
        key = id(self)
        _stores[key] = weakref.ref(self, lambda _: _stores.pop(key, None))

    def add_event(self, payload: PayloadDict) -> bool:
        """Keep a payload, unless the store is full.

        Raises:
            TypeError: JSON does not give back what stands in a field.
            SQLiteFileError: The file cannot be used.
        """
        text = _encode_payload(payload)
        return self._run(
            functools.partial(self._insert, text), meanwhile=True, afterwards=functools.partial(self.add_event, payload)
        )

    def get_events_batch(self, limit: Optional[int] = None) -> PayloadDictList:
        """Hand out the oldest payloads.

        Args:
            limit: How many at the most; never more than 1,000.

        Raises:
            SQLiteFileError: The file cannot be used.
        """
        count = _MAX_BATCH if limit is None else min(limit, _MAX_BATCH)
        if count <= 0:
            return []
        self._look_after()
        batch: PayloadDictList = []
        try:
            return self._run(functools.partial(self._hand_out, count, batch), meanwhile=[])
        except BaseException:
            # A signal handler may have ended it after the claim, so that nobody gets what is claimed.
            for payload in batch:
                self._handed_out.pop(id(payload), None)
            self._may_have_more = True
            self._look_at = 0.0
            raise

    def cleanup(self, batch: PayloadDictList, need_retry: bool) -> None:
        """Remove payloads that are settled, or let them be handed out again in their old place.

        If the file cannot be used, this is done as soon as it can. What never was in the store is added as the newest,
        even if the store is full.
        """
        if batch:
            settlement = _Settlement(list(batch), need_retry)
            self._unsettled[id(settlement)] = settlement
            self._settle_all()

    def size(self) -> int:
        """Count the payloads that wait, of all processes.

        Raises:
            SQLiteFileError: The file cannot be used.
        """
        self._look_after()
        return self._run(self._count, meanwhile=self._last_size)

    def in_flight_elsewhere(self) -> int:
        """Count the payloads that other stores on this file have handed out, or had when their process died.

        Raises:
            SQLiteFileError: The file cannot be used.
        """
        return self._run(self._count_elsewhere, meanwhile=0)

    def renew(self) -> None:
        """Keep what is handed out for another lease, if a quarter of it is over.

        An emitter calls this between its requests. To hand out payloads or ask for the size does the same.
        """
        if self._handed_out and time.monotonic() >= self._renew_at:
            self._try(self._renew)

    def close(self) -> None:
        """Give back what is handed out, and close the file.

        It is for when the emitters on this store are closed. A store that is used again opens the file again.
        """
        self._notice_fork()
        with self._lock:
            was_used = self._file.is_open() or self._owner is not None
            if was_used and Path(self.path).exists():
                self._settle_all()
                self._try(self._release_all)
                self._try(self._file.make_smaller)
            if not self._is_busy:
                self._file.disconnect()

    def __del__(self) -> None:
        if "_lock" not in self.__dict__:
            return
        try:
            self._notice_fork()
            if self._file.is_open() and Path(self.path).exists():
                # Whatever this thread was interrupted in, it may be what would have to be waited for.
                self._run(self._file.hurry, meanwhile=None)
                self._run(self._release_all, meanwhile=None)
        except Exception:  # the lease will end
            pass
        self._file.disconnect()

    def _notice_fork(self) -> None:
        """Begin anew if the process was forked by something that does not tell Python."""
        if self._pid != os.getpid():
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget what belongs to the parent of a forked child."""
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._is_busy = False
        self._interrupting: Deque[Callable[[], Any]] = collections.deque()
        # By identity, what the file may not know yet.
        self._unsettled: Dict[int, _Settlement] = {}
        self._failures = Occurrences(_FAILURES_REPORTED_EVERY_SECONDS)
        self._last_size = 0
        self._may_have_more = False
        # Monotonic times.
        self._look_at = self._renew_at = 0.0
        self._key: Optional[bytes] = None
        self._forget_rows()
        self._file.leave_to_parent()

    def _forget_rows(self) -> None:
        self._owner: Optional[int] = None
        # By identity, because equal payloads are not the same payload: its row, and the payload to keep it alive.
        self._handed_out: Dict[int, Tuple[int, PayloadDict]] = {}

    def _run(
        self,
        operation: "Callable[[sqlite3.Connection], _T]",
        meanwhile: _T,
        afterwards: Optional[Callable[[], Any]] = None,
    ) -> _T:
        """Do something in the file.

        Args:
            operation: What to do.
            meanwhile: What to answer a signal handler that has interrupted this method in the same thread.
            afterwards: What to do then when this method is through.
        """
        self._notice_fork()
        with self._lock:
            if self._is_busy:
                if afterwards is not None:
                    self._interrupting.append(afterwards)
                return meanwhile
            try:
                # Ctrl-C may come in the end of a block as well. So there are two, and one of them is not hit.
                try:
                    self._is_busy = True
                    return self._file.run(functools.partial(self._in_file, operation))
                finally:
                    self._is_busy = False
                    self._do_what_interrupted()
            finally:
                self._is_busy = False

    def _do_what_interrupted(self) -> None:
        while self._interrupting:
            _do_late(self._interrupting.popleft())

    def _in_file(self, operation: "Callable[[sqlite3.Connection], _T]", connection: "sqlite3.Connection") -> _T:
        if self._key != self._file.key:
            # What is known of rows is true of another file.
            self._key = self._file.key
            self._forget_rows()
        return operation(connection)

    def _try(self, operation: "Callable[[sqlite3.Connection], None]") -> None:
        """Do what can wait until the file can be used again."""
        try:
            self._run(operation, meanwhile=None)
        except SQLiteFileError as error:
            self._report(error)

    def _settle_all(self) -> None:
        """Write down what `cleanup` was called with, or leave it for another time."""
        nothing: List[_Settlement] = []
        with self._lock:
            try:
                settled = self._run(self._settle, meanwhile=nothing, afterwards=self._settle_all)
            except SQLiteFileError as error:
                self._report(error)
                return
            # Not before it is certain that this was the right file.
            for settlement in settled:
                self._unsettled.pop(id(settlement), None)
                for payload in settlement.batch:
                    self._handed_out.pop(id(payload), None)

    def _look_after(self) -> None:
        """Do at intervals what nobody asks for."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_SECONDS
        if self._unsettled:
            self._settle_all()
        if self._may_have_more:
            self._try(self._release_unknown)
        self.renew()
        self._try(self._return_lost)
        self._try(self._file.make_smaller)

    def _insert(self, text: str, connection: "sqlite3.Connection") -> bool:
        self._file.require_room()
        if connection.execute(_ADD, (time.time(), text, self.buffer_capacity)).rowcount > 0:
            return True
        # It is full, unless what is compared with the capacity is not there.
        self._count(connection)
        return False

    def _count(self, connection: "sqlite3.Connection") -> int:
        waiting: int = figure(connection, f"SELECT {_WAITING}")
        # What could not be written yet counts all the same, lest nobody asks for it.
        self._last_size = waiting + sum(
            len(batch) for batch, need_retry in list(self._unsettled.values()) if need_retry
        )
        return self._last_size

    def _count_elsewhere(self, connection: "sqlite3.Connection") -> int:
        ((count,),) = connection.execute(_ELSEWHERE, (self._owner,))
        return int(count)

    def _hand_out(self, count: int, batch: PayloadDictList, connection: "sqlite3.Connection") -> PayloadDictList:
        # It may hold what was found in a file that was replaced.
        batch.clear()
        while self._count(connection):
            rows, expired = self._claim(count, connection)
            if expired:
                self.expired += expired
                log_apart(logging.ERROR, "Lost %d payloads: they were older than %g s", expired, self.max_age)
            self._read(rows, batch)
            if batch or not (rows or expired):
                break
        return batch

    def _claim(self, count: int, connection: "sqlite3.Connection") -> Tuple[List[Tuple[int, str]], int]:
        """Take the oldest payloads for this store, and remove those before them that are too old.

        Returns:
            Their rows, each with its text, and how many were too old.
        """
        oldest = 0.0 if self.max_age is None else time.time() - self.max_age
        rows: List[Tuple[int, str]] = []
        expired: List[Tuple[int]] = []
        left = _MAX_BATCH_BYTES
        with transaction(connection):
            owner = self._renewed_owner(connection)
            waiting = connection.execute(_OLDEST)
            for row, added_at, text in waiting:
                if added_at < oldest:
                    expired.append((row,))
                elif not rows or len(text) <= left:
                    rows.append((row, text))
                    left -= len(text)
                else:
                    break
                if len(rows) == count or len(expired) == _MAX_EXPIRED:
                    break
            waiting.close()
            connection.executemany("INSERT INTO claim VALUES (?, ?)", [(row, owner) for row, _ in rows])
            connection.executemany(_REMOVE, expired)
        # Not before it is written: a number that was rolled back is given to the next owner.
        self._note_renewal(owner)
        return rows, len(expired)

    def _read(self, rows: List[Tuple[int, str]], batch: PayloadDictList) -> None:
        """Add what stands in rows that were claimed. What cannot be read is given up, or it would come for ever."""
        for row, text in rows:
            try:
                payload = json.loads(text)
                if not isinstance(payload, dict):
                    raise ValueError(f"it is a {type(payload).__name__}")
            except ValueError as error:
                log_apart(logging.ERROR, "Lost a payload: what %s has of it cannot be read: %s", self.path, error)
                payload = {}
                settlement = _Settlement([payload], need_retry=False)
                self._unsettled[id(settlement)] = settlement
            else:
                batch.append(payload)
            self._handed_out[id(payload)] = row, payload

    def _settle(self, connection: "sqlite3.Connection") -> List[_Settlement]:
        settlements = list(self._unsettled.values())
        with transaction(connection):
            for batch, need_retry in settlements:
                rows = [self._handed_out[id(payload)][0] for payload in batch if id(payload) in self._handed_out]
                if not need_retry:
                    connection.executemany(_REMOVE, [(row,) for row in rows])
                    continue
                # Of another owner it is not ours to release.
                connection.executemany(_RELEASE, [(row, self._owner) for row in rows])
                for payload in batch:
                    if id(payload) not in self._handed_out:
                        self._add_stranger(payload, connection)
        return settlements

    def _add_stranger(self, payload: PayloadDict, connection: "sqlite3.Connection") -> None:
        try:
            # It is sent again with another `stm`.
            text = _encode_payload({name: value for name, value in payload.items() if name != "stm"})
        except TypeError as error:
            log_apart(logging.ERROR, "Lost a payload: %s", error)
            return
        connection.execute(_ADD_ANYWAY, (time.time(), text))

    def _renew(self, connection: "sqlite3.Connection") -> None:
        with transaction(connection):
            owner = self._renewed_owner(connection)
        self._note_renewal(owner)

    def _note_renewal(self, owner: int) -> None:
        self._owner = owner
        self._renew_at = time.monotonic() + self.lease_seconds / 4

    def _renewed_owner(self, connection: "sqlite3.Connection") -> int:
        """Return the number of this store as an owner; a new one if the lease was lost, or there was none."""
        lease = (time.time(), self.lease_seconds)
        renewal = "UPDATE owner SET renewed_at = ?, lease_seconds = ? WHERE id = ?"
        if self._owner is not None and connection.execute(renewal, (*lease, self._owner)).rowcount:
            return self._owner
        arrival = "INSERT INTO owner (identity, renewed_at, lease_seconds) VALUES (?, ?, ?)"
        number: Any = connection.execute(arrival, (own_identity(), *lease)).lastrowid
        return int(number)

    def _return_lost(self, connection: "sqlite3.Connection") -> None:
        """Let the payloads be handed out again of owners that are gone, or whose lease has ended."""
        now = time.time()
        lost = [
            (owner, renewed_at)
            for owner, identity, renewed_at, lease_seconds in connection.execute(_OTHER_OWNERS, (self._owner,))
            # A clock that was set back must not make a lease last for years.
            if abs(now - renewed_at) > lease_seconds or is_gone(identity)
        ]
        if not lost:
            return
        returned = 0
        with transaction(connection):
            for owner in lost:
                # It may have renewed its lease since the look, and then keeps it.
                if connection.execute("DELETE FROM owner WHERE id = ? AND renewed_at = ?", owner).rowcount:
                    returned += connection.execute(_RELEASE_ALL, owner[:1]).rowcount
        if returned:
            log_apart(logging.INFO, "%d payloads wait again whose sender is gone or hangs: %s", returned, self.path)

    def _release_all(self, connection: "sqlite3.Connection") -> None:
        if self._owner is None:
            return
        with transaction(connection):
            connection.execute(_RELEASE_ALL, (self._owner,))
            connection.execute("DELETE FROM owner WHERE id = ?", (self._owner,))
        self._owner = None

    def _release_unknown(self, connection: "sqlite3.Connection") -> None:
        """Let what is claimed for this store be handed out again, unless it is handed out."""
        self._may_have_more = False
        try:
            known = {row for row, _ in list(self._handed_out.values())}
            with transaction(connection):
                claimed = connection.execute(
                    "SELECT payload_id FROM claim WHERE owner_id = ?", (self._owner,)
                ).fetchall()
                unknown = filter(lambda claim: claim[0] not in known, claimed)
                connection.executemany(_RELEASE, [(row, self._owner) for (row,) in unknown])
        except BaseException:
            self._may_have_more = True
            raise

    def _report(self, error: Exception) -> None:
        count = self._failures.add(str(error))
        if count:
            log_apart(logging.WARNING, "The event store could not be brought up to date: %s (%d times)", error, count)


def _checked_path(path: Any) -> Path:
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"path must be a path, got {shown(path)}") from None
    if text in ("", ":memory:"):
        raise ValueError(f"path must be the path of a file, got {shown(path)}; InMemoryEventStore needs none")
    # Later the process may be in another folder.
    return Path(text).absolute()


def _encode_payload(payload: PayloadDict) -> str:
    """Write a payload as JSON in ASCII, in which it has as many bytes as in a request, and lone surrogates survive.

    Raises:
        TypeError: JSON does not give back what stands in a field.
    """
    for name, value in payload.items():
        if not isinstance(name, str):
            raise TypeError(f"the names in a payload must be strings, got {shown(name)}")
        if value is not None and not isinstance(value, (str, int, float)):
            raise TypeError(f"{name} cannot be stored: it must be a string or a number, got {shown(value)}")
    return _encode(payload)


def _do_late(action: Callable[[], Any]) -> None:
    try:
        done = action()
    except Exception as error:
        log_apart(logging.ERROR, "Lost a payload that a signal handler tracked: %s", error)
    else:
        if done is False:
            log_apart(logging.ERROR, "Lost a payload that a signal handler tracked: the store is full")


# The stores of this process. They must not be open while it forks; see `SQLiteFile.leave_to_parent`.
_stores: "Dict[int, weakref.ReferenceType[SQLiteEventStore]]" = {}
# By the identity of a thread that forks, the stores whose locks it has taken for that.
_forking: Dict[int, List[SQLiteEventStore]] = {}
# How long a fork waits for other threads; longer than any of them waits for another process by default.
_FORK_WAITS_SECONDS = 10.0


def _living() -> List[SQLiteEventStore]:
    return [store for store in (reference() for reference in _stores.copy().values()) if store is not None]


def _before_fork() -> None:
    held = _forking[threading.get_ident()] = []
    for store in _living():
        if store._lock.acquire(timeout=_FORK_WAITS_SECONDS):
            held.append(store)
            if not store._is_busy:
                store._file.disconnect()


def _after_fork_in_parent() -> None:
    for store in _forking.pop(threading.get_ident(), []):
        store._lock.release()


def _after_fork_in_child() -> None:
    _forking.clear()
    for store in _living():
        store._begin_anew()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows does not fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
