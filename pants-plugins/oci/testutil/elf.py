"""Makes small ELF files for tests."""

from __future__ import annotations

import struct
from typing import Dict, Iterator, List, Mapping, Sequence, Sized, Tuple

MACHINES = {"amd64": 62, "arm64": 183}
# Where the file is loaded: addresses are not offsets.
BASE = 0x10000


def make_elf(
    soname: str = "",
    needed: Sequence[str] = (),
    requires: Mapping[str, Sequence[str]] = {},
    defines: Sequence[str] = (),
    machine: str = "amd64",
    runpath: str = "",
    weak: Sequence[str] = (),
) -> bytes:
    """A library without any code.

    Args:
        requires: For each soname the symbol versions; those in `weak` need not be there.
        defines: Symbol versions; the base version, named as the soname, comes in addition.
    """
    strings = _Strings()
    tags = [(1, strings[name]) for name in needed]
    tags += [(tag, strings[name]) for tag, name in ((14, soname), (29, runpath)) if name]
    libraries = [
        (strings[library], [(strings[version], version in weak) for version in versions])
        for library, versions in requires.items()
    ]
    body = bytearray()

    def table(content: bytes) -> int:
        body.extend(bytes(-len(body) % 8))
        body.extend(content)
        return BASE + 176 + len(body) - len(content)

    if libraries:
        tags += [(0x6FFFFFFE, table(_verneed(libraries))), (0x6FFFFFFF, len(libraries))]
    if defines:
        names = [strings[name] for name in (soname, *defines)]
        tags += [(0x6FFFFFFC, table(_verdef(names))), (0x6FFFFFFD, len(names))]
    tags += [(5, table(bytes(strings.content))), (0, 0)]
    dynamic = table(b"".join(struct.pack("<QQ", *tag) for tag in tags)) - BASE
    size = 176 + len(body)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\x02\x01\x01", 3, MACHINES[machine], 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0),
    )
    return header + _segment(1, 0, size) + _segment(2, dynamic, size - dynamic) + bytes(body)


def _segment(kind: int, offset: int, size: int) -> bytes:
    address = BASE + offset
    return struct.pack("<IIQQQQQQ", kind, 4, offset, address, address, size, size, 8)


class _Strings:
    def __init__(self) -> None:
        self.content = bytearray(b"\0")
        self._offsets: Dict[str, int] = {}

    def __getitem__(self, string: str) -> int:
        if string not in self._offsets:
            self._offsets[string] = len(self.content)
            self.content += string.encode() + b"\0"
        return self._offsets[string]


def _verneed(libraries: Sequence[Tuple[int, List[Tuple[int, bool]]]]) -> bytes:
    table = b""
    for left, (library, versions) in zip(_countdown(libraries), libraries):
        following = 16 + 16 * len(versions) if left else 0
        table += struct.pack("<HHIII", 1, len(versions), library, 16, following)
        for more, (name, weak) in zip(_countdown(versions), versions):
            table += struct.pack("<IHHII", 0, 2 if weak else 0, 2, name, 16 if more else 0)
    return table


def _verdef(names: Sequence[int]) -> bytes:
    table = b""
    for index, (left, name) in enumerate(zip(_countdown(names), names), 1):
        base = 1 if index == 1 else 0
        table += struct.pack("<HHHHIII", 1, base, index, 1, 0, 20, 28 if left else 0)
        table += struct.pack("<II", name, 0)
    return table


def _countdown(items: Sized) -> Iterator[int]:
    """How many items follow each."""
    return iter(range(len(items) - 1, -1, -1))
