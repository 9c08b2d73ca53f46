"""Presigned addresses that boto3 made, as users of numerai-predict make them, on a real S3 server.

The server is Ceph's gateway: it checks signatures (also of a POST's policy), when they end, and that
a form keeps to its policy (key, length, no other fields). It does not check what only AWS has:
temporary credentials (ExpiredToken), regions, and clocks that are too far apart. For an address that
has expired it says `AccessDenied` without AWS's sentence "Request has expired".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import cloudpickle
import pandas as pd
import pytest

import ceph

KEYS = ("ACCESSKEY", "s3cretkey")
BUCKET = "submissions"
LIVE = pd.DataFrame(
    {"era": "X", "feature_a": [2, 0, 1, 3]},
    index=pd.Index(["n1", "n2", "n3", "n4"], name="id"),
)

Boto3 = Callable[..., Any]
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ceph.Ceph]:
    if missing := ceph.missing():
        pytest.skip(f"no {', '.join(missing)} here; Debian has them in {ceph.PACKAGES}")
    with ceph.Ceph(tmp_path_factory.mktemp("ceph")) as s3:
        s3.add_user(*KEYS)
        yield s3


@pytest.fixture(scope="module")
def boto3(
    s3: ceph.Ceph, environment: Callable[..., AbstractContextManager[Path]]
) -> Iterator[Boto3]:
    """Calls a method of boto3's S3 client, with the locked boto3."""
    with environment("3rdparty/python/tools/s3.txt") as python:

        def call(method: str, **arguments: object) -> Any:
            argv = [str(python), "tests/presign.py", s3.url, *KEYS]
            calls = json.dumps([[method, arguments]])
            done = subprocess.run(argv, input=calls, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)[0]

        yield call


def first_feature(live_features):
    return live_features["feature_a"].rank(pct=True).to_frame("prediction")


