from __future__ import annotations

import json
import sys

import pandas as pd
import pytest

from numerai_predict import cli, manifest
from numerai_predict.conftest import ROWS, Answer, s3_error
from numerai_predict.errors import UsageError

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


def good(live_features):
    ranks = live_features["feature_a"].rank(pct=True, method="first")
    return ranks.to_frame("prediction")


def asleep(live_features):
    import time

    time.sleep(1000)


@pytest.fixture
def written(tmp_path):
    def write(*entries: dict) -> str:
        path = tmp_path / "manifest.jsonl"
        path.write_text("\n\n".join(map(json.dumps, entries)))
        return str(path)

    return write


@pytest.mark.parametrize(
    "said",
    [
        {"--index": "1"},
        {"JOB_COMPLETION_INDEX": "1"},
        {"AWS_BATCH_JOB_ARRAY_INDEX": "1"},
        {"SLURM_ARRAY_TASK_ID": "1"},
        {"NUMERAI_PREDICT_TASK_SLOT": "1"},
    ],
    ids=lambda said: next(iter(said)),
)
def test_each_engine_says_which_model_is_meant(run, pickled, written, said):
    given = written(
        {"name": "other", "model": "/gone/model.pkl"},
        {"name": "this", "python": MINOR, "model": str(pickled(good))},
    )
    flags = [f"--index={said['--index']}"] if "--index" in said else []
    env = {} if flags else said
    done = run("", f"--manifest={given}", *flags, env=env)
    assert done.code == 0, done.log
    assert (done.result["entry"], done.result["rows"]) == ("this", ROWS)


def test_an_index_that_is_given_wins(run, pickled, written):
    given = written({"name": "this", "model": str(pickled(good))})
    done = run("", f"--manifest={given}", "--index=0", env={"JOB_COMPLETION_INDEX": "7"})
    assert done.code == 0, done.log


def test_the_node_that_swarm_names_for_slot_0_is_the_first_model(monkeypatch):
    monkeypatch.setenv("NUMERAI_PREDICT_TASK_SLOT", "q9zx5dq6k7ij8tz5kxuv0s4ea")
    assert manifest.index() == 0


def test_results_are_named_by_the_manifest(run, pickled, written, tmp_path):
    given = written({"name": "a.b", "model": str(pickled(good))}, {"name": "c", "model": "/gone"})
    results = tmp_path / "results"
    results.mkdir()
    assert run("", f"--manifest={given}", "--index=0", f"--result={results}").code == 0
    assert run("", f"--manifest={given}", "--index=1", f"--result={results}").code == 2
    found = {path.name: json.loads(path.read_text())["code"] for path in results.iterdir()}
    assert found == {"a.b.json": 0, "c.json": 2}


def test_the_result_on_standard_output_is_one_line(run, pickled, written):
    given = written({"name": "a", "model": str(pickled(good))})
    done = run("", f"--manifest={given}", "--index=0", "--result=-")
    (line,) = done.printed.splitlines()
    assert json.loads(line)["rows"] == ROWS


def test_limits_are_the_lines_unless_a_flag_is_given(run, pickled, written):
    given = written(
        {"name": "a", "model": str(pickled(asleep)), "limits": {"memory": "3GB", "timeout": "1"}}
    )
    done = run("", f"--manifest={given}", "--index=0", "--memory=2GB")
    assert done.code == 4
    assert done.result["memory_limit"] == 2 << 30
    assert "limit_exceeded" in done.log


