"""Says in which layer and which file two images differ."""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oci_archive import Archive, Layer, PlatformImage, open_layer, read, sha256

# What a file in a layer is, apart from its name: type, mode, owner, time, link, attributes, content.
Member = tuple[Any, ...]
Names = tuple[str, str]


def differences(
    one: Archive, other: Archive, names: Names = ("the first", "the second")
) -> Iterator[str]:
    """One line for each layer, file and setting that two images do not have in common; nothing if
    their platforms are equal, digests and bytes."""
    for platform in dict.fromkeys([*one.platforms, *other.platforms]):
        a, b = (image.platforms.get(platform) for image in (one, other))
        if a is None or b is None:
            yield f"{platform}: only in {names[a is None]}"
        elif a != b:
            layers = list(_layer_differences((one.path, a), (other.path, b), names))
            lines = [*layers, *_config_differences(a.config, b.config, names, bool(layers))]
            yield from (f"{platform}: {line}" for line in lines or ["another manifest"])


def _layer_differences(
    one: tuple[Path, PlatformImage], other: tuple[Path, PlatformImage], names: Names
) -> Iterator[str]:
    layers = [{layer.what: layer for layer in image.layers} for _, image in (one, other)]
    for what in dict.fromkeys([*layers[0], *layers[1]]):
        a, b = (found.get(what) for found in layers)
        if a is None or b is None:
            yield f"layer {what}: only in {names[a is None]}"
        elif not a.diff_id or not b.diff_id:
            yield f"layer {what}: cannot be read in {names[bool(a.diff_id)]}"
        elif a.diff_id != b.diff_id:
            members = [_members(one[0], a), _members(other[0], b)]
            paths = sorted({*members[0], *members[1]})
            differing = [path for path in paths if members[0].get(path) != members[1].get(path)]
            for path in differing:
                yield f"layer {what}: {path}: {_what(members, path, names)}"
            if not differing:
                yield f"layer {what}: the same files, archived differently"
        elif a.digest != b.digest:
            yield f"layer {what}: the same files, compressed differently"
    if layers[0].keys() == layers[1].keys() and [*layers[0]] != [*layers[1]]:
        yield "layers in another order"


def _members(image: Path, layer: Layer) -> dict[str, Member]:
    with tarfile.open(image) as tar:
        member = next(each for each in tar if each.name.removeprefix("./") == layer.member)
        with open_layer(tar, member) as files:
            return {file.name: _member(files, file) for file in files}


def _member(layer: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    file = layer.extractfile(info) if info.isfile() else None
    content = sha256(file) if file else ""
    attributes = sorted(pair for pair in info.pax_headers.items() if "xattr" in pair[0])
    owner = (info.uid, info.gid)
    return info.type, oct(info.mode), *owner, info.mtime, info.linkname, attributes, content


def _what(members: list[dict[str, Member]], path: str, names: Names) -> str:
    a, b = (found.get(path) for found in members)
    if a is None or b is None:
        return f"only in {names[a is None]}"
    facts = ("type", "mode", "uid", "gid", "time", "link", "attributes", "content")
    return ", ".join(f"{name} {x} / {y}" for name, x, y in zip(facts, a, b) if x != y)


def _config_differences(
    one: dict[str, Any], other: dict[str, Any], names: Names, other_layers: bool
) -> Iterator[str]:
    """Other layers have another `rootfs`, which needs no line of its own."""
    a, b = (dict(_settings(config)) for config in (one, other))
    for key in dict.fromkeys([*a, *b]):
        if a.get(key) != b.get(key) and not (other_layers and key in ("rootfs", "history")):
            if key not in a or key not in b:
                yield f"config {key}: only in {names[key not in a]}, {a.get(key, b.get(key))!r}"
            else:
                yield f"config {key}: {a[key]!r} / {b[key]!r}"


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((key, value) for key, value in config.items() if key != "config")
    for key, value in config.get("config", {}).items():
        if key == "Env":
            value = dict(each.partition("=")[::2] for each in value or ())
        if isinstance(value, dict):
            yield from ((f"{key} {name}", each) for name, each in value.items())
        else:
            yield key, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", type=Path, help="an image.tar")
    parser.add_argument("other", type=Path, help="the other image's")
    args = parser.parse_args()
    lines = list(differences(read(args.one), read(args.other)))
    print("\n".join(lines) or "equal")
    raise SystemExit(bool(lines))


if __name__ == "__main__":
    main()
