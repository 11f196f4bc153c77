"""Whether a request is worth repeating, and how long to wait first."""

import email.utils
import random
import time
from datetime import timezone
from typing import Callable, Mapping, Optional

__all__ = [
    "MIN_RETRY_DELAY_SECONDS",
    "NO_RESPONSE",
    "TOO_LARGE",
    "is_good_status_code",
    "next_delay",
    "parse_retry_after",
    "should_retry",
]

# The status of a request that got no HTTP response: refused, reset, timed out.
NO_RESPONSE = -1
# A collector, or a proxy before it, that would take the same payloads in a smaller request.
TOO_LARGE = 413
MIN_RETRY_DELAY_SECONDS = 0.05

_REFUSED_FOR_GOOD = frozenset({400, 401, 403, 410, TOO_LARGE, 422})


def is_good_status_code(status_code: int) -> bool:
    """Tell whether the collector took the payloads."""
    return 200 <= status_code < 300


def should_retry(status_code: int, custom_retry_codes: Mapping[int, bool]) -> bool:
    """Tell whether a request that ended with this status is worth repeating as it is.

    Args:
        status_code: HTTP status code, or `NO_RESPONSE` when the collector was not reached.
        custom_retry_codes: The user's own rules, which win over the built-in ones.
    """
    if is_good_status_code(status_code):
        return False
    return custom_retry_codes.get(status_code, status_code not in _REFUSED_FOR_GOOD)


def next_delay(
    previous: float, maximum: float, at_least: float = 0.0, jitter: Callable[[], float] = random.random
) -> float:
    """Compute the seconds to wait after one more failure.

    The delay doubles, plus a random part of a second, up to the maximum. There it is spread over the upper half, so
    that many trackers which saw the same outage do not come back in step.

    Args:
        previous: The delay before this failure; 0 for the first failure of a series.
        maximum: `max_retry_delay_seconds`.
        at_least: What the collector asked for by `Retry-After`; counts within the maximum.
        jitter: Returns a number in [0, 1).
    """
    delay = 2 * previous + jitter()
    if delay >= maximum:
        delay = maximum * (1 + jitter()) / 2
    return max(delay, min(at_least, maximum), MIN_RETRY_DELAY_SECONDS)


def parse_retry_after(value: Optional[str]) -> float:
    """Read a `Retry-After` header, which holds seconds or an HTTP date.

    Returns:
        Seconds from now; 0.0 if there is no such header, it cannot be read, or it lies in the past.
    """
    if not isinstance(value, str):
        return 0.0
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except Exception:
        # The parser raises all sorts of errors at what servers send, and none of them may cost the response.
        return 0.0
    if moment.tzinfo is None:
        # The oldest of the three formats of HTTP dates names no time zone; all of them are in UTC.
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, moment.timestamp() - time.time())
