"""Downloads and uploads over HTTP that survive what networks and servers do.

A transfer is tried again after connection trouble and the statuses 408, 429 and 5xx, within one
budget of time; what a single try does is in `web.py`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import tenacity
import urllib3

from numerai_predict import content, web
from numerai_predict.errors import DownloadFailed, UploadFailed, UsageError
from numerai_predict.progress import Progress
from numerai_predict.web import Fault, Refused, public_part

log = logging.getLogger(__name__)

# Seconds for all tries of a transfer, waits included; NUMERAI_TRANSFER_SECONDS says otherwise.
# Numerai gives a model 10 minutes for everything.
BUDGET = 300.0
TRIES = 6  # without getting any further
BACKOFF = 0.5  # seconds; doubles with every try, plus as much again at random
LONGEST_BACKOFF = 20.0
# A download that brings less than this many bytes in this many seconds is broken off.
SLOW_BYTES, SLOW_SECONDS = 20_000, 20.0

CHUNK = 1 << 17  # bytes
PARTIAL, NOT_MODIFIED, RANGE_UNSATISFIABLE = 206, 304, 416
JSON_BYTES = 1 << 20  # the longest answer that is taken for JSON

Result = TypeVar("Result")


def download(url: str, target: Path, *, what: str) -> Path:
    """Download to a file that exists only when it is complete.

    Args:
        url: an http(s) URL; only its scheme, host and path are logged.
        target: the file to write; missing folders are made, an older file is replaced.
        what: what it is, for the log: "model".

    Returns:
        `target`

    Raises:
        DownloadFailed: refused, unreachable, too slow or broken off after all tries.
        UsageError: `target` cannot be written, or NUMERAI_TRANSFER_SECONDS is no number.
    """
    refresh(url, target, "", what=what)
    return target


def refresh(url: str, target: Path, validator: str, *, what: str) -> str:
    """Download as `download` does, unless `target` is still what the server has.

    Args:
        validator: of what is in `target` (RFC 9110, 8.8): what an earlier call returned, or "".

    Returns:
        That of what is there now; "" where the server gives none that can be relied on.

    Raises: as `download`.
    """
    shown = public_part(url)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    log.info("Downloading %s from %s", what, shown)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # "x": nobody's file or link is written through. The mode is that of any new file.
        with Progress(what) as progress, partial.open("xb") as file:
            fetching = _Download(url, file, progress, validator)
            _repeat(fetching.go_on, f"Download of {what}", lambda: fetching.furthest)
        if fetching.is_unchanged:
            log.info("%s is still the server's: %s", what, target)
            return validator
        os.replace(partial, target)
    except (Fault, Refused) as error:
        raise DownloadFailed(f"cannot download {what} from {shown}: {error}") from None
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    size = target.stat().st_size / 1e6
    log.info("Downloaded %s: %.1f MB in %.1f s to %s", what, size, progress.seconds, target)
    return fetching.validator


def upload(csv: Path, url: str, fields: list[tuple[str, str]]) -> None:
    """POST a file as the multipart field `file`, after the other fields, as S3 wants it.

    Args:
        csv: the predictions; kept, whatever happens.
        url: the presigned POST's address.
        fields: its form fields; secrets, never logged.

    Raises:
        UploadFailed: refused, or unreachable after all tries.
    """
    shown = public_part(url)
    log.info("Uploading %s to %s", csv, shown)

    def post(deadline: float) -> None:
        # A new body with every try: S3 reads all of it, whatever became of the last one.
        parts: list[tuple[str, Any]] = [*fields, ("file", (csv.name, csv.read_bytes(), "text/csv"))]
        body, content_type = urllib3.encode_multipart_formdata(parts)
        with web.exchange(
            "POST",
            url,
            accept=(200, 201, 204),
            deadline=deadline,
            headers={"Content-Type": content_type},
            body=body,
            secrets=dict(fields),
        ):
            pass

    start = time.monotonic()
    try:
        _repeat(post, "Upload")
    except (Fault, Refused) as error:
        raise UploadFailed(
            f"cannot upload to {shown}: {error}; the predictions are kept in {csv}"
        ) from None
    size = csv.stat().st_size / 1e6
    log.info("Uploaded predictions: %.1f MB in %.1f s", size, time.monotonic() - start)


def post_json(url: str, message: object, *, what: str) -> Any:
    """POST a message as JSON and return the answer, which is JSON too.

    Args:
        what: what it means if this fails, for the error's text.

    Raises:
        DownloadFailed: refused, unreachable after all tries, or not JSON.
    """
    body = json.dumps(message).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json"}

    def post(deadline: float) -> bytes:
        with web.exchange(
            "POST", url, accept=(200,), deadline=deadline, headers=headers, body=body
        ) as response:
            decoder = _decoder(response)
            answer = b""
            while len(answer) < JSON_BYTES and (wire := response.read1(CHUNK)):
                answer += decoder.decode(wire)
            return answer

    try:
        return json.loads(_repeat(post, f"Request to {public_part(url)}"))
    except (Fault, Refused) as error:
        raise DownloadFailed(f"{what}, {public_part(url)}: {error}") from None
    except ValueError:
        raise DownloadFailed(f"{what}, {public_part(url)}: the answer is no JSON") from None


class _Download:
    """One download over several tries: each goes on where the one before broke off, if it can."""

    def __init__(self, url: str, file: BinaryIO, progress: Progress, known: str = "") -> None:
        self.furthest = 0  # bytes that any try came to
        self.is_unchanged = False  # the server has what `known` is the validator of
        self._url = url
        self._file = file
        self._progress = progress
        self._known = known
        self.validator = ""  # of what is in the file, for If-Range; without one, no try goes on
        self._total: int | None = None  # bytes of the whole content as it is sent
        self._received = 0  # of these; the file has more where they were compressed

    def go_on(self, deadline: float) -> None:
        """One try.

        Raises:
            Fault: to be tried again.
            Refused: not to be tried again.
        """
        headers = {"Accept-Encoding": "identity"}
        accept: tuple[int, ...] = (200, PARTIAL, RANGE_UNSATISFIABLE)
        if not self.validator:
            self._start_over()
            if self._known:
                headers |= _unless(self._known)
                accept += (NOT_MODIFIED,)
        elif self._file.tell():
            headers |= {"Range": f"bytes={self._file.tell()}-", "If-Range": self.validator}
        with web.exchange(
            "GET", self._url, accept=accept, deadline=deadline, headers=headers
        ) as response:
            if response.status == NOT_MODIFIED:
                self.is_unchanged = True
                return
            if response.status == 200:
                self._start_over(response)
            elif not self._continues(response):
                self._start_over()
                raise Fault("the server cannot go on where it broke off")
            try:
                self._receive(response)
            except content.BadContent as error:
                raise Fault(str(error)) from None
        if self._total is None and not self._received:  # as when it breaks off in the headers
            raise Fault("an empty answer")
        if self._total is not None and self._received != self._total:
            raise Fault(f"got {self._received} of {self._total} bytes")

    def _start_over(self, response: urllib3.BaseHTTPResponse | None = None) -> None:
        """Empty the file; with a response, note what its content is."""
        self._file.seek(0)
        self._file.truncate()
        self.validator, self._total, self._received = "", None, 0
        if response is None:
            return
        self._total = _length(response)
        encoded = content.names(response.headers.get("Content-Encoding", ""))
        if not encoded:  # else the file's size is no offset of what is sent
            self.validator = _validator(response)

    def _continues(self, response: urllib3.BaseHTTPResponse) -> bool:
        """Whether a partial content begins where the file ends, and belongs to the same whole."""
        if response.status != PARTIAL or response.headers.get("Content-Encoding"):
            return False
        given = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        etag = response.headers.get("ETag", self.validator)
        return (
            given is not None
            and int(given[1]) == self._file.tell() > 0
            and given[2] in ("*", str(self._total))
            and (etag == self.validator or not self.validator.startswith('"'))
        )

    def _receive(self, response: urllib3.BaseHTTPResponse) -> None:
        decoder = _decoder(response)
        pace = _Pace()
        # read1 returns what one read brings; read would wait for a whole chunk, however slow.
        while wire := response.read1(CHUNK):
            self._file.write(decoder.decode(wire))
            self._received += len(wire)
            self._progress.at(self._received, self._total)
            pace.check(len(wire))
            self.furthest = max(self.furthest, self._received)
        decoder.finish()


class _Pace:
    """Notices a server that sends just enough to keep a connection open."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._bytes = 0

    def check(self, received: int) -> None:
        self._bytes += received
        seconds = time.monotonic() - self._since
        if seconds < SLOW_SECONDS:
            return
        if self._bytes < SLOW_BYTES:
            raise Fault(f"too slow: {self._bytes} bytes in {seconds:.0f} s")
        self._since, self._bytes = time.monotonic(), 0


