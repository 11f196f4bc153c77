"""The store in Redis, on a real redis-server: order, leases, outages, and what is remembered through them."""

import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from types import SimpleNamespace

import pytest
from support import PATIENCE_SECONDS, eids, eventually, is_balanced, numbered

from snowplow_tracker import AsyncEmitter, Emitter, EventStore, RedisEventStore, _redis_connection, redis_event_store

redis = pytest.importorskip("redis", reason="needs redis-py, of the extra redis")

from redis_server import DURABLE, HOST, PROGRAM, RedisServer  # noqa: E402  # it needs redis-py, too

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="needs redis-server, of the distribution's package of that name"
)

KEY = "snowplow:events"
GROUP = "senders"
# So long that no test sees its end, and so short that it has ended when Redis is asked next.
LONG_LEASE = 3600
SHORT_LEASE = 0.001


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        server.start()
        yield server


@pytest.fixture
def server(shared_server):
    """A server that has nothing, and stays up."""
    shared_server.client.flushall()
    return shared_server


@pytest.fixture
def own_server(tmp_path):
    """A server that may be stopped, and keeps its data."""
    with RedisServer(tmp_path, *DURABLE) as server:
        server.start()
        yield server


@pytest.fixture
def make():
    """Make stores that are closed after the test."""
    stores = []

    def store(client_or_url, **options):
        stores.append(RedisEventStore(client_or_url, **options))
        return stores[-1]

    yield store
    for store in stores:
        store.close()


@pytest.fixture
def store(server, make):
    return make(server.url)


@pytest.fixture
def other(server, make):
    """A store of another process, as far as Redis can tell."""
    return make(server.url)


@pytest.fixture
def clock(monkeypatch):
    """A clock of the module's that stands still until it is set."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(redis_event_store, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def no_pause(monkeypatch):
    """Redis is asked again at once after a failure."""
    monkeypatch.setattr("snowplow_tracker._redis_connection._PAUSE_SECONDS", 0.0)


def fill(store, *names):
    for name in names:
        assert store.add_event({"eid": name}) is True


def take(store, limit=None):
    return eids(store.get_events_batch(limit))


def consumers(server):
    return {consumer["name"]: consumer["pending"] for consumer in server.client.xinfo_consumers(KEY, GROUP)}


def connections(server):
    return {client["id"] for client in server.client.client_list()}


def end_leases(server):
    """Have what is handed out look as if that was long ago."""
    pending = server.client.xpending_range(KEY, GROUP, "-", "+", 1000)
    for entry in pending:
        server.client.xclaim(
            KEY, GROUP, entry["consumer"], 0, [entry["message_id"]], idle=LONG_LEASE * 2000, justid=True
        )


def fork(action):
    """Run an action in a forked child; a child that fails or hangs fails the test."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(int(PATIENCE_SECONDS))
            action()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0, "the child failed or hung, see stderr"


def test_store_in_redis_is_an_event_store():
    """It has what the protocol asks for, and says that payloads outlive the process."""
    store = RedisEventStore("redis://localhost")

    assert isinstance(store, EventStore)
    assert store.is_durable is True


def test_options_have_defaults():
    """A URL is all it takes; the options can be read again."""
    store = RedisEventStore("redis://localhost")

    assert (store.key, store.buffer_capacity, store.lease_seconds, store.timeout) == (KEY, 1_000_000, 120, 1.0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"client_or_url": 7}, TypeError, "client_or_url must be a client or a URL, got 7"),
        ({"client_or_url": None}, TypeError, "client_or_url must be a client or a URL, got None"),
        ({"client_or_url": redis.Redis}, TypeError, "client_or_url must be a client or a URL, got <class"),
        (
            {"client_or_url": redis.asyncio.Redis()},
            TypeError,
            "client_or_url must be a client that is not asynchronous",
        ),
        ({"key": b"k"}, TypeError, "key must be a string, got b'k'"),
        ({"key": ""}, ValueError, "key must not be empty"),
        ({"buffer_capacity": 0}, ValueError, "buffer_capacity must be positive, got 0"),
        ({"buffer_capacity": 1.5}, TypeError, "buffer_capacity must be an integer, got 1.5"),
        ({"lease_seconds": 0}, ValueError, "lease_seconds must be positive and finite, got 0"),
        ({"lease_seconds": "1"}, TypeError, "lease_seconds must be a number, got '1'"),
        ({"timeout": -1}, ValueError, "timeout must be positive and finite, got -1"),
        ({"timeout": None}, TypeError, "timeout must be a number, got None"),
    ],
)
def test_wrong_option_is_refused(options, error, message):
    """A mistake shows at the line that makes it, with name and value."""
    with pytest.raises(error) as caught:
        RedisEventStore(**{"client_or_url": "redis://localhost", **options})

    assert str(caught.value).startswith(message)


