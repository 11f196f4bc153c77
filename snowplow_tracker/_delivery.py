"""How a batch becomes requests, and what the status of a request means for its payloads."""

import logging
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, Optional

from typing_extensions import Protocol

from ._retry import NO_RESPONSE, TOO_LARGE
from ._transport import Status, status_of
from ._wire import MAX_GET_URL_CHARACTERS, adapt, cut_post_request, query_characters
from .typing import PayloadDict, PayloadDictList

__all__ = ["Outcome", "Sender", "deliver"]

logger = logging.getLogger(__name__)


class Outcome:
    """What became of the payloads of a batch; those without an answer are in none of the lists.

    Attributes:
        delivered: The collector took them.
        rejected: They cannot be delivered, ever.
        to_retry: Their request failed, or was not made because one before it failed or because time was up.
        rejection: Why the last of `rejected` was.
        failure: The last status that calls for a retry; None if no request failed.
    """

    def __init__(self) -> None:
        self.delivered: PayloadDictList = []
        self.rejected: PayloadDictList = []
        self.to_retry: PayloadDictList = []
        self.rejection = ""
        self.failure: Optional[Status] = None


class Sender(Protocol):
    """The emitter, as far as its requests are concerned. Each attribute is looked up when it is needed."""

    endpoint: str
    method: Any
    max_request_bytes: int
    custom_retry_codes: Dict[int, bool]

    def http_post(self, data: str) -> Any: ...

    def http_get(self, payload: PayloadDict) -> Any: ...

    def attach_sent_timestamp(self, events: PayloadDictList) -> None: ...

    def is_good_status_code(self, status_code: int) -> bool: ...

    def _should_retry(self, status_code: int) -> bool: ...

    def _is_time_up(self) -> bool: ...

    def _count_request(self, status: Status) -> None: ...


def deliver(batch: PayloadDictList, sender: Sender, outcome: Outcome) -> None:
    """Send a batch in as few requests as it takes, in order.

    Args:
        batch: Payloads, in the order to send them.
        sender: Makes the requests.
        outcome: Filled step by step, so that it tells the truth even if something interrupts the sending.
    """
    # Looked up once: the application may change it meanwhile.
    method = sender.method
    for payload in batch:
        adapt(payload, method)
    send = _deliver_by_post if method == "post" else _deliver_by_get
    send(batch, sender, outcome)


def _deliver_by_post(batch: PayloadDictList, sender: Sender, outcome: Outcome) -> None:
    waiting: Deque[PayloadDictList] = deque([batch])
    while waiting:
        if sender._is_time_up():
            outcome.to_retry.extend(_flattened(waiting))
            return
        part = waiting.popleft()
        request = cut_post_request(part, sender.max_request_bytes, sender.attach_sent_timestamp)
        payloads = request.payloads
        rest = part[len(payloads) + len(request.unencodable) :]
        if rest:
            waiting.appendleft(rest)
        if request.unencodable:
            outcome.rejected.extend(request.unencodable)
            outcome.rejection = "they cannot be encoded as JSON"
        if not payloads:
            continue

        logger.debug("Sending %d payloads: %s", len(payloads), request.body)
        status = _exchange(sender.http_post, request.body, sender)
        if status == TOO_LARGE and len(payloads) > 1 and sender.custom_retry_codes.get(TOO_LARGE, True):
            middle = (len(payloads) + 1) // 2
            waiting.extendleft([payloads[middle:], payloads[:middle]])
        elif not _file(payloads, status, sender, outcome):
            outcome.to_retry.extend(_flattened(waiting))
            return


def _deliver_by_get(batch: PayloadDictList, sender: Sender, outcome: Outcome) -> None:
    failures_in_a_row = 0
    for position, payload in enumerate(batch):
        if sender._is_time_up():
            outcome.to_retry.extend(batch[position:])
            return
        sender.attach_sent_timestamp([payload])
        try:
            _warn_of_long_url(sender.endpoint, payload)
        except Exception:
            # Only what the application passes to `send_events` itself gets here, so it may be anything.
            outcome.rejected.append(payload)
            outcome.rejection = "they cannot be encoded in a URL"
            continue
        logger.debug("Sending a payload: %s", payload)
        status = _exchange(sender.http_get, payload, sender)
        failures_in_a_row = 0 if _file([payload], status, sender, outcome) else failures_in_a_row + 1
        # One failure may be due to the payload, so the next one gets its chance. A collector that does not answer, asks
        # for a pause or fails twice in a row gets a rest.
        is_sick = status == NO_RESPONSE or status.retry_after_seconds > 0 or failures_in_a_row > 1
        if failures_in_a_row and is_sick:
            outcome.to_retry.extend(batch[position + 1 :])
            return


def _warn_of_long_url(endpoint: str, payload: PayloadDict) -> None:
    """Log a warning if a collector will refuse a URL for its length; raises what its sending would raise."""
    start = len(endpoint) + len("?")
    length = start + query_characters(payload, MAX_GET_URL_CHARACTERS - start)
    if length > MAX_GET_URL_CHARACTERS:
        logger.warning(
            "Event %s makes a URL of %d characters; a collector refuses more than %d",
            payload.get("eid"),
            length,
            MAX_GET_URL_CHARACTERS,
        )


def _exchange(send: Callable[[Any], Any], argument: Any, sender: Sender) -> Status:
    """Make one request, through whatever `http_post` or `http_get` is."""
    try:
        status = status_of(send(argument))
    except Exception as error:
        status = Status.no_response(error)
    sender._count_request(status)
    logger.debug("Status %d from %s", status, sender.endpoint)
    return status


def _file(payloads: PayloadDictList, status: Status, sender: Sender, outcome: Outcome) -> bool:
    """File the payloads of a request under what became of them; False if they have to be retried."""
    if sender.is_good_status_code(status):
        outcome.delivered.extend(payloads)
        return True
    if sender._should_retry(status):
        outcome.to_retry.extend(payloads)
        outcome.failure = status
        return False
    outcome.rejected.extend(payloads)
    outcome.rejection = f"the collector answered {status:d}"
    return True


def _flattened(parts: Iterable[PayloadDictList]) -> PayloadDictList:
    return [payload for part in parts for payload in part]
