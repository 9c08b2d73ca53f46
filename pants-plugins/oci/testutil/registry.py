"""Debian's registry, on this machine: with TLS and a password, as one on the network has them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator

USER, PASSWORD = "ada", "correct horse"
# PASSWORD's, by bcrypt, the one kind that the registry takes.
HTPASSWD = f"{USER}:$2b$05$9swdodVXr3k0eIgIwhPdkOCv8D/HlBSHxjqh77e4tx2j7x9umu0DO\n"


def missing() -> list[str]:
    """The programs that this machine lacks."""
    return [name for name in ("docker-registry", "openssl") if shutil.which(name) is None]


class Registry:
    """Serves at `host`, which is an address and a port; keeps all it has and its log in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.authority = folder / "cert.pem"

    @contextmanager
    def running(self) -> Iterator[Registry]:
        self._certify()
        (self.folder / "htpasswd").write_text(HTPASSWD)
        config = {
            "version": 0.1,
            "log": {"accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}},
            "auth": {"htpasswd": {"realm": "test", "path": str(self.folder / "htpasswd")}},
            "http": {
                "addr": self.host,
                "tls": {"certificate": str(self.authority), "key": str(self.folder / "key.pem")},
            },
        }
        # YAML takes JSON.
        (self.folder / "config.yml").write_text(json.dumps(config))
        with (self.folder / "log").open("w") as log:
            argv = ("docker-registry", "serve", str(self.folder / "config.yml"))
            process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._await_answer(process)
            yield self
        finally:
            process.terminate()
            process.wait()

    def _certify(self) -> None:
        names = ("-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1")
        files = ("-keyout", self.folder / "key.pem", "-out", self.authority)
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
        argv = ("openssl", "req", "-x509", *kind, *names, *files)
        subprocess.run(argv, check=True, capture_output=True)

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        context = ssl.create_default_context(cafile=str(self.authority))
        for _ in range(600):
            assert process.poll() is None, (self.folder / "log").read_text()
            try:
                with socket.create_connection(("127.0.0.1", self.port)) as plain:
                    context.wrap_socket(plain, server_hostname="127.0.0.1").close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def uploads(self) -> int:
        """How many blobs it was sent so far."""
        lines = (self.folder / "log").read_text().splitlines()
        return sum('"PUT /v2/' in line and "/blobs/uploads/" in line for line in lines)

    def tags(self, repository: str) -> list[str]:
        """Those that the registry has, apart from those that stand in for its missing referrers API."""
        kept = self.folder / "data/docker/registry/v2/repositories" / repository / "_manifests/tags"
        if not kept.is_dir():
            return []
        return sorted(name for name in os.listdir(kept) if not name.startswith("sha256-"))


def logged_in(folder: Path, *hosts: str, password: str = PASSWORD) -> Dict[str, str]:
    """The environment of somebody who logged in to these, as `docker login` leaves it in `folder`."""
    known = base64.b64encode(f"{USER}:{password}".encode()).decode()
    folder.mkdir(exist_ok=True)
    config = {"auths": {host: {"auth": known} for host in hosts}}
    (folder / "config.json").write_text(json.dumps(config))
    return {"DOCKER_CONFIG": str(folder)}
