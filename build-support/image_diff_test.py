from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from image_diff import differences


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def image(folder: Path, layers: dict[str, bytes], level: int = 9, config: str = "") -> Path:
    """A folder as `./pants package` leaves it, as far as the comparison reads it."""
    folder.mkdir()
    blobs = {what: gzip.compress(layer, level, mtime=0) for what, layer in layers.items()}
    described = [
        {"what": what, "digest": sha256(blobs[what]), "diff_id": sha256(layer)}
        for what, layer in layers.items()
    ]
    files = {f"blobs/{sha256(blob).replace(':', '/')}": blob for blob in blobs.values()}
    (folder / "image.tar").write_bytes(tar(files))
    digest = sha256((json.dumps(described) + config).encode())
    platforms = {"linux/amd64": {"digest": digest, "layers": described}}
    (folder / "image.json").write_text(json.dumps({"platforms": platforms}))
    return folder


OS = tar({"etc/os-release": b"bookworm"})
CODE = tar({"same.py": b"1", "changed.py": b"1", "gone.py": b"1"})


def test_equal_images_have_no_differences(tmp_path: Path) -> None:
    one, other = (image(tmp_path / name, {"os": OS, "code": CODE}) for name in "ab")
    assert list(differences(one, other)) == []


def test_each_file_is_named_with_its_layer(tmp_path: Path) -> None:
    one = image(tmp_path / "a", {"os": OS, "code": CODE})
    other_code = tar({"same.py": b"1", "changed.py": b"2", "new.py": b"1"})
    lines = list(differences(one, image(tmp_path / "b", {"os": OS, "code": other_code})))
    assert [line.split(" ")[:4] for line in lines] == [
        ["linux/amd64:", "layer", "code:", "changed.py:"],
        ["linux/amd64:", "layer", "code:", "gone.py:"],
        ["linux/amd64:", "layer", "code:", "new.py:"],
    ]
    assert "content" in lines[0]
    assert lines[1].endswith("only in the first")
    assert lines[2].endswith("only in the second")


@pytest.mark.parametrize(
    "change, said",
    [
        (
            {"layers": {"os": tar({"etc/os-release": b"bookworm"}, mode=0o755)}},
            "mode 0o644 / 0o755",
        ),
        ({"layers": {"os": OS}, "level": 1}, "compressed differently"),
        ({"layers": {"os": OS}, "config": "ENV"}, "another configuration"),
        ({"layers": {"os": OS, "code": CODE}}, "layer code: only in"),
    ],
)
def test_what_differs_is_said(tmp_path: Path, change: dict, said: str) -> None:
    layers = {"os": tar({"etc/os-release": b"bookworm"})}
    lines = list(differences(image(tmp_path / "a", layers), image(tmp_path / "b", **change)))
    assert len(lines) == 1
    assert said in lines[0]


def test_a_platform_that_only_one_has_is_named(tmp_path: Path) -> None:
    one, other = (image(tmp_path / name, {"os": OS}) for name in "ab")
    (one / "image.json").write_text(json.dumps({"platforms": {}}))
    assert list(differences(one, other)) == [f"linux/amd64: only in {other}"]
