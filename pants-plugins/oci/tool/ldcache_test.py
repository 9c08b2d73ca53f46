from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

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
    return ld_so_cache({name: f"/lib/{triplet}/{name}" for name in sorted(IN_ORDER)}, triplet)


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


def test_libraries_are_listed_by_soname() -> None:
    tree = Tree()
    folder = f"usr/lib/{AMD64}"
    tree.file(f"{folder}/libgcc_s.so.1", "")
    tree.file(f"{folder}/libz.so.1.2.13", "")
    tree.link(f"{folder}/libz.so.1", "libz.so.1.2.13")
    tree.link(f"{folder}/libz.so", "libz.so.1.2.13")
    tree.file(f"{folder}/ld-linux-x86-64.so.2", "")
    tree.file(f"{folder}/ossl-modules/libhidden.so.1", "")
    tree.file(f"{folder}/notes.so.1", "")
    tree.file(f"usr/lib/{ARM64}/libc.so.6", "")
    assert shared_libraries(tree, AMD64) == {
        name: f"/lib/{AMD64}/{name}"
        for name in ("libgcc_s.so.1", "libz.so.1", "ld-linux-x86-64.so.2")
    }
