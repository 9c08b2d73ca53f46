"""What a model may take: the flags' sizes and durations, and what a container adds to them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Limits(NamedTuple):
    """What the model's processes may take together; None is no limit.

    Args:
        memory: bytes.
        seconds: to load the model and predict.
        cpus: processors.
        disk: bytes in the model's folder and in shared memory.
        output: bytes that the model may print.
        processes: processes and threads; libraries start some of these for every processor.
    """

    memory: int | None = None
    seconds: float | None = None
    cpus: int | None = None
    disk: int = 1 << 30
    output: int = 64 << 20
    processes: int = 256 + 64 * (os.cpu_count() or 1)


# Of numerai.fi's own runner: 1 CPU, 4 GB, 10 minutes.
PRESETS = {"none": Limits(), "numerai": Limits(memory=4 << 30, seconds=600, cpus=1)}


def parse_bytes(text: str) -> int:
    """`3GB`, `3g`, `512MiB` or plain bytes, in powers of 1024 like Docker's --memory.

    Raises:
        ValueError: it is none of these, or zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match or not (size := int(float(match[1]) * _BYTES[match[2]])):
        raise ValueError(f"{text!r} is no size such as 3GB or 512MB")
    return size


def parse_seconds(text: str) -> float:
    """`20`, `20s`, `10m` or `1h`.

    Raises:
        ValueError: it is none of these, or zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip().lower())
    if not match or not (seconds := float(match[1]) * _SECONDS[match[2]]):
        raise ValueError(f"{text!r} is no time such as 20 (seconds), 10m or 1h")
    return seconds


def format_bytes(size: float) -> str:
    """1288490188 -> `1.2 GB`, in powers of 1024."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"


class ContainerMemory:
    """The memory of the control group that this process runs in, if it has a limit.

    Of version 2 of control groups and of version 1, as they look from inside a container.
    """

    _FILES = (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.events"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.oom_control",
        ),
    )

    def __init__(self) -> None:
        self._kills_before = self._kills()

    @property
    def limit(self) -> int | None:
        """Bytes; None without a limit."""
        for limit, _ in self._FILES:
            text = _read(limit).strip()
            # Version 1 has a huge number for none.
            if text.isdigit() and int(text) < 1 << 60:
                return int(text)
        return None

    def killed(self) -> bool:
        """Whether the kernel has killed a process here, for memory, since this object was made."""
        return self._kills() > self._kills_before

    def _kills(self) -> int:
        for _, events in self._FILES:
            if match := re.search(r"^oom_kill (\d+)", _read(events), re.MULTILINE):
                return int(match[1])
        return 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


SMALLEST_FILE = 4096  # bytes: an empty one takes its place, too


def disk_use(folder: str, user: int) -> int:
    """Bytes on disk of a user's files beneath a folder, as far as they can be seen."""
    total = 0
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid == user:
                        total += max(status.st_blocks * 512, SMALLEST_FILE)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:  # gone, or closed to us
            continue
    return total
