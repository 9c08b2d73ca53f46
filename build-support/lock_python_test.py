"""pyproject.toml, poetry.lock and the exports agree, and where they do not, `--check` says so."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from lock_python import main

INPUTS = ["pants.toml", "poetry.lock", "pyproject.toml", "requirements.txt"]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A copy that a test may break."""
    for name in INPUTS:
        shutil.copy(name, tmp_path)
    shutil.copytree("3rdparty/python", tmp_path / "3rdparty/python")
    return tmp_path


def complaints(root: Path) -> list[str]:
    with pytest.raises(SystemExit) as exit_:
        main(["--check", "--root", str(root)])
    return str(exit_.value.code).splitlines()


def edit(file: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, file.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1, f"{file.name} has nothing like {pattern}"
    file.write_text(text)


def test_this_repository_is_in_sync(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--check"])
    assert capsys.readouterr().out == "up to date\n"


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "complaint"),
    [
        (
            "pyproject.toml",
            r'"pandas>=.*"',
            '"pandas==2.3.1"',
            "poetry.lock does not match pyproject.toml",
        ),
        (
            "requirements.txt",
            r"^urllib3==.*?(?= )",
            "urllib3==2.0.0",
            "requirements.txt is stale",
        ),
        (
            "3rdparty/python/py311.txt",
            r"sha256:\w{4}",
            "sha256:0000",
            "3rdparty/python/py311.txt is stale",
        ),
        (
            "3rdparty/python/tools/uv.txt",
            "^uv==.*",
            "uv==0.1.0",
            "3rdparty/python/tools/uv.txt is stale",
        ),
        ("3rdparty/python/pants.in", "==.*", "==2.16.0", "3rdparty/python/pants.txt is stale"),
        (
            "3rdparty/python/pants.txt",
            r"^toml==(.*) \\\n( +--hash.*\n)+",
            r"toml==\1\n",
            "3rdparty/python/pants.txt is stale",
        ),
        (
            "3rdparty/python/numerai-tools.in",
            "==.*",
            "==0.4.3",
            "3rdparty/python/numerai-tools.txt is stale",
        ),
    ],
)
def test_an_edit_is_reported(
    repo: Path, file: str, pattern: str, replacement: str, complaint: str
) -> None:
    edit(repo / file, pattern, replacement)
    assert complaints(repo) == [f"{complaint}: run 'make lock'"]


def test_a_hash_changed_in_the_lock_is_reported_for_each_export_that_has_it(repo: Path) -> None:
    edit(repo / "poetry.lock", r'(?s)(name = "pyarrow".*?sha256:)\w{4}', r"\g<1>0000")
    stale = {line.split()[0] for line in complaints(repo)}
    assert {
        "requirements.txt",
        "3rdparty/python/py310.txt",
        "3rdparty/python/py313-predictor.txt",
    } <= stale
    assert "3rdparty/python/py311-models.txt" not in stale


@pytest.mark.parametrize(
    "file",
    [
        "poetry.lock",
        "requirements.txt",
        "3rdparty/python/py312-models.txt",
        "3rdparty/python/numerai-tools.txt",
    ],
)
def test_a_missing_file_is_reported(repo: Path, file: str) -> None:
    (repo / file).unlink()
    assert complaints(repo) == [f"{file} is missing: run 'make lock'"]


def test_the_export_of_a_group_that_is_gone_is_reported(repo: Path) -> None:
    (repo / "3rdparty/python/tools/isort.txt").touch()
    expected = "3rdparty/python/tools/isort.txt is not needed any more: run 'make lock'"
    assert complaints(repo) == [expected]


def test_a_new_python_version_needs_its_exports(repo: Path) -> None:
    edit(repo / "pants.toml", "^py310 = .*", r'\g<0>\npy314 = "3rdparty/python/py314.txt"')
    assert {line.split()[0] for line in complaints(repo)} == {
        "3rdparty/python/py314.txt",
        "3rdparty/python/py314-models.txt",
        "3rdparty/python/py314-predictor.txt",
    }
