from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from oci.testutil.elf import make_elf
from oci.tool.layer import Tree
from oci.tool.ldcache import ld_so_cache, shared_libraries

AMD64, ARM64 = "x86_64-linux-gnu", "aarch64-linux-gnu"
LDCONFIG = Path("/sbin/ldconfig")
# What glibc's loader expects: descending, numbers as numbers, digits above everything else.
IN_ORDER = [
    *("libzip.so.5", "libz.so.1", "libstdc++.so.6", "libssl.so.3", "libfoo10.so.1"),
    *("libfoo9.so.2", "libfoo9.so.1", "libfoo.so.1.10", "libfoo.so.1.9", "libfoo.so.1"),
    *("libfoo-2.so.1", "libc.so.6", "ld-linux-x86-64.so.2"),
]


def cache(triplet: str) -> bytes:
    return ld_so_cache({f"/lib/{triplet}/{name}": name for name in sorted(IN_ORDER)}, triplet)


def entries(content: bytes) -> list[tuple[int, str, str]]:
    """Flags, soname and path of each entry, read with no help of what wrote it."""

    def string(offset: int) -> str:
        return content[offset : content.index(b"\0", offset)].decode()

    magic, count, strings = struct.unpack_from("<20sII", content)
    assert magic == b"glibc-ld.so.cache1.1"
    assert len(content) == 48 + 24 * count + strings
    found = (struct.unpack_from("<iIIIQ", content, 48 + 24 * i) for i in range(count))
    return [(flags, string(key), string(value)) for flags, key, value, _, _ in found]


@pytest.mark.parametrize("triplet, flags", [(AMD64, 0x303), (ARM64, 0xA03)])
def test_entries_are_in_the_order_of_the_loaders_search(triplet: str, flags: int) -> None:
    expected = [(flags, name, f"/lib/{triplet}/{name}") for name in IN_ORDER]
    assert entries(cache(triplet)) == expected


@pytest.mark.skipif(not LDCONFIG.exists(), reason="this host has no ldconfig")
@pytest.mark.parametrize("triplet, abi", [(AMD64, "libc6,x86-64"), (ARM64, "libc6,AArch64")])
def test_ldconfig_reads_it(tmp_path: Path, triplet: str, abi: str) -> None:
    file = tmp_path / "ld.so.cache"
    file.write_bytes(cache(triplet))
    printed = subprocess.run(
        [LDCONFIG, "-C", file, "-p"], capture_output=True, text=True, check=True
    )
    lines = [line.strip() for line in printed.stdout.splitlines() if "=>" in line]
    assert lines == [f"{name} ({abi}) => /lib/{triplet}/{name}" for name in IN_ORDER]


def test_no_libraries_make_an_empty_cache() -> None:
    assert entries(ld_so_cache({}, AMD64)) == []


def test_libraries_are_listed_by_the_sonames_that_they_hold() -> None:
    tree = Tree()

    def library(path: str, soname: str, *links: str) -> None:
        tree.file(f"usr/lib/{path}", make_elf(soname, needed=["libc.so.6"]))
        for link in links:
            tree.link(f"usr/lib/{path.rpartition('/')[0]}/{link}", path.rpartition("/")[2])

    library(f"{AMD64}/libgcc_s.so.1", "libgcc_s.so.1")
    library(f"{AMD64}/libz.so.1.2.13", "libz.so.1", "libz.so.1", "libz.so")
    library(f"{AMD64}/libbz2.so.1.0.4", "libbz2.so.1.0", "libbz2.so.1.0", "libbz2.so.1")
    library(f"{AMD64}/libdb-5.3.so", "libdb-5.3.so")
    library(f"{AMD64}/ld-linux-x86-64.so.2", "ld-linux-x86-64.so.2")
    library(f"{AMD64}/ossl-modules/libhidden.so.1", "libhidden.so.1")
    library(f"{AMD64}/notes.so.1", "notes.so.1")
    tree.file(f"usr/lib/{AMD64}/libtext.so.1", "\0libtext.so.1\0")
    library(f"{ARM64}/libc.so.6", "libc.so.6")
    tree.link(f"usr/lib/{AMD64}/libgone.so.1", "libgone.so.1.2")
    tree.link(f"usr/lib/{AMD64}/libloop.so.1", "libloop.so.1")
    assert shared_libraries(tree, AMD64) == {
        f"/lib/{AMD64}/{name}": name
        for name in (
            *("libgcc_s.so.1", "libz.so.1", "libbz2.so.1.0", "libdb-5.3.so"),
            "ld-linux-x86-64.so.2",
        )
    }


def test_a_library_that_lies_in_two_folders_is_listed_twice() -> None:
    tree = Tree()
    loader = "ld-linux-aarch64.so.1"
    tree.file(f"usr/lib/{ARM64}/{loader}", make_elf(loader))
    tree.link(f"usr/lib/{loader}", f"/lib/{ARM64}/{loader}")
    libraries = shared_libraries(tree, ARM64)
    assert libraries == {f"/lib/{folder}{loader}": loader for folder in (f"{ARM64}/", "")}
    listed = [(name, path) for _, name, path in entries(ld_so_cache(libraries, ARM64))]
    assert sorted(listed) == sorted((loader, path) for path in libraries)