def test_url_in_an_error_keeps_its_password():
    """A URL is not shown, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r"^client_or_url must begin with redis://, rediss://, unix://$"):
        RedisEventStore("http://user:secret@localhost")


@pytest.mark.parametrize(
    "url",
    [
        "redis://:sec/ret@localhost",
        "redis://:12/34@localhost",
        "rediss://user:sec?ret@localhost",
        "redis://user?sec=ret@localhost",
        "redis://:sec#ret@localhost",
        "redis://:sec[ret@localhost",
        "redis://localhost:port",
        "unix://user:sec/ret@/run/redis.sock",
        "unix://run/redis.sock",
    ],
)
def test_url_with_a_password_that_ends_too_early_is_refused(url):
    """Otherwise a part of the password would be taken for a port, a host or an option, and shown with it."""
    message = (
        "^client_or_url cannot be read: in a user or password each character of /\\?#@\\[\\]% has to be written as % "
        "and its code, and a port is a number$"
    )
    with pytest.raises(ValueError, match=message):
        RedisEventStore(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s%2Fe%40c@localhost:6379/1",
        "redis://:s@c:ret@[::1]:6379",
        "unix:///run/redis.sock?db=1",
        "unix://user:s%2F@/run/a@b.sock",
    ],
)
def test_url_with_a_password_is_taken(url):
    """What is written as a URL must have it may have any character."""
    assert RedisEventStore(url).key == KEY


def test_constructor_asks_redis_nothing(tmp_path):
    """Stores are built while applications are imported, whether or not Redis runs."""
    with RedisServer(tmp_path) as stopped:
        store = RedisEventStore(stopped.url)
        store.close()

        assert store.get_events_batch(0) == []


@pytest.mark.parametrize("kind", ["url", "socket", "bytes", "text", "version 3"])
def test_any_client_will_do(server, make, kind):
    """A URL or a client, over TCP or a Unix socket, decoding responses or not, with either version of the protocol."""
    client_or_url = {
        "url": lambda: server.url,
        "socket": lambda: f"unix://{server.socket_path}",
        "bytes": lambda: redis.Redis(HOST, server.port),
        "text": lambda: redis.Redis(HOST, server.port, decode_responses=True),
        "version 3": lambda: redis.Redis(HOST, server.port, protocol=3, decode_responses=True),
    }[kind]()
    store = make(client_or_url)
    fill(store, "a", "b", "c")

    batch = store.get_events_batch()
    store.cleanup(batch[:1], False)
    store.cleanup(batch[1:], True)

    assert (eids(batch), store.size(), take(store), store.size()) == (["a", "b", "c"], 2, ["b", "c"], 0)
    store.close()
    if kind in ("bytes", "text", "version 3"):
        assert client_or_url.ping()
        client_or_url.close()


@pytest.mark.parametrize(
    "value",
    ["", 'quote " slash \\ nul \0', "Zoë 日本 🎉", "\ud83d", 0, -(10**30), 1.5, 1e-300, True],
    ids=ascii,
)
def test_value_comes_back_as_it_was(store, value):
    """What is handed out equals what was added, to the type."""
    store.add_event({"eid": "1", "näme": value})

    [payload] = store.get_events_batch()

    assert payload == {"eid": "1", "näme": value}
    assert type(payload["näme"]) is type(value)


@pytest.mark.parametrize("value", [None, b"x", ["x"], {"x": 1}], ids=repr)
def test_value_that_would_come_back_different_is_refused(store, value):
    """An emitter passes text and numbers; the error names the field that is something else."""
    with pytest.raises(TypeError, match=r"^co must be a string or a number to be stored, got "):
        store.add_event({"eid": "1", "co": value})

    assert store.size() == 0


def test_name_that_would_come_back_different_is_refused(store):
    """Names are text."""
    with pytest.raises(TypeError, match=r"^the names in a payload must be strings, got 1$"):
        store.add_event({1: "x"})


def test_payloads_are_handed_out_oldest_first_and_once(store, other):
    """Two processes share what waits, in the order of arrival over both."""
    fill(store, "1")
    fill(other, "2")
    fill(store, "3")

    assert (take(other, 2), take(store), take(other), take(store)) == (["1", "2"], ["3"], [], [])


@pytest.mark.parametrize(
    ("limit", "batch"), [(-1, []), (0, []), (1, ["1"]), (3, ["1", "2", "3"]), (9, ["1", "2", "3"])]
)
def test_limit_bounds_a_batch(store, limit, batch):
    """No more are handed out than were asked for."""
    fill(store, "1", "2", "3")

    assert take(store, limit) == batch
    assert store.size() == 3 - len(batch)


def test_batch_has_a_thousand_payloads_at_most(store):
    """A large backlog does not enter the memory as a whole."""
    store.cleanup(numbered(1_001), True)

    assert [len(store.get_events_batch(limit)) for limit in (None, 5000)] == [1000, 1]


def test_batch_has_the_bytes_of_about_one_request(store):
    """Large payloads come in smaller batches, in their order, whatever their sizes."""
    sizes = [100, 300_000, 10, 500_000, 200_000, 1_200_000, 5, 874_900, 20, 10_000, 400_000]
    for number, size in enumerate(sizes):
        store.add_event({"eid": str(number), "x": "x" * size})

    batches = []
    while store.size():
        batches.append(take(store))

    assert batches == [["0", "1", "2", "3"], ["4"], ["5"], ["6", "7", "8"], ["9", "10"]]


def test_batch_of_payloads_of_one_size_is_filled(store):
    """The limit in bytes is made use of."""
    for number in range(600):
        store.add_event({"eid": str(number), "x": "x" * 2_000})

    first, second = store.get_events_batch(), store.get_events_batch()

    assert eids(first + second) == [str(number) for number in range(600)]
    assert 855_000 < sum(len(json.dumps(payload)) for payload in first) < 885_000


def test_delivered_payloads_are_gone(server, store):
    """Redis keeps nothing of what is settled."""
    fill(store, "1", "2")

    store.cleanup(store.get_events_batch(), False)

    assert (store.size(), server.client.xlen(KEY), consumers(server).popitem()[1]) == (0, 0, 0)


def test_retried_payloads_go_before_what_came_later(store, other):
    """What comes back is the next to be handed out, to whichever process."""
    fill(store, "1", "2")
    batch = store.get_events_batch()
    fill(store, "3")

    store.cleanup(batch, True)

    assert (take(other, 1), take(store)) == (["1"], ["2", "3"])


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_order_is_kept_whatever_order_batches_fail_in(store, other, order):
    """Three senders may come back in any order; the payloads wait as they came."""
    fill(store, *"1234567")
    takers = [store, other, store]
    batches = [taker.get_events_batch(2) for taker in takers]

    for position in order:
        takers[position].cleanup(batches[position], True)

    assert take(store) == list("1234567")


def test_part_of_a_batch_may_come_back(store):
    """Delivered and failed payloads of one batch are told apart, the very objects, equal ones too."""
    for _ in range(4):
        fill(store, "same")
    batch = store.get_events_batch()

    store.cleanup([batch[0], batch[2]], False)
    store.cleanup([batch[3]], True)

    assert take(store) == ["same"]
    store.cleanup([batch[1]], True)
    assert take(store) == ["same"]


def test_payload_comes_back_as_it_was_stored(store):
    """What an attempt wrote into the payload, such as the sent timestamp, is not stored."""
    fill(store, "1")
    [payload] = store.get_events_batch()
    payload["stm"] = "1700000000000"

    store.cleanup([payload], True)

    assert store.get_events_batch() == [{"eid": "1"}]


def test_stranger_is_appended_for_a_retry(store):
    """What never was in the store goes before what comes later, without the sent timestamp, and is never refused."""
    store.buffer_capacity = 1
    fill(store, "1")
    store.cleanup([{"eid": "2", "stm": "1700000000000"}, {"eid": "3"}], True)
    store.buffer_capacity = 9
    fill(store, "4")

    assert store.get_events_batch() == [{"eid": name} for name in "1234"]


def test_delivered_stranger_is_ignored(store):
    """The store is told of every delivery, also of payloads that it never had."""
    fill(store, "1")

    store.cleanup([{"eid": "1"}], False)

    assert take(store) == ["1"]


@pytest.mark.parametrize("need_retry", [True, False])
def test_nothing_to_settle_takes_no_redis(tmp_path, need_retry):
    """An empty batch changes nothing, and asks nothing."""
    with RedisServer(tmp_path) as stopped:
        RedisEventStore(stopped.url).cleanup([], need_retry)


def test_full_store_refuses_a_payload(store, other):
    """At its capacity a store says no, whoever has filled it."""
    store.buffer_capacity = 2
    fill(other, "1", "2")

    assert store.add_event({"eid": "3"}) is False
    assert take(store) == ["1", "2"]


def test_capacity_is_for_what_waits(store):
    """What is handed out does not count, and comes back whether or not there is room."""
    store.buffer_capacity = 2
    fill(store, "1", "2")
    batch = store.get_events_batch()
    fill(store, "3", "4")

    store.cleanup(batch, True)

    assert store.add_event({"eid": "5"}) is False
    assert (store.size(), take(store)) == (4, ["1", "2", "3", "4"])


def test_size_knows_what_this_process_did(store):
    """The figure follows each call of the process's own."""
    sizes = [store.size()]
    fill(store, "1", "2", "3")
    sizes.append(store.size())
    batch = store.get_events_batch(2)
    sizes.append(store.size())
    store.cleanup(batch[:1], True)
    sizes.append(store.size())
    store.cleanup(batch[1:], False)
    sizes.append(store.size())

    assert sizes == [0, 3, 1, 2, 2]


