"""Fixtures that tests of more than one module need."""

import os
from pathlib import Path

import pytest

from snowplow_tracker.testing import LocalCollector


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder with the official schemas and the recorded facts of 1.1.0; it lies beside the repository."""
    folder = Path(os.environ.get("SNOWPLOW_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"needs {folder}, which is not part of the repository")
    return folder


@pytest.fixture
def collector():
    """A real collector on the loopback interface."""
    with LocalCollector() as collector:
        yield collector
