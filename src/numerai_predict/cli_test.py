import gzip
import json
import re
import signal
import subprocess
import sys

import pandas as pd
import pytest

from numerai_predict import __version__, cli
from numerai_predict.conftest import ENVIRONMENT, ROWS, Answer, command


def good(live_features):
    ranks = live_features["feature_a"].rank(pct=True, method="first")
    return ranks.to_frame("prediction")


def broken(live_features):
    raise KeyError("feature_gone")


def test_the_command_predicts_and_writes_a_csv_file(run, pickled, live):
    done = run(pickled(good))
    assert done.code == 0, done.log
    assert re.fullmatch(r"live_predictions-[0-9a-f]{12}\.csv", done.csv.name)
    assert done.csv.read_text().startswith("id,prediction\n")
    pd.testing.assert_frame_equal(pd.read_csv(done.csv, index_col="id"), good(live))
    assert done.printed == ""
    assert (
        f"Wrote {ROWS} predictions to {done.csv}\n    id,prediction\n    {live.index[0]}"
        in done.log
    )
    assert re.search(
        rf"Done: {ROWS} rows in .*start .* s, load .* s, predict .* s, valid", done.log
    )


@pytest.mark.parametrize("flag", ["--help", "--version", "--no-such-flag"])
def test_answers_about_flags_need_no_heavy_import(flag):
    code = (
        "import sys; from numerai_predict import cli\n"
        f"try: cli.main(['--model=gone', '{flag}'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'pandas', 'numpy', 'pyarrow', 'urllib3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_gives_every_flag_its_default(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--help"])
    assert exit.value.code == 0
    sections = re.split(r"\n  (?=-)", capsys.readouterr().out.partition("\noptions:")[2])
    texts = {section.split()[0]: " ".join(section.split()) for section in sections if section}
    defaults = {
        flag: match[0]
        for flag, text in texts.items()
        if (match := re.search(r"\((required|default)[^()]*\)", text))
    }
    assert defaults == {
        "--model": "(required)",
        "--dataset": "(default: v5.2/live.parquet)",
        "--benchmarks": "(default: v5.2/live_benchmark_models.parquet)",
        "--output_dir": "(default: /tmp)",
        "--cache_dir": "(default: downloads are not reused)",
        "--post_url": "(default: no upload)",
        "--post_data": "(default: none)",
        "--manifest": "(default: none)",
        "--index": "(default: as Kubernetes, AWS Batch, Slurm or Swarm say in the environment)",
        "--limits": "(default: none)",
        "--memory": "(default: as --limits)",
        "--timeout": "(default: as --limits)",
        "--result": "(default: none)",
        "--inspect": "(default: off)",
        "--fetch": "(default: off)",
        "--require-sandbox,": "(default: off)",
        "--debug": "(default: off)",
    }


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith(f"numerai_predict {__version__} (Python 3.")


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--model=/gone/model.pkl"], r'/gone/model\.pkl does not exist.* -v "\$PWD:\$PWD"'),
        (["--model=/"], "/ is not a file"),
        (["--model=s3://bucket/model.pkl?s3cret"], "presign"),
        (["--model=@/gone/s3cret-file"], "cannot be read: No such file"),
        (["--model=@-", "--post_data=@-"], "only one flag can be read from standard input"),
        (["--dataset=/gone/live.parquet"], "--dataset /gone/live.parquet does not exist"),
        (["--benchmarks=./gone.parquet"], "--benchmarks ./gone.parquet does not exist"),
        (["--output_dir=/gone"], "--output_dir /gone does not exist"),
        (["--output_dir=/dev/null"], "--output_dir /dev/null is not a folder"),
        (["--cache_dir=/gone"], "--cache_dir /gone does not exist"),
        (["--post_url=http://host/"], "--post_url needs --post_data"),
        (["--post_data=key=s3cret"], "--post_data needs --post_url"),
        (["--post_url=host", "--post_data=key=s3cret"], "--post_url must begin with http"),
        (["--post_url=http://host/", "--post_data=s3cret"], "--post_data must be a url-encoded"),
        (["--memory=lots"], "'lots' is no size such as 3GB or 512MB"),
        (["--timeout=soon"], "'soon' is no time such as"),
        (["--limits=mine"], "invalid choice: 'mine'"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["--post_dat4=key=s3cret", "s3cret=cut"], "unrecognized arguments: --post_dat4$"),
    ],
)
def test_usage_errors_exit_2_and_say_what_is_wrong(tmp_path, capsys, flags, says):
    (tmp_path / "model.pkl").touch()
    given = [f"--model={tmp_path}/model.pkl", f"--result={tmp_path}/result.json", *flags]
    assert cli.main(given) == 2
    log = capsys.readouterr().err
    assert re.search(says, log, re.MULTILINE), log
    assert "s3cret-" in log or "s3cret" not in log
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["code"], result["name"]) == (2, "usage")
    assert re.search(says, result["message"])


