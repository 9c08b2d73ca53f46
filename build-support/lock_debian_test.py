"""The mirror is found, channels are told apart, and each lock says what its manifest asks for."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
import tomllib

import lock_debian
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


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes archives that apt can read, of these packages and versions; gives their address."""
    if not shutil.which("gpg"):
        pytest.skip("no gpg here, to sign an archive with; Debian has it in the package gpg")
    gpg = ("gpg", "--batch", "--quiet", f"--homedir={tmp_path}/gpg", "--passphrase=")
    (tmp_path / "gpg").mkdir(mode=0o700)
    subprocess.run([*gpg, "--quick-generate-key", "archive"], check=True)
    keyring = tmp_path / "keyring.gpg"
    subprocess.run([*gpg, f"--output={keyring}", "--export"], check=True)
    monkeypatch.setattr(lock_debian, "KEYRING", keyring)

    def make(suite: str, pool: str, **versions: str) -> str:
        packages = "".join(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody\n"
            f"Description: {name}\nFilename: {pool}/{name}_{version}_amd64.deb\n"
            f"SHA256: {hashlib.sha256(f'{name}{version}'.encode()).hexdigest()}\nSize: 1\n\n"
            for name, version in versions.items()
        )
        folder = tmp_path / pool
        index = folder / f"dists/{suite}/main/binary-amd64/Packages"
        index.parent.mkdir(parents=True)
        index.write_text(packages)
        digest = hashlib.sha256(packages.encode()).hexdigest()
        release = folder / f"dists/{suite}/Release"
        release.write_text(
            f"Codename: {suite}\nDate: Sat, 01 Jan 2022 00:00:00 UTC\n"
            f"Components: main\nArchitectures: amd64\n"
            f"SHA256:\n {digest} {len(packages)} main/binary-amd64/Packages\n"
        )
        signed = release.with_name("InRelease")
        subprocess.run([*gpg, f"--output={signed}", "--clearsign", release], check=True)
        return f"file:{folder}"

    return make


def test_a_channel_brings_newer_packages(
    archive: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = archive("tiny", "pool", old="1", both="1", fixed="1")
    security = archive("tiny-security", "pool-updates", both="1", fixed="2")
    monkeypatch.setenv("DEBIAN_MIRROR", main)
    monkeypatch.setenv("DEBIAN_SECURITY_MIRROR", security)
    manifest = {
        "suite": "tiny",
        "components": ["main"],
        "architectures": ["amd64"],
        "sets": {"all": ["old", "both", "fixed"]},
        "without": {},
    }

    def found(**more: Any) -> dict[str, tuple[str, str | None]]:
        packages = lock({**manifest, **more})["packages"]
        for package in packages:
            pool = "pool-updates" if "channel" in package else "pool"
            assert package["path"].startswith(f"{pool}/"), "the path is of another channel"
        return {
            package["name"]: (package["version"], package.get("channel")) for package in packages
        }

    suite = {"both": ("1", None), "fixed": ("1", None), "old": ("1", None)}
    assert found() == suite
    with_security = {**suite, "fixed": ("2", "tiny-security")}
    assert found(channels=["tiny", "tiny-security"]) == with_security


def test_an_archive_that_was_changed(
    archive: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEBIAN_MIRROR", archive("tiny", "pool", old="1"))
    release = tmp_path / "pool/dists/tiny/InRelease"
    release.write_text(release.read_text().replace("Codename: tiny", "Codename: tinier"))
    manifest = {"suite": "tiny", "components": ["main"], "architectures": ["amd64"]}
    with pytest.raises(SystemExit, match="BADSIG|invalid"):
        lock({**manifest, "sets": {"all": ["old"]}, "without": {}})


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
