"""An array job: a folder with all that its tasks need, and the script that Slurm runs for each.

array.sh    to be given to sbatch
input       what each task reads from its standard input, such as the manifest; for its owner alone
N           task N's: an OCI bundle; out, what it leaves; taken, made by whoever takes it up
N.log       what it said
ended/N     its exit code, once it has ended
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from numerai_fleet.engines import bundle
from numerai_fleet.engines.unpacked import Unpacked

ENDED, INPUT, OUT, SCRIPT, TAKEN = "ended", "input", "out", "array.sh", "taken"


@dataclass(frozen=True)
class Task:
    """Args:
    flags: the predictor's.
    out: the folder that it leaves things in; None is one of its own.
    files: what it gets to read, by its path in the container.
    """

    image: Unpacked
    flags: Sequence[str]
    out: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


def write(
    folder: Path,
    name: str,
    tasks: Sequence[Task],
    input: str,
    memory: int | None,
    env: Mapping[str, str],
    parallel: int | None = None,
) -> Path:
    """Writes the folder of an array job; returns the script.

    Args:
        folder: that all nodes see, at this path.
        name: the job's.
        memory: bytes for each task; None where Slurm does not keep account of it.
        env: the tasks' environment.
        parallel: how many of them at once; None is as many as there is room for.
    """
    for number, task in enumerate(tasks):
        place = folder / str(number)
        place.mkdir(parents=True)
        out = task.out or place / OUT
        out.mkdir(exist_ok=True)
        own = {**env, "SLURM_ARRAY_TASK_ID": str(number)}
        config = bundle.config(task.image, task.flags, own, out, task.files)
        (place / "config.json").write_text(json.dumps(config, indent=1))
    (folder / ENDED).mkdir()
    path = folder / SCRIPT
    path.write_text(script(folder, name, len(tasks), memory, parallel))
    # The last of all, and whole at once: what has it is whole, too.
    new = folder / f".{INPUT}"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(input)
    new.rename(folder / INPUT)
    return path


def script(
    folder: Path, name: str, count: int, memory: int | None, parallel: int | None = None
) -> str:
    """What sbatch takes for the `count` tasks whose bundles are in the folder; see `write`."""
    reserved = "" if memory is None else f"\n#SBATCH --mem={-(-memory >> 20)}M"
    at_once = "" if parallel is None else f"%{parallel}"
    return f"""#!/bin/sh
#SBATCH --job-name={name}
#SBATCH --array=0-{count - 1}{at_once}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1{reserved}
#SBATCH --no-requeue
#SBATCH --export=PATH
#SBATCH --output="{folder}/%a.log"

# Task N runs the OCI bundle N on the input beside it, and leaves its exit code in ended/N.
cd {shlex.quote(str(folder))}/"$SLURM_ARRAY_TASK_ID" || exit 1
# Never twice, whatever Slurm or another submitter do.
mkdir {TAKEN} || exit 1

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
# crun refuses a node that has control groups of both versions; runc, users other than root, because it
# wants one in the container.
if command -v crun > /dev/null && [ ! -d /sys/fs/cgroup/unified ]; then
  runtime="crun --cgroup-manager=disabled"
elif command -v runc > /dev/null && [ "$(id -u)" = 0 ]; then
  runtime=runc
else
  echo "$(hostname) has no runtime that works there for $(id -un): install crun, or runc for root" >&2
  exit 1
fi
state=$(mktemp -d) || exit 1
container={name}-$SLURM_ARRAY_TASK_ID
# With this script, the container goes too. Slurm ends it by SIGTERM.
trap '$runtime --root "$state" delete --force $container; rm -rf "$state"' EXIT
trap 'exit 1' TERM

$runtime --root "$state" run --bundle . $container < ../{INPUT} &
wait $!
code=$?
echo $code > ../{ENDED}/.$SLURM_ARRAY_TASK_ID
ln ../{ENDED}/.$SLURM_ARRAY_TASK_ID ../{ENDED}/$SLURM_ARRAY_TASK_ID
"""
