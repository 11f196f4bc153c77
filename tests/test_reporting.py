"""Reports of what keeps happening: the first at once, then sums."""

import inspect
import threading
import time

import pytest

from snowplow_tracker._reporting import Drops, Occurrences, call_back


class Clock:
    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def occurrences(clock):
    return Occurrences(10.0, clock)


@pytest.mark.parametrize("now", [0.0, 5.0, 1e6])
def test_first_occurrence_is_reported_at_once(occurrences, clock, now):
    """There is something to report as soon as it happens, however young the clock is."""
    clock.now = now

    assert occurrences.add("full") == 1


def test_first_report_tells_the_whole_count(occurrences):
    """Several at a time are reported as several."""
    assert occurrences.add("full", 5) == 5


def test_occurrences_within_the_interval_are_kept_back(occurrences, clock):
    """Nothing is reported until the interval is over."""
    occurrences.add("full")

    clock.now = 9.9

    assert occurrences.add("full") == 0


def test_occurrences_are_summed_up_after_the_interval(occurrences, clock):
    """The next report tells all that happened since the last one."""
    occurrences.add("full")
    occurrences.add("full", 2)
    occurrences.add("full", 3)

    clock.now = 10.0

    assert occurrences.add("full") == 6


def test_each_report_begins_an_interval(occurrences, clock):
    """Reports are an interval apart, not at its multiples."""
    occurrences.add("full")
    clock.now = 15.0
    occurrences.add("full")

    clock.now = 24.9
    early = occurrences.add("full")
    clock.now = 25.0
    due = occurrences.add("full")

    assert (early, due) == (0, 2)


def test_kinds_are_counted_apart(occurrences):
    """One kind does not silence another."""
    occurrences.add("full")
    occurrences.add("full")

    assert occurrences.add("closed") == 1


def test_what_is_unreported_can_be_taken(occurrences):
    """The sums that wait for a report are handed over, those reported are not."""
    occurrences.add("full")
    occurrences.add("full", 4)
    occurrences.add("closed")

    assert occurrences.take_unreported() == {"full": 4}
    assert occurrences.take_unreported() == {}


def test_taking_begins_anew(occurrences):
    """After that the next occurrence is the first of its kind again."""
    occurrences.add("full")
    occurrences.add("full")

    occurrences.take_unreported()

    assert occurrences.add("full") == 1


def test_clock_is_monotonic_by_default():
    """A clock that is set back does not silence anything."""
    default = inspect.signature(Occurrences).parameters["clock"].default

    assert default is time.monotonic


def test_drop_is_told_to_the_log_and_to_the_callback(caplog):
    """The log gets the first at once and the others in a sum, with the reason; the callback gets each."""
    told = []
    drops = Drops()

    for number in range(3):
        drops.report(
            {"eid": number}, "no room", OSError("disk"), lambda count, payloads: told.append((count, payloads))
        )
    drops.report_rest()
    drops.report_rest()

    assert caplog.messages == ["Dropped 1 payloads: no room", "Dropped 2 payloads: no room"]
    assert "disk" in caplog.text
    assert told == [(0, [{"eid": number}]) for number in range(3)]


def test_drop_inside_the_callback_is_told_to_the_log_only():
    """Or a callback that puts the payload in again would be called for ever. Other threads are told as ever."""
    told = []
    drops = Drops()

    def report(name, callback=None):
        drops.report({"eid": name}, "no room", None, callback)

    def again(count, payloads):
        told.extend(payloads)
        report("nested", again)
        if len(told) == 1:
            thread = threading.Thread(target=report, args=("in a thread", again))
            thread.start()
            thread.join()

    report("first", again)
    report("without a callback")

    assert told == [{"eid": "first"}, {"eid": "in a thread"}]


def test_callback_that_fails_is_logged(caplog):
    """What it raises goes no further, unless it is meant to end the program."""

    def fail(error):
        raise error

    call_back(fail, ValueError("of a callback"))

    assert "of a callback" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        call_back(fail, KeyboardInterrupt())
