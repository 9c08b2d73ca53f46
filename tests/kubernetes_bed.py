"""A Kubernetes of several nodes on one machine: Debian's 1.20, the last whose kubelet speaks to Docker by
itself, as build-support/kubernetes/build leaves it. Wants root, Docker and etcd.

Alone it keeps a cluster up until its standard input ends:

    python tests/kubernetes_bed.py 2 image.tar …
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from node_bed import Bed, Node, ip, started

BED = Bed("kube", "10.213.8")
GATEWAY = BED.gateway
# Where the cluster's heart is: at the switch.
CONTROL = f"{BED.network}.2"
SERVER = f"https://{CONTROL}:6443"
NAMESPACE = "numerai"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "numerai-kubernetes")
KUBE, PAUSE = CACHE / "kube", CACHE / "pause"
# What numerai-fleet may, as docs/fleet.md has it.
RIGHTS = [
    ("", ["pods"], ["create", "delete", "deletecollection", "get", "list"]),
    ("", ["pods/log"], ["get"]),
    ("", ["secrets"], ["create", "delete", "deletecollection"]),
    ("networking.k8s.io", ["networkpolicies"], ["create", "deletecollection"]),
]


# A kubelet wants its containers to be killed for memory after all others, which root may be forbidden.
RUNTIME = """#!/bin/sh
for word; do
  [ "$before" != --bundle ] || sed -i 's/"oomScoreAdj":-[0-9]*/"oomScoreAdj":0/' "$word/config.json"
  before=$word
