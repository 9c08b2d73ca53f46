"""Writes `ld.so.cache`, as `ldconfig` would have done in the image.

The loader finds the libraries without it; `ctypes.util.find_library` does not. Format:
`struct cache_file_new` in glibc's sysdeps/generic/dl-cache.h, version 1.1.
"""

from __future__ import annotations

import posixpath
import re
import struct
from typing import Dict, List, Tuple

from .elf import read_elf
from .layer import Tree

# FLAG_ELF_LIBC6 with the ABI's own flag (glibc, sysdeps/generic/ldconfig.h).
FLAGS = {"x86_64-linux-gnu": 0x0303, "aarch64-linux-gnu": 0x0A03}
LIBRARY = re.compile(r"(lib|ld-)[^/]*\.so(\.[^/]*)?$")
LITTLE_ENDIAN = 2


def shared_libraries(tree: Tree, triplet: str) -> Dict[str, str]:
    """Sonames in the folder of the architecture's libraries, and the paths they are found at."""
    folder = f"usr/lib/{triplet}"
    names = {
        posixpath.basename(path): entry
        for path, entry in tree.entries.items()
        if posixpath.dirname(path) == folder and LIBRARY.match(posixpath.basename(path))
    }
    found = {}
    for name in names:
        file = names.get(name)
        while file is not None and file.target is not None:
            file = names.get(file.target)
        elf = read_elf(file.read()) if file is not None and file.is_file else None
        if elf is not None and elf.soname == name:
            found[name] = f"/lib/{triplet}/{name}"
    return found


def ld_so_cache(libraries: Dict[str, str], triplet: str) -> bytes:
    ordered = sorted(libraries.items(), key=lambda item: _loader_order(item[0]), reverse=True)
    strings = bytearray()
    base = 48 + 24 * len(ordered)
    entries = bytearray()
    for soname, path in ordered:
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
