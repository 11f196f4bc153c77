"""A real redis-server that belongs to one test: its own folder, port, data and process."""

import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from support import PATIENCE_SECONDS, eventually

from snowplow_tracker.testing._http_server import bind

HOST = "127.0.0.1"
PROGRAM = shutil.which("redis-server") or shutil.which("redis-server", path="/usr/sbin:/usr/local/sbin")

# What has been answered survives a `kill -9`. With `everysec`, the default, it may not: while the last second is being
# synchronised, Redis answers first and writes later.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class RedisServer:
    """A server that keeps its port while it is stopped, and what it was told if it has an append-only file.

    Attributes:
        port: Its port of the loopback interface.
        socket_path: Its Unix socket.
        client: A client of the test's own.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        """Start nothing yet.

        Args:
            folder: For its data, its log and its socket.
            options: As on its command line, such as `--appendonly`, `yes`.
        """
        self._folder = folder
        self._options = options
        self._process: Optional[subprocess.Popen] = None
        # Bound, but not listening: nobody else gets the port, and connections are refused until the server listens.
        self._reserved = bind(HOST, 0)
        self.port = self._reserved.getsockname()[1]
        self.socket_path = folder / "redis.sock"
        self.client: Any = redis.Redis(
            HOST, self.port, decode_responses=True, socket_timeout=PATIENCE_SECONDS, retry=Retry(NoBackoff(), 0)
        )

    def __enter__(self) -> "RedisServer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.client.connection_pool.disconnect()
        self.kill()
        self._reserved.close()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    def start(self) -> None:
        """Start, and return when it has loaded its data and answers."""
        command = [PROGRAM, "--bind", HOST, "--port", str(self.port), "--unixsocket", str(self.socket_path)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--dir", str(self._folder), "--save", "", *self._options], stdout=log, stderr=log
            )
        eventually(lambda: self._process.poll() is not None or self._answers())
        assert self._process.poll() is None, (self._folder / "log").read_text()

    def kill(self) -> None:
        """End at once, as with `kill -9`."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(PATIENCE_SECONDS)

    def restart(self) -> None:
        self.kill()
        self.start()

    def pause(self) -> None:
        """Have it accept connections and answer none, as a machine that hangs."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with suppress(redis.ConnectionError):
            return bool(self.client.ping())
        return False
