"""An attribute of an event that lives in its payload under a wire name."""

import math
from typing import Any, Generic, Optional, Type, TypeVar, Union, overload

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
    """

    def __init__(self, wire_name: str, *, required: bool = False) -> None:
        self._wire_name = wire_name
        self._required = required

    def __set_name__(self, owner: Type[object], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, event: None, owner: Type[object]) -> "WireField[_T]": ...

    @overload
    def __get__(self, event: object, owner: Type[object]) -> _T: ...

    def __get__(self, event: Optional[object], owner: Type[object]) -> Union["WireField[_T]", _T, None]:
        if event is None:
            return self
        return self.pairs_of(event).get(self._wire_name)

    def __set__(self, event: Any, value: _T) -> None:
        kind = type(value)
        if (kind is str and value) or (kind is int and not self._required):
            # So it is nearly always, and nothing else has to be asked.
            event.payload.nv_pairs[self._wire_name] = value
        else:
            self.set_or_clear(event, value)

    def set_or_clear(self, event: object, value: object) -> None:
        """Set the pair if the value has a meaning, and remove it otherwise.

        Raises:
            ValueError: If it is required and no string, or an empty one.
        """
        if self._required:
            non_empty_string(value, name=self._name)
        pairs = self.pairs_of(event)
        if self.has_meaning(value):
            pairs[self._wire_name] = value
        else:
            pairs.pop(self._wire_name, None)

    @staticmethod
    def pairs_of(event: Any) -> PayloadDict:
        """Give the dict that holds the pair."""
        pairs: PayloadDict = event.payload.nv_pairs
        return pairs

    @staticmethod
    def has_meaning(value: object) -> bool:
        """Tell whether a value is to be set."""
        if isinstance(value, str):
            return bool(value)
        return value is not None and not (isinstance(value, float) and not math.isfinite(value))
