"""Fixtures for pytest: a collector, and trackers that send to it.

This module is installed beside the package, because a module in it would bring it along. pytest imports its plugins
before it knows what a run is about, so this one must cost nothing where it is not used, and pytest-cov, for one, has to
start before what it measures is imported. So the package is imported in the fixtures, and nowhere else.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional

import pytest

if TYPE_CHECKING:
    from snowplow_tracker import Tracker
    from snowplow_tracker.testing.collector import LocalCollector
    from snowplow_tracker.testing.kit import TrackingKit

__all__ = []

_NO_BAD = "snowplow_no_bad"
_SCHEMAS = "snowplow_schemas"
_UNKNOWN_SCHEMAS = "snowplow_unknown_schemas"


def pytest_addoption(parser: "pytest.Parser") -> None:
    """Declare the ini options."""
    parser.addini(_NO_BAD, "Fail each test whose snowplow_collector got a bad event.", type="bool", default=False)
    parser.addini(_SCHEMAS, "Folder of schemas that snowplow_collector validates with, seen from the ini file.")
    parser.addini(_UNKNOWN_SCHEMAS, "What snowplow_collector does with a schema that is not there: reject or accept.")


def pytest_configure(config: "pytest.Config") -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        f"{_NO_BAD}(enabled=True): fail the test if its snowplow_collector got a bad event; with False, do not, "
        "whatever the ini option says.",
    )


@pytest.fixture(scope="session", name="_snowplow_session_collector")
def _session_collector(pytestconfig: "pytest.Config") -> "Iterator[LocalCollector]":
    """The one collector of the run, or of this worker's part of it."""
    from snowplow_tracker.testing.collector import LocalCollector

    unknown_schemas: Any = pytestconfig.getini(_UNKNOWN_SCHEMAS) or "reject"
    with LocalCollector(schemas=_schemas(pytestconfig), unknown_schemas=unknown_schemas) as collector:
        yield collector


@pytest.fixture(name="snowplow_collector")
def _collector(
    request: "pytest.FixtureRequest", _snowplow_session_collector: "LocalCollector"
) -> "Iterator[LocalCollector]":
    """A collector on 127.0.0.1 that has got nothing yet, with assertions about what it gets."""
    collector = _snowplow_session_collector
    # A test before this one may have closed it, or left it in an outage.
    collector.start().accept_connections()
    collector.reset()
    yield collector
    complaint = _complaint_about_bad(collector) if _is_no_bad(request) else None
    if complaint is not None:
        pytest.fail(complaint, pytrace=False)


@pytest.fixture(name="_snowplow_kit")
def _kit(snowplow_collector: "LocalCollector") -> "Iterator[TrackingKit]":
    """What makes the trackers of one test, and closes them at its end."""
    from snowplow_tracker.testing.kit import TrackingKit

    with TrackingKit(collector=snowplow_collector) as kit:
        yield kit


@pytest.fixture(name="snowplow_tracker_factory")
def _tracker_factory(_snowplow_kit: "TrackingKit") -> "Callable[..., Tracker]":
    """Makes trackers that send to `snowplow_collector`; takes what `TrackingKit.create_tracker` does."""
    return _snowplow_kit.create_tracker


@pytest.fixture(name="snowplow_tracker")
def _tracker(_snowplow_kit: "TrackingKit") -> "Tracker":
    """A tracker that sends each event to `snowplow_collector` at once."""
    return _snowplow_kit.tracker


def _complaint_about_bad(collector: "LocalCollector") -> Optional[str]:
    try:
        collector.assert_no_bad()
    except AssertionError as error:
        return str(error)
    return None


def _schemas(config: "pytest.Config") -> Optional[Path]:
    folder: str = config.getini(_SCHEMAS) or ""
    if not folder:
        return None
    # As pytest itself does it for paths in the ini file.
    start = config.rootpath if config.inipath is None else config.inipath.parent
    return start / folder


def _is_no_bad(request: "pytest.FixtureRequest") -> bool:
    marker = request.node.get_closest_marker(_NO_BAD)
    if marker is None:
        return bool(request.config.getini(_NO_BAD))
    return bool(marker.args[0]) if marker.args else bool(marker.kwargs.get("enabled", True))
