"""A round of models on Kubernetes, with faults of each kind, a submitter that is killed and a node that
dies: each model ends once, with its own code, and predicts what it predicts alone."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kubernetes_bed
from fleet_round import (
    CODES,
    SECRET,
    Server,
    each_ended_once,
    fleet,
    line,
    results,
    serving,
    written,
)
from kubernetes_bed import CONTROL, GATEWAY, KUBE, NAMESPACE, Cluster

# With a tag that is not `latest` no registry is asked for it.
IMAGE = "numerai-predict:bed"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"


@pytest.fixture(scope="module")
def cluster(archive: Path, description: dict[str, Any]) -> Iterator[Cluster]:
    if not KUBE.exists():
        pytest.skip(f"no Kubernetes in {KUBE.parent}: `make kubernetes` builds it")
    programs = ("dockerd", "etcd", "ip", "nsenter", "openssl", "unshare")
    missing = [name for name in programs if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"a cluster on one machine wants root{' and '.join(['', *missing])}")
    with kubernetes_bed.cluster(2, [archive]) as cluster:
        for node in cluster.nodes:
            node.docker("tag", description["reference"], IMAGE)
        yield cluster


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "served", GATEWAY) as server:
        yield server


@pytest.fixture
def env(cluster: Cluster) -> dict[str, str]:
    return {"KUBECONFIG": str(cluster.kubeconfig), "NO_PROXY": CONTROL, "no_proxy": CONTROL}


def left(cluster: Cluster, folder: Path) -> list[str]:
    """What the namespace still has of a run."""
    run = (folder / "run-id").read_text()
    objects = [
        *(*cluster.objects("pods"), *cluster.objects("secrets")),
        *cluster.objects("networkpolicies", "apis/networking.k8s.io/v1"),
    ]
    return [each["metadata"]["name"] for each in objects if run in each["metadata"]["name"]]


def held(cluster: Cluster) -> dict[str, list[dict[str, Any]]]:
    """Pods that wait for their model, by their nodes."""
    found: dict[str, list[dict[str, Any]]] = {node.name: [] for node in cluster.nodes}
    for pod in cluster.objects("pods"):
        name = _of(pod)
        if name.startswith("held-") and pod["status"]["phase"] == "Running":
            found[pod["spec"]["nodeName"]].append(pod)
    return found


def wait(submitter: subprocess.Popen[str], until: Callable[[], object]) -> None:
    while not until():
        assert submitter.poll() is None, submitter.communicate()
        time.sleep(0.1)


def test_what_goes_on_can_be_stopped_and_what_vanished_is_tried_again(
    cluster, env, server, tmp_path
):
    folder = tmp_path / "round"
    journal = folder / "journal.jsonl"
    lines = [line(server, IMAGE, f"held-{number}", 0, True) for number in range(2)]
    run = ("run", "--engine=kubernetes", written(tmp_path, lines), "--folder", folder)

    def started() -> int:
        return journal.read_text().count('"started"') if journal.exists() else 0

    with fleet(*run, **env) as interrupted:
        wait(interrupted, lambda: server.seen["GET /held/good.pkl"] == 2)
        # A kubelet tells later what its containers do.
        wait(interrupted, lambda: sum(map(len, held(cluster).values())) == 2)
        doomed, *_ = [pod for pods in held(cluster).values() for pod in pods]
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{doomed['metadata']['name']}"
        cluster.api(path, method="DELETE")
        wait(interrupted, lambda: started() == 3 and server.seen["GET /held/good.pkl"] == 3)
        wait(interrupted, lambda: sum(map(len, held(cluster).values())) == 2)
        interrupted.send_signal(signal.SIGINT)
        _, log = interrupted.communicate()
    assert interrupted.returncode == 130, log
    assert re.search("held-[01]: lost, is tried again", log)
    assert len(left(cluster, folder)) == 5  # two Pods with a Secret each, and a policy

    stopped = fleet("stop", folder, **env)
    _, log = stopped.communicate()
    assert stopped.returncode == 0, log
    assert not left(cluster, folder)
    for node in cluster.nodes:
        assert "_predictor_" not in node.docker("ps", "--format={{.Names}}")
    server.released.set()
    done = fleet(*run, **env)
    _, log = done.communicate()
    assert done.returncode == 0, log
    assert sorted(row["tries"] for row in results(folder).values()) == [1, 2]
    assert started() == 5
    assert server.seen["POST /ok/held-0"] == server.seen["POST /ok/held-1"] == 1
    assert not left(cluster, folder)


def test_what_cannot_start_does_not_wait_for_ever(cluster, env, server, tmp_path):
    codes = {"no-image": None, "no-name": 2, "no-secret": 2, "by-secret": 0, "kept": 0}
    good = {name: line(server, IMAGE, f"good-{name}", 0, True) for name in codes}
    lines = [{**entry, "name": name} for name, entry in good.items()]
    by_name = {entry["name"]: entry for entry in lines}
    by_name["no-image"]["image"] = f"{GATEWAY}:1/gone:1"
    by_name["no-name"]["image"] = "No/Name:1"
    by_name["no-secret"]["model"] = {"secret": "nobodys"}
    value = base64.b64encode(by_name["by-secret"]["model"].encode()).decode()
    secret = {"metadata": {"name": "the-models"}, "data": {"value": value}}
    cluster.api(SECRETS, secret)
    by_name["by-secret"]["model"] = {"secret": "the-models"}
    del by_name["kept"]["post_url"], by_name["kept"]["post_data"]
    folder = tmp_path / "round"
    run = ("run", "--engine=kubernetes", written(tmp_path, lines), "--folder", folder)
    # On this machine all nodes see the same folders.
    done = fleet(*run, "--retries=0", "--output_dir", tmp_path / "out", **env)
    _, log = done.communicate()
    assert done.returncode == 3, log
    found = results(folder)
    assert {name: row["code"] for name, row in found.items()} == codes, found
    assert re.match("(ErrImagePull|ImagePullBackOff): ", found["no-image"]["message"])
    assert found["no-name"]["message"].startswith("InvalidImageName: ")
    assert "nobodys" in found["no-secret"]["message"]
    assert server.seen["POST /ok/good-by-secret"] == 1
    kept = (folder / "predictions/kept.csv").read_bytes()
    assert kept in server.uploads["good-by-secret"]
    assert not left(cluster, folder)
    # It is the user's.
    cluster.api(f"{SECRETS}/the-models", method="DELETE")


# The last one in this cluster.
def test_a_round_whose_submitter_and_node_die(cluster, env, server, tmp_path):
    # These run until their node is dead.
    codes = {f"held-{number}": 0 for number in range(3)}
    codes |= {name: code for name, code in CODES.items() if name != "meddles"}
    folder = tmp_path / "round"
    journal = folder / "journal.jsonl"
    lines = [line(server, IMAGE, name, code, True) for name, code in codes.items()]
    where = ("--folder", folder, "--cache_dir", tmp_path / "cache")
    run = ("run", "--engine=kubernetes", written(tmp_path, lines), *where)

    with fleet(*run, **env) as killed:
        wait(killed, lambda: journal.exists() and journal.read_text().count('"ended"') >= 3)
        killed.send_signal(signal.SIGKILL)
    pods = cluster.objects("pods")
    described = json.dumps(pods + cluster.objects("events"))
    begun = [pod for pod in pods if pod["status"]["phase"] != "Pending"]
    said = "".join(cluster.log(pod["metadata"]["name"]) for pod in begun)
    assert begun

    done = fleet(*run, **env)
    wait(done, lambda: any(held(cluster).values()))
    names = held(cluster)
    doomed = max(cluster.nodes, key=lambda node: len(names[node.name]))
    doomed.die()
    server.released.set()
    summary, log = done.communicate()
    assert done.returncode == 3, log
    lost = each_ended_once(folder, codes, server, log)
    assert {_of(pod) for pod in names[doomed.name]} <= lost, log

    # What was uploaded is what the model predicts alone.
    alive = next(node for node in cluster.nodes if node is not doomed)
    alive.docker(
        *("run", "--rm", "-v", f"{server.folder}:/in:ro", "-v", f"{tmp_path}:/alone", "--user=0"),
        *(IMAGE, "--model=/in/good.pkl", "--dataset=/in/live.parquet", "--output_dir=/alone"),
    )
    (single,) = tmp_path.glob("live_predictions-*.csv")
    for name in (*(f"good-{number}" for number in range(4)), "nosy", "heals", "held-0"):
        assert single.read_bytes() in server.uploads[name], name
    assert server.seen["GET /live.parquet"] <= len(cluster.nodes)
    assert not left(cluster, folder)
    for text in (described, said, summary, log):
        assert SECRET not in text


def _of(pod: dict[str, Any]) -> str:
    return pod["metadata"]["annotations"]["numerai-fleet/model"]
