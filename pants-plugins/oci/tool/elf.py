"""Reads what the dynamic loader wants to know of a program or a library.

Formats: ELF's gABI, chapter 5; for symbol versions the Linux Standard Base, "Symbol Versioning".
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from typing import Dict, FrozenSet, Iterator, List, Optional, Sequence, Tuple, Union

Data = Union[bytes, mmap.mmap]
_Record = Tuple[int, Tuple[int, ...]]

MAGIC = b"\x7fELF"
MACHINES = {62: "amd64", 183: "arm64"}
# 64 bits, little-endian: all that images are made for.
CLASS_AND_ORDER = b"\x02\x01"
ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_DYNAMIC = 1, 2
SHT_NOBITS = 8
# Where CUDA's compiler puts what it compiled for GPUs; CUDA looks there once it has found a GPU.
GPU_CODE = (b".nv_fatbin", b"__nv_relfatbin")
DT_NULL, DT_NEEDED, DT_STRTAB, DT_SONAME, DT_RPATH, DT_RUNPATH = 0, 1, 5, 14, 15, 29
DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM = range(0x6FFFFFFC, 0x70000000)
VER_FLG_BASE, VER_FLG_WEAK = 1, 2


@dataclass(frozen=True)
class Elf:
    """A dynamically linked file.

    Attributes:
        machine: `amd64`, `arm64`, or the number that ELF has for another one.
        runpath: The folders of DT_RUNPATH, or else of DT_RPATH, as they are written.
        requires: For each library's soname the symbol versions that it must define.
        defines: The symbol versions that the file defines itself.
    """

    machine: str
    soname: Optional[str] = None
    needed: Tuple[str, ...] = ()
    runpath: Tuple[str, ...] = ()
    requires: Dict[str, FrozenSet[str]] = field(default_factory=dict)
    defines: FrozenSet[str] = frozenset()


def read_elf(data: Data) -> Optional[Elf]:
    """None for what no loader could load: other files, static programs, damaged files.

    Only the tables that the file's headers lead to are read. Of files of 32 bits or of the other
    byte order nothing but the machine is told.
    """
    try:
        return _read(data)
    except (struct.error, ValueError, LookupError, OverflowError):
        return None


def stripped(data: Data) -> Optional[bytes]:
    """What is read of a file on a machine without a GPU; None if that is all, or no loader reads it.

    What no segment holds is symbol tables, debugging information and the headers of sections, which
    only linkers and debuggers read. Most of it lies behind the segments and is gone; zeros, which
    compress to nothing, take the place of the rest and of code for GPUs.
    """
    if read_elf(data) is None or data[4:6] != CLASS_AND_ORDER:
        return None
    try:
        kept = _stripped(data)
    except (struct.error, LookupError):
        return None
    return kept if kept != data else None


def _stripped(data: Data) -> bytes:
    start, size, count = _segment_headers(data)
    headers = [(0, 64), (start, size * count)]
    held = [*headers, *((segment.offset, segment.size) for segment in _segments(data))]
    kept = bytearray(max(offset + size for offset, size in held))
    for offset, size in held:
        kept[offset : offset + size] = data[offset : offset + size]
    for section in _sections(data):
        if section.name in GPU_CODE:
            kept[section.offset : section.offset + section.size] = bytes(section.size)
    # The header tells of sections: where their headers are, how many, which one has the names.
    struct.pack_into("<Q", kept, 40, 0)
    struct.pack_into("<HH", kept, 60, 0, 0)
    return bytes(kept)


def _read(data: Data) -> Optional[Elf]:
    if data[:4] != MAGIC:
        return None
    kind, number = struct.unpack_from(">HH" if data[5] == 2 else "<HH", data, 16)
    if kind not in (ET_EXEC, ET_DYN):
        return None
    machine = MACHINES.get(number, str(number))
    if data[4:6] != CLASS_AND_ORDER:
        return Elf(machine)
    segments = list(_segments(data))
    dynamic = [segment for segment in segments if segment.kind == PT_DYNAMIC]
    if not dynamic:
        return None
    tables = _Tables(data, segments, dynamic[0])
    return Elf(
        machine,
        next(iter(tables.strings(DT_SONAME)), None),
        tables.strings(DT_NEEDED),
        tables.runpath(),
        tables.requires(),
        tables.defines(),
    )


@dataclass(frozen=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def _segments(data: Data) -> Iterator[_Segment]:
    start, size, count = _segment_headers(data)
    for i in range(count):
        kind, _, offset, address, _, in_file = struct.unpack_from("<IIQQQQ", data, start + i * size)
        yield _Segment(kind, offset, address, in_file)


@dataclass(frozen=True)
class _Section:
    name: bytes
    offset: int
    size: int


def _sections(data: Data) -> Iterator[_Section]:
    (start,) = struct.unpack_from("<Q", data, 40)
    length, count, names = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQ", data, start + i * length) for i in range(count)]
    for name, kind, _, _, offset, size in headers:
        if kind != SHT_NOBITS:
            begin = headers[names][4] + name
            yield _Section(data[begin : data.find(b"\0", begin)], offset, size)


def _segment_headers(data: Data) -> Tuple[int, int, int]:
    """Where they start, the size of each in bytes, how many there are."""
    return (*struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54))


class _Tables:
    """The entries of the dynamic section, by tag, and the tables that they point at."""

    def __init__(self, data: Data, segments: Sequence[_Segment], dynamic: _Segment) -> None:
        self._data = data
        self._loaded = [segment for segment in segments if segment.kind == PT_LOAD]
        self._tags: Dict[int, List[int]] = {}
        for offset in range(dynamic.offset, dynamic.offset + dynamic.size - 15, 16):
            tag, value = struct.unpack_from("<QQ", data, offset)
            if tag == DT_NULL:
                break
            self._tags.setdefault(tag, []).append(value)
        self._strings = self._offset(DT_STRTAB)

    def strings(self, tag: int) -> Tuple[str, ...]:
        return tuple(self._string(value) for value in self._tags.get(tag, ()))

    def runpath(self) -> Tuple[str, ...]:
        paths = self.strings(DT_RUNPATH) or self.strings(DT_RPATH)
        return tuple(folder for path in paths for folder in path.split(":"))

    def requires(self) -> Dict[str, FrozenSet[str]]:
        """Without the weak ones, which the loader does without."""
        requires = {}
        libraries = self._table(DT_VERNEED, DT_VERNEEDNUM, "<HHIII")
        for position, (_, count, soname, versions, _) in libraries:
            requires[self._string(soname)] = frozenset(
                self._string(name)
                for _, (_, flags, _, name, _) in self._chain(position + versions, count, "<IHHII")
                if not flags & VER_FLG_WEAK
            )
        return requires

    def defines(self) -> FrozenSet[str]:
        """Without the base version, which is the file's name."""
        names = set()
        versions = self._table(DT_VERDEF, DT_VERDEFNUM, "<HHHHIII")
        for position, (_, flags, _, _, _, first_name, _) in versions:
            if not flags & VER_FLG_BASE:
                names.add(struct.unpack_from("<I", self._data, position + first_name)[0])
        return frozenset(self._string(name) for name in names)

    def _table(self, tag: int, number: int, layout: str) -> Iterator[_Record]:
        if tag not in self._tags:
            return iter(())
        return self._chain(self._offset(tag), self._tags[number][0], layout)

    def _chain(self, position: int, count: int, layout: str) -> Iterator[_Record]:
        """Positions and values of records, the last value of which leads to the next record."""
        for _ in range(count):
            record = struct.unpack_from(layout, self._data, position)
            yield position, record
            if record[-1] == 0:
                break
            position += record[-1]

    def _string(self, index: int) -> str:
        start = self._strings + index
        end = self._data.find(b"\0", start)
        if end < 0:
            raise ValueError("a string without an end")
        return self._data[start:end].decode()

    def _offset(self, tag: int) -> int:
        """Where in the file a table is that the loader finds at an address."""
        address = self._tags[tag][0]
        for segment in self._loaded:
            if segment.address <= address < segment.address + segment.size:
                return address - segment.address + segment.offset
        raise ValueError(f"nothing is loaded at {address:#x}")
