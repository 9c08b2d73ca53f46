from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sizes


def layer(what: str, size: float, unpacked: float, *packages: str) -> dict[str, Any]:
    described = {"what": what, "digest": what, "size": size * 1e6, "unpacked": unpacked * 1e6}
    return {**described, "packages": [*packages]} if packages else described


OS = layer("os", 10, 30.04)
NUMPY = layer("py311-numpy", 5.25, 1000, "numpy==2.1.3", "scipy==1.16.0")
TORCH = layer("py311-torch", 100, 300, *(f"package{number}==1" for number in range(30)))


def shown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    **images: dict[str, list[dict[str, Any]]],
) -> list[str]:
    """The lines that are printed of images, given by the layers of their platforms."""
    files = []
    for name, platforms in images.items():
        described = {each: {"layers": layers} for each, layers in platforms.items()}
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps({"reference": f"{name}:latest", "platforms": described}))
    monkeypatch.setattr("sys.argv", ["sizes", *map(str, files)])
    sizes.main()
    return capsys.readouterr().out.splitlines()


def test_every_layer_of_every_platform_has_a_line(tmp_path, monkeypatch, capsys):
    platforms = {"linux/amd64": [OS, NUMPY], "linux/arm64": [OS]}
    assert shown(tmp_path, monkeypatch, capsys, tiny=platforms) == [
        "tiny:latest linux/amd64, MB",
        "  layer        compressed  unpacked  packages",
        "  os                 10.0      30.0",
        "  py311-numpy         5.2    1000.0  2: numpy, scipy",
        "  sum                15.2    1030.0",
        "",
        "tiny:latest linux/arm64, MB",
        "  layer  compressed  unpacked  packages",
        "  os           10.0      30.0",
        "  sum          10.0      30.0",
        "",
    ]


def test_of_many_packages_those_are_named_that_fit(tmp_path, monkeypatch, capsys):
    line = shown(tmp_path, monkeypatch, capsys, tiny={"linux/amd64": [TORCH]})[2]
    named = line[line.index("30: ") :]
    assert named.startswith("30: package0, package1, ") and named.endswith("package5 …")
    assert len(named) <= sizes.WIDTH


def test_flavours_share_layers(tmp_path, monkeypatch, capsys):
    rebuilt = {**OS, "digest": "another"}
    lines = shown(
        tmp_path,
        monkeypatch,
        capsys,
        tiny_full={"linux/amd64": [OS, NUMPY, TORCH], "linux/arm64": [rebuilt, TORCH]},
        tiny={"linux/amd64": [OS, NUMPY], "linux/arm64": [OS], "linux/riscv64": [OS]},
        tinyother={"linux/amd64": [OS]},
    )
    assert lines[-2:] == [
        "tiny_full linux/amd64: 2 of 3 layers, 15.2 of 115.2 MB compressed, are those of tiny",
        "tiny_full linux/arm64: 0 of 2 layers, 0.0 of 110.0 MB compressed, are those of tiny",
    ]
    assert not lines[-3]


def test_without_images_make_says_how_to_get_some(tmp_path):
    for file in ("Makefile", "pyproject.toml"):
        shutil.copy(file, tmp_path)
    done = subprocess.run(["make", "sizes"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "No image was built yet: ./pants package images:py311" in done.stderr
