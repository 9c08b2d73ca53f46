from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImagePlatform:
    """The names that OCI, Debian, the C library and uv have for the same machine."""

    name: str
    debian: str
    triplet: str
    loader: str
    wheels: str


# Bookworm's glibc is 2.36: wheels for any older one fit.
PLATFORMS = {
    platform.name: platform
    for platform in (
        ImagePlatform(
            name="linux/amd64",
            debian="amd64",
            triplet="x86_64-linux-gnu",
            loader="ld-linux-x86-64.so.2",
            wheels="x86_64-manylinux_2_36",
        ),
        ImagePlatform(
            name="linux/arm64",
            debian="arm64",
            triplet="aarch64-linux-gnu",
            loader="ld-linux-aarch64.so.1",
            wheels="aarch64-manylinux_2_36",
        ),
    )
}