done
exec runc "$@"
"""


class Worker(Node):
    """An engine, and the kubelet that it belongs to."""

    # Two kubelets would clean up each other's logs, whose folder cannot be chosen.
    within = ("unshare", "--mount")

    def join(self, kubeconfig: Path) -> None:
        home = self._folder / "run/kubelet"
        for name in ("logs", "pki"):
            (home / name).mkdir(parents=True)
        self.docker("import", '--change=ENTRYPOINT ["/pause"]', _tar(PAUSE, home), "pause:bed")
        mounts = (
            "nsenter",
            f"--net=/run/netns/{self.name}",
            f"--mount=/proc/{self._engine.pid}/ns/mnt",
        )
        log = f"mount --bind {home}/logs /var/log"
        flags = [
            *(f"--kubeconfig={kubeconfig}", f"--root-dir={home}", f"--cert-dir={home}/pki"),
            *(f"--hostname-override={self.name}", f"--node-ip={self.address}"),
            *("--container-runtime=docker", f"--docker-endpoint={self.host}"),
            *(
                "--pod-infra-container-image=pause:bed",
                f"--container-runtime-endpoint=unix://{home}/shim",
            ),
            f"--experimental-dockershim-root-directory={home}/dockershim",
            *("--cgroup-driver=cgroupfs", "--cgroups-per-qos=false", "--enforce-node-allocatable="),
            *("--fail-swap-on=false", "--make-iptables-util-chains=false"),
            # No node is short of room here, whatever the machine's disk says.
            *("--eviction-hard=nodefs.available<1Mi", "--image-gc-high-threshold=100"),
            *("--resolv-conf=", "--node-status-update-frequency=2s"),
        ]
        self._kubelet = subprocess.Popen(
            (*mounts, "sh", "-c", f'{log} && exec "$@"', "sh", KUBE, "kubelet", *flags),
            stdout=(self._folder / "kubelet.log").open("w"),
            stderr=subprocess.STDOUT,
        )

    def _options(self) -> list[str]:
        runtime = self._folder / "runtime"
        runtime.write_text(RUNTIME)
        runtime.chmod(0o755)
        return [f"--add-runtime=bed={runtime}", "--default-runtime=bed"]

    def die(self) -> None:
        super().die()
        if hasattr(self, "_kubelet"):
            self._kubelet.wait()


class Cluster:
    """Args:
    nodes: that joined it.
    kubeconfig: of a user who has RIGHTS in NAMESPACE, and no others.
    """

    def __init__(self, nodes: list[Worker], kubeconfig: Path, admin: str) -> None:
        self.nodes = nodes
        self.kubeconfig = kubeconfig
        self._admin = admin
        # Its certificate is its own.
        self._context = ssl._create_unverified_context()
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._context)
        )

    def api(
        self, path: str, body: dict[str, Any] | None = None, method: str = ""
    ) -> dict[str, Any]:
        """As an administrator."""
        headers = {"Authorization": f"Bearer {self._admin}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(SERVER + path, data, headers)
        request.method = method or request.get_method()
        with self._open.open(request, timeout=30) as answer:
            return json.load(answer)

    def objects(self, kind: str, api: str = "api/v1") -> list[dict[str, Any]]:
        """In NAMESPACE."""
        return self.api(f"/{api}/namespaces/{NAMESPACE}/{kind}")["items"]

    def log(self, pod: str) -> str:
        headers = {"Authorization": f"Bearer {self._admin}"}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/log"
        with self._open.open(urllib.request.Request(SERVER + path, headers=headers)) as answer:
            return answer.read().decode()


@contextmanager
def cluster(count: int, archives: Sequence[Path]) -> Iterator[Cluster]:
    """`count` nodes, which have these images."""
    with ExitStack() as cleanup:
        nodes = cleanup.enter_context(started(BED, count, archives, Worker))
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="kube-control-")))
        admin, user = _kubeconfig(folder / "admin"), _kubeconfig(folder / "user")
        tokens = f"{admin},admin,1,system:masters\n{user},fleet,2\n"
        (folder / "tokens").write_text(tokens)
        ip(f"-n {BED.switch} addr add {CONTROL}/24 dev switch")
        ip(f"-n {BED.switch} link set lo up")
        found = Cluster(nodes, folder / "user", admin)
        system = "/api/v1/namespaces/kube-system"
        for name, argv in _control(folder).items():
            process = subprocess.Popen(
                ("nsenter", f"--net=/run/netns/{BED.switch}", *argv),
                stdout=(folder / f"{name}.log").open("w"),
                stderr=subprocess.STDOUT,
            )
            cleanup.callback(process.wait)
            cleanup.callback(process.kill)
            if name == "kube-apiserver":
                # The others give up where it does not answer in time.
                _wait("the API server", lambda: found.api(system), folder)
        for path, body in _objects():
            found.api(path, body)
        for node in nodes:
            node.join(folder / "admin")
        # Pods want it to be there.
        account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
        _wait("the service account", lambda: found.api(account), folder)
        _wait("the nodes", lambda: _ready(found) == count, folder)
        yield found


def _control(folder: Path) -> dict[str, tuple[str | Path, ...]]:
    """What a cluster's heart is made of."""
    key = folder / "accounts.key"
    subprocess.run(("openssl", "genrsa", "-out", key, "2048"), check=True, capture_output=True)
    etcd = f"http://{CONTROL}:2379"
    peers = f"http://{CONTROL}:2380"
    kubeconfig = f"--kubeconfig={folder}/admin"
    return {
        "etcd": (
            *("etcd", f"--data-dir={folder}/etcd", f"--initial-cluster=default={peers}"),
            *(f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}"),
            *(f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"),
        ),
        "kube-apiserver": (
            *(KUBE, "kube-apiserver", f"--etcd-servers={etcd}", f"--bind-address={CONTROL}"),
            *(f"--cert-dir={folder}/pki", f"--token-auth-file={folder}/tokens"),
            *("--authorization-mode=RBAC", "--service-account-issuer=bed"),
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            *("--service-cluster-ip-range=10.214.0.0/24", "--endpoint-reconciler-type=none"),
            # Nodes have no names that anybody knows.
            "--kubelet-preferred-address-types=InternalIP",
        ),
        "kube-controller-manager": (
            *(KUBE, "kube-controller-manager", kubeconfig, "--port=0", "--secure-port=0"),
            *("--leader-elect=false", f"--service-account-private-key-file={key}"),
            "--controllers=nodelifecycle,podgc,namespace,serviceaccount,serviceaccount-token",
            # Nodes are thought to be dead sooner than after 40 s.
            *("--node-monitor-period=2s", "--node-monitor-grace-period=16s"),
        ),
        "kube-scheduler": (
            *(KUBE, "kube-scheduler", kubeconfig, "--port=0", "--secure-port=0"),
            "--leader-elect=false",
        ),
    }


def _objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """The namespace, and what its user may; by the addresses that they are posted to."""
    yield "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
    rules = [
        {"apiGroups": [group], "resources": resources, "verbs": verbs}
        for group, resources, verbs in RIGHTS
    ]
    yield f"{rbac}/roles", {"metadata": {"name": "fleet"}, "rules": rules}
    kind = {"apiGroup": "rbac.authorization.k8s.io"}
    yield (
        f"{rbac}/rolebindings",
        {
            "metadata": {"name": "fleet"},
            "roleRef": {**kind, "kind": "Role", "name": "fleet"},
            "subjects": [{**kind, "kind": "User", "name": "fleet"}],
        },
    )


def _kubeconfig(path: Path) -> str:
    """Writes one; returns its token."""
    token = secrets.token_hex(16)
    cluster = {"server": SERVER, "insecure-skip-tls-verify": True}
    context = {"cluster": "bed", "user": "user", "namespace": NAMESPACE}
    content = {
        "clusters": [{"name": "bed", "cluster": cluster}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "bed", "context": context}],
        "current-context": "bed",
    }
    path.write_text(json.dumps(content))  # which is YAML, too
    return token


def _ready(cluster: Cluster) -> int:
    conditions = [
        condition
        for node in cluster.api("/api/v1/nodes")["items"]
        for condition in node["status"].get("conditions", ())
    ]
    return sum(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _wait(what: str, until: Callable[[], object], folder: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            if until():
                return
        except (urllib.error.URLError, ConnectionError):
            pass
        logs = "\n".join(path.read_text()[-1500:] for path in folder.glob("*.log"))
        assert time.monotonic() < deadline, f"{what} did not come:\n{logs}"
        time.sleep(0.3)


def _tar(program: Path, folder: Path) -> Path:
    archive = folder / f"{program.name}.tar"
    subprocess.run(("tar", "-cf", archive, "-C", program.parent, program.name), check=True)
    return archive


def main() -> None:
    with cluster(int(sys.argv[1]), [Path(archive) for archive in sys.argv[2:]]) as found:
        print(found.kubeconfig, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
