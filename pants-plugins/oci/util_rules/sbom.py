"""The lists of what images hold, which `package` writes beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pants.engine.fs import (
    EMPTY_DIGEST,
    CreateDigest,
    Digest,
    DigestSubset,
    FileContent,
    MergeDigests,
    PathGlobs,
    RemovePrefix,
    Snapshot,
)
from pants.engine.process import ProcessResult
from pants.engine.rules import Get, _uncacheable_rule, collect_rules, rule
from pants.option.global_options import GlobMatchErrorBehavior

import oci.sbom
from oci.subsystem import Oci
from oci.util_rules.image import Image
from oci.util_rules.toolchain import ToolProcess


@dataclass(frozen=True)
class SbomSources:
    digest: Digest


@dataclass(frozen=True)
class SbomRequest:
    image: Image


@dataclass(frozen=True)
class Sboms:
    """For each platform of an image `linux-amd64.cdx.json` and `linux-amd64.spdx.json`."""

    digest: Digest
    files: tuple[str, ...]


# As `oci.util_rules.toolchain.tool_sources`; apart from these, so that layers do not depend on them.
@_uncacheable_rule
async def sbom_sources() -> SbomSources:
    modules = [
        FileContent(f"oci/sbom/{file.name}", file.read_bytes())
        for file in sorted(Path(oci.sbom.__path__[0]).glob("*.py"))
        if not file.name.endswith("_test.py")
    ]
    return SbomSources(await Get(Digest, CreateDigest(modules)))


@rule
async def list_contents(request: SbomRequest, oci: Oci, sources: SbomSources) -> Sboms:
    image, lock = request.image, EMPTY_DIGEST
    if oci.python_lock:
        origin = "`[oci].python_lock`"
        globs = PathGlobs(
            (oci.python_lock,), GlobMatchErrorBehavior.error, description_of_origin=origin
        )
        lock = await Get(Digest, PathGlobs, globs)
    summary = await Get(Digest, DigestSubset(image.digest, PathGlobs(("image.json",))))
    digests = (sources.digest, image.descriptions, summary, lock)
    result = await Get(
        ProcessResult,
        ToolProcess(
            (
                f"--layers={json.dumps({name: list(of) for name, of in image.layers.items()})}",
                *((f"--lock={oci.python_lock}",) if oci.python_lock else ()),
            ),
            input_digest=await Get(Digest, MergeDigests(digests)),
            description=f"List what the image for {', '.join(image.layers)} holds",
            package="oci.sbom",
        ),
    )
    written = await Get(Snapshot, RemovePrefix(result.output_digest, "out"))
    return Sboms(written.digest, written.files)


def rules():
    return collect_rules()
