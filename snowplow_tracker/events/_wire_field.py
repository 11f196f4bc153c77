"""An attribute of an event that lives in its payload under a wire name."""

import math
from typing import Any, Generic, Optional, Type, TypeVar, Union, overload

from ..contracts import non_empty_string
from ..typing import PayloadDict

__all__ = ["WireField"]

T = TypeVar("T")


class WireField(Generic[T]):
    """An attribute that reads and writes one pair of the event's payload.

    Setting None clears it, and so do the empty string, NaN and the infinities, which have no meaning on the wire. It
    reads None when it is not set.

    Args:
        wire_name: The pair's name.
        required: Whether the contract is that it is a non-empty string.
    """

    def __init__(self, wire_name: str, *, required: bool = False) -> None:
        self._wire_name = wire_name
        self._required = required

    def __set_name__(self, owner: Type[object], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, event: None, owner: Type[object]) -> "WireField[T]": ...

    @overload
    def __get__(self, event: object, owner: Type[object]) -> T: ...

    def __get__(self, event: Optional[object], owner: Type[object]) -> Union["WireField[T]", T, None]:
        if event is None:
            return self
        return self._pairs(event).get(self._wire_name)

    def __set__(self, event: object, value: T) -> None:
        if self._required:
            non_empty_string(value, name=self._name)
        if self._is_absent(value):
            self._pairs(event).pop(self._wire_name, None)
        else:
            self._pairs(event)[self._wire_name] = value

    def _pairs(self, event: Any) -> PayloadDict:
        pairs: PayloadDict = event.payload.nv_pairs
        return pairs

    def _is_absent(self, value: object) -> bool:
        return value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))
