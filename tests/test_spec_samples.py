"""Each code sample of Snowplow's own page about emitters runs as it is printed there, and does what the page says."""

import ast
import inspect
import re
import threading
from urllib.parse import urlsplit

import pytest
import requests
from support import PATIENCE_SECONDS, eids, eventually

import snowplow_tracker
from snowplow_tracker import AsyncEmitter, Emitter, PageView, Snowplow, Tracker
from snowplow_tracker.testing import Answer

# The page's samples in their order, each told from the others by words that only it has.
SAMPLES = {
    "first emitter": 'e = Emitter(endpoint="collector.example.com")',
    "signature": "def __init__(",
    "callbacks": "def new_success(arr)",
    "retry codes": "custom_retry_codes = {500: False, 401: True}",
    "capacity": "buffer_capacity=25",
    "asynchronous": "thread_count=10",
    "all arguments": "port=9090",
    "flush": "tracker.flush()",
    "asynchronous flush": "tracker.flush(False)",
    "several emitters": "tracker.addEmitter(e3)",
    "flush timer": "set_flush_timer(5)",
    "no flush timer": "cancel_flush()",
}


@pytest.fixture(scope="module")
def page_samples(shared_folder):
    """The samples of the page, as text."""
    page = (shared_folder / "spec" / "emitters.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python[ ]*\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    # Python reads a comma in a number as two arguments, so nobody can have run this one as it is printed.
    return [block.replace("25,000", "25000") for block in blocks]


@pytest.fixture
def sample(page_samples):
    """Return the sample that a name stands for."""

    def find(name):
        found = [text for text in page_samples if SAMPLES[name] in text]
        assert len(found) == 1
        return found[0]

    return find


@pytest.fixture
def run(sample):
    """Run a sample with all public names, and those given, at hand; return the names that there are then."""

    def execute(name, **names):
        namespace = {public: getattr(snowplow_tracker, public) for public in snowplow_tracker.__all__}
        namespace.update(names)
        exec(compile(sample(name), f"<{name}>", "exec"), namespace)
        return namespace

    Snowplow.reset()
    yield execute
    Snowplow.reset()


@pytest.fixture
def hosts(collector, monkeypatch):
    """Have what goes to the page's hosts end up at a collector here; the list tells the hosts that were meant."""
    meant = []

    def detour(send):
        def send_here(url, **arguments):
            meant.append(urlsplit(url).netloc)
            return send(collector.url + urlsplit(url).path, **arguments)

        return send_here

    monkeypatch.setattr(requests, "post", detour(requests.post))
    monkeypatch.setattr(requests, "get", detour(requests.get))
    return meant


@pytest.fixture(params=[Emitter, AsyncEmitter])
def tracker(request, collector):
    """A tracker by the page's name for it, with an emitter of each class, in which three events wait."""
    tracker = Tracker(namespace="snowplow_tracker", emitters=request.param(collector.url, batch_size=100))
    tracker.event_ids = [tracker.track(page_view(number)) for number in range(3)]
    return tracker


def page_view(number=0):
    return PageView(page_url=f"https://shop.example/{number}")


def parameters_of(function):
    """Return names and defaults of the parameters that may be given by position."""
    return [
        (parameter.name, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]


def printed_parameters(text):
    """Read names and defaults of the parameters out of a printed signature."""
    arguments = ast.parse(f"{text.rstrip()}\n    pass").body[0].args
    values = [inspect.Parameter.empty] * (len(arguments.args) - len(arguments.defaults))
    values += [ast.literal_eval(default) for default in arguments.defaults]
    # An empty dict as a default would be shared by all emitters; None stands for it.
    return [(argument.arg, None if value == {} else value) for argument, value in zip(arguments.args, values)]


def test_each_sample_is_known(page_samples):
    """No sample of the page is left out: there is a name here for each, in the page's order."""
    assert len(page_samples) == len(SAMPLES)
    assert all(words in text for words, text in zip(SAMPLES.values(), page_samples))


def test_emitter_needs_only_an_endpoint(run, hosts, collector):
    """An emitter with nothing but an endpoint sends ten events in one POST."""
    emitter = run("first emitter")["e"]

    for number in range(10):
        emitter.input({"eid": str(number)})

    assert hosts == ["collector.example.com"]
    assert eids(collector.payloads) == [str(number) for number in range(10)]


def test_signature_is_the_printed_one(sample):
    """`Emitter` takes the printed arguments in the printed order, with the printed defaults."""
    printed = printed_parameters(sample("signature"))

    assert parameters_of(Emitter.__init__) == printed


def test_success_callback_gets_the_events(run, hosts, capsys):
    """`on_success` is called with the events that were sent, which the sample prints, after three of them."""
    with pytest.warns(DeprecationWarning, match="buffer_size is deprecated; use batch_size"):
        names = run("callbacks")
    assert names["e"].batch_size == 3

    event_ids = [names["t"].track(page_view(number)) for number in range(3)]

    printed = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines()]
    assert eids(printed) == event_ids
    assert hosts == ["collector.example.com"]


def test_failure_callback_gets_the_number_sent_and_the_events_not_sent(run, hosts, collector, capsys):
    """`on_failure` is called with the number of events that were sent and a list of the others."""
    collector.respond_always(503)
    with pytest.warns(DeprecationWarning, match="buffer_size is deprecated; use batch_size"):
        names = run("callbacks")

    event_ids = [names["t"].track(page_view(number)) for number in range(3)]

    first, second, *rest = capsys.readouterr().out.splitlines()
    assert first == "0 events sent successfully!"
    assert second == "These events were not sent successfully:"
    assert eids(ast.literal_eval(line) for line in rest) == event_ids


@pytest.mark.parametrize(("status", "left"), [(500, 0), (401, 1), (503, 1), (403, 0)])
def test_retry_codes_reach_the_emitter(run, hosts, collector, status, left):
    """With the sample's rules an event is given up after 500 and kept after 401; other codes are as by default."""
    run("retry codes")
    tracker = Snowplow.get_tracker("ns")
    collector.respond_always(status)

    tracker.track(page_view())
    tracker.flush()

    assert tracker.emitters[0].stats().buffered == left
    assert hosts == ["collector.example.com"]


def test_capacity_reaches_the_emitter(run, hosts, collector):
    """The sample's emitter keeps 25,000 events while the collector is away, and then begins to drop."""
    run("capacity")
    emitter = Snowplow.get_tracker("ns").emitters[0]
    collector.respond_always(Answer(503, headers={"Retry-After": "60"}))

    for number in range(25_001):
        emitter.input({"eid": str(number)})

    stats = emitter.stats()
    assert emitter.buffer_capacity == 25_000
    assert (stats.buffered, stats.dropped, len(hosts)) == (25_000, 1, 1)


def test_asynchronous_emitter_has_ten_threads(run, hosts, collector):
    """The sample's emitter has ten requests under way at a time."""
    emitter = run("asynchronous")["e"]
    hold = threading.Event()
    collector.respond_always(Answer(hold=hold))

    for number in range(10):
        emitter.input({"eid": str(number)})
        emitter.flush()
        collector.wait_for_requests(number + 1)

    hold.set()
    emitter.sync_flush(timeout=PATIENCE_SECONDS)
    assert emitter.thread_count == 10
    assert set(hosts) == {"collector.example.com"}
    assert emitter.stats().delivered == 10


def test_asynchronous_emitter_takes_all_arguments(run, hosts, collector):
    """The sample with all arguments makes an emitter that sends to the port it names, after ten events."""
    emitter = run("all arguments")["e"]

    for number in range(10):
        emitter.input({"eid": str(number)})

    assert len(collector.wait_for_payloads(10)) == 10
    assert hosts == ["collector.example.com:9090"]
    assert emitter.endpoint.startswith("https://")
    assert emitter.buffer_capacity == 5000


def test_flush_sends_all_that_waits(run, tracker, collector):
    """`tracker.flush()` returns when all events have been sent, in their order."""
    run("flush", tracker=tracker)

    assert eids(collector.payloads) == tracker.event_ids


def test_asynchronous_flush_does_not_wait(run, tracker, collector):
    """`tracker.flush(False)` returns while the collector has not answered, and the events arrive all the same."""
    hold = threading.Event()
    collector.respond_always(Answer(hold=hold))

    run("asynchronous flush", tracker=tracker)

    collector.wait_for_requests(1)
    assert tracker.emitters[0].stats().in_flight == 3
    hold.set()
    eventually(lambda: tracker.emitters[0].stats().delivered == 3)
    assert eids(collector.payloads) == tracker.event_ids


def test_event_goes_to_each_of_several_emitters(run, hosts, collector):
    """An event reaches the emitters of the list, and the one that was added, each at its own collector."""
    tracker = run("several emitters")["tracker"]

    event_id = tracker.track(page_view())
    tracker.flush()

    assert sorted(hosts) == [f"collector{number}.cloudfront.net" for number in (1, 2, 3)]
    assert eids(collector.payloads) == [event_id] * 3
    assert sorted(request.method for request in collector.requests) == ["GET", "POST", "POST"]


def test_flush_timer_is_armed(run):
    """`set_flush_timer(5)` makes an appointment for a flush within five seconds."""
    emitter = run("flush timer")["e1"]

    assert emitter.timer.is_active()
    assert 0 < emitter.timer.remaining_seconds() <= 5


def test_flush_timer_can_be_cancelled(run):
    """`cancel_flush()` ends the timer, and its thread."""
    emitter = run("flush timer")["e1"]

    run("no flush timer", e1=emitter)

    assert not emitter.timer.is_active()
    eventually(lambda: not emitter.timer.has_thread())
