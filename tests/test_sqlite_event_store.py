"""The store in a SQLite file: real files, several processes, and all that can happen to a file."""

import contextlib
import ctypes
import errno
import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from pathlib import Path
from unittest import mock

import pytest
from support import eids, eventually, numbered

from snowplow_tracker import Emitter, SQLiteEventStore, _sqlite_file, sqlite_event_store
from snowplow_tracker._sqlite_file import SQLiteFileError
from snowplow_tracker.event_store import EventStore

LIMIT_SECONDS = 15

forks = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork"),
    # From 3.12 on Python warns of forks while there are threads.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
]
needs_root = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and os.geteuid() == 0), reason="only root may mount a file system"
)
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the platform has no /proc")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.db"


@pytest.fixture
def open_store(path):
    """Opens stores, all on the same file unless told otherwise, and closes them in the end."""
    stores = []

    def open_another(at=path, **options):
        stores.append(SQLiteEventStore(at, **options))
        return stores[-1]

    yield open_another
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


class Clocks:
    """The time that stores see. What they do at intervals they do when a test says so, however slow the machine is."""

    def __init__(self):
        self.shift = 0.0
        self.uptime = 1_000.0

    def advance(self, seconds):
        self.shift += seconds
        self.uptime += seconds


@pytest.fixture(autouse=True)
def clocks(monkeypatch):
    clocks = Clocks()
    now = time.time
    fake = mock.Mock(time=lambda: now() + clocks.shift, monotonic=lambda: clocks.uptime)
    monkeypatch.setattr(sqlite_event_store, "time", fake)
    return clocks


@pytest.fixture(autouse=True)
def _logged_apart(monkeypatch):
    """A test has its log lines when a call returns; `test_log_lines_are_written_without_the_lock` has the thread."""
    monkeypatch.setattr(_sqlite_file, "Thread", ImmediateThread)


class ImmediateThread(threading.Thread):
    def start(self):
        self.run()


def fill(store, count, start=0):
    for payload in numbered(count, start):
        assert store.add_event(payload)


def take(store, limit=None):
    return eids(store.get_events_batch(limit))


def execute(path, statement, *arguments):
    connection = sqlite3.connect(str(path), isolation_level=None)
    try:
        return connection.execute(statement, arguments).fetchall()
    finally:
        connection.close()


@contextlib.contextmanager
def locked(path):
    """Write to the file for as long as the block runs, as another process might."""
    connection = sqlite3.connect(str(path), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


def messages(caplog, level):
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def files(folder):
    return sorted(entry.name for entry in folder.iterdir())


def run_in_child(action):
    """Run an action in a forked child, and wait for its end; a child that fails or hangs fails the test."""
    child = os.fork()
    if child == 0:
        end_child_with(action)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child failed or hung, see stderr; its status is {status}"


def end_child_with(action):
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT_SECONDS)
        action()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


class Program:
    """A process of its own that uses the store, until it is killed or its input ends."""

    def __init__(self, path, script):
        script = "import sys\nfrom snowplow_tracker import SQLiteEventStore\n" + textwrap.dedent(script)
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def read_line(self):
        return self.process.stdout.readline().decode().strip()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()
        self.process.wait(LIMIT_SECONDS)
        self.process.stdout.close()


HOLDS_A_BATCH = """
    store = SQLiteEventStore(sys.argv[1])
    print(len(store.get_events_batch()), flush=True)
    sys.stdin.read()
"""


# The contract


def test_store_in_a_file_is_an_event_store(store):
    """It has what the protocol asks for, and says that payloads outlive the process."""
    assert isinstance(store, EventStore)
    assert store.is_durable


def test_store_does_nothing_before_it_is_used(path):
    """A store is built while an application is imported: no file is created, also not by closing it."""
    store = SQLiteEventStore(path)
    store.close()

    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"path": 1}, TypeError, "path must be a path, got 1"),
        ({"path": ":memory:"}, ValueError, "path must be the path of a file, got ':memory:'; InMemoryEventStore"),
        ({"path": ""}, ValueError, "path must be the path of a file, got ''"),
        ({"buffer_capacity": 0}, ValueError, "buffer_capacity must be positive, got 0"),
        ({"buffer_capacity": None}, TypeError, "buffer_capacity must be an integer, got None"),
        ({"max_age": 0}, ValueError, "max_age must be positive and finite, got 0"),
        ({"lease_seconds": -1}, ValueError, "lease_seconds must be positive and finite, got -1"),
        ({"synchronous": "extra"}, ValueError, "synchronous must be one of 'off', 'normal', 'full', got 'extra'"),
        ({"timeout": -1}, ValueError, "timeout must not be negative, got -1"),
    ],
)
def test_wrong_settings_are_refused(path, options, error, message):
    """A wrong value raises at the line that gives it, with its name."""
    with pytest.raises(error, match=f"^{message}"):
        SQLiteEventStore(**{"path": path, **options})


def test_path_is_that_of_the_folder_the_process_was_in(monkeypatch, tmp_path, open_store):
    """A process that changes its folder keeps its file."""
    monkeypatch.chdir(tmp_path)
    store = open_store("events.db")
    monkeypatch.chdir("/")

    fill(store, 1)

    assert store.path == str(tmp_path / "events.db")
    assert (tmp_path / "events.db").exists()


def test_payloads_are_handed_out_in_order(store):
    """The oldest payload goes first."""
    fill(store, 3)

    assert take(store) == ["0", "1", "2"]


def test_payload_is_handed_out_once(store):
    """What is in flight is not handed out again, and does not count as waiting."""
    fill(store, 3)

    assert take(store, 2) == ["0", "1"]
    assert store.size() == 1
    assert take(store) == ["2"]
    assert store.get_events_batch() == []


def test_settled_payloads_are_removed(store, path):
    """What is delivered leaves the file."""
    fill(store, 2)

    store.cleanup(store.get_events_batch(), False)

    assert store.size() == 0
    assert execute(path, "SELECT * FROM payload") == execute(path, "SELECT * FROM claim") == []


def test_retried_payloads_go_before_later_ones(store):
    """A payload that comes back keeps its place, whatever the order in which batches come back."""
    fill(store, 5)
    first, second = store.get_events_batch(2), store.get_events_batch(2)

    store.cleanup(second[::-1], True)
    store.cleanup(first[1:], True)
    store.cleanup(first[:1], False)

    assert store.size() == 4
    assert take(store) == ["1", "2", "3", "4"]


def test_equal_payloads_are_not_the_same(store):
    """Payloads are told apart by identity."""
    for _ in range(3):
        store.add_event({"eid": "equal"})
    batch = store.get_events_batch()

    store.cleanup(batch[:1], False)
    store.cleanup(batch[1:], True)

    assert take(store) == ["equal", "equal"]


def test_payload_that_was_handed_out_again_is_another_object(store):
    """What was given back is no longer known by its old object: settling that one twice harms nobody."""
    fill(store, 1)
    first = store.get_events_batch()
    store.cleanup(first, True)
    store.get_events_batch()

    store.cleanup(first, False)

    assert len(execute(store.path, "SELECT * FROM payload")) == 1


