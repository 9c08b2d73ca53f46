"""Downloads and uploads against a server that does what servers should not, over real sockets."""

from __future__ import annotations

import base64
import email.utils
import gzip
import logging
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email import policy
from email.parser import BytesParser
from pathlib import Path

import pytest

from numerai_predict import progress, transfer, web
from numerai_predict.conftest import Answer, s3_error
from numerai_predict.errors import DownloadFailed, UploadFailed, UsageError

QUERY = "?X-Amz-Signature=s3cret"
BODY = bytes(range(256)) * 400  # 102,400 bytes


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert "s3cret" not in caplog.text


@dataclass
class Request:
    """One request, and the connection to answer it on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: socket.socket

    def send(self, *parts: bytes) -> None:
        self.connection.sendall(b"".join(parts))

    def reset(self) -> None:
        """End the connection as a crash does; closing alone is an orderly end."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def drip(self, part: bytes) -> None:
        """Send a part again and again, until the other side has enough of it."""
        while True:
            self.connection.sendall(part)
            time.sleep(0.02)


Script = Callable[[Request], None]


class Faulty:
    """A server that answers one request after the other by a script; the last one stays."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.scripts: list[Script] = []
        self.requests: list[Request] = []
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://localhost:{self._listener.getsockname()[1]}/dir/model.pkl"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self._answer(connection)
                except OSError:
                    pass  # the client has left

    def _answer(self, connection: socket.socket) -> None:
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection, connection.makefile("rb") as file:
            method, path, _ = file.readline().decode().split()
            lines = iter(file.readline, b"\r\n")
            headers = dict(line.decode().strip().split(": ", 1) for line in lines)
            body = file.read(int(headers.get("Content-Length", 0)))
            request = Request(method, path, headers, body, connection)
            self.requests.append(request)
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
            script(request)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    server = Faulty()
    yield server
    server.close()


def head(status: int = 200, /, **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status} what ever s3cret"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(body: bytes = BODY, status: int = 200, **headers: object) -> Script:
    """A faultless answer, unless its headers are wrong."""
    whole = head(status, **{"Content_Length": str(len(body)), **headers}) + body
    return lambda request: request.send(whole)


def broken(bytes_sent: int, **headers: object) -> Script:
    """An answer that is cut off with a reset."""

    def script(request: Request) -> None:
        request.send(head(Content_Length=len(BODY), **headers), BODY[:bytes_sent])
        time.sleep(0.05)  # or the reset overtakes what was sent
        request.reset()

    return script


def rest(first: int, body: bytes = BODY, **headers: object) -> Script:
    given = f"bytes {first}-{len(body) - 1}/{len(body)}"
    return answer(body[first:], 206, **{"Content_Range": given, **headers})


@pytest.fixture
def fetch(faulty, tmp_path) -> Callable[..., bytes]:
    """Downloads what the scripts send."""

    def fetch(*scripts: Script) -> bytes:
        faulty.scripts = list(scripts)
        target = tmp_path / "new" / "model.pkl"
        try:
            assert transfer.download(faulty.url + QUERY, target, what="model") == target
            return target.read_bytes()
        finally:
            assert list(target.parent.iterdir()) == ([target] if target.exists() else [])

    return fetch


ETAG = '"one"'


def test_a_download(fetch, faulty, caplog):
    assert fetch(answer()) == BODY
    assert faulty.requests[0].path == "/dir/model.pkl" + QUERY
    lines = [record.getMessage() for record in caplog.records if record.name == transfer.__name__]
    assert lines[0] == f"Downloading model from {faulty.url}"
    assert re.match(r"Downloaded model: 0\.1 MB in \d+\.\d s to /", lines[1])


def test_an_older_file_is_replaced_and_an_unfinished_download_leaves_it(fetch, faulty, tmp_path):
    target = tmp_path / "new" / "model.pkl"
    target.parent.mkdir()
    target.write_bytes(b"older and longer" * 10_000)
    with pytest.raises(DownloadFailed):
        fetch(answer(b"", 404))
    assert target.read_bytes() == b"older and longer" * 10_000
    assert fetch(answer()) == BODY


@pytest.mark.parametrize(
    "scripts",
    [
        [answer(b"", 500), answer(b"", 503), answer()],
        [answer(b"", 408), answer(b"", 429), answer()],
        [lambda request: request.reset(), answer()],
        [lambda request: None, answer()],
        [lambda request: request.send(b"no HTTP at all\r\n\r\n"), answer()],
        [lambda request: request.send(head(Content_Length=9)[:30]), answer()],
    ],
    ids=["5xx", "408-429", "reset", "closed", "no-http", "half-headers"],
)
def test_what_may_pass_is_tried_again(fetch, faulty, scripts):
    assert fetch(*scripts) == BODY
    assert len(faulty.requests) == len(scripts)


def test_a_reset_is_resumed_where_it_happened(fetch, faulty):
    assert fetch(broken(50_000, ETag=ETAG), rest(50_000, ETag=ETAG)) == BODY
    assert faulty.requests[1].headers["Range"] == "bytes=50000-"
    assert faulty.requests[1].headers["If-Range"] == ETAG


def test_without_a_strong_etag_the_date_decides(fetch, faulty):
    date = "Mon, 23 Nov 2026 10:00:00 GMT"
    assert fetch(broken(50_000, ETag='W/"one"', Last_Modified=date), rest(50_000)) == BODY
    assert faulty.requests[1].headers["If-Range"] == date


@pytest.mark.parametrize(
    "first, second",
    [
        (broken(50_000), answer()),
        (broken(50_000, ETag=ETAG), answer()),
        (broken(50_000, ETag=ETAG), answer(BODY[::-1], ETag='"two"')),
        (broken(50_000, ETag='W/"one"'), answer()),
        (broken(50_000, ETag=ETAG, Content_Encoding="gzip"), answer()),
    ],
    ids=["no-validator", "200", "changed", "weak", "encoded"],
)
def test_what_cannot_be_resumed_starts_again(fetch, faulty, first, second):
    assert fetch(first, second) in (BODY, BODY[::-1])
    assert len(faulty.requests) == 2
    if ETAG.encode() not in faulty.requests[1].headers.get("If-Range", "").encode():
        assert "Range" not in faulty.requests[1].headers


@pytest.mark.parametrize(
    "second",
    [
        rest(50_000, ETag='"two"'),
        rest(49_999, ETag=ETAG),
        rest(50_000, BODY + b"x", ETag=ETAG),
        rest(50_000, ETag=ETAG, Content_Range="bytes oops"),
        rest(50_000, ETag=ETAG, Content_Encoding="gzip"),
        answer(b"", 416),
    ],
    ids=["other-etag", "other-place", "other-length", "malformed", "encoded", "416"],
)
def test_a_continuation_of_something_else_is_thrown_away(fetch, faulty, second):
    assert fetch(broken(50_000, ETag=ETAG), second, answer()) == BODY
    assert "Range" not in faulty.requests[2].headers


def test_a_partial_content_that_nobody_asked_for_is_refused(fetch):
    with pytest.raises(DownloadFailed, match="cannot go on where it broke off"):
        fetch(rest(0))


def test_a_long_download_may_break_more_often_than_a_short_one(fetch, faulty):
    step = len(BODY) // 10 // 2 * 4  # 20,480 bytes get it further

    def some(request: Request) -> None:
        first = int(re.sub(r"\D", "", request.headers.get("Range", "0")))
        given = f"bytes {first}-{len(BODY) * 4 - 1}/{len(BODY) * 4}"
        part = (BODY * 4)[first : first + step]
        last = first + step >= len(BODY) * 4
        request.send(
            head(
                206 if first else 200,
                Content_Length=len(BODY) * 4 - first,
                Content_Range=given,
                ETag=ETAG,
            ),
            part,
        )
        assert last or len(part) == step

    assert fetch(some) == BODY * 4
    assert len(faulty.requests) == 20


@pytest.mark.parametrize(
    "script, says",
    [
        (answer(BODY, Content_Length=len(BODY) + 5), "broke off before the announced end"),
        (broken(50_000), "Connection reset by peer"),
        (
            lambda request: request.send(head(Transfer_Encoding="chunked"), b"3\r\nabc\r\n"),
            "broke off before the announced end",
        ),
        (lambda request: request.send(head(Transfer_Encoding="chunked"), b"zz\r\n"), "broke"),
        (answer(gzip.compress(BODY)[:-9], Content_Encoding="gzip"), "ends too early"),
        (answer(b"no gzip", Content_Encoding="gzip"), "not compressed as announced"),
        (answer(b"busy", 503), "HTTP 503 Service Unavailable"),
    ],
    ids=["length", "reset", "chunked", "no-chunk", "half-gzip", "no-gzip", "busy"],
)
def test_what_stays_broken_fails_after_all_tries(fetch, faulty, script, says):
    with pytest.raises(
        DownloadFailed, match=f"cannot download model from .*{says}.*6 tries"
    ) as failure:
        fetch(script)
    assert len(faulty.requests) == transfer.TRIES
    assert "s3cret" not in str(failure.value)


def test_only_the_announced_bytes_are_taken(fetch):
    assert fetch(answer(BODY + b"of another answer", Content_Length=len(BODY))) == BODY


def test_a_body_without_a_length_ends_with_the_connection(fetch):
    assert fetch(lambda request: request.send(head(), BODY)) == BODY


def test_a_chunked_body(fetch):
    chunks = [b"%x;s3cret\r\n%b\r\n" % (1000, BODY[:1000]), b"1\r\n%b\r\n" % BODY[1000:1001]]
    end = b"0\r\nTrailer: x\r\n\r\n"
    assert fetch(lambda r: r.send(head(Transfer_Encoding="chunked"), *chunks, end)) == BODY[:1001]


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


@pytest.mark.parametrize(
    "encoding, body",
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY[:99]) + gzip.compress(BODY[99:])),
        ("deflate", zlib.compress(BODY)),
        ("Deflate", raw_deflate(BODY)),
        ("deflate, gzip", gzip.compress(zlib.compress(BODY))),
        ("identity", BODY),
    ],
    ids=["gzip", "gzips", "deflate", "raw-deflate", "both", "identity"],
)
def test_a_content_encoding_is_undone_though_none_was_asked_for(fetch, faulty, encoding, body):
    assert fetch(answer(body, Content_Encoding=encoding)) == BODY
    assert faulty.requests[0].headers["Accept-Encoding"] == "identity"


def test_an_unknown_content_encoding_is_named(fetch, faulty):
    with pytest.raises(DownloadFailed, match="'br' is not supported, only gzip and deflate"):
        fetch(answer(Content_Encoding="br"))
    assert len(faulty.requests) == 1


@pytest.mark.parametrize(
    "slow, says",
    [
        (lambda request: (request.send(head(Content_Length=9**9)), request.drip(b"x")), "too slow"),
        (
            lambda r: (r.send(head(Transfer_Encoding="chunked")), r.drip(b"1\r\nx\r\n")),
            "too slow",
        ),
        (
            lambda r: (
                r.send(head(Content_Encoding="gzip", Content_Length=9**9), gzip.compress(b"")[:10]),
                r.drip(b"\0\0\0\xff\xff"),
            ),
            "too slow",
        ),
        (lambda request: (request.send(head()[:-2]), request.drip(b"A: b\r\n")), "not complete"),
        (lambda request: request.drip(b"HTTP/1.1"), "not complete"),
        (lambda r: (r.send(head(403, Content_Length=9**9)), r.drip(b" ")), "HTTP 403 Forbidden"),
        (lambda request: request.connection.recv(1), "nothing received"),
    ],
    ids=["body", "chunks", "gzip", "headers", "status-line", "refusal", "silence"],
)
def test_a_server_that_drips_is_left(fetch, faulty, monkeypatch, slow, says):
    monkeypatch.setattr(transfer, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(transfer, "TRIES", 2)
    for limit in ("READ_TIMEOUT", "ANSWER_TIMEOUT", "REFUSAL_TIMEOUT"):
        monkeypatch.setattr(web, limit, 0.3 if limit == "READ_TIMEOUT" else 0.5)
    with pytest.raises(DownloadFailed, match=says):
        fetch(slow)


def test_a_budget_ends_even_a_transfer_that_gets_on(fetch, monkeypatch):
    monkeypatch.setattr(transfer, "BUDGET", 0.3)
    with pytest.raises(DownloadFailed, match=r"not complete after 0 s.*\(1 try\)"):
        fetch(lambda request: (request.send(head()), request.drip(BODY)))


def test_the_budget_is_the_users_to_choose(fetch, monkeypatch):
    monkeypatch.setenv("NUMERAI_TRANSFER_SECONDS", "10")
    with pytest.raises(DownloadFailed, match="asks to wait 20 s, but only 10 s are left of 10 s"):
        fetch(answer(b"", 503, Retry_After="20"))
    monkeypatch.setenv("NUMERAI_TRANSFER_SECONDS", "ten")
    with pytest.raises(UsageError, match="NUMERAI_TRANSFER_SECONDS is 'ten'"):
        fetch(answer())


def test_no_try_starts_beyond_the_budget(fetch, faulty, monkeypatch):
    monkeypatch.setattr(transfer, "BACKOFF", 20)
    monkeypatch.setattr(transfer, "BUDGET", 10)
    with pytest.raises(DownloadFailed, match=r"HTTP 500 Internal Server Error \(1 try\)"):
        fetch(answer(b"", 500))


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The seconds that transfers waited, if there were no monkey."""
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    return waits


