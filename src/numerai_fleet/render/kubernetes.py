"""Kubernetes: an Indexed Job for each batch, and a policy for their network.

Fields are those of its API, batch/v1 and networking.k8s.io/v1; backoffLimitPerIndex and FailIndex want
Kubernetes 1.29 or later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import yaml

from numerai_fleet import verdicts
from numerai_fleet.engines import kubernetes_pod
from numerai_fleet.engines.kubernetes_pod import CONTAINER, labels, network_policy
from numerai_fleet.manifest import Model
from numerai_fleet.render.batches import CACHE, Batch, Options, batches, flags, named_secrets


def files(models: Sequence[Model], options: Options) -> dict[str, str]:
    """One file, for `kubectl apply`. It holds secrets.

    Raises:
        ManifestError: see `batches`.
    """
    metadata = _metadata(options.name, options)
    entries = [model.entry for model in models]
    documents = [network_policy(metadata, labels(options.name), entries)]
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
                            "containerName": CONTAINER,
                            "operator": "In",
                            "values": final,
                        },
                    },
                ]
            },
            "ttlSecondsAfterFinished": options.ttl,
            "template": {
                "metadata": {"labels": labels(options.name)},
                "spec": _pod(batch, secret, options),
            },
        },
    }


def _pod(batch: Batch, secret: str, options: Options) -> dict[str, Any]:
    named = [kubernetes_pod.named_secret(name) for name in named_secrets(batch)]
    folders = {CACHE: options.cache_dir} if options.cache_dir else {}
    container = kubernetes_pod.container(batch.image, flags(batch, options), batch.memory)
    spec = kubernetes_pod.spec(container, secret, named, folders)
    return {**spec, "activeDeadlineSeconds": options.deadline}


def _metadata(name: str, options: Options) -> dict[str, Any]:
    return {"name": name, "labels": labels(options.name)}