def test_references_name_what_the_container_has(run, pickled, written, server, tmp_path):
    url = server.on("/model.pkl", Answer(pickled(good).read_bytes()))
    post = server.on("/post", Answer(status=204))
    (tmp_path / "model-url").write_text(f"{url}?X-Amz-Signature=s3cret-1\n")
    (tmp_path / "fields").write_text("key=a&policy=s3cret-2\n")
    given = written(
        {
            "name": "a",
            "model": {"secret": "model-url"},
            "post_url": {"env": "POST_URL"},
            "post_data": {"file": str(tmp_path / "fields")},
        }
    )
    env = {"NUMERAI_PREDICT_SECRETS": str(tmp_path), "POST_URL": f"{post}?s3cret-3"}
    done = run("", f"--manifest={given}", "--index=0", env=env)
    assert done.code == 0, done.log
    assert [each.path.partition("?")[0] for each in server.received] == ["/model.pkl", "/post"]
    assert b"s3cret-2" in server.received[1].body
    assert "s3cret" not in done.log


@pytest.mark.parametrize("how", ["input", "address"])
def test_a_manifest_need_not_be_a_file(run, pickled, written, server, how):
    text = open(written({"name": "a", "model": str(pickled(good))})).read()
    if how == "input":
        done = run("", "--manifest=-", "--index=0", input=text)
    else:
        url = server.on("/round.jsonl", Answer(text.encode()))
        done = run("", f"--manifest={url}?X-Amz-Signature=s3cret", "--index=0")
        assert "s3cret" not in done.log
    assert done.code == 0, done.log
    assert not list(done.output_dir.glob("**/*.jsonl"))


def test_a_manifest_that_cannot_be_had_is_the_platforms_fault(run, server):
    url = server.on("/round.jsonl", s3_error(403, "AccessDenied"))
    assert run("", f"--manifest={url}", "--index=0").code == 7


@pytest.mark.parametrize(
    "entry, flags, says",
    [
        ({}, ["--index=3"], "has 1 models, and none with index 3"),
        ({}, ["--index=-1"], "the index is a number from 0 on, not '-1'"),
        ({}, [], "--manifest needs --index, or an engine"),
        ({"name": ""}, ["--index=0"], "line 1 of the manifest: the name '' cannot be a file's"),
        ({"name": "../a"}, ["--index=0"], "cannot be a file's"),
        ({"python": "3.2"}, ["--index=0"], "a is for Python 3.2; this is Python 3."),
        ({"modle": "s3cret"}, ["--index=0"], "unknown fields: modle"),
        ({"model": {"env": "GONE"}}, ["--index=0"], "there is no environment variable GONE"),
        ({"model": {"secret": "gone"}}, ["--index=0"], "secret gone cannot be read: No such file"),
        ({"model": ["s3cret"]}, ["--index=0"], "model is neither a text nor a reference"),
        ({"limits": {"memory": "lots"}}, ["--index=0"], "--memory: 'lots' is no size"),
        ({"limits": {"preset": "all"}}, ["--index=0"], "--limits: choose from none, numerai"),
        ({"limits": {"time": "1"}}, ["--index=0"], "limits holds preset, memory and timeout"),
    ],
)
def test_what_is_of_no_use_is_the_callers_fault(written, capsys, entry, flags, says):
    given = written({"name": "a", "model": __file__, **entry})
    assert cli.main([f"--manifest={given}", *flags]) == 2
    log = capsys.readouterr().err
    assert says in log
    assert "s3cret" not in log


def test_an_index_without_a_manifest_is_a_mistake(run, pickled):
    assert run(pickled(good), "--index=0").code == 2


def test_empty_lines_do_not_count():
    text = '\n{"name": "a"}\n\n{"name": "b"}\n'
    assert [manifest.entry(text, number)["entry"] for number in (0, 1)] == ["a", "b"]
    with pytest.raises(UsageError, match="line 4 of the manifest: no JSON"):
        manifest.entry('\n{"name": "a"}\n\n{"name": \n', 1)


def test_predictions_are_those_of_a_single_run(run, pickled, written, live):
    given = written({"name": "a", "model": str(pickled(good))})
    done = run("", f"--manifest={given}", "--index=0")
    pd.testing.assert_frame_equal(pd.read_csv(done.csv, index_col="id"), good(live))
