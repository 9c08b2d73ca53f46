from __future__ import annotations

from dataclasses import dataclass

from pants.core.goals.package import (
    BuiltPackage,
    BuiltPackageArtifact,
    OutputPathField,
    PackageFieldSet,
)
from pants.engine.fs import AddPrefix, Digest, MergeDigests
from pants.engine.rules import Get, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from oci.subsystem import Oci
from oci.util_rules.image import Image, ImageFieldSet, ImageRequest
from oci.util_rules.sbom import SbomRequest, Sboms


@dataclass(frozen=True)
class PackageImageFieldSet(PackageFieldSet):
    required_fields = ImageFieldSet.required_fields

    output_path: OutputPathField


@rule(desc="Package container image", level=LogLevel.DEBUG)
async def package_image(field_set: PackageImageFieldSet, oci: Oci) -> BuiltPackage:
    chosen = (oci.chosen_platform,) if oci.chosen_platform else ()
    image = await Get(Image, ImageRequest(field_set.address, chosen))
    sboms = await Get(Sboms, SbomRequest(image))
    folder = field_set.output_path.value_or_default(file_ending=None)
    written = await Get(Digest, MergeDigests((image.digest, sboms.digest)))
    digest = await Get(Digest, AddPrefix(written, folder))
    names = ("image.tar", "image.json", *sboms.files)
    return BuiltPackage(digest, tuple(BuiltPackageArtifact(f"{folder}/{name}") for name in names))


def rules():
    return [*collect_rules(), UnionRule(PackageFieldSet, PackageImageFieldSet)]
