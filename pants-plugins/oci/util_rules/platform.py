from __future__ import annotations

import platform
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
    known.name: known
    for known in (
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

MACHINES = {"x86_64": PLATFORMS["linux/amd64"], "aarch64": PLATFORMS["linux/arm64"]}


def host_platform() -> ImagePlatform:
    """The platform of this machine. Raises ValueError where no image can be built."""
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        raise ValueError(
            f"Images are built on Linux, x86_64 or aarch64; this is {platform.system()} on "
            f"{platform.machine()}. Run this in a Linux container or virtual machine."
        )
    return MACHINES[platform.machine()]
