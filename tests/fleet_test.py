"""A round of models on each engine of this machine, with faults of each kind and a submitter that is
killed: each model ends once, with its own code, and predicts what it predicts alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from fleet_round import (
    CODES,
    SECRET,
    Server,
    described,
    fleet,
    good,
    line,
    results,
    serving,
    written,
)

MODEL = "numerai-fleet.model"


@dataclass(frozen=True)
class Pool:
    """An engine of this machine.

    Args:
        flags: of numerai-fleet.
        image: as the engine calls it.
        address: of this machine, as models reach it.
        program: calls the engine's own command line, where it has one.
        env: further variables.
    """

    flags: tuple[str, ...]
    image: str
    address: str
    program: Callable[..., str] | None
    env: dict[str, str]

    def containers(self, folder: Path, *filters: str) -> list[str]:
        """Of the run in this folder; for bubblewrap, its processes."""
        if self.program is None:
            listed = subprocess.run(("ps", "axww", "-o", "args="), capture_output=True, text=True)
            lines = listed.stdout.splitlines()
            return [line for line in lines if "bwrap " in line and f"{folder}/out/" in line]
        run = (folder / "run-id").read_text()
        filters = (f"--filter=label=numerai-fleet.run={run}", *filters)
        return self.program("ps", "-aq", *filters).split()

    def kill(self, folder: Path, model: str) -> None:
        if self.program:
            self.program("kill", *self.containers(folder, f"--filter=label={MODEL}={model}"))
            return
        said = (folder / f"out/.{model}.status").read_text().splitlines()[1]
        os.kill(json.loads(said)["child-pid"], signal.SIGKILL)


@pytest.fixture(params=["docker", "podman", "bubblewrap"])
def pool(request: pytest.FixtureRequest, installed, archive, description, tmp_path) -> Pool:
    name = request.param
    image = description["reference"].removesuffix(":latest")
    flags = (f"--engine={name}", "--network=host")
    if name == "docker":
        docker = request.getfixturevalue("docker")
        request.getfixturevalue("docker_image")
        (config,) = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"]
        # An engine that has just made its bridge does not tell: it gave it the first address.
        address = config.get("Gateway") or str(ip_network(config["Subnet"])[1])
        return Pool(flags[:1], image, address, docker, {})
    if name == "bubblewrap":
        installed("bwrap", "bubblewrap")
        images = f"--images={archive.parent.parent}"
        return Pool((*flags, images), image, "127.0.0.1", None, {})
    podman, env = working_podman(installed("podman", "podman"), tmp_path)
    podman("load", "--quiet", "--input", archive)
    return Pool(flags, image, "127.0.0.1", podman, env)


def working_podman(podman: Callable[..., str], folder: Path) -> tuple[Callable[..., str], dict]:
    """Podman prefers crun, which refuses to work where control groups are of both versions."""
    env = {}
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists() and shutil.which("runc"):
        (folder / "containers.conf").write_text('[engine]\nruntime = "runc"\n')
        env["CONTAINERS_CONF"] = str(folder / "containers.conf")

    def run(*args: object) -> str:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            return podman(*args)

    return run, env


@pytest.fixture
def server(pool: Pool, tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "served", pool.address) as server:
        yield server


@pytest.fixture
def manifest(server: Server, pool: Pool, tmp_path: Path) -> Path:
    uploaded = ("good-0", "heals", "nosy", "refused")
    lines = [line(server, pool.image, name, code, name in uploaded) for name, code in CODES.items()]
    return written(tmp_path, lines)


def alone(program: Callable[..., str], image: str, served: Path, folder: Path) -> bytes:
    """What the good model predicts on the engine, without the fleet."""
    out = folder / "alone"
    out.mkdir()
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")  # as in engines_test.py
    program(
        *("run", "--rm", *limits, "-v", f"{served}:/in:ro", "-v", f"{out}:/alone", "--user=0"),
        *(image, "--model=/in/good.pkl", "--dataset=/in/live.parquet", "--output_dir=/alone"),
    )
    (single,) = out.glob("live_predictions-*.csv")
    return single.read_bytes()


def capabilities(folder: Path) -> set[str]:
    """Of root's Pythons that have files of this run: launchers'. Only root sees whose they are."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mounted = f"{folder}/out/" in (process / "mountinfo").read_text()
            python = (process / "exe").readlink().name.startswith("python")
            status = dict(line.split(":\t", 1) for line in open(process / "status"))
        except OSError:
            continue
        if mounted and python and status["Uid"].startswith("0\t"):
            found.add(status["CapEff"].strip())
    return found


