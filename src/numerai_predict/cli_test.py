import logging
import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from numerai_predict import __version__, cli, pipeline
from numerai_predict.conftest import ROWS, command

# Also what `sys.path` gained in this process, as under Pants.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def good(live_features):
    ranks = live_features["feature_a"].rank(pct=True, method="first")
    return ranks.to_frame("prediction")


def broken(live_features):
    raise KeyError("feature_gone")


def test_the_command_predicts_and_writes_a_csv_file(tmp_path, live, pickled):
    flags = ["--dataset", tmp_path / "live.parquet", "--output_dir", tmp_path]
    done = subprocess.run(
        command("--debug", "--model", pickled(good), *flags),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (csv,) = tmp_path.glob("live_predictions-*.csv")
    assert re.fullmatch(r"live_predictions-[0-9a-f]{12}\.csv", csv.name)
    assert csv.read_text().startswith("id,prediction\n")
    pd.testing.assert_frame_equal(pd.read_csv(csv, index_col="id"), good(live))
    assert done.stdout == ""
    assert f"Wrote {ROWS} predictions to {csv}" in done.stderr
    assert live.index[0] in done.stderr


@pytest.mark.parametrize("flag", ["--help", "--version", "--no-such-flag"])
def test_answers_about_flags_need_no_heavy_import(flag):
    code = (
        "import sys; from numerai_predict import cli\n"
        f"try: cli.main(['--model=gone', '{flag}'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'pandas', 'requests', 'numerapi'} & set(sys.modules)))"
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
    assert {flag: text[text.rindex("(") :] for flag, text in texts.items() if "(" in text} == {
        "--model": "(required)",
        "--dataset": "(default: v5.2/live.parquet)",
        "--benchmarks": "(default: v5.2/live_benchmark_models.parquet)",
        "--output_dir": "(default: /tmp)",
        "--post_url": "(default: no upload)",
        "--post_data": "(default: none)",
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
        (["--dataset=/gone/live.parquet"], "--dataset /gone/live.parquet does not exist"),
        (["--benchmarks=./gone.parquet"], "--benchmarks ./gone.parquet does not exist"),
        (["--output_dir=/gone"], "--output_dir /gone does not exist"),
        (["--output_dir=/dev/null"], "--output_dir /dev/null is not a folder"),
        (["--post_url=http://host/"], "--post_url needs --post_data"),
        (["--post_data=key=s3cret"], "--post_data needs --post_url"),
        (["--post_url=host", "--post_data=key=s3cret"], "--post_url must begin with http"),
        (["--post_url=http://host/", "--post_data=s3cret"], "--post_data must be a url-encoded"),
        (["--no-such-flag"], "unrecognized arguments"),
    ],
)
def test_usage_errors_exit_2_and_say_what_is_wrong(run, pickled, flags, says):
    done = run(pickled(good), *flags)
    assert done.code == 2
    assert re.search(says, done.log), done.log
    assert "s3cret" not in done.log


def test_a_missing_model_flag_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([])
    assert exit.value.code == 2
    assert "--model" in capsys.readouterr().err


def test_an_output_folder_that_is_not_writable(run, pickled, monkeypatch):
    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    monkeypatch.setattr(cli, "_check_model", lambda *args: None)
    done = run(pickled(good))
    assert done.code == 2
    assert "is not writable" in done.log


def test_a_failure_has_one_message_and_says_how_to_debug_it(run, pickled):
    done = run(pickled(broken))
    minor = f"{sys.version_info.major}_{sys.version_info.minor}"
    assert done.code == 1
    assert "ERROR model_error: the model raised KeyError: 'feature_gone'" in done.log
    assert "in broken" in done.log  # the model's own traceback, but not ours
    assert "numerai_predict/model.py" not in done.log
    hint = f'docker run -i --rm -v "$PWD:$PWD" numerai_predict_py_{minor} --debug --model'
    assert hint in done.log


def test_debug_shows_our_traceback_and_debug_lines(run, pickled):
    done = run(pickled(broken), "--debug")
    assert done.code == 1
    assert "pipeline.py" in done.log
    assert " DEBUG " in done.log


def test_an_unforeseen_error_is_ours(run, pickled, monkeypatch):
    def fail(args):
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "run", fail)
    done = run(pickled(good))
    assert done.code == 70
    assert "internal_error" in done.log and "ZeroDivisionError" in done.log


def test_a_model_that_takes_over_the_log_reveals_nothing(run, pickled, server):
    def chatty(live_features):
        logging.basicConfig(level=logging.DEBUG, force=True)
        return good(live_features)

    url = server.on("/in")
    done = run(pickled(chatty), f"--post_url={url}?s3cret", "--post_data=key=s3cret")
    assert done.code == 8
    assert "s3cret" not in done.log
