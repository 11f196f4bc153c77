"""How the collector's address is read, and which URLs requests go to."""

import ipaddress
import re
from typing import Any, Dict, Optional, Tuple
from urllib.parse import urlsplit

import requests

from ._settings import choice, port_number
from ._shown import shown

__all__ = ["METHODS", "PROTOCOLS", "collector_uri", "uris_by_method"]

PROTOCOLS = {"http", "https"}
METHODS = {"get", "post"}

_PATHS = {"post": "/com.snowplowanalytics.snowplow/tp2", "get": "/i"}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_SCHEME_WITH_A_SLASH_TOO_FEW = re.compile(r"https?:/", re.IGNORECASE)
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f<>\"\\^`{|}]")


def collector_uri(endpoint: Any, protocol: Any, port: Any, method: Any) -> str:
    """Build the URL that requests go to.

    Args:
        endpoint: Host name or address, or a URL whose scheme and port then count; a path before the collector's own is
            kept.
        protocol: Scheme of an endpoint that names none.
        port: Port, or None for the endpoint's own or the scheme's default.
        method: Which of the collector's two routes.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument cannot be used; the message shows it.
    """
    protocol = choice(*sorted(PROTOCOLS))("protocol", protocol)
    method = choice(*sorted(METHODS))("method", method)
    if port is not None:
        port = int(port_number("port", port))
    if not isinstance(endpoint, str):
        raise TypeError(f"endpoint must be a string, got {shown(endpoint)}")

    scheme, address = _split_scheme(endpoint, protocol)
    credentials, host, own_port, path = _split_address(endpoint, address)
    if own_port is not None and port is not None and own_port != port:
        raise ValueError(f"endpoint {shown(endpoint)} names port {own_port}, but port is {port!r}")
    port = own_port if port is None else port
    uri = f"{scheme}://{credentials}{host}{'' if port is None else f':{port}'}{path.rstrip('/')}{_PATHS[method]}"
    _check_can_be_requested(endpoint, uri)
    return uri


def uris_by_method(uri: Any, method: str) -> Dict[str, str]:
    """Tell where each method sends to, from the URL of one of them.

    A URL that does not end with the collector's route for its method is the application's own, and serves both.

    Raises:
        TypeError: The URL is no string.
    """
    if not isinstance(uri, str):
        raise TypeError(f"endpoint must be a string, got {shown(uri)}")
    route = _PATHS[method]
    if not uri.endswith(route):
        return dict.fromkeys(_PATHS, uri)
    return {other: uri[: -len(route)] + path for other, path in _PATHS.items()}


def _split_scheme(endpoint: str, default: str) -> Tuple[str, str]:
    address = endpoint.strip()
    match = _SCHEME.match(address)
    if match is None:
        if _SCHEME_WITH_A_SLASH_TOO_FEW.match(address):
            raise ValueError(f"endpoint must have two slashes behind its scheme, got {shown(endpoint)}")
        return default, address
    scheme = match.group(1).lower()
    if scheme not in PROTOCOLS:
        raise ValueError(f"endpoint must be an http or https address, got {shown(endpoint)}")
    return scheme, address[match.end() :]


def _split_address(endpoint: str, address: str) -> Tuple[str, str, Optional[int], str]:
    if not address:
        raise ValueError(f"endpoint must name a host, got {shown(endpoint)}")
    if _FORBIDDEN.search(address):
        raise ValueError(f"endpoint must not hold blanks or other characters that no URL has, got {shown(endpoint)}")
    if _is_ipv6(address):
        return "", f"[{address}]", None, ""
    try:
        parts = urlsplit(f"//{address}")
        _check_port(parts.netloc)
        host, port = parts.hostname or "", parts.port
        _check_host(host, in_brackets="[" in parts.netloc)
    except ValueError as error:
        raise ValueError(f"endpoint {shown(endpoint)} cannot be parsed: {shown(error, str)}") from None
    if port == 0:
        raise ValueError(f"endpoint {shown(endpoint)} names port 0")
    if parts.path.rstrip("/").startswith("//"):
        raise ValueError(f"endpoint must have one scheme and a path without empty parts, got {shown(endpoint)}")
    if "?" in address or "#" in address:
        raise ValueError(f"endpoint must not have a query string or a fragment, got {shown(endpoint)}")
    credentials = parts.netloc[: parts.netloc.rfind("@") + 1]
    return credentials, f"[{host}]" if ":" in host else host, port, parts.path


def _check_can_be_requested(endpoint: str, uri: str) -> None:
    # `requests` reads host names by other rules than Python does, and credentials have to be Latin-1.
    try:
        requests.Request("POST", uri).prepare()
    except (ValueError, requests.RequestException) as error:
        raise ValueError(f"endpoint {shown(endpoint)} cannot be requested: {shown(error, str)}") from None


def _check_host(host: str, in_brackets: bool) -> None:
    if not host:
        raise ValueError("it names no host")
    if in_brackets:
        if not _is_ipv6(host):
            raise ValueError("its host is no IPv6 address")
        return
    # Refuses empty and overlong labels, which no resolver could look up.
    host.encode("idna")


def _check_port(netloc: str) -> None:
    # Python 3.8 takes `+80` and `8_0` for numbers.
    text = netloc.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
    if text and not text.isdecimal():
        raise ValueError("its port is no number")


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return False
    return True
