"""The interpreter and the compressor that layers are built with: Debian's, pinned, not this machine's.

So a layer depends neither on this machine's zlib nor on the patch release of its Python, and standard
library and packages are compiled by the very interpreter that runs them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pants.core.util_rules.adhoc_binaries import PythonBuildStandaloneBinary
from pants.engine.fs import (
    EMPTY_DIGEST,
    CreateDigest,
    Digest,
    FileContent,
    MergeDigests,
    RemovePrefix,
)
from pants.engine.process import Process, ProcessResult
from pants.engine.rules import Get, _uncacheable_rule, collect_rules, rule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

import oci.tool
from oci.subsystem import Oci
from oci.util_rules.debian_packages import DebianPackages, DebianPackagesRequest
from oci.util_rules.platform import ImagePlatform, host_platform

# The minor version of the interpreter that the lock has.
VERSION = "3.11"

# Milliseconds that a shared cache has to answer. Pants would otherwise start each process at once, beside
# the question whether the cache has its result.
CACHE_PATIENCE = 300_000


@dataclass(frozen=True)
class ToolSources:
    digest: Digest


@dataclass(frozen=True)
class Toolchain:
    digest: Digest
    platform: ImagePlatform

    @property
    def python(self) -> tuple[str, ...]:
        """The command that starts the interpreter, wherever it lies, with its own C library."""
        libraries = f"toolchain/usr/lib/{self.platform.triplet}"
        loader = f"{libraries}/{self.platform.loader}"
        return (loader, "--library-path", libraries, f"toolchain/usr/bin/python{VERSION}")

    @property
    def libdeflate(self) -> str:
        return f"toolchain/usr/lib/{self.platform.triplet}/libdeflate.so.0"


@dataclass(frozen=True)
class ToolProcess:
    """A command of `oci.tool`. What it writes to `out` becomes the result's digest.

    Another `package`, whose modules `input_digest` has, may import those of `oci.tool`. It sees `interpreter` as the folder of that name (`oci.util_rules.interpreter.Interpreter`).
    """

    argv: tuple[str, ...]
    input_digest: Digest
    description: str
    interpreter: Digest = EMPTY_DIGEST
    env: FrozenDict[str, str] = FrozenDict()
    append_only_caches: FrozenDict[str, str] = FrozenDict()
    package: str = "oci.tool"


# Pants does not watch these files when they are no sources of the build root.
@_uncacheable_rule
async def tool_sources() -> ToolSources:
    modules = [
        FileContent(f"oci/tool/{file.name}", file.read_bytes())
        for file in sorted(Path(oci.tool.__path__[0]).glob("*.py"))
        if not file.name.endswith("_test.py")
    ]
    return ToolSources(await Get(Digest, CreateDigest(modules)))


@rule
async def toolchain(
    oci: Oci, sources: ToolSources, host_python: PythonBuildStandaloneBinary
) -> Toolchain:
    machine = host_platform()
    packages = await Get(
        DebianPackages,
        DebianPackagesRequest(oci.toolchain_lock, tuple(oci.toolchain_sets), machine),
    )
    result = await Get(
        ProcessResult,
        Process(
            (
                # That of Pants' environment lies in this checkout: others would not find the process in
                # the cache that they share.
                os.path.realpath(host_python.path),
                "-sSEB",
                "-c",
                _main("oci.tool"),
                "unpack",
                "--out",
                "toolchain",
                *packages.files,
            ),
            input_digest=await Get(Digest, MergeDigests((packages.digest, sources.digest))),
            output_directories=("toolchain",),
            description="Unpack the toolchain that layers are built with",
            level=LogLevel.DEBUG,
            remote_cache_speculation_delay_millis=CACHE_PATIENCE,
        ),
    )
    return Toolchain(await Get(Digest, RemovePrefix(result.output_digest, "toolchain")), machine)


def _main(package: str) -> str:
    # `-m` would need the working directory on the interpreter's path, which -E -S keep clean.
    return f"import sys; sys.path.insert(0, '.'); from {package}.__main__ import main; main()"


@rule
async def tool_process(request: ToolProcess, toolchain: Toolchain, sources: ToolSources) -> Process:
    return Process(
        (*toolchain.python, "-sSEB", "-c", _main(request.package), *request.argv),
        input_digest=await Get(Digest, MergeDigests((request.input_digest, sources.digest))),
        immutable_input_digests={
            "toolchain": toolchain.digest,
            **({"interpreter": request.interpreter} if request.interpreter != EMPTY_DIGEST else {}),
        },
        # Sets are marshalled in the order of their hashes.
        env={**request.env, "PYTHONHASHSEED": "0"},
        append_only_caches=request.append_only_caches,
        output_directories=("out",),
        description=request.description,
        remote_cache_speculation_delay_millis=CACHE_PATIENCE,
    )


def rules():
    return collect_rules()
