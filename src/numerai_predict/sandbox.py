"""What the worker gives up before it touches a model, and a check that it is really gone."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from numerai_predict import landlock, seccomp

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION_3 = 0x20080522

# Where the C library and Python open files for writing, wherever a program's own files are.
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SHARED_MEMORY = "/dev/shm"  # semaphores of multiprocessing


class Confinement(NamedTuple):
    """What the launcher asks of the worker.

    Args:
        launcher: its process id.
        threads: its threads' ids, with that one.
        started_as_root: whether the launcher has root's uid, so that the worker must not.
        folder: where the worker may write, "" for nowhere.
        memory: bytes that a process may allocate, None for as many as there are.
        processes: how many processes and threads the worker's user may have.
        file_size: bytes.
        cpus: how many processors, None for all.
    """

    launcher: int
    threads: list[int]
    started_as_root: bool
    folder: str
    memory: int | None
    processes: int
    file_size: int
    cpus: int | None


def confine(wanted: Confinement, given: set[int]) -> dict[str, str]:
    """Take from this process, for good, what a model does not need.

    Args:
        given: the only descriptors besides 0, 1 and 2 that may be open.

    Returns:
        protection -> "" where it is in force, else why it is not.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.nice(5)  # hundreds of busy processes must not keep the launcher from ending them
    # Where it was lost to the kernel's out-of-memory killer, the launcher lives to tell.
    _quietly(lambda: Path("/proc/self/oom_score_adj").write_text("1000"))
    steps: dict[str, Callable[[], object]] = {
        "no inherited files": lambda: _only_descriptors({0, 1, 2, *given}),
        "other user": lambda: _other_user(wanted),
        "no capabilities": lambda: _drop_capabilities(libc),
        "no new privileges": lambda: libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        "limits": lambda: _limit(wanted),
        "writes to its own folder only": lambda: landlock.restrict_writes(
            [folder for folder in (wanted.folder, SHARED_MEMORY) if folder], _DEVICES
        ),
        "no network, no other processes": lambda: _filter(wanted),
        "launcher out of reach": lambda: _cannot_read_launcher(wanted.launcher),
    }
    return {name: _quietly(step) for name, step in steps.items()}


def _quietly(step: Callable[[], object]) -> str:
    """Why a step failed, "" if it did not."""
    try:
        step()
        return ""
    except OSError as error:
        return str(error.strerror or error)


def _only_descriptors(expected: set[int]) -> None:
    # Listing the folder opens one more, which is closed by now.
    others = [
        fd for fd in map(int, os.listdir("/proc/self/fd")) if fd not in expected and _open(fd)
    ]
    if others:
        raise OSError(f"the descriptors {others} are open")


def _open(fd: int) -> bool:
    try:
        os.fstat(fd)
        return True
    except OSError:
        return False


def _other_user(wanted: Confinement) -> None:
    # The launcher changed it at the start, where it could (processes.worker_user).
    if wanted.started_as_root and os.getuid() == 0:
        raise OSError("root without the right to become another user, or Python closed to others")


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())
    status = Path("/proc/self/status").read_text()
    effective = status.partition("CapEff:")[2].split()[0]
    if int(effective, 16):
        raise OSError(f"the capabilities {effective} stay")


def _limit(wanted: Confinement) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: wanted.file_size,
        resource.RLIMIT_NPROC: wanted.processes,
    }
    if wanted.memory is not None:
        limits[resource.RLIMIT_DATA] = wanted.memory
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    if wanted.cpus is not None:
        # Any of them: runs side by side would all be on the first otherwise.
        cpus = sorted(os.sched_getaffinity(0), key=lambda cpu: os.urandom(8))
        os.sched_setaffinity(0, cpus[: wanted.cpus])
    # Python ignores it, and a model could ignore the error that it gets instead.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def _filter(wanted: Confinement) -> None:
    seccomp.install(wanted.launcher, wanted.threads)
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except PermissionError:
        return
    raise OSError("the kernel does not apply the filter")


def _cannot_read_launcher(launcher: int) -> None:
    try:
        os.open(f"/proc/{launcher}/environ", os.O_RDONLY)
    except PermissionError:
        return
    raise OSError("its memory can be read")
