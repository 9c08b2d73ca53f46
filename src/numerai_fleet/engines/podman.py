"""Podman, through Docker's API: it serves that as long as this process asks, and its containers go on.

What differs from Docker (seen on Podman 4.3):
- no daemon, hence the service that is started here, unless one runs;
- it raises limits of files and processes, for which it lacks the right in a container, even as root.
"""

from __future__ import annotations

import atexit
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException
from docker.types import Ulimit

from numerai_fleet.engines.base import EngineError
from numerai_fleet.engines.docker import Docker

# Seconds in which the service has to answer; without a question, after which it ends by itself.
PATIENCE = 30
IDLE = 120
PROCESSES = 32768


class Podman(Docker):
    def _connect(self) -> docker.DockerClient:
        if named := os.environ.get("CONTAINER_HOST"):
            if client := _answering(named):
                return client
            raise EngineError(f"no Podman answers at {named}, which CONTAINER_HOST names")
        runtime = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/run")
        return _answering(f"unix://{runtime}/podman/podman.sock") or _service()

    def _options(self) -> dict[str, Any]:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        if processes == resource.RLIM_INFINITY or processes > PROCESSES:
            processes = PROCESSES
        limits = {"nofile": files, "nproc": processes}
        return {"ulimits": [Ulimit(name=name, soft=n, hard=n) for name, n in limits.items()]}


def _answering(address: str) -> docker.DockerClient | None:
    try:
        client = docker.DockerClient(base_url=address)
        client.ping()
    except (DockerException, OSError):
        return None
    return client


def _service() -> docker.DockerClient:
    """Of this process; it is gone soon after it. Raises EngineError: it does not come up."""
    program = shutil.which("podman")
    if program is None:
        raise EngineError("there is no podman here; install it (Debian: apt-get install podman)")
    # Not in the run's folder: a socket's path has 107 characters at most (unix(7)).
    folder = Path(tempfile.mkdtemp(prefix="numerai-fleet-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address, log = f"unix://{folder}/podman.sock", folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            (program, "system", "service", f"--time={IDLE}", address),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C is for this process
        )
    atexit.register(process.terminate)
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if client := _answering(address):
            return client
        time.sleep(0.05)
    said = log.read_text(errors="replace").strip()[-500:]
    raise EngineError(f"`podman system service` does not answer: {said}. Does `podman info` work?")
