"""Kubernetes: an Indexed Job for each batch, and a policy for their network.

Fields are those of its API, batch/v1 and networking.k8s.io/v1; backoffLimitPerIndex and FailIndex want
Kubernetes 1.29 or later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import yaml

from numerai_fleet import verdicts
from numerai_fleet.engines.docker import CAPABILITIES
from numerai_fleet.manifest import Model
from numerai_fleet.render.batches import CACHE, Batch, Options, batches, flags, named_secrets

# Addresses of a cloud's own services on its nodes, which hand out the nodes' credentials.
LINK_LOCAL = {"0.0.0.0/0": "169.254.0.0/16", "::/0": "fe80::/10"}


def files(models: Sequence[Model], options: Options) -> dict[str, str]:
    """One file, for `kubectl apply`. It holds secrets.

    Raises:
        ManifestError: see `batches`.
    """
    documents = [_network_policy(models, options)]
    for batch in batches(models, options):
        documents += _secret_and_job(batch, options)
    return {f"{options.name}.yaml": yaml.safe_dump_all(documents, sort_keys=False)}


def _secret_and_job(batch: Batch, options: Options) -> list[dict[str, Any]]:
    # A changed manifest is another Secret: a Job cannot be changed, and its own must not.
    digest = hashlib.sha256(batch.manifest.encode()).hexdigest()[:8]
    name = f"{batch.name}-{digest}"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(name, options),
        "immutable": True,
        "stringData": {"manifest.jsonl": batch.manifest},
    }
    return [secret, _job(batch, name, options)]


def _job(batch: Batch, secret: str, options: Options) -> dict[str, Any]:
    count = len(batch.models)
    final = sorted(verdicts.FINAL - {0})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(batch.name, options),
        "spec": {
            "completionMode": "Indexed",
            "completions": count,
            "parallelism": min(count, options.parallel or count),
            "backoffLimitPerIndex": options.retries,
            # One model's end is no reason to give up on the others.
            "maxFailedIndexes": count,
            "podFailurePolicy": {
                "rules": [
                    # A node that is drained is no try.
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                    # What else there is, 7, 8 and 70 among it, counts as a try, and is tried again.
                    {
                        "action": "FailIndex",
                        "onExitCodes": {
                            "containerName": "predictor",
                            "operator": "In",
                            "values": final,
                        },
                    },
                ]
            },
            "ttlSecondsAfterFinished": options.ttl,
            "template": {
                "metadata": {"labels": _labels(options)},
                "spec": _pod(batch, secret, options),
            },
        },
    }


def _pod(batch: Batch, secret: str, options: Options) -> dict[str, Any]:
    mounts = [
        {"name": "manifest", "mountPath": "/run/numerai", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "manifest", "secret": {"secretName": secret, "defaultMode": 0o400}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if named := named_secrets(batch):
        mounts.append({"name": "secrets", "mountPath": "/run/secrets", "readOnly": True})
        sources = [
            {"secret": {"name": name, "items": [{"key": "value", "path": name}]}} for name in named
        ]
        projected = {"defaultMode": 0o400, "sources": sources}
        volumes.append({"name": "secrets", "projected": projected})
    if options.cache_dir:
        mounts.append({"name": "cache", "mountPath": CACHE})
        path = {"path": options.cache_dir, "type": "DirectoryOrCreate"}
        volumes.append({"name": "cache", "hostPath": path})
    return {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": options.deadline,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{**_container(batch, options), "volumeMounts": mounts}],
        "volumes": volumes,
    }


def _container(batch: Batch, options: Options) -> dict[str, Any]:
    resources = {"cpu": "1", "memory": str(batch.memory)}
    return {
        "name": "predictor",
        "image": batch.image,
        "args": ["--manifest=/run/numerai/manifest.jsonl", *flags(batch, options)],
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


def _network_policy(models: Sequence[Model], options: Options) -> dict[str, Any]:
    """Out to the ports that the manifest names and to name servers, and in from nowhere."""
    numbers = sorted({80, 443, *(port for model in models for port in _ports(model))})
    to = [{"ipBlock": {"cidr": cidr, "except": [local]}} for cidr, local in LINK_LOCAL.items()]
    ports = [{"protocol": "TCP", "port": number} for number in numbers]
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(options.name, options),
        "spec": {
            "podSelector": {"matchLabels": _labels(options)},
            "policyTypes": ["Ingress", "Egress"],
            "egress": [{"to": to, "ports": ports}, {"ports": dns}],
        },
    }


def _ports(model: Model) -> Iterator[int]:
    for value in model.entry.values():
        if isinstance(value, str) and "://" in value and (port := urlsplit(value).port):
            yield port


def _metadata(name: str, options: Options) -> dict[str, Any]:
    return {"name": name, "labels": _labels(options)}


def _labels(options: Options) -> dict[str, str]:
    return {"app.kubernetes.io/name": "numerai-predict", "numerai-fleet/run": options.name}
