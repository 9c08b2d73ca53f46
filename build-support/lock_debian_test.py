"""The mirror is found, channels are told apart, and each lock says what its manifest asks for."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import tomllib

from lock_debian import FOLDER, host_mirror, lock

MANIFESTS = {path.stem: tomllib.loads(path.read_text()) for path in sorted(FOLDER.glob("*.toml"))}
LOCKS: dict[str, dict[str, Any]] = {
    name: json.loads((FOLDER / f"{name}.lock").read_text()) for name in MANIFESTS
}
PACKAGES = [(name, package) for name, lock in LOCKS.items() for package in lock["packages"]]


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `apt-get` that knows mirrors of three suites, and a repository without a codename."""
    for variable in ("DEBIAN_MIRROR", "DEBIAN_SECURITY_MIRROR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    program = tmp_path / "apt-get"
    program.write_text(
        "#!/bin/sh\n[ $1 = indextargets ] || exit 1\ncat << END\n"
        "|||mirror://flat/\n"
        "bookworm|Somebody|Their Debian|mirror://somebody/\n"
        "bookworm-security|Debian|Debian-Security|mirror://security/\n"
        "bookworm-updates|Debian|Debian|mirror://updates/\n"
        "bookworm|Debian|Debian|mirror://second/\nEND\n"
    )
    program.chmod(0o755)
    return program


def test_the_mirror_is_what_the_user_says(apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAN_MIRROR", "mirror://mine/ mirror://spare/")
    assert host_mirror("bookworm") == "mirror://mine/"
    assert host_mirror("bookworm-security") == "mirror://security/"
    monkeypatch.setenv("DEBIAN_SECURITY_MIRROR", "mirror://safe/")
    assert host_mirror("bookworm-security") == "mirror://safe/"


@pytest.mark.parametrize("variable", [None, ""])
def test_else_it_is_what_apt_uses(
    apt: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    if variable is not None:
        monkeypatch.setenv("DEBIAN_MIRROR", variable)
    assert host_mirror("bookworm") == "mirror://somebody/"


def test_else_it_is_what_apt_uses_for_other_suites(apt: Path) -> None:
    assert host_mirror("trixie") == "mirror://updates/"
    assert host_mirror("trixie-security") == "mirror://security/"


@pytest.mark.parametrize(
    "suite, variable",
    [("trixie", "DEBIAN_MIRROR"), ("trixie-security", "DEBIAN_SECURITY_MIRROR")],
)
def test_else_the_user_is_asked(apt: Path, suite: str, variable: str) -> None:
    apt.write_text("#!/bin/sh\necho 'noble|Ubuntu|Ubuntu|mirror://ubuntu/'\n")
    with pytest.raises(SystemExit, match=f"no mirror of {suite}: set {variable} to one"):
        host_mirror(suite)


def test_an_apt_that_fails_knows_no_mirror(apt: Path) -> None:
    apt.write_text("#!/bin/sh\nexit 100\n")
    with pytest.raises(SystemExit, match="no mirror of bookworm: set DEBIAN_MIRROR to one"):
        host_mirror("bookworm")


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_lock_is_sorted(name: str) -> None:
    packages = LOCKS[name]["packages"]
    order = [(package["name"], package["architecture"], package["set"]) for package in packages]
    assert order == sorted({*order})


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_lock_names_no_host(name: str) -> None:
    assert "://" not in (FOLDER / f"{name}.lock").read_text()


@pytest.mark.parametrize(
    "name, package",
    PACKAGES,
    ids=[f"{name}-{package['name']}-{package['architecture']}" for name, package in PACKAGES],
)
def test_a_package_is_pinned(name: str, package: dict[str, Any]) -> None:
    keys = ["name", "version", "architecture", "path", "sha256", "size", "set"]
    suite = MANIFESTS[name]["suite"]
    assert package.get("channel", suite) in MANIFESTS[name].get("channels", [suite])
    assert [key for key in package if key != "channel"] == keys
    assert re.fullmatch("[0-9a-f]{64}", package["sha256"])
    assert package["size"] > 0
    assert package["path"].startswith("pool/")
    # An epoch is not part of a file's name.
    version = package["version"].partition(":")[2] or package["version"]
    assert package["path"].endswith(f"/{package['name']}_{version}_{package['architecture']}.deb")


@pytest.mark.parametrize(
    "name, set_name, architecture",
    [
        (name, set_name, architecture)
        for name, manifest in MANIFESTS.items()
        for set_name in manifest["sets"]
        for architecture in manifest["architectures"]
    ],
)
def test_the_lock_has_what_the_manifest_asks_for(
    name: str, set_name: str, architecture: str
) -> None:
    locked = {
        package["name"]
        for package in LOCKS[name]["packages"]
        if package["set"] == set_name and package["architecture"] in (architecture, "all")
    }
    asked = set(MANIFESTS[name]["sets"][set_name])
    assert LOCKS[name]["suite"] == MANIFESTS[name]["suite"]
    assert asked <= locked, f"{FOLDER}/{name}.lock is stale: run `make lock`"


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_lock_has_nothing_that_the_manifest_does_without(name: str) -> None:
    unwanted = {
        package["name"]
        for package in LOCKS[name]["packages"]
        if package["name"] in MANIFESTS[name]["without"]
        or package["set"] not in MANIFESTS[name]["sets"]
    }
    assert not unwanted, f"{FOLDER}/{name}.lock is stale: run `make lock`"
