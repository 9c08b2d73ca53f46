"""CPython from outside Debian: the archives that a lock pins, or else this machine's interpreter."""

from __future__ import annotations

import json
import logging
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Iterable

from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.fs import (
    EMPTY_DIGEST,
    CreateDigest,
    Digest,
    DigestContents,
    DownloadFile,
    FileContent,
    FileDigest,
    FileEntry,
    PathGlobs,
    RemovePrefix,
)
from pants.engine.process import ProcessResult
from pants.engine.rules import Get, MultiGet, _uncacheable_rule, collect_rules, rule
from pants.engine.target import FieldSet
from pants.option.global_options import GlobMatchErrorBehavior
from pants.util.frozendict import FrozenDict

from oci.subsystem import InterpreterSource, Oci
from oci.target_types import BelowField, CpythonLockField, PythonVersionField, StandaloneOmitField
from oci.util_rules.host_interpreter import (
    HostInterpreter,
    HostInterpreterRequest,
    HostInterpreters,
)
from oci.util_rules.platform import ImagePlatform
from oci.util_rules.toolchain import Toolchain, ToolProcess

logger = logging.getLogger(__name__)

LABEL = "oci.interpreter"

# An address that Pants never reads: only what its store holds from an earlier run "comes" from it.
STORED = "file:///dev/null/stored"


class InterpreterNotFound(Exception):
    """Neither the archive that a lock names nor an interpreter of this machine is to be had."""


@dataclass(frozen=True)
class CpythonFieldSet(FieldSet):
    required_fields = (CpythonLockField, PythonVersionField, BelowField)

    lock: CpythonLockField
    version: PythonVersionField
    base: BelowField
    omit: StandaloneOmitField


@dataclass(frozen=True)
class CpythonRequest:
    """The interpreter of a `standalone_python_interpreter` for an image of `platform`."""

    fields: CpythonFieldSet
    platform: ImagePlatform


@dataclass(frozen=True)
class Cpython:
    """An interpreter, and the same version for this machine.

    Attributes:
        argv: What tells the tool where it is, for a process whose input is `digest`.
        python: The command that starts it on this machine ...
        python_digest: ... where the folder `interpreter` holds this.
        inputs: The pins, or what stands for them.
        labels: What images that have it are to be labelled with.
    """

    argv: tuple[str, ...]
    digest: Digest
    python: tuple[str, ...]
    python_digest: Digest
    inputs: FrozenDict[str, str]
    labels: FrozenDict[str, str] = FrozenDict()


@dataclass(frozen=True)
class Archive:
    version: str
    release: str
    url: str
    sha256: str
    size: int

    def addresses(self, mirrors: str) -> tuple[str, ...]:
        """Mirrors have a folder for each release, as the release site has."""
        place = "/".join(self.url.split("/")[-2:])
        return tuple(f"{mirror.rstrip('/')}/{place}" for mirror in mirrors.split()) or (self.url,)


@dataclass(frozen=True)
class ArchiveRequest:
    lock: str
    version: str
    platform: ImagePlatform


@dataclass(frozen=True)
class DownloadedArchive:
    """The file `archive.tar.gz`, or else why it could not be downloaded."""

    archive: Archive
    digest: Digest
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class PinnedCpython:
    """The same version for the image and for this machine."""

    fields: CpythonFieldSet
    archive: DownloadedArchive
    runnable: DownloadedArchive


@rule
async def pinned_archive(request: ArchiveRequest) -> Archive:
    globs = PathGlobs(
        (request.lock,),
        GlobMatchErrorBehavior.error,
        description_of_origin="a `lock` of interpreters",
    )
    contents = await Get(DigestContents, PathGlobs, globs)
    pythons = json.loads(contents[0].content)["pythons"]
    archives = pythons.get(request.version, {}).get("archives", {})
    if request.platform.name not in archives:
        known = [f"{version} ({', '.join(pythons[version]['archives'])})" for version in pythons]
        raise ValueError(
            f"{request.lock} has no Python {request.version} for {request.platform.name}, but "
            f"{', '.join(known)}."
        )
    python, pin = pythons[request.version], archives[request.platform.name]
    return Archive(python["version"], python["release"], pin["url"], pin["sha256"], pin["size"])


# A failure may be over the next time.
@_uncacheable_rule
async def download_archive(request: ArchiveRequest) -> DownloadedArchive:
    archive, env = await MultiGet(
        Get(Archive, ArchiveRequest, request),
        Get(EnvironmentVars, EnvironmentVarsRequest(("CPYTHON_MIRROR",))),
    )
    expected = FileDigest(archive.sha256, archive.size)
    digest = await Get(Digest, CreateDigest([FileEntry("archive.tar.gz", expected)]))
    failures: list[str] = []
    for url in (STORED, *archive.addresses(env.get("CPYTHON_MIRROR", ""))):
        failure = _unreachable(url)
        if not failure:
            try:
                await Get(Digest, DownloadFile(url, expected))
                return DownloadedArchive(archive, digest)
            except Exception as error:
                failure = str(error).splitlines()[-1]
        failures.append(f"{url}: {failure}")
    return DownloadedArchive(archive, EMPTY_DIGEST, tuple(failures[1:]))


