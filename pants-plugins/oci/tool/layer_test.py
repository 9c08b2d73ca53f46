from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from oci.tool import layer
from oci.tool.layer import EPOCH, Entry, Tree, read_layer, write_layer

CHUNK = 10_000


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "CHUNK", CHUNK)


def compress(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def written(tree: Tree, folder: Path) -> tuple[bytes, dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    write_layer(tree, folder, "tiny", {"pin": 1}, compress)
    return (folder / "layer.tar.gz").read_bytes(), json.loads((folder / "layer.json").read_text())


def members(packed: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as tar:
        return {member.name: member for member in tar}


def noise(size: int) -> bytes:
    return b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(size // 32 + 1))[:size]


def a_tree() -> Tree:
    tree = Tree()
    tree.file("usr/bin/big", noise(3 * CHUNK + 1), 0o755)
    tree.link("bin", "usr/bin")
    tree.folder("root", 0o700)
    tree.file("etc/os-release", "odd\n")
    return tree


def test_members_are_sorted_and_say_nothing_of_who_made_them(tmp_path: Path) -> None:
    found = members(written(a_tree(), tmp_path)[0])
    assert list(found) == ["bin", "etc", "etc/os-release", "root", "usr", "usr/bin", "usr/bin/big"]
    owners = {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in found.values()}
    assert owners == {(EPOCH, 0, 0, "", "")}
    assert {name: oct(member.mode) for name, member in found.items()} == {
        **{"bin": "0o777", "etc": "0o755", "etc/os-release": "0o644", "root": "0o700"},
        **{"usr": "0o755", "usr/bin": "0o755", "usr/bin/big": "0o755"},
    }


def test_the_order_of_adding_does_not_matter(tmp_path: Path) -> None:
    reverse = Tree(dict(reversed(a_tree().entries.items())))
    assert written(reverse, tmp_path / "1") == written(a_tree(), tmp_path / "2")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written(a_tree(), tmp_path)
    assert read_layer(tmp_path) == a_tree()


def test_the_description_agrees_with_the_file(tmp_path: Path) -> None:
    packed, description = written(a_tree(), tmp_path)
    tar = gzip.decompress(packed)
    assert description == {
        "what": "tiny",
        "digest": f"sha256:{hashlib.sha256(packed).hexdigest()}",
        "diff_id": f"sha256:{hashlib.sha256(tar).hexdigest()}",
        "size": len(packed),
        "unpacked": len(tar),
        "inputs": {"pin": 1},
    }


def test_facts_are_told_and_change_nothing(tmp_path: Path) -> None:
    packed, description = written(a_tree(), tmp_path)
    write_layer(a_tree(), tmp_path, "tiny", {"pin": 1}, compress, {"for_python": "3.11"})
    assert (tmp_path / "layer.tar.gz").read_bytes() == packed
    told = json.loads((tmp_path / "layer.json").read_text())
    assert told == {**description, "for_python": "3.11"}


@pytest.mark.parametrize("processors", [1, 2, 7, None])
def test_the_number_of_processors_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int | None
) -> None:
    expected = written(a_tree(), tmp_path / "here")
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert written(a_tree(), tmp_path / "there") == expected


# A header takes 512 bytes; the end of a chunk is where something might get lost.
@pytest.mark.parametrize(
    "size", [0, 1, 511, 512, 513, *range(CHUNK - 513, CHUNK + 2, 257), 2 * CHUNK - 512, 5 * CHUNK]
)
def test_content_of_any_size_comes_back(tmp_path: Path, size: int) -> None:
    tree = Tree()
    tree.file("file", noise(size))
    tree.file("next", "next")
    packed, _ = written(tree, tmp_path)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as tar:
        contents = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore
    assert contents == {"file": noise(size), "next": b"next"}


@pytest.mark.parametrize(
    "path",
    [
        f"{'d' * 60}/{'f' * 60}",
        f"{'d' * 120}/{'f' * 200}",
        "usr/share/ca-certificates/Főtanúsítvány.crt",
    ],
    ids=["over-100", "over-255", "not-ascii"],
)
def test_names_come_back(tmp_path: Path, path: str) -> None:
    tree = Tree()
    tree.file(path, "content")
    tree.link("link", path)
    found = members(written(tree, tmp_path)[0])
    assert found[path].isfile()
    assert found["link"].linkname == path


def make_folder(folder: Path, umask: int, mtime: int) -> Path:
    before = os.umask(umask)
    try:
        for name in ("pkg/z.py", "pkg/a.py", "tool") if mtime else ("tool", "pkg/a.py", "pkg/z.py"):
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)
            os.utime(file, (mtime, mtime))
        (folder / "tool").chmod(0o777 & ~umask)
    finally:
        os.umask(before)
    return folder


def test_umask_times_and_place_of_a_folder_do_not_matter(tmp_path: Path) -> None:
    trees = [Tree(), Tree()]
    trees[0].add_folder(make_folder(tmp_path / "one", umask=0o022, mtime=0), "opt")
    trees[1].add_folder(make_folder(tmp_path / "two", umask=0o077, mtime=10**9), "opt")
    one, two = (written(tree, tmp_path / str(i)) for i, tree in enumerate(trees))
    assert one == two
    modes = {name: oct(member.mode) for name, member in members(one[0]).items() if member.isfile()}
    assert modes == {"opt/pkg/a.py": "0o644", "opt/pkg/z.py": "0o644", "opt/tool": "0o755"}


def test_a_folder_never_replaces() -> None:
    tree = Tree()
    tree.link("lib", "usr/lib")
    tree.folder("root", 0o700)
    tree.add("lib", Entry())
    tree.add("root", Entry())
    assert tree.entries == {"lib": Entry(0o777, target="usr/lib"), "root": Entry(0o700)}


def test_a_file_or_link_replaces() -> None:
    tree = Tree()
    tree.file("etc/localtime", "old")
    tree.link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
    assert tree.entries["etc/localtime"].target == "/usr/share/zoneinfo/Etc/UTC"
    assert not list(tree.files())
