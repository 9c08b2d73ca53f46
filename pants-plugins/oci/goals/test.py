from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Mapping

from pants.backend.python.target_types import PythonSourceField
from pants.core.goals.test import TestFieldSet, TestRequest, TestResult, TestSubsystem
from pants.core.target_types import FileSourceField
from pants.core.util_rules.adhoc_binaries import PythonBuildStandaloneBinary
from pants.core.util_rules.partitions import Partition, PartitionerType, Partitions
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.engine.addresses import UnparsedAddressInputs
from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.fs import (
    CreateDigest,
    Digest,
    DigestContents,
    FileContent,
    MergeDigests,
    Snapshot,
)
from pants.engine.process import FallibleProcessResult, Process, ProcessCacheScope
from pants.engine.rules import Get, MultiGet, _uncacheable_rule, collect_rules, rule
from pants.engine.target import SourcesField, Target, Targets
from pants.option.option_types import SkipOption
from pants.option.subsystem import Subsystem
from pants.util.logging import LogLevel

from oci.engine import is_emulated
from oci.expectations import read_expectations
from oci.subsystem import Oci
from oci.target_types import (
    ImageTestDependenciesField,
    ImageTestsField,
    ImageTestValuesField,
)
from oci.util_rules.image import Image, ImagePlatforms, ImagePlatformsRequest, ImageRequest
from oci.util_rules.platform import host_platform
from oci.util_rules.programs import Examiner, SetUp

# How the engines find their daemon and their cache.
ENGINE_ENVIRONMENT = ("DOCKER_HOST", "HOME", "PATH", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")


class OciTest(Subsystem):
    options_scope = "oci-test"
    name = "image tests"
    help = "Tests of container images (the `tests` of an `oci_image`)."

    skip = SkipOption("test")


@dataclass(frozen=True)
class ImageTestFieldSet(TestFieldSet):
    required_fields = (ImageTestsField,)

    sources: ImageTestsField
    values: ImageTestValuesField
    dependencies: ImageTestDependenciesField

    @classmethod
    def opt_out(cls, tgt: Target) -> bool:
        return not tgt[ImageTestsField].value


class ImageTestRequest(TestRequest):
    tool_subsystem = OciTest  # type: ignore[assignment]
    field_set_type = ImageTestFieldSet
    partitioner_type = PartitionerType.CUSTOM


@dataclass(frozen=True)
class ImageTestPlatform:
    """The platform whose image is tested; `cannot_run` says why its commands are skipped, if so."""

    name: str
    is_native: bool
    cannot_run: str

    @property
    def description(self) -> str:
        return self.name


@dataclass(frozen=True)
class ImageTestFiles:
    """The expectations as `expectations.json`, and the files of the target's `test_dependencies`."""

    digest: Digest


# Emulators come and go while pantsd lives.
@_uncacheable_rule
async def partition_by_platform(
    request: ImageTestRequest.PartitionRequest[ImageTestFieldSet], oci: Oci, oci_test: OciTest
) -> Partitions[ImageTestFieldSet, ImageTestPlatform]:
    if oci_test.skip:
        return Partitions()
    buildable = await MultiGet(
        Get(ImagePlatforms, ImagePlatformsRequest(field_set.address))
        for field_set in request.field_sets
    )
    return Partitions(
        Partition((field_set,), _test_platform(name))
        for field_set, platforms in zip(request.field_sets, buildable)
        for name in platforms.names
        if oci.chosen_platform in (None, name)
    )


def _test_platform(name: str) -> ImageTestPlatform:
    is_native = name == host_platform().name
    can_run = is_native or is_emulated(name.partition("/")[2])
    cannot = f"this machine cannot run {name}: install qemu-user-static to emulate it"
    return ImageTestPlatform(name, is_native, "" if can_run else cannot)


@rule
async def image_test_files(field_set: ImageTestFieldSet) -> ImageTestFiles:
    sources, targets = await MultiGet(
        Get(SourceFiles, SourceFilesRequest([field_set.sources])),
        Get(Targets, UnparsedAddressInputs, field_set.dependencies.to_unparsed_address_inputs()),
    )
    contents, files = await MultiGet(
        Get(DigestContents, Digest, sources.snapshot.digest),
        Get(
            SourceFiles,
            SourceFilesRequest(
                [target.get(SourcesField) for target in targets],
                for_sources_types=(FileSourceField, PythonSourceField),
                enable_codegen=True,
            ),
        ),
    )
    values: Mapping[str, str] = field_set.values.value or {}
    expectations = [
        read_expectations(file.path, file.content.decode(), values) for file in contents
    ]
    document = FileContent("expectations.json", json.dumps(expectations).encode())
    digest = await Get(Digest, CreateDigest([document]))
    return ImageTestFiles(await Get(Digest, MergeDigests((digest, files.snapshot.digest))))


@rule(desc="Test container image", level=LogLevel.DEBUG)
async def test_image(
    batch: ImageTestRequest.Batch[ImageTestFieldSet, ImageTestPlatform],
    test_subsystem: TestSubsystem,
    oci: Oci,
    setup: SetUp,
    examiner: Examiner,
    python: PythonBuildStandaloneBinary,
) -> TestResult:
    field_set, platform = batch.single_element, batch.partition_metadata
    image, files, env = await MultiGet(
        Get(Image, ImageRequest(field_set.address, (platform.name,))),
        Get(ImageTestFiles, ImageTestFieldSet, field_set),
        Get(EnvironmentVars, EnvironmentVarsRequest(ENGINE_ENVIRONMENT)),
    )
    digest = await Get(Digest, MergeDigests((image.digest, files.digest, examiner.digest)))
    report = f"{field_set.address.path_safe_spec}-{platform.name.replace('/', '-')}.xml"
    result = await Get(
        FallibleProcessResult,
        Process(
            (
                *(python.path, "-B", "-m", "oci.examine"),
                *(f"--name={field_set.address} {platform.name}", f"--report={report}"),
                *([] if platform.is_native else ["--emulated"]),
                f"--cannot-run={platform.cannot_run}",
                *("image.tar", "expectations.json", "--", f"--bubblewrap={setup.bubblewrap}"),
                # The built-in engine first: a test is to leave nothing behind in Docker.
                *(f"--engine={name}" for name in reversed(oci.engines)),
            ),
            input_digest=digest,
            output_files=(report,),
            env=env,
            description=f"Test {field_set.address} for {platform.name}",
            cache_scope=(
                ProcessCacheScope.PER_SESSION
                if test_subsystem.force
                else ProcessCacheScope.SUCCESSFUL
            ),
        ),
    )
    test_result = TestResult.from_batched_fallible_process_result(
        process_result=result,
        batch=batch,
        output_setting=test_subsystem.output,
        xml_results=await Get(Snapshot, Digest, result.output_digest),
    )
    # Pants' closing lines name nothing but addresses.
    address = field_set.address.parametrize({"platform": platform.name})
    return replace(test_result, addresses=(address,))


def rules():
    return [*collect_rules(), *ImageTestRequest.rules()]
