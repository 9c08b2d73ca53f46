"""The layers that are made of Debian packages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, Sequence

from . import maintainer_scripts
from .deb import MERGED, Deb, read_deb
from .layer import Tree
from .ldcache import ld_so_cache, shared_libraries
from .packages import distribution, package_facts
from .python import add_compiled


@dataclass(frozen=True)
class DebianFiles:
    """`facts` are `debs` (`package_facts` of each), and the `distribution` if it says which it is."""

    tree: Tree
    facts: Dict[str, Any]


def debian_tree(
    debs: Sequence[Path],
    base: Sequence[Path],
    triplet: str,
    omit: Sequence[str],
    links: Iterable[str],
    python: Sequence[str],
) -> DebianFiles:
    """What `debs` add to an image that holds the packages `base` already.

    `omit` are patterns of paths to leave out, `links` symlinks to add (`path=target`). Python files
    are compiled by the command `python`.
    """
    packages = [read_deb(path) for path in debs]
    unpacked = _unpacked(packages)
    below = _unpacked([read_deb(path) for path in base])
    everything = Tree({**below.entries, **unpacked.entries})
    facts = {"debs": [package_facts(deb, everything) for deb in packages], **distribution(unpacked)}
    tree = unpacked.without(omit)
    if not base:
        for folder in MERGED[:3] + ("lib64",):
            tree.link(folder, f"usr/{folder}")
            tree.folder(f"usr/{folder}")
    libraries = shared_libraries(Tree({**below.entries, **tree.entries}), triplet)
    tree.file("etc/ld.so.cache", ld_so_cache(libraries, triplet))
    for link in links:
        path, _, target = link.partition("=")
        tree.link(path, target)
    add_compiled(tree, python)
    return DebianFiles(tree, facts)


def _unpacked(debs: Sequence[Deb]) -> Tree:
    tree = Tree()
    for deb in debs:
        deb.add_to(tree)
        # Where scanners look for packages that dpkg did not install, as in distroless images.
        tree.file(f"var/lib/dpkg/status.d/{deb.name}", deb.control["control"])
        if "md5sums" in deb.control:
            tree.file(f"var/lib/dpkg/status.d/{deb.name}.md5sums", deb.control["md5sums"])
    maintainer_scripts.apply(debs, tree)
    return tree
