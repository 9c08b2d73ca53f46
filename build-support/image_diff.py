"""Says in which layer and which file two images differ."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What a file in a layer is, apart from its name: type, mode, owner, time, link, content.
Member = tuple[Any, ...]


def differences(one: Path, other: Path) -> Iterator[str]:
    """One line for each layer and file that the images in two folders (`image.tar`, `image.json`)
    do not have in common; nothing if their digests are equal."""
    images = [json.loads((folder / "image.json").read_text()) for folder in (one, other)]
    platforms = [image["platforms"] for image in images]
    for platform in dict.fromkeys([*platforms[0], *platforms[1]]):
        a, b = (found.get(platform) for found in platforms)
        if a is None or b is None:
            yield f"{platform}: only in {other if a is None else one}"
        elif a["digest"] != b["digest"]:
            folders = ((one, a["layers"]), (other, b["layers"]))
            yield from (f"{platform}: {line}" for line in _layer_differences(*folders))


def _layer_differences(*images: tuple[Path, list[dict[str, Any]]]) -> Iterator[str]:
    (one, _), (other, _) = images
    layers = [{layer["what"]: layer for layer in found} for _, found in images]
    for what in dict.fromkeys([*layers[0], *layers[1]]):
        a, b = (found.get(what) for found in layers)
        if a is None or b is None:
            yield f"layer {what}: only in {other if a is None else one}"
        elif a["diff_id"] != b["diff_id"]:
            members = [_members(one, a["digest"]), _members(other, b["digest"])]
            for path in sorted({*members[0], *members[1]}):
                if members[0].get(path) != members[1].get(path):
                    yield f"layer {what}: {path}: {_what(members, path)}"
        elif a["digest"] != b["digest"]:
            yield f"layer {what}: the same files, compressed differently"
    if layers[0] == layers[1]:
        yield "equal layers, but another configuration or manifest"


def _members(folder: Path, digest: str) -> dict[str, Member]:
    with tarfile.open(folder / "image.tar") as image:
        blob = gzip.GzipFile(fileobj=image.extractfile(f"blobs/{digest.replace(':', '/')}"))
        with tarfile.open(fileobj=blob, mode="r|") as layer:
            return {member.name: _member(layer, member) for member in layer}


def _member(layer: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    file = layer.extractfile(info) if info.isfile() else None
    content = hashlib.sha256(file.read()).hexdigest() if file else ""
    return info.type, oct(info.mode), info.uid, info.gid, info.mtime, info.linkname, content


def _what(members: list[dict[str, Member]], path: str) -> str:
    a, b = (found.get(path) for found in members)
    if a is None or b is None:
        return f"only in the {'second' if a is None else 'first'}"
    names = ("type", "mode", "uid", "gid", "time", "link", "content")
    return ", ".join(f"{name} {x} / {y}" for name, x, y in zip(names, a, b) if x != y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", type=Path, help="folder of image.tar and image.json")
    parser.add_argument("other", type=Path, help="the same of the other image")
    args = parser.parse_args()
    lines = list(differences(args.one, args.other))
    print("\n".join(lines) or "equal")
    raise SystemExit(bool(lines))


if __name__ == "__main__":
    main()
