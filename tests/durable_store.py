"""A small durable store for tests: what several processes would share is shared by several objects here."""

import json
import threading
from typing import Any, Dict, List, Optional, Tuple


class Shelf:
    """What outlives the processes: payloads in the order of arrival, each with the object that has it in flight."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.rows: Dict[int, Tuple[str, Optional[object]]] = {}
        self.last_row = 0

    def eids(self, owner: Any = None) -> List[str]:
        return [json.loads(text)["eid"] for text, holder in self.rows.values() if holder is owner]


class DurableStore:
    """One process's access to a shelf.

    Attributes:
        calls: The names of the methods that were called.
        trouble: Exceptions to raise, once each, by the names of methods; `cleanup(True)` for a retry.
        hand_out_size: How many payloads make a hand-out at the most.
    """

    is_durable = True

    def __init__(self, shelf: Optional[Shelf] = None, buffer_capacity: int = 1_000, hand_out_size: int = 3) -> None:
        self.shelf = Shelf() if shelf is None else shelf
        self.buffer_capacity = buffer_capacity
        self.hand_out_size = hand_out_size
        self.calls: List[str] = []
        self.trouble: Dict[str, Exception] = {}
        self.closings = 0
        self._handed_out: Dict[int, Tuple[int, dict]] = {}

    def add_event(self, payload: dict) -> bool:
        self._begin("add_event")
        with self.shelf.lock:
            self._put(payload)
        return True

    def get_events_batch(self, limit: Optional[int] = None) -> List[dict]:
        self._begin("get_events_batch")
        with self.shelf.lock:
            count = self.hand_out_size if limit is None else min(limit, self.hand_out_size)
            rows = [row for row, (_, owner) in sorted(self.shelf.rows.items()) if owner is None]
            batch, size = [], 0
            for row in rows[:count]:
                text = self.shelf.rows[row][0]
                size += len(text) + 2
                if size > 900_000 and batch:
                    break
                payload = json.loads(text)
                self.shelf.rows[row] = (text, self)
                self._handed_out[id(payload)] = (row, payload)
                batch.append(payload)
            return batch

    def cleanup(self, batch: List[dict], need_retry: bool) -> None:
        self._begin(f"cleanup({need_retry})")
        with self.shelf.lock:
            for payload in batch:
                row, _ = self._handed_out.pop(id(payload), (None, None))
                if row is None and need_retry:
                    self._put(payload)
                elif row is not None and need_retry and self.shelf.rows[row][1] is self:
                    self.shelf.rows[row] = (self.shelf.rows[row][0], None)
                elif row is not None and not need_retry:
                    self.shelf.rows.pop(row, None)

    def size(self) -> int:
        self._begin("size")
        with self.shelf.lock:
            return sum(owner is None for _, owner in self.shelf.rows.values())

    def close(self) -> None:
        self.closings += 1
        with self.shelf.lock:
            for row, (text, owner) in list(self.shelf.rows.items()):
                self.shelf.rows[row] = (text, None if owner is self else owner)

    def end_leases(self) -> None:
        """Let the time pass after which lent payloads wait again."""
        with self.shelf.lock:
            self.shelf.rows = {row: (text, None) for row, (text, _) in self.shelf.rows.items()}

    def _put(self, payload: dict) -> None:
        self.shelf.last_row += 1
        self.shelf.rows[self.shelf.last_row] = (json.dumps(payload), None)

    def _begin(self, name: str) -> None:
        self.calls.append(name)
        trouble = self.trouble.pop(name, None)
        if trouble is not None:
            raise trouble
