"""A list that forgets the oldest, so that a collector may run for as long as one likes."""

import sys
from collections import deque
from typing import Any, Deque, Generic, Iterator, List, Optional, TypeVar

from ._collected import CollectedRequest

__all__ = ["Recent", "held_bytes", "request_bytes"]

_T = TypeVar("_T")


class Recent(Generic[_T]):
    """The newest items: as many and as much as is allowed, but the newest one in any case.

    It has no lock: who uses it holds one.
    """

    def __init__(self, max_count: Optional[int], max_bytes: int) -> None:
        """Begin without items.

        Args:
            max_count: How many are kept. None for all, whatever their size.
            max_bytes: How much they may take together.
        """
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._items: Deque[_T] = deque()
        self._sizes: Deque[int] = deque()
        self._total_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[_T]:
        """Go through the items, oldest first."""
        return iter(self._items)

    def __getitem__(self, index: int) -> _T:
        return self._items[index]

    def add(self, item: _T, size_bytes: int) -> None:
        """Append an item, and forget those that are too many.

        Args:
            item: The item.
            size_bytes: What it takes, by `held_bytes` or `request_bytes`; does not matter if there is no limit.
        """
        self._items.append(item)
        self._sizes.append(size_bytes)
        self._total_bytes += size_bytes
        while self._is_too_much():
            self._items.popleft()
            self._total_bytes -= self._sizes.popleft()

    def clear(self) -> None:
        """Forget all items."""
        self._items.clear()
        self._sizes.clear()
        self._total_bytes = 0

    def _is_too_much(self) -> bool:
        if self._max_count is None or len(self._items) == 1:
            return False
        return len(self._items) > self._max_count or self._total_bytes > self._max_bytes


def held_bytes(*values: Any) -> int:
    """Tell what values of JSON, or bytes, take of the memory of Python, with all that is in them."""
    total = 0
    pending: List[Any] = [list(values)]
    while pending:
        container = pending.pop()
        items = [*container, *container.values()] if isinstance(container, dict) else container
        total += sum(map(sys.getsizeof, items))
        pending += [item for item in items if isinstance(item, (dict, list))]
    return total


def request_bytes(request: CollectedRequest) -> int:
    """Tell what a request takes of the memory."""
    return held_bytes(request.path, request.query, request.headers, request.body, request.payloads)
