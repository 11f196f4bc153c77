"""Fixtures that tests of more than one module need."""

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support import PATIENCE_SECONDS

from snowplow_tracker import StoreOnlyEmitter
from snowplow_tracker._lifecycle import lifecycle
from snowplow_tracker._sqlite_file import finish_log
from snowplow_tracker.testing import LocalCollector

# The same examples each time: what a run finds is to be found again. Those that are marked `long` draw fresh ones.
settings.register_profile(
    "suite", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

ENVIRONMENT = ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"]

# Tests of what happens to emitters that nobody holds.
OF_THE_LIFECYCLE = {"test_exit", "test_fork", "test_garbage", "test_leaks", "test_lifecycle"}


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder with the official schemas and the recorded facts of 1.1.0; it lies beside the repository."""
    folder = Path(os.environ.get("SNOWPLOW_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"needs {folder}, which is not part of the repository")
    return folder


@pytest.fixture
def schema(shared_folder):
    """Finds a schema by its URI."""

    def find(uri):
        return json.loads((shared_folder / "iglu" / uri[len("iglu:") :]).read_text(encoding="utf-8"))

    return find


@pytest.fixture
def collector():
    """A real collector on the loopback interface."""
    with LocalCollector() as collector:
        yield collector


@pytest.fixture
def redis_url(tmp_path):
    """The URL of a database of a redis-server."""
    pytest.importorskip("redis")
    redis_server = pytest.importorskip("redis_server")
    if redis_server.PROGRAM is None:
        pytest.skip("needs redis-server")
    with redis_server.RedisServer(tmp_path) as server:
        server.start()
        yield f"{server.url}/1"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    """What the machine is configured for must not reach the tests."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def _no_afterlife(request, monkeypatch):
    """Emitters that a test leaves behind send nothing any more, be it in the next test or at exit."""
    if request.module.__name__ in OF_THE_LIFECYCLE:
        yield
        return
    monkeypatch.setattr(lifecycle, "adopt", end)
    yield
    workers = []
    for emitter in lifecycle._living():
        if not isinstance(emitter, StoreOnlyEmitter):
            # Stand-ins have no threads.
            workers += getattr(emitter._worker_pool, "_threads", [])
            workers += [getattr(timer, "_thread", None) for timer in (emitter.timer, emitter.retry_timer)]
        end(emitter)
        # Nor does a stand-in in it have to begin anew in a child that another test forks.
        lifecycle._members.pop(id(emitter), None)
    # What a thread has left to log is no line of the next test.
    for worker in workers:
        if isinstance(worker, threading.Thread) and worker is not threading.current_thread():
            worker.join(PATIENCE_SECONDS)
    finish_log()


def end(emitter):
    emitter.flush_on_exit = False
    emitter._ledger.close()
    if isinstance(emitter, StoreOnlyEmitter):
        return
    emitter.timer.cancel()
    emitter.retry_timer.cancel()
    emitter._worker_pool.stop()
