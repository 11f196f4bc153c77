"""A real nginx that belongs to one test: its own folder, ports, logs and processes."""

import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import List, NamedTuple, Optional

from support import PATIENCE_SECONDS, eventually

from snowplow_tracker.testing import LocalCollector
from snowplow_tracker.testing._http_server import bind

# Distributions put servers where the PATH of a user may not lead.
PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

HOST = "127.0.0.1"

_CONFIGURATION = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log notice;
%(user)s
events { worker_connections 256; }
http {
    log_format answers '$request_id $status $connection $msec $request_method $request_uri';
    access_log access.log answers;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    ssl_certificate %(certificate)s;
    ssl_certificate_key %(certificate)s;
    proxy_set_header X-Request-Id $request_id;
%(http)s
    server {
        listen %(status_address)s;
        access_log off;
        stub_status;
    }
}
"""


class LoggedAnswer(NamedTuple):
    """A line of the access log, which nginx writes when it has sent an answer, or given it up."""

    request_id: str
    status: int
    connection: str
    at_seconds: float
    method: str
    uri: str


class Nginx:
    """An instance that is started with any configuration, and keeps its ports while it is stopped.

    Attributes:
        address: Where to `listen` for http.
        tls_address: Where to `listen` with `ssl`; the certificate is that of a `LocalCollector`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: Optional[subprocess.Popen] = None
        # Bound, but not listening: nobody else gets the ports, and connections are refused until nginx listens.
        self._reserved = [bind(HOST, 0) for _ in range(3)]
        addresses = [f"{HOST}:{sock.getsockname()[1]}" for sock in self._reserved]
        self.address, self.tls_address, self._status_address = addresses

    def __enter__(self) -> "Nginx":
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        for sock in self._reserved:
            sock.close()

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def tls_url(self) -> str:
        return f"https://{self.tls_address}"

    def start_before(self, collector: LocalCollector, directives: str = "") -> None:
        """Start as a reverse proxy, for http and https, with some more directives for all of it."""
        self.start(
            f"{directives}\n"
            f"server {{ listen {self.address}; listen {self.tls_address} ssl;"
            f" location / {{ proxy_pass {collector.url}; }} }}"
        )

    def start(self, http: str) -> None:
        """Start with the given contents of the `http` block, and return when it answers."""
        configuration = _CONFIGURATION % {
            # Its workers would not be allowed to enter the folder of a test that root runs.
            "user": "user root;" if os.geteuid() == 0 else "",
            "certificate": Path(LocalCollector().certificate_file).with_name("server.pem"),
            "status_address": self._status_address,
            "http": http,
        }
        (self._folder / "nginx.conf").write_text(configuration)
        self._start()

    def stop(self) -> None:
        """End at once, as a `kill` does: requests that are under way get no answer."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(PATIENCE_SECONDS)

    def restart(self) -> None:
        self.stop()
        self._start()

    def reload(self) -> None:
        """Hand over to new workers; the old ones go on only with the requests that are under way."""
        before = self._count_in_log("gracefully shutting down")
        self._process.send_signal(signal.SIGHUP)
        eventually(lambda: self._count_in_log("gracefully shutting down") > before)

    def answers(self, count: int = 0) -> List[LoggedAnswer]:
        """Return what it has answered, as soon as there are this many; a client may get an answer a moment earlier."""
        log = self._folder / "access.log"
        eventually(lambda: log.read_text().count("\n") >= count)
        lines = [line.split(" ", 5) for line in log.read_text().splitlines()]
        return [LoggedAnswer(id_, int(status), number, float(at), *rest) for id_, status, number, at, *rest in lines]

    def open_connections(self) -> int:
        """Count the connections of clients, idle ones included, but not that of this very question."""
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"http://{self._status_address}", timeout=PATIENCE_SECONDS
        ) as response:
            return int(re.search(rb"Active connections: (\d+)", response.read()).group(1)) - 1

    def _start(self) -> None:
        with (self._folder / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen([PROGRAM, "-p", f"{self._folder}/", "-c", "nginx.conf"], stderr=stderr)
        eventually(lambda: self._process.poll() is not None or self._listens())
        assert self._process.poll() is None, (self._folder / "stderr").read_text()

    def _listens(self) -> bool:
        # It opens its ports in the order of the configuration, so this one is the last.
        try:
            socket.create_connection(self._status_address.split(":"), PATIENCE_SECONDS).close()
        except ConnectionRefusedError:
            return False
        return True

    def _count_in_log(self, text: str) -> int:
        return (self._folder / "error.log").read_text().count(text)
