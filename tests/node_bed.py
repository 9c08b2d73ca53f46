"""Engines on one machine that are nodes of a cluster, each in a network namespace of its own. Wants root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar


@dataclass(frozen=True)
class Bed:
    """What keeps two clusters on one machine apart.

    Args:
        name: what the names of namespaces begin with.
        network: the first three numbers of its addresses.
    """

    name: str
    network: str

    @property
    def gateway(self) -> str:
        """The machine itself, as nodes and their containers reach it."""
        return f"{self.network}.1"

    @property
    def switch(self) -> str:
        """A namespace, too: the engine of this machine filters what crosses its own bridges."""
        return f"{self.name}-switch"

    @property
    def device(self) -> str:
        return f"{self.name}0"


class Node:
    """One engine.

    Args:
        number: from 0 on.
        folder: for all that it keeps.
    """

    # What its engine is started by.
    within: tuple[str, ...] = ()

    def __init__(self, bed: Bed, number: int, folder: Path) -> None:
        self.name = f"{bed.name}-{number}"
        self.address = f"{bed.network}.{number + 10}"
        self.host = f"unix://{folder}/docker.sock"
        self._folder = folder
        folder.mkdir()
        ip(f"netns add {self.name}")
        ip(f"-n {bed.switch} link add {self.name} type veth peer eth0 netns {self.name}")
        ip(f"-n {bed.switch} link set {self.name} master switch up")
        ip(f"-n {self.name} addr add {self.address}/24 dev eth0")
        ip(f"-n {self.name} link set eth0 up")
        ip(f"-n {self.name} link set lo up")
        ip(f"-n {self.name} route add default via {bed.gateway}")
        # Not `ip netns exec`: that hides the control groups.
        self._engine = subprocess.Popen(
            (
                *("nsenter", f"--net=/run/netns/{self.name}", *self.within, "dockerd"),
                *(f"--host={self.host}", f"--data-root={folder}/data", f"--exec-root={folder}/run"),
                *(f"--pidfile={folder}/pid", f"--cgroup-parent=/{self.name}", *self._options()),
            ),
            # Images were loaded; asking a registry for them first takes each task seconds.
            env={**os.environ, "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE": "1"},
            stdout=(folder / "log").open("w"),
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 60
        while self._call("info").returncode:
            assert self._engine.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the engine does not answer"
            time.sleep(0.2)

    def _options(self) -> list[str]:
        """Further ones of its engine."""
        return []

    def docker(self, *args: object) -> str:
        done = self._call(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _call(self, *args: object) -> subprocess.CompletedProcess[str]:
        argv = ("docker", "--host", self.host, *map(str, args))
        return subprocess.run(argv, capture_output=True, text=True)

    def die(self) -> None:
        """As a machine does: at once, with all that runs on it."""
        ip(f"-n {self.name} link set eth0 down")
        processes = {self._engine.pid}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes() + (entry / "cgroup").read_bytes()
            except OSError:
                continue
            if f"{self._folder}/run".encode() in words or f"/{self.name}/".encode() in words:
                processes.add(int(entry.name))
        for process in processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._engine.wait()

    def remove(self) -> None:
        self.die()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        for line in reversed(mounts):
            path = line.split()[4]
            if path.startswith(f"{self._folder}/"):
                subprocess.run(("umount", "--lazy", path))
        ip(f"netns del {self.name}")
        shutil.rmtree(self._folder, ignore_errors=True)


Kind = TypeVar("Kind", bound=Node)


@contextmanager
def started(
    bed: Bed, count: int, archives: Sequence[Path], kind: type[Kind]
) -> Iterator[list[Kind]]:
    """`count` nodes, which have these images."""
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix=f"{bed.name}-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        _clear(bed)
        ip(f"netns add {bed.switch}")
        cleanup.callback(ip, f"netns del {bed.switch}")
        ip(f"-n {bed.switch} link add switch type bridge")
        ip(f"-n {bed.switch} link set switch up")
        ip(f"link add {bed.device} type veth peer {bed.device} netns {bed.switch}")
        ip(f"-n {bed.switch} link set {bed.device} master switch up")
        ip(f"addr add {bed.gateway}/24 dev {bed.device}")
        ip(f"link set {bed.device} up")
        nodes: list[Kind] = []
        for number in range(count):
            node = kind(bed, number, folder / str(number))
            cleanup.callback(node.remove)
            nodes.append(node)
        with ThreadPoolExecutor() as pool:
            for archive in archives:
                load = ("load", "--quiet", "--input", archive)
                list(pool.map(lambda node: node.docker(*load), nodes))  # noqa: B023
        yield nodes


def _clear(bed: Bed) -> None:
    """What a bed left behind that was killed."""
    if Path(f"/sys/class/net/{bed.device}").exists():
        ip(f"link del {bed.device}")
    for name in (path.name for path in Path("/run/netns").glob(f"{bed.name}-*")):
        for process in ip(f"netns pids {name}").split():
            os.kill(int(process), signal.SIGKILL)
        ip(f"netns del {name}")


def ip(words: str) -> str:
    argv = ("ip", *words.split())
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
