"""Ids for events: random UUIDs, in a fraction of the time that `uuid.uuid4` takes."""

import os
import time
from typing import List, Tuple

__all__ = ["new_event_id"]

# How long random digits may lie about before they are used. No virtual machine is stopped, and resumed several times,
# within that time; what a forked child has of its parent it forgets.
_MAX_AGE_SECONDS = 0.01
_AT_A_TIME = 32
_DIGITS = 32

# The digit that stands for the variant of a UUID has two bits of its own, and two random ones.
_VARIANTS = {digit: "89ab"[number & 3] for number, digit in enumerate("0123456789abcdef")}


# Until when these may be used, by the monotonic clock, and the digits of one id each. A thread takes some by
# `list.pop`, which is one step.
_supply: Tuple[float, List[str]] = (0.0, [])


def new_event_id() -> str:
    """Make a random UUID, as text. May be called by several threads.

    Who makes many gets the randomness for several at a time. The system's source of it is not only slow: whoever asks
    it lets other threads run, and would have to wait for them after each event.
    """
    best_before, unused = _supply
    if best_before > time.monotonic():
        try:
            digits = unused.pop()
        except IndexError:
            digits = _refilled(_AT_A_TIME)
    else:
        digits = _refilled(1)
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANTS[digits[16]]}{digits[17:20]}-{digits[20:]}"


def _refilled(count: int) -> str:
    """Begin a new supply, and take the first of it."""
    global _supply
    text = os.urandom(count * _DIGITS // 2).hex()
    digits = [text[start : start + _DIGITS] for start in range(0, len(text), _DIGITS)]
    first = digits.pop()
    _supply = time.monotonic() + _MAX_AGE_SECONDS, digits
    return first


def _forget() -> None:
    global _supply
    _supply = 0.0, []


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows does not fork
    os.register_at_fork(after_in_child=_forget)
