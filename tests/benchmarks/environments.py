"""Two environments, one with this library and one with the published one, and a collector in a third process."""

import contextlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

__all__ = ["PUBLISHED", "Environments", "machine", "running_collector"]

PUBLISHED = "snowplow-tracker==1.1.0"
_HERE = Path(__file__).resolve().parent
_CHECKOUT = _HERE.parents[1]
_CERTIFICATES = _CHECKOUT / "snowplow_tracker" / "testing" / "certificates"
_VERSIONS = """
import importlib.metadata, json
names = ("snowplow-tracker", "requests", "urllib3")
print(json.dumps({name: importlib.metadata.version(name) for name in names}))
"""


class Environments:
    """The environments in a folder; they are created where they are missing, and ours is brought up to date.

    Raises:
        subprocess.CalledProcessError: If one cannot be set up.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pythons: Dict[str, str] = {}
        for side, requirement in (("theirs", PUBLISHED), ("ours", str(_CHECKOUT))):
            python = folder / side / "bin" / "python"
            if not python.exists():
                subprocess.run([sys.executable, "-m", "venv", str(folder / side)], check=True)
                self._install(python, requirement)
            elif side == "ours":
                self._install(python, "--force-reinstall", "--no-deps", requirement)
            self._pythons[side] = str(python)
        self._bundle = folder / "authorities.pem"
        # Loading the authorities of the world is most of the price of a TLS connection, so they belong here, too.
        authorities = subprocess.check_output(
            [self._pythons["theirs"], "-c", "import certifi; print(certifi.contents())"], text=True
        )
        own = (_CERTIFICATES / "authority.pem").read_text(encoding="ascii")
        self._bundle.write_text(authorities + own, encoding="utf-8")

    def versions(self, side: str) -> Dict[str, str]:
        output = subprocess.check_output([self._pythons[side], "-c", _VERSIONS], text=True, cwd=str(self._folder))
        versions: Dict[str, str] = json.loads(output)
        return versions

    def run(self, side: str, workload: str, options: Dict[str, Any]) -> Dict[str, float]:
        """Run a workload in a fresh interpreter, outside of the checkout.

        The log of 1.1.0, which it writes to stderr unasked, goes into a file: that is cheaper than a terminal.

        Raises:
            RuntimeError: If it fails.
        """
        log = self._folder / "stderr.log"
        with log.open("w", encoding="utf-8") as stderr:
            process = subprocess.run(
                [self._pythons[side], str(_HERE / "workload.py"), workload, json.dumps(options)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                cwd=str(self._folder),
                env=self._environment(),
                text=True,
                timeout=300,
            )
        if process.returncode:
            raise RuntimeError(f"{workload} failed with {side}:\n{log.read_text(encoding='utf-8')[-2000:]}")
        figures: Dict[str, float] = json.loads(process.stdout.splitlines()[-1])
        return figures

    def _environment(self) -> Dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith("PYTHON")
        }
        return {**kept, "REQUESTS_CA_BUNDLE": str(self._bundle)}

    def _install(self, python: Path, *arguments: str) -> None:
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
        subprocess.run(command, check=True, stderr=None, cwd=str(self._folder))


@contextlib.contextmanager
def running_collector() -> Iterator[Dict[str, int]]:
    """Run a collector for as long as the block lasts, and give its ports."""
    command = [sys.executable, str(_HERE / "collector.py"), str(_CERTIFICATES / "server.pem")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ports: Dict[str, int] = json.loads(process.stdout.readline())
        yield ports
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def machine() -> Dict[str, Any]:
    """Describe where the benchmark runs."""
    return {
        "processor": _processor() or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load before": [round(load, 2) for load in os.getloadavg()],
    }


def _processor() -> Optional[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return None
