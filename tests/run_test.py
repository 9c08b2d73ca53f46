"""`./pants run images:py311` runs the image on the first engine that works, in the user's folder.

The program that `run` starts is tested as itself: Pants cannot run inside of its own sandbox.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PYTHON = "--entrypoint=/usr/bin/python3"

Engine = Callable[..., list[str]]
Done = subprocess.CompletedProcess[str]


def run(argv: list[str], folder: Path, **variables: str) -> Done:
    environment = {**os.environ, **variables}
    return subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(params=["bubblewrap", "docker"])
def python(request: pytest.FixtureRequest, engine: Engine) -> Callable[..., Done]:
    """Runs code in the image by its Python."""
    if request.param == "docker":
        request.getfixturevalue("docker_image")
    *command, archive = engine(request.param)

    def python(code: str, folder: Path) -> Done:
        return run([*command, PYTHON, archive, "-c", code], folder)

    return python


def test_the_exit_code_and_output_pass_through(python, tmp_path):
    done = python("print('out'); import sys; sys.exit('err')", tmp_path)
    assert (done.returncode, done.stdout) == (1, "out\n")
    assert done.stderr.endswith("err\n")
    assert python("raise SystemExit(42)", tmp_path).returncode == 42


def test_a_signal_becomes_the_exit_code_of_shells(python, tmp_path):
    assert python("import ctypes; ctypes.string_at(0)", tmp_path).returncode == 139


def test_the_working_folder_is_at_its_path_and_for_writing(python, tmp_path):
    (tmp_path / "in").write_text("from outside")
    code = "import os; open('out', 'w').write(os.getcwd() + open('in').read())"
    assert python(code, tmp_path).returncode == 0
    assert (tmp_path / "out").read_text() == f"{tmp_path}from outside"
    assert (tmp_path / "out").stat().st_uid == os.getuid()


def test_the_image_is_all_else_there_is(python, tmp_path):
    code = "import json, os; print(json.dumps([os.listdir('/home'), dict(os.environ)]))"
    home, environment = json.loads(python(code, tmp_path).stdout)
    assert home == []
    assert environment["LANG"] == "C.UTF-8"
    assert environment["PATH"] == "/usr/local/bin:/usr/bin"
    assert set(environment) <= {"HOME", "HOSTNAME", "LANG", "PATH", "PWD", "NUMERAI_PREDICT_IMAGE"}


def test_one_line_says_which_engine_was_taken(python, engine, tmp_path):
    python("", tmp_path)  # which may unpack
    (line,) = python("", tmp_path).stderr.splitlines()
    assert line.startswith("running numerai_predict_py_3_11:latest on ")


def test_engines_are_tried_in_turn(engine, tmp_path):
    broken = tmp_path / "docker"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    done = run([*engine("docker", "bubblewrap"), "--version"], tmp_path, PATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("numerai_predict ")
    assert "on bubblewrap" in done.stderr and "Docker" not in done.stderr


def test_without_any_engine_it_says_what_to_install(engine, tmp_path):
    *command, archive = engine("docker", "podman", "bubblewrap")
    argv = [*command, "--bubblewrap=/gone", archive]
    done = run(argv, tmp_path, PATH=str(tmp_path))
    assert done.returncode == 125
    assert "tried docker, podman, bubblewrap. Install Docker or Podman" in done.stderr
    assert not done.stdout
