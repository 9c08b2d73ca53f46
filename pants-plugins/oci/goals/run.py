from __future__ import annotations

from dataclasses import dataclass

from pants.core.goals.run import RunFieldSet, RunInSandboxBehavior, RunRequest
from pants.core.util_rules.adhoc_binaries import PythonBuildStandaloneBinary
from pants.engine.fs import Digest, MergeDigests
from pants.engine.rules import Get, collect_rules, rule

from oci.subsystem import Oci
from oci.util_rules.image import Image, ImageFieldSet, ImageRequest
from oci.util_rules.setup import SetUp
from oci.util_rules.toolchain import ToolSources


@dataclass(frozen=True)
class RunImageFieldSet(RunFieldSet):
    required_fields = ImageFieldSet.required_fields
    run_in_sandbox_behavior = RunInSandboxBehavior.NOT_SUPPORTED


@rule
async def run_image(
    field_set: RunImageFieldSet,
    oci: Oci,
    setup: SetUp,
    sources: ToolSources,
    python: PythonBuildStandaloneBinary,
) -> RunRequest:
    image = await Get(Image, ImageRequest(field_set.address))
    return RunRequest(
        digest=await Get(Digest, MergeDigests((image.digest, sources.digest))),
        args=(
            *(python.path, "{chroot}/oci/tool/engine.py", f"--bubblewrap={setup.bubblewrap}"),
            *(f"--engine={name}" for name in oci.engines),
            *([f"--entrypoint={oci.entrypoint}"] if oci.entrypoint else ()),
            "{chroot}/image.tar",
        ),
    )


def rules():
    return [*collect_rules(), *RunImageFieldSet.rules()]
