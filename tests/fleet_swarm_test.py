"""A round of models on a Docker Swarm: each ends once, with its own code, whoever dies meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import swarm_bed
from fleet_round import CODES, SECRET, described, each_ended_once, fleet, line, serving, written


@pytest.fixture(scope="module")
def nodes(archive: Path) -> Iterator[list[swarm_bed.Node]]:
    missing = [name for name in ("dockerd", "ip", "nsenter") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"three engines on one machine want root{' and '.join(['', *missing])}")
    with swarm_bed.swarm(3, [archive]) as nodes:
        yield nodes


def test_a_swarm_runs_what_was_rendered(nodes, docker_image, tmp_path):
    codes = {"good-0": 0, "good-1": 0, "raises": 1, "refused": 8}
    with serving(tmp_path / "served", swarm_bed.GATEWAY) as server:
        lines = [line(server, docker_image, name, code, True) for name, code in codes.items()]
        manifest = written(tmp_path, lines)
        rendered = fleet("render", "swarm", manifest, "--output", tmp_path, "--name=rendered")
        assert rendered.wait() == 0, rendered.communicate()
        assert (tmp_path / "rendered-0.jsonl").stat().st_mode & 0o077 == 0
        env = {**os.environ, "DOCKER_HOST": nodes[0].host}
        subprocess.run(("sh", tmp_path / "rendered.sh"), env=env, check=True)
        told = nodes[0].docker("service", "inspect", "rendered-0")
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
    assert SECRET not in told + said


def test_what_goes_on_can_be_stopped_and_started_anew(nodes, docker_image, tmp_path):
    env = {"DOCKER_HOST": nodes[0].host}
    folder = tmp_path / "round"
    with serving(tmp_path / "served", swarm_bed.GATEWAY) as server:
        names = ("held-0", "held-1")
        lines = [line(server, docker_image, name, 0, True) for name in names]
        run = ("run", "--engine=swarm", written(tmp_path, lines), "--folder", folder)
        with fleet(*run, **env) as interrupted:
            while server.seen["GET /held/good.pkl"] < 2:
                assert interrupted.poll() is None, interrupted.communicate()
                time.sleep(0.1)
            interrupted.send_signal(signal.SIGINT)
            _, log = interrupted.communicate()
        assert interrupted.returncode == 130, log
        running = [node.docker("ps", "--format={{.Labels}}") for node in nodes]
        assert str(running).count("held-") == 2

        stopped = fleet("stop", folder, **env)
        _, log = stopped.communicate()
        assert stopped.returncode == 0, log
        assert not any(node.docker("ps", "--quiet") for node in nodes)
        assert not nodes[0].docker("service", "ls", "--quiet")
        assert not nodes[0].docker("secret", "ls", "--quiet")
        server.released.set()
        done = fleet(*run, **env)
        _, log = done.communicate()
    assert done.returncode == 0, log
    assert [server.seen[f"POST /ok/{name}"] for name in names] == [1, 1]


# The last one on these nodes.
def test_a_round_on_a_swarm_whose_submitter_and_node_die(nodes, docker_image, tmp_path):
    folder = tmp_path / "round"
    journal = folder / "journal.jsonl"
    manager, _, doomed = nodes
    # They run until the node is dead: its share of them is lost. Two nodes have not processors enough
    # for them; three have some left for other models.
    processors = int(manager.docker("info", "--format={{.NCPU}}"))
    codes = {f"held-{number}": 0 for number in range(2 * processors + 1)}
    codes |= {name: code for name, code in CODES.items() if name != "meddles"}
    with serving(tmp_path / "served", swarm_bed.GATEWAY) as server:
        lines = [line(server, docker_image, name, code, True) for name, code in codes.items()]
        run = ("run", "--engine=swarm", written(tmp_path, lines), "--folder", folder, "--retries=2")

        with fleet(*run, DOCKER_HOST=manager.host) as killed:
            while not journal.exists() or journal.read_text().count('"ended"') < 3:
                assert killed.poll() is None, killed.communicate()
                time.sleep(0.05)
            killed.send_signal(signal.SIGKILL)
        told = described(
            lambda: manager.docker("service", "ls", "--quiet").split(),
            lambda *services: manager.docker("service", "inspect", *services),
        )
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
        mounts = ("-v", f"{server.folder}:/in:ro", "-v", f"{tmp_path}:/alone")
        alone = manager.docker(
            *("run", "--rm", *mounts, "--user=0", docker_image),
            *("--model=/in/good.pkl", "--dataset=/in/live.parquet", "--output_dir=/alone"),
        )
    assert done.returncode == 3, log
    each_ended_once(folder, codes, server, log)
    (single,) = tmp_path.glob("live_predictions-*.csv")
    for name in (*(f"good-{number}" for number in range(4)), "nosy", "heals", "held-0"):
        assert single.read_bytes() in server.uploads[name], name
    # Each node downloaded the data once, whatever its signatures.
    assert server.seen["GET /live.parquet"] <= len(nodes)
    assert not left
    for text in (told, said, log, alone):
        assert SECRET not in text


def test_a_swarm_wants_to_know_where_predictions_go(tmp_path):
    entry = {"name": "a", "python": "3.11", "model": "https://x.example/m.pkl"}
    done = fleet("run", "--engine=swarm", written(tmp_path, [entry]))
    _, log = done.communicate()
    assert done.returncode == 2
    assert "a: without post_url" in log and "--output_dir" in log
