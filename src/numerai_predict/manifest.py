"""The model of a manifest that this task is to run: engines start many with the same arguments.

A manifest is JSON Lines, one model per line; numerai_fleet's manifest.schema.json says what a line
may hold, and numerai-fleet checks all of it before anything starts. Here one line counts.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from numerai_predict.errors import UsageError
from numerai_predict.sources import is_url

# Kubernetes' Indexed Jobs, AWS Batch's and Slurm's arrays; all can count from 0.
INDICES = ("JOB_COMPLETION_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX", "SLURM_ARRAY_TASK_ID")
# Swarm's {{.Task.Slot}}, which has to be passed on by this name.
SLOT = "NUMERAI_PREDICT_TASK_SLOT"
SECRETS = "/run/secrets"  # NUMERAI_PREDICT_SECRETS says otherwise

VALUES = ("model", "dataset", "benchmarks", "post_url", "post_data")
FIELDS = {"name", "python", "full", "image", "limits", *VALUES}
LIMITS = {"preset": "limits", "memory": "memory", "timeout": "timeout"}

_MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


def index() -> int | None:
    """Which model this task is to run, as the engine says; None where none does."""
    for variable in INDICES:
        if value := os.environ.get(variable):
            return parse_index(value)
    slot = os.environ.get(SLOT)
    if not slot:
        return None
    # A job's slots count from 0, and Swarm's templates give the node's name for slot 0.
    return int(slot) if slot.isdecimal() else 0


def parse_index(text: str) -> int:
    """Raises UsageError: it does not count from 0."""
    if not text.isdecimal():
        raise UsageError(f"the index is a number from 0 on, not {text!r}")
    return int(text)


def read(source: str, folder: Path) -> str:
    """A manifest's text.

    Args:
        source: a file, an http(s) URL, or `-` for standard input.
        folder: where a download may be for a moment.

    Raises:
        DownloadFailed: the URL cannot be had.
        UsageError: the file cannot be read.
    """
    try:
        if source == "-":
            return sys.stdin.read()
        if not is_url(source):
            return Path(source).read_text("utf-8")
        import tempfile

        from numerai_predict import transfer

        # It holds secrets: in a folder that only we can enter, and only for a moment.
        with tempfile.TemporaryDirectory(dir=folder) as private:
            path = transfer.download(source, Path(private, "manifest.jsonl"), what="manifest")
            return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise UsageError("the manifest is not UTF-8") from None
    except OSError as error:
        raise UsageError(f"the manifest cannot be read: {error.strerror}") from None


def entry(text: str, index: int) -> dict[str, Any]:
    """The values of a model's flags, by their names, and `entry`, what the model is called.

    Args:
        text: the manifest.
        index: the model's place, from 0 on; empty lines do not count.

    Raises:
        UsageError: there is no such model, or its line is of no use.
    """
    lines = [each for each in enumerate(text.split("\n"), start=1) if each[1].strip()]
    if index >= len(lines):
        raise UsageError(f"the manifest has {len(lines)} models, and none with index {index}")
    number, line = lines[index]
    try:
        return _flags(line)
    except UsageError as error:
        raise UsageError(f"line {number} of the manifest: {error}") from None


def _flags(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        raise UsageError("no JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise UsageError("no object with a name")
    if unknown := sorted(found.keys() - FIELDS):
        raise UsageError(f"unknown fields: {', '.join(unknown)}")
    name = found["name"]
    if not name or Path(name).name != name or name.startswith("."):
        raise UsageError(f"the name {name!r} cannot be a file's")
    if found.get("python", _MINOR) != _MINOR:
        raise UsageError(f"{name} is for Python {found['python']}; this is Python {_MINOR}")
    flags = {flag: _value(flag, found[flag]) for flag in VALUES if flag in found}
    limits = found.get("limits", {})
    if not isinstance(limits, dict) or (unknown := sorted(limits.keys() - LIMITS.keys())):
        raise UsageError("limits holds preset, memory and timeout, as words")
    return {"entry": name, **flags, **{LIMITS[key]: value for key, value in limits.items()}}


def _value(flag: str, value: object) -> str:
    """The value itself, or what a reference names: a file, a variable, an engine's secret."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise UsageError(f"{flag} is neither a text nor a reference")
    ((kind, name),) = value.items()
    try:
        if kind == "env":
            return os.environ[name].strip()
        if kind == "secret":
            return (
                Path(os.environ.get("NUMERAI_PREDICT_SECRETS", SECRETS), name).read_text().strip()
            )
        if kind == "file":
            return Path(name).read_text().strip()
    except KeyError:
        raise UsageError(f"{flag}: there is no environment variable {name}") from None
    except (OSError, TypeError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{flag}: the {kind} {name} cannot be read: {reason}") from None
    raise UsageError(f'{flag}: {kind} is none of "file", "env" and "secret"')