def test_a_missing_model_flag_is_a_usage_error(capsys):
    assert cli.main([]) == 2
    assert "--model" in capsys.readouterr().err


def test_an_output_folder_that_is_not_writable(tmp_path, capsys, monkeypatch):
    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr(cli.os, "access", lambda path, mode: not mode & cli.os.W_OK)
    (tmp_path / "model.pkl").touch()
    assert cli.main([f"--model={tmp_path}/model.pkl"]) == 2
    assert "is not writable" in capsys.readouterr().err


def test_a_failure_has_one_message_and_says_how_to_debug_it(run, pickled, tmp_path):
    done = run(pickled(broken))
    assert done.code == 1
    assert "ERROR model_error: the model raised KeyError: 'feature_gone'" in done.log
    assert "in broken" in done.log  # the model's own traceback, but not ours
    assert "numerai_predict/model.py" not in done.log
    image = f"numerai_predict_py_{sys.version_info.major}_{sys.version_info.minor}"
    assert (
        f'    docker run -i --rm -v "$PWD:$PWD" {image} --debug --model $PWD/model.pkl '
        "--dataset $PWD/live.parquet --benchmarks $PWD/live_benchmark_models.parquet\n"
    ) in done.log
    assert done.result["name"] == "model_error"
    assert done.result["message"] == "the model raised KeyError: 'feature_gone'"
    assert "in broken" in done.result["details"]


def test_debug_shows_our_traceback_and_debug_lines(run, pickled):
    done = run(pickled(broken), "--debug")
    assert done.code == 1
    assert "launcher.py" in done.log
    assert " DEBUG " in done.log


def test_an_unforeseen_error_is_ours(tmp_path, capsys, monkeypatch):
    def fail(options, spawned, outcome):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(cli, "_run", fail)
    monkeypatch.setattr(cli.secrecy, "hide", lambda: None)
    monkeypatch.setattr(cli, "Spawned", lambda: None)
    (tmp_path / "model.pkl").touch()
    previous = signal.getsignal(signal.SIGTERM)
    try:
        assert cli.main([f"--model={tmp_path}/model.pkl", "--debug"]) == 70
    finally:
        signal.signal(signal.SIGTERM, previous)
    log = capsys.readouterr().err
    assert "internal_error" in log and "ZeroDivisionError: of ours" in log


@pytest.mark.parametrize("how", ["file", "input", "environment"])
def test_secrets_need_not_be_arguments(run, pickled, tmp_path, how):
    model = pickled(broken)
    secret = tmp_path / "secret"
    secret.write_text(f"{model}\n")
    if how == "file":
        done = run(f"@{secret}")
    elif how == "input":
        done = run("@-", input=secret.read_text())
    else:
        done = run("", env={"NUMERAI_PREDICT_MODEL": str(model)})
    assert "the model raised KeyError" in done.log


def test_the_result_tells_what_happened(run, pickled):
    done = run(pickled(good), "--limits=numerai")
    result = done.result
    assert (result["code"], result["name"], result["rows"]) == (0, "ok", ROWS)
    assert result["output"] == str(done.csv)
    assert set(result["phases"]) == {"start", "load", "predict", "validate"}
    assert 20 << 20 < result["peak_memory"] < result["memory_limit"] == 4 << 30
    assert result["protections"]["no network, no other processes"] is True
    assert result["image"]["python"] == sys.version.split()[0]
    assert result["model"]["protocol"] >= 4