def test_the_waits_grow_and_are_not_the_same_for_all(fetch, monkeypatch, waits):
    monkeypatch.setattr(transfer, "BACKOFF", 0.5)
    with pytest.raises(DownloadFailed):
        fetch(answer(b"", 500))
    assert [int(2 * wait) for wait in waits] == pytest.approx([1, 2, 4, 8, 16], abs=1)
    assert len({wait % 0.5 for wait in waits}) == 5


def http_date(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize("after, least", [("7", 7), (http_date(60), 10), (http_date(-9), 0)])
def test_a_server_says_when_to_come_again(fetch, waits, after, least):
    assert fetch(answer(b"", 429, Retry_After=after), answer()) == BODY
    assert least <= waits[0] <= 60


@pytest.mark.parametrize("after", ["3600", http_date(4000)])
def test_a_server_that_wants_a_longer_wait_than_there_is_time(fetch, waits, after):
    with pytest.raises(DownloadFailed, match=r"HTTP 503 .* asks to wait 3\d\d\d s, but only"):
        fetch(answer(b"", 503, Retry_After=after))
    assert waits == []


LONG_AGO = "?X-Amz-Date=20261101T100000Z&X-Amz-Expires=3600&X-Amz-Signature=s3cret"


@pytest.mark.parametrize(
    "refusal, query, says",
    [
        (s3_error(403, "AccessDenied", "Request has expired"), QUERY, "expired: make a new one"),
        (s3_error(403, "AccessDenied"), LONG_AGO, "expired at 2026-11-01 11:00:00 UTC"),
        (s3_error(403, "AccessDenied"), "?Expires=1&Signature=s3cret", "expired at 1970-01-01"),
        (s3_error(403, "SignatureDoesNotMatch", "…"), QUERY, "quote it in shells"),
        (s3_error(400, "ExpiredToken"), QUERY, "credentials .* expired"),
        (s3_error(404, "NoSuchKey"), QUERY, "HTTP 404 Not Found, NoSuchKey .*no such file"),
        (s3_error(403, "Hm", "you sent s3cret"), QUERY, r"HTTP 403 Forbidden \(1 try\)"),
        (Answer(b"<html>", 404), QUERY, r"HTTP 404 Not Found \(1 try\)"),
        (Answer(b"", 202), QUERY, "HTTP 202 Accepted"),
    ],
)
def test_a_refusal_is_explained_and_final(server, tmp_path, refusal, query, says):
    url = server.on("/model.pkl", refusal) + query
    with pytest.raises(DownloadFailed, match=says.replace(r" \(1 try\)", "$")) as failure:
        transfer.download(url, tmp_path / "model.pkl", what="model")
    assert len(server.received) == 1
    assert "s3cret" not in str(failure.value)
    assert list(tmp_path.iterdir()) == []


def test_nobody_there(closed_port, tmp_path):
    with pytest.raises(DownloadFailed, match="Connection refused .6 tries"):
        transfer.download(f"{closed_port}/a{QUERY}", tmp_path / "a", what="model")


def test_no_such_host(tmp_path):
    with pytest.raises(DownloadFailed, match="http://nowhere.invalid/a: Name or service not known"):
        transfer.download(f"http://nowhere.invalid/a{QUERY}", tmp_path / "a", what="model")


def test_a_target_that_cannot_be_written(faulty, tmp_path):
    faulty.scripts = [answer()]
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write .*file/model.pkl: File exists"):
        transfer.download(faulty.url, tmp_path / "file" / "model.pkl", what="model")


def test_a_login_in_the_address(fetch, faulty, tmp_path):
    faulty.scripts = [answer()]
    url = faulty.url.replace("//", "//user:s3cret%2F@")
    transfer.download(url, tmp_path / "a", what="model")
    login = base64.b64encode(b"user:s3cret/").decode()
    assert faulty.requests[0].headers["authorization"] == f"Basic {login}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(fetch, faulty, status):
    assert fetch(answer(b"gone", status, Location="/else?where=s3cret"), answer()) == BODY
    assert [request.path for request in faulty.requests][1] == "/else?where=s3cret"
    assert faulty.requests[1].method == "GET"


@pytest.mark.parametrize(
    "location, says, requests",
    [
        ("/again?s3cret", "more than 5 redirects", 6),
        ("file:///etc/passwd", "from http to file is not followed", 1),
        ("ftp://localhost/s3cret", "from http to ftp is not followed", 1),
        ("http://[s3cret", "to no valid address", 1),
        ("http://:80/s3cret", "address .* is not valid", 1),
        ("", "without an address to go to", 1),
    ],
)
def test_a_redirect_that_leads_nowhere(fetch, faulty, location, says, requests):
    with pytest.raises(DownloadFailed, match=says) as failure:
        fetch(answer(b"", 302, Location=location))
    assert len(faulty.requests) == requests
    assert "s3cret" not in str(failure.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A self-made certificate authority's own certificate for localhost, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    usage = ["-addext", "keyUsage=digitalSignature,keyCertSign", "-days", "2", "-nodes"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    argv = [openssl, "req", "-x509", *curve, *subject, *usage, *files]
    subprocess.run(argv, check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.fixture
def secure(certificate) -> Iterator[Faulty]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server = Faulty(context)
    yield server
    server.close()


TRUST = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]


@pytest.mark.parametrize("variable", TRUST)
def test_certificates_are_trusted_by_the_usual_variables(
    secure, certificate, monkeypatch, tmp_path, variable
):
    for name in TRUST:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(certificate))
    secure.scripts = [answer()]
    path = transfer.download(secure.url + QUERY, tmp_path / "a", what="model")
    assert path.read_bytes() == BODY


def test_a_certificate_that_nobody_vouches_for(secure, monkeypatch, tmp_path):
    for name in TRUST:
        monkeypatch.delenv(name, raising=False)
    secure.scripts = [answer()]
    with pytest.raises(DownloadFailed, match="certificate is not valid: self-signed certificate$"):
        transfer.download(secure.url + QUERY, tmp_path / "a", what="model")
    assert secure.requests == []


def test_a_resumed_download_checks_the_certificate_too(secure, monkeypatch, tmp_path, certificate):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))

    def distrust(request: Request) -> None:
        broken(50_000, ETag=ETAG)(request)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", ssl.get_default_verify_paths().openssl_capath)

    secure.scripts = [distrust, rest(50_000, ETag=ETAG)]
    with pytest.raises(DownloadFailed, match="certificate is not valid"):
        transfer.download(secure.url + QUERY, tmp_path / "a", what="model")
    assert len(secure.requests) == 1