def test_attempts_timestamp_is_not_stored(store):
    """`stm` belongs to an attempt, so the next one begins without it."""
    fill(store, 1)
    batch = store.get_events_batch()
    Emitter.attach_sent_timestamp(batch)

    store.cleanup([*batch, {"eid": "stranger", "stm": "1"}], True)

    assert [sorted(payload) for payload in store.get_events_batch()] == [["e", "eid", "p", "tv"], ["eid"]]


def test_strangers_are_added_if_they_need_a_retry(open_store):
    """Payloads that never were in the store are added, even if it is full, and ignored when they are settled."""
    store = open_store(buffer_capacity=1)
    fill(store, 1)

    store.cleanup([{"eid": "delivered"}], False)
    store.cleanup([{"eid": "retried"}], True)

    assert take(store) == ["0", "retried"]


def test_stranger_that_cannot_be_stored_is_reported(store, caplog):
    """It is lost with a line in the log, and the rest of its batch is kept."""
    store.cleanup([{"eid": "1", "value": object}, {"eid": "2"}], True)

    assert take(store) == ["2"]
    assert messages(caplog, logging.ERROR) == [
        "Lost a payload: value cannot be stored: it must be a string or a number, got <class 'object'>"
    ]


def test_nothing_is_settled_without_io(path):
    """An empty batch touches no file."""
    SQLiteEventStore(path).cleanup([], True)

    assert not path.exists()


@pytest.mark.parametrize(
    "value",
    ["", "text", "ä 漢字 😀", "\ud83d", "\x00\n\"'\\", 0, -1, 2**80, 0.1, -1e-300, 1e22, True, None],
    ids=ascii,
)
def test_values_come_back_as_they_were(store, value):
    """Strings and numbers survive exactly, lone surrogates included."""
    store.add_event({"value": value, "ключ": "name"})

    (payload,) = store.get_events_batch()

    assert payload == {"value": value, "ключ": "name"}
    assert type(payload["value"]) is type(value)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"ok": 1, "co": {"a": 1}}, r"co cannot be stored: it must be a string or a number, got \{'a': 1\}"),
        ({"co": b"x"}, "co cannot be stored: it must be a string or a number, got b'x'"),
        ({1: "x"}, "the names in a payload must be strings, got 1"),
    ],
)
def test_values_that_would_change_are_refused(store, payload, message):
    """What JSON does not give back as it was is a TypeError that names the field."""
    with pytest.raises(TypeError, match=f"^{message}$"):
        store.add_event(payload)

    assert store.size() == 0


def test_store_is_full_at_its_capacity(open_store):
    """What is over the capacity is refused; what is handed out does not count, and what comes back is taken."""
    store = open_store(buffer_capacity=2)
    fill(store, 2)
    assert not store.add_event({"eid": "refused"})

    batch = store.get_events_batch()
    fill(store, 2, start=2)
    store.cleanup(batch, True)

    assert store.size() == 4
    assert not store.add_event({"eid": "refused"})


def test_hand_out_is_limited_in_number(store, monkeypatch):
    """A backlog stays out of memory: there are at most 1,000 payloads in one hand-out, whoever asks for more."""
    fill(store, 1_002)

    assert len(store.get_events_batch(5_000)) == 1_000
    assert store.get_events_batch(0) == []
    assert len(store.get_events_batch()) == 2


def test_hand_out_is_limited_in_bytes(store):
    """There are at most 875,000 bytes in one hand-out, but at least one payload."""
    for size in (290_000, 289_000, 290_000, 1_000_000, 1):
        store.add_event({"eid": "x" * size})

    sizes = [[len(eid) for eid in take(store)] for _ in range(4)]

    assert sizes == [[290_000, 289_000, 290_000], [1_000_000], [1], []]


def test_cost_does_not_grow_with_the_backlog(open_store):
    """To open the file, to count, to add and to hand out takes as many steps with a long backlog as without."""
    steps = []

    def count_step():
        steps[-1] += 1

    for backlog in (0, 3_000):
        fill(open_store(), backlog)
        store = open_store()
        real_prepare = store._file._prepare
        steps.append(0)
        store._file._prepare = lambda connection, prepare=real_prepare: (
            connection.set_progress_handler(count_step, 1),
            prepare(connection),
        )
        store.size()
        fill(store, 1)
        store.cleanup(store.get_events_batch(1), True)
        store.close()

    few, many = steps
    assert 0 < many < few * 1.5


# Several stores on one file


def test_stores_share_a_file(open_store):
    """What one store adds another hands out, and nobody hands it out twice."""
    first, second = open_store(), open_store()
    fill(first, 1)
    fill(second, 2, start=1)

    assert (first.size(), second.size()) == (3, 3)
    assert take(second, 2) == ["0", "1"]
    assert take(first) == ["2"]
    assert take(second) == []


def test_payloads_survive_their_store(open_store):
    """A store that is closed leaves what waits, and what it had handed out, to the next."""
    store = open_store()
    fill(store, 3)
    store.get_events_batch(2)
    store.close()

    assert take(open_store()) == ["0", "1", "2"]


def test_closed_store_opens_again_when_it_is_used(store):
    """Closing is no end; what was handed out before can still be settled."""
    fill(store, 2)
    batch = store.get_events_batch(1)
    store.close()

    store.cleanup(batch, False)

    assert take(store) == ["1"]


def test_files_beside_the_database_go_with_the_last_store(open_store, tmp_path):
    """A file that nobody uses is one file."""
    first, second = open_store(), open_store()
    fill(first, 1)
    fill(second, 1)
    assert files(tmp_path) == ["events.db", "events.db-shm", "events.db-wal"]

    first.close()
    second.close()

    assert files(tmp_path) == ["events.db"]


def test_store_that_nobody_holds_gives_its_payloads_back(open_store):
    """A store that is garbage closes its file, and what it has handed out waits again."""
    lost = SQLiteEventStore(open_store().path)
    fill(lost, 2)
    lost.get_events_batch()

    del lost

    eventually(lambda: open_store().size() == 2)


def test_store_that_becomes_garbage_waits_for_nobody(open_store, path):
    """A collector of garbage may run in the midst of another store's transaction; the lease will end."""
    other = open_store()
    fill(other, 1)
    lost = [SQLiteEventStore(path)]
    assert len(lost[0].get_events_batch()) == 1

    other._run(
        lambda connection: (connection.execute("BEGIN IMMEDIATE"), lost.clear(), connection.execute("COMMIT")), 0
    )

    assert other.size() == 0


def test_store_that_was_never_complete_is_garbage_without_an_error():
    """A constructor that raised leaves nothing to close."""
    SQLiteEventStore.__new__(SQLiteEventStore).__del__()


