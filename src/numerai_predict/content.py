"""Undoes a Content-Encoding, and notices where its end is missing, which no length tells."""

from __future__ import annotations

import zlib

_PLAIN = ("", "identity", "aws-chunked")
_GZIP = ("gzip", "x-gzip")
SUPPORTED = "gzip and deflate"


class BadContent(Exception):
    """The bytes are not what the Content-Encoding says, or they end too early."""


class UnknownEncoding(Exception):
    """A Content-Encoding that is not supported."""


def names(header: str) -> list[str]:
    """The encodings of a Content-Encoding header, in the order in which they were applied."""
    listed = (name.strip().lower() for name in header.split(","))
    return [name for name in listed if name not in _PLAIN]


class Decoder:
    """Decodes a body piece by piece.

    Args:
        encodings: what `names` returns.

    Raises:
        UnknownEncoding: only `SUPPORTED` ones can be undone.
    """

    def __init__(self, encodings: list[str]) -> None:
        self._layers = [_layer(name) for name in reversed(encodings)]

    def decode(self, data: bytes) -> bytes:
        """Raises: BadContent."""
        for layer in self._layers:
            data = layer.decode(data)
        return data

    def finish(self) -> None:
        """Raises: BadContent: more should have come."""
        if not all(layer.complete for layer in self._layers):
            raise BadContent("the compressed content ends too early")


def _layer(name: str) -> _Layer:
    if name in _GZIP:
        return _Layer(16 + zlib.MAX_WBITS)
    if name == "deflate":
        return _Layer(zlib.MAX_WBITS)
    raise UnknownEncoding(name)


class _Layer:
    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._zlib = zlib.decompressobj(wbits)
        self._started = False

    @property
    def complete(self) -> bool:
        return self._zlib.eof or not self._started

    def decode(self, data: bytes) -> bytes:
        decoded = b""
        while data:
            if self._zlib.eof:  # gzip files can follow each other
                self._zlib = zlib.decompressobj(self._wbits)
            decoded += self._decompress(data)
            data = self._zlib.unused_data
        return decoded

    def _decompress(self, data: bytes) -> bytes:
        first, self._started = not self._started, True
        try:
            return self._zlib.decompress(data)
        except zlib.error:
            if not (first and self._wbits == zlib.MAX_WBITS):
                raise BadContent("the content is not compressed as announced") from None
        # Some servers mean deflate without zlib's header.
        self._wbits = -zlib.MAX_WBITS
        self._zlib = zlib.decompressobj(self._wbits)
        return self._decompress(data)