def test_size_knows_what_others_did_after_a_second(clock, store, other):
    """Redis is asked once a second, however often the figure is."""
    assert store.size() == 0
    fill(other, "1", "2")

    clock.now += 0.9
    recent = store.size()
    clock.now += 0.1

    assert (recent, store.size()) == (0, 2)


def test_size_has_what_was_added_while_redis_was_asked(monkeypatch, store):
    """A figure that another thread's payload missed does not hide it."""
    process = store._holder()
    count = process._stream.count

    def count_and_add():
        counted = count()
        fill(store, "1")
        return counted

    monkeypatch.setattr(process._stream, "count", count_and_add)

    assert store.size() == 1


def test_what_others_have_in_flight_is_counted(store, other):
    """It is what neither waits nor is handed out here: nothing at first, and nothing when they are done."""
    empty = store.in_flight_elsewhere()
    fill(store, "0", "1", "2", "3")
    own, others = store.get_events_batch(1), other.get_events_batch(2)
    meanwhile = store.in_flight_elsewhere(), other.in_flight_elsewhere()
    other.cleanup(others[:1], False)
    other.cleanup(others[1:], True)

    assert (len(own), empty, meanwhile) == (1, 0, (2, 1))
    assert (store.in_flight_elsewhere(), other.in_flight_elsewhere()) == (0, 1)


