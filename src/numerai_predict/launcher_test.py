"""Whole runs over HTTP: what is fetched, given to the model and handed in."""

import json
from urllib.parse import urlencode

import pandas as pd
import pytest

from numerai_predict.conftest import ROWS, Answer, s3_error

QUERY = "?X-Amz-Signature=s3cret"


def good(live_features):
    return live_features["feature_a"].rank(pct=True, method="first").to_frame("prediction")


def benchmark(live_features, live_benchmark_models):
    return live_benchmark_models["v52_lgbm"].to_frame("prediction")


@pytest.fixture
def served(server, tmp_path, live):
    """Flags for the live data and the benchmark models at presigned addresses, of one name."""

    def parquet(name):
        content = (tmp_path / name).read_bytes()
        return server.on(f"/{name.partition('.')[0]}/data.parquet", Answer(content)) + QUERY

    return [
        f"--dataset={parquet('live.parquet')}",
        f"--benchmarks={parquet('live_benchmark_models.parquet')}",
    ]


def test_presigned_addresses_bring_all_and_take_the_predictions(run, pickled, server, served):
    model = server.on("/user/my%20model.pkl", Answer(pickled(benchmark).read_bytes())) + QUERY
    post = server.on("/bucket", Answer(status=204)) + QUERY
    fields = urlencode({"key": "of/user.csv", "policy": "s3cret+/="})
    done = run(model, *served, f"--post_url={post}", f"--post_data={fields}", "--debug")
    assert done.code == 0, done.log
    assert len(pd.read_csv(done.csv)) == ROWS
    assert (done.output_dir / "my_model.pkl").exists()
    (upload,) = [request for request in server.received if request.method == "POST"]
    assert done.csv.read_bytes() in upload.body
    assert {"download", "upload"} <= set(done.result["phases"])
    assert "s3cret" not in done.log + json.dumps(done.result)


def test_files_of_one_name_do_not_meet(run, pickled, served):
    done = run(pickled(benchmark), *served)
    assert done.code == 0, done.log
    assert {path.parent.name for path in done.output_dir.rglob("data.parquet")} == {
        "dataset",
        "benchmarks",
    }


@pytest.mark.parametrize(
    "answer, says",
    [
        (s3_error(403, "AccessDenied"), "AccessDenied"),
        (s3_error(404, "NoSuchKey"), "there is no such file in the bucket"),
        (Answer(b"<html>"), "cannot be read as parquet"),
    ],
)
def test_live_data_that_is_not_to_be_had(run, pickled, server, answer, says):
    done = run(pickled(good), f"--dataset={server.on('/live.parquet', answer)}{QUERY}")
    assert done.code == 7, done.log
    assert says in done.log
    assert "s3cret" not in done.log
    assert done.result["name"] == "download_failed"


def test_benchmarks_matter_only_to_models_that_take_them(run, pickled, server):
    gone = f"--benchmarks={server.on('/gone', s3_error(404, 'NoSuchKey'))}"
    assert run(pickled(good), gone).code == 0
    done = run(pickled(benchmark), gone)
    assert done.code == 7
    assert "NoSuchKey" in done.log


def test_a_model_that_cannot_be_had(run, closed_port):
    env = {"NUMERAI_TRANSFER_SECONDS": "1"}
    done = run(f"{closed_port}/model.pkl{QUERY}", "--debug", env=env)
    assert done.code == 7
    assert "Connection refused" in done.log
    assert "s3cret" not in done.log
    assert "--model $PWD/model.pkl" in done.log


def test_predictions_stay_where_the_upload_fails(run, pickled, server):
    post = server.on("/bucket", s3_error(403, "AccessDenied", "Policy expired")) + QUERY
    done = run(pickled(good), f"--post_url={post}", "--post_data=key=s3cret", "--debug")
    assert done.code == 8
    assert f"the predictions are kept in {done.csv}" in done.log
    assert done.result["output"] == str(done.csv)
    assert "s3cret" not in done.log


def test_a_dataset_by_its_numerapi_name(run, pickled, server, tmp_path):
    content = (tmp_path / "live.parquet").read_bytes()
    url = server.on("/bucket/7f3a", Answer(content)) + QUERY
    api = server.on("/graphql", Answer(json.dumps({"data": {"dataset": url}}).encode()))
    done = run(pickled(good), "--dataset=v5.2/live.parquet", env={"NUMERAI_API_URL": api})
    assert done.code == 0, done.log
    assert (done.output_dir / "v5.2" / "live.parquet").read_bytes() == content
    assert "s3cret" not in done.log


def test_predictions_that_numerai_would_refuse_are_not_handed_in(run, pickled, server):
    def constant(live_features):
        return pd.DataFrame({"prediction": 0.5}, live_features.index)

    post = server.on("/bucket", Answer(status=204))
    done = run(pickled(constant), f"--post_url={post}", "--post_data=key=x")
    assert done.code == 3
    assert "invalid_predictions: invalid_submission_values: " in done.log
    assert not done.has_csv
    assert server.received == []
