"""Images as folders, for what runs them without a container engine.

An image is found by its reference in the descriptions (`image.json`) that lie beside the archives that
`./pants package` leaves; an archive is an OCI layout in one tar
(https://github.com/opencontainers/image-spec: image-layout.md, layer.md).
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import platform
import posixpath
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numerai_fleet.engines.base import EngineError

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Unpacked images that stay.
KEPT = 4
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
# What containers want to mount something at; the files are the machine's own.
FOLDERS = ("dev", "in", "out", "proc", "sys", "tmp")
FILES = ("etc/hosts", "etc/resolv.conf")


@dataclass(frozen=True)
class Unpacked:
    """Args:
    root: the folder that its files are in.
    config: as the image's config.json says it: Env, Entrypoint, WorkingDir.
    lock: a descriptor; as long as a process has it, nobody removes the folder.
    """

    root: Path
    config: dict[str, Any]
    lock: int


class Images:
    """Args:
    folder: has a folder for each image, with image.tar and image.json.
    store: where they are unpacked to, and stay; None is this user's cache, where the last ones do.
    """

    def __init__(self, folder: Path, store: Path | None = None) -> None:
        self.folder = folder
        self.store = store.absolute() if store else None
        self._found: dict[str, Unpacked] = {}

    def get(self, reference: str) -> Unpacked:
        """Unpacks it, the first time that anybody here asks.

        Raises EngineError: there is none of that name for this machine, or it cannot be unpacked.
        """
        if reference not in self._found:
            try:
                self._found[reference] = self._get(reference)
            except (OSError, EOFError, ValueError, KeyError, tarfile.TarError) as error:
                text = f"{reference} in {self.folder} cannot be unpacked: {error!r}"
                raise EngineError(text) from None
        return self._found[reference]

    def _get(self, reference: str) -> Unpacked:
        file, description = self._described(reference)
        name = f"linux/{ARCHITECTURES.get(platform.machine(), platform.machine())}"
        if name not in description["platforms"]:
            there = ", ".join(description["platforms"])
            raise EngineError(f"{file.parent} is for {there}, and this machine is {name}")
        built = description["platforms"][name]
        with tarfile.open(file.with_name("image.tar")) as archive:
            manifest = json.load(_blob(archive, built["digest"]))
            config = json.load(_blob(archive, built["config_digest"]))
            root = self._store() / built["config_digest"].partition(":")[2]
            with (root.parent / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not root.exists():
                    print(f"unpacking {reference} (once)", file=sys.stderr, flush=True)
                    part = root.with_suffix(".part")
                    shutil.rmtree(part, ignore_errors=True)  # of one that was killed
                    unpack(archive, [layer["digest"] for layer in manifest["layers"]], part)
                    part.rename(root)
                    if self.store is None:
                        _prune(root)
                os.utime(root)
                held = os.open(root, os.O_RDONLY)
                fcntl.flock(held, fcntl.LOCK_SH)
        return Unpacked(root, config.get("config", {}), held)

    def _store(self) -> Path:
        if self.store is None:
            return _cache()
        self.store.mkdir(parents=True, exist_ok=True)
        return self.store

    def _described(self, reference: str) -> tuple[Path, dict[str, Any]]:
        there = {}
        for file in sorted(self.folder.rglob("image.json")):
            description = json.loads(file.read_text())
            there[description["reference"]] = file, description
        name, _, digest = reference.partition("@")
        tagged = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        if tagged not in there or digest not in ("", there[tagged][1].get("digest")):
            raise EngineError(
                f"there is no image {reference} in {self.folder}, "
                + (f"only {', '.join(there)}. " if there else "nor any other. ")
                + "Build it (./pants package images:py311), or name its folder's folder with --images."
            )
        return there[tagged]


def unpack(archive: tarfile.TarFile, layers: list[str], root: Path) -> None:
    """Args:
        layers: their digests, the lowest first.
        root: is made; devices are left out.

    Raises ValueError: a file would lie outside of `root`.
    """
    root.mkdir(parents=True)
    modes: dict[Path, int] = {}
    for digest in layers:
        # tarfile's own "r|gz" stops after the first of a layer's gzip members.
        stream = gzip.GzipFile(fileobj=_blob(archive, digest))
        with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20) as layer:
            placed: set[Path] = set()
            for member in layer:
                path = _place(layer, member, root, placed)
                if path and member.isdir():
                    modes[path] = member.mode
    for name in FOLDERS:
        (root / name).mkdir(exist_ok=True)
    for name in FILES:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    root.chmod(0o755)
    # Last: root alone could write to some of them before.
    for path, mode in modes.items():
        if path.is_dir() and not path.is_symlink():
            path.chmod(mode)


def _place(
    layer: tarfile.TarFile, member: tarfile.TarInfo, root: Path, placed: set[Path]
) -> Path | None:
    """Puts a layer's file in its place; returns that, or None where none was to be there.

    Args:
        placed: what this layer put so far.
    """
    member.name = _inside(member.name)
    path = root / member.name
    _check(path.parent, root)
    if path.name == OPAQUE:
        for lower in set(path.parent.iterdir() if path.parent.exists() else ()) - placed:
            _remove(lower)
        return None
    if path.name.startswith(WHITEOUT):
        _remove(path.with_name(path.name.removeprefix(WHITEOUT)))
        return None
    if member.isdev() or path == root:
        return None
    if not (member.isdir() and path.is_dir() and not path.is_symlink()):
        _remove(path)
    if member.islnk():
        member.linkname = _inside(member.linkname)
        _check((root / member.linkname).parent, root)
    # Folders stay writable to unpack into.
    layer.extract(member, root, set_attrs=not member.isdir(), numeric_owner=True)
    placed.update((path, *path.parents))
    return path


def _inside(name: str) -> str:
    """Relative to the root, which .. does not leave."""
    return posixpath.normpath(f"/{name}").lstrip("/")


def _check(folder: Path, root: Path) -> None:
    if not folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{folder.relative_to(root)} leads out of the image")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _blob(archive: tarfile.TarFile, digest: str) -> Any:
    file = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
    if file is None:
        raise ValueError(f"{digest} is no file")
    return file


def _prune(new: Path) -> None:
    """Removes all but the images that were used last, and those in use."""
    there = [path for path in new.parent.iterdir() if path.is_dir()]
    for old in sorted(there, key=lambda path: path.stat().st_mtime)[:-KEPT]:
        descriptor = os.open(old, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if old != new:
                shutil.rmtree(old)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)


def _cache() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "numerai-fleet"
    # Others must not get at programs that run as their owner in these images.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
