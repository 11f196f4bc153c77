"""How a batch becomes requests, and what each status means for its payloads; with a sender that makes no request."""

import json
import logging
import sys
from types import SimpleNamespace

import pytest

from snowplow_tracker._delivery import Outcome, deliver
from snowplow_tracker._retry import NO_RESPONSE, is_good_status_code, should_retry
from snowplow_tracker._transport import Status

ENDPOINT = "http://collector.invalid/i"
UNENCODABLE_KEY = (1, 2)


class FakeSender:
    """Notes what it is to send, and answers with what it was told; with 200 when there is nothing left of it."""

    endpoint = ENDPOINT

    def __init__(self, method="post", answers=(), max_request_bytes=900_000, **rules):
        self.method = method
        self.max_request_bytes = max_request_bytes
        self.custom_retry_codes = {int(code[1:]): retry for code, retry in rules.items()}
        self.answers = list(answers)
        self.sent = []
        self.counted = []
        self.stamped = []
        self.requests_until_time_is_up = None

    def http_post(self, data):
        return self._answer(eids(json.loads(data)["data"]))

    def http_get(self, payload):
        return self._answer(payload["eid"])

    def attach_sent_timestamp(self, events):
        self.stamped.extend(eids(events))
        for payload in events:
            payload["stm"] = "1700000000000"

    def is_good_status_code(self, status_code):
        return is_good_status_code(status_code)

    def _should_retry(self, status_code):
        return should_retry(status_code, self.custom_retry_codes)

    def _is_time_up(self):
        return len(self.sent) == self.requests_until_time_is_up

    def _count_request(self, status):
        self.counted.append((int(status), status.error))

    def _answer(self, sent):
        self.sent.append(sent)
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, BaseException):
            raise answer
        return answer


def eids(payloads):
    return [payload.get("eid") for payload in payloads]


def batch_of(text):
    return [{"eid": eid} for eid in text]


def delivery(sender, batch):
    outcome = Outcome()
    deliver(batch_of(batch) if isinstance(batch, str) else batch, sender, outcome)
    return outcome


def fates(outcome):
    return tuple("".join(eids(part)) for part in (outcome.delivered, outcome.rejected, outcome.to_retry))


def test_post_sends_all_payloads_in_one_request():
    """A batch is one request, in order, and delivered with it."""
    sender = FakeSender()

    outcome = delivery(sender, "abc")

    assert sender.sent == [["a", "b", "c"]]
    assert fates(outcome) == ("abc", "", "")
    assert (outcome.failure, outcome.rejection) == (None, "")


def test_get_sends_each_payload_in_a_request_of_its_own():
    """In order, and each is delivered."""
    sender = FakeSender("get")

    outcome = delivery(sender, "abc")

    assert sender.sent == ["a", "b", "c"]
    assert fates(outcome) == ("abc", "", "")


@pytest.mark.parametrize("method", ["post", "get"])
def test_empty_batch_makes_no_request(method):
    """There is nothing to send."""
    sender = FakeSender(method)

    outcome = delivery(sender, "")

    assert sender.sent == []
    assert fates(outcome) == ("", "", "")


@pytest.mark.parametrize("method", ["post", "get"])
def test_very_objects_are_filed(method):
    """The outcome holds the payloads of the batch themselves, stamped."""
    batch = batch_of("ab")

    outcome = delivery(FakeSender(method), batch)

    assert all(filed is given for filed, given in zip(outcome.delivered, batch))
    assert [payload["stm"] for payload in batch] == ["1700000000000"] * 2


@pytest.mark.parametrize("method", ["post", "get"])
def test_each_request_is_counted(method):
    """With its status, and why there was none."""
    sender = FakeSender(method, [200, OSError("no route")])

    delivery(sender, "a")
    delivery(sender, "b")

    assert sender.counted == [(200, None), (NO_RESPONSE, "OSError: no route")]


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("status", [400, 401, 403, 410, 422])
def test_refused_payload_is_rejected_with_the_reason(method, status):
    """What the collector will never take is not kept."""
    outcome = delivery(FakeSender(method, [status]), "a")

    assert fates(outcome) == ("", "a", "")
    assert outcome.rejection == f"the collector answered {status}"
    assert outcome.failure is None


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("status", [NO_RESPONSE, 302, 404, 429, 500, 503])
def test_failed_payload_is_to_be_retried(method, status):
    """All else may pass, and the status is kept for the backoff."""
    outcome = delivery(FakeSender(method, [status]), "a")

    assert fates(outcome) == ("", "", "a")
    assert outcome.failure == status


