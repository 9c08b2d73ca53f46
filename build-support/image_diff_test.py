from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from handmade import Handmade, tar
from image_diff import differences
from oci_archive import Archive, read


def image(path: Path, layers: dict[str, bytes], **made: Any) -> Archive:
    return read(Handmade(layers, **made).write(path))


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
        ({"layers": {"os": OS + bytes(10240)}}, "archived differently"),
        (
            {"layers": {"os": OS}, "config": {"Env": ["A=1"]}},
            "config Env A: only in the second, '1'",
        ),
        ({"layers": {"os": OS}, "config": {"User": "root"}}, "config User: only in the second"),
        ({"layers": {"os": OS, "code": CODE}}, "layer code: only in the second"),
    ],
)
def test_what_differs_is_said(tmp_path: Path, change: dict, said: str) -> None:
    lines = list(differences(image(tmp_path / "a", {"os": OS}), image(tmp_path / "b", **change)))
    assert len(lines) == 1
    assert said in lines[0]


def test_a_platform_that_one_image_lacks(tmp_path: Path) -> None:
    both = read(Handmade({"os": OS}, "amd64", "arm64").write(tmp_path / "both"))
    lines = list(differences(image(tmp_path / "one", {"os": OS}), both))
    assert lines == ["linux/arm64: only in the second"]
