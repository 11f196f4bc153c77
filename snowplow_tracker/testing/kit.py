"""A collector and trackers that send to it, for the time of a test."""

import copy
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from itertools import count
from types import TracebackType
from typing import List, Optional, Type

import requests
from typing_extensions import Literal

from .._settings import choice, flag
from .._shown import shown
from ..emitter_configuration import EmitterConfiguration
from ..emitters import Emitter
from ..snowplow import Snowplow
from ..subject import Subject
from ..tracker import Tracker
from ..tracker_configuration import TrackerConfiguration
from ..typing import Method
from ._collected import PathArgument
from .collector import LocalCollector

__all__ = ["TrackingKit"]

_NAMESPACE = "test"


class TrackingKit:
    """Starts a collector, makes trackers that send to it, and clears all of it away.

    In a `with` statement::

        with TrackingKit() as kit:
            kit.tracker.track(PageView("https://example.com"))
            kit.collector.assert_event(event_type="page_view")

    In a `unittest.TestCase`::

        def setUp(self):
            self.kit = TrackingKit(fail_on_bad=True).start()
            self.addCleanup(self.kit.close)

    Trackers of the kit are those of `Snowplow.create_tracker`, so that the code under test finds them by their
    namespaces, but they send each event at once, whatever proxy or `.netrc` the machine has, and nothing at exit.
    """

    def __init__(
        self,
        *,
        fail_on_bad: bool = False,
        collector: Optional[LocalCollector] = None,
        schemas: Optional[PathArgument] = None,
        unknown_schemas: Literal["reject", "accept"] = "reject",
    ) -> None:
        """Describe a kit; `start`, or a `with` statement, starts it.

        Args:
            fail_on_bad: Whether closing the kit asserts that there are no bad events.
            collector: A collector that is started and closed elsewhere; by default the kit has its own.
            schemas: See `LocalCollector`.
            unknown_schemas: See `LocalCollector`.

        Raises:
            TypeError: If an argument has a wrong type, or `schemas` or `unknown_schemas` is given for a collector that
                has been made already.
            ValueError: If an argument has a wrong value.
            ImportError: If there are schemas, but not the extra `validation`.
        """
        if collector is not None and not isinstance(collector, LocalCollector):
            raise TypeError(f"collector must be a LocalCollector, got {shown(collector)}")
        choice("reject", "accept")("unknown_schemas", unknown_schemas)
        for name, is_given in (("schemas", schemas is not None), ("unknown_schemas", unknown_schemas != "reject")):
            if collector is not None and is_given:
                raise TypeError(f"{name} must be given to the collector, if there is one")
        self._fail_on_bad = flag("fail_on_bad", fail_on_bad)
        self._owns_collector = collector is None
        self._new_collector = partial(LocalCollector, schemas=schemas, unknown_schemas=unknown_schemas)
        self._collector = collector or self._new_collector()
        self._is_started = False
        self._is_closed = False
        self._tracker: Optional[Tracker] = None
        self._trackers: List[Tracker] = []
        self._sessions: List[requests.Session] = []

    def __enter__(self) -> "TrackingKit":
        """Start the kit."""
        return self.start()

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Close the kit; bad events are not worth a word when an exception is under way."""
        __tracebackhide__ = True
        self._close(check=exc_type is None)

    def start(self) -> "TrackingKit":
        """Start the collector; does nothing if the kit is started.

        A kit that was closed gets a new collector, which nothing reaches that was sent to the old one.

        Returns:
            The kit itself.
        """
        if self._owns_collector:
            if self._is_closed:
                self._collector = self._new_collector()
            self._collector.start()
        self._is_closed = False
        self._is_started = True
        return self

    def close(self) -> None:
        """Send what waits in the trackers, close them, take them out of `Snowplow`, and close the collector.

        Does nothing if the kit is not started. The collector answers 200 again, whatever was prepared, so that a test
        that ends in an outage need not wait for it. What the collector has got stays readable.

        Raises:
            AssertionError: If there are bad events, and `fail_on_bad` was set.
        """
        __tracebackhide__ = True
        self._close(check=True)

    @property
    def collector(self) -> LocalCollector:
        """The collector, with its assertions."""
        return self._collector

    @property
    def tracker(self) -> Tracker:
        """A tracker as `create_tracker` makes it without arguments, always the same until the kit is closed.

        Raises:
            RuntimeError: If the kit is not started, or closed.
        """
        if self._tracker is None:
            self._tracker = self.create_tracker()
        return self._tracker

    def create_tracker(
        self,
        namespace: Optional[str] = None,
        method: Method = "post",
        app_id: Optional[str] = None,
        subject: Optional[Subject] = None,
        tracker_config: Optional[TrackerConfiguration] = None,
        emitter_config: Optional[EmitterConfiguration] = None,
        *,
        emitter_class: Type[Emitter] = Emitter,
    ) -> Tracker:
        """Make a tracker that sends to the collector; the kit closes it.

        Args:
            namespace: See `Snowplow.create_tracker`; by default `test`, or `test-2` and so on while that is taken.
            method: See `Emitter`.
            app_id: See `Tracker`.
            subject: See `Tracker`.
            tracker_config: Further settings of the tracker.
            emitter_config: Further settings of the emitter. By default there is a `batch_size` of 1, so that each event
                is sent at once.
            emitter_class: See `Snowplow.create_tracker`.

        Raises:
            RuntimeError: If the kit is not started, or closed.
            TypeError: As `Snowplow.create_tracker` does.
            ValueError: As `Snowplow.create_tracker` does.
        """
        if not self._is_started:
            when = "after it is closed" if self._is_closed else "before it is started"
            raise RuntimeError(f"TrackingKit has no tracker {when}: call start() or use a with statement")
        tracker = Snowplow.create_tracker(
            namespace=_free_namespace() if namespace is None else namespace,
            endpoint=self._collector.url,
            method=method,
            app_id=app_id,
            subject=subject,
            tracker_config=tracker_config,
            emitter_config=self._completed(emitter_config),
            emitter_class=emitter_class,
        )
        self._trackers.append(tracker)
        return tracker

    def _completed(self, emitter_config: Optional[EmitterConfiguration]) -> EmitterConfiguration:
        """Fill in what makes an emitter fit for tests, where the caller does not say otherwise."""
        if emitter_config is None:
            completed = EmitterConfiguration(batch_size=1)
        elif isinstance(emitter_config, EmitterConfiguration):
            completed = copy.copy(emitter_config)
        else:
            raise TypeError(f"emitter_config must be an EmitterConfiguration, got {shown(emitter_config)}")
        if completed.flush_on_exit is None:
            completed.flush_on_exit = False
        if completed.session is None:
            completed.session = self._direct_session()
        return completed

    def _direct_session(self) -> requests.Session:
        """Make a session that reaches the collector whatever the machine is set up for."""
        session = requests.Session()
        session.trust_env = False
        session.verify = self._collector.certificate_file
        # A kept cookie would give events of all users the same network user id, which no tracker does.
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._sessions.append(session)
        return session

    def _close(self, *, check: bool) -> None:
        __tracebackhide__ = True
        if not self._is_started:
            return
        self._is_started = False
        self._is_closed = True
        self._tracker = None
        _end_outage(self._collector)
        for tracker in self._trackers:
            tracker.close()
            # The code under test may have removed it, and another one may have its namespace by now.
            if Snowplow.get_tracker(tracker.get_namespace()) is tracker:
                Snowplow.remove_tracker(tracker)
        self._trackers.clear()
        for session in self._sessions:
            session.close()
        self._sessions.clear()
        if self._owns_collector:
            self._collector.close()
        if check and self._fail_on_bad:
            self._collector.assert_no_bad()


def _end_outage(collector: LocalCollector) -> None:
    """Have the collector take whatever comes; what arrived so far stays."""
    with collector._arrival:
        collector._queued_answers.clear()
        collector.respond_always(200)
    collector.accept_connections()


def _free_namespace() -> str:
    names = (_NAMESPACE if number == 1 else f"{_NAMESPACE}-{number}" for number in count(1))
    return next(name for name in names if Snowplow.get_tracker(name) is None)
