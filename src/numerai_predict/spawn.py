"""Starts the worker's interpreter, with nothing of this process but a channel and a pipe.

It comes first: while this process still imports what it needs and reads its flags, the worker's
interpreter starts on another processor. So this module imports little.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

# `python -c BOOTSTRAP FD SYS_PATH…`: the worker has the launcher's modules, wherever they are.
BOOTSTRAP = (
    "import sys; fd = int(sys.argv[1]); sys.path[:] = sys.argv[2:]; del sys.argv[1:]; "
    "from numerai_predict import worker; worker.main(fd)"
)

# Users that nobody has for long (systemd's DynamicUser). One of its own for every run: the kernel
# counts a user's processes, and lets them signal each other, across containers.
PASSING_USERS = range(61184, 65520)

_CAP_KILL, _CAP_SETGID, _CAP_SETUID = 5, 6, 7


class Spawned:
    """An interpreter that waits for orders.

    Attributes:
        process: leads a process group of its own.
        socket: our end of the channel.
        output: where what it prints can be read.
        user: whom it runs as, if that is not who this process is.
    """

    def __init__(self) -> None:
        self.user = worker_user()
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.output, write_end = os.pipe()
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-IB", "-c", BOOTSTRAP, str(theirs.fileno())),
                    *map(os.path.abspath, sys.path),
                ],
                env=_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
            )
        os.close(write_end)

    def discard(self) -> None:
        """End it, unused."""
        self.process.kill()
        self.process.wait()
        self.socket.close()
        os.close(self.output)


def worker_user() -> int | None:
    """The user that the worker runs as where this process is root; None to stay who it is.

    Root can lack the right to change users (`--cap-drop ALL`), the other user can be missing in a
    user namespace, and it may not be allowed to read this Python (an interpreter in root's home).
    """
    if os.geteuid() != 0:
        return None
    with open("/proc/self/status") as file:
        effective = int(file.read().partition("CapEff:")[2].split()[0], 16)
    if any(not effective >> capability & 1 for capability in (_CAP_KILL, _CAP_SETGID, _CAP_SETUID)):
        return None
    needed = [sys.executable, os.__file__, __file__, *sys.path]
    user = PASSING_USERS[int.from_bytes(os.urandom(4), "big") % len(PASSING_USERS)]
    return user if _is_mapped(user) and all(map(_open_to_all, needed)) else None


def _is_mapped(user: int) -> bool:
    """Whether this user namespace has such a user (user_namespaces(7))."""
    with open("/proc/self/uid_map") as file:
        ranges = [list(map(int, line.split())) for line in file]
    return any(first <= user < first + count for first, _, count in ranges)


def _open_to_all(path: str) -> bool:
    """Whether any user can read this file, or look into this folder."""
    real = os.path.realpath(path)
    if not os.path.exists(real):
        return True
    readable, through = 0o004, 0o001
    if not os.stat(real).st_mode & readable:
        return False
    folder = real if os.path.isdir(real) else os.path.dirname(real)
    while os.stat(folder).st_mode & through:
        if folder == "/":
            return True
        folder = os.path.dirname(folder)
    return False


def _environment() -> dict[str, str]:
    """All that the worker's environment holds, but for its folder."""
    kept = {
        name: os.environ[name] for name in ("LANG", "LC_ALL", "PATH", "TZ") if name in os.environ
    }
    # These choose among a library's kernels for a processor.
    kept.update({name: text for name, text in os.environ.items() if name.startswith("OPENBLAS_")})
    # Its user may have no name in the system, which libraries ask for.
    return {**kept, "USER": "model", "LOGNAME": "model"}
