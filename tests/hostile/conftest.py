"""Runs models that mean harm, in the places where the predictor runs: outside of containers, in a
container as users start it, and in one that an operator hardened.

After every run, whatever became of it: no process of it lives, its private folder is gone, and
there are predictions only if it says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

PLACES = ("outside", "docker", "docker-hardened")
HARDENED = [
    *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=1000:1000"),
    "--network=none",
]
SLOWEST = 300  # seconds: whoever takes longer hangs; a busy machine is slow


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "places(*names): where to run, if not everywhere")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("places")
        metafunc.parametrize("place", marker.args if marker else PLACES, indirect=True)


@dataclass
class Done:
    """A run that ended.

    Attributes:
        log: all that it printed.
        folder: the user's folder, with `model.pkl`, `live.parquet` and the output folder `out`.
    """

    code: int
    log: str
    folder: Path

    @property
    def output_dir(self) -> Path:
        return self.folder / "out"

    @property
    def log_lines(self) -> list[str]:
        """The log without what is marked as the model's."""
        return [line for line in self.log.splitlines() if " INFO model| " not in line]


class Outside:
    """A process of this interpreter."""

    name = "outside"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Of its name every process of a run knows, and every user can reach it.
        self.scratch = tempfile.mkdtemp(prefix="hostile-")
        os.chmod(self.scratch, 0o777)

    def command(self, variables: dict[str, str], options: tuple[str, ...]) -> dict[str, Any]:
        search = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
        environment = {**os.environ, "PYTHONPATH": search, "TMPDIR": self.scratch, **variables}
        return {"args": [sys.executable, "-m", "numerai_predict"], "env": environment}

    def leftovers(self) -> list[str]:
        """Processes that live, and files."""
        return [f"process {pid}" for pid in self._processes()] + os.listdir(self.scratch)

    def end(self) -> None:
        for pid in self._processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.scratch)

    def _processes(self) -> Iterator[int]:
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                if self.scratch.encode() in Path(f"/proc/{entry}/environ").read_bytes():
                    yield int(entry)
            except OSError:
                continue


class InDocker:
    """A container."""

    def __init__(self, name: str, folder: Path, docker: Callable[..., str], image: str) -> None:
        self.name = name
        self.docker = docker
        self.image = image
        self.folder = folder
        self.containers: list[str] = []

    def command(self, variables: dict[str, str], options: tuple[str, ...]) -> dict[str, Any]:
        container = f"hostile-{os.urandom(6).hex()}"
        self.containers.append(container)
        words = ["docker", "run", "-i", "--rm", f"--name={container}", "-v"]
        words += [f"{self.folder}:{self.folder}"]
        words += [f"--env={name}={value}" for name, value in variables.items()]
        if self.name == "docker-hardened":
            words += HARDENED
        return {"args": [*words, *options, self.image]}

    def leftovers(self) -> list[str]:
        filters = [f"--filter=name={name}" for name in self.containers]
        return self.docker("ps", "--quiet", *filters).split()

    def end(self) -> None:
        for container in self.leftovers():
            self.docker("kill", container)


class InBubblewrap:
    """A container of the engine that needs no daemon; it has a process namespace of its own."""

    name = "bubblewrap"

    def __init__(self, folder: Path, engine: Callable[..., list[str]]) -> None:
        self.folder = folder
        self.engine = engine

    def command(self, variables: dict[str, str], options: tuple[str, ...]) -> dict[str, Any]:
        if variables or options:
            pytest.skip("options of Docker's")
        return {"args": self.engine("bubblewrap")}

    def leftovers(self) -> list[str]:
        return []

    def end(self) -> None:
        pass


Place = Any


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Where the predictor runs."""
    name = request.param
    place: Place
    if name == "outside":
        place = Outside(tmp_path)
    else:
        try:
            image = request.getfixturevalue("docker_image")
            place = InDocker(name, tmp_path, request.getfixturevalue("docker"), image)
        except pytest.skip.Exception:
            if name != "docker":
                raise
            place = InBubblewrap(tmp_path, request.getfixturevalue("engine"))
    yield place
    place.end()


@pytest.fixture
def attack(place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Done]:
    """Runs the predictor on a model and on 200 rows of live data; later flags win.

    Called with the model (pickled by value, or the pickle itself), the predictor's flags and by
    name: `code`, how it must exit; `variables` of its environment; `stdin`; `options` of Docker's.
    """
    return attack_in(place, tmp_path, request.module)


def attack_in(place: Place, folder: Path, module: ModuleType) -> Callable[..., Done]:
    from hostile import parts

    folder.chmod(0o755)
    for code in (module, parts):
        cloudpickle.register_pickle_by_value(code)
    ids = pd.Index([f"n{number:016x}" for number in range(200)], name="id")
    features = np.random.default_rng(1).integers(0, 5, (200, 3), dtype=np.int8)
    live = pd.DataFrame(features, ids, ["feature_a", "feature_b", "feature_c"])
    live.insert(0, "era", "X")
    live.to_parquet(folder / "live.parquet")
    (folder / "out").mkdir()
    (folder / "out").chmod(0o777)  # for the users of containers

    def attack(
        model: object,
        *flags: str,
        code: int,
        variables: dict[str, str] | None = None,
        stdin: str = "",
        options: tuple[str, ...] = (),
    ) -> Done:
        pickle = model if isinstance(model, bytes) else cloudpickle.dumps(model)
        (folder / "model.pkl").write_bytes(pickle)
        local = [f"--model={folder}/model.pkl", f"--dataset={folder}/live.parquet"]
        local += [f"--output_dir={folder}/out", *flags]
        command = place.command(variables or {}, options)
        command["args"] += local
        done = subprocess.run(
            **command,
            cwd=folder,
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SLOWEST,
        )
        log = done.stdout.decode(errors="replace")
        assert done.returncode == code, log[-5000:]
        assert place.leftovers() == []
        assert bool(list((folder / "out").glob("live_predictions-*.csv"))) == (code == 0)
        return Done(done.returncode, log, folder)

    return attack
