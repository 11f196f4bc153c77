"""What values the options of an emitter may have."""

import sys
from typing import Any, Callable, Dict, Generic, Optional, Tuple, Type, TypeVar, Union, overload

from ._shown import shown
from .typing import RequestTimeout

__all__ = [
    "Setting",
    "callback",
    "choice",
    "event_store",
    "flag",
    "optional",
    "port_number",
    "positive_int",
    "positive_number",
    "request_timeout",
    "retry_code",
    "retry_codes",
    "session",
    "wait_seconds",
]

# A lock or a socket cannot wait longer than this, and nobody does.
_LONGEST_WAIT_SECONDS = 3600.0 * 24 * 30

_T = TypeVar("_T")
_Check = Callable[[str, Any], _T]


class Setting(Generic[_T]):
    """An attribute that refuses a wrong value at the line that sets it."""

    def __init__(self, check: _Check[_T], default: Optional[_T] = None) -> None:
        """Describe an attribute of the class that this is assigned in.

        Args:
            check: Takes the attribute's name and a value; returns the value to keep or raises `TypeError`/`ValueError`.
            default: What the attribute reads before it was set.
        """
        self._check = check
        self._default = default

    def __set_name__(self, owner: Type[object], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: Type[object]) -> "Setting[_T]": ...

    @overload
    def __get__(self, instance: object, owner: Type[object]) -> _T: ...

    def __get__(self, instance: Optional[object], owner: Type[object]) -> Union["Setting[_T]", _T, None]:
        if instance is None:
            return self
        return instance.__dict__.get(self._name, self._default)

    def __set__(self, instance: object, value: _T) -> None:
        instance.__dict__[self._name] = self._check(self._name, value)

    def __delete__(self, instance: object) -> None:
        instance.__dict__.pop(self._name, None)


def optional(check: _Check[_T]) -> _Check[Optional[_T]]:
    """Allow None as well."""
    return lambda name, value: None if value is None else check(name, value)


def positive_int(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    if value <= 0:
        raise ValueError(f"{name} must be positive, got {shown(value)}")
    return value


def positive_number(name: str, value: Any) -> float:
    _check_number(name, value)
    if not (0 < value <= sys.float_info.max):
        raise ValueError(f"{name} must be positive and finite, got {shown(value)}")
    return value  # type: ignore[no-any-return]  # checked above; an int stays an int


def wait_seconds(name: str, value: Any) -> float:
    """Check how long a caller is ready to wait: 0 or more seconds."""
    _check_number(name, value)
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, got {shown(value)}")
    return float(min(value, _LONGEST_WAIT_SECONDS))


def port_number(name: str, value: Any) -> int:
    if positive_int(name, value) > 65535:
        raise ValueError(f"{name} must be between 1 and 65535, got {shown(value)}")
    return value  # type: ignore[no-any-return]  # checked above


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return value


def choice(*allowed: str) -> _Check[str]:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, got {shown(value)}")
        # What a subclass such as an enum prints of itself is not its value.
        text = str.__str__(value)
        if text not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {shown(value)}")
        return text

    return check


def callback(name: str, value: Any) -> Callable[..., Any]:
    if not callable(value):
        raise TypeError(f"{name} must be callable, got {shown(value)}")
    return value  # type: ignore[no-any-return]  # mypy does not narrow Any


def request_timeout(name: str, value: Any) -> RequestTimeout:
    """Check a timeout: seconds, or a pair of seconds to connect and to read, where None leaves one at its default."""
    if not isinstance(value, (tuple, list)):
        return _timeout_seconds(name, value)
    if len(value) != 2:
        raise ValueError(f"{name} must be seconds or a pair of them, got {shown(value)}")
    connect, read = (optional(_timeout_seconds)(name, seconds) for seconds in value)
    return (10.0 if connect is None else connect, 30.0 if read is None else read)


def retry_code(name: str, status_code: Any, retry: Any) -> Tuple[int, bool]:
    """Check one retry rule."""
    if isinstance(status_code, bool) or not isinstance(status_code, int):
        raise TypeError(f"{name} must have integer status codes, got {shown(status_code)}")
    if not 100 <= status_code <= 599:
        raise ValueError(f"{name} must have status codes from 100 to 599, got {shown(status_code)}")
    if 200 <= status_code <= 299:
        raise ValueError(f"{name} cannot change what a success is, got {shown(status_code)}")
    if not isinstance(retry, bool):
        raise TypeError(f"{name}[{status_code}] must be True or False, got {shown(retry)}")
    return status_code, retry


def retry_codes(name: str, value: Any) -> Dict[int, bool]:
    """Check retry rules; returns a copy, because the caller may share its dict between emitters."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a dict, got {shown(value)}")
    return dict(retry_code(name, status_code, retry) for status_code, retry in value.items())


def event_store(name: str, value: Any) -> Any:
    return _with_methods(name, value, "add_event", "get_events_batch", "cleanup", "size")


def session(name: str, value: Any) -> Any:
    return _with_methods(name, value, "post", "get")


def _with_methods(name: str, value: Any, *methods: str) -> Any:
    missing = [method for method in methods if not callable(getattr(value, method, None))]
    if missing:
        raise TypeError(f"{name} must have the method {missing[0]}, got {shown(value)}")
    if isinstance(value, type):
        raise TypeError(f"{name} must be an object, got the class {shown(value)}")
    return value


def _timeout_seconds(name: str, value: Any) -> float:
    return min(positive_number(name, value), _LONGEST_WAIT_SECONDS)


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
