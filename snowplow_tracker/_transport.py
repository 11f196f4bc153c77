"""One HTTP exchange with the collector: what is sent through which connection, and which status came of it."""

import contextlib
import http.client
import os
import re
import ssl
from typing import Any, Callable, List, Mapping, Optional, Tuple
from urllib.parse import parse_qs, urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_auth_from_url

from ._deadline import BoundedAdapter, at_most, exchange
from ._retry import NO_RESPONSE, parse_retry_after
from ._shown import shown
from ._wire import is_plain, query_string
from .typing import RequestTimeout

__all__ = [
    "DEFAULT_TIMEOUT_SECONDS",
    "Requester",
    "SessionPool",
    "Status",
    "forget_connections",
    "requester_for",
    "status_of",
    "within",
]

# To connect, and to wait for the answer. The whole exchange takes no longer than both together.
DEFAULT_TIMEOUT_SECONDS = (10.0, 30.0)

_ORIGINAL_SESSION = requests.sessions.Session
# A collector's own answers are a few bytes long; a longer one is not worth reading to keep its connection.
_MAX_ANSWER_BYTES = 65_536
_MAX_ANSWER_SECONDS = 1.0
# What an exception says goes into the log and the statistics.
_MAX_ERROR_CHARACTERS = 1_000
# Nor a fragment, which would stand behind it.
_HAS_NO_QUERY = re.compile(r"[^?#]+\Z").match
_QUERY = re.compile(r"\?\S+")
_MAX_REDIRECTS = 5
_CHANGED_TO_GET = {301, 302, 303}
# What the environment says of proxies and CA bundles.
_VARIABLES = [
    *(f"{kind}_proxy" for kind in ("http", "https", "all", "no")),
    *(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO")),
    "REQUEST_METHOD",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
]
_CLOSED_BY_PEER = (
    http.client.RemoteDisconnected,
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)


class Status(int):
    """An HTTP status code, or `NO_RESPONSE`, with what else the retry rules need to know of a response.

    Attributes:
        retry_after_seconds: How long the collector asked to be left alone; 0.0 if it did not.
        error: Why there was no response, None if there was one.
    """

    retry_after_seconds: float
    error: Optional[str]

    def __new__(cls, code: int, retry_after_seconds: float = 0.0, error: Optional[str] = None) -> "Status":
        status = super().__new__(cls, code)
        status.retry_after_seconds = retry_after_seconds
        status.error = error
        return status

    @classmethod
    def no_response(cls, reason: object) -> "Status":
        """Describe a request that ended in an exception, or in something that is no status."""
        try:
            text = str(reason)
        except Exception:  # an override may raise anything
            text = shown(reason)
        if isinstance(reason, BaseException):
            text = f"{type(reason).__name__}: {text}"
        # The query of a GET is the payload, which is nobody's business in a log.
        return cls(NO_RESPONSE, error=_QUERY.sub("?...", text)[:_MAX_ERROR_CHARACTERS])


class Requester:
    """A pair of functions that send requests: `requests.post` and `requests.get`, or the same two of a session."""

    def __init__(self, post: Callable[..., Any], get: Callable[..., Any]) -> None:
        self.post = post
        self.get = get


def requester_for(session: Any, api: Any, pool: "SessionPool") -> Requester:
    """Choose the functions that send an emitter's requests.

    Args:
        session: The session that the application gave; it wins.
        api: The `requests` module as the emitter sees it. A function that the application replaced there is called.
        pool: Sends what neither of these claims.
    """
    if session is not None:
        return Requester(post=session.post, get=session.get)
    is_original = _is_original(requests.api.request) and requests.sessions.Session is _ORIGINAL_SESSION
    return Requester(
        post=pool.post if is_original and _is_original(api.post) else api.post,
        get=pool.get if is_original and _is_original(api.get) else api.get,
    )


def status_of(response: Any) -> Status:
    """Read the status out of whatever a send function returned: a response, or a bare status code.

    A redirect that lost the payloads on the way counts by its own status, whatever its target answered.
    """
    if isinstance(response, Status):
        return response
    if isinstance(response, int) and not isinstance(response, bool):
        return Status(response)
    code = getattr(response, "status_code", None)
    if isinstance(code, bool) or not isinstance(code, int):
        return Status.no_response(f"neither a status code nor a response: {response!r}")
    history = getattr(response, "history", None)
    if isinstance(history, list):
        for redirect, target in zip(history, [*history[1:], response]):
            if _loses_payloads(redirect, target):
                return Status(redirect.status_code)
    headers = getattr(response, "headers", None)
    retry_after = headers.get("Retry-After") if isinstance(headers, Mapping) else None
    return Status(code, parse_retry_after(retry_after))


def within(timeout: RequestTimeout, remaining_seconds: float) -> Tuple[float, float]:
    """Shorten a timeout so that connecting and reading together end when the time is up."""
    connect, read = timeout if isinstance(timeout, (tuple, list)) else (timeout, timeout)
    return min(connect, remaining_seconds / 4), min(read, remaining_seconds * 3 / 4)


def forget_connections(session: Any) -> None:
    """Give an application's session new connections: for a forked child, whose parent goes on using the old ones."""
    # A mock that is made after the class has none of what its constructor sets up.
    adapters = getattr(session, "adapters", None)
    if not isinstance(adapters, dict):
        return
    for adapter in adapters.values():
        if isinstance(adapter, requests.adapters.HTTPAdapter):
            # What unpickling does: it makes new connection pools, without a look at the old ones and their locks.
            adapter.__setstate__(adapter.__getstate__())  # type: ignore[attr-defined]  # the stubs lack it


class SessionPool:
    """Sessions that keep their connections alive.

    A session serves one thread at a time, so there are never more of them than requests that ran at once; the pool
    needs no lock, because `list.append` and `list.pop` are atomic.
    """

    def __init__(self) -> None:
        self._idle: List[_CollectorSession] = []

    def post(self, url: str, **arguments: Any) -> requests.Response:
        """Do what `requests.post` does."""
        return self._send("POST", url, arguments)

    def get(self, url: str, **arguments: Any) -> requests.Response:
        """Do what `requests.get` does."""
        return self._send("GET", url, arguments)

    def close(self) -> None:
        """Close the connections that no thread uses now. The pool stays usable."""
        # Always the same list: a session that comes back meanwhile must not end up in one that nobody looks at.
        while True:
            try:
                session = self._idle.pop()
            except IndexError:
                return
            session.close()

    def forget(self) -> None:
        """Drop all sessions without a word to the peer: for a forked child, whose parent goes on using them."""
        self._idle = []

    def _send(self, method: str, url: str, arguments: Mapping[str, Any]) -> requests.Response:
        # Redirects and a second attempt included.
        with exchange(_total_seconds(arguments.get("timeout"))):
            return self._send_within(method, url, arguments)

    def _send_within(self, method: str, url: str, arguments: Mapping[str, Any]) -> requests.Response:
        session = None
        with contextlib.suppress(IndexError):
            session = self._idle.pop()
        if session is None:
            return self._exchange(_CollectorSession(), method, url, arguments)
        try:
            return self._exchange(session, method, url, arguments)
        except requests.ConnectionError as error:
            if not _peer_had_closed(error):
                raise
        # The collector ended an idle connection at the moment of its next use, which says nothing about this request.
        return self._exchange(_CollectorSession(), method, url, arguments)

    def _exchange(
        self, session: "_CollectorSession", method: str, url: str, arguments: Mapping[str, Any]
    ) -> requests.Response:
        try:
            response = session.request(method, url, stream=True, **arguments)
            _read_answer(response)
        except BaseException:
            session.close()
            raise
        if status_of(response) < 200:
            # An interim answer, after which `http.client` does not look for the final one. The next request on this
            # connection would take that for its own.
            session.close()
        else:
            self._idle.append(session)
        return response


class _CollectorSession(requests.Session):
    """A session that remembers nothing between requests but its connection.

    A kept `sp` cookie would give all events the same network user id. Proxies and CA bundles of the environment count,
    a `.netrc` does not.

    What all requests to a collector have in common is worked out once: that is half of the price of a request.
    """

    def __init__(self) -> None:
        super().__init__()
        self._template: Tuple[Any, requests.PreparedRequest] = None, requests.PreparedRequest()
        self._settings: Tuple[Any, Any] = None, {}
        # An attempt that ends in a loop must not cost the collector 31 requests, as it does by default.
        self.max_redirects = _MAX_REDIRECTS
        self.cookies = _NoCookies()
        self.auth = _CredentialsOfUrl()
        self.mount("https://", BoundedAdapter())
        self.mount("http://", BoundedAdapter())

    def close(self) -> None:
        """Close the connections, which `requests` leaves to finalizers; and those do nothing any more at exit."""
        for adapter in self.adapters.values():
            if isinstance(adapter, requests.adapters.HTTPAdapter):
                for manager in [adapter.poolmanager, *adapter.proxy_manager.values()]:
                    for key in manager.pools.keys():  # noqa: SIM118  # this container refuses to be iterated
                        manager.pools[key].close()
        super().close()

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare only what differs from the last request: the body of a POST, the query of a GET."""
        key = (request.method, request.url, *request.headers.items())
        if self._template[0] != key:
            blank = requests.Request(request.method, request.url, request.headers)
            self._template = key, super().prepare_request(blank)
        prepared = self._template[1].copy()
        if request.params:
            if is_plain(request.params) and _HAS_NO_QUERY(prepared.url or ""):
                prepared.url = f"{prepared.url}?{query_string(request.params)}"
            else:
                prepared.prepare_url(request.url, request.params)
        if request.data:
            prepared.prepare_body(request.data, None)
        return prepared

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Work out proxies and CA bundle again only when something has changed that they depend on."""
        key = (url.partition("?")[0], proxies, stream, verify, cert, *map(os.environ.get, _VARIABLES))
        if self._settings[0] != key:
            self._settings = key, super().merge_environment_settings(url, proxies, stream, verify, cert)
        return self._settings[1].copy()

    def get_redirect_target(self, resp: requests.Response) -> Optional[str]:
        """Follow no redirect that would turn a POST into a GET without its payloads."""
        if resp.request.method == "POST" and resp.status_code in _CHANGED_TO_GET:
            return None
        return super().get_redirect_target(resp)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Send no credentials to another host that a redirect leads to."""
        old, new = response.request.url, prepared_request.url
        if self.should_strip_auth(old, new):  # type: ignore[no-untyped-call]  # the stubs lack it
            prepared_request.headers.pop("Authorization", None)


class _NoCookies(requests.cookies.RequestsCookieJar):
    def extract_cookies(self, response: Any, request: Any) -> None:
        """Take none, without a look at them."""


class _CredentialsOfUrl(AuthBase):
    """What `requests` does by itself for `https://user:password@host`, but never with a `.netrc`."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        username, password = get_auth_from_url(request.url or "")
        return HTTPBasicAuth(username, password)(request) if username or password else request


def _read_answer(response: requests.Response) -> None:
    """Read the body, because a connection is used again only after it; the status alone decides the outcome."""
    # Mocks of applications have no body, or an odd one; real ones may break off. The status counts all the same.
    is_complete = False
    with contextlib.suppress(Exception), at_most(_MAX_ANSWER_SECONDS):
        is_complete = _reads_to_the_end(response.raw)
    if not is_complete:
        with contextlib.suppress(Exception):
            response.close()


def _reads_to_the_end(raw: Any) -> bool:
    # Takes what is there, where urllib3 knows how to, and does not wait for a number of bytes.
    read = getattr(raw, "read1", raw.read)
    size = 0
    while size <= _MAX_ANSWER_BYTES:
        data = read(_MAX_ANSWER_BYTES)
        if not data:
            return True
        if not isinstance(data, bytes):
            # A mock hands out mocks, which have no length, so there would be no end.
            return False
        size += len(data)
        if getattr(raw, "length_remaining", None) == 0:
            # It has come as long as was announced, and to ask for more only takes time.
            return True
    return False


def _total_seconds(timeout: Optional[RequestTimeout]) -> Optional[float]:
    if timeout is None:
        return None
    return sum(timeout) if isinstance(timeout, (tuple, list)) else 2 * timeout


def _loses_payloads(redirect: Any, target: Any) -> bool:
    """Tell whether a POST became a GET, or a GET went to a URL without its event."""
    if _method_of(redirect) == "POST":
        return _method_of(target) != "POST" and redirect.status_code in _CHANGED_TO_GET
    eid = _eid_in(redirect)
    return eid is not None and _eid_in(target) != eid


def _eid_in(response: Any) -> Optional[List[str]]:
    url = getattr(getattr(response, "request", None), "url", None)
    return parse_qs(urlsplit(url).query).get("eid") if isinstance(url, str) else None


def _method_of(response: Any) -> Any:
    return getattr(getattr(response, "request", None), "method", None)


def _peer_had_closed(error: BaseException) -> bool:
    """Look for the reason in what wraps it; `__context__` would lead on to what the application is handling."""
    if isinstance(error, _CLOSED_BY_PEER):
        return True
    wrapped = [*error.args, getattr(error, "reason", None)]
    return any(_peer_had_closed(inner) for inner in wrapped if isinstance(inner, BaseException))


def _is_original(function: Any) -> bool:
    """Tell a function of `requests` from a mock or a wrapper, whenever it was installed and whatever its name is."""
    return getattr(function, "__globals__", None) is vars(requests.api)
