"""Retries: which statuses are worth one, and how long to wait first."""

import itertools
import time
from email.utils import formatdate

import pytest

from snowplow_tracker._retry import (
    MIN_RETRY_DELAY_SECONDS,
    NO_RESPONSE,
    is_good_status_code,
    next_delay,
    parse_retry_after,
    should_retry,
)

NOW = 1_700_000_000.0


@pytest.fixture
def frozen_clock(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.fixture
def far_from_utc(monkeypatch):
    """A machine whose local time is eight hours behind UTC."""
    monkeypatch.setenv("TZ", "XXX8")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_good(status):
    """200 to 299 says that the collector took the payloads."""
    assert is_good_status_code(status) is True


def test_no_response_is_a_number_that_is_no_status():
    """Applications that override the sending of requests know it as -1."""
    assert NO_RESPONSE == -1


@pytest.mark.parametrize("status", [NO_RESPONSE, 0, 100, 199, 300, 404, 500])
def test_all_else_is_not_good(status):
    """No other status, and no response, says so."""
    assert is_good_status_code(status) is False


@pytest.mark.parametrize("status", [400, 401, 403, 410, 413, 422])
def test_refusal_for_good_is_not_retried(status):
    """What the collector will never take is not sent again."""
    assert should_retry(status, {}) is False


@pytest.mark.parametrize(
    "status", [NO_RESPONSE, 100, 300, 301, 302, 303, 402, 404, 405, 408, 411, 418, 429, 500, 502, 503, 504, 599]
)
def test_everything_else_is_retried(status):
    """Any other failure, and no response, may pass."""
    assert should_retry(status, {}) is True


@pytest.mark.parametrize("status", [200, 204, 299])
@pytest.mark.parametrize("rules", [{}, {200: True, 204: True, 299: True}])
def test_success_is_never_retried(status, rules):
    """What was delivered is not sent again, whatever the rules say."""
    assert should_retry(status, rules) is False


@pytest.mark.parametrize("status", [400, 413, 500])
def test_rules_of_the_user_win(status):
    """A rule of one's own counts before the built-in one, either way."""
    assert should_retry(status, {status: True}) is True
    assert should_retry(status, {status: False}) is False


def test_rules_of_the_user_count_for_their_status_only():
    """A rule changes nothing for the other statuses."""
    rules = {400: True, 500: False}

    assert should_retry(401, rules) is False
    assert should_retry(503, rules) is True


@pytest.mark.parametrize("jitter", [0.25, 0.5, 0.999])
def test_first_delay_is_the_random_part_alone(jitter):
    """The first failure of a series costs up to one second."""
    assert next_delay(0, 60, jitter=lambda: jitter) == jitter


def test_delay_doubles_and_grows_by_the_random_part():
    """Each failure doubles the delay and adds a part of a second."""
    delays = [next_delay(previous, 60, jitter=lambda: 0.5) for previous in (0.5, 1.5, 3.5, 7.5, 15.5)]

    assert delays == [1.5, 3.5, 7.5, 15.5, 31.5]


@pytest.mark.parametrize("previous", [29.5, 30, 60, 1e308])
@pytest.mark.parametrize(("jitter", "expected"), [(0.0, 30.0), (0.5, 45.0), (0.75, 52.5)])
def test_delay_at_the_cap_is_spread_over_its_upper_half(previous, jitter, expected):
    """Trackers that saw the same outage do not come back in step, and none later than the maximum."""
    draws = itertools.chain([1.0], itertools.repeat(jitter))

    assert next_delay(previous, 60, jitter=lambda: next(draws)) == expected


def test_delay_just_below_the_cap_is_kept():
    """What is less than the maximum is not spread."""
    assert next_delay(29.5, 60, jitter=lambda: 0.75) == 59.75


@pytest.mark.parametrize("maximum", [60, 0.02])
def test_delay_is_never_under_the_minimum(maximum):
    """An unlucky draw, or a tiny maximum, does not make requests follow without a pause."""
    assert next_delay(0, maximum, jitter=lambda: 0.0) == MIN_RETRY_DELAY_SECONDS == 0.05


@pytest.mark.parametrize(
    ("asked_for", "expected"),
    [(0.0, 3.5), (3.0, 3.5), (10.0, 10.0), (60.0, 60.0), (3600.0, 60.0), (float("inf"), 60.0)],
)
def test_request_of_the_collector_is_a_lower_bound_within_the_cap(asked_for, expected):
    """`Retry-After` makes a delay longer, never shorter, and never longer than the maximum."""
    assert next_delay(1.5, 60, at_least=asked_for, jitter=lambda: 0.5) == expected


def test_delay_is_random():
    """Without a jitter of one's own the random part is drawn anew each time."""
    delays = {next_delay(0, 60) for _ in range(50)}

    assert len(delays) > 1
    assert all(MIN_RETRY_DELAY_SECONDS <= delay < 1 for delay in delays)


@pytest.mark.parametrize(("header", "seconds"), [("0", 0.0), ("2", 2.0), (" 120 ", 120.0), ("007", 7.0)])
def test_retry_after_may_be_seconds(header, seconds):
    """A number is seconds from now."""
    assert parse_retry_after(header) == seconds


@pytest.mark.parametrize(
    "header",
    [
        formatdate(NOW + 90, usegmt=True),
        time.strftime("%A, %d-%b-%y %H:%M:%S GMT", time.gmtime(NOW + 90)),
        time.asctime(time.gmtime(NOW + 90)),
        "Tue, 14 Nov 2023 23:14:50 +0100",
    ],
)
@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the platform cannot change its time zone")
def test_retry_after_may_be_a_date(header, frozen_clock, far_from_utc):
    """Each format of an HTTP date is a moment in UTC, wherever the tracker runs."""
    assert parse_retry_after(header) == 90.0


@pytest.mark.parametrize("header", [formatdate(NOW - 90, usegmt=True), "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_retry_after_in_the_past_is_no_wait(header, frozen_clock):
    """A date that is over asks for nothing."""
    assert parse_retry_after(header) == 0.0


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "soon",
        "-5",
        "1.5",
        "1e3",
        "٣",
        "²",
        "nan",
        "inf",
        "Tue, 99 Nov 2023 25:00:00 GMT",
        "Tue, 14 Nov 2023 22:14:50 +99999999999999999999",
        "Oct -1 , 3 21 21 ².5",
        5,
        b"5",
    ],
    ids=repr,
)
def test_unreadable_retry_after_is_no_wait(header):
    """Whatever a server sends there, it does not raise and asks for nothing."""
    assert parse_retry_after(header) == 0.0


def test_absurdly_long_retry_after_is_a_wait():
    """More digits than a float can hold are still seconds, which the maximum will bound."""
    assert parse_retry_after("9" * 5000) == float("inf")
