"""What numerai-predict's images install, ours have; where they do not, exceptions.toml says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import importable
from parity import KINDS, PLATFORMS, Exemption, Row, exemptions, main, pythons, rows, wanted

PINNED = Requirement("boosting>=2,<3")


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", pythons())
def test_every_package_is_inside_or_excepted(python: str, platform: str) -> None:
    found = rows(python, platform)
    assert len(found) > 90
    assert [row.problem() for row in found if row.problem()] == []


@pytest.mark.parametrize("exemption", exemptions(), ids=lambda each: each.package)
def test_every_exception_is_of_a_package_that_is_asked_for(exemption: Exemption) -> None:
    assert exemption.kind in KINDS and exemption.reason
    assert (exemption.kind == "superseded") == bool(exemption.by)
    asked = {python for python in pythons() if exemption.package in map(_name, wanted(python))}
    assert set(exemption.pythons) <= asked and asked
    for here in product([exemption.package], exemption.pythons or asked, exemption.platforms):
        assert [each for each in exemptions() if each.covers(*here)] == [exemption]


def _name(requirement: Requirement) -> str:
    return requirement.name


def exempt(kind: str, by: str = "") -> Exemption:
    return Exemption("boosting", kind, "it is so", by)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (Row(PINNED, None, "boosting", "2.5"), ""),
        (Row(PINNED, None, "boosting", "3.0"), "boosting 3.0, numerai-predict has boosting<3,>=2"),
        (Row(PINNED, None, "boosting"), "there is no boosting, numerai-predict has boosting<3,>=2"),
        (Row(PINNED, exempt("security"), "boosting", "3.0"), ""),
        (Row(PINNED, exempt("no wheel"), "boosting"), ""),
        (
            Row(PINNED, exempt("security"), "boosting", "2.5"),
            "boosting 2.5 is inside boosting<3,>=2: the exception is not needed",
        ),
        (Row(PINNED, exempt("superseded", "boosting-cpu"), "boosting-cpu", "2.5"), ""),
        (
            Row(PINNED, exempt("superseded", "boosting-cpu"), "boosting-cpu", "3.0"),
            "boosting-cpu 3.0, numerai-predict has boosting<3,>=2",
        ),
        (Row(PINNED, None, "boosting", "2.5", imports=True), ""),
        (
            Row(PINNED, None, "boosting", "2.5", imports=False, error="no library"),
            "boosting 2.5: no library",
        ),
        (Row(PINNED, exempt("not importable"), "boosting", "2.5", imports=False, error="x"), ""),
        (
            Row(PINNED, exempt("not importable"), "boosting", "2.5", error="another was tried"),
            "boosting 2.5: another was tried",
        ),
        (
            Row(PINNED, exempt("not importable"), "boosting", "2.5", imports=True),
            "boosting 2.5 imports: the exception is not needed",
        ),
    ],
)
def test_what_is_wrong_with_a_package(row: Row, problem: str) -> None:
    assert row.problem() == problem


def parity(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """What it exits with."""
    monkeypatch.setattr(sys, "argv", ["parity", "--platform=amd64", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return exit_.value.code


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    newest = pythons()[-1]
    assert parity(monkeypatch, newest) == 0
    head, *lines, last = filter(None, capsys.readouterr().out.splitlines())
    assert head.split() == ["package", "numerai-predict", "here", "image", "imports", "note"]
    cells = {line.split()[0]: line for line in lines}
    assert len(cells) == len(wanted(newest))
    assert "not tried  superseded: " in cells["tensorflow"]
    assert "not on arm64: no wheel: " in cells["treelite-runtime"]
    assert f"of {len(cells)} inside, " in last and last.endswith("not tried whether they import")


def test_what_an_image_does_not_import_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = pythons()[0]
    have = [row for row in rows(python, "amd64") if row.version]
    broken = {row.name for row in have if row.kind == "not importable"}
    errors = {row.name: "no" if row.name in broken else "" for row in have}
    found = {row.name: {"version": row.version, "error": errors[row.name]} for row in have}
    file = tmp_path / f"{python}.json"
    file.write_text(json.dumps(found))
    assert parity(monkeypatch, python, "--imports", tmp_path) == 0
    assert f"{len(have) - len(broken)} of {len(have)} import" in capsys.readouterr().out

    found["numpy"]["error"] = "ImportError: no library"
    found["six"]["version"] = "0.1"
    file.write_text(json.dumps(found))
    assert str(parity(monkeypatch, python, "--imports", tmp_path)).splitlines() == [
        f"Python {python}: numpy {version(have, 'numpy')}: ImportError: no library",
        f"Python {python}: six {version(have, 'six')}: an image that has 0.1 was tried",
    ]


def version(found: list[Row], package: str) -> str:
    return next(row.version for row in found if row.name == package)


def test_imports_are_tried_each_on_its_own(tmp_path: Path) -> None:
    files = {
        "good": {"good/__init__.py": "", "good/part.py": "raise ValueError"},
        "namespace-part": {"space/part/__init__.py": "", "space/other.py": ""},
        "broken": {"broken.py": "import nothing_like_that", "_private.py": "raise ValueError"},
        "dies": {"dies.py": "import os; os.abort()"},
    }
    for name, contents in files.items():
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in contents))
        for file, content in contents.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(content)
    program = "import importable, sys; importable.main(sys.argv[1])"
    folders = [str(tmp_path), str(Path(importable.__file__).parent)]
    output = tmp_path / "found.json"
    subprocess.run(
        [sys.executable, "-c", program, output],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        check=True,
    )
    found = json.loads(output.read_text())
    assert found["good"] == found["namespace-part"] == {"version": "1.0", "error": ""}
    assert found["broken"]["error"] == "ModuleNotFoundError: No module named 'nothing_like_that'"
    assert found["dies"]["error"]
