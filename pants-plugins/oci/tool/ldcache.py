"""Writes `ld.so.cache`, as `ldconfig` would have done in the image.

The loader finds the libraries without it; `ctypes.util.find_library` does not. Format:
`struct cache_file_new` in glibc's sysdeps/generic/dl-cache.h, version 1.1.
"""

from __future__ import annotations

import posixpath
import re
import struct
from typing import Dict, List, Optional, Tuple

from .deb import merged
from .elf import read_elf
from .layer import Entry, Tree

# FLAG_ELF_LIBC6 with the ABI's own flag (glibc, sysdeps/generic/ldconfig.h).
FLAGS = {"x86_64-linux-gnu": 0x0303, "aarch64-linux-gnu": 0x0A03}
LIBRARY = re.compile(r"(lib|ld-)[^/]*\.so(\.[^/]*)?$")
LITTLE_ENDIAN = 2


def shared_libraries(tree: Tree, triplet: str) -> Dict[str, str]:
    """Sonames of the libraries in the loader's own folders, by the paths they are found at."""
    found = {}
    # On some architectures the loader itself lies in the second one, too.
    for folder in (f"usr/lib/{triplet}", "usr/lib"):
        for path in tree.entries:
            name = posixpath.basename(path)
            if posixpath.dirname(path) == folder and LIBRARY.match(name):
                file = _followed(tree, path)
                elf = read_elf(file.read()) if file is not None and file.is_file else None
                if elf is not None and elf.soname == name:
                    found["/" + path[len("usr/") :]] = name
    return found


def _followed(tree: Tree, path: str) -> Optional[Entry]:
    """What is at `path`, through links; None where they lead nowhere."""
    entry = tree.entries.get(path)
    seen = {path}
    while entry is not None and entry.target is not None:
        target = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), entry.target))
        path = merged(target.lstrip("/"))
        entry = None if path in seen else tree.entries.get(path)
        seen.add(path)
    return entry


def ld_so_cache(libraries: Dict[str, str], triplet: str) -> bytes:
    """The cache of `libraries`, sonames by their paths."""
    found = sorted(libraries.items())
    ordered = sorted(found, key=lambda item: _loader_order(item[1]), reverse=True)
    strings = bytearray()
    base = 48 + 24 * len(ordered)
    entries = bytearray()
    for path, soname in ordered:
        key, value = base + len(strings), base + len(strings) + len(soname) + 1
        strings += soname.encode() + b"\0" + path.encode() + b"\0"
        entries += struct.pack("<iIIIQ", FLAGS[triplet], key, value, 0, 0)
    header = struct.pack(
        "<20sIIB3xI12x", b"glibc-ld.so.cache1.1", len(ordered), len(strings), LITTLE_ENDIAN, 0
    )
    return header + bytes(entries) + bytes(strings)


def _loader_order(name: str) -> List[Tuple[int, int]]:
    """The order that the loader's binary search expects (`_dl_cache_libcmp`): numbers as numbers."""
    return [
        (1, int(part)) if part.isdigit() else (0, ord(part))
        for part in re.findall(r"[0-9]+|[^0-9]", name)
    ]