def test_emitters_share_a_store(collector, open_store):
    """Two emitters on two stores of one file deliver each payload once."""
    first = Emitter(collector.url, batch_size=100, event_store=open_store())
    second = Emitter(collector.url, batch_size=100, event_store=open_store())
    for payload in numbered(20):
        first.input(payload)

    second.sync_flush()
    first.sync_flush()

    assert eids(collector.payloads) == [str(number) for number in range(20)]


def test_threads_share_a_store(store):
    """Threads may add and take at the same time; nothing is lost, and nothing is handed out twice."""
    taken = []

    def add(start):
        fill(store, 50, start)

    def deliver():
        while len(taken) < 200:
            batch = store.get_events_batch(7)
            taken.extend(eids(batch))
            store.cleanup(batch, False)

    threads = [threading.Thread(target=add, args=(start,)) for start in (0, 50, 100, 150)]
    threads += [threading.Thread(target=deliver) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(int, taken)) == list(range(200))


# Claims, owners and leases


@needs_proc
def test_payloads_of_a_killed_process_wait_again(store, path, caplog):
    """When a process is seen to be gone its payloads are handed out again, at once and in their place."""
    caplog.set_level(logging.INFO)
    fill(store, 3)
    with Program(path, HOLDS_A_BATCH) as program:
        assert program.read_line() == "3"
        fill(store, 1, start=3)
        assert store.size() == 1
        program.process.kill()
        program.process.wait()

    store._look_at = 0.0

    assert store.size() == 4
    assert take(store) == ["0", "1", "2", "3"]
    assert messages(caplog, logging.INFO) == [f"3 payloads wait again whose sender is gone or hangs: {path}"]


def test_payloads_of_a_living_process_are_its_own(open_store, path):
    """Nobody takes what another process is sending, even one that looks for the first time."""
    fill(open_store(), 3)
    with Program(path, HOLDS_A_BATCH) as program:
        assert program.read_line() == "3"

        assert open_store().get_events_batch() == []


def test_owners_are_looked_at_once_in_a_while(open_store, clocks):
    """To look for processes that are gone costs something, so it is not done at each call."""
    store, other = open_store(), open_store()
    fill(store, 1)
    other.get_events_batch()
    store.size()

    with mock.patch.object(sqlite_event_store, "is_gone", return_value=True) as look:
        for _ in range(10):
            store.size()
        look.assert_not_called()
        clocks.advance(1.1)
        assert store.size() == 1

    look.assert_called_once()


def test_lease_ends(open_store, clocks):
    """What an owner holds that gives no sign of life is handed out again when its lease has ended."""
    hung, store = open_store(lease_seconds=10), open_store()
    fill(hung, 2)
    hung.get_events_batch()
    clocks.advance(9)
    assert take(store) == []

    clocks.advance(2)

    assert take(store) == ["0", "1"]


def test_lease_is_renewed_by_use(open_store, clocks):
    """An owner that uses its store keeps what it holds, however long its requests take."""
    slow, store = open_store(lease_seconds=10), open_store()
    fill(slow, 2)
    slow.get_events_batch()

    for _ in range(5):
        clocks.advance(6)
        slow.size()

    assert store.get_events_batch() == []


def test_lease_is_renewed_by_an_emitter_that_sends(collector, open_store, clocks):
    """A hand-out by GET is many requests, which may take longer than a lease; others get nothing of it meanwhile."""
    store, other = open_store(lease_seconds=10), open_store()
    fill(store, 9)
    taken_by_other = []

    class Slow(Emitter):
        def http_get(self, payload):
            clocks.advance(4)
            taken_by_other.extend(take(other))
            return super().http_get(payload)

    Slow(collector.url, method="get", event_store=store).sync_flush()

    assert taken_by_other == []
    assert eids(collector.payloads) == [str(number) for number in range(9)]


def test_lease_is_renewed_when_a_quarter_is_over(open_store, path, clocks):
    """Before that, nothing is written."""
    store = open_store(lease_seconds=10)
    fill(store, 1)
    store.renew()
    batch = store.get_events_batch()
    renewals = []
    for seconds in (0, 2, 1, 0):
        clocks.advance(seconds)
        store.renew()
        renewals += execute(path, "SELECT renewed_at FROM owner")
    store.cleanup(batch, False)
    clocks.advance(9)
    store.renew()
    renewals += execute(path, "SELECT renewed_at FROM owner")

    assert [renewal == renewals[0] for renewal in renewals] == [True, True, False, False, False]
    assert renewals[2:] == [renewals[2]] * 3


def test_lease_does_not_outlast_a_clock_that_is_set_back(open_store, clocks):
    """An owner whose lease seems to begin in the future has lost it."""
    hung, store = open_store(), open_store()
    fill(hung, 1)
    hung.get_events_batch()

    clocks.shift = -1_000_000

    assert take(store) == ["0"]


def test_owner_that_lost_its_lease_releases_nothing(open_store, clocks):
    """A payload that another owner holds by now is not handed out a third time."""
    slow, store = open_store(), open_store()
    fill(slow, 2)
    batch = slow.get_events_batch()
    clocks.advance(121)
    store.get_events_batch()

    slow.cleanup(batch, True)

    assert store.size() == 0
    assert slow.get_events_batch() == []


def test_owner_that_lost_its_lease_removes_what_it_delivered(open_store, clocks):
    """What is delivered need not be sent once more, whoever holds it."""
    slow, store = open_store(), open_store()
    fill(slow, 2)
    batch = slow.get_events_batch()
    clocks.advance(121)
    again = store.get_events_batch()

    slow.cleanup(batch, False)
    store.cleanup(again, True)

    assert store.size() == 0
    assert store.get_events_batch() == []


def test_owner_that_lost_its_lease_gets_another(open_store, clocks):
    """An owner that comes back after a long time is an owner like any other."""
    slow, store = open_store(), open_store()
    fill(slow, 1)
    slow.get_events_batch()
    clocks.advance(121)
    store.get_events_batch()
    fill(slow, 1, start=1)

    slow.size()

    assert take(slow) == ["1"]
    assert take(store) == []


def test_owner_keeps_a_lease_that_was_renewed_meanwhile(open_store, clocks):
    """Between a look at an owner and the removal of its claims it may give a sign of life."""
    slow, store = open_store(), open_store()
    fill(slow, 1)
    slow.get_events_batch()
    clocks.advance(121)

    def renew(identity):
        slow._renew_at = 0.0
        slow._try(slow._renew)
        return True

    clocks.shift -= 121
    with mock.patch.object(sqlite_event_store, "is_gone", side_effect=renew):
        assert store.get_events_batch() == []


def test_number_of_a_payload_is_never_given_again(open_store, clocks):
    """An owner that lost its lease must not remove a payload that came later."""
    slow, store = open_store(), open_store()
    fill(slow, 1)
    batch = slow.get_events_batch()
    clocks.advance(121)
    store.cleanup(store.get_events_batch(), False)
    fill(store, 1, start=1)

    slow.cleanup(batch, False)

    assert take(store) == ["1"]


