"""A round of models on each engine, with faults of each kind and a submitter that is killed: each model
ends once, with its own code, and predicts what it predicts alone."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import slurm_bed
import swarm_bed

MODEL = "numerai-fleet.model"
FLEET = (sys.executable, str(Path("numerai-fleet.pex").absolute()))
SECRET = "X-Amz-Signature=0123456789abcdef"
CODES = {
    **{f"good-{number}": 0 for number in range(4)},
    **{"raises": 1, "not-here": 2, "invalid": 3, "hog": 4, "hangs": 4, "segfault": 5, "misses": 6},
    **{"gone": 7, "refused": 8, "heals": 0, "meddles": 1, "nosy": 0},
}


def good(live_features):
    ranks = live_features["feature_a"].rank(pct=True, method="first")
    return ranks.to_frame("prediction")


def raises(live_features):
    raise ArithmeticError("no luck today")


def invalid(live_features):
    return good(live_features) + 1


def hog(live_features):
    return bytearray(2 << 30)


def hangs(live_features):
    time.sleep(1000)


def segfault(live_features):
    ctypes.string_at(0)


def misses(live_features):
    import module_of_mine  # pants: no-infer-dep

    return module_of_mine.predict(live_features)


def meddles(live_features):
    """Tries to change the data that others get."""
    for line in open("/proc/self/mountinfo"):
        path = line.split()[4]
        if path.endswith(".parquet"):
            with open(path, "r+b") as file:
                file.write(b"mine")
    return good(live_features)


def nosy(live_features):
    """Looks for the secrets of its own run, and of others."""
    secret = bytes(reversed(b"-zmA-X"))  # its pickle is there as well
    for folder in ("/run", "/out", "/in", "/tmp", "/proc"):
        # Unlike rglob, it does not mind that processes and network devices come and go.
        for place, _, names in os.walk(folder):
            for path in (Path(place, name) for name in names):
                try:
                    found = path.is_file() and secret in path.read_bytes()
                except OSError:
                    continue
                if found:
                    raise ArithmeticError(path)
    return good(live_features)


class Server(ThreadingHTTPServer):
    """Serves a folder by GET, what is below /held once `released` is set; takes uploads by POST to
    /ok, or to /heals the second time."""

    daemon_threads = True

    def __init__(self, folder: Path, address: str) -> None:
        super().__init__((address, 0), Handler)
        self.folder = folder
        self.seen: Counter[str] = Counter()
        self.uploads: dict[str, bytes] = {}
        self.released = threading.Event()
        self.url = f"http://{address}:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        file = self.server.folder / Path(path).name
        body = file.read_bytes() if file.is_file() else b""
        tag = f'"{zlib.crc32(body)}"'
        if self.headers["If-None-Match"] == tag:
            self._answer(304)
            return
        self.server.seen[f"GET {path}"] += 1
        if path.startswith("/held/"):
            self.server.released.wait()
        self._answer(200 if body else 404, body, tag)

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen[f"POST {path}"] += 1
        heals = path.startswith("/ok") or self.server.seen[f"POST {path}"] > 1
        taken = heals and path != "/refused"
        if taken:
            self.server.uploads[Path(path).name] = body
        self._answer(204 if taken else 403)

    def _answer(self, status: int, body: bytes = b"", tag: str = "") -> None:
        self.send_response(status)
        if tag:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The folder of models and data."""
    folder = tmp_path / "served"
    folder.mkdir()
    rng = np.random.default_rng(1)
    ids = pd.Index([f"n{number:08x}" for number in range(200)], name="id")
    live = pd.DataFrame({"era": "X", "feature_a": rng.random(200)}, ids)
    live.to_parquet(folder / "live.parquet")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    for model in (good, raises, invalid, hog, hangs, segfault, misses, meddles, nosy):
        (folder / f"{model.__name__}.pkl").write_bytes(cloudpickle.dumps(model))
    return folder


@contextmanager
def serving(folder: Path, address: str) -> Iterator[Server]:
    server = Server(folder, address)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


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
        gateway = "{{(index .IPAM.Config 0).Gateway}}"
        address = docker("network", "inspect", f"--format={gateway}", "bridge").strip()
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
def server(pool: Pool, served: Path) -> Iterator[Server]:
    with serving(served, pool.address) as server:
        yield server


