from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImagePlatform:
    """The names that OCI, Debian, the C library and uv have for the same machine."""

    name: str
    debian: str
    triplet: str
    wheels: str


# Bookworm's glibc is 2.36: wheels for any older one fit.
PLATFORMS = {
    "linux/amd64": ImagePlatform(
        "linux/amd64", "amd64", "x86_64-linux-gnu", "x86_64-manylinux_2_36"
    ),
    "linux/arm64": ImagePlatform(
        "linux/arm64", "arm64", "aarch64-linux-gnu", "aarch64-manylinux_2_36"
    ),
}
