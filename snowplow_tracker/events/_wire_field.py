"""An attribute of an event that lives in its payload under a wire name."""

import math
from operator import attrgetter
from typing import Callable, Generic, Optional, Type, TypeVar, Union, overload

from ..contracts import non_empty_string
from ..typing import PayloadDict

__all__ = ["WireField"]

_T = TypeVar("_T")


class WireField(Generic[_T]):
    """An attribute that reads and writes one pair of the event's payload.

    Setting None clears it, and so do the empty string, NaN and the infinities, which have no meaning on the wire. It
    reads None when it is not set.

    Args:
        wire_name: The pair's name.
        required: Whether the contract is that it is a non-empty string.
        where: The event's attribute that is the dict of pairs.
        keeps_all: Whether only None clears it.
    """

    def __init__(
        self, wire_name: str, *, required: bool = False, where: str = "payload.nv_pairs", keeps_all: bool = False
    ) -> None:
        self._wire_name = wire_name
        self._required = required
        self._pairs: Callable[[object], PayloadDict] = attrgetter(where)
        self._keeps_all = keeps_all

    def __set_name__(self, owner: Type[object], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, event: None, owner: Type[object]) -> "WireField[_T]": ...

    @overload
    def __get__(self, event: object, owner: Type[object]) -> _T: ...

    def __get__(self, event: Optional[object], owner: Type[object]) -> Union["WireField[_T]", _T, None]:
        if event is None:
            return self
        return self._pairs(event).get(self._wire_name)

    def __set__(self, event: object, value: _T) -> None:
        if type(value) is str and value:
            # So it is nearly always, and nothing else has to be asked.
            self._pairs(event)[self._wire_name] = value
            return
        if self._required:
            non_empty_string(value, name=self._name)
        pairs = self._pairs(event)
        if value is None or not (self._keeps_all or _has_meaning(value)):
            pairs.pop(self._wire_name, None)
        else:
            pairs[self._wire_name] = value


def _has_meaning(value: object) -> bool:
    return bool(value) if isinstance(value, str) else not isinstance(value, float) or math.isfinite(value)
