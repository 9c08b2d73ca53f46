"""The layers that are made of Debian packages."""

from __future__ import annotations

import fnmatch
import tempfile
from pathlib import Path, PurePosixPath
from typing import Iterable, Sequence

from . import maintainer_scripts
from .bytecode import compile_tree
from .deb import MERGED, Deb, read_deb
from .layer import Tree
from .ldcache import ld_so_cache, shared_libraries


def debian_tree(
    debs: Sequence[Path],
    base: Sequence[Path],
    triplet: str,
    omit: Sequence[str],
    links: Iterable[str],
    python: Sequence[str],
) -> Tree:
    """What `debs` add to an image that holds the packages `base` already.

    `omit` are patterns of paths to leave out, `links` symlinks to add (`path=target`). Python files
    are compiled by the command `python`.
    """
    tree = _unpacked([read_deb(path) for path in debs], omit)
    below = _unpacked([read_deb(path) for path in base], ())
    if not base:
        for folder in MERGED[:3] + ("lib64",):
            tree.link(folder, f"usr/{folder}")
            tree.folder(f"usr/{folder}")
    libraries = shared_libraries(Tree({**below.entries, **tree.entries}), triplet)
    tree.file("etc/ld.so.cache", ld_so_cache(libraries, triplet))
    for link in links:
        path, _, target = link.partition("=")
        tree.link(path, target)
    _compile(tree, python)
    return tree


def _unpacked(debs: Sequence[Deb], omit: Sequence[str]) -> Tree:
    tree = Tree()
    for deb in debs:
        deb.add_to(tree)
        # Where scanners look for packages that dpkg did not install, as in distroless images.
        tree.file(f"var/lib/dpkg/status.d/{deb.name}", deb.control["control"])
        if "md5sums" in deb.control:
            tree.file(f"var/lib/dpkg/status.d/{deb.name}.md5sums", deb.control["md5sums"])
    maintainer_scripts.apply(debs, tree)
    kept = {path for path in tree.entries if not _matches(path, omit)}
    # What is taken back in keeps the folders it lies in.
    kept |= {str(folder) for path in kept for folder in PurePosixPath(path).parents}
    return Tree({path: entry for path, entry in tree.entries.items() if path in kept})


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits the path or a folder above it; a later `!pattern` takes it back."""
    matched = False
    for pattern in patterns:
        keep, pattern = pattern.startswith("!"), pattern.lstrip("!")
        if fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}/*"):
            matched = not keep
    return matched


def _compile(tree: Tree, python: Sequence[str]) -> None:
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
