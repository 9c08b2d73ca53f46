"""The example notebook runs with the image's Python and packages, and its pickle predicts in the image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import MINOR, interpreter
from predictions import predicted

PROGRAM = ("build-support/notebook_pickle.py", "examples/hello.ipynb", f"--python={MINOR}")


def test_the_pickle_of_a_notebook_predicts(command):
    interpreter()  # or skip
    done = subprocess.run([sys.executable, *PROGRAM], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    folder = Path("dist/notebooks/hello").absolute()
    assert f"--model {folder}/hello.pkl\n" in done.stdout

    flags = [f"--model={folder}/hello.pkl", f"--dataset={folder}/live.parquet"]
    argv = [*command(folder), "--debug", *flags, f"--output_dir={folder}"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    predictions = predicted(folder)
    assert len(predictions) == 200
    assert predictions["prediction"].between(0, 1).all()
