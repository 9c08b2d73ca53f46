from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pants.core.goals.test import TestFieldSet, TestRequest, TestResult, TestSubsystem
from pants.core.util_rules.adhoc_binaries import PythonBuildStandaloneBinary
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.engine.addresses import Addresses, UnparsedAddressInputs
from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.fs import Digest, MergeDigests
from pants.engine.process import FallibleProcessResult, Process, ProcessCacheScope
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.option.option_types import SkipOption
from pants.option.subsystem import Subsystem
from pants.util.logging import LogLevel

from oci.subsystem import Oci
from oci.target_types import ImageField, ImageTestArgsField, ImageTestSourceField
from oci.util_rules.image import Image, ImageRequest
from oci.util_rules.platform import host_platform
from oci.util_rules.programs import Engine, SetUp

# How the engines find their daemon and their cache.
ENGINE_ENVIRONMENT = ("DOCKER_HOST", "HOME", "PATH", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")


class OciTest(Subsystem):
    options_scope = "oci-test"
    name = "image tests"
    help = "Tests of container images (`oci_image_test`)."

    skip = SkipOption("test")


@dataclass(frozen=True)
class ImageTestFieldSet(TestFieldSet):
    required_fields = (ImageField, ImageTestSourceField)

    image: ImageField
    sources: ImageTestSourceField
    args: ImageTestArgsField


class ImageTestRequest(TestRequest):
    tool_subsystem = OciTest  # type: ignore[assignment]
    field_set_type = ImageTestFieldSet


@rule(desc="Test container image", level=LogLevel.DEBUG)
async def test_image(
    batch: ImageTestRequest.Batch[ImageTestFieldSet, Any],
    test_subsystem: TestSubsystem,
    oci: Oci,
    setup: SetUp,
    engine: Engine,
    python: PythonBuildStandaloneBinary,
) -> TestResult:
    field_set = batch.single_element
    addresses, sources, env = await MultiGet(
        Get(Addresses, UnparsedAddressInputs, field_set.image.to_unparsed_address_inputs()),
        Get(SourceFiles, SourceFilesRequest([field_set.sources])),
        Get(EnvironmentVars, EnvironmentVarsRequest(ENGINE_ENVIRONMENT)),
    )
    request = ImageRequest(addresses.expect_single(), (host_platform().name,))
    image = await Get(Image, ImageRequest, request)
    digest = await Get(Digest, MergeDigests((image.digest, sources.snapshot.digest, engine.digest)))
    result = await Get(
        FallibleProcessResult,
        Process(
            (
                *(python.path, "engine.py", f"--bubblewrap={setup.bubblewrap}"),
                # The built-in engine first: a test is to leave nothing behind in Docker.
                *(f"--engine={name}" for name in reversed(oci.engines)),
                "--entrypoint=/usr/bin/python3",
                *("image.tar", "-B", sources.snapshot.files[0], *(field_set.args.value or ())),
            ),
            input_digest=digest,
            env=env,
            description=f"Test {field_set.address}",
            cache_scope=(
                ProcessCacheScope.PER_SESSION
                if test_subsystem.force
                else ProcessCacheScope.SUCCESSFUL
            ),
        ),
    )
    return TestResult.from_fallible_process_result(
        process_result=result, address=field_set.address, output_setting=test_subsystem.output
    )


def rules():
    return [*collect_rules(), *ImageTestRequest.rules()]