def _unreachable(url: str) -> str:
    """Why no connection can be made, which Pants would try again and again for many seconds."""
    if not url.startswith("http"):
        return ""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError as error:
        return "not found" if error.code == 404 else ""
    except OSError as error:
        reason = getattr(error, "reason", error)
        # Pants has certificates of its own.
        return "" if isinstance(reason, ssl.SSLError) else str(reason)
    return ""


async def _of_host(host: HostInterpreter) -> Cpython:
    # Nobody reads it, but with the files of the interpreter the process changes.
    fingerprint = FileContent("fingerprint", host.fingerprint.encode())
    what = f"CPython {host.version} of the build machine; not reproducible"
    return Cpython(
        argv=(
            f"--executable={host.executable}",
            *(f"--stdlib={folder}" for folder in host.stdlib),
            f"--exact-version={host.version}",
        ),
        digest=EMPTY_DIGEST,
        python=(host.executable,),
        python_digest=await Get(Digest, CreateDigest([fingerprint])),
        inputs=FrozenDict({"cpython": f"{host.version} of the build machine, {host.executable}"}),
        labels=FrozenDict({LABEL: what}),
    )


# Which of the two it is may change from one run to the next, and is to be said in each.
@_uncacheable_rule
async def cpython(request: CpythonRequest, oci: Oci, toolchain: Toolchain) -> Cpython:
    fields, source = request.fields, oci.interpreter_source
    lock, version = fields.lock.value, fields.version.value
    assert lock is not None and version is not None, "a default, and a required field"
    failures: list[str] = []
    if source != InterpreterSource.HOST:
        archives = await MultiGet(
            Get(DownloadedArchive, ArchiveRequest(lock, version, platform))
            for platform in (request.platform, toolchain.platform)
        )
        failures = [failure for archive in archives for failure in archive.failures]
        if not failures:
            return await Get(Cpython, PinnedCpython(fields, *archives))
    if source != InterpreterSource.PINNED:
        if request.platform != toolchain.platform:
            failures.append(f"this machine's interpreters: they run on {toolchain.platform.name}")
        else:
            hosts = await Get(HostInterpreters, HostInterpreterRequest(version))
            if hosts.found is not None:
                if failures:
                    _warn(fields, hosts.found, failures)
                return await _of_host(hosts.found)
            failures.append(f"this machine's interpreters: {hosts.seen}")
    raise InterpreterNotFound(
        f"{fields.address} needs CPython {version} for {request.platform.name}. Tried:\n"
        + "".join(f"  {failure}\n" for failure in dict.fromkeys(failures))
        + _WAYS_OUT.format(version=version)
    )


_WAYS_OUT = """\
Ways out:
  - let this machine reach the release site, or set CPYTHON_MIRROR to the address of a mirror that has its \
releases (several, separated by spaces, are tried in turn);
  - for an image of this machine's own platform that need not be reproducible: install the interpreter, \
for instance with `pyenv install {version}`, and build with --oci-interpreter-source=auto or =host."""


def _warn(fields: CpythonFieldSet, host: HostInterpreter, failures: Iterable[str]) -> None:
    reasons = "\n".join(f"  {failure}" for failure in dict.fromkeys(failures))
    logger.warning(
        f"{fields.address}: taking this machine's own CPython {host.version}, {host.executable}. An "
        f"image that has it is NOT reproducible, and is labelled so. The pinned archive:\n{reasons}"
    )


@rule
async def pinned_cpython(request: PinnedCpython) -> Cpython:
    pin, version = request.archive.archive, request.fields.version.value
    omit = tuple(f"--omit={pattern}" for pattern in request.fields.omit.value or ())
    unpacked = await Get(
        ProcessResult,
        ToolProcess(
            ("unpack-interpreter", "--archive=archive.tar.gz", f"--version={version}", *omit),
            input_digest=request.runnable.digest,
            description=f"Unpack CPython {pin.version} to compile with",
        ),
    )
    return Cpython(
        argv=("--archive=archive.tar.gz", f"--exact-version={pin.version}"),
        digest=request.archive.digest,
        python=(f"interpreter/usr/local/bin/python{version}",),
        python_digest=await Get(Digest, RemovePrefix(unpacked.output_digest, "out")),
        inputs=FrozenDict({"cpython": f"{pin.version}+{pin.release} sha256:{pin.sha256}"}),
    )


def rules():
    return collect_rules()
