import gzip
import json

import pytest

from numerai_predict import fetch
from numerai_predict.conftest import ROWS, Answer, s3_error
from numerai_predict.errors import DownloadFailed

QUERY = "?X-Amz-Signature=s3cret"


def good(live_features):
    return live_features["feature_a"].rank(pct=True, method="first").to_frame("prediction")


def test_a_model_from_a_presigned_url(run, pickled, server):
    model = pickled(good).read_bytes()
    done = run(server.on("/user/my%20model.pkl", Answer(model)) + QUERY, "--debug")
    assert done.code == 0, done.log
    assert (done.output_dir / "my_model.pkl").read_bytes() == model
    assert server.received[0].path.endswith(QUERY)
    assert f"{server.url}/user/my%20model.pkl" in done.log
    assert "s3cret" not in done.log


@pytest.mark.parametrize(
    "answers",
    [
        [Answer(status=500), Answer(status=503), Answer(b"whole body")],
        [Answer(status=429), Answer(b"whole body")],
        [Answer(b"whole", cut=5), Answer(b"whole body")],
        [Answer(gzip.compress(b"whole body"), headers={"Content-Encoding": "gzip"})],
        [Answer(status=302, headers={"Location": "/moved"})],
    ],
    ids=["5xx", "429", "truncated", "gzip", "redirect"],
)
def test_a_download_arrives_whole(server, tmp_path, answers):
    server.on("/moved", Answer(b"whole body"))
    target = tmp_path / "new" / "file"
    target.parent.mkdir()
    target.write_bytes(b"older and longer content")
    assert fetch.download(server.on("/file", *answers), target) == target
    assert target.read_bytes() == b"whole body"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    "answer, tries, says",
    [
        (s3_error(403, "AccessDenied", "Request has expired"), 1, "expired: make a new one"),
        (s3_error(403, "SignatureDoesNotMatch", "…"), 1, "quote it in shells"),
        (s3_error(404, "NoSuchKey"), 1, "HTTP 404 Not Found, NoSuchKey"),
        (Answer(b"busy", status=503), 5, "HTTP 503 Service Unavailable"),
        (Answer(b"short", cut=5), 3, "IncompleteRead"),
        (Answer(b"no gzip", headers={"Content-Encoding": "gzip"}), 3, "ContentDecodingError"),
    ],
    ids=["expired", "signature", "no-key", "busy", "truncated", "encoding"],
)
def test_a_download_that_fails_exits_7_and_leaves_nothing(run, server, answer, tries, says):
    done = run(server.on("/model.pkl", answer) + QUERY, "--debug")
    assert done.code == 7
    assert says in done.log
    assert "s3cret" not in done.log
    assert len(server.received) == tries
    assert list(done.output_dir.iterdir()) == []


def test_nobody_there(run, closed_port):
    done = run(f"{closed_port}/model.pkl{QUERY}", "--debug")
    assert done.code == 7
    assert "Connection refused" in done.log
    assert "s3cret" not in done.log


@pytest.mark.parametrize(
    "path, name",
    [
        ("/a/model.pkl", "model.pkl"),
        ("/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("/.bashrc", "bashrc"),
        ("/", "model.pkl"),
        ("/%00%0A;rm", "___rm"),
        ("/" + "x" * 300, "x" * 100),
    ],
)
def test_file_names_from_urls_are_harmless(server, tmp_path, path, name):
    url = server.on(path, Answer(b"x"))
    assert fetch.fetch_model(url, tmp_path) == tmp_path / name
    assert (tmp_path / name).read_bytes() == b"x"


@pytest.fixture
def numerapi_answers(server, monkeypatch):
    """NumerAPI, as far as it is asked: one GraphQL answer."""
    from numerapi import base_api

    def answer(status=200, **content):
        url = server.on("/graphql", Answer(json.dumps(content).encode(), status))
        monkeypatch.setattr(base_api, "API_TOURNAMENT_URL", url)

    return answer


def test_a_dataset_by_its_numerapi_name(run, pickled, server, numerapi_answers, tmp_path):
    content = (tmp_path / "live.parquet").read_bytes()
    numerapi_answers(data={"dataset": server.on("/bucket/7f3a", Answer(content)) + QUERY})
    done = run(pickled(good), "--dataset=v5.2/live.parquet", "--debug")
    assert done.code == 0, done.log
    assert (done.output_dir / "v5.2" / "live.parquet").read_bytes() == content
    assert json.loads(server.received[0].body)["variables"] == {
        "filename": "v5.2/live.parquet",
        "round": None,
        "tournament": 8,
    }
    assert f"Predicting on {ROWS} rows" in done.log
    assert "s3cret" not in done.log


@pytest.mark.parametrize(
    "answer, says",
    [
        ({"errors": [{"message": "no such dataset"}], "data": None}, "no such dataset"),
        ({"data": {"dataset": None}}, "empty answer"),
        ({"data": {"dataset": "file:///etc/passwd"}}, "empty answer"),
        ({"status": 502}, "HTTP 502 Bad Gateway"),
    ],
)
def test_a_dataset_that_numerapi_does_not_give(numerapi_answers, tmp_path, answer, says):
    numerapi_answers(**answer)
    with pytest.raises(DownloadFailed, match=f"dataset v5.2/x.parquet .*{says}"):
        fetch.fetch_dataset("v5.2/x.parquet", tmp_path)


def test_a_local_file_wins_over_a_dataset_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v5.2").mkdir()
    (tmp_path / "v5.2" / "live.parquet").touch()
    assert str(fetch.fetch_dataset("v5.2/live.parquet", tmp_path)) == "v5.2/live.parquet"


def test_downloaded_data_that_is_no_parquet_is_the_platforms_fault(run, pickled, server):
    done = run(pickled(good), "--dataset", server.on("/live.parquet", Answer(b"<html>")))
    assert done.code == 7
    assert "cannot be read as parquet" in done.log
