"""Reads the archive of an image, an OCI layout in one tar, and finds what in it is not what it says.

https://github.com/opencontainers/image-spec (image-layout.md, image-index.md, manifest.md, config.md).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import posixpath
import re
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
GZIP = ("application/vnd.oci.image.layer.v1.tar+gzip",)
DAMAGE = (OSError, EOFError, zlib.error, tarfile.TarError)


class NotAnImage(Exception):
    """What is there cannot be read as an image whose digests are kept."""


@dataclass(frozen=True)
class Layer:
    """Both digests are those of the bytes that are there, whatever the image says of them; empty
    where there are none that can be read."""

    what: str
    digest: str
    diff_id: str
    member: str


@dataclass(frozen=True)
class PlatformImage:
    digest: str
    config: dict[str, Any]
    layers: list[Layer]

    @property
    def labels(self) -> dict[str, str]:
        return self.config.get("config", {}).get("Labels") or {}


@dataclass
class Archive:
    """`digest` is the image's: of its index, or of its manifest if it is for one platform."""

    path: Path
    digest: str = ""
    platforms: dict[str, PlatformImage] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read(path: Path) -> Archive:
    """Reads all of an archive, and notes as `problems` what is wrong with it.

    Raises NotAnImage.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            return _Reading(path, tar).archive
    except tarfile.TarError as error:
        raise NotAnImage(f"{path} is no archive of an image: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise NotAnImage(f"{path} is not as OCI images are: {error!r}") from None


class _Reading:
    """One reading of an archive; what it reaches from index.json is all that may be there."""

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self.tar = tar
        self.archive = Archive(path)
        self.members = self._members()
        if not {"oci-layout", "index.json"} <= {*self.members}:
            kept = "manifest.json" in self.members
            raise NotAnImage(
                f"{path} is no OCI archive"
                + (": `docker save` keeps no digests; " if kept else "; ")
                + "`skopeo copy --all docker://… oci-archive:image.tar` makes one."
            )
        self.reached = {"oci-layout", "index.json"}
        self.described: list[dict[str, Any]] = []
        tops = json.loads(self._bytes("index.json"))["manifests"]
        self.archive.digest = tops[0]["digest"] if len(tops) == 1 else ""
        for top in tops:
            self._index_or_manifest(top)
        self._docker()
        for name in sorted({*self.members} - self.reached):
            self._problem(f"{name}: the image has no such file")

    def _problem(self, text: str) -> None:
        self.archive.problems.append(text)

    def _members(self) -> dict[str, tarfile.TarInfo]:
        members: dict[str, tarfile.TarInfo] = {}
        for member in self.tar:
            name = posixpath.normpath(member.name)
            if member.isdir():
                continue
            if name in members:
                self._problem(f"{name}: there twice")
            if not member.isfile():
                self._problem(f"{name}: no plain file")
                continue
            members[name] = member
        return members

    def _open(self, name: str) -> IO[bytes]:
        file = self.tar.extractfile(self.members[name])
        assert file
        return file

    def _bytes(self, name: str) -> bytes:
        with self._open(name) as file:
            return file.read()

    def _blob(self, descriptor: dict[str, Any], what: str) -> tuple[str, str]:
        """The blob's name in the archive, and the digest that it has; empty if there is none."""
        digest = descriptor["digest"]
        if not DIGEST.fullmatch(digest):
            raise ValueError(f"digest {digest}")
        name = f"blobs/{digest.replace(':', '/')}"
        self.reached.add(name)
        if name not in self.members:
            self._problem(f"{what}: {digest} is missing")
            return name, ""
        with self._open(name) as file:
            found = f"sha256:{sha256(file)}"
        if found != digest:
            self._problem(f"{what}: the bytes of {digest} are {found}")
        elif self.members[name].size != descriptor["size"]:
            self._problem(f"{what}: {digest} has {self.members[name].size} bytes, "
                          f"not {descriptor['size']}")  # fmt: skip
        return name, found

    def _document(self, descriptor: dict[str, Any], what: str) -> dict[str, Any] | None:
        name, found = self._blob(descriptor, what)
        try:
            return dict(json.loads(self._bytes(name))) if found else None
        except ValueError as error:
            self._problem(f"{what}: {error}")
            return None

    def _index_or_manifest(self, descriptor: dict[str, Any]) -> None:
        kind = "index" if "index" in descriptor["mediaType"] else "manifest"
        document = self._document(descriptor, kind)
        if document and "manifests" in document:
            for each in document["manifests"]:
                self._index_or_manifest(each)
        elif document:
            self._manifest(descriptor, document)

    def _manifest(self, descriptor: dict[str, Any], manifest: dict[str, Any]) -> None:
        config = self._document(manifest["config"], "config")
        if config is None:
            return
        platform = f"{config['os']}/{config['architecture']}"
        said = descriptor.get("platform", config)
        if f"{said['os']}/{said['architecture']}" != platform:
            self._problem(f"{platform}: called {said['os']}/{said['architecture']} in the index")
        if platform in self.archive.platforms:
            self._problem(f"{platform}: there twice")
        if any(layer["mediaType"] not in GZIP for layer in manifest["layers"]):
            raise NotAnImage(
                f"{self.archive.path} has layers that are not compressed as they were published, as"
                " `docker save` writes them: their digests are lost. Name the image in its registry."
            )
        layers = self._layers(platform, manifest["layers"], config)
        self.archive.platforms[platform] = PlatformImage(descriptor["digest"], config, layers)
        self.described.append(manifest)

    def _layers(
        self, platform: str, descriptors: list[dict[str, Any]], config: dict[str, Any]
    ) -> list[Layer]:
        history = [each for each in config.get("history", ()) if not each.get("empty_layer")]
        diff_ids = config["rootfs"]["diff_ids"]
        if len(diff_ids) != len(descriptors):
            self._problem(f"{platform}: {len(descriptors)} layers, {len(diff_ids)} in its config")
        layers: dict[str, Layer] = {}
        for number, descriptor in enumerate(descriptors):
            named = history[number].get("created_by") if len(history) == len(descriptors) else None
            what = str(named or number)
            if what in layers:
                what = f"{what} ({number})"
            where = f"{platform}: layer {what}"
            name, found = self._blob(descriptor, where)
            diff_id = self._unpacked(name, where) if found else ""
            if diff_id and diff_id not in diff_ids[number : number + 1]:
                self._problem(f"{where}: its files are not those that the config names")
            layers[what] = Layer(what, found, diff_id, name)
        return [*layers.values()]

    def _unpacked(self, name: str, where: str) -> str:
        """The digest of a layer's tar; a damaged layer's last file that can be read is named."""
        last = "the beginning"
        try:
            with self._open(name) as file, gzip.GzipFile(fileobj=file) as blob:
                return f"sha256:{sha256(blob)}"
        except DAMAGE as damage:
            try:
                with open_layer(self.tar, self.members[name]) as layer:
                    for member in layer:
                        last = member.name
            except DAMAGE:
                pass
            self._problem(f"{where}: cannot be unpacked ({damage}), in or after {last}")
            return ""

    def _docker(self) -> None:
        """Engines that know no OCI layout load what manifest.json names, whatever index.json does."""
        if "manifest.json" not in self.members:
            return
        self.reached.add("manifest.json")
        there = [
            [
                f"blobs/{each['digest'].replace(':', '/')}"
                for each in (found["config"], *found["layers"])
            ]
            for found in self.described
        ]
        for image in json.loads(self._bytes("manifest.json")):
            if [image["Config"], *image["Layers"]] not in there:
                self._problem(
                    "manifest.json: `docker load` would take another image than the index's"
                )


def sha256(file: IO[bytes] | gzip.GzipFile) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def open_layer(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tarfile.TarFile:
    return tarfile.open(fileobj=gzip.GzipFile(fileobj=tar.extractfile(member)), mode="r|")
