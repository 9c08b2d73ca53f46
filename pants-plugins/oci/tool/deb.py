"""Reads Debian packages: an `ar` archive of `debian-binary`, `control.tar.*` and `data.tar.*` (deb(5))."""

from __future__ import annotations

import hashlib
import io
import posixpath
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, Tuple

from .layer import Entry, Tree

# Debian's files are being moved from / to /usr: packages still ship both names of these folders,
# and a layer that shipped a real /lib would replace the link to /usr/lib.
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True)
class Deb:
    name: str
    control: Dict[str, bytes]
    data: bytes
    sha256: str

    def field(self, name: str) -> str:
        """A field of one line; "" where the package does not say it."""
        return _field(self.control["control"].decode(), name)

    @property
    def scripts(self) -> Tuple[str, ...]:
        """The maintainer scripts that dpkg would have run to install this package."""
        return tuple(name for name in ("preinst", "postinst") if name in self.control)

    def add_to(self, tree: Tree) -> None:
        """Adds the package's files. Ownership is dropped: a package that needs another than root's
        would not work here, and none of those that images use has one."""
        with _open_tar(self.data) as tar:
            for member in tar:
                path = merged(posixpath.normpath(member.name))
                if path == ".":
                    continue
                if member.isdir():
                    # The sticky bit of /tmp stays.
                    tree.add(path, Entry(member.mode & 0o1777))
                elif member.issym():
                    tree.link(path, member.linkname)
                elif member.islnk():
                    original = merged(posixpath.normpath(member.linkname))
                    tree.add(path, tree.entries[original])
                elif member.isfile():
                    content = tar.extractfile(member)
                    assert content is not None
                    # Nothing in the image may become another user.
                    tree.file(path, content.read(), member.mode & 0o755)
                else:
                    raise ValueError(f"{self.name}: {member.name} is neither file, folder nor link")


def merged(path: str) -> str:
    top, _, rest = path.partition("/")
    return f"usr/{path}" if top in MERGED else path


def read_deb(path: Path) -> Deb:
    """Raises ValueError for a file that is no Debian package."""
    content = path.read_bytes()
    members = dict(_ar_members(content, path.name))
    control = {}
    with _open_tar(_member(members, "control.tar", path.name)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                control[posixpath.normpath(member.name)] = file.read()
    return Deb(
        name=_field(control["control"].decode(), "Package"),
        control=control,
        data=_member(members, "data.tar", path.name),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _field(control: str, name: str) -> str:
    lines = (line for line in control.splitlines() if line.startswith(f"{name}:"))
    return next((line.split(":", 1)[1].strip() for line in lines), "")


def _ar_members(data: bytes, name: str) -> Iterator[Tuple[str, bytes]]:
    if not data.startswith(b"!<arch>\n"):
        raise ValueError(f"{name} is not a Debian package")
    position = 8
    while position + 60 <= len(data):
        header = data[position : position + 60]
        size = int(header[48:58])
        yield header[:16].decode().strip().rstrip("/"), data[position + 60 : position + 60 + size]
        position += 60 + size + size % 2


def _member(members: Dict[str, bytes], prefix: str, name: str) -> bytes:
    for member, data in members.items():
        if member in (prefix, f"{prefix}.xz", f"{prefix}.gz"):
            return data
    raise ValueError(f"{name} has no {prefix} compressed in a way that is known here: {[*members]}")


def _open_tar(data: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(data), mode="r:*")