def test_a_round_with_faults_of_each_kind(manifest, server, pool, tmp_path):
    folder = tmp_path / "round"
    run = ("run", manifest, "--folder", folder, "--parallel=4", "--retries=1", *pool.flags)
    journal = folder / "journal.jsonl"
    rights: set[str] = set()
    with fleet(*run, **pool.env) as killed:
        while not journal.exists() or journal.read_text().count('"ended"') < 3:
            assert killed.poll() is None, killed.communicate()
            rights |= capabilities(folder)
            time.sleep(0.05)
        listed = subprocess.run(("ps", "axeww"), capture_output=True, text=True).stdout
        killed.send_signal(signal.SIGKILL)
    told = ""
    if inspect := pool.program:
        told = described(lambda: pool.containers(folder), lambda *ids: inspect("inspect", *ids))
    done = fleet(*run, **pool.env)
    said, log = done.communicate()
    assert done.returncode == 3, log

    found = results(folder)
    assert {name: row["code"] for name, row in found.items()} == CODES, log
    tries = {name: row["tries"] for name, row in found.items()}
    assert tries == {**dict.fromkeys(CODES, 1), "gone": 2, "refused": 2, "heals": 2}
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    assert Counter(e["name"] for e in events if e["event"] == "ended") == Counter(tries)
    for name, row in found.items():
        assert row["code"] in (0, 2) or row["message"], name
    assert said.startswith("16 models: 6 ok, 2 model_error,")
    assert re.search("\n  meddles +model_error: the model raised \\w*Error", said)

    # The data was fetched once, whatever its signature; nothing was predicted or uploaded twice.
    assert server.seen["GET /live.parquet"] == 1
    assert server.seen["POST /ok/good-0"] == server.seen["POST /ok/nosy"] == 1
    assert server.seen["POST /heals"] == 2
    for text in (told, listed, said, log):
        assert SECRET not in text
    # Root's, those of engines/docker.py alone.
    assert rights == ({"00000000000000eb"} if os.geteuid() == 0 else set())
    assert not pool.containers(folder)
    assert not list((folder / "out").iterdir())

    # What stayed here is what the model predicts alone.
    expected = good(pd.read_parquet(server.folder / "live.parquet")).to_csv().encode()
    for number in range(1, 4):
        assert (folder / f"predictions/good-{number}.csv").read_bytes() == expected
    if pool.program:
        assert alone(pool.program, pool.image, server.folder, tmp_path) == expected

    gathered = fleet("collect", folder, "--predictions", tmp_path / "predictions.parquet")
    assert gathered.communicate()[0] == said
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.column_names == ["id", "good-1", "good-2", "good-3"]
    assert table.num_rows == 200


