"""A Docker Swarm of several engines on one machine, each in a network namespace of its own.

Wants root. Alone it keeps a Swarm up until its standard input ends:

    python tests/swarm_bed.py 3 image.tar …
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

# Of the switch, a namespace too: the engine of this machine filters what crosses its own bridges.
SWITCH = "fleet-switch"
NETWORK = "10.213.7"
# The machine itself, as nodes and their containers reach it.
GATEWAY = f"{NETWORK}.1"


class Node:
    """One engine.

    Args:
        number: from 0 on.
        folder: for all that it keeps.
    """

    def __init__(self, number: int, folder: Path) -> None:
        self.name = f"fleet-{number}"
        self.address = f"{NETWORK}.{number + 10}"
        self.host = f"unix://{folder}/docker.sock"
        self._folder = folder
        folder.mkdir()
        _ip(f"netns add {self.name}")
        _ip(f"-n {SWITCH} link add {self.name} type veth peer eth0 netns {self.name}")
        _ip(f"-n {SWITCH} link set {self.name} master switch up")
        _ip(f"-n {self.name} addr add {self.address}/24 dev eth0")
        _ip(f"-n {self.name} link set eth0 up")
        _ip(f"-n {self.name} link set lo up")
        _ip(f"-n {self.name} route add default via {GATEWAY}")
        # Not `ip netns exec`: that hides the control groups.
        self._engine = subprocess.Popen(
            (
                *("nsenter", f"--net=/run/netns/{self.name}", "dockerd"),
                *(f"--host={self.host}", f"--data-root={folder}/data", f"--exec-root={folder}/run"),
                *(f"--pidfile={folder}/pid", f"--cgroup-parent=/{self.name}"),
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

    def docker(self, *args: object) -> str:
        done = self._call(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _call(self, *args: object) -> subprocess.CompletedProcess[str]:
        argv = ("docker", "--host", self.host, *map(str, args))
        return subprocess.run(argv, capture_output=True, text=True)

    def die(self) -> None:
        """As a machine does: at once, with all that runs on it."""
        _ip(f"-n {self.name} link set eth0 down")
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
        _ip(f"netns del {self.name}")
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def swarm(count: int, archives: Sequence[Path]) -> Iterator[list[Node]]:
    """`count` nodes, which have these images; the first is the manager."""
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="swarm-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        _clear()
        _ip(f"netns add {SWITCH}")
        cleanup.callback(_ip, f"netns del {SWITCH}")
        _ip(f"-n {SWITCH} link add switch type bridge")
        _ip(f"-n {SWITCH} link set switch up")
        _ip(f"link add fleet0 type veth peer fleet0 netns {SWITCH}")
        _ip(f"-n {SWITCH} link set fleet0 master switch up")
        _ip(f"addr add {GATEWAY}/24 dev fleet0")
        _ip("link set fleet0 up")
        nodes: list[Node] = []
        for number in range(count):
            node = Node(number, folder / str(number))
            cleanup.callback(node.remove)
            nodes.append(node)
        with ThreadPoolExecutor() as pool:
            for archive in archives:
                load = ("load", "--quiet", "--input", archive)
                list(pool.map(lambda node: node.docker(*load), nodes))  # noqa: B023
        manager = nodes[0]
        manager.docker("swarm", "init", "--advertise-addr", manager.address)
        token = manager.docker("swarm", "join-token", "--quiet", "worker").strip()
        for node in nodes[1:]:
            at = ("--advertise-addr", node.address, f"{manager.address}:2377")
            node.docker("swarm", "join", "--token", token, *at)
        yield nodes


def _clear() -> None:
    """What a bed left behind that was killed."""
    if Path("/sys/class/net/fleet0").exists():
        _ip("link del fleet0")
    for name in (path.name for path in Path("/run/netns").glob("fleet-*")):
        for process in _ip(f"netns pids {name}").split():
            os.kill(int(process), signal.SIGKILL)
        _ip(f"netns del {name}")


def _ip(words: str) -> str:
    argv = ("ip", *words.split())
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    with swarm(int(sys.argv[1]), [Path(archive) for archive in sys.argv[2:]]) as nodes:
        print(json.dumps([node.host for node in nodes]), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
