"""The mirror is found, and the lock says what packages.toml asks for."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import tomllib

from lock_debian import FOLDER, host_mirror

MANIFEST = tomllib.loads((FOLDER / "packages.toml").read_text())
SUITE = MANIFEST["suite"]
TEXT = (FOLDER / f"{SUITE}.lock").read_text()
PACKAGES: list[dict[str, Any]] = json.loads(TEXT)["packages"]


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `apt-get` that knows mirrors of two suites, and a repository without a codename."""
    monkeypatch.delenv("DEBIAN_MIRROR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    program = tmp_path / "apt-get"
    program.write_text(
        "#!/bin/sh\n[ $1 = indextargets ] || exit 1\n"
        "echo ' mirror://flat/'\necho bookworm-updates mirror://updates/\n"
        "echo bookworm mirror://first/\necho bookworm mirror://second/\n"
    )
    program.chmod(0o755)
    return program


def test_the_mirror_is_what_the_user_says(apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAN_MIRROR", "mirror://mine/ mirror://spare/")
    assert host_mirror("bookworm") == "mirror://mine/"


@pytest.mark.parametrize("variable", [None, ""])
def test_else_it_is_what_apt_uses(
    apt: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    if variable is not None:
        monkeypatch.setenv("DEBIAN_MIRROR", variable)
    assert host_mirror("bookworm") == "mirror://first/"


def test_else_the_user_is_asked(apt: Path) -> None:
    with pytest.raises(SystemExit, match="no mirror of trixie: set DEBIAN_MIRROR to one"):
        host_mirror("trixie")


def test_an_apt_that_fails_knows_no_mirror(apt: Path) -> None:
    apt.write_text("#!/bin/sh\nexit 100\n")
    with pytest.raises(SystemExit, match="no mirror of bookworm: set DEBIAN_MIRROR to one"):
        host_mirror("bookworm")


def test_the_lock_is_sorted() -> None:
    order = [(package["name"], package["architecture"], package["set"]) for package in PACKAGES]
    assert order == sorted({*order})


def test_the_lock_names_no_host() -> None:
    assert "://" not in TEXT
    assert all(package["path"].startswith("pool/") for package in PACKAGES)


@pytest.mark.parametrize(
    "package", PACKAGES, ids=lambda package: f"{package['name']}-{package['architecture']}"
)
def test_a_package_is_pinned(package: dict[str, Any]) -> None:
    keys = ["name", "version", "architecture", "path", "sha256", "size", "set"]
    assert [*package] == keys
    assert re.fullmatch("[0-9a-f]{64}", package["sha256"])
    assert package["size"] > 0
    # An epoch is not part of a file's name.
    version = package["version"].partition(":")[2] or package["version"]
    assert package["path"].endswith(f"/{package['name']}_{version}_{package['architecture']}.deb")


@pytest.mark.parametrize("architecture", MANIFEST["architectures"])
@pytest.mark.parametrize("set_name", MANIFEST["sets"])
def test_the_lock_has_what_packages_toml_asks_for(set_name: str, architecture: str) -> None:
    locked = {
        package["name"]
        for package in PACKAGES
        if package["set"] == set_name and package["architecture"] in (architecture, "all")
    }
    asked = set(MANIFEST["sets"][set_name])
    assert asked <= locked, f"{FOLDER}/{SUITE}.lock is stale: run `make lock`"


def test_the_lock_has_nothing_that_packages_toml_does_without() -> None:
    unwanted = {
        package["name"]
        for package in PACKAGES
        if package["name"] in MANIFEST["without"] or package["set"] not in MANIFEST["sets"]
    }
    assert not unwanted, f"{FOLDER}/{SUITE}.lock is stale: run `make lock`"
