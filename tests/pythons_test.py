"""Models of the Pythons that have no image yet: trained in a plain environment of the lock, run there
by the predictor."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd
import pytest

PYTHONS = ("3.10", "3.12", "3.13")
LIBRARIES = ("catboost", "lightgbm", "sklearn", "xgboost")


def interpreter(version: str) -> str:
    """A plain interpreter of this machine."""
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    found = str(of_pyenv[-1]) if of_pyenv else shutil.which(f"python{version}")
    if not found:
        pytest.skip(f"no Python {version} here; pyenv installs it")
    return found


@pytest.fixture(scope="module", params=PYTHONS)
def python(
    request: pytest.FixtureRequest, environment: Callable[..., AbstractContextManager[Path]]
) -> Iterator[Path]:
    """An interpreter with the packages of its image."""
    name = "py" + request.param.replace(".", "")
    pins = [f"3rdparty/python/{name}-{kind}.txt" for kind in ("predictor", "models")]
    with environment(*pins, base=interpreter(request.param)) as python:
        yield python


@pytest.fixture(scope="module")
def trained(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    subprocess.run([python, "tests/train_models.py", folder], check=True)
    return folder


@pytest.mark.parametrize("arguments", ["", "-benchmarks"], ids=["one", "two"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_model_predicts_what_it_did_where_it_was_trained(
    python: Path, trained: Path, tmp_path: Path, library: str, arguments: str
):
    done = subprocess.run(
        [
            *(python, "-m", "numerai_predict", f"--model={trained}/{library}{arguments}.pkl"),
            *(f"--dataset={trained}/live.parquet", f"--output_dir={tmp_path}"),
            f"--benchmarks={trained}/live_benchmark_models.parquet",
        ],
        env={**os.environ, "PYTHONPATH": str(Path("src").absolute())},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (csv,) = tmp_path.glob("live_predictions-*.csv")
    expected = pd.read_csv(f"{trained}/{library}{arguments}.expected.csv", index_col="id")
    pd.testing.assert_frame_equal(pd.read_csv(csv, index_col="id"), expected)
    assert "Warning" not in done.stderr
