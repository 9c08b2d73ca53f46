"""A round of models by Slurm: each ends once, with its own code, whoever dies meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time

import pyarrow.parquet as pq
import pytest

import slurm_bed
from fleet_round import CODES, SECRET, each_ended_once, fleet, line, serving, written


def test_a_round_on_slurm_whose_submitter_and_node_die(archive, description, command, tmp_path):
    missing = [name for name in (*slurm_bed.PROGRAMS, "runc") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"a Slurm cluster on one machine wants root{' and '.join(['', *missing])}")
    # These run until their node is dead.
    codes = {"held-0": 0, "held-1": 0, **CODES}
    image = description["reference"]
    with (
        # Unpacked images are large; nodes use them to the last.
        tempfile.TemporaryDirectory() as bundles,
        slurm_bed.cluster(2) as cluster,
        serving(tmp_path / "served", "127.0.0.1") as server,
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
    lost = each_ended_once(folder, codes, server, log)
    assert "held-0" in lost, log
    assert server.seen["GET /live.parquet"] == 1

    # What stayed here, and what was uploaded, is what the model predicts alone.
    alone = tmp_path / "alone"
    alone.mkdir()
    alone.chmod(0o777)
    flags = (f"--model={server.folder}/good.pkl", f"--dataset={server.folder}/live.parquet")
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


def test_slurm_runs_what_was_rendered(archive, description, tmp_path):
    missing = [name for name in (*slurm_bed.PROGRAMS, "runc") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"a Slurm cluster on one machine wants root{' and '.join(['', *missing])}")
    codes = {"good-0": 0, "raises": 1, "refused": 8}
    with (
        tempfile.TemporaryDirectory() as bundles,
        slurm_bed.cluster(1) as cluster,
        serving(tmp_path / "served", "127.0.0.1") as server,
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
