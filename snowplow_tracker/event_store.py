"""Where payloads wait in memory; the contract of any event store."""

import itertools
import logging
from typing import Any, Dict, List, Optional, Tuple

from ._settings import optional, positive_int
from .typing import EventStore, PayloadDict, PayloadDictList

__all__ = ["DEFAULT_BUFFER_CAPACITY", "EventStore", "InMemoryEventStore"]

DEFAULT_BUFFER_CAPACITY = 10_000


class InMemoryEventStore(EventStore):
    """Keeps payloads in a list, for as long as the process lives.

    Adding takes constant time, taking back and giving out time in proportion to the batch. Like any event store it is
    called with the emitter's lock held, and has none of its own.

    Attributes:
        event_buffer: The payloads that wait, oldest first.
        buffer_capacity: How many payloads may wait; 10,000 by default. Payloads that come back for a retry are always
            taken.
        logger: Kept for applications that read it; the emitter logs what the store refuses.
    """

    def __init__(
        self, logger: Optional[logging.Logger] = None, buffer_capacity: Optional[int] = DEFAULT_BUFFER_CAPACITY
    ) -> None:
        """Begin empty.

        Args:
            logger: A logger of the application's choice.
            buffer_capacity: See the class; None means the default.

        Raises:
            TypeError: The capacity is no integer.
            ValueError: The capacity is not positive.
        """
        capacity = optional(positive_int)("buffer_capacity", buffer_capacity)
        self.event_buffer: PayloadDictList = []
        self.buffer_capacity = DEFAULT_BUFFER_CAPACITY if capacity is None else capacity
        self.logger = logger
        self._next_turn = 0
        # The turns of the payloads at the head of the buffer that came back for a retry.
        self._retry_turns: List[int] = []
        # By identity, because equal payloads are not the same payload: its turn, and the payload to keep it alive.
        self._handed_out: Dict[int, Tuple[int, PayloadDict]] = {}

    def add_event(self, payload: PayloadDict) -> bool:
        """Keep a payload, unless the store is full."""
        if len(self.event_buffer) >= self.buffer_capacity:
            return False
        self.event_buffer.append(payload)
        return True

    def get_events_batch(self, limit: Optional[int] = None) -> PayloadDictList:
        """Hand out the oldest payloads.

        Args:
            limit: How many at the most; all of them by default.
        """
        batch = self.event_buffer[:limit]
        turns = self._retry_turns[: len(batch)]
        known = len(turns)
        fresh = len(batch) - known
        turns.extend(range(self._next_turn, self._next_turn + fresh))
        self._next_turn += fresh
        self._handed_out.update(zip(map(id, batch), zip(turns, batch)))
        # No more than was copied: a signal handler may have added a payload since. The buffer comes last, so that
        # nothing is missing if Ctrl-C comes before.
        del self._retry_turns[:known]
        del self.event_buffer[: len(batch)]
        # An application that takes payloads out itself may never call `cleanup`. No emitter has so many under way.
        excess = len(self._handed_out) - max(self.buffer_capacity, DEFAULT_BUFFER_CAPACITY)
        for key in list(itertools.islice(self._handed_out, max(0, excess))):
            del self._handed_out[key]
        return batch

    def cleanup(self, batch: PayloadDictList, need_retry: bool) -> None:
        """Forget payloads that are settled, or put them back in the order in which they came.

        What was never handed out (a batch that the application passed to `send_events` itself) goes to the very front.
        """
        nobody: Tuple[int, Any] = (-1, None)
        turns = [self._handed_out.pop(id(payload), nobody)[0] for payload in batch]
        if not need_retry or not batch:
            return
        waiting = len(self._retry_turns)
        if not waiting or turns[-1] < self._retry_turns[0]:
            self.event_buffer[:0] = batch
            self._retry_turns[:0] = turns
            return
        # Batches may fail in another order than they were handed out; then their payloads are merged by turn.
        numbered = list(zip(turns + self._retry_turns, batch + self.event_buffer[:waiting]))
        numbered.sort(key=lambda pair: pair[0])
        self.event_buffer[:waiting] = [payload for _, payload in numbered]
        self._retry_turns = [turn for turn, _ in numbered]

    def clear(self) -> None:
        """Forget all payloads, those handed out included."""
        self.event_buffer.clear()
        self._retry_turns.clear()
        self._handed_out.clear()

    def size(self) -> int:
        """Count the payloads that wait."""
        return len(self.event_buffer)
