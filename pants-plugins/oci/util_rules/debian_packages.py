"""Debian packages: which ones a lock names, and the files themselves."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass

from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.fs import (
    Digest,
    DigestContents,
    DownloadFile,
    FileDigest,
    MergeDigests,
    PathGlobs,
)
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.option.global_options import GlobMatchErrorBehavior

from oci.util_rules.platform import ImagePlatform


class DebianPackageNotFound(Exception):
    """No mirror has a package that the lock names."""


@dataclass(frozen=True)
class DebianPackage:
    name: str
    version: str
    path: str
    sha256: str
    size: int
    suite: str

    @property
    def file(self) -> str:
        return os.path.basename(self.path)


@dataclass(frozen=True)
class DebianPackagesRequest:
    lock: str
    sets: tuple[str, ...]
    platform: ImagePlatform


@dataclass(frozen=True)
class DebianPackages:
    """Packages, downloaded and checked; `digest` holds them at `files`."""

    packages: tuple[DebianPackage, ...]
    digest: Digest

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(package.file for package in self.packages)


@dataclass(frozen=True)
class DebianMirrors:
    """Base addresses of Debian archives, in the order to try them."""

    addresses: tuple[str, ...]


@dataclass(frozen=True)
class SuiteMirrorsRequest:
    suite: str


@dataclass(frozen=True)
class DebianFile:
    digest: Digest


# Asking apt takes a second, so its answer is kept as long as pantsd lives.
@rule
async def suite_mirrors(request: SuiteMirrorsRequest) -> DebianMirrors:
    env = await Get(EnvironmentVars, EnvironmentVarsRequest(("DEBIAN_MIRROR",)))
    return DebianMirrors(tuple(env.get("DEBIAN_MIRROR", "").split()) or _apt_mirrors(request.suite))


def _apt_mirrors(suite: str) -> tuple[str, ...]:
    """The mirrors of `suite` that this machine's own apt is configured with."""
    argv = (
        "apt-get",
        "indextargets",
        "--format",
        "$(CODENAME) $(REPO_URI)",
        "Created-By: Packages",
    )
    try:
        targets = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    lines = (line.split() for line in targets.splitlines())
    return tuple(dict.fromkeys(line[1] for line in lines if line[0] == suite))


@rule
async def download_package(package: DebianPackage) -> DebianFile:
    mirrors = await Get(DebianMirrors, SuiteMirrorsRequest(package.suite))
    failures = []
    for address in mirrors.addresses:
        url = f"{address.rstrip('/')}/{package.path}"
        try:
            digest = await Get(Digest, DownloadFile(url, FileDigest(package.sha256, package.size)))
            return DebianFile(digest)
        except Exception as error:
            failures.append(f"{url}: {str(error).splitlines()[-1]}")
    tried = "\n".join(f"  {failure}" for failure in failures)
    raise DebianPackageNotFound(
        f"No mirror has {package.name} {package.version} as the lock wants it. Tried:\n"
        f"{tried or '  nothing: this machine has no apt configuration for ' + package.suite}\n"
        "Ways out:\n"
        "  - set DEBIAN_MIRROR to a mirror that has it (several, separated by spaces, are tried in "
        "turn; an archive of snapshots keeps every version);\n"
        "  - run `make lock` to take the suite's present version, and commit the lock."
    )


@rule
async def debian_packages(request: DebianPackagesRequest) -> DebianPackages:
    contents = await Get(
        DigestContents,
        PathGlobs(
            (request.lock,),
            GlobMatchErrorBehavior.error,
            description_of_origin="a `lock` of Debian packages",
        ),
    )
    lock = json.loads(contents[0].content)
    packages = tuple(
        DebianPackage(
            name=entry["name"],
            version=entry["version"],
            path=entry["path"],
            sha256=entry["sha256"],
            size=entry["size"],
            suite=lock["suite"],
        )
        for entry in lock["packages"]
        if entry["set"] in request.sets
        and entry["architecture"] in ("all", request.platform.debian)
    )
    known = {entry["set"] for entry in lock["packages"]}
    if not known.issuperset(request.sets):
        raise ValueError(f"{request.lock} has the sets {sorted(known)}, not all of {request.sets}.")
    files = await MultiGet(Get(DebianFile, DebianPackage, package) for package in packages)
    digest = await Get(Digest, MergeDigests(file.digest for file in files))
    return DebianPackages(packages, digest)


def rules():
    return collect_rules()
