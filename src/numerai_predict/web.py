"""HTTP for downloads and uploads: timeouts, retries, and what a refusal means.

Nothing here or in its callers puts a query string, a form field or the text of a `requests`
exception into a message: presigned addresses are secrets, and those texts quote them.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two reads
RETRIES = 4
BACKOFF = 0.5  # seconds; doubles with every retry, plus as much again at random
RETRY_STATUS = frozenset({408, 429, *range(500, 600)})
LONGEST_WAIT = 30  # seconds, whatever a server's Retry-After asks for

_ADVICE = {
    "AccessDenied": "the presigned URL does not allow this or has expired: make a new one",
    "ExpiredToken": "the credentials that signed the URL have expired: make a new one",
    "SignatureDoesNotMatch": "the URL was changed after signing, or is cut off: quote it in shells",
    "NoSuchKey": "there is no such file in the bucket",
    "EntityTooLarge": "the file is larger than the presigned POST allows",
}


def session() -> requests.Session:
    """A session that repeats GET and POST on connection faults, 408, 429 and 5xx.

    POST is repeated too: a presigned POST writes one fixed key and a GraphQL query reads. requests
    builds multipart bodies as bytes, so that every try sends the whole body again. After the last
    try the response comes back as it is; connection faults raise `requests.RequestException`.
    """
    retry = Retry(
        total=RETRIES,
        backoff_factor=BACKOFF,
        backoff_jitter=BACKOFF,
        backoff_max=LONGEST_WAIT,
        retry_after_max=LONGEST_WAIT,
        status_forcelist=RETRY_STATUS,
        allowed_methods=("GET", "POST"),
        raise_on_status=False,
    )
    http = requests.Session()
    http.mount("http://", HTTPAdapter(max_retries=retry))
    http.mount("https://", HTTPAdapter(max_retries=retry))
    return http


def public_part(url: str) -> str:
    """The part of a URL that may be shown: scheme, host and path; no user, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def explain_refusal(response: requests.Response) -> str:
    """What a response that is no success means: status, S3's error code if any, and advice.

    Reads at most 4 kB of the body, and only `<Code>` and `<Message>` are taken from it: S3's
    error bodies also quote the signed request.
    """
    text = f"HTTP {response.status_code} {response.reason or ''}".rstrip()
    try:
        body = next(response.iter_content(4096), b"").decode("utf-8", "replace")
    except requests.RequestException:
        body = ""
    code, message = (
        match.group(1) if (match := re.search(f"<{tag}>([^<]*)</{tag}>", body)) else ""
        for tag in ("Code", "Message")
    )
    if code:
        text += f", {code}: {message}"
    if code in _ADVICE:
        text += f" ({_ADVICE[code]})"
    return text


def explain_fault(fault: requests.RequestException) -> str:
    """What a failed exchange means, without the URL that the exception's own text contains."""
    inner = fault.args[0] if fault.args else None
    # urllib3's MaxRetryError quotes the URL, the `reason` inside it does not.
    reason = getattr(inner, "reason", inner)
    name = type(fault).__name__
    return f"{name}: {reason}" if isinstance(reason, Exception) else name