def test_figures_stay_true_when_the_file_is_mended_by_hand(store, path):
    """Whoever removes payloads or claims with another program need not know of the count."""
    fill(store, 5)
    store.get_events_batch(2)

    execute(path, "DELETE FROM payload WHERE id IN (1, 3)")
    assert store.size() == 2
    execute(path, "DELETE FROM claim")
    assert store.size() == 3
    execute(path, "DELETE FROM payload")

    assert store.size() == 0


def test_wrong_figures_do_not_hang(store, path):
    """A count that says more than there is ends a hand-out all the same."""
    fill(store, 1)
    execute(path, "UPDATE figures SET gone = -7")

    assert take(store) == ["0"]
    assert take(store) == []


# Age


def test_old_payloads_are_dropped(open_store, clocks, caplog):
    """What has waited for too long is not handed out any more; it is counted and logged."""
    store = open_store(max_age=60)
    fill(store, 3)
    clocks.advance(61)
    fill(store, 1, start=3)

    assert take(store) == ["3"]

    assert (store.size(), store.expired) == (0, 3)
    assert messages(caplog, logging.ERROR) == ["Lost 3 payloads: they were older than 60 s"]


def test_retried_payload_grows_old(open_store, clocks):
    """Its age counts from when it came, not from the last attempt."""
    store = open_store(max_age=60)
    fill(store, 1)
    for _ in range(2):
        clocks.advance(25)
        store.cleanup(store.get_events_batch(), True)
    assert store.size() == 1
    clocks.advance(25)

    assert store.get_events_batch() == []
    assert store.expired == 1


def test_many_old_payloads_are_dropped_by_and_by(open_store, clocks, monkeypatch):
    """A long backlog that is too old does not keep other processes waiting for one long transaction."""
    monkeypatch.setattr(sqlite_event_store, "_MAX_EXPIRED", 10)
    store = open_store(max_age=60)
    fill(store, 35)
    clocks.advance(61)
    fill(store, 1, start=35)

    assert take(store) == ["35"]
    assert store.expired == 35


@pytest.mark.parametrize("text", ["no JSON", "[1]"])
def test_payload_that_cannot_be_read_is_dropped(store, path, caplog, text):
    """What somebody or a bad disk has spoiled must not hold up all that comes later."""
    fill(store, 2)
    execute(path, "UPDATE payload SET json = ? WHERE id = 1", text)

    assert take(store) == ["1"]
    store._look_at = 0.0
    assert store.size() == 0
    (message,) = messages(caplog, logging.ERROR)
    assert message.startswith(f"Lost a payload: what {path} has of it cannot be read: ")
    assert len(execute(path, "SELECT * FROM payload")) == 1


def test_payloads_behind_a_batch_that_cannot_be_read_are_found(store, path):
    """A hand-out with nothing readable in it goes on to the next payloads."""
    fill(store, 1_001)
    execute(path, "UPDATE payload SET json = 'no JSON' WHERE id <= 1000")

    assert take(store) == ["1000"]


# Permissions


@pytest.mark.skipif(sys.platform == "win32", reason="the platform has no such permissions")
@pytest.mark.parametrize("umask", [0, 0o277], ids=oct)
def test_files_are_private(open_store, tmp_path, umask):
    """Payloads hold personal data: nobody else reads the files, whatever the process's umask is."""
    before = os.umask(umask)
    try:
        fill(open_store(), 1)
    finally:
        os.umask(before)

    modes = {entry.name: oct(entry.stat().st_mode & 0o777) for entry in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["events.db", "events.db-shm", "events.db-wal"], "0o600")


@pytest.mark.skipif(sys.platform == "win32", reason="the platform has no such permissions")
def test_permissions_of_a_file_that_is_there_are_kept(open_store, path):
    """Who shares a file among users has prepared it."""
    path.touch()
    path.chmod(0o660)

    fill(open_store(), 1)

    assert path.stat().st_mode & 0o777 == 0o660
    assert path.with_name("events.db-wal").stat().st_mode & 0o777 == 0o660


# Files that cannot be used


def test_corrupt_file_is_moved_aside(store, path, tmp_path, caplog):
    """A file that is no database is kept under another name, and tracking goes on in a new one."""
    path.write_bytes(b"no database" * 1000)

    fill(store, 1)

    (aside,) = tmp_path.glob("events.db.corrupt-*")
    assert aside.read_bytes() == b"no database" * 1000
    assert take(store) == ["0"]
    (message,) = messages(caplog, logging.ERROR)
    assert message == (
        f"{path} is corrupt (file is not a database): moved it aside to {aside.name}, and begin a new one"
    )


def damage(path):
    """Spoil all that is in a file but its first page, and write what is in its log over it."""
    execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


def test_file_that_becomes_corrupt_is_moved_aside_with_its_log(store, path, tmp_path, caplog):
    """Corruption that shows while the file is in use is no end either; the new file begins with a log of its own."""
    fill(store, 200)
    reader = sqlite3.connect(str(path))
    reader.execute("SELECT 1 FROM figures").fetchall()
    damage(path)

    store.get_events_batch()
    fill(store, 1)

    assert take(store) == ["0"]
    assert len(messages(caplog, logging.ERROR)) == 1
    (aside,) = (name for name in files(tmp_path) if "corrupt" in name and name.endswith("Z"))
    assert f"{aside}-wal" in files(tmp_path)
    reader.close()


@pytest.mark.parametrize("loss", ["DELETE FROM figures", "DELETE FROM file", "DROP TABLE claim"])
@pytest.mark.parametrize("use", [lambda store: store.add_event({}), SQLiteEventStore.size], ids=["add", "size"])
def test_file_that_lacks_something_is_moved_aside(store, path, tmp_path, loss, use):
    """SQLite reads it without an error, but there is no way to go on with it."""
    fill(store, 1)
    store.close()
    execute(path, loss)

    use(store)
    store.get_events_batch()
    fill(store, 1)

    assert take(store) == ["0"]
    assert len(list(tmp_path.glob("events.db.corrupt-*Z"))) == 1


def test_only_one_process_moves_a_corrupt_file_aside(open_store, path, tmp_path, caplog):
    """Of several stores that see the same corrupt file only the first moves it; the others find the new one."""
    stores = [open_store() for _ in range(3)]
    for store in stores:
        fill(store, 70)
    damage(path)

    for number, store in enumerate(stores):
        store.add_event({"eid": str(number)})

    assert len(list(tmp_path.glob("*.corrupt-*Z"))) == 1
    assert len(messages(caplog, logging.ERROR)) == 1
    assert take(stores[0]) == ["0", "1", "2"]


def test_processes_that_see_a_corrupt_file_at_the_same_time_agree(path, tmp_path):
    """Nobody moves the new file aside that another has just begun."""
    script = """
        store = SQLiteEventStore(sys.argv[1])
        for line in sys.stdin:
            store.add_event({"eid": "x"})
            store.close()
            print("done", flush=True)
    """
    programs = [Program(path, script) for _ in range(3)]
    with programs[0], programs[1], programs[2]:
        for _ in range(4):
            path.write_bytes(b"no database" * 1000)
            for program in programs:
                program.process.stdin.write(b"\n")
                program.process.stdin.flush()
            assert [program.read_line() for program in programs] == ["done"] * 3

            assert execute(path, "SELECT count(*) FROM payload") == [(3,)]

    assert len(list(tmp_path.glob("*.corrupt-*Z"))) == 4


