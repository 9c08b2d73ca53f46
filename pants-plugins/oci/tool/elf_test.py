from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import _bisect
import pytest

from oci.testutil.elf import make_elf
from oci.tool.elf import Elf, read_elf, stripped

LIBRARIES = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "")
LIBRARY = make_elf(
    "liba.so.1",
    needed=["libc.so.6", "libm.so.6"],
    requires={"libc.so.6": ["GLIBC_2.17", "GLIBC_2.99"], "libm.so.6": ["GLIBC_2.29"]},
    defines=["A_1", "A_2"],
    machine="arm64",
    runpath="$ORIGIN/../a.libs:/opt",
    weak=["GLIBC_2.99"],
)


def test_what_the_loader_wants_to_know() -> None:
    assert read_elf(LIBRARY) == Elf(
        machine="arm64",
        soname="liba.so.1",
        needed=("libc.so.6", "libm.so.6"),
        runpath=("$ORIGIN/../a.libs", "/opt"),
        requires={"libc.so.6": frozenset({"GLIBC_2.17"}), "libm.so.6": frozenset({"GLIBC_2.29"})},
        defines=frozenset({"A_1", "A_2"}),
    )


def test_of_other_machines_the_number_is_told() -> None:
    i386 = bytearray(LIBRARY)
    i386[4], i386[18] = 1, 3
    s390 = bytearray(LIBRARY)
    s390[5], s390[16:20] = 2, b"\0\3\0\x16"
    assert (read_elf(bytes(i386)), read_elf(bytes(s390))) == (Elf("3"), Elf("22"))


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF" + b"\xff" * 200])
def test_other_files_are_none(data: bytes) -> None:
    assert read_elf(data) is None


def test_a_static_program_is_none() -> None:
    static = LIBRARY[:64] + bytes(56) + LIBRARY[120:176].replace(b"\2", b"\6", 1) + LIBRARY[176:]
    assert read_elf(static) is None


def test_no_damage_is_an_error() -> None:
    for size in range(len(LIBRARY)):
        assert read_elf(LIBRARY[:size]) in (None, read_elf(LIBRARY))
    for position in range(len(LIBRARY)):
        for value in (0, 1, 0x7F, 0xFF):
            damaged = bytearray(LIBRARY)
            damaged[position] = value
            read_elf(bytes(damaged))


@pytest.mark.skipif(not shutil.which("readelf"), reason="this host has no readelf")
def test_readelf_says_the_same_of_this_hosts_libraries() -> None:
    files = sorted({path.resolve() for path in LIBRARIES.glob("lib[a-d]*.so.*")})
    assert files
    for file in files:
        printed = subprocess.run(["readelf", "-dVW", file], capture_output=True, text=True).stdout
        elf = read_elf(file.read_bytes())
        assert elf is not None
        assert [elf.soname] == re.findall(r"\(SONAME\).*\[(.*)\]", printed)
        assert list(elf.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", printed)
        required = {
            part.split()[0]: set(re.findall(r"Name: (\S+)  Flags: none", part))
            for part in printed.split("File: ")[1:]
        }
        assert elf.requires == required
        assert elf.defines == set(re.findall(r"Rev: .*Flags: (?:none|WEAK) .*Name: (\S+)", printed))


def test_a_stripped_library_is_smaller_and_still_loads(tmp_path: Path) -> None:
    # With what a distribution would have stripped.
    library = Path(_bisect.__file__).read_bytes() + b"debugging information"
    kept = stripped(library)
    assert kept is not None and len(kept) < len(library)
    assert read_elf(kept) == read_elf(library)
    assert stripped(kept) is None
    (tmp_path / Path(_bisect.__file__).name).write_bytes(kept)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import _bisect; print(_bisect.__file__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.startswith(str(tmp_path))


@pytest.mark.parametrize(
    "section, kept",
    [(".nv_fatbin", bytes(8)), ("__nv_relfatbin", bytes(8)), (".rodata", b"GPU CODE")],
)
def test_zeros_take_the_place_of_code_for_gpus(section: str, kept: bytes) -> None:
    library = with_section(section, b"GPU CODE")
    assert stripped(library) == with_size(LIBRARY, len(LIBRARY) + 8) + kept


def test_zeros_take_the_place_of_what_no_segment_holds() -> None:
    # As where patchelf has put a segment behind the symbol table.
    before = struct.pack("<Q", len(LIBRARY) + 8)
    library = LIBRARY[:32] + before + LIBRARY[40:] + b"symbols!" + LIBRARY[64 : 64 + 2 * 56]
    assert stripped(library) == library.replace(b"symbols!", bytes(8))


def with_size(library: bytes, size: int) -> bytes:
    """The library with that many bytes in its first segment."""
    return library[:96] + struct.pack("<Q", size) + library[104:]


def with_section(name: str, content: bytes) -> bytes:
    """LIBRARY with a section at the end of its segment, and the headers of sections behind it."""
    end = len(LIBRARY) + len(content)
    names = f"\0{name}\0".encode()
    sections = [(0, 0, 0, 0), (1, 1, len(LIBRARY), len(content)), (0, 3, end, len(names))]
    headers = b"".join(
        struct.pack("<IIQQQQIIQQ", label, kind, 0, 0, offset, size, 0, 0, 1, 0)
        for label, kind, offset, size in sections
    )
    library = bytearray(with_size(LIBRARY, end) + content + names + headers)
    struct.pack_into("<Q", library, 40, end + len(names))
    struct.pack_into("<HHH", library, 58, 64, len(sections), 2)
    return bytes(library)


@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is not there")
def test_readelf_finds_no_fault_in_a_stripped_library(tmp_path: Path) -> None:
    file = tmp_path / "library.so"
    file.write_bytes(stripped(Path(_bisect.__file__).read_bytes()) or b"")
    argv = ("readelf", "--wide", "--file-header", "--segments", "--dynamic", file)
    said = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert not said.stderr
    assert (
        "There are no sections in this file" in said.stdout
        or "Number of section headers:         0" in said.stdout
    )


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh", LIBRARY[:40]])
def test_what_no_loader_reads_is_not_stripped(data: bytes) -> None:
    assert stripped(data) is None