def line(server: Server, image: str, name: str, code: int, uploads: bool) -> dict[str, Any]:
    """What the manifest says of a model."""
    kind = name.partition("-")[0]
    model = {"heals": "good", "refused": "good", "held": "held/good"}.get(kind, kind)
    entry: dict[str, Any] = {
        "name": name,
        "image": image,
        "model": f"{server.url}/{model}.pkl?{SECRET}",
        "dataset": f"{server.url}/live.parquet?{SECRET}-{name}",
        # No model takes them.
        "benchmarks": f"{server.url}/gone.parquet",
        "limits": {"memory": "1GB", "timeout": "300" if name != "hangs" else "3"},
    }
    if name == "not-here":
        entry["model"] = "/gone/model.pkl"
    if uploads:
        path = f"ok/{name}" if code == 0 and name != "heals" else name
        entry |= {"post_url": f"{server.url}/{path}", "post_data": f"key=a&policy={SECRET}"}
    return entry


@pytest.fixture
def manifest(server: Server, pool: Pool, tmp_path: Path) -> Path:
    uploaded = ("good-0", "heals", "nosy", "refused")
    lines = [line(server, pool.image, name, code, name in uploaded) for name, code in CODES.items()]
    return written(tmp_path, lines)


def written(folder: Path, lines: list[dict[str, Any]]) -> Path:
    path = folder / "round.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


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


def inspected(pool: Pool, folder: Path) -> str:
    """What the engine says of a run's containers, whose submitter is dead. One that it had asked to
    remove goes nevertheless, and may be gone between the two questions."""
    assert pool.program
    for _ in range(5):
        containers = pool.containers(folder)
        assert containers
        try:
            return pool.program("inspect", *containers)
        except AssertionError as error:
            fault = error
    raise fault


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


def fleet(*args: object, **env: str) -> subprocess.Popen[str]:
    argv = (*FLEET, *map(str, args))
    env = {**os.environ, **env}
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


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
    described = inspected(pool, folder) if pool.program else ""
    done = fleet(*run, **pool.env)
    said, log = done.communicate()
    assert done.returncode == 3, log

    found = {row["name"]: row for row in pq.read_table(folder / "results.parquet").to_pylist()}
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
    for text in (described, listed, said, log):
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
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    assert {row["name"]: row["tries"] for row in rows} == {"held-0": 2, "held-1": 1}
    assert started() == {"held-0": 3, "held-1": 2}


@pytest.fixture(scope="module")
def nodes(archive: Path) -> Iterator[list[swarm_bed.Node]]:
    missing = [name for name in ("dockerd", "ip", "nsenter") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"three engines on one machine want root{' and '.join(['', *missing])}")
    with swarm_bed.swarm(3, [archive]) as nodes:
        yield nodes


def test_a_swarm_runs_what_was_rendered(nodes, docker_image, served, tmp_path):
    codes = {"good-0": 0, "good-1": 0, "raises": 1, "refused": 8}
    with serving(served, swarm_bed.GATEWAY) as server:
        lines = [line(server, docker_image, name, code, True) for name, code in codes.items()]
        manifest = written(tmp_path, lines)
        rendered = fleet("render", "swarm", manifest, "--output", tmp_path, "--name=rendered")
        assert rendered.wait() == 0, rendered.communicate()
        assert (tmp_path / "rendered-0.jsonl").stat().st_mode & 0o077 == 0
        env = {**os.environ, "DOCKER_HOST": nodes[0].host}
        subprocess.run(("sh", tmp_path / "rendered.sh"), env=env, check=True)
        described = nodes[0].docker("service", "inspect", "rendered-0")
        said = ""
        while said.count('"entry"') < len(codes):
            said = nodes[0].docker("service", "logs", "rendered-0")
            time.sleep(0.5)
        nodes[0].docker("service", "rm", "rendered-0")
        nodes[0].docker("secret", "rm", *nodes[0].docker("secret", "ls", "--quiet").split())
    (tmp_path / "log").write_text(said)
    collected = fleet("collect", manifest, "--logs", tmp_path / "log", "--output", tmp_path / "out")
    assert collected.wait() == 3
    found = {row["name"]: row["code"] for row in pq.read_table(tmp_path / "out").to_pylist()}
    assert found == codes
    assert server.uploads.keys() == {"good-0", "good-1"}
    assert SECRET not in described + said


