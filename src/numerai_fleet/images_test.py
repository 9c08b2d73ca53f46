from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from numerai_fleet.engines.base import EngineError
from numerai_fleet.images import ARCHITECTURES, Images

HERE = ARCHITECTURES.get(platform.machine(), platform.machine())
OTHER = next(each for each in ARCHITECTURES.values() if each != HERE)


def layer(files: Mapping[str, str | None]) -> bytes:
    """A packed layer of these: a text is a file's, a link's after `-> `, a folder has none."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            if text is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            elif text.startswith("-> "):
                member.type, member.linkname = tarfile.SYMTYPE, text[3:]
            else:
                member.size = len(text)
            tar.addfile(member, io.BytesIO((text or "").encode()))
    data = packed.getvalue()
    # In two parts, as programs write that pack with several processors.
    return gzip.compress(data[:700]) + gzip.compress(data[700:])


def write(folder: Path, layers: list[bytes], architectures: tuple[str, ...] = (HERE,)) -> None:
    """image.tar, an OCI layout, and the image.json beside it."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        blobs[f"blobs/{digest.replace(':', '/')}"] = data
        return digest

    def manifest(architecture: str) -> dict[str, object]:
        config = {"architecture": architecture, "config": {"Entrypoint": [architecture]}}
        kind = "application/vnd.oci.image.layer.v1.tar+gzip"
        digests = [{"mediaType": kind, "digest": put(each)} for each in layers]
        described = {
            "config": {"digest": put(json.dumps(config).encode())},
            "layers": digests,
        }
        digest = put(json.dumps(described).encode())
        return {"digest": digest, "platform": {"architecture": architecture}}

    index = json.dumps({"manifests": [manifest(each) for each in architectures]}).encode()
    folder.mkdir()
    with tarfile.open(folder / "image.tar", "w") as tar:
        for name, data in {"index.json": index, **blobs}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    described = {"reference": "an_image:latest", "digest": put(index)}
    (folder / "image.json").write_text(json.dumps(described))


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path, tmp_path / "bundles")


def test_layers_are_put_one_over_the_other(images, tmp_path):
    lower = {"etc": None, "etc/a": "a", "etc/b": "b", "old": None, "old/c": "c", "bin": "-> etc"}
    upper = {"etc/.wh.a": "", "etc/b": "B", "old/.wh..wh..opq": "", "old/d": "d", "bin/e": "e"}
    write(tmp_path / "image", [layer(lower), layer(upper)])
    root = images.get("an_image").rootfs
    files = {
        str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()
    }
    mounted_over = {"etc/hosts": "", "etc/resolv.conf": ""}
    assert files == {"etc/b": "B", "etc/e": "e", "old/d": "d", **mounted_over}
    assert (root / "bin").readlink() == Path("etc")


def test_it_is_unpacked_once_for_this_machine(images, tmp_path):
    write(tmp_path / "image", [layer({"a": "a"})], (OTHER, HERE))
    image = images.get("an_image:latest")
    assert image.config == {"Entrypoint": [HERE]}
    (image.rootfs / "a").write_text("as it was")
    again = Images(tmp_path, tmp_path / "bundles").get("an_image")
    assert (again.rootfs / "a").read_text() == "as it was"
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == [image.rootfs.parent.name]


@pytest.mark.parametrize("link", ["/", "../../..", "{outside}"])
def test_a_link_does_not_lead_out_of_it(images, tmp_path, link):
    outside = tmp_path / "outside"
    outside.mkdir()
    target = link.format(outside=outside)
    write(tmp_path / "image", [layer({"way": f"-> {target}"}), layer({"way/out": "mine"})])
    with pytest.raises(EngineError, match="way/out is not in the image"):
        images.get("an_image")
    assert not list(outside.iterdir())
    assert not list((tmp_path / "bundles").iterdir())


def test_what_is_not_there_is_said(images, tmp_path):
    with pytest.raises(EngineError, match="no archive of gone: build it"):
        images.get("gone")
    write(tmp_path / "image", [layer({})], (OTHER,))
    with pytest.raises(EngineError, match="It has an_image:latest"):
        images.get("an_image:2")
    with pytest.raises(EngineError, match=f"is for {OTHER}, not for {HERE}"):
        images.get("an_image")
