from __future__ import annotations

import concurrent.futures
import ctypes.util
import hashlib
import zlib
from pathlib import Path
from typing import Callable

import pytest

from oci.tool.deflate import compressor

LIBRARY = ctypes.util.find_library("deflate")
TEXT = b"".join(hashlib.sha256(b"%d" % i).hexdigest().encode() for i in range(10_000))


@pytest.fixture(scope="module")
def compress() -> Callable[[bytes], bytes]:
    if LIBRARY is None:
        pytest.skip("this host has no libdeflate")
    return compressor(Path(LIBRARY))


@pytest.mark.parametrize(
    "data", [b"", b"a", bytes(1 << 20), TEXT], ids=["none", "one", "zeros", "text"]
)
def test_what_goes_in_comes_out(compress: Callable[[bytes], bytes], data: bytes) -> None:
    member = zlib.decompressobj(wbits=31)
    assert member.decompress(compress(data)) == data
    assert member.eof and not member.unused_data, "it is one gzip member and nothing else"


def test_the_header_names_neither_time_nor_system(compress: Callable[[bytes], bytes]) -> None:
    flags_and_time, system = compress(TEXT)[3:8], compress(TEXT)[9]
    assert (flags_and_time, system) == (bytes(5), 255)


def test_threads_may_share_it(compress: Callable[[bytes], bytes]) -> None:
    pieces = [TEXT[i:] for i in range(32)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert [*pool.map(compress, pieces)] == [compress(piece) for piece in pieces]


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="libdeflate.so.0"):
        compressor(tmp_path / "libdeflate.so.0")
