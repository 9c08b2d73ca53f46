"""AWS Batch: a job definition for each batch, and an array job of it.

Fields are those of its API, RegisterJobDefinition and SubmitJob.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from numerai_fleet.manifest import Model
from numerai_fleet.render.batches import CACHE, Batch, Options, batches, flags

MANIFEST = "NUMERAI_PREDICT_MANIFEST"
# Batch takes five rules at most, the first that fits counts, and of a code only the beginning can be
# given: 7 and 70 begin alike, and no code of a model's own fault does.
RULES = [
    {"action": "RETRY", "onStatusReason": "Host EC2*"},
    {"action": "RETRY", "onExitCode": "7*"},
    {"action": "RETRY", "onExitCode": "8"},
    {"action": "RETRY", "onExitCode": "137"},  # killed from outside
    {"action": "EXIT", "onExitCode": "*"},
]


def files(
    models: Sequence[Model], options: Options, manifests: str, execution_role: str, queue: str
) -> dict[str, str]:
    """For each batch its manifest, which holds secrets; and as JSON the inputs of `aws batch
    register-job-definition` and `aws batch submit-job`.

    A job's command and environment can be read by whoever may describe jobs; so a job gets the
    (presigned) address of its manifest from a secret of AWS.

    Args:
        manifests: ARN of a secret in Secrets Manager that holds these addresses, by batches' names.
        execution_role: ARN of the role that may read it.
        queue: job queue, name or ARN.

    Raises:
        ManifestError: see `batches`.
    """
    found = {}
    for batch in batches(models, options):
        definition = _definition(batch, options, f"{manifests}:{batch.name}::", execution_role)
        found[f"{batch.name}.jsonl"] = batch.manifest
        found[f"{batch.name}.definition.json"] = json.dumps(definition, indent=2) + "\n"
        found[f"{batch.name}.job.json"] = json.dumps(_job(batch, queue), indent=2) + "\n"
    return found


def _job(batch: Batch, queue: str) -> dict[str, Any]:
    job: dict[str, Any] = {
        "jobName": batch.name,
        "jobDefinition": batch.name,
        "jobQueue": queue,
    }
    if len(batch.models) > 1:
        job["arrayProperties"] = {"size": len(batch.models)}
    return job


def _definition(batch: Batch, options: Options, manifest: str, role: str) -> dict[str, Any]:
    container: dict[str, Any] = {
        "image": batch.image,
        "command": flags(batch, options),
        "user": "0:0",
        "executionRoleArn": role,
        "readonlyRootFilesystem": True,
        "resourceRequirements": [
            {"type": "VCPU", "value": "1"},
            {"type": "MEMORY", "value": str(-(-batch.memory >> 20))},
        ],
        "secrets": [{"name": MANIFEST, "valueFrom": manifest}],
        "linuxParameters": {
            "tmpfs": [{"containerPath": "/tmp", "size": 1024, "mountOptions": ["mode=1777"]}]
        },
    }
    if options.cache_dir:
        container["volumes"] = [{"name": "cache", "host": {"sourcePath": options.cache_dir}}]
        container["mountPoints"] = [{"sourceVolume": "cache", "containerPath": CACHE}]
    return {
        "jobDefinitionName": batch.name,
        "type": "container",
        "platformCapabilities": ["EC2"],
        "retryStrategy": {"attempts": 1 + options.retries, "evaluateOnExit": RULES},
        "timeout": {"attemptDurationSeconds": options.deadline},
        "containerProperties": container,
    }
