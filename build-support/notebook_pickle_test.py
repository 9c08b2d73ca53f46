"""Notebooks that run, fail or are none at all, in a real environment of the tabular image's packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path("build-support/notebook_pickle.py").absolute()
WRITES = "open('model.pkl', 'wb').write(b'not looked at')"
CODE: dict[str, Any] = {
    "cell_type": "code",
    "metadata": {},
    "outputs": list[str](),
    "execution_count": None,
}

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a notebook of these cells."""

    def run(*cells: str, metadata: object = None, **variables: str) -> Done:
        notebook = {
            **{"nbformat": 4, "nbformat_minor": 5, "metadata": metadata or {}},
            "cells": [{**CODE, "source": source} for source in cells],
        }
        (tmp_path / "mine.ipynb").write_text(json.dumps(notebook))
        return of_file(tmp_path / "mine.ipynb", f"--output={tmp_path / 'kept'}", **variables)

    return run


def of_file(notebook: Path, *flags: str, **variables: str) -> Done:
    argv = [sys.executable, str(PROGRAM), str(notebook), *flags]
    env = {**os.environ, **variables}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=600)
    assert "Traceback" not in done.stderr
    return done


def test_a_pickle_is_kept_and_the_next_command_named(run: Run, tmp_path: Path) -> None:
    done = run("x = 1", "", "print('trained')", WRITES)
    assert (done.returncode, done.stderr) == (0, "")
    assert "[1/3] x = 1" in done.stdout
    assert "[3/3] open(" in done.stdout
    assert "    | trained\n" in done.stdout
    kept = tmp_path / "kept/model.pkl"
    assert kept.read_bytes() == b"not looked at"
    mounted = f"-v {kept.parent}:{kept.parent} numerai_predict_py_3_11 --debug"
    assert mounted in done.stdout and f"--model {kept}\n" in done.stdout


def test_a_pickle_of_an_earlier_run_is_not_taken_for_this_one_s(run: Run, tmp_path: Path) -> None:
    assert run(WRITES).returncode == 0
    (tmp_path / "kept/model.pkl").unlink()
    done = run("x = 1")
    assert done.returncode == 1
    assert "mine.ipynb ran, but left no *.pkl or *.pickle in dist/notebooks/mine." in done.stderr
    assert not list(tmp_path.glob("kept/*"))


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("print('so far')\n1 / 0", "cell 2, line 2 failed:\n\n    1 / 0\n\nZeroDivisionError: div"),
        ("half(3)", "cell 2, line 1 failed:\n\n    half(3)\n\nValueError: odd"),
        ("x = 1\ny = = 2", "cell 2, line 2 failed:\n\n    y = = 2\n\nSyntaxError: invalid syntax"),
        ("%%time\n1 / 0", "cell 2 failed: ZeroDivisionError: division by zero"),
        ("import os; os._exit(9)", "cell 2 ended the kernel"),
    ],
    ids=["cell", "function", "syntax", "magic", "kernel"],
)
def test_a_cell_that_fails_is_shown(cell: str, says: str, run: Run) -> None:
    done = run("def half(x):\n    if x % 2:\n        raise ValueError('odd')", cell, WRITES)
    assert done.returncode == 1
    assert says in done.stderr
    assert "dist/notebooks/mine/mine.ipynb has all that was printed" in done.stderr
    assert ("    | so far\n" in done.stdout) == ("so far" in cell)
    assert "[2/3]" in done.stdout and "[3/3]" not in done.stdout


@pytest.mark.parametrize(
    "pip", ["!pip", "!pip3", "%pip", "!python -m pip", "!{sys.executable} -m pip"]
)
def test_pip_installs_nothing_and_says_what_differs(pip: str, run: Run) -> None:
    asked = "-q --upgrade numpy xgboost 'cloudpickle==1.0' https://index/x.whl not-there"
    done = run("import sys", f"{pip} install --index-url https://index {asked}", WRITES)
    assert done.returncode == 0, done.stderr
    shown = [line.partition("| pip: ")[2] for line in done.stdout.splitlines() if "| pip: " in line]
    named = [line.split(" ")[0] for line in shown]
    assert named == ["nothing", "cloudpickle==1.0", "https://index/x.whl", "not-there"]


def test_the_environment_passes_through_but_for_packages_from_elsewhere(run: Run) -> None:
    code = "import os\nassert os.environ['NUMERAI_KEY'] == '1' and 'PYTHONPATH' not in os.environ"
    done = run(code, WRITES, NUMERAI_KEY="1", PYTHONPATH="/elsewhere")
    assert done.returncode == 0, done.stderr


def test_a_notebook_of_another_python_is_warned_of(run: Run) -> None:
    metadata = {
        "kernelspec": {"name": "conda-base", "display_name": "Conda", "language": "python"},
        "language_info": {"name": "python", "version": "3.12.4"},
    }
    done = run(WRITES, metadata=metadata)
    assert done.returncode == 0, done.stderr
    assert "was saved by Python 3.12, and runs with 3.11 here" in done.stderr
    assert "PYTHON=3.12" in done.stderr


def test_a_notebook_of_another_language_is_refused(run: Run) -> None:
    done = run("x <- 1", metadata={"kernelspec": {"name": "ir", "language": "R"}})
    assert done.returncode == 1 and "is a notebook of R, not of Python" in done.stderr


@pytest.mark.parametrize("content", ["print('a script')", "[]", "{}"])
def test_what_is_no_notebook_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "script.ipynb"
    assert f"There is no notebook {file}" in of_file(file).stderr
    file.write_text(content)
    assert f"{file} is not a Jupyter notebook" in of_file(file).stderr


def test_an_interpreter_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    nowhere = dict.fromkeys(("PATH", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR"), str(tmp_path))
    done = run(WRITES, **nowhere)
    assert done.returncode == 1
    assert "There is no Python 3.11 here. `pyenv install 3.11`" in done.stderr
