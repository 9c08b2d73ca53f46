from __future__ import annotations

from dataclasses import dataclass

from pants.core.goals.run import RunFieldSet, RunInSandboxBehavior, RunRequest
from pants.core.util_rules.adhoc_binaries import PythonBuildStandaloneBinary
from pants.engine.fs import Digest, MergeDigests
from pants.engine.rules import Get, collect_rules, rule

from oci.subsystem import Oci
from oci.util_rules.image import Image, ImageFieldSet, ImageRequest
from oci.util_rules.platform import host_platform
from oci.util_rules.programs import Engine, SetUp


@dataclass(frozen=True)
class RunImageFieldSet(RunFieldSet):
    required_fields = ImageFieldSet.required_fields
    run_in_sandbox_behavior = RunInSandboxBehavior.NOT_SUPPORTED


@rule
async def run_image(
    field_set: RunImageFieldSet,
    oci: Oci,
    setup: SetUp,
    engine: Engine,
    python: PythonBuildStandaloneBinary,
) -> RunRequest:
    platform = oci.chosen_platform or host_platform().name
    image = await Get(Image, ImageRequest(field_set.address, (platform,)))
    return RunRequest(
        digest=await Get(Digest, MergeDigests((image.digest, engine.digest))),
        args=(
            *(python.path, "{chroot}/engine.py", f"--bubblewrap={setup.bubblewrap}"),
            *(f"--engine={name}" for name in oci.engines),
            *([f"--entrypoint={oci.entrypoint}"] if oci.entrypoint else ()),
            "{chroot}/image.tar",
        ),
    )


def rules():
    return [*collect_rules(), *RunImageFieldSet.rules()]
