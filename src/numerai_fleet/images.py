"""Images where no engine keeps them: archives that Pants made, unpacked once for all that run them."""

from __future__ import annotations

import gzip
import json
import platform
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from numerai_fleet.engines.base import EngineError

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# What containers want to mount something at; the files are the node's.
FOLDERS = ("dev", "in", "out", "proc", "sys", "tmp")
FILES = ("etc/hosts", "etc/resolv.conf")


@dataclass(frozen=True)
class Image:
    """Args:
    rootfs: its files, for many containers to share.
    config: what it says of its process (OCI image configuration, `config`).
    """

    rootfs: Path
    config: dict[str, Any]


class Images:
    """Args:
    archives: the folder below which each image.json has its image.tar beside it.
    bundles: where images are unpacked to, which all nodes see.
    """

    def __init__(self, archives: Path, bundles: Path) -> None:
        self.archives = archives
        self.bundles = bundles.absolute()
        self._known: dict[str, Image] = {}

    def get(self, reference: str) -> Image:
        """The image of this name, unpacked.

        Raises EngineError: there is none, or it cannot be unpacked.
        """
        if reference not in self._known:
            digest, archive = self._find(reference)
            target = self.bundles / digest.rpartition(":")[2][:16]
            try:
                if not target.exists():
                    _unpack(archive, target)
                config = json.loads((target / "config.json").read_text())
            except (OSError, tarfile.TarError, KeyError, ValueError) as error:
                raise EngineError(f"{archive} cannot be unpacked to {target}: {error}") from None
            self._known[reference] = Image(target / "rootfs", config)
        return self._known[reference]

    def _find(self, reference: str) -> tuple[str, Path]:
        """Its digest, and its archive."""
        found = {}
        for path in sorted(self.archives.rglob("image.json")):
            described = json.loads(path.read_text())
            found[described["reference"]] = (described["digest"], path.with_name("image.tar"))
        name, _, digest = reference.partition("@")
        tagged = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        if tagged in found and digest in ("", found[tagged][0]):
            return found[tagged]
        there = f" It has {', '.join(found)}." if found else ""
        raise EngineError(
            f"{self.archives} has no archive of {reference}: build it, such as by `./pants package "
            f"images:py311`, or name the folder that it is in with --images.{there}"
        )


def _unpack(archive: Path, target: Path) -> None:
    """Afterwards target is there, and whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        root = scratch / "rootfs"
        root.mkdir()
        with tarfile.open(archive) as layout:
            config, layers = _described(layout)
            for layer in layers:
                blob = _blob(layout, layer["digest"])
                # tarfile's own way with streams takes the first part of several for all.
                packed = layer["mediaType"].endswith("gzip")
                _apply(gzip.open(blob) if packed else blob, root)
        for name in FOLDERS:
            (root / name).mkdir(exist_ok=True)
        for name in FILES:
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).touch()
        (scratch / "config.json").write_text(json.dumps(config))
        scratch.chmod(0o755)
        scratch.rename(target)
    except OSError:
        if not target.exists():  # else another submitter was first
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _described(layout: tarfile.TarFile) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """This machine's image: what it says of its process, and its layers' descriptors."""
    index = layout.extractfile("index.json")
    assert index
    manifest = json.load(index)
    wanted = ARCHITECTURES.get(platform.machine(), platform.machine())
    while "manifests" in manifest:
        choices = manifest["manifests"]
        own = [each for each in choices if each.get("platform", {}).get("architecture") == wanted]
        manifest = json.load(_blob(layout, (own or choices)[0]["digest"]))
    config = json.load(_blob(layout, manifest["config"]["digest"]))
    if config["architecture"] != wanted:
        raise ValueError(f"it is for {config['architecture']}, not for {wanted}")
    return config["config"], manifest["layers"]


def _blob(layout: tarfile.TarFile, digest: str) -> IO[bytes]:
    file = layout.extractfile(f"blobs/{digest.replace(':', '/')}")
    assert file
    return file


def _apply(layer: IO[bytes] | gzip.GzipFile, root: Path) -> None:
    """Puts a layer's files over those of the layers below it (OCI image layer specification)."""
    own: set[Path] = set()
    with tarfile.open(fileobj=layer, mode="r|") as tar:
        for member in tar:
            path = _inside(root, member.name)
            if path.name == ".wh..wh..opq":
                for below in set(path.parent.iterdir()) - own:
                    _remove(below)
            elif path.name.startswith(".wh."):
                _remove(path.with_name(path.name.removeprefix(".wh.")))
            else:
                if path.is_symlink() or not (path.is_dir() and member.isdir()):
                    _remove(path)
                if member.islnk():
                    _inside(root, member.linkname)
                tar.extract(member, root, numeric_owner=True)
                own.add(path)


def _inside(root: Path, name: str) -> Path:
    """A link in an image must not lead us to files of this machine."""
    path = root / name.lstrip("/")
    if path != root and not path.parent.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{name} is not in the image")
    return path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
