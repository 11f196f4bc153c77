"""Which process this is, and whether another has ended: asked of real processes."""

import os
import signal
import subprocess
import sys
from unittest import mock

import pytest

from snowplow_tracker import _process_identity
from snowplow_tracker._process_identity import is_gone, own_identity

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the platform has no /proc")


@pytest.fixture
def child():
    """A process that does nothing, and ends when it is told to."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def identity_of(process):
    world, _, own = own_identity().partition("] ")
    assert own.split()[0] == str(os.getpid())
    return f"{world}] {process.pid} {_process_identity._state_and_start(process.pid)[1]}"


def test_process_is_there_itself():
    """A process does not take itself for gone, and has one identity."""
    assert own_identity() == own_identity() != ""
    assert not is_gone(own_identity())


def test_living_process_is_there(child):
    """Another process is there while it lives."""
    assert not is_gone(identity_of(child))


def test_killed_process_is_gone_before_its_parent_has_looked(child):
    """A zombie does nothing any more."""
    identity = identity_of(child)

    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert is_gone(identity)


def test_ended_process_is_gone(child):
    """A number that nobody has is that of a process that is gone."""
    identity = identity_of(child)

    child.kill()
    child.wait()

    assert is_gone(identity)


def test_number_that_was_given_again_is_not_the_process(child):
    """A process that started at another time is another process."""
    assert is_gone(identity_of(child) + "0")


@pytest.mark.parametrize("change", [("-", "+"), ("pid:[", "pid:[1")], ids=["boot", "namespace"])
def test_nothing_is_known_of_another_world(child, change):
    """The number of a process means nothing after a boot, or in another container."""
    identity = identity_of(child)
    child.kill()
    child.wait()

    assert not is_gone(identity.replace(*change))


@pytest.mark.parametrize("identity", ["", "of another kind"])
def test_nothing_is_known_without_an_identity(identity):
    """An owner on a platform that tells nothing has an empty identity."""
    assert not is_gone(identity)


def test_process_of_another_user_is_there(child):
    """One that may not be sent a signal is there."""
    with mock.patch("os.kill", side_effect=PermissionError):
        assert not is_gone(identity_of(child))


def test_hidden_process_is_not_said_to_be_gone(child, monkeypatch, tmp_path):
    """Where the state of a process cannot be read, it may live."""
    identity = identity_of(child)
    proc = tmp_path / "proc"
    for name in ("self/ns", "sys/kernel/random", str(os.getpid())):
        (proc / name).mkdir(parents=True)
    (proc / "self/ns/pid").symlink_to(os.readlink("/proc/self/ns/pid"))
    for name in ("sys/kernel/random/boot_id", f"{os.getpid()}/stat"):
        (proc / name).write_bytes(_process_identity._PROC.joinpath(name).read_bytes())
    monkeypatch.setattr(_process_identity, "_PROC", proc)

    assert own_identity()
    assert not is_gone(identity)


def test_identity_is_empty_where_the_platform_tells_nothing(monkeypatch, tmp_path):
    """Without a /proc, or with one that hides the process itself, there is no identity."""
    monkeypatch.setattr(_process_identity, "_PROC", tmp_path)
    assert own_identity() == ""
    monkeypatch.undo()

    monkeypatch.setattr(_process_identity, "_state_and_start", lambda pid: None)
    assert own_identity() == ""