# The last one on these nodes.
def test_a_round_on_a_swarm_whose_submitter_and_node_die(nodes, docker_image, served, tmp_path):
    # They run until the node is dead: its share of them is lost.
    codes = {f"held-{number}": 0 for number in range(6)}
    codes |= {name: code for name, code in CODES.items() if name != "meddles"}
    folder = tmp_path / "round"
    journal = folder / "journal.jsonl"
    manager, _, doomed = nodes
    with serving(served, swarm_bed.GATEWAY) as server:
        lines = [line(server, docker_image, name, code, True) for name, code in codes.items()]
        run = ("run", "--engine=swarm", written(tmp_path, lines), "--folder", folder, "--retries=2")

        with fleet(*run, DOCKER_HOST=manager.host) as killed:
            while not journal.exists() or journal.read_text().count('"ended"') < 3:
                assert killed.poll() is None, killed.communicate()
                time.sleep(0.05)
            killed.send_signal(signal.SIGKILL)
        services = manager.docker("service", "ls", "--quiet").split()
        described = manager.docker("service", "inspect", *services)
        done = fleet(*run, DOCKER_HOST=manager.host)
        while "held-" not in doomed.docker("ps", "--format={{.Labels}}"):
            assert done.poll() is None, done.communicate()
            time.sleep(0.2)
        doomed.die()
        server.released.set()
        said, log = done.communicate()
        left = manager.docker("service", "ls", "--quiet") + manager.docker(
            "secret", "ls", "--quiet"
        )
        alone = manager.docker(
            *("run", "--rm", "-v", f"{served}:/in:ro", "-v", f"{tmp_path}:/alone", "--user=0"),
            *(docker_image, "--model=/in/good.pkl", "--dataset=/in/live.parquet"),
            "--output_dir=/alone",
        )
    assert done.returncode == 3, log
    found = {row["name"]: row for row in pq.read_table(folder / "results.parquet").to_pylist()}
    assert {name: row["code"] for name, row in found.items()} == codes, log
    lost = set(re.findall("^(\\S+): lost, is tried again", log, re.MULTILINE))
    assert lost, log
    # What heals is refused once, whether or not it was lost.
    tries = {name: row["tries"] for name, row in found.items() if name != "heals"}
    assert tries == {
        name: 3 if name in ("gone", "refused") else 1 + (name in lost) for name in tries
    }
    for name, row in found.items():
        assert row["message"] or not row["code"], name
        if row["code"] == 0 and name not in lost | {"heals"}:
            assert server.seen[f"POST /ok/{name}"] == 1, name
    (single,) = tmp_path.glob("live_predictions-*.csv")
    for name in (*(f"good-{number}" for number in range(4)), "nosy", "heals", "held-0"):
        assert single.read_bytes() in server.uploads[name], name
    # Each node downloaded the data once, whatever its signatures.
    assert server.seen["GET /live.parquet"] <= len(nodes)
    assert not left
    for text in (described, said, log, alone):
        assert SECRET not in text