def test_a_redirect_from_https_to_http_is_not_followed(
    secure, faulty, certificate, monkeypatch, tmp_path
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    secure.scripts = [answer(b"", 302, Location=faulty.url + QUERY)]
    faulty.scripts = [answer()]
    with pytest.raises(DownloadFailed, match="302 Found from https to http is not followed$"):
        transfer.download(secure.url + QUERY, tmp_path / "a", what="model")
    assert faulty.requests == []


def test_a_drip_through_tls(secure, certificate, monkeypatch, tmp_path):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setattr(web, "ANSWER_TIMEOUT", 0.5)
    monkeypatch.setattr(transfer, "TRIES", 1)
    secure.scripts = [lambda request: request.drip(b"HTTP/1.1")]
    with pytest.raises(DownloadFailed, match="not complete after"):
        transfer.download(secure.url + QUERY, tmp_path / "a", what="model")


def test_a_handshake_that_drips(faulty, monkeypatch, tmp_path):
    """Its server speaks no TLS: it drips as soon as it has read what it takes for a request."""
    monkeypatch.setattr(web, "ANSWER_TIMEOUT", 0.5)
    monkeypatch.setattr(transfer, "TRIES", 1)
    monkeypatch.setattr(faulty, "_answer", lambda c: Request("", "", {}, b"", c).drip(b"\x16\x03"))
    with pytest.raises(DownloadFailed):
        transfer.download(faulty.url.replace("http", "https"), tmp_path / "a", what="model")


@pytest.mark.parametrize("no_proxy", ["", "elsewhere.invalid", "localhost", "*"])
def test_the_environments_proxy(faulty, monkeypatch, tmp_path, no_proxy):
    host, _, port = faulty.url.split("/")[2].partition(":")
    for name in ("http_proxy", "no_proxy", "all_proxy", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://me:s3cret@127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    faulty.scripts = [answer()]
    transfer.download(faulty.url + QUERY, tmp_path / "a", what="model")
    direct = no_proxy in ("localhost", "*")
    (request,) = faulty.requests
    assert request.path == ("/dir/model.pkl" if direct else faulty.url) + QUERY
    assert ("proxy-authorization" in request.headers) == (not direct)


def test_lines_tell_where_a_long_download_is(fetch, monkeypatch, caplog):
    monkeypatch.setattr(progress, "LINE_EVERY", 0)
    fetch(answer())
    assert re.search(r"model: 0\.1 of 0\.1 MB in 0 s", caplog.text)


def test_a_bar_on_a_terminal(fetch, monkeypatch, capsys, caplog):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(progress, "LINE_EVERY", 0)
    fetch(broken(50_000, ETag=ETAG), rest(50_000, ETag=ETAG))
    assert "model:" in capsys.readouterr().err
    assert " of 0.1 MB" not in caplog.text


# Uploads

FIELDS = [("key", "user/live.csv"), ("policy", "s3cret+/="), ("empty", ""), ("x-amz-date", "1")]


@pytest.fixture
def csv(tmp_path) -> Path:
    path = tmp_path / "live_predictions-1.csv"
    path.write_text("id,prediction\nn1,0.25\n")
    return path


def parts(content_type: str, body: bytes) -> list[tuple[str, object, str]]:
    """The parts of a multipart form: (name, content, type), in their order."""
    form = BytesParser(policy=policy.HTTP).parsebytes(
        f"Content-Type: {content_type}\r\n\r\n".encode() + body
    )
    return [
        (
            part["Content-Disposition"].params["name"],
            part.get_payload(decode=True),
            part.get_content_type(),
        )
        for part in form.iter_parts()
    ]


def posted(request: Request) -> list[tuple[str, object, str]]:
    return parts(request.headers["Content-Type"], request.body)


@pytest.mark.parametrize("status", [200, 201, 204])
def test_the_file_is_posted_after_the_fields(faulty, csv, caplog, status):
    faulty.scripts = [answer(b"", status)]
    transfer.upload(csv, faulty.url + QUERY, FIELDS)
    (request,) = faulty.requests
    *fields, file = posted(request)
    assert [field[:2] for field in fields] == [(name, value.encode()) for name, value in FIELDS]
    assert file == ("file", csv.read_bytes(), "text/csv")
    assert "Transfer-Encoding" not in request.headers
    assert f"Uploading {csv} to {faulty.url}" in caplog.messages


def test_every_try_posts_the_whole_form(faulty, csv):
    faulty.scripts = [
        answer(b"", 500),
        lambda request: request.reset(),
        answer(b"", 503, Retry_After="0"),
        answer(b"", 204),
    ]
    transfer.upload(csv, faulty.url, FIELDS)
    assert len(faulty.requests) == 4
    for request in faulty.requests:
        assert posted(request)[-1] == ("file", csv.read_bytes(), "text/csv")


EXPIRED = base64.b64encode(b'{"expiration": "2026-11-01T10:00:00Z"}').decode()


@pytest.mark.parametrize(
    "refusal, fields, says, tries",
    [
        (s3_error(403, "AccessDenied", "Policy expired"), FIELDS, "expired: make a new one", 1),
        (s3_error(403, "AccessDenied"), [("policy", EXPIRED)], "POST expired at 2026-11-01", 1),
        (s3_error(403, "AccessDenied", "Policy check failed"), FIELDS, "does not keep to", 1),
        (s3_error(400, "EntityTooLarge"), FIELDS, "larger than the presigned POST allows", 1),
        (s3_error(403, "Hm", "s3cret+/= is wrong"), FIELDS, "HTTP 403 Forbidden; the pre", 1),
        (Answer(b"", 202), FIELDS, "HTTP 202 Accepted", 1),
        (Answer(b"", 303, {"Location": "/done"}), FIELDS, "303 .*success_action_redirect", 1),
        (Answer(b"", 307, {"Location": "/else"}), FIELDS, "307 .*: a POST is not sent else", 1),
        (Answer(b"", 308, {"Location": "/else"}), FIELDS, "308 .*: a POST is not sent else", 1),
        (Answer(b"", 503), FIELDS, "HTTP 503 Service Unavailable .6 tries", 6),
    ],
)
def test_a_refused_upload_keeps_the_file(server, csv, refusal, fields, says, tries):
    url = server.on("/bucket", refusal) + "?s3cret"
    with pytest.raises(UploadFailed, match=says) as failure:
        transfer.upload(csv, url, fields)
    assert str(failure.value).endswith(f"; the predictions are kept in {csv}")
    assert len(server.received) == tries
    assert "s3cret" not in str(failure.value)
    assert csv.exists()


def test_an_upload_that_the_server_does_not_read(faulty, csv, monkeypatch):
    monkeypatch.setattr(web, "ANSWER_TIMEOUT", 0.5)
    monkeypatch.setattr(transfer, "TRIES", 1)
    left = threading.Event()
    monkeypatch.setattr(faulty, "_answer", lambda connection: left.wait())
    csv.write_bytes(b"x" * 20_000_000)  # more than the system's buffers hold
    with pytest.raises(UploadFailed, match="not complete after"):
        transfer.upload(csv, faulty.url, FIELDS)
    left.set()
