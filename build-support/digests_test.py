from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import digests
import pytest

HOST = {"oci.interpreter": "CPython 3.12.1 of the build machine; not reproducible"}
CPU = {"oci.cpu_index": "torch==2.13.0+cpu"}


def image(name: str, labels: dict[str, str] | None = None, **platforms: str) -> dict[str, Any]:
    return {
        "reference": f"{name}:latest",
        "platforms": {
            f"linux/{architecture}": {"digest": digest, "labels": labels or {}}
            for architecture, digest in platforms.items()
        },
    }


def refreshed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Any, *images: dict[str, Any]
) -> Any:
    file = tmp_path / "digests.json"
    if expected is not None:
        file.write_text(json.dumps(expected))
    described = []
    for number, found in enumerate(images):
        described.append(str(tmp_path / f"{number}.json"))
        Path(described[-1]).write_text(json.dumps(found))
    monkeypatch.setattr("sys.argv", ["digests", f"--digests={file}", *described])
    digests.main()
    return json.loads(file.read_text())


def test_every_platform_is_noted(tmp_path, monkeypatch, capsys):
    found = refreshed(tmp_path, monkeypatch, None, image("a", amd64="1", arm64="2"))
    assert found == {"a": {"linux/amd64": "1", "linux/arm64": "2"}}
    assert "a: new" in capsys.readouterr().out


def test_a_platform_that_was_not_built_stays(tmp_path, monkeypatch, capsys):
    before = {"a": {"linux/amd64": "1", "linux/arm64": "2"}}
    found = refreshed(tmp_path, monkeypatch, before, image("a", amd64="3"))
    assert found == {"a": {"linux/amd64": "3", "linux/arm64": "2"}}
    assert "a: changed" in capsys.readouterr().out


@pytest.mark.parametrize("before", [{}, {"a": {"linux/amd64": "1"}}])
@pytest.mark.parametrize(
    "labels, made_with",
    [(HOST, "CPython 3.12.1 of"), (CPU, "torch==2.13.0+cpu\n")],
    ids=["this-machines-interpreter", "cpu-index"],
)
def test_nothing_is_expected_of_an_image_that_is_not_made_of_pins_alone(
    tmp_path, monkeypatch, capsys, before, labels, made_with
):
    assert refreshed(tmp_path, monkeypatch, before, image("a", labels, amd64="9")) == before
    assert f"a linux/amd64: left as it is; made with {made_with}" in capsys.readouterr().out


def test_an_image_that_is_gone_is_forgotten(tmp_path, monkeypatch):
    before = {"a": {"linux/amd64": "1"}, "gone": {"linux/amd64": "2"}}
    found = refreshed(tmp_path, monkeypatch, before, image("a", amd64="1"))
    assert found == {"a": {"linux/amd64": "1"}}
