"""One HTTP exchange: addresses, proxies, certificates, redirects, time limits. Never a retry.

Presigned addresses are secrets. No message made here quotes a query string, a form field, a phrase
that a server chose, or the text of a urllib3 exception: all of them can contain one.
"""

from __future__ import annotations

import email.utils
import http.client
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3 import exceptions as faults

from numerai_predict import __version__, refusals

CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 20.0  # seconds of silence
ANSWER_TIMEOUT = 60.0  # seconds until an answer's headers are complete, however they drip
REFUSAL_TIMEOUT = 5.0  # seconds for the body of a refusal
REFUSAL_BYTES = 4096
REDIRECTS = 5

_BAD_ADDRESS = "the address (or that of the proxy) is not valid"
_REDIRECT = (301, 302, 303, 307, 308)
_RETRY = (408, 429, *range(500, 600))

# It logs whole request paths, even when nothing is wrong.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)


class Fault(Exception):
    """It went wrong in a way that another try can mend.

    Args:
        text: what happened.
        wait: the seconds that the server asks to wait before the next try.
    """

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class Refused(Exception):
    """It went wrong, and would again."""


def public_part(url: str) -> str:
    """The part of a URL that may be shown: scheme, host and path; no user, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextmanager
def exchange(
    method: str,
    url: str,
    *,
    accept: tuple[int, ...],
    deadline: float,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    secrets: Mapping[str, str] | None = None,
) -> Iterator[urllib3.BaseHTTPResponse]:
    """Send a request, follow a GET's redirects, and give the answer, its body still unread.

    Args:
        accept: the statuses that are a success.
        deadline: the `time.monotonic()` at which the connection is cut off.
        secrets: form fields: they explain a refusal, and are kept out of its message.

    Raises:
        Fault: connection trouble, or one of the statuses 408, 429 and 5xx; also from the body of
            the `with` statement, where it reads the answer.
        Refused: any other status, a bad address or certificate, a redirect that is not followed.
    """
    for _ in range(REDIRECTS + 1):
        guard = _Guard()
        try:
            guard.limit(min(ANSWER_TIMEOUT, deadline - time.monotonic()))
            response = _send(method, url, headers, body, guard)
            guard.check()
            if response.status not in _REDIRECT:
                if response.status not in accept:
                    guard.limit(REFUSAL_TIMEOUT)
                    _raise_for(response, url, secrets or {})
                guard.limit(deadline - time.monotonic())
                yield response
                guard.check()
                return
            url = _redirected(method, url, response)
        except faults.HTTPError as fault:
            guard.check()
            raise _translated(fault) from None
        finally:
            guard.close()
    raise Refused(f"more than {REDIRECTS} redirects")


class _Guard:
    """Cuts a connection off after a time, whatever it is doing.

    Timeouts of sockets begin anew with every byte, so a server that drips has no end with them.
    """

    def __init__(self) -> None:
        self._cut_after: float | None = None  # seconds, once it has
        self._sockets: list[socket.socket] = []
        self._timer: threading.Timer | None = None

    def watch(self, connection: socket.socket) -> socket.socket:
        # A duplicate shuts down the same connection, also once TLS has taken the original over.
        self._sockets.append(connection.dup())
        return connection

    def limit(self, seconds: float) -> None:
        if self._timer:
            self._timer.cancel()
        seconds = max(seconds, 0.0)
        self._timer = threading.Timer(seconds, self._cut_off, [seconds])
        self._timer.daemon = True
        self._timer.start()

    def _cut_off(self, seconds: float) -> None:
        self._cut_after = seconds
        self._shut_down()

    def check(self) -> None:
        """Raise a Fault if it has cut off, which can look like an orderly end."""
        if self._cut_after is not None:
            raise Fault(f"not complete after {self._cut_after:.0f} s")

    def _shut_down(self) -> None:
        for connection in self._sockets:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself

    def close(self) -> None:
        """End the connection, whoever else still holds it."""
        if self._timer:
            self._timer.cancel()
        self._shut_down()
        for connection in self._sockets:
            connection.close()


def _send(
    method: str,
    url: str,
    headers: Mapping[str, str] | None,
    body: bytes | None,
    guard: _Guard,
) -> urllib3.BaseHTTPResponse:
    try:
        manager = _manager(url)
        pool: Any = manager.connection_from_url(url)
    except ValueError:  # LocationParseError is one
        raise Refused(_BAD_ADDRESS) from None
    pool.ConnectionCls = _watched(pool.ConnectionCls, guard)
    own = {"User-Agent": f"numerai_predict/{__version__}", "Connection": "close", **(headers or {})}
    return manager.urlopen(
        method,
        url,
        body=body,
        headers={**own, **_basic_auth(url)},
        retries=False,
        redirect=False,
        preload_content=False,
        decode_content=False,
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
    )


def _watched(kind: Any, guard: _Guard) -> type:
    """The connection class `kind`, whose sockets `guard` sees as soon as they exist."""

    class Watched(kind):
        def _new_conn(self) -> socket.socket:
            return guard.watch(super()._new_conn())

    return Watched


def _manager(url: str) -> urllib3.PoolManager:
    """Connections by the environment's proxies and certificates, as `requests` makes them."""
    context = _tls() if url.startswith("https:") else None
    proxy = _proxy(url)
    if proxy is None:
        return urllib3.PoolManager(ssl_context=context)
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    return urllib3.ProxyManager(
        proxy,
        proxy_headers=_basic_auth(proxy, "proxy_basic_auth"),
        proxy_ssl_context=_tls() if proxy.startswith("https:") else None,
        ssl_context=context,
    )


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _tls() -> ssl.SSLContext:
    # OpenSSL itself knows SSL_CERT_FILE and SSL_CERT_DIR.
    bundle = os.getenv("REQUESTS_CA_BUNDLE") or os.getenv("CURL_CA_BUNDLE")
    if not bundle:
        return ssl.create_default_context()
    try:
        if Path(bundle).is_dir():
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except OSError:  # ssl.SSLError is one
        raise Refused(f"the certificates in {bundle} (REQUESTS_CA_BUNDLE) are unusable") from None


