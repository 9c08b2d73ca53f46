"""What a run tells at its end: a summary, the same as JSON, and how to look into a failure."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from numerai_predict import __version__, errors
from numerai_predict.launcher import Options, Outcome
from numerai_predict.limits import ContainerMemory, format_bytes
from numerai_predict.sources import is_url

log = logging.getLogger(__name__)

_MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
PHASES = ("download", "start", "load", "predict", "validate", "upload")


def image_reference() -> str:
    """The image that this runs in, by its own word; its usual name elsewhere."""
    default = f"numerai_predict_py_{_MINOR.replace('.', '_')}"
    return os.environ.get("NUMERAI_PREDICT_IMAGE") or default


def release() -> str:
    """The git ref of a released image, else the version."""
    return os.environ.get("GIT_REF") or __version__


def summarize(options: Options, outcome: Outcome, seconds: float) -> None:
    """Log what a run that succeeded did, took and left."""
    phases = ", ".join(f"{name} {took:.2f} s" for name, took in _in_order(outcome))
    limit = options.limits.memory or ContainerMemory().limit
    of = f" of {format_bytes(limit)}" if limit else ""
    log.info(
        "Done: %d rows in %.2f s (%s); peak memory %s%s; predictions in %s",
        outcome.rows,
        seconds,
        phases,
        format_bytes(outcome.peak_memory),
        of,
        outcome.output,
    )
    if not options.post_url and _vanishes(options.output_dir):
        log.warning(
            "%s will vanish with the container: it is in no mounted folder. Keep it with\n\n"
            '    docker run -v "$PWD:$PWD" … --output_dir $PWD\n',
            outcome.output,
        )


def report_failure(error: errors.PredictError, debug: bool) -> None:
    """Log a failure: its name and message, its details; with `debug`, where it came from."""
    details = f"\n{error.details}" if error.details else ""
    log.error("%s: %s%s", error.name, error, details, exc_info=error if debug else None)


def suggest_debugging(options: Options) -> None:
    """Log the command that runs the same again on the user's own machine."""
    command = ["docker", "run", "-i", "--rm", "-v", '"$PWD:$PWD"', image_reference(), "--debug"]
    for flag in ("model", "dataset", "benchmarks"):
        source = getattr(options, flag)
        if is_url(source) or Path(source).is_file() or flag == "model":
            command += [f"--{flag}", f"$PWD/{shlex.quote(_file_name(source, flag))}"]
    if options.limits.memory:
        command += ["--memory", f"{options.limits.memory >> 20}MB"]
    if options.limits.seconds:
        command += ["--timeout", f"{options.limits.seconds:g}"]
    log.info("Debug your model locally:\n\n    %s\n", " ".join(command))


def result(
    error: errors.PredictError | None, outcome: Outcome, memory_limit: int | None
) -> dict[str, Any]:
    """What happened, for JSON."""
    return {
        "entry": outcome.entry,
        "code": error.code if error else errors.OK,
        "name": error.name if error else "ok",
        "message": str(error) if error else "",
        "details": error.details if error else "",
        "rows": outcome.rows,
        "output": str(outcome.output) if outcome.output else None,
        "phases": {name: round(seconds, 3) for name, seconds in _in_order(outcome)},
        "peak_memory": outcome.peak_memory,
        "memory_limit": memory_limit,
        "protections": {name: not reason for name, reason in outcome.protections.items()},
        "model": outcome.inspection,
        "image": {
            "reference": image_reference(),
            "version": release(),
            "python": sys.version.split()[0],
        },
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON.

    Raises:
        UsageError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
        temporary.replace(path)
    except OSError as failure:
        raise errors.UsageError(f"cannot write --result {path}: {failure.strerror}") from failure


def _in_order(outcome: Outcome) -> list[tuple[str, float]]:
    return [(name, outcome.phases[name]) for name in PHASES if name in outcome.phases]


def _file_name(source: str, default: str) -> str:
    if not is_url(source):
        return Path(source).name
    # No query: it is a secret, and of no use for a local file.
    return Path(source.partition("?")[0]).name or f"{default}.pkl"


def _vanishes(folder: Path) -> bool:
    """Whether a folder is the container's own, and not one that was mounted into it."""
    if "NUMERAI_PREDICT_IMAGE" not in os.environ:
        return False
    real = str(folder.resolve())
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # proc_pid_mountinfo(5): field 5 is the mount point, the type follows a lone hyphen.
    points = {fields[4]: fields[fields.index("-") + 1] for fields in mounts}
    point = max((p for p in points if _is_beneath(real, p)), key=len, default="/")
    return point == "/" or points[point] == "tmpfs"


def _is_beneath(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
