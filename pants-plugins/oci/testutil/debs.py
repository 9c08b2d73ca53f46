"""Makes small Debian packages for tests."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from dataclasses import dataclass
from typing import Callable, Dict, Mapping, Optional, Union

COMPRESSIONS: Dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "bz2": bz2.compress,
    "gz": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
}


@dataclass(frozen=True)
class Member:
    """What a package holds at one path; a `str` is a plain file of that content."""

    content: bytes = b""
    mode: int = 0o644
    type: bytes = tarfile.REGTYPE
    target: str = ""


def symlink(target: str) -> Member:
    return Member(type=tarfile.SYMTYPE, target=target)


def hard_link(original: str) -> Member:
    return Member(type=tarfile.LNKTYPE, target=original)


def folder(mode: int = 0o755) -> Member:
    return Member(type=tarfile.DIRTYPE, mode=mode)


Members = Mapping[str, Union[str, Member]]


def make_deb(
    name: str, files: Members, control: Optional[Mapping[str, str]] = None, compression: str = "xz"
) -> bytes:
    """A package; `control` are the files besides the one that is called `control` itself."""
    field = f"Package: {name}\nVersion: 1\nArchitecture: all\n"
    suffix = f".{compression}" if compression else ""
    return b"!<arch>\n" + b"".join(
        (
            _ar_member("debian-binary", b"2.0\n"),
            _ar_member(
                f"control.tar{suffix}", _tar({"control": field, **(control or {})}, compression)
            ),
            _ar_member(f"data.tar{suffix}", _tar(files, compression)),
        )
    )


def _ar_member(name: str, data: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
    return header + data + b"\n" * (len(data) % 2)


def _tar(members: Members, compression: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, member in members.items():
            if isinstance(member, str):
                member = Member(member.encode())
            info = tarfile.TarInfo(f"./{path}")
            info.mode, info.type, info.size = member.mode, member.type, len(member.content)
            info.linkname = member.target
            tar.addfile(info, io.BytesIO(member.content))
    return COMPRESSIONS[compression](out.getvalue())