def test_payloads_in_flight_survive_a_corrupt_file(store, path):
    """What was handed out before, and has to be sent again, goes into the new file."""
    fill(store, 100)
    batch = store.get_events_batch()
    damage(path)
    fill(store, 1, start=100)

    store.cleanup(batch[:2], True)
    store.cleanup(batch[2:], False)

    assert take(store) == ["100", "0", "1"]


def test_file_that_is_always_corrupt_is_an_error(store, path):
    """A bad disk must not be filled with files that are moved aside."""
    error = sqlite3.DatabaseError("database disk image is malformed")
    preparing = mock.patch.object(store._file, "_prepare", side_effect=error)
    with preparing, pytest.raises(SQLiteFileError, match=r"is replaced or becomes corrupt again and again$"):
        store.add_event({})


@pytest.mark.parametrize("way", ["delete", "rename"])
def test_file_that_was_taken_away_is_begun_anew(store, path, way):
    """Nothing is written into a file that nobody finds any more."""
    fill(store, 2)
    batch = store.get_events_batch(1)
    if way == "delete":
        path.unlink()
    else:
        path.rename(path.with_name("rotated"))

    assert store.add_event({"eid": "new"})
    store.cleanup(batch, True)

    assert len(execute(path, "SELECT * FROM payload")) == 2
    assert take(store) == ["new", "0"]


@pytest.mark.parametrize("replacement", [None, "another"])
def test_payloads_in_flight_survive_their_file(store, path, replacement):
    """What comes back for a retry after its file was taken away goes into the file that is there."""
    fill(store, 3)
    batch = store.get_events_batch()
    path.unlink()
    if replacement is not None:
        SQLiteEventStore(path).add_event({"eid": replacement})

    store.cleanup(batch[:1], False)
    store.cleanup(batch[1:], True)

    assert take(store) == [*([] if replacement is None else [replacement]), "1", "2"]


def test_error_in_a_file_that_was_taken_away_is_none(store, path):
    """What fails because the file is not there any more is done again in the new one."""
    store.size()

    def add(connection):
        if not execute(path, "SELECT * FROM payload"):
            path.unlink()
            SQLiteEventStore(path).add_event({"eid": "new"})
            raise sqlite3.OperationalError("disk I/O error")
        return store._insert('{"eid": "again"}', connection)

    assert store._run(add, None)

    assert take(store) == ["new", "again"]


def test_store_that_nobody_holds_does_not_bring_a_deleted_file_back(path, tmp_path):
    """Nor does garbage."""
    store = SQLiteEventStore(path)
    fill(store, 1)
    path.unlink()

    store.__del__()

    assert "events.db" not in files(tmp_path)


def test_closing_does_not_bring_a_deleted_file_back(store, path, tmp_path):
    """A file that was deleted in the end stays so."""
    fill(store, 1)
    store.get_events_batch()
    path.unlink()

    store.close()

    assert "events.db" not in files(tmp_path)


def test_missing_folder_is_an_error(open_store, tmp_path):
    """The error says which folder is missing, and the store works as soon as it is there."""
    store = open_store(tmp_path / "folder" / "events.db")
    with pytest.raises(SQLiteFileError, match=r"No such file or directory: .*folder"):
        store.add_event({})

    (tmp_path / "folder").mkdir()

    assert store.add_event({})


def test_folder_at_the_path_is_an_error(open_store, tmp_path):
    """What cannot be opened is an error with SQLite's words."""
    with pytest.raises(SQLiteFileError, match=f"^{tmp_path}: unable to open database file$"):
        open_store(tmp_path).add_event({})


def test_database_of_another_application_is_left_alone(open_store, path):
    """A wrong path must not spoil somebody's data."""
    execute(path, "CREATE TABLE theirs (x)")

    with pytest.raises(SQLiteFileError, match=r"is a database of another application$"):
        open_store().add_event({})

    assert execute(path, "SELECT name FROM sqlite_master") == [("theirs",)]
    assert execute(path, "PRAGMA journal_mode") == [("delete",)]


def test_file_system_without_shared_memory_is_an_error(open_store, path):
    """A file system on which SQLite cannot write a log ahead is not good enough for several processes."""
    store = open_store()
    connection = mock.Mock()
    connection.execute.return_value.fetchone.return_value = [0]
    with pytest.raises(SQLiteFileError, match=r"SQLite cannot use a write-ahead log on this file system$"):
        store._file._prepare(connection)


def as_nobody(action):
    """Do something in a child without the rights of root, who may write anywhere."""

    def act():
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        action()

    run_in_child(act)


