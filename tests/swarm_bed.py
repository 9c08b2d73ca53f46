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
from contextlib import ExitStack, contextmanager
from pathlib import Path

BRIDGE = "fleet0"
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
        self._link = f"fleet{number}-up"
        folder.mkdir()
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", self._link, "type", "veth", "peer", "eth0", "netns", self.name)
        _run("ip", "link", "set", self._link, "master", BRIDGE, "up")
        for words in (
            f"addr add {self.address}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {GATEWAY}",
        ):
            _run("ip", "-n", self.name, *words.split())
        # Not `ip netns exec`: that hides the control groups.
        self._engine = subprocess.Popen(
            (
                *("nsenter", f"--net=/run/netns/{self.name}", "dockerd"),
                *(f"--host={self.host}", f"--data-root={folder}/data", f"--exec-root={folder}/run"),
                *(f"--pidfile={folder}/pid", f"--cgroup-parent=/{self.name}"),
            ),
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
        subprocess.run(("ip", "link", "del", self._link), stderr=subprocess.DEVNULL)
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
        subprocess.run(("ip", "netns", "del", self.name))
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def swarm(count: int, archives: Sequence[Path]) -> Iterator[list[Node]]:
    """`count` nodes, which have these images; the first is the manager."""
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="swarm-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        cleanup.callback(_run, "ip", "link", "del", BRIDGE)
        _run("ip", "addr", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        nodes: list[Node] = []
        for number in range(count):
            node = Node(number, folder / str(number))
            cleanup.callback(node.remove)
            nodes.append(node)
            for archive in archives:
                node.docker("load", "--quiet", "--input", archive)
        manager = nodes[0]
        manager.docker("swarm", "init", "--advertise-addr", manager.address)
        token = manager.docker("swarm", "join-token", "--quiet", "worker").strip()
        for node in nodes[1:]:
            at = ("--advertise-addr", node.address, f"{manager.address}:2377")
            node.docker("swarm", "join", "--token", token, *at)
        yield nodes


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def main() -> None:
    with swarm(int(sys.argv[1]), [Path(archive) for archive in sys.argv[2:]]) as nodes:
        print(json.dumps([node.host for node in nodes]), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
