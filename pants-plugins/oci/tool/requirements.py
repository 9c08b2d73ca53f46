"""Hash-pinned requirements files, and uv, which installs what they pin."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

from .compatibility import canonical


class UvFailed(Exception):
    """The message is what uv said, which it has said on stderr as well."""


@dataclass(frozen=True)
class Uv:
    """uv, at work for an image's Python `version` and `platform`.

    `python` is the command of an interpreter of that version, for this machine.
    """

    program: Path
    python: Sequence[str]
    version: str
    platform: str

    def pip(self, command: str, *args: Union[str, Path]) -> str:
        """What `uv pip` prints; it takes wheels alone, and follows no dependencies."""
        # fmt: off
        argv = (
            self.program.absolute(), "pip", command, "--quiet", "--no-config",
            "--no-deps", "--only-binary", ":all:", "--python", _program(self.python),
            "--python-version", self.version, "--python-platform", self.platform, *args,
        )
        # fmt: on
        result = subprocess.run(
            [os.fspath(arg) for arg in argv], capture_output=True, encoding="utf-8"
        )
        sys.stderr.write(result.stderr)
        if result.returncode:
            raise UvFailed(result.stderr)
        return result.stdout

    def install(self, pinned: Path, target: Path, *options: str) -> None:
        self.pip("install", *options, "--require-hashes", "--target", target, "-r", pinned)

    def __str__(self) -> str:
        return f"Python {self.version} on {self.platform}"


@dataclass(frozen=True)
class CpuIndex:
    """Where builds of `packages` for machines without GPUs are taken from, and from nowhere else.

    `address` is the URL of a package index, or a folder of wheels.
    """

    address: str
    packages: Sequence[str]

    @property
    def options(self) -> Sequence[str]:
        if "://" in self.address:
            return ("--default-index", self.address)
        return ("--no-index", "--find-links", self.address)


@dataclass(frozen=True)
class Pin:
    """A version, and the hashes of those of its wheels that fit; uv takes one of them."""

    version: str
    hashes: Sequence[str]

    def __str__(self) -> str:
        return " ".join((self.version, *self.hashes))


def install(
    requirements: Path, uv: Uv, target: Path, cpu_index: Optional[CpuIndex] = None
) -> Dict[str, Pin]:
    """Installs what the file pins into the folder `target`.

    Returns:
        By name what was taken from `cpu_index`: the version is the file's, but its hashes say nothing
        of these wheels.

    Raises SystemExit where a package has no fitting wheel.
    """
    locked, pins = requirements, {}
    if cpu_index:
        locked, theirs = _split(requirements, cpu_index.packages)
        pins = _install_from(cpu_index, theirs, uv, target, requirements)
    try:
        uv.install(locked, target)
    except UvFailed as failure:
        raise SystemExit(_explained(str(failure), requirements, uv)) from None
    return pins


def required(requirements: Path) -> List[str]:
    """The names of all that the file requires, on whichever machine."""
    return sorted({name for name, _ in _lines(requirements)})


def not_installed(requirements: Path, installed: Iterable[str]) -> List[str]:
    """What the file's markers give to other machines only; `installed` names what is there."""
    there = {canonical(name) for name in installed}
    for_some = {name for name, line in _lines(requirements) if "platform_machine" in line}
    return sorted(for_some - there)


def _split(requirements: Path, packages: Sequence[str]) -> Tuple[Path, List[str]]:
    """The file without these packages, and their own lines, without hashes."""
    names = {canonical(name) for name in packages}
    locked = Path("locked.txt")
    lines = list(_lines(requirements))
    locked.write_text("".join(f"{line}\n" for name, line in lines if name not in names))
    return locked, [line.partition(" --hash=")[0] for name, line in lines if name in names]


def _install_from(
    index: CpuIndex, lines: Sequence[str], uv: Uv, target: Path, requirements: Path
) -> Dict[str, Pin]:
    wanted, pinned = Path("wanted.txt"), Path("pinned.txt")
    wanted.write_text("".join(f"{line}\n" for line in lines))
    try:
        # Hashes are looked up first, so that what is installed is what is told of it.
        pins = _pins(uv.pip("compile", *index.options, "--format", "pylock.toml", wanted))
        pinned.write_text("".join(_pinned(name, pin) for name, pin in pins.items()))
        uv.install(pinned, target, *index.options)
    except UvFailed:
        names = " and ".join(line.partition(" ")[0] for line in lines)
        raise SystemExit(
            f"uv could not install {names} of {requirements} for {uv} from the index of builds for "
            "machines without GPUs; see above. Without `[oci].cpu_index` the locked build is taken"
        ) from None
    return pins


def _pins(pylock: str) -> Dict[str, Pin]:
    """What a `pylock.toml` (PEP 751) of one platform holds; Python itself reads TOML from 3.11 on."""
    pins = {}
    for package in pylock.split("[[packages]]")[1:]:
        name, version = re.findall(r'^(?:name|version) = "(.+)"$', package, re.MULTILINE)
        hashes = re.findall(r'\bsha256 = "(\w+)"', package)
        pins[name] = Pin(version, sorted(f"sha256:{value}" for value in hashes))
    return pins


def _pinned(name: str, pin: Pin) -> str:
    return " --hash=".join((f"{name}=={pin.version}", *pin.hashes)) + "\n"


def _explained(said: str, requirements: Path, uv: Uv) -> str:
    # uv breaks its lines anywhere between words.
    said = " ".join(said.split())
    named = {canonical(name) for name in re.findall(r"([\w.-]+)==", said)}
    packages = [name for name in required(requirements) if name in named]
    what = f"{' and '.join(packages)} of {requirements}" if packages else f"{requirements}"
    advice = ""
    if "no wheels" in said:
        advice = (
            ". Lock a version that has a wheel for it or, to do without on some machines, give the "
            "dependency a marker such as platform_machine == 'x86_64'"
        )
    return f"uv could not install {what} for {uv}; see above{advice}"


def _lines(requirements: Path) -> Iterator[Tuple[str, str]]:
    """Canonical names and, on one line, all that is said of them (PEP 508 and hashes)."""
    for line in re.sub(r"\s*\\\n\s*", " ", requirements.read_text()).splitlines():
        match = re.match(r"[A-Za-z0-9][\w.-]*", line)
        if match:
            yield canonical(match[0]), line


def _program(command: Sequence[str]) -> Path:
    """A command as one file: what uv wants an interpreter to be."""
    script = Path("python").absolute()
    folder = shlex.quote(os.getcwd())
    script.write_text(f'#!/bin/sh\ncd {folder} && exec {shlex.join(command)} "$@"\n')
    script.chmod(0o755)
    return script