@pytest.mark.skipif(sys.platform == "win32", reason="the platform has no such permissions")
@pytest.mark.parametrize("which", ["file", "folder"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_read_only_file_or_folder_is_an_error(which):
    """A store that may not write says so, and changes nothing."""
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "events.db"
        if which == "file":
            SQLiteEventStore(path).add_event({})
            path.chmod(0o444)
        folder.chmod(0o755)

        def add():
            store = SQLiteEventStore(path)
            with pytest.raises(SQLiteFileError, match=r"Permission denied"):
                store.add_event({})
            assert files(folder) == (["events.db"] if which == "file" else [])

        if os.geteuid() == 0:
            as_nobody(add)
        else:
            folder.chmod(0o555)
            add()
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="the platform has no such permissions")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_file_that_may_be_written_again_is_used_again():
    """Somebody made it read-only by mistake, and mends that while the application runs."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o777)

        def use():
            path = folder / "events.db"
            store = SQLiteEventStore(path)
            fill(store, 1)
            store.close()
            path.chmod(0o400)
            with pytest.raises(SQLiteFileError, match=r"events.db: \[Errno 13\] Permission denied$"):
                store.add_event({})
            path.chmod(0o600)
            fill(store, 2, start=1)
            assert store.size() == 3

        if os.geteuid() == 0:
            as_nobody(use)
        else:
            use()
    finally:
        shutil.rmtree(folder)


def test_file_on_a_read_only_file_system_is_an_error(open_store, path, monkeypatch):
    """There root may write no more than others."""
    store = open_store()
    fill(store, 1)
    store.close()

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_, **__: False)
        with pytest.raises(SQLiteFileError, match=r"Permission denied$"):
            store.add_event({})

    assert take(store) == ["0"]


def test_python_without_sqlite3_has_the_other_stores(open_store, monkeypatch):
    """A Python that was built without sqlite3 imports the package; only using this store is an error."""
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    store = SQLiteEventStore("never.db")

    with pytest.raises(SQLiteFileError, match=r"^this Python was built without sqlite3"):
        store.add_event({})


def test_importing_the_package_does_not_import_sqlite3():
    """Applications that do not use the store pay nothing for it."""
    script = "import sys; sys.modules['sqlite3'] = None; import snowplow_tracker"

    subprocess.run([sys.executable, "-c", script], check=True)


# Locks


def test_locked_file_is_an_error_after_the_timeout(open_store, path):
    """A process that holds the file for ever must not make others hang."""
    store = open_store(timeout=0)
    fill(store, 1)

    with locked(path):
        with pytest.raises(SQLiteFileError, match=f"^{path}: database is locked$"):
            store.add_event({})
        with pytest.raises(SQLiteFileError, match=f"^{path}: database is locked$"):
            store.get_events_batch()
        assert store.size() == 1


def busy_timeout(connection):
    return connection.execute("PRAGMA busy_timeout").fetchone()[0]


def test_only_the_first_waits_for_a_locked_file(open_store, path):
    """Threads queue for the store, so they must not all wait; when the file is free again, waiting is worth while."""
    store = open_store(timeout=0.1)
    assert store._file.run(busy_timeout) == 100

    with locked(path):
        with pytest.raises(SQLiteFileError, match="locked"):
            store.add_event({})
        for _ in range(3):
            # An emitter asks for the size before it adds; to read needs no lock.
            assert store.size() == 0
            assert store._file.run(busy_timeout) == 50
            with pytest.raises(SQLiteFileError, match="locked"):
                store.add_event({})
    impatient = store._file.run(busy_timeout)
    fill(store, 1)

    assert impatient == 50
    assert store._file.run(busy_timeout) == 100


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked on the platform")
def test_only_the_first_waits_for_a_locked_folder(open_store, monkeypatch, tmp_path):
    """An open that hangs in another process is waited for once, like a writer that hangs."""
    waits = []
    locked_folder = _sqlite_file._locked_folder

    def noted(folder, timeout):
        waits.append(timeout)
        return locked_folder(folder, timeout)

    store = open_store(timeout=0.1)
    with locked_folder(tmp_path, 0):
        monkeypatch.setattr(_sqlite_file, "_locked_folder", noted)
        for _ in range(3):
            with pytest.raises(SQLiteFileError, match="has locked"):
                store.add_event({})
    fill(store, 1)

    assert waits == [0.1, 0.05, 0.05, 0.05]
    assert store._file.run(busy_timeout) == 100


def test_opening_a_locked_file_fails_like_using_it(open_store, path):
    """A file may be locked before it is opened for the first time."""
    store = open_store(timeout=0)
    path.touch()

    with locked(path), pytest.raises(SQLiteFileError, match=f"^{path}: database is locked$"):
        store.size()

    assert store.size() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked on the platform")
def test_locked_folder_is_waited_for_in_vain_no_longer_than_the_timeout(open_store, tmp_path):
    """Files are opened one after the other, and an open that hangs in another process hangs nobody else."""
    store = open_store(timeout=0.02)

    opening_elsewhere = _sqlite_file._locked_folder(tmp_path, 0)
    with opening_elsewhere, pytest.raises(SQLiteFileError, match=f"another process has locked {tmp_path}$"):
        store.add_event({})

    assert store.add_event({})


def test_what_others_have_in_flight_is_counted(open_store):
    """It is what neither waits nor is handed out here: nothing at first, and nothing when they are done."""
    store, other = open_store(), open_store()
    empty = store.in_flight_elsewhere()
    fill(store, 4)
    own, others = store.get_events_batch(1), other.get_events_batch(2)
    meanwhile = store.in_flight_elsewhere(), other.in_flight_elsewhere()
    other.cleanup(others[:1], False)
    other.cleanup(others[1:], True)

    assert (len(own), empty, meanwhile) == (1, 0, (2, 1))
    assert (store.in_flight_elsewhere(), other.in_flight_elsewhere()) == (0, 1)


def test_settling_is_made_up_for_when_the_file_was_locked(open_store, path, caplog):
    """What was delivered while the file was locked is not delivered again, and what was not is not forgotten."""
    store = open_store(timeout=0)
    fill(store, 4)
    batch = store.get_events_batch()

    with locked(path):
        store.cleanup(batch[:2], False)
        store.cleanup(batch[2:], True)
        assert store.size() == 2

    assert take(store) == []
    store._look_at = 0.0
    assert take(store) == ["2", "3"]
    assert len(execute(path, "SELECT * FROM payload")) == 2
    assert messages(caplog, logging.WARNING) == [
        f"The event store could not be brought up to date: {path}: database is locked (1 times)"
    ]


def test_closing_makes_up_for_what_could_not_be_settled(open_store, path):
    """The last chance to remove what was delivered is taken."""
    store = open_store(timeout=0)
    fill(store, 1)
    batch = store.get_events_batch()
    with locked(path):
        store.cleanup(batch, False)

    store.close()

    assert open_store().size() == 0


# Room


def add_until_error(store, size):
    added = 0
    try:
        while store.add_event({"eid": "x" * size}):
            added += 1
    except SQLiteFileError as error:
        return added, error


@needs_root
def test_full_disk_refuses_and_recovers(open_store, tmp_path):
    """On a full disk events are refused, with the reason; what is there can be delivered, and makes room again."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False).returncode:
        pytest.skip("the machine mounts nothing")
    store = open_store(folder / "events.db")
    try:
        for _ in range(2):
            added, error = add_until_error(store, 1_000)
            assert "the disk is full" in str(error)
            delivered = 0
            while delivered < added:
                batch = store.get_events_batch()
                delivered += len(batch)
                store.cleanup(batch, False)
            assert 0 < added == delivered
            store._look_at = 0.0
            assert store.size() == 0
        others = folder / "others"
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            others.write_bytes(b"x" * 3_000_000)
        with pytest.raises(SQLiteFileError, match="the disk is full"):
            store.add_event({})
        others.unlink()
        assert store.add_event({})
    finally:
        store.close()
        subprocess.run(["umount", folder], check=True)


def test_disk_that_is_nearly_full_takes_no_more(store, path, monkeypatch):
    """What is left is for removing payloads, and what they leave free in the file goes back to the disk at once."""
    for number in range(200):
        store.add_event({"eid": str(number) * 1_000})
    usage = mock.Mock(total=100_000_000, free=7_999_999)
    monkeypatch.setattr(_sqlite_file.shutil, "disk_usage", lambda folder: usage)

    with pytest.raises(SQLiteFileError, match=f"^{path}: the disk is full, up to a reserve"):
        store.add_event({})
    store.cleanup(store.get_events_batch(), False)
    store._look_at = 0.0
    assert store.size() == 0
    assert path.stat().st_size < 100_000

    usage.free += 1
    assert store.add_event({})


def limit_pages(store):
    store._file.run(lambda connection: connection.execute("PRAGMA max_page_count = 20").fetchall())


def test_transaction_that_finds_no_room_leaves_nothing_behind(store, path):
    """A disk that becomes full in the midst of a write refuses the event, and the connection goes on."""
    fill(store, 1)
    limit_pages(store)

    added, error = add_until_error(store, 10_000)

    assert str(error) == f"{path}: database or disk is full"

    store._file.run(lambda connection: connection.execute("PRAGMA max_page_count = 1000").fetchall())
    fill(store, 1)
    assert store.size() == added + 2


def test_file_becomes_smaller_after_a_backlog(store, path):
    """The disk is not kept for the longest backlog that ever was."""
    for _ in range(20):
        store.add_event({"eid": "x" * 900_000})
    fill(store, 3)
    while store.size() > 3:
        store.cleanup(store.get_events_batch(1), False)
    assert path.stat().st_size > 16_000_000

    store._look_at = 0.0

    assert store.size() == 3
    assert path.stat().st_size < 100_000
    assert take(store) == ["0", "1", "2"]


def test_log_is_cut_when_it_has_grown_too_long(store, path, monkeypatch):
    """The log that SQLite writes ahead would grow without a limit while there is always somebody who writes."""
    monkeypatch.setattr(_sqlite_file, "_MAX_LOG_BYTES", 50_000)
    fill(store, 100)
    log = path.with_name("events.db-wal")
    assert log.stat().st_size > 50_000

    store._look_at = 0.0
    store.size()

    assert log.stat().st_size == 0


def test_nobody_waits_for_a_reader_that_hangs_to_cut_the_log(open_store, path, monkeypatch):
    """A process that was suspended while it read must not slow down all others."""
    monkeypatch.setattr(_sqlite_file, "_MAX_LOG_BYTES", 50_000)
    store = open_store(timeout=3600)
    fill(store, 100)
    reader = sqlite3.connect(str(path), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM payload").fetchall()
    fill(store, 1, start=100)

    store._look_at = 0.0

    assert store.size() == 101
    assert path.with_name("events.db-wal").stat().st_size > 50_000
    reader.close()


def test_path_may_have_any_character(open_store, tmp_path):
    """SQLite takes the path as a URL, in which some characters have a meaning."""
    store = open_store(tmp_path / "what? 100% #1 & ä.db")
    fill(store, 1)
    store.close()

    assert files(tmp_path) == ["what? 100% #1 & ä.db"]


def test_path_may_be_a_link(open_store, tmp_path, path):
    """A link is followed, also one to a file that is not there yet, and also when the file is corrupt."""
    (tmp_path / "data").mkdir()
    path.symlink_to(tmp_path / "data" / "real.db")
    store = open_store()
    fill(store, 1)
    store.close()
    (tmp_path / "data" / "real.db").write_bytes(b"no database" * 1000)

    fill(store, 1, start=1)

    assert take(store) == ["1"]
    assert path.is_symlink()
    assert len(list((tmp_path / "data").glob("real.db.corrupt-*Z"))) == 1


def test_missing_log_has_no_length(open_store, tmp_path):
    """The file's length is asked for also when SQLite has removed the log."""
    assert open_store()._file._log_bytes() == 0


# Versions of the schema


@pytest.fixture
def next_version(monkeypatch):
    """The schema of a later version of this library."""
    later = (*_sqlite_file.SCHEMA, ("ALTER TABLE payload ADD COLUMN colour TEXT",))

    def switch():
        monkeypatch.setattr(_sqlite_file, "SCHEMA", later)

    return switch


def test_file_of_an_older_version_is_brought_up_to_date(open_store, path, next_version):
    """A new version of the library finds what the one before has left, and the older one may go on beside it."""
    older = open_store()
    fill(older, 1)
    next_version()

    newer = open_store()
    fill(newer, 1, start=1)
    fill(older, 1, start=2)

    assert take(newer) == ["0", "1", "2"]
    assert execute(path, "PRAGMA user_version") == [(2,)]
    assert execute(path, "SELECT colour FROM payload WHERE id = 1") == [(None,)]


def test_file_of_a_newer_version_is_refused(open_store, path):
    """What is in it is not understood, so it is neither used nor changed."""
    open_store().size()
    execute(path, "PRAGMA user_version = 7")

    with pytest.raises(
        SQLiteFileError, match=r"belongs to a newer version .* has the version 7, and this one knows 1$"
    ):
        SQLiteEventStore(path).add_event({})

    assert execute(path, "PRAGMA user_version") == [(7,)]


# Forks


class TestForks:
    """What a forked child has of its parent's store."""

    pytestmark = forks

    def test_child_begins_anew(self, store, path):
        """Parent and child use the file like any two processes."""
        fill(store, 2)
        batch = store.get_events_batch(1)

        def use():
            assert store.size() == 1
            assert take(store) == ["1"]
            store.cleanup(batch, False)
            fill(store, 1, start=2)

        run_in_child(use)

        # The child did not settle what is the parent's, and its own claim has ended with it.
        assert len(execute(path, "SELECT * FROM payload")) == 3
        store.cleanup(batch, True)
        store._look_at = 0.0
        assert take(store) == ["0", "1", "2"]

    def test_child_outlives_the_parents_connection(self, open_store, path):
        """A child that works on after its parent has closed the file loses nothing of what it adds."""
        store = open_store()
        fill(store, 1)
        ready, go = os.pipe()
        child = os.fork()
        if child == 0:

            def add():
                fill(store, 1, start=1)
                os.read(ready, 1)
                fill(store, 1, start=2)

            end_child_with(add)
        eventually(lambda: len(execute(path, "SELECT * FROM payload")) == 2)
        store.close()
        os.write(go, b"x")
        _, status = os.waitpid(child, 0)
        os.close(ready)
        os.close(go)

        assert status == 0
        assert take(open_store()) == ["0", "1", "2"]

    def test_fork_waits_for_a_thread_that_uses_the_store(self, store):
        """The file is closed while the process forks, so the thread in it has to be through."""
        inside, through = threading.Event(), threading.Event()

        def use(connection):
            inside.set()
            through.wait(LIMIT_SECONDS)

        thread = threading.Thread(target=store._run, args=(use, None))
        thread.start()
        inside.wait(LIMIT_SECONDS)
        threading.Timer(0.05, through.set).start()

        run_in_child(lambda: fill(store, 1))

        thread.join()
        assert take(store) == ["0"]

    def test_child_refuses_to_use_what_was_open_in_the_fork(self, store, monkeypatch, capfd):
        """Where a thread does not let go of the file, the child says so in place of losing events, or hanging."""
        monkeypatch.setattr(sqlite_event_store, "_FORK_WAITS_SECONDS", 0.01)
        inside, through = threading.Event(), threading.Event()

        def use(connection):
            inside.set()
            through.wait(LIMIT_SECONDS)

        thread = threading.Thread(target=store._run, args=(use, None))
        thread.start()
        inside.wait(LIMIT_SECONDS)

        def refuse():
            with pytest.raises(SQLiteFileError, match="was open when the process forked"):
                store.add_event({})

        run_in_child(refuse)
        through.set()
        thread.join()

        assert store.add_event({})

    def test_fork_in_a_signal_handler_leaves_the_parent_in_its_transaction(self, store):
        """A fork in the midst of a call of the same thread closes nothing under it."""

        def fork_inside(connection):
            with _sqlite_file.transaction(connection):
                connection.execute(sqlite_event_store._ADD_ANYWAY, (0, json.dumps({"eid": "0"})))
                run_in_child(lambda: None)

        store._run(fork_inside, None)

        assert take(store) == ["0"]

    @pytest.mark.skipif(not hasattr(ctypes, "pythonapi"), reason="needs the C library")
    def test_fork_that_python_is_not_told_of_is_noticed(self, path, open_store):
        """Servers written in C fork without Python's hooks; a store that was not open yet works there."""
        store, opened = open_store(), open_store()
        opened.size()
        child = ctypes.PyDLL(None).fork()
        if child == 0:

            def use():
                fill(store, 1)
                with pytest.raises(SQLiteFileError, match="was open when the process forked"):
                    opened.size()

            end_child_with(use)
        _, status = os.waitpid(child, 0)

        assert status == 0
        assert take(opened) == ["0"]


# Signal handlers


def interrupt(store, action):
    """Do something as a signal handler does it that runs in the midst of a transaction of the same thread."""
    done = []

    def trace(statement):
        if statement.startswith("INSERT INTO payload") and not done:
            done.append(None)
            done.append(action())

    store.size()
    store._file._connection.set_trace_callback(trace)
    fill(store, 1, start=100)
    store._file._connection.set_trace_callback(None)
    return done[1]


def test_log_can_be_waited_for(monkeypatch):
    """A program that ends tells first what was logged in another thread."""
    monkeypatch.setattr(_sqlite_file, "Thread", threading.Thread)
    told, may_tell = [], threading.Event()
    monkeypatch.setattr(_sqlite_file.logger, "log", lambda *line: may_tell.wait(10) and told.append(line))
    _sqlite_file.log_apart(logging.ERROR, "a loss of %d", 3)
    waiting = threading.Thread(target=_sqlite_file.finish_log)
    waiting.start()

    may_tell.set()
    waiting.join(10)

    assert told == [(logging.ERROR, "a loss of %d", 3)]


def test_signal_handler_may_track(store):
    """An event that a handler tracks while its thread is in the store is added right after."""
    assert interrupt(store, lambda: store.add_event({"eid": "of the handler"}))

    assert take(store) == ["100", "of the handler"]


def test_signal_handler_may_flush(store):
    """Nothing is handed out to a handler meanwhile, and the size is the last that was known."""
    fill(store, 3)

    assert interrupt(store, lambda: (store.get_events_batch(), store.size())) == ([], 3)


def test_signal_handler_may_settle(store):
    """What a handler gives back waits right after."""
    fill(store, 2)
    batch = store.get_events_batch()

    interrupt(store, lambda: store.cleanup(batch, True))

    assert take(store) == ["0", "1", "100"]


def test_signal_handler_may_close(store):
    """The file is not closed under the call that the handler interrupts."""
    interrupt(store, store.close)

    assert take(store) == ["100"]


@pytest.mark.parametrize(
    ("add_late", "reason"), [({"return_value": False}, "the store is full"), ({"side_effect": OSError("x")}, "x")]
)
def test_event_of_a_signal_handler_that_cannot_be_added_is_reported(store, caplog, add_late, reason):
    """The handler was told that its event is accepted, so its loss is logged."""
    late = mock.Mock(**add_late)

    interrupt(store, lambda: store._interrupting.append(late))

    late.assert_called_once_with()
    assert messages(caplog, logging.ERROR) == [f"Lost a payload that a signal handler tracked: {reason}"]


def test_interrupted_call_leaves_no_transaction_open(store, path):
    """Ctrl-C in the midst of a transaction must not keep the file locked."""

    def stop(connection):
        connection.execute("BEGIN IMMEDIATE")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store._run(stop, None)

    execute(path, "INSERT INTO payload (added_at, json) VALUES (0, '{}')")
    assert store.size() == 1


@pytest.mark.parametrize("place", ["reading", "returning"])
def test_hand_out_that_is_interrupted_strands_nothing(open_store, monkeypatch, place):
    """An application may go on after Ctrl-C: what was claimed, and nobody got, is handed out, and nothing else."""
    store, other = open_store(), open_store()
    fill(store, 5)
    held, of_other = store.get_events_batch(1), other.get_events_batch(1)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if place == "reading":
            payloads = iter([{"eid": "2"}])
            patch.setattr(sqlite_event_store, "json", mock.Mock(loads=lambda _: next(payloads, None) or stop()))
        else:
            patch.setattr(store._file, "_is_current", stop)
        with pytest.raises(KeyboardInterrupt):
            store.get_events_batch()

    assert (store.size(), take(store)) == (3, ["2", "3", "4"])
    assert (eids(held), eids(of_other), take(other)) == (["0"], ["1"], [])


def test_interrupted_hand_out_is_made_up_for_when_the_file_is_free(open_store, path, monkeypatch, clocks):
    """What cannot be given back at once is later."""
    store = open_store(timeout=0)
    fill(store, 2)
    assert store.size() == 2
    with monkeypatch.context() as patch:
        patch.setattr(store._file, "_is_current", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.get_events_batch()

    with locked(path):
        assert store.size() == 0
    clocks.advance(1)

    assert take(store) == ["0", "1"]


def test_any_other_error_is_followed_by_a_fresh_connection(store):
    """What a disk's trouble has left in a connection ends with it."""
    store.size()
    before = store._file._connection

    def fail(connection):
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(SQLiteFileError, match=r"disk I/O error$"):
        store._run(fail, None)
    store.size()

    assert store._file._connection is not before


# The log


def test_log_lines_are_written_without_the_lock(store, path, monkeypatch):
    """A handler that tracks an event takes the lock that the store is called with; it must not wait for itself."""
    monkeypatch.setattr(_sqlite_file, "Thread", threading.Thread)
    emitters_lock, logged = threading.RLock(), threading.Event()

    class Tracking(logging.Handler):
        def emit(self, record):
            with emitters_lock:
                logged.set()

    handler = Tracking()
    logging.getLogger("snowplow_tracker").addHandler(handler)
    try:
        path.write_bytes(b"no database" * 1000)
        with emitters_lock:
            store.add_event({})
            assert not logged.is_set()
        assert logged.wait(LIMIT_SECONDS)
    finally:
        logging.getLogger("snowplow_tracker").removeHandler(handler)


def test_log_lines_are_written_at_once_when_there_are_no_threads_any_more(store, path, monkeypatch, caplog):
    """While the interpreter exits no thread can be started, and the reason of a loss is logged all the same."""
    monkeypatch.setattr(ImmediateThread, "start", mock.Mock(side_effect=RuntimeError))
    path.write_bytes(b"no database" * 1000)

    store.add_event({})

    assert len(messages(caplog, logging.ERROR)) == 1
