"""A round of models on this machine's Docker engine, with faults of each kind and a submitter that is
killed: each model ends once, with its own code, and predicts what it predicts alone."""

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
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        self.server.seen[f"GET {path}"] += 1
        if path.startswith("/held/"):
            self.server.released.wait()
        file = self.server.folder / path.removeprefix("/held").lstrip("/")
        body = file.read_bytes() if file.is_file() else b""
        self._answer(200 if body else 404, body)

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen[f"POST {path}"] += 1
        heals = path.startswith("/ok") or self.server.seen[f"POST {path}"] > 1
        taken = heals and path != "/refused"
        if taken:
            self.server.uploads[Path(path).name] = body
        self._answer(204 if taken else 403)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
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


@pytest.fixture
def server(docker: Callable[..., str], served: Path) -> Iterator[Server]:
    gateway = docker("network", "inspect", "--format={{(index .IPAM.Config 0).Gateway}}", "bridge")
    with serving(served, gateway.strip()) as server:
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
def manifest(server: Server, docker_image: str, tmp_path: Path) -> Path:
    uploaded = ("good-0", "heals", "nosy", "refused")
    lines = [
        line(server, docker_image, name, code, name in uploaded) for name, code in CODES.items()
    ]
    return written(tmp_path, lines)


def written(folder: Path, lines: list[dict[str, Any]]) -> Path:
    path = folder / "round.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def fleet(*args: object, **env: str) -> subprocess.Popen[str]:
    argv = (*FLEET, *map(str, args))
    env = {**os.environ, **env}
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def test_a_round_with_faults_of_each_kind(manifest, server, docker, docker_image, tmp_path):
    folder = tmp_path / "round"
    run = ("run", manifest, "--folder", folder, "--parallel=4", "--retries=1")
    journal = folder / "journal.jsonl"
    with fleet(*run) as killed:
        while not journal.exists() or journal.read_text().count('"ended"') < 3:
            assert killed.poll() is None, killed.communicate()
            time.sleep(0.05)
        listed = subprocess.run(("ps", "-ef"), capture_output=True, text=True).stdout
        killed.send_signal(signal.SIGKILL)
    # Nobody removes them now.
    containers = docker("ps", "-aq", "--filter=label=numerai-fleet.run").split()
    described = docker("inspect", *containers)
    done = fleet(*run)
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
    assert not docker("ps", "-aq", "--filter=label=numerai-fleet.run").split()

    # What stayed here is what the model predicts alone.
    alone = tmp_path / "alone"
    alone.mkdir(mode=0o777)
    os.chmod(alone, 0o777)
    mounts = ("-v", f"{server.folder}:/in:ro", "-v", f"{alone}:/alone")
    docker(
        *("run", "--rm", *mounts, docker_image, "--model=/in/good.pkl"),
        *("--dataset=/in/live.parquet", "--output_dir=/alone"),
    )
    (single,) = alone.glob("live_predictions-*.csv")
    for number in range(1, 4):
        kept = folder / f"predictions/good-{number}.csv"
        assert kept.read_bytes() == single.read_bytes()

    gathered = fleet("collect", folder, "--predictions", tmp_path / "predictions.parquet")
    assert gathered.communicate()[0] == said
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.column_names == ["id", "good-1", "good-2", "good-3"]
    assert table.num_rows == 200


def test_a_round_on_a_swarm_whose_submitter_and_node_die(archive, docker_image, served, tmp_path):
    missing = [name for name in ("dockerd", "ip", "nsenter") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"three engines on one machine want root{' and '.join(['', *missing])}")
    # They run until the node is dead: its share of them is lost.
    codes = {f"held-{number}": 0 for number in range(6)}
    codes |= {name: code for name, code in CODES.items() if name != "meddles"}
    folder = tmp_path / "round"
    journal = folder / "journal.jsonl"
    with swarm_bed.swarm(3, [archive]) as nodes, serving(served, swarm_bed.GATEWAY) as server:
        manager, _, doomed = nodes
        lines = [line(server, docker_image, name, code, True) for name, code in codes.items()]
        run = ("run", "--swarm", written(tmp_path, lines), "--folder", folder, "--retries=2")

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
        run = ("run", "--slurm", written(tmp_path, lines), *where)
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


def test_slurm_says_what_it_lacks(tmp_path):
    entry = {"name": "a", "python": "3.11", "model": "https://x.example/m.pkl"}
    done = fleet("run", "--slurm", written(tmp_path, [entry]), PATH="/nowhere")
    _, log = done.communicate()
    assert done.returncode == 2
    assert "there is no sbatch here: run numerai-fleet where" in log


def test_a_swarm_wants_to_know_where_predictions_go(tmp_path):
    entry = {"name": "a", "python": "3.11", "model": "https://x.example/m.pkl"}
    done = fleet("run", "--swarm", written(tmp_path, [entry]))
    _, log = done.communicate()
    assert done.returncode == 2
    assert "a: without post_url" in log and "--output_dir" in log


def test_a_wrong_manifest_starts_nothing(tmp_path):
    (tmp_path / "round.jsonl").write_text('{"name": "a"}\n{"name": \n')
    done = fleet("run", tmp_path / "round.jsonl")
    _, log = done.communicate()
    assert done.returncode == 2
    assert "line 1: 'model' is a required property" in log
    assert "line 2: no JSON" in log
    assert not (tmp_path / "round.jsonl.run").exists()


def test_help_names_the_exit_codes():
    for words in ((), ("run",)):
        shown, _ = fleet(*words, "--help").communicate()
        assert "exit codes:" in shown
