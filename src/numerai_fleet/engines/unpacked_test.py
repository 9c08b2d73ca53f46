"""Images become folders as their layers say, and nothing is written outside of these."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from pathlib import Path

import pytest

from numerai_fleet.engines import unpacked
from numerai_fleet.engines.base import EngineError

FILE, FOLDER, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
Entry = tuple[str, bytes, str]


def tar(*entries: Entry) -> bytes:
    """Args: name, type, and content or what is linked to."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, content in entries:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.mode = 0o555 if kind == FOLDER else 0o644
            member.uid, member.gid = os.getuid(), os.getgid()
            if kind in (LINK, HARD):
                member.linkname = content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()


def image(folder: Path, *layers: bytes) -> Path:
    """As `./pants package` leaves it; returns what `Images` takes."""
    blobs: list[Entry] = []

    def blob(data: bytes) -> dict[str, str]:
        digest = hashlib.sha256(data).hexdigest()
        blobs.append((f"blobs/sha256/{digest}", FILE, data.decode("latin-1")))
        return {"digest": f"sha256:{digest}"}

    descriptors = [blob(gzip.compress(layer)) for layer in layers]
    contents = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    described = {"config": {"Entrypoint": ["python3"]}, "rootfs": {"diff_ids": contents}}
    config = blob(json.dumps(described).encode())
    manifest = blob(json.dumps({"config": config, "layers": descriptors}).encode())
    name = f"linux/{unpacked.ARCHITECTURES[platform.machine()]}"
    there = folder / "images/a"
    there.mkdir(parents=True)
    with tarfile.open(there / "image.tar", "w") as archive:
        for path, _, text in blobs:
            member = tarfile.TarInfo(path)
            data = text.encode("latin-1")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    built = {"digest": manifest["digest"], "config_digest": config["digest"]}
    description = {"reference": "a:latest", "platforms": {name: built}}
    (there / "image.json").write_text(json.dumps(description))
    return there.parent


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/numerai-fleet"


def files(root: Path) -> dict[str, str]:
    """But for what is mounted over."""
    there = {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}
    return {name: text for name, text in there.items() if name not in unpacked.FILES}


def test_later_layers_win(tmp_path: Path):
    images = image(
        tmp_path,
        tar(("etc", FOLDER, ""), ("etc/a", FILE, "1"), ("etc/b", FILE, "1"), ("x/y", FILE, "1"),
            ("opt/old", FILE, "1"), ("bin", LINK, "usr/bin")),
        tar(("etc/a", FILE, "2"), ("etc/.wh.b", FILE, ""), (".wh.x", FILE, ""),
            ("opt/new", FILE, "2"), ("opt/.wh..wh..opq", FILE, ""), ("etc/c", HARD, "etc/a"),
            ("usr/bin/sh", FILE, "2")),
    )  # fmt: skip
    found = unpacked.Images(images).get("a")
    assert files(found.root) == {
        **{"etc/a": "2", "etc/c": "2", "opt/new": "2", "usr/bin/sh": "2"},
    }
    assert (found.root / "bin").readlink() == Path("usr/bin")
    assert (found.root / "etc").stat().st_mode & 0o777 == 0o555
    assert found.config == {"Entrypoint": ["python3"]}


@pytest.mark.parametrize(
    "entries",
    [
        [("out", LINK, "{outside}"), ("out/file", FILE, "mine")],
        [("out", LINK, "{outside}"), ("out/.wh.there", FILE, "")],
        [("file", HARD, "{outside}/there"), ("file", FILE, "mine")],
        [("../../../../outside/file", FILE, "mine")],
        [("out", LINK, "{outside}"), ("copy", HARD, "out/there")],
    ],
)
def test_nothing_is_written_outside(tmp_path: Path, entries: list[Entry]):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "there").write_text("theirs")
    there = [(name, kind, text.format(outside=outside)) for name, kind, text in entries]
    try:
        root = unpacked.Images(image(tmp_path, tar(*there))).get("a").root
    except EngineError as error:
        assert "cannot be unpacked" in str(error)
    else:
        assert "theirs" not in files(root).values()
    assert files(outside) == {"there": "theirs"}


def test_it_is_unpacked_once_and_whole(tmp_path: Path, cache: Path, capfd):
    images = image(tmp_path, tar(("a", FILE, "1")))
    cache.mkdir(parents=True)
    first = unpacked.Images(images).get("a")
    (first.root / "a").write_text("changed")
    assert files(unpacked.Images(images).get("a:latest").root) == {"a": "changed"}
    assert capfd.readouterr().err.count("unpacking") == 1


def test_images_in_use_stay(tmp_path: Path, cache: Path, monkeypatch):
    monkeypatch.setattr(unpacked, "KEPT", 1)
    roots = [
        unpacked.Images(image(tmp_path / str(number), tar(("a", FILE, str(number))))).get("a")
        for number in range(2)
    ]
    assert all(each.root.exists() for each in roots)
    for each in roots:
        os.close(each.lock)
    last = unpacked.Images(image(tmp_path / "2", tar(("b", FILE, "2")))).get("a")
    assert [path for path in cache.iterdir() if path.is_dir()] == [last.root]


def test_a_store_of_ones_own_keeps_all(tmp_path: Path, cache: Path, monkeypatch):
    monkeypatch.setattr(unpacked, "KEPT", 1)
    store = tmp_path / "store"
    for number in range(2):
        images = image(tmp_path / str(number), tar(("a", FILE, str(number))))
        os.close(unpacked.Images(images, store).get("a").lock)
    assert sorted(files(each)["a"] for each in store.iterdir() if each.is_dir()) == ["0", "1"]
    assert not cache.exists()


def test_what_is_not_there_is_said(tmp_path: Path):
    images = unpacked.Images(image(tmp_path, tar(("a", FILE, "1"))))
    with pytest.raises(EngineError, match="no image b in .*, only a:latest"):
        images.get("b")
    with pytest.raises(EngineError, match="--images"):
        unpacked.Images(tmp_path / "gone").get("a")
