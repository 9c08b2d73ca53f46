"""What S3's refusals mean, and what to do about them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qsl, urlsplit

_ADVICE = {
    "AccessDenied": "the presigned URL does not allow this or has expired: make a new one",
    "AuthorizationQueryParametersError": "the presigned URL is cut off: quote it in shells",
    "EntityTooLarge": "the file is larger than the presigned POST allows",
    "EntityTooSmall": "the file is smaller than the presigned POST allows",
    "ExpiredToken": "the credentials that signed the URL have expired: make a new one",
    "InvalidAccessKeyId": "the credentials that signed the URL are gone: make a new one",
    "InvalidPolicyDocument": "the presigned POST's policy is malformed: make a new one",
    "InvalidToken": "the credentials that signed the URL are not valid: make a new one",
    "MissingSecurityHeader": "the presigned URL is cut off: quote it in shells",
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such file in the bucket",
    "PermanentRedirect": "the bucket is in another region: sign the URL for that region",
    "RequestTimeTooSkewed": "the clock of the machine that signed the URL is wrong",
    "SignatureDoesNotMatch": "the URL was changed after signing, or is cut off: quote it in shells",
}
_DENIED_POST = "the presigned POST was changed, does not allow this or has expired: make a new one"
_POLICY = "the form does not keep to the policy of the presigned POST: make a new one"


def explain(status: int, body: bytes, url: str, form: Mapping[str, str]) -> str:
    """What to add to a refusal's status: S3's error code and message, and advice.

    Of the body, only `<Code>` and `<Message>` are taken: S3's errors also quote the signed request.

    Args:
        body: the first bytes of the answer's body, of whatever type.
        url: the request's address; of a presigned one, its query says when it expires.
        form: the fields of a POST; a policy among them says when it expires.
    """
    form = {name.lower(): value for name, value in form.items()}
    text = body.decode("utf-8", "replace")
    code, message = (
        match.group(1).strip() if (match := re.search(f"<{tag}>([^<]*)</{tag}>", text)) else ""
        for tag in ("Code", "Message")
    )
    if any(secret in code + message for secret in _secrets(url, form)):
        code = message = ""
    said = f", {code}" if re.fullmatch(r"\w+", code) else ""
    if said and message:
        said += f": {message[:300]}"
    advice = _advice(status, code, message, url, form)
    return said + (f" ({advice})" if advice else "")


def _advice(status: int, code: str, message: str, url: str, form: Mapping[str, str]) -> str:
    if status in (400, 401, 403):
        kind = "POST" if form else "URL"
        for end in _ends(url, form):
            if end < datetime.now(timezone.utc):
                when = f"{end:%Y-%m-%d %H:%M:%S} UTC"
                return f"the presigned {kind} expired at {when}: make a new one"
        if code == "AccessDenied" and form:
            expired = "expired" in message.lower()
            return _POLICY if "policy" in message.lower() and not expired else _DENIED_POST
    return _ADVICE.get(code, "")


def _secrets(url: str, form: Mapping[str, str]) -> Iterator[str]:
    """What no message may contain; short words cannot be told from ordinary text."""
    parts = urlsplit(url)
    named = [*parse_qsl(parts.query), *form.items()]
    values = [parts.query, parts.password or "", *(value for _, value in named)]
    return (value for value in values if len(value) >= 6)


def _ends(url: str, form: Mapping[str, str]) -> Iterator[datetime]:
    """The times at which a presigned address or form ends, as far as it says so."""
    query = dict(parse_qsl(urlsplit(url).query))
    try:
        if "X-Amz-Expires" in query:  # signature version 4
            start = datetime.strptime(query["X-Amz-Date"] + "+0000", "%Y%m%dT%H%M%SZ%z")
            yield start + timedelta(seconds=int(query["X-Amz-Expires"]))
        elif "Expires" in query:  # version 2
            yield datetime.fromtimestamp(int(query["Expires"]), timezone.utc)
        if "policy" in form:
            policy = json.loads(base64.b64decode(form["policy"]))
            yield datetime.fromisoformat(policy["expiration"].replace("Z", "+00:00"))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, OSError):
        return
