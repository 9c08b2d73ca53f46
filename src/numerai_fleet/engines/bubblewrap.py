"""bubblewrap: a sandbox for each model, without a container engine.

A sandbox is a process of its own that outlives its submitter. OUT/.NAME.status is what bubblewrap says
of it (--json-status-fd): its process, and at last its exit code. Both processes of bubblewrap, the
outer and the sandbox's first, hold the file locked until they end. So locked is running; not locked is
ended, with a code or, where it was killed, without.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from numerai_fleet.engines.base import Ended, EngineError
from numerai_fleet.engines.docker import CAPABILITIES, OUT, passed_on
from numerai_fleet.engines.local import BESIDE, Limits, Unusable, Workshop, processor, room
from numerai_fleet.engines.unpacked import Images, Unpacked
from numerai_fleet.manifest import Model
from oci.engine import mounts

# How other machines are found.
NETWORK = (Path("/etc/resolv.conf"), Path("/etc/hosts"))
# The machine's settings, which root can write to without any capability.
OF_ROOT = (Path("/proc/sys"), Path("/proc/sysrq-trigger"), Path("/proc/fs"))


class Bubblewrap:
    """Args:
    folder: of the run.
    parallel: how many models at once; None is as many as there are processors.
    """

    pause = 0.05

    def __init__(self, folder: Path, limits: Limits, parallel: int | None, images: Images) -> None:
        self.program = _program()
        self.images = images
        self.limits = limits
        self.parallel = parallel or os.cpu_count() or 1
        self.workshop = Workshop(folder, self._fetch)
        self._out = self.workshop.folder / "out"
        self._running: list[int | None] = []  # their processors
        self._children: list[subprocess.Popen[bytes]] = []
        self._told: list[str] = []
        self._refused: list[Ended] = []

    def running(self) -> set[str]:
        names = set()
        for name in self._names():
            if self._is_locked(name):
                names.add(name)
            elif "child-pid" not in self._status(name):
                # Its submitter was killed before it could start it.
                self._clear(name)
        return names

    def room(self) -> int:
        return room(self.parallel, len(self._running), self.limits)

    def start(self, models: Sequence[Model]) -> None:
        self._forget()
        for model in models:
            image = self.images.get(model.image)
            try:
                prepared = self.workshop.prepare(model)
            except Unusable as error:
                self._refused.append(Ended(model.name, 2, None, str(error)))
                continue
            # No file that the model could open: it can be the launcher's own user.
            args = ["--manifest=-", "--index=0", "--require-sandbox"]
            args += [f"--result={OUT}/result.json", *self.limits.flags(model)]
            args += [f"--output_dir={OUT if prepared.keeps_predictions else '/tmp'}"]
            memory = self.limits.of(model) + BESIDE
            command = _sandbox(image, prepared.out, prepared.mounts, memory)
            there = sorted(os.sched_getaffinity(0))
            chosen = processor(model, self.limits, there, self._running)
            with _on(chosen):
                self._detach(model.name, prepared.manifest, [*command, *args], image.lock, chosen)
            self._running.append(chosen)

    def ended(self) -> list[Ended]:
        self._forget()
        self._children = [child for child in self._children if child.poll() is None]
        names = self._names()
        going_on = {name for name in names if self._is_locked(name)}
        self._told = [name for name in names if name not in going_on]
        self._running = [self._status(name).get("processor") for name in going_on]
        refused, self._refused = self._refused, []
        return [*refused, *map(self._ended, self._told)]

    def stop(self) -> None:
        for name in self._names():
            while self._is_locked(name):
                self._kill(name)
                time.sleep(0.05)
            self._clear(name)

    def _ended(self, name: str) -> Ended:
        status = self._status(name)
        result = self.workshop.gather(name)
        message = ""
        if result is None:
            tail = self._file(name, "log").read_text(errors="replace").strip().splitlines()[-5:]
            message = "\n".join(tail) or "its sandbox was killed"
        # Without a code only the outer process was killed, if the launcher came to its own last word.
        code = status.get("exit-code", (result or {}).get("code"))
        return Ended(name, code, result, message, status["key"])

    def _detach(
        self,
        name: str,
        manifest: Path,
        command: Sequence[str],
        lock: int,
        chosen: int | None,
    ) -> None:
        status, log = (
            os.open(self._file(name, kind), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            for kind in ("status", "log")
        )
        # The same lock: of the first the outer process is a holder, of the second the inner one.
        sync = os.dup(status)
        held = ("--json-status-fd", str(status), "--sync-fd", str(sync))
        try:
            fcntl.flock(status, fcntl.LOCK_EX)
            noted = {"key": secrets.token_hex(8), "processor": chosen}
            os.write(status, f"{json.dumps(noted)}\n".encode())
            with manifest.open() as line:
                child = subprocess.Popen(
                    (self.program, *held, *command),
                    stdin=line,
                    stdout=log,
                    stderr=log,
                    env={},
                    pass_fds=(status, sync, lock),
                    start_new_session=True,
                )
        finally:
            for descriptor in (status, sync, log):
                os.close(descriptor)
        self._children.append(child)

    @contextmanager
    def _fetch(self, model: Model, source: str, folder: Path) -> Iterator[Callable[[], object]]:
        command = _sandbox(self.images.get(model.image), folder, (), self.limits.memory)
        args = ("--fetch", "--dataset=@-", f"--output_dir={OUT}")
        argv = (self.program, "--die-with-parent", *command, *args)
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        with subprocess.Popen(argv, stdin=pipe, stdout=nowhere, stderr=nowhere, env={}) as fetch:
            assert fetch.stdin
            try:
                with suppress(BrokenPipeError), fetch.stdin as given:
                    given.write(source.encode())
                yield fetch.wait
            finally:
                fetch.kill()

    def _names(self) -> list[str]:
        found = self._out.glob(".*.status")
        return sorted(path.name.removeprefix(".").removesuffix(".status") for path in found)

    def _file(self, name: str, kind: str) -> Path:
        return self._out / f".{name}.{kind}"

    def _is_locked(self, name: str) -> bool:
        with self._file(name, "status").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _status(self, name: str) -> dict[str, Any]:
        """All that its lines say: key, processor, child-pid, exit-code."""
        found: dict[str, Any] = {}
        whole = self._file(name, "status").read_text().rpartition("\n")[0]
        for line in whole.splitlines():
            found.update(json.loads(line))
        return found

    def _kill(self, name: str) -> None:
        try:
            process = os.pidfd_open(self._status(name)["child-pid"])
        except (KeyError, ProcessLookupError):
            return  # not yet, or not any more
        try:
            # Then it is not another's yet.
            if self._is_locked(name):
                signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(process)

    def _forget(self) -> None:
        """What was told is noted by now; the same model may be started again."""
        told, self._told = self._told, []
        for name in told:
            self._clear(name)

    def _clear(self, name: str) -> None:
        self.workshop.clear(name)
        for kind in ("log", "status"):
            self._file(name, kind).unlink(missing_ok=True)


@contextmanager
def _on(processor: int | None) -> Iterator[None]:
    """What is started here has this processor."""
    there = os.sched_getaffinity(0)
    if processor is not None:
        os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, there)


def _program() -> str:
    """Raises EngineError: there is none, or it cannot make a sandbox here."""
    program = shutil.which("bwrap")
    if program is None:
        raise EngineError("there is no bwrap here; install it (Debian: apt-get install bubblewrap)")
    argv = (program, *_namespaces(), "--ro-bind", "/", "/", "--proc", "/proc", "true")
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise EngineError(
            f"bubblewrap can make no sandbox here ({done.stderr.strip()}). Run as root, or let the kernel "
            "give user namespaces to this program (Ubuntu: an AppArmor profile with userns)."
        )
    return program


def _namespaces() -> Iterator[str]:
    yield from ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
    if os.geteuid() == 0:
        # In a user namespace of one user the launcher could not make the model another. All of root's
        # capabilities stay unless they are dropped.
        yield from ("--cap-drop", "ALL")
        for capability in CAPABILITIES:
            yield from ("--cap-add", f"CAP_{capability}")


def _sandbox(image: Unpacked, out: Path, files: Sequence[Path], memory: int) -> Iterator[str]:
    """bubblewrap's options, and the image's entry point.

    Args:
        out: is /out, to write to.
        files: are at the same paths as here.
        memory: bytes, as much as /tmp may take.
    """
    shared = [*files, *(file for file in NETWORK if file.exists())]
    env = dict(variable.split("=", 1) for variable in image.config.get("Env") or ())
    yield from _namespaces()
    yield from ("--hostname", "model", "--clearenv")
    for variable, value in {**env, **passed_on()}.items():
        yield from ("--setenv", variable, value)
    yield from mounts(image.root, Path("/"), shared)
    yield from ("--dev", "/dev", "--proc", "/proc")
    for path in OF_ROOT:
        if path.exists():
            yield from ("--ro-bind", str(path), str(path))
    yield from ("--perms", "1777", "--tmpfs", "/dev/shm")
    yield from ("--size", str(memory), "--perms", "1777", "--tmpfs", "/tmp")
    yield from ("--bind", str(out), OUT)
    for file in shared:  # after /tmp, which can be above them
        yield from ("--ro-bind", str(file), str(file))
    yield from ("--remount-ro", "/", "--chdir", image.config.get("WorkingDir") or "/", "--")
    yield from (*(image.config.get("Entrypoint") or ()),)
