"""The layers that are made of Python packages."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from .bytecode import compile_tree
from .elf import MAGIC, stripped
from .layer import Tree
from .requirements import CpuIndex, Pin, Uv, install

# What uv adds of its own: console scripts, which name the interpreter of this machine and which
# nothing in an image calls, its lock, and the times of wheels that lie in folders.
UVS_OWN = ("bin", ".lock", "*.dist-info/uv_cache.json")


@dataclass(frozen=True)
class Installed:
    """Installed packages.

    Attributes:
        omitted: How many `files` and `bytes` were left out of them; of libraries too.
        from_cpu_index: Those of them that the requirements' hashes do not cover, by name.
    """

    tree: Tree
    omitted: Dict[str, int]
    from_cpu_index: Dict[str, Pin]


def installed_packages(
    requirements: Path,
    uv: Uv,
    site_packages: str,
    omit: Sequence[str] = (),
    cpu_index: Optional[CpuIndex] = None,
    strip: bool = True,
) -> Installed:
    """The packages of a hash-pinned requirements file, at `site_packages` in the image.

    What fits the patterns `omit`, relative to `site_packages`, is left out; `strip`: see
    `elf.stripped`. Raises SystemExit where a package has no fitting wheel.
    """
    target = Path("installed")
    pins = install(requirements, uv, target, cpu_index)
    _drop(target, UVS_OWN)
    omitted = _drop(target, omit)
    if strip:
        omitted["bytes"] += _strip(target)
    _correct_records(target)
    compile_tree(target, site_packages, uv.python)
    return Installed(_tree(target, site_packages), omitted, pins)


def source_tree(source: Path, python: Sequence[str], site_packages: str) -> Tree:
    """The modules below `source`, at `site_packages` in the image, compiled by the command `python`."""
    compile_tree(source, site_packages, python)
    return _tree(source, site_packages)


def add_compiled(tree: Tree, python: Sequence[str]) -> None:
    """Adds the `.pyc` files of the tree's modules, compiled by the command `python`."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        root = Path(folder)
        for path, entry in tree.files():
            if path.endswith(".py"):
                file = root / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(entry.read())
        compile_tree(root, "", python)
        for pyc in root.rglob("*.pyc"):
            tree.file(pyc.relative_to(root).as_posix(), pyc.read_bytes())


def _drop(folder: Path, patterns: Sequence[str]) -> Dict[str, int]:
    """Deletes what fits a pattern (`Tree.without`); returns how many `files` and `bytes` it was."""
    held = _tree(folder, "")
    kept = held.without(patterns).entries
    dropped = [folder / path for path, _ in held.files() if path not in kept]
    size = sum(file.stat().st_size for file in dropped)
    for file in dropped:
        file.unlink()
    return {"files": len(dropped), "bytes": size}


def _strip(folder: Path) -> int:
    """Takes from libraries what is not read of them; returns how many bytes it was."""
    taken = 0
    for file in sorted(folder.rglob("*")):
        data = _library(file)
        kept = stripped(data)
        if kept is not None:
            taken += len(data) - len(kept)
            mode = file.stat().st_mode
            # Another file: this one may be a link into uv's cache.
            file.unlink()
            file.write_bytes(kept)
            file.chmod(mode)
    return taken


def _library(file: Path) -> bytes:
    """The content of an ELF file; nothing of another."""
    if file.is_symlink() or not file.is_file():
        return b""
    with file.open("rb") as stream:
        return MAGIC + stream.read() if stream.read(len(MAGIC)) == MAGIC else b""


def _correct_records(target: Path) -> None:
    """Makes the lists of installed files tell what is there (the format: PyPA's specification of
    recording installed projects)."""
    for record in target.glob("*.dist-info/RECORD"):
        rows = csv.reader(io.StringIO(record.read_text()))
        kept = sorted(_corrected(row, target) for row in rows if (target / row[0]).exists())
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(kept)
        record.write_text(out.getvalue())


def _corrected(row: List[str], target: Path) -> List[str]:
    path, _, size = row
    file = target / path
    if not size or file.stat().st_size == int(size):
        return row
    digest = hashlib.sha256(file.read_bytes()).digest()
    hashed = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return [path, f"sha256={hashed}", str(file.stat().st_size)]


def _tree(folder: Path, site_packages: str) -> Tree:
    tree = Tree()
    tree.add_folder(folder, site_packages.lstrip("/"))
    return tree