@pytest.mark.parametrize("method", ["post", "get"])
def test_rules_of_the_user_decide(method):
    """The sender says what is retried."""
    rejected = delivery(FakeSender(method, [500], _500=False), "a")
    retried = delivery(FakeSender(method, [400], _400=True), "a")

    assert fates(rejected) == ("", "a", "")
    assert fates(retried) == ("", "", "a")


@pytest.mark.parametrize("method", ["post", "get"])
def test_sender_says_what_is_good(method):
    """An override of `is_good_status_code` counts."""
    sender = FakeSender(method, [404])
    sender.is_good_status_code = lambda status: status == 404

    assert fates(delivery(sender, "a")) == ("a", "", "")


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("answer", [SimpleNamespace(status_code=200), Status(200), 200, 204], ids=repr)
def test_override_may_return_a_response_or_a_status(method, answer):
    """Whatever tells a status is understood."""
    assert fates(delivery(FakeSender(method, [answer]), "a")) == ("a", "", "")


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("answer", [None, "200", True, ValueError("broken")], ids=repr)
def test_override_that_tells_no_status_got_no_response(method, answer):
    """Whatever it returned or raised, the payload is sent again."""
    outcome = delivery(FakeSender(method, [answer]), "a")

    assert fates(outcome) == ("", "", "a")
    assert outcome.failure == NO_RESPONSE
    assert outcome.failure.error


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_interruption_propagates_with_the_truth_so_far(method, interruption):
    """Ctrl-C in the second request leaves the first one's payloads filed, and no other."""
    sender = FakeSender(method, [200, interruption()], max_request_bytes=1)
    outcome = Outcome()

    with pytest.raises(interruption):
        deliver(batch_of("abc"), sender, outcome)

    assert fates(outcome) == ("a", "", "")
    assert sender.counted == [(200, None)]


def test_large_batch_becomes_several_requests_in_order():
    """Each holds as many payloads as fit."""
    batch = [{"eid": eid, "ue_pr": "x" * 100} for eid in "abcde"]
    sender = FakeSender(max_request_bytes=450)

    outcome = delivery(sender, batch)

    assert sender.sent == [["a", "b"], ["c", "d"], ["e"]]
    assert fates(outcome) == ("abcde", "", "")


def test_oversized_payload_is_sent_alone():
    """A payload beyond the limit gets its chance without its neighbours."""
    batch = [{"eid": "a"}, {"eid": "b", "ue_pr": "x" * 500}, {"eid": "c"}]
    sender = FakeSender(max_request_bytes=300)

    delivery(sender, batch)

    assert sender.sent == [["a"], ["b"], ["c"]]


def test_unencodable_payload_is_rejected_without_a_request():
    """The others go out in one request, and the reason is told."""
    batch = [{"eid": "a"}, {"eid": "b", UNENCODABLE_KEY: "x"}, {"eid": "c"}]
    sender = FakeSender()

    outcome = delivery(sender, batch)

    assert sender.sent == [["a", "c"]]
    assert fates(outcome) == ("ac", "b", "")
    assert outcome.rejection == "they cannot be encoded as JSON"


def test_batch_of_unencodable_payloads_makes_no_request():
    """An empty envelope is not worth sending."""
    sender = FakeSender()

    outcome = delivery(sender, [{"eid": eid, UNENCODABLE_KEY: "x"} for eid in "ab"])

    assert sender.sent == []
    assert fates(outcome) == ("", "ab", "")


def test_unencodable_payload_between_two_requests_is_passed_over_once():
    """It shifts none of the others out of the batch."""
    batch = [{"eid": "a"}, {"eid": "b", UNENCODABLE_KEY: "x"}, {"eid": "c"}, {"eid": "d"}]
    sender = FakeSender(max_request_bytes=1)

    outcome = delivery(sender, batch)

    assert sender.sent == [["a"], ["c"], ["d"]]
    assert fates(outcome) == ("acd", "b", "")


@pytest.mark.parametrize("status", [NO_RESPONSE, 500, 503])
def test_failed_post_holds_back_the_rest(status):
    """Nothing goes out after a request that has to be retried, so the order is kept."""
    sender = FakeSender(answers=[200, status], max_request_bytes=1)

    outcome = delivery(sender, "abcd")

    assert sender.sent == [["a"], ["b"]]
    assert fates(outcome) == ("a", "", "bcd")
    assert outcome.failure == status


def test_rejected_post_does_not_hold_back_the_rest():
    """What is refused for good says nothing about the other requests."""
    sender = FakeSender(answers=[200, 400, 200], max_request_bytes=1)

    outcome = delivery(sender, "abc")

    assert sender.sent == [["a"], ["b"], ["c"]]
    assert fates(outcome) == ("ac", "b", "")


