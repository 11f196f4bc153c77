"""The database file that event stores of several processes share: its schema, and how it is opened, lost and mended."""

import contextlib
import errno
import logging
import os
import shutil
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from threading import Thread, enumerate as living_threads
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Optional, Tuple, TypeVar

if sys.platform != "win32":  # pragma: no branch
    import fcntl

if TYPE_CHECKING:
    import sqlite3

__all__ = ["FILE_LOGGER", "SCHEMA", "SQLiteFile", "SQLiteFileError", "figure", "finish_log", "log_apart", "transaction"]

logger = logging.getLogger(__name__)

FILE_LOGGER = __name__
_LOG_THREAD = "snowplow-store-log"

# Each step leads from one version of the schema to the next, and `PRAGMA user_version` counts those that are done. A
# step that was released is never changed. It leaves the statements of the version before it working, because processes
# with that version may have the file open.
SCHEMA: Tuple[Tuple[str, ...], ...] = (
    (
        # What tells this file from another at the same path.
        "CREATE TABLE file (key BLOB NOT NULL)",
        "INSERT INTO file VALUES (randomblob(16))",
        # AUTOINCREMENT never gives a number again: an owner whose lease was lost must not remove another payload.
        "CREATE TABLE payload (id INTEGER PRIMARY KEY AUTOINCREMENT, added_at REAL NOT NULL, json TEXT NOT NULL)",
        # A store that has taken payloads out; `identity` is the process's.
        """CREATE TABLE owner (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            identity TEXT NOT NULL,
            renewed_at REAL NOT NULL,
            lease_seconds REAL NOT NULL
        )""",
        # Beside the payloads, so that to hand one out does not write it again.
        "CREATE TABLE claim (payload_id INTEGER PRIMARY KEY, owner_id INTEGER NOT NULL)",
        # How many payloads wait is known without counting them: as many as ever came, which is the last number given,
        # without those that are removed or claimed. So adding one writes a single row.
        "CREATE TABLE figures (gone INTEGER NOT NULL)",
        "INSERT INTO figures VALUES (0)",
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('payload', 0)",
        # Triggers keep that true also for somebody who mends the file by hand.
        """CREATE TRIGGER payload_removed AFTER DELETE ON payload BEGIN
            DELETE FROM claim WHERE payload_id = OLD.id;
            UPDATE figures SET gone = gone + 1;
        END""",
        "CREATE TRIGGER claim_made AFTER INSERT ON claim BEGIN UPDATE figures SET gone = gone + 1; END",
        "CREATE TRIGGER claim_ended AFTER DELETE ON claim BEGIN UPDATE figures SET gone = gone - 1; END",
    ),
)

# "Snow" in ASCII.
_APPLICATION_ID = 0x536E6F77
# Beyond this the log that SQLite writes ahead is cut, even if others have to wait for that. SQLite itself tries to from
# half of it on, which never succeeds while somebody always writes.
_MAX_LOG_BYTES = 8_000_000
# A file with so many free pages of 4,096 bytes is made smaller, if there is so little left in it that this is quick.
_MANY_FREE_PAGES = 4_000
_FEW_USED_PAGES = 1_000
# What has to stay free on the disk, because to remove payloads takes space as well: for the log, and for what is in the
# log to come into the file. Half of the disk, if that is less.
_RESERVE_BYTES = 8_000_000
# How long to wait for a lock after one has been waited for in vain.
_IMPATIENT_SECONDS = 0.05
# How often one call begins anew because the file was replaced.
_MAX_ATTEMPTS = 4

# Connections that a forked child has from its parent. They must neither be used nor closed.
_inherited: List[Any] = []

_T = TypeVar("_T")
_Identity = Optional[Tuple[int, int]]


class SQLiteFileError(Exception):
    """The file cannot be used at the moment; the text says why."""