def _length(response: urllib3.BaseHTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return int(length) if length.isdecimal() and not chunked else None


def _validator(response: urllib3.BaseHTTPResponse) -> str:
    """What tells this content from any other one at the same address."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _unless(validator: str) -> dict[str, str]:
    name = "If-None-Match" if validator.startswith('"') else "If-Modified-Since"
    return {name: validator}


def _decoder(response: urllib3.BaseHTTPResponse) -> content.Decoder:
    try:
        return content.Decoder(content.names(response.headers.get("Content-Encoding", "")))
    except content.UnknownEncoding as error:
        raise Refused(
            f"Content-Encoding {str(error)[:20]!r} is not supported, only {content.SUPPORTED}"
        ) from None


def _repeat(
    attempt: Callable[[float], Result], doing: str, reached: Callable[[], int] = lambda: 0
) -> Result:
    """Call `attempt` until it raises no Fault, within the budget.

    Args:
        attempt: gets the `time.monotonic()` at which the budget ends.
        doing: what is tried, for the log.
        reached: how far the tries have come. One that gets further sets the count back, so that a
            large download can be interrupted more often than a small one.

    Raises:
        Fault: the last one.
        Refused: at once.
    """
    budget = _budget()
    deadline = time.monotonic() + budget
    best, idle = 0, 0

    def stop(state: tenacity.RetryCallState) -> bool:
        nonlocal best, idle
        idle = 1 if reached() >= best + SLOW_BYTES else idle + 1
        best = max(best, reached())
        return idle >= TRIES or time.monotonic() + state.upcoming_sleep >= deadline

    def wait(state: tenacity.RetryCallState) -> float:
        backoff = tenacity.wait_exponential(BACKOFF, max=LONGEST_BACKOFF)
        return max((backoff + tenacity.wait_random(0, BACKOFF))(state), _fault(state).wait)

    def say(state: tenacity.RetryCallState) -> None:
        log.warning("%s: %s; again in %.1f s", doing, _fault(state), state.upcoming_sleep)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Fault),
        wait=wait,
        stop=stop,
        before_sleep=say,
        reraise=True,
    )
    try:
        return retrying(attempt, deadline)
    except Fault as fault:
        left = max(0.0, deadline - time.monotonic())
        asks = (
            f"; it asks to wait {fault.wait:.0f} s, but only {left:.0f} s are left of {budget:.0f} s"
            if fault.wait and fault.wait >= left
            else ""
        )
        tries = retrying.statistics["attempt_number"]
        raise Fault(f"{fault}{asks} ({tries} {'try' if tries == 1 else 'tries'})") from None


def _budget() -> float:
    given = os.getenv("NUMERAI_TRANSFER_SECONDS")
    try:
        return float(given) if given else BUDGET
    except ValueError:
        raise UsageError(f"NUMERAI_TRANSFER_SECONDS is {given!r}, no number of seconds") from None


def _fault(state: tenacity.RetryCallState) -> Fault:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Fault)
    return error
