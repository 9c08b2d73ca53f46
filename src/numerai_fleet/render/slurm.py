"""Slurm: an array job of OCI bundles for each batch; `slurm_array` says what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from numerai_fleet.engines import slurm_array
from numerai_fleet.engines.docker import passed_on
from numerai_fleet.engines.slurm_array import Task
from numerai_fleet.engines.unpacked import Images
from numerai_fleet.manifest import ManifestError, Model
from numerai_fleet.render.batches import Options, batches, flags, named_secrets


def write(
    models: Sequence[Model], options: Options, images: Images, folder: Path
) -> Iterator[Path]:
    """Writes the folders of array jobs; yields each one's script, for sbatch.

    Args:
        images: unpacks to where all nodes see it.
        folder: that all nodes see, at this path.

    Raises:
        EngineError: there is no such image.
        ManifestError: see `batches`; a line names a secret, which Slurm has none of; or the folder
            has such a job already.
    """
    for batch in batches(models, options):
        if named := named_secrets(batch):
            raise ManifestError(f"Slurm keeps no secrets, such as {named[0]}")
        place = folder.absolute() / batch.name
        if place.exists():
            raise ManifestError(f"{place} is there: remove it, or take another --name")
        given = ["--manifest=-", *flags(batch, options)]
        tasks = [Task(images.get(batch.image), given)] * len(batch.models)
        yield slurm_array.write(
            place, batch.name, tasks, batch.manifest, batch.memory, passed_on(), options.parallel
        )
