"""Which collectors are asked without the proxy that the environment names."""

import contextlib
import ipaddress
import os
from typing import Iterator
from urllib.parse import urlsplit

__all__ = ["no_proxy_before"]


@contextlib.contextmanager
def no_proxy_before(endpoint: str) -> Iterator[None]:
    """Have requests to a collector on this machine go there directly: no proxy can reach the loopback interface.

    Args:
        endpoint: The URL of the collector, the only one that is asked meanwhile.
    """
    host = urlsplit(endpoint).hostname or ""
    if not _is_loopback(host):
        yield
        return
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = host
    try:
        yield
    finally:
        del os.environ["no_proxy"]
        if before is not None:
            os.environ["no_proxy"] = before


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
