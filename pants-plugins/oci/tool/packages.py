"""What Debian packages say of themselves, for those who list what an image holds."""

from __future__ import annotations

import posixpath
import re
from typing import Any, Dict

from .deb import Deb
from .layer import Tree

# DEP-5, the form of copyright files that programs can read, names licences by short names.
DEP5 = re.compile(r"(?m)^Format:.*copyright-format")
NAMED = re.compile(r"(?m)^License:[ \t]*(\S.*?)[ \t]*$")
# The others say where texts are, most of them.
REFERRED = re.compile(r"/usr/share/common-licenses/([A-Za-z]+(?:-\d+(?:\.\d+)*)?)")


def package_facts(deb: Deb, files: Tree) -> Dict[str, Any]:
    """What the package is; `files` are those of all packages of the image, before any was left out.

    `name`, `version`, `architecture`, `source` {name, version} and `sha256`, of the .deb; of its
    copyright file `licences`, short names of DEP-5, or else `refers_to`, names of files in
    /usr/share/common-licenses: what of the package they are the licence of, only the prose tells.
    """
    version = deb.field("Version")
    source = re.fullmatch(r"(\S+)(?:\s+\((.+)\))?", deb.field("Source"))
    copyright = _read(files, f"usr/share/doc/{deb.name}/copyright")
    parsed = DEP5.search(copyright)
    return {
        "name": deb.name,
        "version": version,
        "architecture": deb.field("Architecture"),
        "source": {
            "name": source[1] if source else deb.name,
            "version": (source[2] if source else None) or version,
        },
        "sha256": deb.sha256,
        "licences": sorted({*NAMED.findall(copyright)}) if parsed else [],
        "refers_to": [] if parsed else sorted({*REFERRED.findall(copyright)}),
    }


def distribution(tree: Tree) -> Dict[str, Any]:
    """os-release(5), as a fact of the layer that has it."""
    fields = re.findall(r'(?m)^(\w+)="?(.*?)"?$', _read(tree, "usr/lib/os-release"))
    return {"distribution": dict(fields)} if fields else {}


def _read(tree: Tree, path: str) -> str:
    """A file's text, "" if there is none. The folders of documentation may be links to others'."""
    folder, name = posixpath.split(path)
    for candidate in (folder, path):
        entry = tree.entries.get(candidate)
        if entry is not None and entry.target is not None:
            target = posixpath.join(posixpath.dirname(candidate), entry.target)
            target = posixpath.normpath(target).lstrip("/")
            return _read(tree, target if candidate == path else f"{target}/{name}")
    entry = tree.entries.get(path)
    return entry.read().decode(errors="replace") if entry is not None and entry.is_file else ""
