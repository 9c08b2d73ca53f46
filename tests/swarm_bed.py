"""A Docker Swarm of several engines on one machine, each in a network namespace of its own.

Wants root. Alone it keeps a Swarm up until its standard input ends:

    python tests/swarm_bed.py 3 image.tar …
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from node_bed import Bed, Node, started

BED = Bed("fleet", "10.213.7")
GATEWAY = BED.gateway


@contextmanager
def swarm(count: int, archives: Sequence[Path]) -> Iterator[list[Node]]:
    """`count` nodes, which have these images; the first is the manager."""
    with started(BED, count, archives, Node) as nodes:
        manager = nodes[0]
        manager.docker("swarm", "init", "--advertise-addr", manager.address)
        token = manager.docker("swarm", "join-token", "--quiet", "worker").strip()
        for node in nodes[1:]:
            at = ("--advertise-addr", node.address, f"{manager.address}:2377")
            node.docker("swarm", "join", "--token", token, *at)
        yield nodes


def main() -> None:
    with swarm(int(sys.argv[1]), [Path(archive) for archive in sys.argv[2:]]) as nodes:
        print(json.dumps([node.host for node in nodes]), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