@pytest.fixture(scope="module")
def bucket(boto3: Boto3, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Has the model and the live data."""
    boto3("create_bucket", Bucket=BUCKET)
    folder = tmp_path_factory.mktemp("user")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (folder / "model 1.pkl").write_bytes(cloudpickle.dumps(first_feature))
    LIVE.to_parquet(folder / "live.parquet")
    for path in folder.iterdir():
        boto3("upload_file", Filename=str(path), Bucket=BUCKET, Key=f"of user/{path.name}")
    return BUCKET


@pytest.fixture(scope="module")
def address(boto3: Boto3, bucket: str) -> Callable[..., str]:
    """The presigned GET of a file."""

    def presign(name: str, expires_in: int = 600) -> str:
        params = {"Bucket": bucket, "Key": f"of user/{name}"}
        return boto3(
            "generate_presigned_url",
            ClientMethod="get_object",
            Params=params,
            ExpiresIn=expires_in,
        )

    return presign


@pytest.fixture
def form(boto3: Boto3, bucket: str) -> Callable[..., tuple[str, dict[str, str]]]:
    """The presigned POST of out.csv: its address and its fields."""

    def presign(
        conditions: list[list[object]] | None = None, expires_in: int = 600
    ) -> tuple[str, dict[str, str]]:
        post = boto3(
            "generate_presigned_post",
            Bucket=bucket,
            Key="of user/out.csv",
            Conditions=conditions,
            ExpiresIn=expires_in,
        )
        return post["url"], post["fields"]

    return presign


@pytest.fixture(scope="module")
def live(address: Callable[..., str]) -> str:
    return address("live.parquet")


@pytest.fixture
def predict(tmp_path: Path, live: str) -> Callable[..., Done]:
    """Runs the predictor on the bucket's live data."""

    def predict(model: str, *post: object, dataset: str = live, flags: Sequence[str] = ()) -> Done:
        argv = [sys.executable, "-m", "numerai_predict", "--debug", f"--output_dir={tmp_path}"]
        argv += [f"--model={model}", f"--dataset={dataset}", *flags]
        if post:
            url, fields = post
            argv += [f"--post_url={url}", f"--post_data={urlencode(fields)}"]  # type: ignore[arg-type]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
        for secret in ("X-Amz-", "x-amz-", KEYS[0], "policy=", "Signature="):
            assert secret not in done.stderr + done.stdout
        return done

    return predict


def test_the_model_comes_from_s3_and_the_predictions_go_there(
    predict, address, form, boto3, bucket, tmp_path
):
    done = predict(address("model 1.pkl"), *form([["content-length-range", 10, 1000]]))
    assert done.returncode == 0, done.stderr
    (csv,) = tmp_path.glob("live_predictions-*.csv")
    assert boto3("get_object", Bucket=bucket, Key="of user/out.csv") == csv.read_text()
    predictions = pd.read_csv(csv, index_col="id")
    pd.testing.assert_frame_equal(predictions, first_feature(LIVE))


def test_cached_data_is_downloaded_again_when_it_changed(predict, address, boto3, bucket, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()

    def log(data: pd.DataFrame | None = None) -> str:
        if data is not None:
            data.to_parquet(tmp_path / "cached.parquet")
            file = str(tmp_path / "cached.parquet")
            boto3("upload_file", Filename=file, Bucket=bucket, Key="of user/cached.parquet")
        # Signed anew each time.
        presigned = address("cached.parquet", expires_in=600 + len(list(cache.rglob("*"))))
        done = predict(address("model 1.pkl"), dataset=presigned, flags=[f"--cache_dir={cache}"])
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "Downloaded cached.parquet" in log(LIVE)
    again = log()
    assert "cached.parquet is still the server's" in again
    assert "Downloaded cached.parquet" not in again
    assert "Downloaded cached.parquet" in log(LIVE[:3])


def changed(text: str) -> str:
    """The same with its last hexadecimal digit changed."""
    return text[:-1] + ("0" if text[-1] != "0" else "1")


def test_an_address_that_has_expired(predict, address):
    url = address("model 1.pkl", expires_in=1)
    time.sleep(2)
    done = predict(url)
    assert done.returncode == 7, done.stderr
    assert "HTTP 403 Forbidden, AccessDenied (the presigned URL expired at 20" in done.stderr


def test_an_address_whose_signature_is_wrong(predict, address):
    done = predict(changed(address("model 1.pkl")))
    assert done.returncode == 7, done.stderr
    assert "SignatureDoesNotMatch (the URL was changed after signing, or is cut off" in done.stderr


def test_an_address_that_was_changed_to_another_file(predict, address):
    done = predict(address("model 1.pkl").replace("model%201.pkl", "live.parquet"))
    assert done.returncode == 7, done.stderr
    assert "SignatureDoesNotMatch" in done.stderr


def test_an_address_of_no_file(predict, address):
    done = predict(address("gone.pkl"))
    assert done.returncode == 7, done.stderr
    assert "HTTP 404 Not Found, NoSuchKey (there is no such file in the bucket)" in done.stderr


@pytest.fixture
def refused(predict, address, tmp_path) -> Callable[..., str]:
    """Runs the predictor, whose upload must fail: what it says about that."""

    def refused(url: str, fields: dict[str, str]) -> str:
        done = predict(address("model 1.pkl"), url, fields)
        assert done.returncode == 8, done.stderr
        (csv,) = tmp_path.glob("live_predictions-*.csv")
        assert f"the predictions are kept in {csv}" in done.stderr
        return done.stderr

    return refused


def test_a_form_that_has_expired(refused, form):
    post = form(expires_in=1)
    time.sleep(2)
    assert "AccessDenied: Policy expired (the presigned POST expired at 20" in refused(*post)


def test_a_form_whose_policy_allows_less(refused, form):
    says = refused(*form([["content-length-range", 1, 20]]))
    assert "EntityTooLarge (the file is larger than the presigned POST allows)" in says


@pytest.mark.parametrize("other", [{"key": "of another/out.csv"}, {"acl": "public-read"}])
def test_a_form_that_does_not_keep_to_its_policy(refused, form, other):
    url, fields = form()
    assert "does not keep to the policy of the presigned POST" in refused(url, {**fields, **other})


def test_a_form_whose_signature_is_wrong(refused, form):
    url, fields = form()
    fields["x-amz-signature"] = changed(fields["x-amz-signature"])
    assert "HTTP 403 Forbidden, AccessDenied (the presigned POST was changed" in refused(
        url, fields
    )
