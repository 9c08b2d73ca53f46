"""The worker's processes: which they are, how much they hold, and that none stays."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own (prctl(2): subreaper)."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def group(leader: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _group_of(int(entry)) == leader:
            found.append(int(entry))
    return found


def _group_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    state, _, process_group = stat.rpartition(b")")[2].split()[:3]
    return None if state in (b"Z", b"X") else int(process_group)


def threads_of(user: int) -> int:
    """How many threads a user has, as far as they can be seen from here."""
    total = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.stat(f"/proc/{entry}").st_uid == user:
                    total += len(os.listdir(f"/proc/{entry}/task"))
            except OSError:
                continue
    return total


def memory(pids: list[int]) -> int:
    """Bytes that these processes hold and that the kernel cannot drop: anonymous and shared."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon", "RssShmem"))
        )
    return total


def end(leader: int, patience: float = 10) -> bool:
    """Kill a process group and whatever else descends from this process, and reap it all.

    The group ends at one blow, even one that keeps forking; the worker's filter lets nobody leave
    it. Where there is no filter, processes that left are found as this process's own children.

    Returns:
        Whether nothing is left after `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        kill_group(leader)
        for child in _children():
            _kill(os.kill, child)
        if not _reap() and not group(leader):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)


def kill_group(leader: int) -> None:
    _kill(os.killpg, leader)


def _kill(how, target: int) -> None:
    try:
        how(target, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _children() -> list[int]:
    found: list[int] = []
    for task in os.listdir("/proc/self/task"):
        try:
            found += map(int, Path(f"/proc/self/task/{task}/children").read_text().split())
        except OSError:
            continue
    return found


def _reap() -> bool:
    """Take the exit statuses that are there. Returns whether there are children still."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return True
        except ChildProcessError:
            return False
