"""Copies the files that the locks name, Debian packages and interpreters, into a folder to serve.

A file comes from where builds would take it (DEBIAN_MIRROR, DEBIAN_SECURITY_MIRROR and CPYTHON_MIRROR,
the first of several), and its hash is checked. What the folder has already is not fetched again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from lock_debian import FOLDER as DEBIAN
from lock_debian import host_mirror

CPYTHON = Path("3rdparty/cpython/cpython.lock")
# Seconds without a byte.
TIMEOUT = 60


@dataclass(frozen=True)
class Pinned:
    """A file that a lock names: where it is, and its place in the folder."""

    url: str
    place: str
    sha256: str


def debian_packages() -> Iterator[Pinned]:
    mirror = cache(host_mirror)
    for path in sorted(DEBIAN.glob("*.lock")):
        lock = json.loads(path.read_text())
        for package in lock["packages"]:
            channel = package.get("channel", lock["suite"])
            root = "debian-security" if channel.endswith("-security") else "debian"
            url = f"{mirror(channel).rstrip('/')}/{package['path']}"
            yield Pinned(url, f"{root}/{package['path']}", package["sha256"])


def interpreters() -> Iterator[Pinned]:
    mirrors = os.environ.get("CPYTHON_MIRROR", "").split()
    for python in json.loads(CPYTHON.read_text())["pythons"].values():
        for archive in python["archives"].values():
            place = "/".join(archive["url"].split("/")[-2:])
            url = f"{mirrors[0].rstrip('/')}/{place}" if mirrors else archive["url"]
            yield Pinned(url, f"cpython/{unquote(place)}", archive["sha256"])


def fetch(pinned: Pinned, folder: Path) -> bool:
    """Whether the file was fetched: it may be there. Raises OSError where it cannot be had."""
    path = folder / pinned.place
    if path.exists() and _sha256(path) == pinned.sha256:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        part = Path(scratch, "part")
        with urllib.request.urlopen(pinned.url, timeout=TIMEOUT) as source, part.open("wb") as out:
            shutil.copyfileobj(source, out)
        if _sha256(part) != pinned.sha256:
            raise OSError("its hash is not the lock's")
        part.replace(path)
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to copy to; it may hold some of them")
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    files = [*debian_packages(), *interpreters()]
    fetched, failures = 0, []
    for number, pinned in enumerate(files, start=1):
        print(f"[{number}/{len(files)}] {pinned.place}", file=sys.stderr)
        try:
            fetched += fetch(pinned, folder)
        except OSError as error:
            failures.append(f"  {pinned.url}: {error}")
    there = len(files) - fetched - len(failures)
    print(f"{folder}: {fetched} files fetched, {there} were there", file=sys.stderr)
    if failures:
        raise SystemExit(
            "\n".join([f"{len(failures)} could not be had:", *failures])
            + "\nSet DEBIAN_MIRROR, DEBIAN_SECURITY_MIRROR or CPYTHON_MIRROR to a mirror that has them, "
            "and run this again: what was fetched is kept."
        )


if __name__ == "__main__":
    main()