def test_what_was_killed_is_tried_again_and_what_goes_on_can_be_stopped(pool, server, tmp_path):
    folder = tmp_path / "round"
    lines = [line(server, pool.image, f"held-{number}", 0, False) for number in range(2)]
    for each in lines:
        each["model"] = f"{server.url}/held/{each['name']}/good.pkl"
    run = ("run", written(tmp_path, lines), "--folder", folder, "--parallel=2", *pool.flags)

    def started() -> Counter[str]:
        events = map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
        return Counter(event["name"] for event in events if event["event"] == "started")

    def wait(submitter: subprocess.Popen[str], until: Callable[[], bool]) -> None:
        while not until():
            assert submitter.poll() is None, submitter.communicate()
            time.sleep(0.05)

    with fleet(*run, **pool.env) as killed:
        downloads = [f"GET /held/held-{number}/good.pkl" for number in range(2)]
        wait(killed, lambda: all(server.seen[each] for each in downloads))
        killed.send_signal(signal.SIGKILL)
    pool.kill(folder, "held-0")
    with fleet(*run, **pool.env) as interrupted:
        wait(interrupted, lambda: started()["held-0"] == 2 and server.seen[downloads[0]] > 1)
        interrupted.send_signal(signal.SIGINT)
        _, log = interrupted.communicate()
        assert interrupted.returncode == 130, log
    assert "held-0: lost, is tried again" in log
    assert started() == {"held-0": 2, "held-1": 1}
    assert pool.containers(folder)

    stopped = fleet("stop", folder, *pool.flags, **pool.env)
    _, log = stopped.communicate()
    assert stopped.returncode == 0, log
    assert not pool.containers(folder)
    server.released.set()
    done = fleet(*run, **pool.env)
    said, log = done.communicate()
    assert done.returncode == 0, log
    tries = {name: row["tries"] for name, row in results(folder).items()}
    assert tries == {"held-0": 2, "held-1": 1}
    assert started() == {"held-0": 3, "held-1": 2}


def test_the_first_engine_at_hand_is_taken_and_kept(installed, tmp_path):
    installed("bwrap", "bubblewrap")
    entry = {"name": "a", "image": "nowhere", "model": "/gone"}
    run = ("run", written(tmp_path, [entry]), f"--images={tmp_path}")
    gone = {"DOCKER_HOST": "unix:///gone", "CONTAINER_HOST": "unix:///gone"}
    done = fleet(*run, "--local", **gone)
    _, log = done.communicate()
    assert done.returncode == 2
    assert "models run on bubblewrap; docker: no Docker engine answers" in log
    assert f"there is no image nowhere in {tmp_path}, nor any other. Build it" in log
    other = fleet(*run, "--engine=docker")
    _, log = other.communicate()
    assert other.returncode == 2
    assert "round.jsonl.run was started on bubblewrap" in log
    (tmp_path / "round.jsonl.run/engine").write_text("slurm")
    local = fleet(*run, "--local")
    _, log = local.communicate()
    assert local.returncode == 2
    assert "round.jsonl.run was started on slurm" in log


def test_what_an_engine_does_not_take_is_refused(tmp_path):
    entry = {"name": "a", "python": "3.11", "model": "/m.pkl"}
    run = ("run", "--engine=slurm", written(tmp_path, [entry]))
    for flag, owners in (("output_dir", "swarm and kubernetes"), ("namespace", "kubernetes")):
        done = fleet(*run, f"--{flag}=there")
        _, log = done.communicate()
        assert done.returncode == 2
        assert f"--{flag} is for {owners}, not for slurm" in log


def test_no_engine_at_hand_says_what_to_install(tmp_path):
    entry = {"name": "a", "python": "3.11", "model": "/gone"}
    done = fleet("run", written(tmp_path, [entry]), DOCKER_HOST="unix:///gone", PATH="/gone")
    _, log = done.communicate()
    assert done.returncode == 2
    for what in ("docker: no Docker engine", "install podman)", "install bubblewrap)"):
        assert what in log


def test_a_wrong_manifest_starts_nothing(tmp_path):
    (tmp_path / "round.jsonl").write_text('{"name": "a"}\n{"name": \n')
    done = fleet("run", tmp_path / "round.jsonl")
    _, log = done.communicate()
    assert done.returncode == 2
    assert "line 1: 'model' is a required property" in log
    assert "line 2: no JSON" in log
    assert not (tmp_path / "round.jsonl.run").exists()


def test_collect_says_what_it_cannot_read(tmp_path):
    manifest = written(tmp_path, [{"name": "a", "python": "3.11", "model": "/m.pkl"}])
    done = fleet("collect", manifest, "--logs", tmp_path / "gone")
    _, log = done.communicate()
    assert done.returncode == 2
    assert log.startswith("numerai-fleet: ") and "gone" in log and "Traceback" not in log


def test_help_names_the_exit_codes():
    for words in ((), ("run",)):
        shown, _ = fleet(*words, "--help").communicate()
        assert "exit codes:" in shown
