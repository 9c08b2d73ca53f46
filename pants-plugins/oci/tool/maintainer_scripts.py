"""What packages' maintainer scripts would have done, had they run.

They never run here: they need a shell, a package manager and the machine they run on. Each package
that brings scripts has an entry in `DONE_HERE`; a package without one is refused, because its script
may do something that an image needs.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterable

from .deb import Deb
from .layer import Tree

BUNDLE = "etc/ssl/certs/ca-certificates.crt"
TRUSTED = "usr/share/ca-certificates/"


def nothing(tree: Tree) -> None:
    """Nothing that a fresh image needs."""


def standard_folders(tree: Tree) -> None:
    """base-files, and base-passwd's users: the two that every Unix program may ask for."""
    tree.link("var/run", "/run")
    tree.link("var/lock", "/run/lock")
    tree.folder("run/lock", 0o755)
    tree.folder("root", 0o700)
    tree.file(
        "etc/passwd",
        "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    )
    tree.file("etc/group", "root:x:0:\nnogroup:x:65534:\n")


def ca_bundle(tree: Tree) -> None:
    """ca-certificates: one file of all certificates, where OpenSSL and libcurl look for it, Debian's and
    that of python-build-standalone."""
    certificates = [entry.read() for path, entry in tree.files() if path.startswith(TRUSTED)]
    tree.file(BUNDLE, b"".join(pem.rstrip(b"\n") + b"\n" for pem in certificates))
    for folder in ("usr/lib/ssl", "etc/ssl"):
        tree.link(f"{folder}/cert.pem", f"/{BUNDLE}")
    tree.link("usr/lib/ssl/certs", "/etc/ssl/certs")


def name_services(tree: Tree) -> None:
    """libc-bin: where users and hosts are looked up. (Its ldconfig is `oci.tool.ldcache`.)"""
    tree.file("etc/nsswitch.conf", tree.entries["usr/share/libc-bin/nsswitch.conf"].read())


def time_zone(tree: Tree) -> None:
    """tzdata: UTC, which is also what its own script takes when nobody answers."""
    tree.link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
    tree.file("etc/timezone", "Etc/UTC\n")


def shell(tree: Tree) -> None:
    """bash: it is `sh`, there being no other. (Its manual page of builtins gets no second name.)"""
    tree.link("usr/bin/sh", "bash")


DONE_HERE: Dict[str, Callable[[Tree], None]] = {
    "base-files": standard_folders,
    "bash": shell,
    "ca-certificates": ca_bundle,
    "coreutils": nothing,  # a second name for touch
    "libc-bin": name_services,
    "libc6": nothing,  # restarts services after an upgrade
    "libpython3.11-minimal": nothing,  # checks for sitecustomize.py
    "netbase": nothing,  # /etc/hosts, which every container engine writes itself
    "python3.11": nothing,  # byte-compiles: done for every layer
    "python3.11-minimal": nothing,  # the same, and empty folders in /usr/local
    "tzdata": time_zone,
}


def apply(debs: Iterable[Deb], tree: Tree) -> None:
    """Raises ValueError for a package whose scripts nobody has considered."""
    for deb in debs:
        if not deb.scripts:
            continue
        if deb.name not in DONE_HERE:
            raise ValueError(
                f"{deb.name} has maintainer scripts ({', '.join(deb.scripts)}), and they never run here: read "
                f"them (dpkg-deb --info) and add to {__name__}.DONE_HERE what they do that an image needs"
            )
        DONE_HERE[deb.name](tree)