def _basic_auth(url: str, kind: str = "basic_auth") -> dict[str, str]:
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return dict(urllib3.make_headers(**{kind: login}))  # type: ignore[arg-type]


def _redirected(method: str, url: str, response: urllib3.BaseHTTPResponse) -> str:
    """Where a redirect leads, if it may be followed."""
    response.close()
    status = _status(response)
    location = response.headers.get("Location")
    if not location:
        raise Refused(f"{status} without an address to go to")
    if method != "GET":
        advice = "; sign the POST without success_action_redirect" if response.status == 303 else ""
        raise Refused(f"{status}: a {method} is not sent elsewhere{advice}")
    try:
        target = urljoin(url, location)
        old, new = urlsplit(url).scheme, urlsplit(target).scheme
    except ValueError:
        raise Refused(f"{status} to no valid address") from None
    if new not in ("http", "https") or (old, new) == ("https", "http"):
        raise Refused(f"{status} from {old} to {new} is not followed")
    return target


def _status(response: urllib3.BaseHTTPResponse) -> str:
    try:
        return f"HTTP {response.status} {HTTPStatus(response.status).phrase}"
    except ValueError:
        return f"HTTP {response.status}"


def _raise_for(response: urllib3.BaseHTTPResponse, url: str, secrets: Mapping[str, str]) -> None:
    """Raise what a response that is no success means."""
    text = _status(response)
    body = b""
    try:
        # An error page too long or too slow to read is not needed.
        while len(body) < REFUSAL_BYTES and (more := response.read1(REFUSAL_BYTES)):
            body += more
    except faults.HTTPError:
        pass
    response.close()
    text += refusals.explain(response.status, body, url, secrets)
    if response.status in _RETRY:
        raise Fault(text, _retry_after(response.headers.get("Retry-After", "")))
    raise Refused(text)


def _retry_after(value: str) -> float:
    """Seconds, from a number of seconds or an HTTP date."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _translated(fault: faults.HTTPError) -> Fault | Refused:
    """A urllib3 exception in words of our own."""
    causes = _causes(fault)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Refused(f"the server's certificate is not valid: {cause.verify_message}")
    if isinstance(fault, (faults.LocationValueError, faults.ProxySchemeUnknown)):
        return Refused(_BAD_ADDRESS)
    reason = next((text for cause in causes if (text := _reason(cause))), type(fault).__name__)
    through = "through the proxy: " if isinstance(fault, faults.ProxyError) else ""
    return Fault(through + reason)


def _causes(fault: BaseException) -> list[BaseException]:
    """An exception and those it was made of, the outer ones first."""
    found = [fault]
    for cause in (fault.__cause__, *fault.args):
        if isinstance(cause, BaseException):
            found += _causes(cause)
    return found


def _reason(fault: BaseException) -> str:
    """What an exception means, empty where it says nothing that can be shown."""
    if isinstance(fault, faults.NameResolutionError):
        return "Name or service not known"
    if isinstance(fault, faults.NewConnectionError):  # its cause says more
        return ""
    if isinstance(fault, faults.ConnectTimeoutError):
        return f"no connection within {CONNECT_TIMEOUT:.0f} s"
    if isinstance(fault, faults.ReadTimeoutError):
        return f"nothing received for {READ_TIMEOUT:.0f} s"
    if isinstance(fault, http.client.IncompleteRead):
        return "the connection broke off before the announced end"
    if isinstance(fault, ssl.SSLError):
        return f"TLS: {fault.reason or 'broken connection'}"
    if isinstance(fault, http.client.RemoteDisconnected):
        return "the server closed the connection without an answer"
    return (fault.strerror or "") if isinstance(fault, OSError) else ""
