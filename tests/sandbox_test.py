"""All protections are in force in containers as platforms start them, and one that is missing is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pytest

HARDENED = ("--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none")


def status(live_features):
    with open("/proc/self/status") as file:
        raise ValueError(file.read())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that every user can write to, with live data and a model that tells its status."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (tmp_path / "model.pkl").write_bytes(cloudpickle.dumps(status))
    ids = pd.Index([f"n{number:015x}" for number in range(10)], name="id")
    live = pd.DataFrame({"era": "X", "feature_a": np.arange(10, dtype=np.int8)}, ids)
    live.to_parquet(tmp_path / "live.parquet")
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o777)
    return tmp_path


@pytest.fixture
def run(docker_image: str, folder: Path) -> Callable[..., tuple[int, str, dict[str, bool]]]:
    """Runs the model. Returns exit code, log, and which protections were in force."""

    def run(*options: str) -> tuple[int, str, dict[str, bool]]:
        argv = ["docker", "run", "--rm", f"--volume={folder}:{folder}", *options, docker_image]
        flags = [f"--model={folder}/model.pkl", f"--dataset={folder}/live.parquet"]
        flags += [f"--output_dir={folder}", f"--result={folder}/result.json", "--require-sandbox"]
        done = subprocess.run([*argv, *flags], capture_output=True, text=True, timeout=100)
        result = json.loads((folder / "result.json").read_text())
        return done.returncode, done.stderr, result["protections"]

    return run


@pytest.mark.parametrize(
    "options",
    [
        (),
        HARDENED + ("--user=1000:1000", "--read-only", "--tmpfs=/tmp"),
        HARDENED + ("--user=1000:1000", "--read-only"),
    ],
    ids=["default", "hardened", "nothing-writable"],
)
def test_every_protection_is_in_force(run, options):
    code, log, protections = run(*options)
    assert code == 1, log  # the model's own error: it was run
    assert len(protections) == 9 and all(protections.values()), log
    seen = dict(line.lstrip().split(":\t", 1) for line in log.splitlines() if ":\t" in line)
    assert seen["NoNewPrivs"] == "1"
    assert seen["Seccomp"] == "2"
    assert int(seen["CapEff"], 16) == 0
    assert "0" not in seen["Uid"].split()


def test_root_that_may_not_change_users_is_refused(run):
    code, log, protections = run(*HARDENED)
    assert code == 2
    assert [name for name, in_force in protections.items() if not in_force] == ["other user"]
    assert "--require-sandbox: not in force here: other user (root without the right" in log


def test_the_containers_own_memory_limit_is_named(docker_image, folder):
    def hog(live_features):
        return [b"x" * (16 << 20) for _ in range(1000)]

    (folder / "model.pkl").write_bytes(cloudpickle.dumps(hog))
    argv = ["docker", "run", "--rm", "--memory=300m", f"--volume={folder}:{folder}", docker_image]
    flags = [f"--model={folder}/model.pkl", f"--dataset={folder}/live.parquet"]
    done = subprocess.run([*argv, *flags], capture_output=True, text=True, timeout=100)
    assert done.returncode == 4, done.stderr
    assert "out of memory while predicting (the kernel ended it)" in done.stderr
    assert "the limit is 300 MB" in done.stderr
