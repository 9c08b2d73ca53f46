"""Which models one array of an engine runs: those of one image that take the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from numerai_fleet import manifest
from numerai_fleet.engines.local import BESIDE, Limits
from numerai_fleet.manifest import ManifestError, Model

# Of a manifest, which Kubernetes keeps in a Secret of 1 MiB at most, Swarm in one of 500 KB.
MANIFEST_BYTES = 400_000
# Kubernetes' and AWS Batch's arrays end there.
ARRAY = 10_000
SECRET_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
# Where containers have the datasets' cache.
CACHE = "/cache"


@dataclass(frozen=True)
class Options:
    """What is the same for all models of a round.

    Args:
        name: of the round, a DNS label; all that is described begins with it.
        retries: how often a model is tried again after the platform's fault.
        parallel: how many models of an array run at once; None leaves it to the engine.
        cache_dir: a folder of each node, for datasets; None shares nothing.
        deadline: seconds that a try may take, download and upload included.
        ttl: seconds that an engine keeps what ended.
    """

    name: str
    limits: Limits
    retries: int = 2
    parallel: int | None = None
    cache_dir: str | None = None
    deadline: int = 1800
    ttl: int = 86_400


@dataclass(frozen=True)
class Batch:
    """An array, whose indices are its models' places.

    Args:
        name: unique in its round.
        memory: bytes, of a whole container.
    """

    name: str
    image: str
    memory: int
    models: tuple[Model, ...]

    @property
    def manifest(self) -> str:
        return manifest.dump(self.models)


def batches(models: Sequence[Model], options: Options) -> list[Batch]:
    """In the manifest's order, as far as images let them.

    Raises:
        ManifestError: a line cannot be run away from this machine.
    """
    if faults := [f"{model.name}: {fault}" for model in models for fault in _faults(model)]:
        raise ManifestError("\n".join(faults))
    groups: dict[tuple[str, int], list[Model]] = {}
    for model in models:
        groups.setdefault((model.image, options.limits.of(model)), []).append(model)
    found = [(key, chunk) for key, group in groups.items() for chunk in _chunks(group)]
    return [
        Batch(f"{options.name}-{number}", image, memory + BESIDE, chunk)
        for number, ((image, memory), chunk) in enumerate(found)
    ]


def flags(batch: Batch, options: Options) -> list[str]:
    """Of the predictor, beside --manifest."""
    found = ["--result=-", "--require-sandbox", f"--limits={options.limits.preset}"]
    if len(batch.models) == 1:
        # AWS has no array of one, and Podman no indices.
        found.append("--index=0")
    if options.cache_dir:
        found.append(f"--cache_dir={CACHE}")
    return found


def named_secrets(batch: Batch) -> list[str]:
    """The engine's secrets that lines refer to."""
    return sorted({name for model in batch.models for name in _named(model)})


def _chunks(models: Sequence[Model]) -> Iterator[tuple[Model, ...]]:
    chunk: list[Model] = []
    size = 0
    for model in models:
        line = len(manifest.dump([model]).encode())
        if chunk and (len(chunk) == ARRAY or size + line > MANIFEST_BYTES):
            yield tuple(chunk)
            chunk, size = [], 0
        chunk.append(model)
        size += line
    yield tuple(chunk)


def _faults(model: Model) -> Iterator[str]:
    if "post_url" not in model.entry:
        yield "without post_url its predictions would vanish with the container"
    for flag, value in model.entry.items():
        if isinstance(value, dict) and value.keys() & {"file", "env"}:
            (kind,) = value
            yield f'{flag}: the container has no such {kind}; name a {{"secret": …}} of the engine'
    for name in _named(model):
        if not SECRET_NAME.fullmatch(name):
            yield f"{name} cannot name a secret: lower-case letters, digits and - can"


def _named(model: Model) -> Iterator[str]:
    for value in model.entry.values():
        if isinstance(value, dict) and "secret" in value:
            yield value["secret"]
