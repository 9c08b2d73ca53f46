"""`make sizes`: a table of layers, packages and sizes for every image, and what images have in common."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

# Names of packages stop here; their number is told in any case.
WIDTH = 70

Image = dict[str, Any]


def table(image: Image, platform: str) -> Iterator[str]:
    """The lines of one platform's table; sizes are in MB of 10^6 bytes."""
    layers = image["platforms"][platform]["layers"]
    rows = [("layer", "compressed", "unpacked", "packages")]
    rows += [(layer["what"], *_sizes([layer]), _packages(layer)) for layer in layers]
    rows.append(("sum", *_sizes(layers), ""))
    width = max(len(row[0]) for row in rows)
    yield f"{image['reference']} {platform}, MB"
    for what, compressed, unpacked, packages in rows:
        yield f"  {what:{width}}  {compressed:>10}  {unpacked:>8}  {packages}".rstrip()


def common(images: Sequence[Image]) -> Iterator[str]:
    """For each image of a flavour (`x_flavour`) what of it comes with the plain image (`x`)."""
    for plain, flavour in permutations(images, 2):
        names = [image["reference"].partition(":")[0] for image in (plain, flavour)]
        if names[1].startswith(f"{names[0]}_"):
            for platform in sorted(plain["platforms"].keys() & flavour["platforms"].keys()):
                layers, others = (
                    image["platforms"][platform]["layers"] for image in (flavour, plain)
                )
                known = {layer["digest"] for layer in others}
                shared = [layer for layer in layers if layer["digest"] in known]
                yield (
                    f"{names[1]} {platform}: {len(shared)} of {len(layers)} layers, "
                    f"{_sizes(shared)[0]} of {_sizes(layers)[0]} MB compressed, are those of {names[0]}"
                )


def _sizes(layers: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Compressed and unpacked."""
    size, unpacked = (sum(layer[key] for layer in layers) / 1e6 for key in ("size", "unpacked"))
    return f"{size:.1f}", f"{unpacked:.1f}"


def _packages(layer: dict[str, Any]) -> str:
    packages = [package.partition("==")[0] for package in layer.get("packages", ())]
    if not packages:
        return ""
    text = f"{len(packages)}: {', '.join(packages)}"
    return text if len(text) <= WIDTH else f"{text[:WIDTH].rpartition(',')[0]} …"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packaged", type=Path, nargs="+", help="image.json of the images")
    args = parser.parse_args()
    images = [json.loads(file.read_text()) for file in args.packaged]
    for image in images:
        for platform in image["platforms"]:
            print(*table(image, platform), "", sep="\n")
    for line in common(images):
        print(line)


if __name__ == "__main__":
    main()
