"""Resolves each 3rdparty/debian/NAME.toml into NAME.lock, a lock of hash-pinned Debian packages.

apt does the work, in a private folder: it verifies the suite's signature and resolves dependencies
as it would on a fresh machine. The mirror is DEBIAN_MIRROR (of suites called *-security:
DEBIAN_SECURITY_MIRROR), else the one that this host's apt uses.
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
        self, root: Path, architecture: str, manifest: dict[str, Any], mirrors: dict[str, str]
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
            "".join(
                f"deb [signed-by={KEYRING}] {mirror} {channel} {' '.join(manifest['components'])}\n"
                for channel, mirror in mirrors.items()
            )
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

    def channels(self, packages: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """The channel that each package's record is from; it may be in several."""
        channels: dict[tuple[str, str], str] = {}
        for line in self._run("apt-cache", "madison", *(name for name, _ in packages)).splitlines():
            name, version, source = (column.strip() for column in line.split("|"))
            # As in "mirror bookworm/main amd64 Packages".
            channels.setdefault((name, version), source.split()[1].rpartition("/")[0])
        return channels

    def _run(self, *argv: str) -> str:
        result = subprocess.run(argv, env=self._env, capture_output=True, text=True)
        if result.returncode:
            raise SystemExit(f"{' '.join(argv)} failed:\n{result.stderr or result.stdout}")
        return result.stdout


def host_mirror(suite: str) -> str:
    """The mirror for `suite`: what the environment says, else from this host's apt configuration.

    A suite that apt is not configured for is taken from where it takes the archive's other suites.
    """
    security = suite.endswith("-security")
    variable = "DEBIAN_SECURITY_MIRROR" if security else "DEBIAN_MIRROR"
    if mirrors := os.environ.get(variable, "").split():
        return mirrors[0]
    argv = (
        "apt-get",
        "indextargets",
        "--format",
        "$(CODENAME)|$(ORIGIN)|$(LABEL)|$(REPO_URI)",
        "Created-By: Packages",
    )
    output = subprocess.run(argv, capture_output=True, text=True).stdout
    targets = [line.split("|", 3) for line in output.splitlines()]
    archive = ["Debian", "Debian-Security" if security else "Debian"]
    own = [target[3] for target in targets if target[0] == suite]
    others = [target[3] for target in targets if target[1:3] == archive]
    for mirror in own + others:
        return mirror
    raise SystemExit(f"This host's apt knows no mirror of {suite}: set {variable} to one.")


def resolved(apt: Apt, manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    known: set[tuple[str, str]] = set()
    for set_name, names in manifest["sets"].items():
        packages = apt.closure(names) - known
        known |= packages
        channels = apt.channels(packages)
        for record in apt.records(packages):
            channel = channels[record["Package"], record["Version"]]
            yield {
                "name": record["Package"],
                "version": record["Version"],
                "architecture": record["Architecture"],
                "path": record["Filename"],
                "sha256": record["SHA256"],
                "size": int(record["Size"]),
                "set": set_name,
                **({} if channel == manifest["suite"] else {"channel": channel}),
            }


def lock(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the manifest asks for, of all of its `channels`; by default that is its `suite` alone."""
    suite = manifest["suite"]
    mirrors = {channel: host_mirror(channel) for channel in manifest.get("channels", [suite])}
    packages: dict[tuple[str, str, str], dict[str, Any]] = {}
    for architecture in manifest["architectures"]:
        print(f"resolving {' and '.join(mirrors)} for {architecture}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            apt = Apt(Path(folder), architecture, manifest, mirrors)
            for package in resolved(apt, manifest):
                # Packages of architecture "all" are the same file for every machine.
                packages[package["name"], package["architecture"], package["set"]] = package
    return {"suite": suite, "packages": [packages[key] for key in sorted(packages)]}


def main() -> None:
    known = sorted(path.stem for path in FOLDER.glob("*.toml"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"locks to write: {', '.join(known)}; default: all"
    )
    names = parser.parse_args().names or known
    if unknown := sorted({*names} - {*known}):
        parser.error(f"{FOLDER} has no {', '.join(unknown)}, only {', '.join(known)}")
    if not KEYRING.exists():
        raise SystemExit(
            f"{KEYRING} is missing: install debian-archive-keyring (or run this on Debian)."
        )
    for name in names:
        locked = lock(tomllib.loads((FOLDER / f"{name}.toml").read_text()))
        path = FOLDER / f"{name}.lock"
        path.write_text(json.dumps(locked, indent=1) + "\n")
        print(f"wrote {path}: {len(locked['packages'])} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
