"""Docker Swarm: a replicated job for each batch.

A job has no way to tell a model's fault from the platform's, and starts whatever failed again, for ever.
Here nothing is tried again therefore; `run --swarm` knows better.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence

from numerai_fleet.engines.docker import CAPABILITIES
from numerai_fleet.manifest import Model
from numerai_fleet.render.batches import CACHE, Batch, Options, batches, flags, named_secrets

HEAD = """#!/bin/sh
# Starts the round {name} on the Swarm that this Docker engine manages.
# Results: docker service logs --raw {name}-0. Clean up: docker service rm, docker secret rm.
set -eu
cd "$(dirname "$0")"
parallel={parallel}
"""
# Longer than any round: what failed is not started again.
NEVER = "8760h"


def files(models: Sequence[Model], options: Options) -> dict[str, str]:
    """A script, and for each batch the manifest that it makes a secret of Swarm.

    Raises:
        ManifestError: see `batches`.
    """
    # Without a limit a job starts all of its tasks at once.
    parallel = options.parallel or "$((2 * $(docker node ls --quiet | wc -l)))"
    script = [HEAD.format(name=options.name, parallel=parallel)]
    found = {}
    for batch in batches(models, options):
        found[f"{batch.name}.jsonl"] = batch.manifest
        script += _commands(batch, options)
    return {f"{options.name}.sh": "".join(script), **found}


def _commands(batch: Batch, options: Options) -> Iterator[str]:
    digest = hashlib.sha256(batch.manifest.encode()).hexdigest()[:8]
    secret = f"{batch.name}-{digest}"
    yield f"\n{_line('docker secret create', secret, f'{batch.name}.jsonl')} > /dev/null\n"
    settings = [
        *("--detach", "--quiet", "--name", batch.name, "--user=0:0", "--read-only"),
        *("--mode=replicated-job", f"--replicas={len(batch.models)}", f"--restart-delay={NEVER}"),
        *("--cap-drop=ALL", *(f"--cap-add={name}" for name in CAPABILITIES)),
        *("--mount=type=tmpfs,destination=/tmp,tmpfs-mode=1777", f"--limit-memory={batch.memory}"),
        "--env=NUMERAI_PREDICT_TASK_SLOT={{.Task.Slot}}",
        f"--secret=source={secret},target=numerai-manifest,mode=0400",
        *(f"--secret=source={name},target={name},mode=0400" for name in named_secrets(batch)),
    ]
    if options.cache_dir:
        settings.append(f"--mount=type=bind,source={options.cache_dir},destination={CACHE}")
    create = _line("docker service create", *settings)
    command = [batch.image, "--manifest=/run/secrets/numerai-manifest", *flags(batch, options)]
    yield f'{create} \\\n  --max-concurrent="$parallel" \\\n  {shlex.join(command)}\n'


def _line(command: str, *args: str) -> str:
    return " \\\n  ".join((command, *map(shlex.quote, args)))