def test_size_is_zero_when_more_is_handed_out_than_there_is(server, store):
    """What an administrator has trimmed is no negative number of payloads."""
    fill(store, "1", "2")
    store.get_events_batch()

    server.client.xtrim(KEY, maxlen=0)
    fill(store, "3")

    assert RedisEventStore(server.client).size() == 0


def test_stores_with_different_keys_have_nothing_in_common(server, make):
    """A key is a queue of its own."""
    one, two = make(server.url, key="one"), make(server.url, key="two")

    fill(one, "1")

    assert (take(two), take(one)) == ([], ["1"])


def test_payload_that_was_kept_too_long_comes_back(server, store, make):
    """What a process holds that is gone, others get when its lease has ended, before what came later."""
    fill(store, "1", "2", "3")
    store.get_events_batch(2)
    assert take(make(server.url)) == ["3"]

    end_leases(server)
    fill(store, "4")

    assert take(make(server.url)) == ["1", "2", "3", "4"]


def test_end_of_leases_is_looked_for_ten_times_per_lease(clock, server, store, other):
    """To look for it takes Redis time, so it is not done with each batch."""
    assert take(other) == []
    fill(store, "1")
    store.get_events_batch()
    end_leases(server)

    clock.now += 11.9
    early = take(other)
    clock.now += 0.1

    assert (early, take(other)) == ([], ["1"])


def test_lease_is_renewed_when_a_quarter_is_over(clock, server, store, other, make):
    """Then what is handed out stays so; what others have by now stays theirs, and what is gone is passed over."""
    fill(store, "1", "2", "3", "4")
    first, second, third = (store.get_events_batch(1) for _ in range(3))
    end_leases(server)
    (entry,) = server.client.xpending_range(KEY, GROUP, "-", "+", 1)
    server.client.xclaim(KEY, GROUP, "another", 0, [entry["message_id"]], idle=LONG_LEASE * 2000, justid=True)
    store.cleanup(second, False)

    clock.now += 29.9
    store.renew()
    idle_early = [entry["time_since_delivered"] for entry in server.client.xpending_range(KEY, GROUP, "-", "+", 9)]
    clock.now += 0.1
    store.renew()

    assert min(idle_early) > LONG_LEASE * 1000
    assert take(other) == ["1", "4"]
    store.cleanup(first, False)
    store.cleanup(third, True)
    assert take(make(server.url)) == ["3"]


def test_renewed_payload_is_its_owners_for_longer(clock, server, store):
    """Nobody else can have delivered what is missing in the stream, so it is stored again."""
    fill(store, "1")
    batch = store.get_events_batch()
    clock.now += 100
    store.renew()
    server.client.flushall()

    clock.now += 100
    store.cleanup(batch, True)

    assert take(store) == ["1"]


def test_nothing_is_renewed_that_came_back_meanwhile(clock, store, monkeypatch):
    """Another thread may settle a payload while Redis is told to renew it."""
    fill(store, "1", "2")
    first, second = store.get_events_batch(1), store.get_events_batch(1)
    holder = store._holder()
    renew = holder._stream.renew

    def renew_late(ids):
        renew(ids)
        store.cleanup(first, False)

    monkeypatch.setattr(holder._stream, "renew", renew_late)
    clock.now += 30
    store.renew()

    assert list(holder._claims) == [id(second[0])]


def test_redis_that_fails_to_renew_does_no_harm(clock, own_server, make, no_pause):
    """It is asked again after the next request."""
    store = make(own_server.url)
    fill(store, "1")
    store.renew()
    batch = store.get_events_batch()
    own_server.kill()
    clock.now += 30
    store.renew()
    own_server.start()
    end_leases(own_server)

    store.renew()

    assert take(make(own_server.url)) == []
    store.cleanup(batch, False)
    store.renew()


def test_lease_is_not_needed_by_a_process_that_took_nothing(tmp_path):
    """There is no connection for that."""
    RedisEventStore(f"unix://{tmp_path}/none").renew()


def test_delivery_counts_whoever_has_the_lease(server, store, make):
    """A process that was too slow, but delivered a payload, spares others to deliver it again."""
    fill(store, "1")
    batch = store.get_events_batch()
    end_leases(server)
    other = make(server.url)
    again = other.get_events_batch()

    store.cleanup(batch, False)
    other.cleanup(again, True)

    assert server.client.xlen(KEY) == 1
    assert eids(again) == take(other) == ["1"]


def test_process_gives_back_only_what_is_its_own(server, make):
    """A process that was too slow, and failed, does not take a payload away from the one that has it now."""
    store, other = make(server.url, lease_seconds=SHORT_LEASE), make(server.url, lease_seconds=LONG_LEASE)
    fill(store, "1")
    batch = store.get_events_batch()
    end_leases(server)
    again = other.get_events_batch()

    store.cleanup(batch, True)
    while_held = other.get_events_batch()
    other.cleanup(again, False)

    assert (eids(again), while_held, store.size(), server.client.xlen(KEY)) == (["1"], [], 0, 0)


def test_closed_store_gives_back_what_it_holds(server, store, other):
    """What an application took out and left comes back at once, and the process is known to Redis no more."""
    fill(store, "1", "2")
    store.get_events_batch()

    store.close()

    assert set(consumers(server)) == {"returned"}
    assert take(other) == ["1", "2"]


