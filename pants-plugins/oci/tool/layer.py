"""Layers: a tree of files in memory, and its one and only form as a compressed tar."""

from __future__ import annotations

import concurrent.futures
import fnmatch
import hashlib
import json
import os
import stat
import tarfile
from collections import deque
from dataclasses import dataclass, field
from gzip import GzipFile
from pathlib import Path, PurePosixPath
from typing import (
    Any,
    BinaryIO,
    Callable,
    Deque,
    Dict,
    Iterator,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

# Every file's time, and the image's `created`: any constant would do, but "created 55 years ago"
# confuses people and the garbage collectors of registries. 2026-01-01T00:00:00Z.
EPOCH = 1767225600

# Independent gzip members of this size let two cores compress one layer; a constant, because it
# shows in the bytes.
CHUNK = 4 << 20


@dataclass(frozen=True)
class Entry:
    """A file (`content`: its bytes or where they are), a symlink (`target`) or a folder (neither)."""

    mode: int = 0o755
    content: Union[bytes, Path, None] = None
    target: Optional[str] = None

    @property
    def is_file(self) -> bool:
        return self.content is not None

    def read(self) -> bytes:
        if isinstance(self.content, Path):
            return self.content.read_bytes()
        assert self.content is not None, "only files have content"
        return self.content


@dataclass
class Tree:
    """What a layer holds: entries by path, relative to the root, all owned by root."""

    entries: Dict[str, Entry] = field(default_factory=dict)

    def add(self, path: str, entry: Entry) -> None:
        """Adds an entry and the folders above it. A folder never replaces what is there."""
        for folder in PurePosixPath(path).parents:
            if folder.name:
                self.entries.setdefault(str(folder), Entry())
        if entry.is_file or entry.target is not None or path not in self.entries:
            self.entries[path] = entry

    def file(self, path: str, content: Union[bytes, str, Path], mode: int = 0o644) -> None:
        self.add(path, Entry(mode, content.encode() if isinstance(content, str) else content))

    def link(self, path: str, target: str) -> None:
        self.add(path, Entry(0o777, target=target))

    def folder(self, path: str, mode: int = 0o755) -> None:
        self.add(path, Entry(mode))
        self.entries[path] = Entry(mode)

    def files(self) -> Iterator[Tuple[str, Entry]]:
        return ((path, entry) for path, entry in sorted(self.entries.items()) if entry.is_file)

    def add_folder(self, source: Path, prefix: str) -> None:
        """Adds what is in `source`, a real folder, under `prefix`; "" is the root.

        Of the modes only "executable or not" is kept: the rest is the umask of this machine.
        """
        for folder, folders, files in os.walk(source):
            folders.sort()
            for name in files:
                path = Path(folder, name)
                executable = path.stat().st_mode & stat.S_IXUSR
                where = str(PurePosixPath(prefix, path.relative_to(source).as_posix()))
                self.file(where, path, 0o755 if executable else 0o644)

    def without(self, patterns: Sequence[str]) -> Tree:
        """The tree less what a pattern fits, or what lies below; a later `!pattern` takes it back."""
        kept = {path for path in self.entries if not _matches(path, patterns)}
        # What is taken back in keeps the folders it lies in.
        kept |= {str(folder) for path in kept for folder in PurePosixPath(path).parents}
        return Tree({path: entry for path, entry in self.entries.items() if path in kept})


def _matches(path: str, patterns: Sequence[str]) -> bool:
    matched = False
    for pattern in patterns:
        keep, pattern = pattern.startswith("!"), pattern.lstrip("!")
        if fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}/*"):
            matched = not keep
    return matched


class _Gzip:
    """Writes independent gzip members, compressed side by side, in order."""

    def __init__(self, out: BinaryIO, compress: Callable[[bytes], bytes]) -> None:
        self._out, self._compress = out, compress
        self._workers = os.cpu_count() or 1
        self._pool = concurrent.futures.ThreadPoolExecutor(self._workers)
        self._pending: Deque[concurrent.futures.Future[bytes]] = deque()
        self._buffer = bytearray()
        self.digest, self.diff_id = hashlib.sha256(), hashlib.sha256()
        self.size = self.unpacked = 0

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while len(rest) >= CHUNK - len(self._buffer):
            room = CHUNK - len(self._buffer)
            self._submit(bytes(self._buffer) + rest[:room])
            self._buffer.clear()
            rest = rest[room:]
        self._buffer += rest

    def close(self) -> None:
        if self._buffer:
            self._submit(bytes(self._buffer))
        self._drain(0)
        self._pool.shutdown()

    def _submit(self, chunk: bytes) -> None:
        self.diff_id.update(chunk)
        self.unpacked += len(chunk)
        self._pending.append(self._pool.submit(self._compress, chunk))
        self._drain(2 * self._workers)

    def _drain(self, leave: int) -> None:
        while len(self._pending) > leave:
            member = self._pending.popleft().result()
            self.digest.update(member)
            self.size += len(member)
            self._out.write(member)


def tar_header(path: str, entry: Entry, size: int) -> bytes:
    """The header of a member whose content, `size` bytes, follows, padded (`tar_padding`).

    Written by hand, because a `TarFile` copies contents in small pieces.
    """
    info = tarfile.TarInfo(path)
    info.mtime, info.mode, info.size = EPOCH, entry.mode, size
    if entry.target is not None:
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
    elif not entry.is_file:
        info.type = tarfile.DIRTYPE
    return info.tobuf(tarfile.PAX_FORMAT)


def tar_padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


TAR_END = bytes(2 * tarfile.BLOCKSIZE)


def write_layer(
    tree: Tree,
    folder: Path,
    what: str,
    inputs: Dict[str, object],
    compress: Callable[[bytes], bytes],
    facts: Mapping[str, Any] = {},
) -> None:
    """Writes `layer.tar.gz` and its description, `layer.json`, into `folder`.

    `facts` are added to the description; what an image does with them see `compatibility.check`.
    """
    with open(folder / "layer.tar.gz", "wb") as out:
        gzip = _Gzip(out, compress)
        for path, entry in sorted(tree.entries.items()):
            data = entry.read() if entry.is_file else b""
            gzip.write(tar_header(path, entry, len(data)))
            gzip.write(data)
            gzip.write(tar_padding(len(data)))
        gzip.write(TAR_END)
        gzip.close()
    description = {
        "what": what,
        "digest": f"sha256:{gzip.digest.hexdigest()}",
        "diff_id": f"sha256:{gzip.diff_id.hexdigest()}",
        "size": gzip.size,
        "unpacked": gzip.unpacked,
        "inputs": inputs,
        **facts,
    }
    (folder / "layer.json").write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")


def read_layer(folder: Path) -> Tree:
    """The tree that `write_layer` wrote into `folder`."""
    tree = Tree()
    # tarfile's own "r|gz" stops after the first of the gzip members.
    with GzipFile(folder / "layer.tar.gz") as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if member.issym():
                    tree.link(member.name, member.linkname)
                elif member.isfile():
                    content = tar.extractfile(member)
                    assert content is not None, "a file has content"
                    tree.file(member.name, content.read(), member.mode)
                else:
                    tree.folder(member.name, member.mode)
    return tree