class SQLiteFile:
    """A connection to the file. It is for one thread at a time, and for the process that opened it.

    The file's folder is locked while the file is created, opened or moved, so that of several processes one does it.

    Attributes:
        path: The absolute path.
        key: What tells the file that was last opened from another at the same path; None before.
    """

    def __init__(self, path: Path, timeout: float, synchronous: str) -> None:
        """Open nothing yet.

        Args:
            path: An absolute path.
            timeout: Seconds to wait for a lock.
            synchronous: What SQLite calls so.
        """
        self.path = str(path)
        self.key: Optional[bytes] = None
        self._path = path
        self._timeout = timeout
        self._synchronous = synchronous
        self._connection: Optional[sqlite3.Connection] = None
        self._identity: _Identity = None
        self._is_patient = True
        self._is_unusable = False

    def run(self, operation: "Callable[[sqlite3.Connection], _T]") -> _T:
        """Do something in the file, which is opened first if need be.

        A file that is corrupt is moved aside. If it was replaced meanwhile, by this process or another, the operation
        is done again in the new one: what was written into the old one is of no use to anybody.

        Args:
            operation: It may be called several times; `key` tells whether it is the same file.

        Raises:
            SQLiteFileError: The file cannot be used.
        """
        if self._is_unusable:
            raise SQLiteFileError(
                f"{self.path} was open when the process forked behind Python's back; use the store only after the fork"
            )
        sqlite3 = _import_sqlite3()
        corruption: Optional[Exception] = None
        for _ in range(_MAX_ATTEMPTS):
            try:
                connection = self._connection or self._open(corruption)
                corruption = None
                changes = connection.total_changes
                result = operation(connection)
            except sqlite3.Error as error:
                self._roll_back()
                if _is_corruption(error):
                    corruption = error
                elif self._is_current() or self._connection is None:
                    self._note_failure(error)
                    raise SQLiteFileError(f"{self.path}: {error}") from error
            except OSError as error:
                self._roll_back()
                if isinstance(error, TimeoutError):
                    # The folder is locked, and others wait for it as well.
                    self._is_patient = False
                raise SQLiteFileError(f"{self.path}: {error}") from error
            except BaseException:
                self._roll_back()
                raise
            else:
                if self._is_current():
                    # To read succeeds while somebody else writes, so it does not tell that the file is free.
                    if not self._is_patient and connection.total_changes > changes:
                        self._is_patient = True
                        _set_busy_timeout(connection, self._timeout)
                    return result
            self.disconnect()
        raise SQLiteFileError(f"{self.path} is replaced or becomes corrupt again and again")

    def is_open(self) -> bool:
        """Tell whether there is a connection."""
        return self._connection is not None

    def disconnect(self) -> None:
        """Close the connection; the next `run` opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Whatever it says, nobody uses it any more.
            with contextlib.suppress(Exception):
                connection.close()

    def hurry(self, connection: "sqlite3.Connection") -> None:
        """Wait for no lock from now on; an operation for `run`."""
        self._timeout = 0.0
        _set_busy_timeout(connection, 0.0)

    def leave_to_parent(self) -> None:
        """Begin anew in a forked child.

        SQLite knows in memory which locks the process has, and a child has none of its parent's. While it inherits a
        connection, it takes none when it opens the file, and the parent deletes the log under it. So the connection
        must be closed before the fork; where that was impossible the child cannot use the file.
        """
        if self._connection is not None:
            _inherited.append(self._connection)
            self._connection = None
            self._is_unusable = True

    def require_room(self) -> None:
        """See that the disk is not about to be full.

        Raises:
            SQLiteFileError: It is.
        """
        if not self._has_room():
            raise SQLiteFileError(f"{self.path}: the disk is full, up to a reserve for what is in the file already")

    def make_smaller(self, connection: "sqlite3.Connection") -> None:
        """Give space back that is not used any more, as far as that is quick; an operation for `run`."""
        free, pages = (figure(connection, f"PRAGMA {name}") for name in ("freelist_count", "page_count"))
        has_room = self._has_room()
        many = _MANY_FREE_PAGES if has_room else pages // 2
        is_wasteful = free >= many and pages - free <= _FEW_USED_PAGES
        if not is_wasteful and has_room and self._log_bytes() <= _MAX_LOG_BYTES:
            return
        # Nobody waits for this, and it waits for those who read, one of whom may hang.
        _set_busy_timeout(connection, _IMPATIENT_SECONDS)
        with contextlib.suppress(_import_sqlite3().OperationalError):
            if is_wasteful:
                connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        _set_busy_timeout(connection, self._seconds_to_wait())

    def _has_room(self) -> bool:
        disk = shutil.disk_usage(self._path.parent)
        return disk.free >= min(_RESERVE_BYTES, disk.total // 2)

    def _log_bytes(self) -> int:
        try:
            return _beside(self._path.resolve(), "-wal").stat().st_size
        except OSError:
            return 0

    def _open(self, corruption: Optional[Exception]) -> "sqlite3.Connection":
        real_path = self._path.resolve()
        with _locked_folder(real_path.parent, self._seconds_to_wait()):
            if corruption is not None and self._is_current():
                # Otherwise another process has done it.
                _move_aside(real_path, corruption)
            with contextlib.suppress(FileExistsError):
                # SQLite would make it readable for everybody. It gives its other files the permissions of this one.
                descriptor = os.open(real_path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
                try:
                    if hasattr(os, "fchmod"):  # pragma: no branch  # Windows has no such permissions
                        os.fchmod(descriptor, 0o600)
                finally:
                    os.close(descriptor)
            if not os.access(real_path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                # SQLite would make files beside it that stay read-only when this one does not.
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            self._identity = self._identity_now()
            connection: sqlite3.Connection = _import_sqlite3().connect(
                f"{self._path.as_uri()}?mode=rw",
                uri=True,
                timeout=self._seconds_to_wait(),
                isolation_level=None,
                # There is a lock, and a store may be used by several threads.
                check_same_thread=False,
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            return connection

    def _prepare(self, connection: "sqlite3.Connection") -> None:
        version = self._checked_version(connection)
        if figure(connection, "PRAGMA journal_mode = WAL") != "wal":
            raise SQLiteFileError(f"{self.path}: SQLite cannot use a write-ahead log on this file system")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute(f"PRAGMA journal_size_limit = {_MAX_LOG_BYTES}")
        connection.execute("PRAGMA temp_store = MEMORY")
        if version < len(SCHEMA):
            with transaction(connection):
                for step in SCHEMA[self._checked_version(connection) :]:
                    for statement in step:
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {len(SCHEMA)}")
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self.key = figure(connection, "SELECT key FROM file")

    def _checked_version(self, connection: "sqlite3.Connection") -> int:
        """Return the version of the schema, 0 for an empty file, and refuse files that are none of ours."""
        version: int = figure(connection, "PRAGMA user_version")
        if figure(connection, "PRAGMA application_id") != _APPLICATION_ID:
            if version or figure(connection, "SELECT count(*) FROM sqlite_master"):
                raise SQLiteFileError(f"{self.path} is a database of another application")
        elif version > len(SCHEMA):
            raise SQLiteFileError(
                f"{self.path} belongs to a newer version of snowplow-tracker: "
                f"its schema has the version {version}, and this one knows {len(SCHEMA)}"
            )
        return version

    def _is_current(self) -> bool:
        """Tell whether the file that was opened is the one that stands at the path."""
        return self._identity == self._identity_now()

    def _identity_now(self) -> _Identity:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is not None and connection.in_transaction:
            # What has failed already says why.
            with contextlib.suppress(Exception):
                connection.execute("ROLLBACK")

    def _note_failure(self, error: Exception) -> None:
        text = str(error)
        if "locked" in text:
            # Threads queue for the store, so they must not all wait one after the other.
            self._is_patient = False
            if self._connection is not None:
                _set_busy_timeout(self._connection, self._seconds_to_wait())
        elif "full" not in text:
            # Whatever it is, a fresh connection may see it otherwise.
            self.disconnect()

    def _seconds_to_wait(self) -> float:
        return self._timeout if self._is_patient else min(self._timeout, _IMPATIENT_SECONDS)


@contextlib.contextmanager
def transaction(connection: "sqlite3.Connection") -> Iterator[None]:
    """Write all or nothing; `SQLiteFile.run` rolls back what fails."""
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")


def figure(connection: "sqlite3.Connection", query: str) -> Any:
    """Return the one value that a query finds in each sound file.

    Raises:
        sqlite3.DatabaseError: It is not there, so the file is corrupt.
    """
    row = connection.execute(query).fetchone()
    if row is None or row[0] is None:
        raise _import_sqlite3().DatabaseError(f"malformed: nothing is found by {query}")
    return row[0]


def log_apart(level: int, message: str, *arguments: object) -> None:
    """Log in a thread of its own.

    A store is called with its emitter's lock held. A handler of the application's that tracks an event would wait for
    that lock, with its own lock held, which the log line waits for.
    """
    try:
        Thread(target=logger.log, args=(level, message, *arguments), name=_LOG_THREAD).start()
    except RuntimeError:
        # There are no new threads any more while the interpreter exits.
        logger.log(level, message, *arguments)


def finish_log() -> None:
    """Wait until all that was logged apart is told."""
    for thread in living_threads():
        if thread.name == _LOG_THREAD:
            thread.join()


@contextlib.contextmanager
def _locked_folder(folder: Path, timeout: float) -> Iterator[None]:
    """Keep other processes that do the same waiting; the lock leaves no file, and ends with its process."""
    if sys.platform == "win32":  # pragma: no cover  # nobody can move a file there that another process has open
        yield
        return
    deadline = time.monotonic() + timeout
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"another process has locked {folder}") from None
            time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


def _move_aside(path: Path, corruption: Exception) -> None:
    target = _beside(path, f".corrupt-{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%fZ}")
    path.rename(target)
    # The log is of no use without the file, and SQLite would apply it to the new one.
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            _beside(path, suffix).rename(_beside(target, suffix))
    log_apart(
        logging.ERROR, "%s is corrupt (%s): moved it aside to %s, and begin a new one", path, corruption, target.name
    )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _set_busy_timeout(connection: "sqlite3.Connection", seconds: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")


def _is_corruption(error: Exception) -> bool:
    # Python has SQLite's error codes from 3.11 on only. The texts are SQLite's own, in any language.
    return any(text in str(error) for text in ("malformed", "not a database", "no such table"))


def _import_sqlite3() -> Any:
    """Import sqlite3 when it is needed: not every application does, and not every Python has it."""
    try:
        import sqlite3
    except ImportError as error:
        raise SQLiteFileError("this Python was built without sqlite3, which SQLiteEventStore needs") from error
    return sqlite3
