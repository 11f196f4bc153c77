"""The log of events: what is judged when, what is kept, and who is woken."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from snowplow_tracker.testing import BadEvent, CollectedRequest, GoodEvent
from snowplow_tracker.testing._event_log import EventLog
from snowplow_tracker.testing._recent import Recent

SALE = "iglu:com.acme/sale/jsonschema/1-0-0"


class Judge:
    """Stands in for a pipeline: a payload is good unless it says that it is bad."""

    def __init__(self):
        self.judged = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def judge_request(self, request):
        self.begun.set()
        assert self.go_on.wait(10)
        self.judged += [payload["eid"] for payload in request.payloads]
        return [judged(payload, request) for payload in request.payloads]


class ResettingEvents(Recent):
    """Events that are kept, of a log that is reset as soon as one is."""

    def __init__(self, log):
        super().__init__(None, 0)
        self._log = log

    def add(self, event, size_bytes):
        self._log._begin()


def judged(payload, request):
    if payload.get("bad"):
        return BadEvent(payload, ["it says so"], request)
    return GoodEvent(payload, "page_view", "iglu:a/b/jsonschema/1-0-0", None, [], {}, request)


def request(*event_ids, bad=False, body=b""):
    payloads = [{"eid": event_id, **({"bad": "1"} if bad else {})} for event_id in event_ids]
    return CollectedRequest("POST", "/", {}, {}, body, payloads, 200, 1, 0.0, 0.0)


def ids(events):
    return [event.payload["eid"] for event in events]


def excerpt_ids(excerpt):
    return [(serial, event.payload["eid"]) for serial, event in excerpt.events]


@pytest.fixture
def judge():
    return Judge()


def test_requests_are_judged_once_when_somebody_asks(judge):
    """Nothing is judged before it has to be, and nothing twice."""
    log = EventLog(judge)
    log.add(request("a", "b"))
    log.add(request("c", bad=True))
    log.limit_backlog()

    judged_before = list(judge.judged)

    assert judged_before == []
    assert (ids(log.good()), ids(log.bad()), log.counts()) == (["a", "b"], ["c"], (2, 1))
    assert judge.judged == ["a", "b", "c"]


def test_oldest_events_go_first_and_still_count(judge):
    """A log that is limited keeps the newest events, good and bad together."""
    log = EventLog(judge, max_events=3)

    log.add(request("a", "b"))
    log.add(request("c", bad=True))
    log.add(request("d"))

    assert (ids(log.good()), ids(log.bad()), log.counts()) == (["b", "d"], ["c"], (3, 1))


@pytest.mark.parametrize("requests", [[request("a", "b", "c")], [request()] * 3], ids=["payloads", "requests"])
def test_limited_log_does_not_let_requests_pile_up(judge, requests):
    """As soon as more waits than is going to be kept, it is judged."""
    log = EventLog(judge, max_events=2)
    for waiting in requests:
        log.add(waiting)
    waiting_before = len(log._unjudged)

    log.limit_backlog()

    assert (waiting_before, len(log._unjudged)) == (len(requests), 0)


def test_limited_log_forgets_what_is_too_large(judge):
    """Each event counts with its share in the request that it keeps in memory; counts go by all."""
    log = EventLog(judge, max_events=1000)
    for letter in "abcd":
        log.add(request(f"{letter}1", f"{letter}2", body=bytes(50_000_000)))

    assert (ids(log.good()), log.counts()) == (["b2", "c1", "c2", "d1", "d2"], (8, 0))


def test_limited_log_does_not_let_large_requests_pile_up(judge):
    """A few requests may be much as well."""
    log = EventLog(judge, max_events=1000)
    log.add(request("a", body=bytes(40_000_000)))
    log.limit_backlog()
    judged_before = list(judge.judged)

    log.add(request("b", body=bytes(40_000_000)))
    log.limit_backlog()

    assert (judged_before, judge.judged) == ([], ["a", "b"])


@pytest.mark.parametrize("bad", [False, True])
def test_what_is_made_of_a_request_counts_as_well(bad):
    """A small request may bring an event that is large, once it is decoded."""
    large = ["x" * 40_000_000]

    class Maker:
        def judge_request(self, request):
            if bad:
                return [BadEvent(None, large, request)]
            return [GoodEvent({}, "unstruct", SALE, large, [], {}, request)]

    log = EventLog(Maker(), max_events=1000)
    for _ in range(5):
        log.add(request("a"))

    assert (len(log.good()), len(log.bad())) == ((0, 3) if bad else (3, 0))


def test_log_without_a_limit_keeps_all(judge):
    """Where no number is given, size does not matter either."""
    log = EventLog(judge)
    for letter in "abc":
        log.add(request(letter, body=bytes(70_000_000)))

    assert ids(log.good()) == ["a", "b", "c"]


def test_limited_log_leaves_a_few_requests_waiting(judge):
    """What is going to be kept anyway may as well wait."""
    log = EventLog(judge, max_events=2)
    log.add(request("a", "b"))

    log.limit_backlog()

    assert judge.judged == []


def test_reset_forgets_what_waits_and_what_was_judged(judge):
    """After a reset the log is empty."""
    log = EventLog(judge)
    log.add(request("a"))
    log.good()
    log.add(request("b"))

    log.reset()

    assert (log.good(), log.bad(), log.counts()) == ([], [], (0, 0))


@pytest.mark.parametrize("requests", [1, 2])
def test_reset_forgets_what_is_being_judged(judge, requests):
    """Events that are judged at the moment of a reset do not come back after it."""
    log = EventLog(judge)
    for _ in range(requests):
        log.add(request("before"))
    judge.go_on.clear()

    with ThreadPoolExecutor() as pool:
        asking = pool.submit(log.good)
        assert judge.begun.wait(10)
        log.reset()
        log.add(request("after"))
        judge.go_on.set()

        assert asking.result(10) == []
    assert (ids(log.good()), log.counts()) == (["after"], (1, 0))


def test_reset_between_two_requests_ends_the_judging(judge):
    """What the judging thread has not taken yet is forgotten as well."""
    log = EventLog(judge)
    log.add(request("a"))
    log.add(request("b"))
    log._kept = ResettingEvents(log)

    assert log.good() == []
    assert judge.judged == ["a"]


def test_arrivals_do_not_wait_for_the_judging(judge):
    """A request is added while others are being judged."""
    log = EventLog(judge)
    log.add(request("a"))
    judge.go_on.clear()

    with ThreadPoolExecutor() as pool:
        asking = pool.submit(log.good)
        assert judge.begun.wait(10)
        log.add(request("b"))
        judge.go_on.set()
        first = asking.result(10)

    assert (ids(first), ids(log.good())) == (["a"], ["a", "b"])


def test_all_who_ask_at_once_see_all_that_had_arrived(judge):
    """Who asks while another thread judges waits until that is done."""
    log = EventLog(judge)
    for number in range(200):
        log.add(request(str(number)))

    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(log.counts) for _ in range(8)]

        assert [count.result(10) for count in counts] == [(200, 0)] * 8
    assert len(judge.judged) == 200


def test_excerpt_has_the_newest_events(judge):
    """An excerpt is newest first, with serial numbers from 1."""
    log = EventLog(judge)
    log.add(request("a", "b"))
    log.add(request("c", bad=True))

    excerpt = log.excerpt(2)

    assert (excerpt.good, excerpt.bad, excerpt.oldest) == (2, 1, 1)
    assert excerpt_ids(excerpt) == [(3, "c"), (2, "b")]


@pytest.mark.parametrize(
    ("limit", "after", "before", "expected"),
    [
        (9, 3, None, "ed"),
        (1, 3, None, "e"),
        (9, 5, None, ""),
        (9, 99, None, ""),
        (9, 0, None, "edcb"),
        (9, None, 4, "cb"),
        (1, None, 4, "c"),
        (9, None, 1, ""),
        (9, None, 0, ""),
        (9, None, 99, "edcb"),
        (9, 2, 5, "dc"),
        (0, None, None, ""),
    ],
)
def test_excerpt_is_bounded(judge, limit, after, before, expected):
    """An excerpt can begin after an event, and end before one; what is not kept any more is in none."""
    log = EventLog(judge, max_events=4)
    log.add(request(*"abcde"))

    excerpt = log.excerpt(limit, after=after, before=before)

    assert excerpt.oldest == 2
    assert "".join(event_id for _, event_id in excerpt_ids(excerpt)) == expected


def test_generation_changes_with_a_reset(judge):
    """Serial numbers begin anew with a reset, and the generation tells so; two logs have none in common."""
    log = EventLog(judge)
    log.add(request("a"))
    before = log.excerpt(9)

    log.reset()
    log.add(request("b"))
    after = log.excerpt(9)

    assert (excerpt_ids(before), excerpt_ids(after)) == ([(1, "a")], [(1, "b")])
    assert len({before.generation, after.generation, EventLog(judge).excerpt(0).generation}) == 3
    assert log.excerpt(9).generation == after.generation


def test_waiting_ends_when_the_condition_holds(judge):
    """Arrivals wake the one who waits for them."""
    log = EventLog(judge)
    asked = threading.Event()

    def has_two():
        asked.set()
        return log.counts() == (2, 0)

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(log.wait_until, has_two, 10)
        assert asked.wait(10)
        log.add(request("a"))
        log.add(request("b"))

        assert waiting.result(10)


def test_reset_is_worth_waiting_for(judge):
    """A reset wakes those who wait, too."""
    log = EventLog(judge)
    log.add(request("a"))
    asked = threading.Event()

    def is_empty():
        asked.set()
        return log.counts() == (0, 0)

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(log.wait_until, is_empty, 10)
        assert asked.wait(10)
        log.reset()

        assert waiting.result(10)


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_waiting_in_vain_ends(judge, timeout):
    """When the time is up, the condition is asked a last time."""
    answers = iter([False] * 10)

    assert not EventLog(judge).wait_until(lambda: next(answers), timeout)
    assert EventLog(judge).wait_until(lambda: True, timeout)


def test_waiting_in_vain_ends_though_requests_keep_coming(judge):
    """Arrivals do not make the time longer."""
    log = EventLog(judge)

    def never():
        log.add(request("another"))
        return False

    assert not log.wait_until(never, 0.01)