def test_post_that_is_too_large_is_retried_in_halves():
    """A 413 on several payloads is an answer to the request, not to the payloads."""
    sender = FakeSender(answers=[413, 200, 200])

    outcome = delivery(sender, "abcde")

    assert sender.sent == [["a", "b", "c", "d", "e"], ["a", "b", "c"], ["d", "e"]]
    assert fates(outcome) == ("abcde", "", "")
    assert outcome.failure is None


def test_halves_are_halved_until_the_payload_is_found_that_is_too_large():
    """That one is rejected; the others are delivered, in order."""
    sender = FakeSender(answers=[413, 413, 200, 413, 200])

    outcome = delivery(sender, "abcd")

    assert sender.sent == [["a", "b", "c", "d"], ["a", "b"], ["a"], ["b"], ["c", "d"]]
    assert fates(outcome) == ("acd", "b", "")
    assert outcome.rejection == "the collector answered 413"


def test_half_that_fails_holds_back_the_other():
    """Halves are requests like any other."""
    sender = FakeSender(answers=[413, 503])

    outcome = delivery(sender, "abcd")

    assert sender.sent == [["a", "b", "c", "d"], ["a", "b"]]
    assert fates(outcome) == ("", "", "abcd")


def test_halves_go_before_what_did_not_fit_into_the_request():
    """The order is kept across all requests of the batch."""
    batch = [{"eid": eid, "ue_pr": "x" * 100} for eid in "abcde"]
    sender = FakeSender(answers=[413], max_request_bytes=450)

    delivery(sender, batch)

    assert sender.sent == [["a", "b"], ["a"], ["b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize("method", ["post", "get"])
def test_single_payload_that_is_too_large_is_rejected(method):
    """There is no smaller request than that."""
    outcome = delivery(FakeSender(method, [413]), "a")

    assert fates(outcome) == ("", "a", "")


@pytest.mark.parametrize("method", ["post", "get"])
def test_single_payload_that_is_too_large_is_retried_if_the_user_says_so(method):
    """A rule for 413 counts for it."""
    outcome = delivery(FakeSender(method, [413], _413=True), "a")

    assert fates(outcome) == ("", "", "a")


def test_post_that_is_too_large_is_halved_if_the_user_says_to_retry():
    """To retry it as it is would be of no use."""
    sender = FakeSender(answers=[413, 200, 200], _413=True)

    outcome = delivery(sender, "ab")

    assert sender.sent == [["a", "b"], ["a"], ["b"]]
    assert fates(outcome) == ("ab", "", "")


def test_post_that_is_too_large_is_rejected_if_the_user_says_so():
    """A rule against retrying 413 counts for several payloads as well."""
    sender = FakeSender(answers=[413], _413=False)

    outcome = delivery(sender, "ab")

    assert sender.sent == [["a", "b"]]
    assert fates(outcome) == ("", "ab", "")


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("requests", [0, 1, 2])
def test_nothing_is_sent_when_time_is_up(method, requests):
    """What is left is to be retried, without a failure; what was sent is filed."""
    sender = FakeSender(method, max_request_bytes=1)
    sender.requests_until_time_is_up = requests

    outcome = delivery(sender, "abc")

    assert len(sender.sent) == requests
    assert fates(outcome) == ("abc"[:requests], "", "abc"[requests:])
    assert outcome.failure is None


def test_each_get_is_judged_by_its_own_status():
    """Delivered, rejected and failed payloads of a batch are told apart."""
    sender = FakeSender("get", [200, 500, 400, 200])

    outcome = delivery(sender, "abcd")

    assert sender.sent == ["a", "b", "c", "d"]
    assert fates(outcome) == ("ad", "c", "b")
    assert outcome.failure == 500


def test_get_that_got_no_response_holds_back_the_rest():
    """A collector that is not there is not asked once per payload."""
    sender = FakeSender("get", [200, NO_RESPONSE])

    outcome = delivery(sender, "abcd")

    assert sender.sent == ["a", "b"]
    assert fates(outcome) == ("a", "", "bcd")


def test_get_that_was_asked_to_wait_holds_back_the_rest():
    """`Retry-After` counts at once."""
    sender = FakeSender("get", [Status(503, 0.5)])

    outcome = delivery(sender, "abc")

    assert sender.sent == ["a"]
    assert fates(outcome) == ("", "", "abc")
    assert outcome.failure.retry_after_seconds == 0.5


def test_second_failed_get_in_a_row_holds_back_the_rest():
    """One failure may be due to the payload, two are due to the collector."""
    sender = FakeSender("get", [500, 503])

    outcome = delivery(sender, "abcd")

    assert sender.sent == ["a", "b"]
    assert fates(outcome) == ("", "", "abcd")
    assert outcome.failure == 503


def test_failed_gets_with_others_between_do_not_hold_back_the_rest():
    """A success, or a refusal, shows that the collector is there."""
    sender = FakeSender("get", [500, 200, 500, 400, 500])

    outcome = delivery(sender, "abcdef")

    assert sender.sent == list("abcdef")
    assert fates(outcome) == ("bf", "d", "ace")


def test_refusal_that_asks_to_wait_does_not_hold_back_the_rest():
    """What will not be retried needs no rest."""
    sender = FakeSender("get", [Status(400, 7.0), 200])

    outcome = delivery(sender, "ab")

    assert fates(outcome) == ("b", "a", "")


def test_payload_is_stamped_when_its_request_is_made():
    """What is held back is not stamped in a GET, so that it gets the time of its own attempt."""
    sender = FakeSender("get", [NO_RESPONSE])

    delivery(sender, "ab")

    assert sender.stamped == ["a"]


def url_of(length):
    """Make a payload whose URL has so many characters."""
    fixed = len(f"{ENDPOINT}?eid=a&se_la=&stm=1700000000000")
    return {"eid": "a", "se_la": "x" * (length - fixed)}


def test_long_url_is_warned_about(caplog):
    """A collector refuses it, but it is sent all the same."""
    outcome = delivery(FakeSender("get"), [url_of(20_481)])

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "Event a makes a URL of 20481 characters; a collector refuses more than 20480"
    assert fates(outcome) == ("a", "", "")


def test_url_of_the_longest_kind_is_not_warned_about(caplog):
    """20,480 characters are taken."""
    delivery(FakeSender("get"), [url_of(20_480)])

    assert caplog.records == []


@pytest.mark.parametrize("method", ["post", "get"])
def test_payloads_are_logged_at_debug_only(method, caplog):
    """They may hold personal data."""
    caplog.set_level(logging.DEBUG)

    delivery(FakeSender(method), [{"eid": "personal data"}])

    assert {record.levelno for record in caplog.records if "personal data" in record.getMessage()} == {logging.DEBUG}
    assert f"Status 200 from {ENDPOINT}" in caplog.messages


class Silent:
    def __str__(self):
        raise ZeroDivisionError


@pytest.mark.parametrize("method", ["post", "get"])
def test_payload_without_a_text_holds_up_no_other(method):
    """What an application passes itself may be anything; what no request can hold is rejected at once."""
    sender = FakeSender(method)

    outcome = delivery(sender, [{"eid": "a"}, {"eid": "b", "x": Silent()}, {"eid": "c"}])

    assert fates(outcome) == ("ac", "b", "")
    assert outcome.rejection.startswith("they cannot be encoded")


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="integers of any length have a text here")
@pytest.mark.parametrize("method", ["post", "get"])
def test_number_without_a_text_holds_up_no_other(method):
    """Python refuses to print a number that is too long."""
    sender = FakeSender(method)

    assert fates(delivery(sender, [{"eid": "a"}, {"eid": "b", "x": 10**5_000}])) == ("a", "b", "")


def test_lone_surrogate_in_a_query_becomes_a_question_mark():
    """No URL holds it, and it may have been accepted for POST, or have waited in a store for another emitter."""
    sender, payload = FakeSender("get"), {"eid": "a", "x": "b\ud800c", "y\udfff": 1}

    assert fates(delivery(sender, [payload])) == ("a", "", "")
    assert payload == {"eid": "a", "x": "b?c", "y?": 1, "stm": "1700000000000"}


def test_list_in_a_query_is_sent(caplog):
    """Only an application passes one itself; it counts by the length that `requests` gives it."""
    sender = FakeSender("get")

    assert fates(delivery(sender, [{"eid": "a", "x": ["b" * 12_000, "c" * 12_000]}])) == ("a", "", "")
    assert "Event a makes a URL of 24056 characters" in caplog.text


def test_lone_surrogate_deep_in_a_value_is_rejected():
    """Only what an application passes itself has it there. A retry would be in vain."""
    sender = FakeSender("get")

    assert fates(delivery(sender, [{"eid": "a", "x": ["\ud800"]}])) == ("", "a", "")
    assert sender.sent == []


def test_numbers_become_text_in_a_post():
    """Its schema has nothing else; they may have been accepted for GET."""
    sender, payload = FakeSender("post"), {"eid": "a", "x": 1, "y": 2.5, "z": float("nan")}

    assert fates(delivery(sender, [payload])) == ("a", "", "")
    assert payload == {"eid": "a", "x": "1", "y": "2.5", "z": "nan", "stm": "1700000000000"}
