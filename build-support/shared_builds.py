"""Builds an image on one machine, and gets it from a shared cache on a second one, which is empty.

The cache is BuildGrid's, started here on this machine's own address. Each "machine" has its own copy of
this repository, and its own home, user name, time zone, language, set-up and empty caches, as in
reproduce.py. It fails if the second machine starts a process, or if the images differ.
"""

from __future__ import annotations

import argparse
import json
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

from image_diff import differences
from reproduce import STRANGERS, build, check_out, say
from uv import find_uv_bin

LOCK = Path("3rdparty/python/buildgrid.txt")
CONFIGURATION = Path("build-support/buildgrid.yml")
# Options of a machine that uses the cache.
OPTIONS = "pants.ci.toml"
# What Pants counts, with [stats].log.
COUNTED = ("local_execution_requests", "remote_cache_requests", "remote_cache_requests_cached")


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


def counters(log: str) -> dict[str, int]:
    """The last of Pants' counters in its log."""
    return {name: int(value) for name, value in re.findall(r"(?m)^ +(\w+): (\d+)$", log)}


def processes(log: str) -> list[str]:
    """Descriptions of what ran on the machine."""
    return re.findall(r"(?m)\[INFO\] (?:Starting|Completed): (.*)$", log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?", default="images:py311", help="default: %(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, server(Path(scratch)) as address:
        settings = {"PANTS_CONFIG_FILES": OPTIONS, "PANTS_REMOTE_STORE_ADDRESS": address}
        settings["PANTS_REMOTE_INSTANCE_NAME"] = "main"
        for number, stranger in enumerate(STRANGERS):
            folder = Path(scratch, "x" * number, str(number))
            (folder / "home").mkdir(parents=True)
            checkout = check_out(Path.cwd(), folder, stranger)
            build(checkout, args.image, stranger, **settings)
            log = (checkout / ".pants.d/pants.log").read_text()
            Path(f"/tmp/wt-cache-scratch/log{number}").write_text(log)
            print(counters(log), processes(log))


if __name__ == "__main__":
    main()
