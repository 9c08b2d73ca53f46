"""How an OCI runtime, crun or runc, is to run an image: as Docker does, on the node's own network.

The container is root's where we are root, with what the launcher needs to make the model another
user. Else it is ours, in a user namespace that has no other user; then the model is ours too, and the
launcher keeps its secrets where no file shows them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numerai_fleet.engines.docker import CAPABILITIES, OUT
from numerai_fleet.engines.unpacked import Unpacked

# Files that a model gets to see are below this.
IN = "/in"
# As Docker hides them.
MASKED = [
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys"),
    *("/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list"),
    *("/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"),
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
SAFE = ["nosuid", "nodev", "noexec"]


def config(
    image: Unpacked,
    flags: Sequence[str],
    env: Mapping[str, str],
    out: Path,
    files: Mapping[str, Path],
) -> dict[str, Any]:
    """An OCI runtime configuration (config.json).

    Args:
        flags: the predictor's.
        out: the folder that is /out, the only one that stays.
        files: what there is to read, by its path in the container, below IN.
    """
    given = [f"{name}={value}" for name, value in env.items()]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(image.root), "readonly": True},
        "mounts": [
            *_system(),
            _bind(OUT, out, "rw"),
            *(_bind(inside, path, "ro") for inside, path in files.items()),
        ],
        "process": {
            "args": [*image.config["Entrypoint"], *flags],
            "env": [*image.config.get("Env", ()), *given],
            "cwd": image.config.get("WorkingDir") or "/",
            "noNewPrivileges": True,
            **_identity(),
        },
        "linux": {
            "namespaces": [{"type": kind} for kind in _namespaces()],
            **_mappings(),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    }


def _is_root() -> bool:
    return os.geteuid() == 0


def _identity() -> dict[str, Any]:
    kept = [f"CAP_{name}" for name in CAPABILITIES] if _is_root() else []
    sets = ("bounding", "effective", "permitted")
    return {
        "user": {"uid": os.geteuid(), "gid": os.getegid()},
        "capabilities": {name: kept for name in sets},
    }


def _namespaces() -> list[str]:
    return ["pid", "ipc", "uts", "mount", *([] if _is_root() else ["user"])]


def _mappings() -> dict[str, Any]:
    if _is_root():
        return {}
    ids = {"uidMappings": os.geteuid(), "gidMappings": os.getegid()}
    return {key: [{"containerID": id, "hostID": id, "size": 1}] for key, id in ids.items()}


def _system() -> list[dict[str, Any]]:
    """What every container has, and the names of the node's network."""
    tty = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    return [
        _mount("/proc", "proc", SAFE),
        _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", tty),
        _mount("/dev/shm", "tmpfs", [*SAFE, "mode=1777"]),
        # sysfs belongs to whom the network does, which is the node's root.
        _mount("/sys", "sysfs", [*SAFE, "ro"]) if _is_root() else _bind("/sys", Path("/sys"), "ro"),
        _mount("/tmp", "tmpfs", [*SAFE, "mode=1777"]),
        _mount(IN, "tmpfs", [*SAFE, "mode=755", "size=64k"]),
        *(_bind(path, Path(path), "ro") for path in ("/etc/hosts", "/etc/resolv.conf")),
    ]


def _mount(inside: str, kind: str, options: list[str]) -> dict[str, Any]:
    return {"destination": inside, "type": kind, "source": kind, "options": options}


def _bind(inside: str, path: Path, access: str) -> dict[str, Any]:
    options = ["rbind", "nosuid", "nodev", access]
    return {"destination": inside, "type": "bind", "source": str(path), "options": options}
