"""What an installation brings along, and what importing the package does."""

import json
import re
import subprocess
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

import snowplow_tracker

# Exported by the root, and imported when they are asked for.
STORES = {
    "RedisClient": "redis_event_store",
    "RedisEventStore": "redis_event_store",
    "SQLiteEventStore": "sqlite_event_store",
}

IMPORT_AND_REPORT = """
import json, logging, sys, threading
others = set(sys.modules)
import snowplow_tracker
print(json.dumps({
    "modules": sorted(set(sys.modules) - others),
    "root_handlers": [repr(handler) for handler in logging.getLogger().handlers],
    "root_level": logging.getLogger().level,
    "threads": threading.active_count(),
}))
"""


@pytest.fixture(scope="module")
def distribution() -> metadata.Distribution:
    try:
        return metadata.distribution("snowplow-tracker")
    except metadata.PackageNotFoundError:
        pytest.skip("needs the package to be installed, be it with pip install -e")


@pytest.fixture(scope="module")
def fresh_import():
    """What an interpreter looks like that has imported the package, and nothing else, with warnings as errors."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_AND_REPORT],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    return json.loads(process.stdout)


def test_version_is_set_once(distribution):
    """The installed distribution and the package name the same version."""
    assert distribution.version == snowplow_tracker.__version__


def test_version_is_numbers_with_dots():
    """`__version__` parses as a release: three numbers, nothing else."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", snowplow_tracker.__version__)


def test_runtime_requirements_are_two(distribution):
    """An installation without extras brings requests and typing_extensions, nothing else."""
    requirements = [line for line in distribution.requires or [] if "extra ==" not in line]

    names = {re.split(r"[^\w-]", line)[0].lower().replace("_", "-") for line in requirements}

    assert names == {"requests", "typing-extensions"}


def test_python_versions_are_open_upwards(distribution):
    """Python 3.8 is the oldest version supported, and no later one is shut out."""
    assert distribution.metadata["Requires-Python"] == ">=3.8"


def test_licence_is_declared(distribution):
    """Tools that check licences find Apache-2.0."""
    assert distribution.metadata["License-Expression"] == "Apache-2.0"


def test_type_information_is_installed():
    """The marker of PEP 561 lies in the package, so type checkers read our annotations."""
    spec = find_spec("snowplow_tracker")

    assert spec is not None
    assert spec.origin is not None
    assert (Path(spec.origin).parent / "py.typed").is_file()


def test_import_leaves_the_root_logger_alone(fresh_import):
    """How an application logs is its own business: no handler, no level."""
    assert fresh_import["root_handlers"] == []
    assert fresh_import["root_level"] == 30


def test_import_does_not_load_what_is_for_tests(fresh_import):
    """The collector and its certificates are loaded by those who ask for them."""
    assert [name for name in fresh_import["modules"] if name.startswith("snowplow_tracker.testing")] == []


def test_import_does_not_load_what_not_everybody_needs(fresh_import):
    """What belongs to a durable store is loaded by those who use it, and so is what few events have values of."""
    unwanted = {"decimal", "redis", "sqlite3", "uuid", *(f"snowplow_tracker.{name}" for name in STORES.values())}

    assert unwanted.isdisjoint(fresh_import["modules"])


@pytest.mark.parametrize("name", sorted(STORES))
def test_durable_stores_are_in_the_root(name):
    """They are imported like anything else."""
    assert getattr(snowplow_tracker, name) is getattr(import_module(f"snowplow_tracker.{STORES[name]}"), name)
    assert name in dir(snowplow_tracker)


def test_name_that_is_not_in_the_root_is_refused():
    """As it is for any module."""
    with pytest.raises(AttributeError, match="module 'snowplow_tracker' has no attribute 'SQLStore'"):
        getattr(snowplow_tracker, "SQLStore")  # noqa: B009  # mypy knows the name of no such attribute


def test_import_starts_no_thread(fresh_import):
    """The package is imported by processes that are about to fork."""
    assert fresh_import["threads"] == 1