def test_a_round_on_slurm_whose_submitter_and_node_die(
    archive, description, command, served, tmp_path
):
    missing = [name for name in (*slurm_bed.PROGRAMS, "runc") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"a Slurm cluster on one machine wants root{' and '.join(['', *missing])}")
    # These run until their node is dead.
    codes = {"held-0": 0, "held-1": 0, **CODES}
    image = description["reference"]
    with (
        slurm_bed.cluster(2) as cluster,
        serving(served, "127.0.0.1") as server,
        # Unpacked images are large.
        tempfile.TemporaryDirectory() as bundles,
    ):
        env = {"SLURM_CONF": cluster.env["SLURM_CONF"]}
        uploaded = ("held-0", "good-0", "heals", "nosy", "refused")
        lines = [line(server, image, name, code, name in uploaded) for name, code in codes.items()]
        folder = tmp_path / "round"
        where = ("--folder", folder, "--images", archive.parents[1], "--bundles", bundles)
        run = ("run", "--engine=slurm", written(tmp_path, lines), *where)
        journal = folder / "journal.jsonl"
        with fleet(*run, **env) as killed:
            while not journal.exists() or journal.read_text().count('"ended"') < 3:
                assert killed.poll() is None, killed.communicate()
                time.sleep(0.05)
            killed.send_signal(signal.SIGKILL)
        described = cluster.command("scontrol", "show", "job")
        listed = subprocess.run(("ps", "auxww"), capture_output=True, text=True).stdout
        (script,) = folder.glob("slurm/*/array.sh")
        logs = "".join(path.read_text() for path in script.parent.glob("*.log"))
        done = fleet(*run, **env)
        running = ("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%K %N")
        held = [each.split() for each in cluster.command(*running).splitlines()]
        cluster.die(dict(held)["0"])
        server.released.set()
        said, log = done.communicate()
        left = cluster.command("squeue", "--noheader")
    assert done.returncode == 3, log
    found = {row["name"]: row for row in pq.read_table(folder / "results.parquet").to_pylist()}
    assert {name: row["code"] for name, row in found.items()} == codes, log
    lost = set(re.findall("^(\\S+): lost, is tried again", log, re.MULTILINE))
    assert "held-0" in lost, log
    # What heals is refused once, whether or not it was lost.
    tries = {name: row["tries"] for name, row in found.items() if name != "heals"}
    assert tries == {
        name: 3 if name in ("gone", "refused") else 1 + (name in lost) for name in tries
    }
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    ended = [event["key"] for event in events if event["event"] == "ended"]
    assert len(ended) == len(set(ended)) == sum(row["tries"] for row in found.values())
    for name, row in found.items():
        assert row["code"] in (0, 2) or row["message"], name
        if row["code"] == 0 and name in uploaded and name not in lost | {"heals"}:
            assert server.seen[f"POST /ok/{name}"] == 1, name
    assert server.seen["GET /live.parquet"] == 1

    # What stayed here, and what was uploaded, is what the model predicts alone.
    alone = tmp_path / "alone"
    alone.mkdir()
    alone.chmod(0o777)
    flags = (f"--model={served}/good.pkl", f"--dataset={served}/live.parquet")
    subprocess.run((*command(tmp_path), *flags, f"--output_dir={alone}"), check=True)
    single = next(alone.glob("live_predictions-*.csv")).read_bytes()
    for name in ("good-1", "good-2", "good-3", "held-1"):
        assert (folder / f"predictions/{name}.csv").read_bytes() == single, name
    for name in ("good-0", "held-0", "heals", "nosy"):
        assert single in server.uploads[name], name
    assert not left
    assert {path.name for path in folder.glob("slurm/*/*")} == {"array.sh"}
    for text in (described, listed, logs, script.read_text(), said, log):
        assert SECRET not in text


def test_slurm_runs_what_was_rendered(archive, description, served, tmp_path):
    missing = [name for name in (*slurm_bed.PROGRAMS, "runc") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"a Slurm cluster on one machine wants root{' and '.join(['', *missing])}")
    codes = {"good-0": 0, "raises": 1, "refused": 8}
    with (
        slurm_bed.cluster(1) as cluster,
        serving(served, "127.0.0.1") as server,
        tempfile.TemporaryDirectory() as bundles,
    ):
        image = description["reference"]
        lines = [line(server, image, name, code, True) for name, code in codes.items()]
        manifest = written(tmp_path, lines)
        where = ("--output", tmp_path, "--images", archive.parents[1], "--bundles", bundles)
        rendered = fleet("render", "slurm", manifest, *where, "--name=rendered")
        script, log = rendered.communicate()
        assert rendered.returncode == 0, log
        cluster.command("sbatch", "--wait", script.strip())
    folder = tmp_path / "rendered-0"
    said = "".join(folder.joinpath(f"{number}.log").read_text() for number in range(3))
    (tmp_path / "log").write_text(said)
    collected = fleet("collect", manifest, "--logs", tmp_path / "log", "--output", tmp_path / "out")
    assert collected.wait() == 3
    found = {row["name"]: row["code"] for row in pq.read_table(tmp_path / "out").to_pylist()}
    assert found == codes
    ended = [(folder / f"ended/{number}").read_text() for number in range(3)]
    assert ended == [f"{code}\n" for code in codes.values()]
    assert server.uploads.keys() == {"good-0"}
    assert (folder / "input").stat().st_mode & 0o077 == 0
    assert SECRET not in said + (folder / "array.sh").read_text()


def test_slurm_says_what_it_lacks(tmp_path):
    entry = {"name": "a", "python": "3.11", "model": "https://x.example/m.pkl"}
    done = fleet("run", "--engine=slurm", written(tmp_path, [entry]), PATH="/nowhere")
    _, log = done.communicate()
    assert done.returncode == 2
    assert "there is no sbatch here: run numerai-fleet where" in log


def test_a_swarm_wants_to_know_where_predictions_go(tmp_path):
    entry = {"name": "a", "python": "3.11", "model": "https://x.example/m.pkl"}
    done = fleet("run", "--engine=swarm", written(tmp_path, [entry]))
    _, log = done.communicate()
    assert done.returncode == 2
    assert "a: without post_url" in log and "--output_dir" in log


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
