"""Writes for each platform of an image what it holds, into the folder `out`."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

from oci.tool.layer import EPOCH

from . import cyclonedx, spdx
from .inventory import take_inventory
from .lock import read_lock


def main() -> None:
    parser = argparse.ArgumentParser(prog="oci.sbom", description=__doc__)
    parser.add_argument(
        "--layers", required=True, help="JSON: for each platform the folders of its layers"
    )
    parser.add_argument("--image", type=Path, default=Path("image.json"))
    parser.add_argument("--lock", type=Path, help="the poetry.lock of the wheels")
    parser.add_argument("--out", type=Path, default=Path("out"))
    args = parser.parse_args()
    image = json.loads(args.image.read_text())
    name = image["reference"].rpartition(":")[0]
    lock = read_lock(args.lock) if args.lock else {}
    created = datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc)
    args.out.mkdir(parents=True, exist_ok=True)
    for platform, folders in json.loads(args.layers).items():
        layers = [json.loads(Path(folder, "layer.json").read_text()) for folder in folders]
        digest = image["platforms"][platform]["digest"]
        inventory = take_inventory(name, platform, digest, layers, lock)
        for kind, write in (("cdx", cyclonedx.document), ("spdx", spdx.document)):
            document = write(inventory, created.strftime("%Y-%m-%dT%H:%M:%SZ"))
            _write(document, args.out / f"{platform.replace('/', '-')}.{kind}.json")


def _write(document: Any, file: Path) -> None:
    file.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
