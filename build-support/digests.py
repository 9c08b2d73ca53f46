"""`make digests`: writes what images were just packaged into images/digests.json.

A reviewer sees there which images a change touches. An image that is not made of pins alone differs
from machine to machine: what is expected of it stays as it is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

# The labels that such an image has: the build machine's own interpreter, packages that are not those
# of the lock.
NOT_OF_PINS = ("oci.interpreter", "oci.cpu_index")

Digests = dict[str, dict[str, str]]


def updated(expected: Digests, images: list[dict[str, Any]]) -> Digests:
    """The expected digests, with those of `images` (what their image.json says) in their place."""
    digests = {name: dict(platforms) for name, platforms in expected.items()}
    for image in images:
        name = image["reference"].partition(":")[0]
        for platform, built in image["platforms"].items():
            others = [built["labels"][label] for label in NOT_OF_PINS if label in built["labels"]]
            if others:
                print(f"{name} {platform}: left as it is; made with {' and '.join(others)}")
            else:
                digests.setdefault(name, {})[platform] = built["digest"]
    return digests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packaged", type=Path, nargs="+", help="image.json of every image there is")
    parser.add_argument("--digests", type=Path, default=Path("images/digests.json"))
    args = parser.parse_args()
    expected = json.loads(args.digests.read_text()) if args.digests.exists() else {}
    images = [json.loads(file.read_text()) for file in args.packaged]
    digests = updated(expected, images)
    # An image that is gone expects nothing any more.
    names = {image["reference"].partition(":")[0] for image in images}
    digests = {name: digests[name] for name in sorted(digests) if name in names}
    for name in sorted({*digests, *expected}):
        if digests.get(name) != expected.get(name):
            print(f"{name}: {'new' if name not in expected else 'changed'}")
    args.digests.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