def test_closed_store_may_be_used_again(store):
    """It opens its connection again."""
    fill(store, "1")
    store.close()
    fill(store, "2")
    store.close()
    store.close()

    assert (store.size(), take(store)) == (2, ["1", "2"])


def test_payload_may_be_settled_after_its_store_was_closed(server, store, other):
    """A request that was under way when the store was closed still counts; what it lost is somebody else's."""
    fill(store, "1", "2")
    delivered, failed = store.get_events_batch()
    store.close()

    store._holder()._renew_at = 0.0
    store.renew()
    store.cleanup([delivered], False)
    other.cleanup(other.get_events_batch(), False)
    store.cleanup([failed], True)

    assert server.client.xlen(KEY) == 0


def scripts_run(server):
    """Count the calls of scripts, whichever way each was called."""
    figures = server.client.info("commandstats")
    return sum(figures.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


def test_closed_store_has_no_connection(server, make):
    """What the store opened it closes; a process that only adds asks Redis nothing for that."""
    before = connections(server)
    store = make(server.url)
    fill(store, "1")
    [own] = connections(server) - before
    calls = scripts_run(server)

    store.close()

    eventually(lambda: own not in connections(server))
    assert scripts_run(server) == calls


def test_dead_processes_do_not_pile_up(server, make):
    """Redis forgets those that have nothing, and were not seen for as long as a lease."""
    holding, idle = make(server.url), make(server.url)
    fill(holding, "1", "2", "3")
    holding.get_events_batch(1)
    idle.cleanup(idle.get_events_batch(1), False)
    names = {store._holder()._stream._consumer for store in (idle, holding)}
    make(server.url).get_events_batch(1)
    assert names <= set(consumers(server))
    watching = make(server.url, lease_seconds=SHORT_LEASE)

    def has_only_what_lives():
        watching.cleanup(watching.get_events_batch(), True)
        return not names & set(consumers(server))

    eventually(has_only_what_lives)


def test_dead_processes_do_not_pile_up_where_nothing_waits(server, make):
    """They are forgotten as well while those that live have nothing to do."""
    idle, watching = make(server.url), make(server.url, lease_seconds=SHORT_LEASE)
    fill(idle, "1")
    idle.cleanup(idle.get_events_batch(), False)
    assert consumers(server)

    eventually(lambda: watching.get_events_batch() == [] and not consumers(server).keys() - {"returned"})


def test_deleted_process_goes_on(server, make):
    """A process that was idle for long does not notice that Redis forgot it."""
    store = make(server.url)
    fill(store, "1", "2")
    store.cleanup(store.get_events_batch(1), True)
    server.client.xgroup_delconsumer(KEY, GROUP, store._holder()._stream._consumer)

    store.cleanup(store.get_events_batch(1), False)

    assert take(store) == ["2"]


def test_entry_that_is_no_payload_is_removed(server, store):
    """What somebody else has put into the stream is reported, and does not block what came after it."""
    fill(store, "1")
    for text in ("{", "[1]", "[" * 100_000):
        server.client.xadd(KEY, {"payload": text})
    fill(store, "2")

    with pytest.raises(
        ValueError, match=r"^removed 3 entries from the stream 'snowplow:events' that were no payloads$"
    ):
        store.get_events_batch()

    assert take(store) == ["1", "2"]


def test_entries_that_were_trimmed_are_passed_over(server, store):
    """What an administrator has deleted while it waited for a retry is not handed out, and does not stay pending."""
    fill(store, "1", "2", "3")
    store.cleanup(store.get_events_batch(2), True)
    first = server.client.xrange(KEY, count=1)[0][0]
    server.client.xdel(KEY, first)

    assert take(store) == ["2", "3"]
    assert server.client.xpending(KEY, GROUP)["pending"] == 2


def test_key_of_another_type_is_an_error(server, store):
    """A key that somebody uses for something else is not touched."""
    server.client.set(KEY, "mine")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        store.add_event({"eid": "1"})

    assert server.client.get(KEY) == "mine"


def test_lost_group_is_made_again(server, store):
    """Without its group all of the stream waits."""
    fill(store, "1", "2")
    batch = store.get_events_batch(1)
    server.client.xgroup_destroy(KEY, GROUP)

    store.cleanup(batch, True)

    assert take(store) == ["1", "2"]


def milliseconds_of(server):
    seconds, microseconds = server.client.time()
    return seconds * 1000 + microseconds // 1000


def test_flushed_redis_is_begun_anew(server, store):
    """What waited is lost with it; what was handed out and has to be retried is stored again."""
    fill(store, "1", "2", "3", "4")
    delivered, failed = store.get_events_batch(1), store.get_events_batch(2)
    failed[0]["stm"] = "1700000000000"
    server.client.flushall()
    server.client.script_flush()
    # A stream that is begun anew within the same millisecond may give the same ids once more.
    flushed_at = milliseconds_of(server)
    eventually(lambda: milliseconds_of(server) > flushed_at)

    store.cleanup(delivered, False)
    fill(store, "5")
    store.cleanup(failed, True)

    assert store.get_events_batch() == [{"eid": name} for name in "523"]


def test_payload_that_others_delivered_is_not_lost(clock, server, store, make):
    """What is missing after the end of its lease, somebody else may have delivered, so it is not stored again."""
    fill(store, "1")
    batch = store.get_events_batch()
    end_leases(server)
    other = make(server.url)
    other.cleanup(other.get_events_batch(), False)

    clock.now += 120
    store.cleanup(batch, True)

    assert (store.size(), take(store)) == (0, [])


def test_redis_that_is_absent_refuses(tmp_path):
    """Each method says why; the next one at once, without asking."""
    with RedisServer(tmp_path) as stopped:
        store = RedisEventStore(stopped.url)

        with pytest.raises(redis.ConnectionError, match="refused"):
            store.add_event({"eid": "1"})

        for call in (lambda: store.add_event({"eid": "1"}), store.get_events_batch, store.size):
            with pytest.raises(ConnectionError, match=r"not asked for a moment, because it has failed: .*refused"):
                call()


@pytest.mark.parametrize("connects", [True, False], ids=["known", "unknown"])
def test_redis_that_hangs_is_not_waited_for(own_server, make, connects):
    """A call ends when its time is up, whether or not there was a connection before."""
    store = make(own_server.url, timeout=0.1)
    if connects:
        fill(store, "1")
    own_server.pause()

    with pytest.raises(redis.TimeoutError):
        store.add_event({"eid": "2"})

    with pytest.raises(ConnectionError, match="not asked for a moment"):
        store.add_event({"eid": "3"})
    own_server.resume()


def test_all_steps_of_a_call_share_its_time(server, make, monkeypatch):
    """What Redis is told when a connection is opened takes part of the `timeout`, and is no more than it must be."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(_redis_connection, "time", SimpleNamespace(monotonic=lambda: clock.now))
    limit, seconds = _redis_connection._Bounded._limit, []

    def noted(connection):
        seconds.append(_redis_connection._call.seconds_left())
        clock.now += 10
        limit(connection)

    monkeypatch.setattr(_redis_connection._Bounded, "_limit", noted)
    store = make(f"{server.url}/1?client_name=test", timeout=100)
    fill(store, "1")
    fill(store, "2")

    # To send, and to read what comes back: the name, the database and the script; then the script alone.
    assert seconds == [100, 90, 80, 70, 60, 50, 100, 90]


def test_script_takes_one_round_trip(server, store):
    """The first call brings the script along, and so does the first one after Redis has lost it."""
    server.client.script_flush()
    server.client.config_resetstat()
    fill(store, "1", "2")
    server.client.script_flush()
    fill(store, "3")

    statistics = server.client.info("commandstats")
    assert {name: statistics[f"cmdstat_{name}"]["calls"] for name in ("eval", "evalsha")} == {"eval": 2, "evalsha": 2}
    assert "cmdstat_script|load" not in statistics


def test_store_goes_on_after_a_restart(own_server, make, no_pause):
    """With an append-only file a restart loses nothing: neither what waits, nor who holds what."""
    store, other = make(own_server.url), make(own_server.url)
    fill(store, "1", "2", "3", "4")
    batch = store.get_events_batch(2)

    own_server.restart()
    store.cleanup(batch[:1], False)
    store.cleanup(batch[1:], True)
    fill(other, "5")

    assert take(other) == ["2", "3", "4", "5"]


def test_what_was_delivered_while_redis_was_away_is_forgotten_later(own_server, make, no_pause):
    """Payloads whose delivery Redis could not be told of are not handed out again."""
    store, other = make(own_server.url), make(own_server.url)
    fill(store, "1", "2", "3", "4")
    delivered, failed = store.get_events_batch(2), store.get_events_batch(1)

    own_server.kill()
    store.cleanup(delivered, False)
    store.cleanup(failed, True)
    own_server.start()

    assert take(other) == ["4"]
    assert take(store) == ["3"]
    assert own_server.client.xlen(KEY) == 2


def test_stranger_cannot_be_stored_while_redis_is_away(own_server, make):
    """What is nowhere but in the caller's hands stays there, with the reason."""
    store = make(own_server.url)
    fill(store, "1")
    [payload] = store.get_events_batch()
    own_server.kill()

    with pytest.raises(OSError, match="not asked for a moment"):
        store.cleanup([payload, {"eid": "stranger"}], True)


def test_batch_whose_answer_was_lost_is_handed_out_again(own_server, make, no_pause):
    """What Redis gave, and nobody got, does not wait for the end of its lease; what others hold stays theirs."""
    store, other = make(own_server.url, timeout=0.5), make(own_server.url)
    fill(store, "1", "2", "3", "4")
    held, of_other = store.get_events_batch(1), other.get_events_batch(1)
    own_server.pause()
    with pytest.raises(redis.TimeoutError):
        store.get_events_batch()
    own_server.resume()
    eventually(lambda: own_server.client.xpending(KEY, GROUP)["pending"] == 4)

    assert (eids(held), eids(of_other), take(store)) == (["1"], ["2"], ["3", "4"])


def test_batch_whose_answer_was_lost_after_a_close_is_handed_out_again(own_server, make, no_pause):
    """That its payload was out before the store was closed does not mean that it is out now."""
    store = make(own_server.url, timeout=0.5)
    fill(store, "1")
    batch = store.get_events_batch()
    store.close()
    own_server.pause()
    with pytest.raises(redis.TimeoutError):
        store.get_events_batch()
    own_server.resume()
    eventually(lambda: consumers(own_server).keys() != {"returned"})

    assert eids(batch) == take(store) == ["1"]


def test_signal_handler_may_track_while_a_connection_is_chosen(server, store):
    """In older releases of redis-py the lock of the connections is not reentrant: a handler would wait for ever."""
    fill(store, "1")
    added = []

    def track_inside():
        with store._holder()._connection._own_client.connection_pool._lock:
            added.append(store.add_event({"eid": "2"}))

    thread = threading.Thread(target=track_inside, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)

    assert added == [True]


def test_batch_on_its_way_is_not_taken_for_lost(server, store, monkeypatch):
    """While one thread waits for its batch, another one does not give that back."""
    fill(store, "1", "2")
    holder = store._holder()
    holder._may_have_more = True
    inner = holder._stream.take
    batches = []

    def take_during(*args):
        monkeypatch.setattr(holder._stream, "take", inner)
        answer = inner(1, *args[1:])
        holder._may_have_more = True
        batches.append(take(store))
        return answer

    monkeypatch.setattr(holder._stream, "take", take_during)

    assert (take(store), batches) == (["1"], [["2"]])
    assert take(store) == []


def test_failed_catching_up_is_made_up_for(server, store, monkeypatch):
    """Redis may fail again while it is told what it missed."""
    fill(store, "1", "2")
    holder = store._holder()
    held = store.get_events_batch(1)
    entries, _ = holder._stream.take(1, 1, 1_000_000, False)
    holder._may_have_more = True
    with monkeypatch.context() as patch:
        patch.setattr(holder._stream, "give_back_all_but", lambda known: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.get_events_batch()

    assert (len(entries), eids(held), take(store)) == (1, ["1"], ["2"])


def test_many_entries_are_given_back_at_once(server, store):
    """A process that lost track of thousands gets them all back, in their order."""
    store.cleanup(numbered(2_500), True)
    holder = store._holder()
    for _ in range(3):
        holder._stream.take(1_000, 10**9, 10**9, False)
    holder._may_have_more = True

    batch = [payload for _ in range(3) for payload in store.get_events_batch()]

    assert eids(batch) == eids(numbered(2_500))
    store.cleanup(batch, True)
    assert store.size() == 2_500
    # However many hand-outs it takes: a server that is slow to answer gives nothing, and is asked again.
    while store.size():
        store.cleanup(store.get_events_batch(), False)
    assert server.client.xlen(KEY) == 0


def test_redis_out_of_memory_refuses_and_recovers(server, store):
    """Nothing more is taken, with Redis's reason; what is there can be delivered, and makes room."""
    fill(store, "1", "2")
    server.client.config_set("maxmemory", 1)
    try:
        for _ in range(2):
            with pytest.raises(redis.ResponseError, match="maxmemory"):
                store.add_event({"eid": "3"})
        store.cleanup(store.get_events_batch(1), True)
        store.cleanup(store.get_events_batch(1), False)
        assert take(store) == ["2"]
    finally:
        server.client.config_set("maxmemory", 0)

    fill(store, "4")
    assert take(store) == ["4"]


def fill_until_error(store):
    numbers = itertools.count()
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        all(store.add_event({"eid": str(number), "url": "x" * 1_000}) for number in numbers)
    return next(numbers) - 1


def test_backlog_of_a_redis_out_of_memory_can_be_sent(server, store, other):
    """Though nobody has sent anything before: to take and to forget payloads needs no memory."""
    memory = server.client.info("memory")["used_memory"]
    server.client.config_set("maxmemory", memory + 2_000_000)
    try:
        added = fill_until_error(store)
        server.client.config_set("maxmemory", memory)
        taken = []
        while True:
            batch = other.get_events_batch()
            if not batch:
                break
            taken += eids(batch)
            other.cleanup(batch, False)
    finally:
        server.client.config_set("maxmemory", 0)

    assert taken == [str(number) for number in range(added)]
    assert added > 100


def test_demoted_redis_is_left(server, store, no_pause):
    """A server that has become a replica is connected to anew, as its name may lead to its successor by then."""
    before = connections(server)
    fill(store, "1")
    [own] = connections(server) - before
    server.client.replicaof(HOST, 1)
    try:
        with pytest.raises(redis.ResponseError, match="You can't write"):
            store.add_event({"eid": "2"})
        eventually(lambda: own not in connections(server))
    finally:
        server.client.replicaof("NO", "ONE")

    assert take(store) == ["1"]


@pytest.mark.parametrize("need_retry", [True, False])
def test_memory_is_bounded(monkeypatch, own_server, make, need_retry, no_pause):
    """Neither payloads that never come back nor deliveries that Redis cannot be told of are remembered without end."""
    monkeypatch.setattr(redis_event_store, "_MOST_REMEMBERED", 3)
    store = make(own_server.url)
    fill(store, *"12345")
    batches = [store.get_events_batch(1) for _ in range(5)]
    own_server.kill()

    assert len(store._holder()._claims) == 3
    store.cleanup(batches[4], need_retry)
    own_server.start()
    eventually(lambda: own_server.client.ping())

    assert take(store) == (["1", "2", "5"] if need_retry else [])
    assert own_server.client.xlen(KEY) == (5 if need_retry else 4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["url", "client"])
def test_forked_child_begins_anew(server, make, kind):
    """A child is another process to Redis, with a connection of its own; what its parent holds is not its business."""
    store = make(server.url if kind == "url" else redis.Redis(HOST, server.port))
    fill(store, "1", "2")
    held = store.get_events_batch(1)

    def act():
        assert take(store) == ["2"]
        fill(store, "3")
        store.cleanup(store.get_events_batch(), False)
        store.close()

    fork(act)
    store.cleanup(held, True)

    assert take(store) == ["1", "2"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_child_does_not_wait_for_locks_of_its_parent(server, store):
    """A lock that another thread held at the fork is held for ever in the child, so the child has others."""
    fill(store, "1")
    is_held, may_go = threading.Event(), threading.Event()
    holder = store._holder()

    def hold():
        with holder._lock, holder._connection._lock:
            is_held.set()
            may_go.wait(PATIENCE_SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    assert is_held.wait(PATIENCE_SECONDS)

    fork(lambda: fill(store, "2"))
    may_go.set()
    thread.join()

    assert take(store) == ["1", "2"]


def test_threads_share_a_store(store):
    """Several threads add, take and settle at the same time; each payload is delivered once."""
    delivered = []
    producers = [threading.Thread(target=fill, args=(store, *(f"{t}-{n}" for n in range(100)))) for t in range(4)]

    def drain(position):
        while any(producer.is_alive() for producer in producers) or store.size():
            batch = store.get_events_batch(7)
            store.cleanup(batch[1::2], True)
            delivered.extend(eids(batch[::2]))
            store.cleanup(batch[::2], False)

    senders = [threading.Thread(target=drain, args=(position,)) for position in range(3)]
    for thread in producers + senders:
        thread.start()
    for thread in producers + senders:
        thread.join(PATIENCE_SECONDS)

    assert Counter(delivered) == Counter(f"{t}-{n}" for t in range(4) for n in range(100))


@pytest.mark.parametrize("emitter_class", [Emitter, AsyncEmitter])
def test_emitter_sends_what_another_process_left(collector, store, other, emitter_class):
    """An emitter delivers from the store, its own payloads and those of others."""
    other.cleanup(numbered(1_500), True)
    emitter = emitter_class(collector.url, event_store=store, batch_size=10_000)

    for payload in numbered(10, start=1_500):
        emitter.input(payload)
    emitter.sync_flush(timeout=PATIENCE_SECONDS)

    assert sorted(map(int, eids(collector.payloads))) == list(range(1_510))
    assert store.size() == 0


def test_emitter_retries_from_the_store(collector, store):
    """A failed request's payloads go back, and go out again in their order."""
    collector.respond_with(503)
    emitter = Emitter(collector.url, event_store=store, batch_size=10)
    for payload in numbered(10):
        emitter.input(payload)
    emitter.sync_flush()

    assert eids(collector.payloads) == eids(numbered(10))
    assert is_balanced(emitter)
    assert emitter.stats().retries == 10


def test_emitter_reports_what_cannot_be_stored(collector, caplog, tmp_path):
    """With Redis away a payload is dropped, counted and logged with the reason, and the application goes on."""
    dropped = []
    with RedisServer(tmp_path) as stopped:
        store = RedisEventStore(stopped.url)
        emitter = Emitter(collector.url, event_store=store, on_failure=lambda count, payloads: dropped.extend(payloads))

        with caplog.at_level(logging.ERROR):
            for payload in numbered(3):
                emitter.input(payload)

    assert (emitter.stats().dropped, eids(dropped)) == (3, ["0", "1", "2"])
    assert "refused" in caplog.text


def test_batch_that_could_not_be_given_back_still_waits(store, other, monkeypatch):
    """It is neither out nor forgotten, and goes back as soon as Redis answers."""
    store.add_event({"eid": "1"})
    batch = store.get_events_batch()
    with monkeypatch.context() as patch:
        patch.delattr(type(store._holder()._stream), "give_back")
        store.cleanup(batch, True)

    assert store.size() == 1
    assert [payload["eid"] for payload in store.get_events_batch()] == ["1"]
    assert (store.size(), other.get_events_batch()) == (0, [])


def test_what_is_taken_while_strays_go_back_is_no_stray(store, other, monkeypatch):
    """The thread that takes waits for the one that gives back what nobody knows of."""
    store.add_event({"eid": "1"})
    holder = store._holder()
    holder._may_have_more = True
    give_back_all_but, taken = holder._stream.give_back_all_but, []
    taking = threading.Thread(target=lambda: taken.extend(store.get_events_batch()))

    def give_back_late(known):
        taking.start()
        # Without the lock it would be done by then.
        taking.join(0.2)
        give_back_all_but(known)

    monkeypatch.setattr(holder._stream, "give_back_all_but", give_back_late)
    holder._catch_up()
    taking.join(PATIENCE_SECONDS)

    assert [payload["eid"] for payload in taken] == ["1"]
    assert other.get_events_batch() == []


def test_first_event_may_come_when_the_interpreter_exits(server):
    """No module can be imported any more by then that has something to do with threads."""
    script = f"""
import atexit
atexit.register(lambda: print(emitter.input({{"eid": "1"}}), emitter.stats().accepted))
from snowplow_tracker import StoreOnlyEmitter
emitter = StoreOnlyEmitter({server.url!r})
"""

    process = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8")

    assert (process.returncode, process.stdout, process.stderr) == (0, "None 1\n", "")