def test_limits_give_a_model_one_processor(run, pickled):
    def counts(live_features):
        import os

        raise ValueError(f"{len(os.sched_getaffinity(0))} processors")

    assert "1 processors" in run(pickled(counts), "--limits=numerai").log


def test_a_model_that_takes_too_long(run, pickled):
    def sleeps(live_features):
        import time

        time.sleep(1000)

    done = run(pickled(sleeps), "--timeout=0.5")
    assert done.code == 4
    assert "limit_exceeded: out of time: the model was still predicting after 0.5 sec" in done.log


def test_a_model_that_takes_too_much_memory(run, pickled):
    def hogs(live_features):
        return b"x" * (1 << 31)

    done = run(pickled(hogs), "--memory=1GB")
    assert done.code == 4
    assert "limit_exceeded: out of memory while predicting" in done.log
    assert "the limit is 1.0 GB" in done.log


def test_termination_ends_the_model_too(tmp_path, live, pickled):
    def waits(live_features):
        import time

        print("waiting")
        time.sleep(1000)

    flags = [f"--model={pickled(waits)}", f"--dataset={tmp_path}/live.parquet"]
    argv = command(*flags, f"--output_dir={tmp_path}")
    with subprocess.Popen(argv, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        while "waiting" not in process.stderr.readline():
            pass
        before = set(tmp_path.parent.glob("numerai_predict-*"))
        process.terminate()
        assert process.wait(20) == 143
    assert not before & set(tmp_path.parent.glob("numerai_predict-*"))


def test_require_sandbox_refuses_where_a_protection_is_missing(run, pickled):
    done = run(pickled(good), "--require-sandbox")
    missing = [name for name, there in done.result["protections"].items() if not there]
    assert done.code == (2 if missing else 0), done.log
    for name in missing:
        assert name in done.result["message"]


def test_inspect_shows_what_the_pickle_needs_and_does_not_load_it(run, tmp_path, pickled):
    class Prints:
        def __reduce__(self):
            return print, ("loaded",)

    model = pickled([good, Prints()])
    done = run(model, "--inspect")
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert done.code == 0, done.log
    assert re.search(rf"^bytecode +Python .*{re.escape(minor)}", done.printed, re.MULTILINE)
    assert re.search(r"^cloudpickle\.cloudpickle +installed", done.printed, re.MULTILINE)
    assert "loaded" not in done.log + done.printed
    assert done.result["model"]["missing"] == []


@pytest.mark.parametrize(
    "content, code, says",
    [
        (b"<html>", 1, "model_error: bad.pkl is no pickle but an HTML page"),
        (b"", 1, "model_error: bad.pkl is empty"),
        (b"cpackage_that_is_gone.part\nmodel\n.", 6, "mismatch: not installed here: package_that"),
        (b"ctorch.nn\nLinear\n.", 6, "not installed here: torch: numerai_predict_py_3_"),
    ],
)
def test_inspect_says_why_a_file_cannot_be_loaded(run, tmp_path, content, code, says):
    (tmp_path / "bad.pkl").write_bytes(content)
    done = run(tmp_path / "bad.pkl", "--inspect")
    assert done.code == code
    assert says in done.log
    assert "bad.pkl" in done.printed


def test_a_compressed_pickle_predicts(run, pickled, tmp_path):
    path = tmp_path / "compressed.pkl"
    path.write_bytes(gzip.compress(pickled(good).read_bytes()))
    assert run(path).code == 0


def test_fetch_only_fetches_the_data(run, server, live, tmp_path):
    content = (tmp_path / "live.parquet").read_bytes()
    url = server.on("/live.parquet", Answer(content))
    done = run("", "--fetch", f"--dataset={url}?s3cret")
    assert done.code == 0, done.log
    assert (done.output_dir / "live.parquet").read_bytes() == content
    assert done.result["output"] == str(done.output_dir / "live.parquet")
    assert "s3cret" not in done.log
    gone = run("", "--fetch", f"--dataset={server.url}/gone.parquet")
    assert gone.code == 7
