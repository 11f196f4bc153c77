"""Fixtures for pytest: a collector, and trackers that send to it.

This module is installed beside the package, because a module in it would bring it along. pytest imports its plugins
before it knows what a run is about, so this one must cost nothing where it is not used, and pytest-cov, for one, has to
start before what it measures is imported. So the package is imported in the fixtures, and nowhere else.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, NamedTuple, Optional

import pytest

if TYPE_CHECKING:
    from snowplow_tracker import Tracker
    from snowplow_tracker.testing.collector import LocalCollector
    from snowplow_tracker.testing.kit import TrackingKit

__all__ = []

_NO_BAD = "snowplow_no_bad"
_SCHEMAS = "snowplow_schemas"
_UNKNOWN_SCHEMAS = "snowplow_unknown_schemas"


class _Settings(NamedTuple):
    no_bad: bool
    schemas: Optional[Path]
    unknown_schemas: Any


def pytest_addoption(parser: "pytest.Parser") -> None:
    """Declare the ini options."""
    parser.addini(
        _NO_BAD, "Report an error for each test whose snowplow_collector got a bad event.", type="bool", default=False
    )
    parser.addini(_SCHEMAS, "Folder of schemas that snowplow_collector validates with, seen from the ini file.")
    parser.addini(_UNKNOWN_SCHEMAS, "What snowplow_collector does with a schema that is not there: reject or accept.")


def pytest_configure(config: "pytest.Config") -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        f"{_NO_BAD}(enabled=True): report an error at the teardown of the test if its snowplow_collector got a bad "
        "event; with False, do not, whatever the ini option says.",
    )


def pytest_runtest_setup(item: "pytest.Item") -> None:
    """Refuse arguments of the marker that mean nothing, whether or not the test has a collector."""
    # Not while tests are collected: what a plugin raises there, pytest-xdist shows as an error of its own.
    for marker in item.iter_markers(_NO_BAD):
        _is_enabled(marker)


@pytest.fixture(scope="session", name="_snowplow_settings")
def _settings(pytestconfig: "pytest.Config") -> "_Settings":
    """What the ini options say."""
    from snowplow_tracker.testing.collector import LocalCollector

    def schemas(value: Any) -> Optional[Path]:
        folder = _folder(pytestconfig, value) if value else None
        LocalCollector(schemas=folder)
        return folder

    def unknown_schemas(value: Any) -> Any:
        LocalCollector(unknown_schemas=value or "reject")
        return value or "reject"

    return _Settings(
        no_bad=_option(pytestconfig, _NO_BAD, bool),
        schemas=_option(pytestconfig, _SCHEMAS, schemas),
        unknown_schemas=_option(pytestconfig, _UNKNOWN_SCHEMAS, unknown_schemas),
    )


@pytest.fixture(name="snowplow_collector")
def _collector(request: "pytest.FixtureRequest", _snowplow_settings: "_Settings") -> "Iterator[LocalCollector]":
    """A collector on 127.0.0.1 for this test alone, with assertions about what it gets.

    Each test has one with a port of its own, so that an emitter that an earlier test left behind does not reach it.
    """
    from snowplow_tracker.testing.collector import LocalCollector

    settings = _snowplow_settings
    with LocalCollector(schemas=settings.schemas, unknown_schemas=settings.unknown_schemas) as collector:
        yield collector
        complaint = _complaint_about_bad(collector) if _is_no_bad(request, settings.no_bad) else None
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


def _option(config: "pytest.Config", name: str, read: Callable[[Any], Any]) -> Any:
    try:
        return read(config.getini(name))
    except (TypeError, ValueError, pytest.UsageError) as error:
        raise pytest.UsageError(f"The ini option {name} is wrong: {error}") from None


def _folder(config: "pytest.Config", name: str) -> Path:
    # As pytest itself does it for paths in the ini file.
    start = config.rootpath if config.inipath is None else config.inipath.parent
    return start / name


def _is_no_bad(request: "pytest.FixtureRequest", default: bool) -> bool:
    marker = request.node.get_closest_marker(_NO_BAD)
    return default if marker is None else _is_enabled(marker)


def _is_enabled(marker: "pytest.Mark") -> bool:
    given = [*marker.args, *marker.kwargs.values()]
    enabled = given[0] if given else True
    if len(given) > 1 or set(marker.kwargs) - {"enabled"} or not isinstance(enabled, bool):
        values = [*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())]
        pytest.fail(f"The marker {_NO_BAD} takes one bool, enabled, got ({', '.join(values)})", pytrace=False)
    return enabled
