"""Ways to run the commands: in this process, or in one of their own."""

import contextlib
import os
import signal
import subprocess
import sys

# Nothing listens at the discard port of a machine of our days; a request that went there would fail.
DEAD_URL = "http://127.0.0.1:9"


# Far more than the start of an interpreter takes on a machine that is not busy.
LIMIT_SECONDS = 40


def environment(**changes):
    """The environment of the tests without what would change the outcome."""
    return {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "80", **changes}


@contextlib.contextmanager
def killed_in_the_end():
    """Give a list for processes that lead a session of their own; what still runs in these is killed afterwards."""
    processes = []
    yield processes
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run(*arguments, stdin="", **changes):
    """Run a command to its end, in an interpreter that shows each warning."""
    return subprocess.run(
        [sys.executable, "-W", "always", "-m", "snowplow_tracker", *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_SECONDS,
        check=False,
        env=environment(**changes),
    )


@contextlib.contextmanager
def running(*arguments, **options):
    """Start a command, and see to it that it has ended in the end."""
    process = subprocess.Popen(
        [sys.executable, "-W", "always", "-m", "snowplow_tracker", *arguments],
        **{
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "encoding": "utf-8",
            "env": environment(),
            **options,
        },
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def end(process, number=signal.SIGINT):
    """Send a signal; return the exit code, and what was written until the end."""
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, stdout, stderr
