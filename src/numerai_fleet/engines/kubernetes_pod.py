"""What Kubernetes is told of a model's container, and of its network: the same for Pods that `run` starts and
for Jobs that `render` describes.

Fields are those of its API, v1 and networking.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from numerai_fleet.engines.docker import CAPABILITIES, MANIFEST

RUN = "numerai-fleet/run"  # a label
CONTAINER = "predictor"
# Addresses of a cloud's own services on its nodes, which hand out the nodes' credentials.
LINK_LOCAL = {"0.0.0.0/0": "169.254.0.0/16", "::/0": "fe80::/10"}


def spec(
    container: dict[str, Any],
    secret: str,
    named: Sequence[dict[str, Any]],
    folders: Mapping[str, str],
) -> dict[str, Any]:
    """A Pod's.

    Args:
        container: see below.
        secret: has the container's manifest.
        named: what /run/secrets holds; see `named_secret`.
        folders: of its node, by their places in the container.
    """
    mounts = [
        {"name": "manifest", "mountPath": MANIFEST.rpartition("/")[0], "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "manifest", "secret": {"secretName": secret, "defaultMode": 0o400}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if named:
        mounts.append({"name": "secrets", "mountPath": "/run/secrets", "readOnly": True})
        projected = {"defaultMode": 0o400, "sources": [{"secret": each} for each in named]}
        volumes.append({"name": "secrets", "projected": projected})
    for place, folder in folders.items():
        name = place.strip("/")
        mounts.append({"name": name, "mountPath": place})
        path = {"path": folder, "type": "DirectoryOrCreate"}
        volumes.append({"name": name, "hostPath": path})
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{**container, "volumeMounts": mounts}],
        "volumes": volumes,
    }


def container(image: str, flags: Sequence[str], memory: int) -> dict[str, Any]:
    """Args:
    flags: the predictor's, beside --manifest.
    memory: bytes, of the whole container.
    """
    resources = {"cpu": "1", "memory": str(memory)}
    return {
        "name": CONTAINER,
        "image": image,
        "args": [f"--manifest={MANIFEST}", *flags],
        "resources": {"requests": resources, "limits": resources},
        # Root without root's rights but these, with which it makes the model another user, who
        # cannot read the manifest.
        "securityContext": {
            "runAsUser": 0,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
        },
    }


def named_secret(name: str) -> dict[str, Any]:
    """A Secret that a line refers to, as the file of that name."""
    return {"name": name, "items": [{"key": "value", "path": name}]}


def network_policy(
    metadata: dict[str, Any], selected: dict[str, str], entries: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """Out to the ports that a manifest's lines name and to name servers, and in from nowhere.

    Args:
        selected: labels of the Pods that it is for.
    """
    numbers = sorted({80, 443, *(port for entry in entries for port in _ports(entry))})
    to = [{"ipBlock": {"cidr": cidr, "except": [local]}} for cidr, local in LINK_LOCAL.items()]
    ports = [{"protocol": "TCP", "port": number} for number in numbers]
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": selected},
            "policyTypes": ["Ingress", "Egress"],
            "egress": [{"to": to, "ports": ports}, {"ports": dns}],
        },
    }


def labels(run: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "numerai-predict", RUN: run}


def _ports(entry: dict[str, Any]) -> Iterator[int]:
    for value in entry.values():
        if isinstance(value, str) and "://" in value and (port := urlsplit(value).port):
            yield port
