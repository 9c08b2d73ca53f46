"""Resolves 3rdparty/debian/packages.toml into a lock of hash-pinned Debian packages.

apt does the work, in a private folder: it verifies the suite's signature and resolves dependencies
as it would on a fresh machine. The mirror is DEBIAN_MIRROR, else the one that this host's apt uses.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterator

import tomllib
from debian.deb822 import Packages

FOLDER = Path("3rdparty/debian")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Apt:
    """An apt of its own for one architecture: nothing is installed in it but what `without` names."""

    def __init__(
        self, root: Path, architecture: str, manifest: dict[str, Any], mirror: str
    ) -> None:
        for folder in ("lists/partial", "cache/archives/partial", "etc"):
            (root / folder).mkdir(parents=True)
        (root / "status").write_text(
            "".join(
                f"Package: {name}\nStatus: install ok installed\nVersion: 9999\n"
                f"Architecture: {architecture}\nMulti-Arch: foreign\n\n"
                for name in manifest["without"]
            )
        )
        (root / "sources.list").write_text(
            f"deb [signed-by={KEYRING}] {mirror} {manifest['suite']} {' '.join(manifest['components'])}\n"
        )
        (root / "apt.conf").write_text(
            f'Dir::Etc "{root}/etc";\n'
            f'Dir::Etc::SourceList "{root}/sources.list";\n'
            f'Dir::Etc::SourceParts "-";\n'
            f'Dir::State::Lists "{root}/lists";\n'
            f'Dir::State::status "{root}/status";\n'
            f'Dir::Cache "{root}/cache";\n'
            f'APT::Architecture "{architecture}";\n'
            f'APT::Architectures {{ "{architecture}"; }};\n'
            f'APT::Sandbox::User "";\n'
            f'APT::Install-Recommends "false";\n'
            f'Acquire::Languages "none";\n'
            f'Acquire::Check-Valid-Until "true";\n'
        )
        self._env = {**os.environ, "APT_CONFIG": str(root / "apt.conf"), "LC_ALL": "C.UTF-8"}
        self._run("apt-get", "--quiet", "--quiet", "update", "--error-on=any")

    def closure(self, names: list[str]) -> set[tuple[str, str]]:
        """Names and versions of what installing `names` on an empty machine would unpack."""
        simulation = self._run("apt-get", "--simulate", "install", *names)
        words = (line.split() for line in simulation.splitlines() if line.startswith("Inst "))
        return {(word[1], word[2].lstrip("(")) for word in words}

    def records(self, packages: set[tuple[str, str]]) -> Iterator[Packages]:
        text = self._run("apt-cache", "show", *(f"{name}={version}" for name, version in packages))
        return Packages.iter_paragraphs(text, use_apt_pkg=False)

    def _run(self, *argv: str) -> str:
        result = subprocess.run(argv, env=self._env, capture_output=True, text=True)
        if result.returncode:
            raise SystemExit(f"{' '.join(argv)} failed:\n{result.stderr or result.stdout}")
        return result.stdout


def host_mirror(suite: str) -> str:
    """The mirror for `suite`: DEBIAN_MIRROR (its first word), else from this host's apt configuration."""
    if os.environ.get("DEBIAN_MIRROR"):
        return os.environ["DEBIAN_MIRROR"].split()[0]
    argv = (
        "apt-get",
        "indextargets",
        "--format",
        "$(CODENAME) $(REPO_URI)",
        "Created-By: Packages",
    )
    targets = subprocess.run(argv, capture_output=True, text=True).stdout
    # A repository need not have a codename.
    for codename, _, uri in (line.partition(" ") for line in targets.splitlines()):
        if codename == suite:
            return uri
    raise SystemExit(f"This host's apt knows no mirror of {suite}: set DEBIAN_MIRROR to one.")


def locked(apt: Apt, sets: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    known: set[tuple[str, str]] = set()
    for set_name, names in sets.items():
        packages = apt.closure(names) - known
        known |= packages
        for record in apt.records(packages):
            yield {
                "name": record["Package"],
                "version": record["Version"],
                "architecture": record["Architecture"],
                "path": record["Filename"],
                "sha256": record["SHA256"],
                "size": int(record["Size"]),
                "set": set_name,
            }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.parse_args()
    if not KEYRING.exists():
        raise SystemExit(
            f"{KEYRING} is missing: install debian-archive-keyring (or run this on Debian)."
        )
    manifest = tomllib.loads((FOLDER / "packages.toml").read_text())
    suite = manifest["suite"]
    mirror = host_mirror(suite)
    packages: dict[tuple[str, str, str], dict[str, Any]] = {}
    for architecture in manifest["architectures"]:
        print(f"resolving {suite} for {architecture}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            apt = Apt(Path(folder), architecture, manifest, mirror)
            for package in locked(apt, manifest["sets"]):
                # Packages of architecture "all" are the same file for every machine.
                packages[package["name"], package["architecture"], package["set"]] = package
    lock = {"suite": suite, "packages": [packages[key] for key in sorted(packages)]}
    path = FOLDER / f"{suite}.lock"
    path.write_text(json.dumps(lock, indent=1) + "\n")
    print(f"wrote {path}: {len(packages)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
