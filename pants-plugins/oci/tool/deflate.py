"""The compressor: libdeflate, from a pinned Debian package, so that every machine makes the same bytes.

The interpreter's own zlib will not do: zlib, zlib-ng and ISA-L compress differently, some of them
differently on each processor. libdeflate is also several times faster. https://github.com/ebiggers/libdeflate
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Callable

# Of libdeflate's 12. Measured on the model environment, per core: level 1 148 MB/s to 34.3 %, level 4
# 102 MB/s to 32.5 %, level 5 85 MB/s to 31.6 %, level 6 66 MB/s to 31.3 %.
LEVEL = 5


def compressor(library: Path, level: int = LEVEL) -> Callable[[bytes], bytes]:
    """A function from bytes to one gzip member, safe to call from several threads at once."""
    lib = ctypes.CDLL(str(library))
    lib.libdeflate_alloc_compressor.restype = ctypes.c_void_p
    lib.libdeflate_alloc_compressor.argtypes = [ctypes.c_int]
    lib.libdeflate_gzip_compress_bound.restype = ctypes.c_size_t
    lib.libdeflate_gzip_compress_bound.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.libdeflate_gzip_compress.restype = ctypes.c_size_t
    lib.libdeflate_gzip_compress.argtypes = [
        *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t),
        *(ctypes.c_char_p, ctypes.c_size_t),
    ]
    lib.libdeflate_free_compressor.argtypes = [ctypes.c_void_p]

    def compress(data: bytes) -> bytes:
        state = lib.libdeflate_alloc_compressor(level)
        try:
            bound = lib.libdeflate_gzip_compress_bound(state, len(data))
            out = ctypes.create_string_buffer(bound)
            size = lib.libdeflate_gzip_compress(state, data, len(data), out, bound)
            return out.raw[:size]
        finally:
            lib.libdeflate_free_compressor(state)

    return compress
