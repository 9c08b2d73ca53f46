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
    # The suite, or the channel beside it, that has the package.
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

    @property
    def _is_security(self) -> bool:
        return self.suite.endswith("-security")

    @property
    def variable(self) -> str:
        """The name of the variable in which users may name mirrors."""
        return "DEBIAN_SECURITY_MIRROR" if self._is_security else "DEBIAN_MIRROR"

    @property
    def label(self) -> str:
        """What the archive that has the suite calls itself."""
        return "Debian-Security" if self._is_security else "Debian"


@dataclass(frozen=True)
class DebianFile:
    digest: Digest


# Asking apt takes a second, so its answer is kept as long as pantsd lives.
@rule
async def suite_mirrors(request: SuiteMirrorsRequest) -> DebianMirrors:
    env = await Get(EnvironmentVars, EnvironmentVarsRequest((request.variable,)))
    own = tuple(env.get(request.variable, "").split())
    return DebianMirrors(own or _apt_mirrors(request.suite, request.label))


def _apt_mirrors(suite: str, label: str) -> tuple[str, ...]:
    """The mirrors of `suite` that this machine's own apt is configured with.

    If there are none, those of the other suites of the archive with this `label`: it has them all.
    """
    argv = (
        "apt-get",
        "indextargets",
        "--format",
        "$(CODENAME)|$(ORIGIN)|$(LABEL)|$(REPO_URI)",
        "Created-By: Packages",
    )
    try:
        targets = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    lines = [line.split("|", 3) for line in targets.splitlines()]
    of_suite = [line[3] for line in lines if line[0] == suite]
    of_archive = [line[3] for line in lines if line[1:3] == ["Debian", label]]
    return tuple(dict.fromkeys(of_suite or of_archive))


@rule
async def download_package(package: DebianPackage) -> DebianFile:
    request = SuiteMirrorsRequest(package.suite)
    mirrors = await Get(DebianMirrors, SuiteMirrorsRequest, request)
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
        f"  - set {request.variable} to a mirror that has it (several, separated by spaces, are tried in "
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
            suite=entry.get("channel", lock["suite"]),
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
