"""A round of small models on one, two and three nodes of a Docker Swarm: `make benchmark_swarm`.

The nodes (tests/swarm_bed.py) are engines on this one machine and share its processors. So models
per minute cannot grow with them; what a node costs is told by the processor time of a model, and is
what would keep a real second machine from doing twice the work. Wants root.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from compare import IMAGES, load, server
from fleet import WORK, entries, fleet, prepare

import swarm_bed

NODES = 3
# Of all that is started here but containers, which are in groups named after their nodes.
GROUP = "benchmark-fleet"


class Measured(NamedTuple):
    """A round. Args:
    nodes: that it could use.
    seconds: from the command to its end.
    containers, rest: seconds of processors.
    """

    nodes: int
    seconds: float
    containers: float
    rest: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=12, help="(default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="of each number of nodes (default: %(default)s)"
    )
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("engines in namespaces of their own want root")
    if any(Path("/run/netns").glob("fleet-*")):
        sys.exit(
            "there is a Swarm already (`ip netns`): its test runs, or was killed; see to it first"
        )
    image = load("py311")
    prepare(image, args.models)
    archive = IMAGES / "py311/image.tar"
    with accounted(), swarm_bed.swarm(NODES, [archive]) as nodes:
        os.environ["DOCKER_HOST"] = nodes[0].host
        with server(WORK / "served", swarm_bed.GATEWAY) as url:
            lines = entries(url, image, args.models)
            fleet(lines[: 2 * NODES], "--engine=swarm")  # the first warm caches up
            measured = list(rounds(nodes, lines, args.rounds))
    show(args.models, measured)


def rounds(
    nodes: Sequence[swarm_bed.Node], lines: Sequence[dict[str, str]], count: int
) -> Iterator[Measured]:
    manager = nodes[0]
    ids = [node.docker("info", "--format={{.Swarm.NodeID}}").strip() for node in nodes]
    for number in range(count):
        for used in range(1, len(nodes) + 1):
            for at, id in enumerate(ids):
                availability = "active" if at < used else "drain"
                manager.docker("node", "update", f"--availability={availability}", id)
            before = spent(nodes)
            seconds = fleet(lines, "--engine=swarm").seconds
            took = (end - start for start, end in zip(before, spent(nodes)))
            print(f"{number + 1} of {count}, {used} nodes: {seconds:.0f} s", file=sys.stderr)
            yield Measured(used, seconds, *took)


@contextmanager
def accounted() -> Iterator[None]:
    """Puts this process in a control group, and so all that it starts."""
    group = root() / GROUP
    group.mkdir(exist_ok=True)
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (root() / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def spent(nodes: Sequence[swarm_bed.Node]) -> tuple[float, float]:
    """Seconds of processors: the containers', and those of engines, submitter and server."""
    return sum(processor(node.name) for node in nodes), processor(GROUP)


def processor(group: str) -> float:
    """Seconds of processors that a control group has used, in version 1 and 2."""
    folder = root() / group
    if (folder / "cpuacct.usage").exists():
        return int((folder / "cpuacct.usage").read_text()) / 1e9
    if (folder / "cpu.stat").exists():
        return int((folder / "cpu.stat").read_text().split()[1]) / 1e6
    return 0.0  # no container was there yet


def root() -> Path:
    version1 = Path("/sys/fs/cgroup/cpuacct")
    return version1 if version1.exists() else Path("/sys/fs/cgroup")


def show(models: int, measured: Sequence[Measured]) -> None:
    print("| nodes | models per minute | CPU s of a model's container | of the rest |")
    print("|---|---|---|---|")
    for nodes in range(1, NODES + 1):
        mine = [each for each in measured if each.nodes == nodes]
        rate = statistics.median(60 * models / each.seconds for each in mine)
        containers = statistics.median(each.containers / models for each in mine)
        rest = statistics.median(each.rest / models for each in mine)
        print(f"| {nodes} | {rate:.0f} | {containers:.2f} | {rest:.2f} |")


if __name__ == "__main__":
    main()
