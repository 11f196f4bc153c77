"""Puts payloads into an event store for others to send."""

import logging
from typing import Any, Optional, Union

from typing_extensions import Self

from ._ledger import Ledger
from ._lifecycle import lifecycle
from ._reporting import Drops
from ._settings import Setting, callback, event_store as check_event_store, optional
from ._store_url import event_store_from_url
from ._wire import wire_payload
from .typing import EmitterStats, EventStore, FailureCallback, PayloadDict, PayloadReceiver

__all__ = ["StoreOnlyEmitter"]

logger = logging.getLogger(__name__)


class StoreOnlyEmitter(PayloadReceiver):
    """An emitter for processes that must not send: no requests, no threads, no timers, nothing to flush.

    What it stores is sent by an `Emitter` on the same store, in another process or a later one. All methods may be
    called from several threads, and in forked children. None of them raises because of the store.

    Attributes:
        on_failure: Called with 0 and a single payload when that was dropped, because the store was full or failed.
    """

    on_failure: "Setting[Optional[FailureCallback]]" = Setting(optional(callback))
    # The exit handler has something to do here, too: see `_flush_at_exit`.
    flush_on_exit = True

    def __init__(self, store: Union[EventStore, str], *, on_failure: Optional[FailureCallback] = None) -> None:
        """Open nothing yet.

        Args:
            store: Where to put payloads, or the URL of such a store, such as `sqlite:///events.db`. It ought to be
                durable. A store that is made from a URL here is closed with the emitter; one that is given is not, as
                others may use it.
            on_failure: See the class.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: It is no URL of a store.
        """
        self.on_failure = on_failure
        self._own_store: Any = event_store_from_url(store) if isinstance(store, str) else None
        self._ledger = Ledger(check_event_store("store", store) if self._own_store is None else self._own_store)
        self._drop_reports = Drops()
        lifecycle.register(self)

    @property
    def event_store(self) -> EventStore:
        """Where payloads are put."""
        return self._ledger.store

    def input(self, payload: PayloadDict) -> None:
        """Store a payload, as a copy with the values that a POST has.

        A payload that the store does not take is dropped: counted, logged, no error.

        Args:
            payload: Name-value pairs. `None` is left out, and all other values become text.

        Raises:
            TypeError: The payload is no dict, or a value in it cannot be encoded.
        """
        accepted = wire_payload(payload, "post")
        refusal, _ = self._ledger.add(accepted, None)
        if refusal is not None:
            self._drop_reports.report(accepted, *refusal, self.on_failure)

    def stats(self) -> EmitterStats:
        """Return figures, all of the same moment: what was accepted and dropped here, and what waits in the store."""
        return self._ledger.stats()

    def close(self, timeout: Optional[float] = None) -> bool:  # noqa: ARG002  # as other emitters have it
        """Accept no more payloads. What is stored stays where it is.

        Args:
            timeout: Means nothing here, as nothing is sent.

        Returns:
            True, as nothing has to leave this process any more.
        """
        self._ledger.close()
        self._drop_reports.report_rest()
        self._ledger.close_store(self._own_store)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _flush_at_exit(self, timeout: float) -> bool:  # noqa: ARG002  # as the lifecycle calls it
        self._drop_reports.report_rest()
        self._ledger.close_store(self._own_store)
        return True

    def _give_up(self, reason: str) -> None:
        """Do nothing: what is stored is for others."""

    def _begin_anew_in_child(self) -> None:
        self._ledger.reset()
        self._ledger.forget_memory()
        self._drop_reports = Drops()
