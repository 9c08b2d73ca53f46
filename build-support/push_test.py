"""`make push_*`, with a Pants that only notes how it was called."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
PANTS = """#!/bin/sh
{ echo "$@"; env | grep ^PANTS_ | sort; } > dist/called
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("REGISTRY", "PANTS_OCI_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    for file in ("Makefile", "pyproject.toml", "pants.toml", "build-support/push"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / file)
    (tmp_path / "pants").write_text(PANTS)
    (tmp_path / "pants").chmod(0o755)
    (tmp_path / ".gitignore").write_text("/dist/\n")
    (tmp_path / "dist").mkdir()
    run(tmp_path, *GIT, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def run(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True)


def commit(folder: Path) -> str:
    """All that is there; the commit's id."""
    run(folder, *GIT, "add", ".").check_returncode()
    run(folder, *GIT, "commit", "--quiet", "--message=all").check_returncode()
    return run(folder, *GIT, "rev-parse", "HEAD").stdout.strip()


def called(folder: Path) -> list[str]:
    file = folder / "dist/called"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize(
    ("target", "tag", "images"),
    [
        ("push_latest", "latest", "images:"),
        ("push_stable", "stable", "images:"),
        ("push_latest_3_11", "latest", "images:py311 images:py311-full"),
        ("push_stable_3_11", "stable", "images:py311 images:py311-full"),
    ],
)
def test_the_commit_is_published(repository: Path, target: str, tag: str, images: str) -> None:
    (repository / "more").write_text("")
    head = commit(repository)
    done = run(repository, "make", target, "REGISTRY=registry.example/numerai")
    assert done.returncode == 0, done.stderr
    command, *options = called(repository)
    assert command == f"publish {images}"
    assert {
        f"PANTS_OCI_GIT_REF={head}",
        f'PANTS_OCI_PUBLISH_TAGS=["{tag}"]',
        "PANTS_OCI_REGISTRY=registry.example/numerai",
    } <= set(options)


@pytest.mark.parametrize("changed", ["pants.toml", "new.py"])
def test_nothing_is_pushed_that_no_commit_has(repository: Path, changed: str) -> None:
    with (repository / changed).open("a") as file:
        file.write("# changed\n")
    done = run(repository, "make", "push_latest_3_11", "REGISTRY=registry.example/numerai")
    assert done.returncode and not called(repository)
    assert "Commit or remove them first" in done.stderr
    assert changed in done.stderr


def test_without_a_registry_it_says_how_to_name_one(repository: Path) -> None:
    done = run(repository, "make", "push_latest_3_11")
    assert done.returncode and not called(repository)
    assert "REGISTRY=registry.example/numerai" in done.stderr


def test_the_registry_may_be_in_the_environment(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANTS_OCI_REGISTRY", "registry.example/mine")
    assert run(repository, "make", "push_latest_3_11").returncode == 0
    assert "PANTS_OCI_REGISTRY=registry.example/mine" in called(repository)


def test_the_registry_may_be_in_pants_toml(repository: Path) -> None:
    file = repository / "pants.toml"
    others = file.read_text() + '\n[other]\nregistry = "registry.example/other"\n'
    file.write_text(others)
    commit(repository)
    assert run(repository, "make", "push_latest_3_11").returncode
    named = '[oci]\nregistry = "registry.example/numerai"\n'
    file.write_text(others.replace("[oci]\n", named, 1) if "[oci]\n" in others else others + named)
    commit(repository)
    assert run(repository, "make", "push_latest_3_11").returncode == 0
    # Pants reads it itself.
    assert not any("PANTS_OCI_REGISTRY" in line for line in called(repository))
