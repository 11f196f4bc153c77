"""Checks of the arguments that applications pass, and the switch that turns them all off."""

from typing import Any, Callable, Dict, Iterable, Sized, TypeVar

from ._shown import shown
from .typing import FORM_NODE_NAMES, FORM_TYPES

__all__ = [
    "contracts_enabled",
    "disable_contracts",
    "enable_contracts",
    "form_element",
    "greater_than",
    "non_empty",
    "non_empty_string",
    "one_of",
    "satisfies",
]

_T = TypeVar("_T")

_enabled = True


def contracts_enabled() -> bool:
    """Tell whether arguments are checked, which is the default."""
    return _enabled


def enable_contracts() -> None:
    """Check arguments again, in all threads."""
    global _enabled
    _enabled = True


def disable_contracts() -> None:
    """Check no argument any more, in any thread. What would fail later anyway still raises."""
    global _enabled
    _enabled = False


def non_empty(seq: Sized, name: str = "value") -> None:
    """Refuse a sequence without elements.

    Args:
        seq: What to check.
        name: The parameter as the caller's user wrote it, for the message; so in all functions of this module.

    Raises:
        ValueError: If it is empty.
        TypeError: If it has no length.
    """
    if not _enabled:
        return
    try:
        length = len(seq)
    except Exception:
        raise TypeError(f"{name} must be something that is not empty, got {shown(seq)}") from None
    if not length:
        raise ValueError(f"{name} must not be empty, got {shown(seq)}")


def non_empty_string(s: object, name: str = "value") -> None:
    """Refuse what is not a string with at least one character.

    Raises:
        ValueError: If it is empty, or no string at all.
    """
    if _enabled and not (isinstance(s, str) and s):
        raise ValueError(f"{name} must be a non-empty string, got {shown(s)}")


def one_of(value: _T, supported: Iterable[_T], name: str = "value") -> None:
    """Refuse a value that is not among the supported ones.

    Raises:
        ValueError: If it is not.
    """
    if _enabled and not _is_one_of(value, supported):
        choices = ", ".join(sorted(map(repr, supported)))
        raise ValueError(f"{name} must be one of {choices}, got {shown(value)}")


def greater_than(value: float, compared_to: float, name: str = "value") -> None:
    """Refuse a number that is not greater than another.

    Raises:
        ValueError: If it is not.
        TypeError: If the two cannot be compared.
    """
    if not _enabled:
        return
    try:
        is_greater = bool(value > compared_to)
    except Exception:
        raise TypeError(f"{name} must be a number greater than {compared_to!r}, got {shown(value)}") from None
    if not is_greater:
        raise ValueError(f"{name} must be greater than {compared_to!r}, got {shown(value)}")


def satisfies(value: _T, check: Callable[[_T], bool], name: str = "value") -> None:
    """Refuse a value that does not pass a check of the caller's own.

    Raises:
        ValueError: If the check returns something false.
    """
    if _enabled and not check(value):
        raise ValueError(f"{name} is not allowed, got {shown(value)}")


def form_element(element: Dict[str, Any], name: str = "element") -> None:
    """Refuse what does not describe an element of a web form.

    Args:
        element: Needs `name`, `value` and `nodeName` (one of `typing.FORM_NODE_NAMES`); `type`, if it is there, is one
            of `typing.FORM_TYPES`.
        name: The parameter that it came from, for the message.

    Raises:
        ValueError: If a key is missing or a value not supported.
        TypeError: If it is not a dict.
    """
    if not _enabled:
        return
    if not isinstance(element, dict):
        raise TypeError(f"{name} must be a dict, got {shown(element)}")
    for key in ("name", "value", "nodeName"):
        if key not in element:
            raise ValueError(f"{name} must have the key {key!r}, got {shown(element)}")
    one_of(element["nodeName"], FORM_NODE_NAMES, name=f"{name}['nodeName']")
    if "type" in element:
        one_of(element["type"], FORM_TYPES, name=f"{name}['type']")


def _is_one_of(value: object, supported: Iterable[object]) -> bool:
    # Compared one by one, because a wrong value need not be hashable; nor need it know how to compare.
    try:
        return any(value == choice for choice in supported)
    except Exception:
        return False
