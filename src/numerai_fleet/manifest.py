"""A round's models, one per line; `manifest.schema.json` says what a line may hold."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema

# What the predictor takes where a line does not say.
DEFAULTS = {"dataset": "v5.2/live.parquet", "benchmarks": "v5.2/live_benchmark_models.parquet"}


class ManifestError(Exception):
    """The manifest cannot be used; its text names every line that is wrong, and why."""


@dataclass(frozen=True)
class Model:
    """A line of a manifest.

    Args:
        name: unique in its manifest.
        image: the image's reference.
        entry: the line as it was given; it holds secrets, and is not shown therefore.
    """

    name: str
    image: str
    entry: dict[str, Any] = field(repr=False, compare=False)


def load(source: str, registry: str = "") -> list[Model]:
    """All models of a manifest, in its order.

    Args:
        source: a file, or `-` for standard input.
        registry: goes before the names of images that a line's `python` chooses.

    Raises:
        ManifestError: it cannot be read, or a line is wrong.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read {source}: {error}") from None
    models: list[Model] = []
    faults: list[str] = []
    first: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        found = list(_faults(line))
        if not found:
            model = _model(json.loads(line), registry)
            if model.name in first:
                found = [f"the name {model.name} is line {first[model.name]}'s"]
            first.setdefault(model.name, number)
            models.append(model)
        faults += [f"line {number}: {fault}" for fault in found]
    if faults:
        raise ManifestError("\n".join(faults))
    if not models:
        raise ManifestError(f"{source} holds no model")
    return models


def dump(models: Sequence[Model]) -> str:
    """The manifest of these alone."""
    return "".join(json.dumps(model.entry, ensure_ascii=False) + "\n" for model in models)


def _model(entry: dict[str, Any], registry: str) -> Model:
    image = entry.get("image")
    if image is None:
        flavour = "_full" if entry.get("full") else ""
        image = f"numerai_predict_py_{entry['python'].replace('.', '_')}{flavour}"
        image = f"{registry.rstrip('/')}/{image}" if registry else image
    return Model(entry["name"], image, entry)


def _faults(line: str) -> Iterator[str]:
    """What is wrong with a line. Values can be secret, and are not repeated."""
    try:
        entry = json.loads(line)
    except ValueError as error:
        yield f"no JSON: {getattr(error, 'msg', error)}, column {getattr(error, 'colno', '?')}"
        return
    if not isinstance(entry, dict):
        yield "no JSON object"
        return
    for fault in sorted(_validator().iter_errors(entry), key=lambda fault: list(fault.path)):
        where = ".".join(map(str, fault.path))
        yield f"{where}: {_said(fault)}" if where else _said(fault)


def _said(error: jsonschema.ValidationError) -> str:
    expected = error.validator_value
    if error.validator == "oneOf" and not error.path:
        return "needs either python or image"
    if error.validator == "oneOf":
        return 'must be a string, or {"file": …}, {"env": …} or {"secret": …}'
    if error.validator == "pattern":
        return f"does not match {expected}"
    if error.validator == "type":
        return f"must be of type {expected}"
    # These messages name fields, and choices, but no values of fields that can be secret.
    return error.message


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    schema = resources.files(__package__).joinpath("manifest.schema.json").read_text("utf-8")
    return jsonschema.Draft202012Validator(json.loads(schema))
