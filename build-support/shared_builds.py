"""Builds an image on one machine, and gets it from a shared cache on a second one, which is empty.

The cache is BuildGrid's, started here on this machine's own address. Each "machine" has its own copy of
this repository, and its own home, user name, time zone, language, set-up and empty caches, as in
reproduce.py. It fails if the second machine starts a process, or if the images differ.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uv import find_uv_bin

from image_diff import differences
from oci_archive import read
from reproduce import STRANGERS, build_as, say

LOCK = Path("3rdparty/python/buildgrid.txt")
CONFIGURATION = Path("build-support/buildgrid.yml")
# What the configuration calls it.
INSTANCE = "main"


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Installs and runs BuildGrid below `folder`; yields its address."""
    python = folder / "venv/bin/python"
    uv = find_uv_bin()
    say("installing BuildGrid")
    subprocess.run((uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"), check=True)
    install = ("pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "--no-deps")
    subprocess.run((uv, *install, f"--python={python}", f"--requirement={LOCK}"), check=True)
    address, log = f"127.0.0.1:{free_port()}", folder / "log"
    env = {**os.environ, "CACHE_ADDRESS": address, "CACHE_FOLDER": str(folder / "blobs")}
    argv = (folder / "venv/bin/bgd", "server", "start", CONFIGURATION.absolute())
    with log.open("w") as output:
        process = subprocess.Popen(argv, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        await_answer(process, address, log)
        yield f"grpc://{address}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def await_answer(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    host, _, port = address.partition(":")
    for _ in range(240):
        if process.poll() is not None:
            break
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError:
            time.sleep(0.25)
    sys.exit(f"BuildGrid does not answer at {address}. It says:\n{log.read_text()}")


def complaints(first: str, second: str) -> Iterator[str]:
    """What is wrong, from what Pants said on the machine that fills the cache and on the second one."""
    wrote, read = counters(first), counters(second)
    if not wrote["remote_cache_write_successes"]:
        yield "the first machine wrote nothing to the cache"
    if read["remote_cache_requests_cached"] < read["remote_cache_requests"]:
        yield "the cache lacks some of what the second machine asked for"
    if read["local_execution_requests"]:
        yield f"the second machine ran processes of its own: {read['local_execution_requests']}"
    for process in started(second):
        yield f"the second machine started: {process}"


def counters(said: str) -> dict[str, int]:
    """What Pants counted, which it says at the end."""
    return {name: int(value) for name, value in re.findall(r"(?m)^ +(\w+): (\d+)$", said)}


def started(said: str) -> list[str]:
    """What ran on the machine itself."""
    return re.findall(r"(?m)\[INFO\] Starting: (.*)$", said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?", default="images:py311", help="default: %(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, server(Path(scratch, "server")) as address:
        settings = {"PANTS_CONFIG_FILES": "pants.ci.toml", "PANTS_STATS_LOG": "true"}
        settings["PANTS_REMOTE_STORE_ADDRESS"] = address
        settings["PANTS_REMOTE_INSTANCE_NAME"] = INSTANCE
        images, logs = [], []
        for number, machine in enumerate(STRANGERS):
            room = Path(scratch, str(number))
            folder, said = build_as(machine, Path.cwd(), room, args.image, **settings)
            images.append(read(folder / "image.tar"))
            logs.append(said)
        one, other = images
        found = [*complaints(*logs), *one.problems, *other.problems, *differences(one, other)]
    wrote, got = map(counters, logs)
    print(
        f"first machine: {len(started(logs[0]))} processes of {args.image} started, "
        f"{wrote['remote_cache_write_successes']} results written to the cache\n"
        f"second machine: {got['remote_cache_requests_cached']} of "
        f"{got['remote_cache_requests']} results found in the cache, "
        f"{got['local_execution_requests']} processes run"
    )
    print("\n".join(found) or f"{args.image}: shared, layers and all; the digests are equal")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
