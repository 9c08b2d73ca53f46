"""The programs that a release needs: skopeo, oras and cosign."""

from __future__ import annotations

from dataclasses import dataclass

from pants.core.util_rules.system_binaries import (
    BinaryPathRequest,
    BinaryPaths,
    SearchPath,
)
from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.fs import EMPTY_DIGEST, Digest
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.util.frozendict import FrozenDict

PROGRAMS = ("skopeo", "oras", "cosign")


@dataclass(frozen=True)
class ReleaseTools:
    """`programs` start each program in a sandbox that has `digest`."""

    digest: Digest
    programs: FrozenDict[str, tuple[str, ...]]


@rule
async def release_tools() -> ReleaseTools:
    env = await Get(EnvironmentVars, EnvironmentVarsRequest(["PATH"]))
    path = SearchPath(env.get("PATH", "").split(":"))
    found = await MultiGet(
        Get(BinaryPaths, BinaryPathRequest(binary_name=name, search_path=path)) for name in PROGRAMS
    )
    missing = [binary.binary_name for binary in found if not binary.first_path]
    if missing:
        raise FileNotFoundError(f"no {', '.join(missing)} here; Debian trixie has them.")
    return ReleaseTools(
        EMPTY_DIGEST,
        FrozenDict(
            (binary.binary_name, (binary.first_path.path,)) for binary in found if binary.first_path
        ),
    )


def rules():
    return collect_rules()
