"""Which file of a `poetry.lock` a wheel was installed from."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from oci.tool.compatibility import canonical

# Name, version, build, and tags of Python, ABI and platform (the wheel format's specification).
FILE = re.compile(r"[^-]+-[^-]+(?:-(\d[^-]*))?-([^-]+-[^-]+-[^-]+)\.whl")


@dataclass(frozen=True)
class LockedFile:
    name: str
    sha256: str


Lock = Mapping[Tuple[str, str], Sequence[LockedFile]]


def read_lock(path: Path) -> Lock:
    """By canonical name and version the wheels that were locked."""
    # Python reads TOML from 3.11 on; what other Pythons import of this module does without.
    import tomllib

    lock: Dict[Tuple[str, str], List[LockedFile]] = {}
    for package in tomllib.loads(path.read_text())["package"]:
        files = lock.setdefault((canonical(package["name"]), package["version"]), [])
        for file in package["files"]:
            if file["file"].endswith(".whl"):
                files.append(LockedFile(file["file"], file["hash"].partition("sha256:")[2]))
    return lock


def installed_from(wheel: Mapping[str, Any], lock: Lock) -> Optional[LockedFile]:
    """The locked file that the facts of an installed wheel (`compatibility.wheels`) fit.

    Its tags and build number are those of the file's name. Where builders wrote others, or a version
    is not in the lock, there is none: no guess is made.
    """
    files = lock.get((canonical(wheel["name"]), wheel["version"]), ())
    wanted = (wheel["file"]["build"], _expanded(wheel["file"]["tags"]))
    same = [file for file in files if _named(file) == wanted]
    return same[0] if len(same) == 1 else None


def _named(file: LockedFile) -> Tuple[str, FrozenSet[str]]:
    match = FILE.fullmatch(file.name)
    return (match[1] or "", _expanded([match[2]])) if match else ("", frozenset())


def _expanded(tags: Sequence[str]) -> FrozenSet[str]:
    """Single tags of compressed sets, such as `py2.py3-none-any`."""
    parts = [[part.split(".") for part in tag.split("-")] for tag in tags]
    return frozenset("-".join(tag) for part in parts for tag in itertools.product(*part))
