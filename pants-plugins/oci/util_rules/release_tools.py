"""The programs that a release is published with: Debian's, pinned, not this machine's."""

from __future__ import annotations

from dataclasses import dataclass

from pants.engine.fs import Digest, RemovePrefix
from pants.engine.process import ProcessResult
from pants.engine.rules import Get, collect_rules, rule
from pants.util.frozendict import FrozenDict

from oci.subsystem import Oci
from oci.util_rules.debian_packages import DebianPackages, DebianPackagesRequest
from oci.util_rules.platform import ImagePlatform, host_platform
from oci.util_rules.toolchain import ToolProcess

FOLDER = "release-tools"
PROGRAMS = ("cosign", "oras", "skopeo")


@dataclass(frozen=True)
class ReleaseTools:
    """`digest` holds them in a folder of their own, as an input of the process that starts them."""

    digest: Digest
    platform: ImagePlatform

    @property
    def programs(self) -> FrozenDict[str, tuple[str, ...]]:
        """The command that starts each, from any working directory, with its own C library.

        Pants replaces the `{chroot}` in it, in a process's arguments and in its environment.
        """
        libraries = f"{{chroot}}/{FOLDER}/usr/lib/{self.platform.triplet}"
        start = (f"{libraries}/{self.platform.loader}", "--library-path", libraries)
        return FrozenDict(
            {name: (*start, f"{{chroot}}/{FOLDER}/usr/bin/{name}") for name in PROGRAMS}
        )


@rule
async def release_tools(oci: Oci) -> ReleaseTools:
    machine = host_platform()
    packages = await Get(
        DebianPackages, DebianPackagesRequest(oci.release_lock, tuple(oci.release_sets), machine)
    )
    result = await Get(
        ProcessResult,
        ToolProcess(
            ("unpack", f"--out=out/{FOLDER}", *packages.files),
            input_digest=packages.digest,
            description="Unpack the programs that a release is published with",
        ),
    )
    return ReleaseTools(await Get(Digest, RemovePrefix(result.output_digest, "out")), machine)


def rules():
    return collect_rules()
