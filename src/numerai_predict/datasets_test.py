"""Models and datasets by path, URL and name; NumerAPI is a server of the tests' own."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from numerai_predict import datasets
from numerai_predict.conftest import Answer
from numerai_predict.errors import DownloadFailed, UsageError

QUERY = "?X-Amz-Signature=s3cret"
NAME = "v5.2/live.parquet"
BUCKET = "/bucket/7f3a"


@pytest.mark.parametrize(
    "path, name",
    [
        ("/a/model.pkl", "model.pkl"),
        ("/a/my%20model.pkl", "my_model.pkl"),
        ("/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("/.bashrc", "bashrc"),
        ("/", "model.pkl"),
        ("/%00%0A;rm", "___rm"),
        ("/" + "x" * 300, "x" * 100),
    ],
)
def test_file_names_from_urls_are_harmless(server, tmp_path, path, name):
    url = server.on(path, Answer(b"x")) + QUERY
    assert datasets.fetch_model(url, tmp_path) == tmp_path / name
    assert (tmp_path / name).read_bytes() == b"x"


def test_local_paths_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(datasets.fetch_model("a/model.pkl", tmp_path)) == "a/model.pkl"
    (tmp_path / "v5.2").mkdir()
    (tmp_path / NAME).touch()
    assert str(datasets.fetch_dataset(NAME, tmp_path)) == NAME
    with pytest.raises(UsageError, match="./gone.parquet does not exist"):
        datasets.fetch_dataset("./gone.parquet", tmp_path)


class Numerapi:
    """NumerAPI, as far as it is asked."""

    def __init__(self, server) -> None:
        self._server = server
        self.dataset = server.on(BUCKET, Answer(b"content")) + QUERY
        self.round: object = 1234
        self.answers = None
        server.answers["/graphql"] = self  # a list of answers whose last one stays

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Answer:
        question = json.loads(self._server.received[-1].body)
        if self.answers is not None:
            return self.answers
        if "rounds(" in question["query"]:
            assert question["variables"] == {"tournament": 8}
            return reply(data={"rounds": [{"number": self.round}]})
        assert question["variables"] == {"filename": NAME, "round": None, "tournament": 8}
        return reply(data={"dataset": self.dataset})

    @property
    def downloads(self) -> int:
        return [request.path for request in self._server.received].count(BUCKET + QUERY)


def reply(status: int = 200, **content: object) -> Answer:
    return Answer(json.dumps(content).encode(), status)


@pytest.fixture
def numerapi(server, monkeypatch) -> Numerapi:
    monkeypatch.setenv("NUMERAI_API_URL", server.url + "/graphql")
    return Numerapi(server)


def test_a_dataset_by_its_name(numerapi, tmp_path, caplog):
    for _ in range(2):
        assert datasets.fetch_dataset(NAME, tmp_path) == tmp_path / NAME
    assert (tmp_path / NAME).read_bytes() == b"content"
    assert numerapi.downloads == 2
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    "answer, says",
    [
        (reply(errors=[{"message": "no such dataset"}], data=None), "no such dataset"),
        (reply(errors={"detail": "no token"}), "no token"),
        (reply(errors=[{}]), "errors without a message"),
        (reply(data={"dataset": None}), "empty answer"),
        (reply(data={"dataset": "file:///etc/passwd"}), "empty answer"),
        (reply(data=[]), "empty answer"),
        (reply(502), "HTTP 502 Bad Gateway"),
        (Answer(b"<html>"), "is no JSON"),
    ],
)
def test_a_dataset_that_numerapi_does_not_give(numerapi, tmp_path, answer, says):
    numerapi.answers = answer
    with pytest.raises(DownloadFailed, match=f"dataset v5.2/live.parquet .*{says}"):
        datasets.fetch_dataset(NAME, tmp_path)


@pytest.fixture
def cached(numerapi, tmp_path):
    """Fetches the dataset with a cache: its path and its content."""

    def fetch() -> bytes:
        path = datasets.fetch_dataset(NAME, tmp_path / "out", tmp_path / "cache")
        assert path == tmp_path / "cache" / f"round-{numerapi.round}" / NAME
        return path.read_bytes()

    return fetch


def test_a_cached_dataset_is_used_during_its_round(cached, numerapi):
    assert cached() == cached() == b"content"
    assert numerapi.downloads == 1


def test_a_new_round_has_new_data_and_ends_the_old(cached, numerapi, server, tmp_path):
    cached()
    (tmp_path / "cache" / "round-of-applause").mkdir()
    numerapi.round = 1235
    server.on(BUCKET, Answer(b"newer"))
    assert cached() == b"newer"
    left = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert left == ["round-1235", "round-of-applause"]


@pytest.mark.parametrize(
    "file, content",
    [
        (NAME, b"conten"),
        (NAME, b"CONTENT"),
        (f"{NAME}.json", b"{}"),
        (f"{NAME}.json", b"{"),
        (f"{NAME}.json", None),
        (NAME, None),
    ],
)
def test_what_is_not_whole_is_downloaded_again(cached, numerapi, tmp_path, file, content):
    cached()
    path: Path = tmp_path / "cache" / "round-1234" / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert cached() == cached() == b"content"
    assert numerapi.downloads == 2


@pytest.mark.parametrize("answers", [reply(500), reply(data={"rounds": []})])
def test_without_a_round_nothing_is_cached(numerapi, tmp_path, monkeypatch, caplog, answers):
    monkeypatch.setattr(datasets, "dataset_url", lambda name: numerapi.dataset)
    numerapi.answers = answers
    path = datasets.fetch_dataset(NAME, tmp_path / "out", tmp_path / "cache")
    assert path == tmp_path / "out" / NAME
    assert not (tmp_path / "cache").exists()
    assert "Not using the cache, the current round is not known" in caplog.text


def test_a_failed_download_is_not_cached(cached, numerapi, server):
    server.on(BUCKET, Answer(b"", 404))
    with pytest.raises(DownloadFailed):
        cached()
    server.on(BUCKET, Answer(b"content"))
    assert cached() == b"content"


def test_of_many_runs_one_downloads(cached, numerapi):
    contents: list[bytes] = []
    threads = [threading.Thread(target=lambda: contents.append(cached())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents == [b"content"] * 8
    assert numerapi.downloads == 1


def test_a_cache_that_cannot_be_written(numerapi, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(UsageError, match="cannot use the cache in .*/cache: Not a directory"):
        datasets.fetch_dataset(NAME, tmp_path, tmp_path / "cache")


ADDRESS = "/live/data.parquet"


@pytest.fixture
def cached_url(server, tmp_path):
    """Fetches ADDRESS, signed anew, with a cache."""
    signatures = iter(range(100))

    def fetch() -> bytes:
        url = f"{server.url}{ADDRESS}?X-Amz-Signature={next(signatures)}"
        return datasets.fetch_dataset(url, tmp_path / "out", tmp_path / "cache").read_bytes()

    return fetch


@pytest.mark.parametrize(
    "validator, other",
    [
        ({"ETag": '"1"'}, {"ETag": '"2"'}),
        (
            {"Last-Modified": "Wed, 25 Nov 2026 10:00:00 GMT"},
            {"Last-Modified": "Wed, 25 Nov 2026 10:00:07 GMT"},
        ),
    ],
)
def test_a_cached_url_is_downloaded_again_when_it_changed(cached_url, server, validator, other):
    server.on(ADDRESS, Answer(b"content", headers=validator))
    assert cached_url() == cached_url() == b"content"
    server.on(ADDRESS, Answer(b"newer", headers=other))
    assert cached_url() == cached_url() == b"newer"


def test_what_a_server_does_not_vouch_for_is_downloaded_every_time(cached_url, server):
    for content in (b"one", b"two"):
        server.on(ADDRESS, Answer(content, headers={"ETag": 'W/"weak"'}))
        assert cached_url() == content


@pytest.mark.parametrize("content", [b"CONTENT", b"", None])
def test_a_cached_url_that_is_not_whole_is_downloaded_again(cached_url, server, tmp_path, content):
    server.on(ADDRESS, Answer(b"content", headers={"ETag": '"1"'}))
    cached_url()
    (path,) = tmp_path.glob("cache/url-*/data.parquet")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert cached_url() == b"content"


def test_of_many_runs_one_downloads_a_url(cached_url, server):
    server.on(ADDRESS, Answer(b"content", headers={"ETag": '"1"'}))
    contents: list[bytes] = []
    threads = [threading.Thread(target=lambda: contents.append(cached_url())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents == [b"content"] * 8
    given = [request.headers.get("If-None-Match") for request in server.received]
    assert given == [None, *['"1"'] * 7]


def test_urls_that_nobody_uses_leave_the_cache(cached_url, server, tmp_path):
    server.on(ADDRESS, Answer(b"content"))
    old = tmp_path / "cache" / "url-0123456789abcdef"
    other = tmp_path / "cache" / "mine"
    for folder in (old, other):
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    cached_url()
    assert other.exists() and not old.exists()
