"""Ceph's S3 gateway on this machine: the smallest cluster that it runs on, all of it in memory.

A monitor, one store and the gateway, of Debian's packages ceph-mon, ceph-osd and radosgw.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

PROGRAMS = ("ceph-authtool", "ceph-mon", "ceph-osd", "ceph", "monmaptool", "radosgw")
PACKAGES = "ceph-mon, ceph-osd and radosgw"

CONFIG = """
[global]
fsid = {cluster}
mon_host = [v2:127.0.0.1:{monitor}]
public_addr = 127.0.0.1
keyring = {folder}/keyring
run_dir = {folder}
admin_socket =
pid_file =
log_file = {folder}/$name.log
auth_allow_insecure_global_id_reclaim = false

# One copy of everything is enough, on a disk that may be nearly full.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
mon_data_avail_warn = 1

osd_objectstore = memstore
memstore_device_bytes = 268435456
osd_data = {folder}/osd
mon_data = {folder}/mon
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{gateway}
rgw_thread_pool_size = 16

# Decisions are not gathered for a second each: the gateway makes a dozen when it starts.
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
"""


def missing() -> list[str]:
    """The programs that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Ceph:
    """Runs for the time of a `with` statement; `url` is the gateway's address.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # `ceph` is a Python program, of another Python than ours.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self._env = {**inherited, "CEPH_CONF": str(folder / "ceph.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Ceph:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()

    def add_user(self, access_key: str, secret_key: str) -> None:
        user = ("--uid=user", "--display-name=user")
        keys = (f"--access-key={access_key}", f"--secret-key={secret_key}")
        self._run("radosgw-admin", "user", "create", *user, *keys)

    def _start(self) -> None:
        monitor, gateway = free_ports(2)
        self.url = f"http://127.0.0.1:{gateway}"
        cluster = str(uuid.uuid4())
        values = dict(cluster=cluster, monitor=monitor, gateway=gateway, folder=self._folder)
        (self._folder / "ceph.conf").write_text(CONFIG.format(**values))
        for name in ("mon", "osd", "rgw"):
            (self._folder / name).mkdir()

        self._add_key("mon.", "mon", "allow *")
        self._add_key("client.admin", "mon", "allow *", "osd", "allow *")
        self._add_key("osd.0", "mon", "allow profile osd", "osd", "allow *")
        address = f"[v2:127.0.0.1:{monitor}]"
        monitors = str(self._folder / "monitors")
        self._run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", address, monitors)
        self._run("ceph-mon", "--mkfs", "--id=a", "--monmap", monitors)
        self._daemon("ceph-mon", "--id=a")
        store = str(uuid.uuid4())
        self._run("ceph", "--connect-timeout=60", "osd", "new", store)
        self._run("ceph-osd", "--mkfs", "--id=0", "--osd-uuid", store)
        self._daemon("ceph-osd", "--id=0")
        self._daemon("radosgw", "--name=client.admin")
        self._wait(60)

    def _add_key(self, name: str, *rights: str) -> None:
        keyring = self._folder / "keyring"
        new = () if keyring.exists() else ("--create-keyring",)
        caps = [
            word for kind, cap in zip(rights[::2], rights[1::2]) for word in ("--cap", kind, cap)
        ]
        self._run("ceph-authtool", *new, str(keyring), "--gen-key", "--name", name, *caps)

    def _run(self, *argv: str) -> None:
        done = subprocess.run(argv, env=self._env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{argv[0]}: {done.stdout}{done.stderr}"

    def _daemon(self, *argv: str) -> None:
        with open(self._folder / f"{argv[0]}.out", "wb") as out:
            daemon = subprocess.Popen([*argv, "-f"], env=self._env, stdout=out, stderr=out)
        self._daemons.append(daemon)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.url):
                    return
            except (urllib.error.URLError, ConnectionError):
                ended = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
                assert not ended and time.monotonic() < deadline, f"not started; ended: {ended}"
                time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
