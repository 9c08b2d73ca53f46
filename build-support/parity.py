"""`make parity`: a table of what numerai-predict's images install, and what ours have of it.

Exits 1 if a package is neither inside numerai-predict's constraint nor excepted, or does not import.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomlkit
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path("3rdparty/python")
# By their names in markers.
PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}
KINDS = ("superseded", "no wheel", "security", "conflict", "not importable")


@dataclass(frozen=True)
class Exemption:
    """Why images need not keep to a constraint: see exceptions.toml."""

    package: str
    kind: str
    reason: str
    by: str = ""
    pythons: Sequence[str] = ()
    platforms: Sequence[str] = tuple(PLATFORMS)

    def covers(self, package: str, python: str, platform: str) -> bool:
        here = not self.pythons or python in self.pythons
        return package == self.package and here and platform in self.platforms


@dataclass(frozen=True)
class Row:
    """A package that numerai-predict has, for one Python and platform.

    Attributes:
        name: of what stands for it in our images, which is another one if it is superseded.
        version: of that, empty if it is not in the lock.
        image: the smaller one that has it.
        imports: whether the image imports it; None if that was not tried.
        error: why not.
    """

    wanted: Requirement
    exemption: Exemption | None
    name: str
    version: str = ""
    image: str = ""
    imports: bool | None = None
    error: str = ""

    @property
    def kind(self) -> str:
        return self.exemption.kind if self.exemption else ""

    @property
    def inside(self) -> bool:
        return self.version in self.wanted.specifier if self.version else False

    def problem(self) -> str:
        """What is wrong with it; empty if nothing is."""
        found = f"{self.name} {self.version}" if self.version else f"there is no {self.name}"
        if self.kind in ("", "superseded", "not importable") and not self.inside:
            return f"{found}, numerai-predict has {self.wanted}"
        if self.kind in ("no wheel", "security", "conflict") and self.inside:
            return f"{found} is inside {self.wanted}: the exception is not needed"
        if self.error and (self.kind != "not importable" or self.imports is None):
            return f"{found}: {self.error}"
        if self.imports and self.kind == "not importable":
            return f"{found} imports: the exception is not needed"
        return ""

    def cells(self) -> tuple[str, ...]:
        version = self.version if self.name == self.wanted.name else f"{self.name} {self.version}"
        imports = {True: "yes", False: "no", None: "not tried" if self.version else "-"}
        constraint = ",".join(sorted(map(str, self.wanted.specifier), reverse=True))
        here = version or "-", self.image or "-", imports[self.imports]
        return self.wanted.name, constraint, *here

    def why_not(self) -> str:
        return f"{self.kind}: {self.exemption.reason}" if self.exemption else self.problem()

    def note(self, other: Row, platform: str) -> str:
        """The last cell: what is to be said of it, and what is different on another platform."""
        notes = [self.why_not()]
        if not other.version:
            notes.append(f"not on {platform}: {other.why_not()}")
        elif (other.name, other.version) != (self.name, self.version):
            notes.append(f"{platform}: {other.name} {other.version}")
        return "; ".join(filter(None, notes))


def pythons() -> tuple[str, ...]:
    return _prelude()["PYTHONS"]


def exemptions() -> list[Exemption]:
    listed = tomlkit.parse((FOLDER / "parity/exceptions.toml").read_text()).unwrap()
    return [Exemption(**fields) for fields in listed["exceptions"]]


def wanted(python: str) -> list[Requirement]:
    """What numerai-predict's image of a Python installs."""
    return list(_requirements(FOLDER / f"parity/{python}.txt"))


def rows(python: str, platform: str) -> list[Row]:
    """numerai-predict's packages for one Python and platform, as they are in the lock."""
    have, exempt = locked(python, platform), exemptions()
    found = []
    for requirement in wanted(python):
        covering = [each for each in exempt if each.covers(requirement.name, python, platform)]
        exemption = covering[0] if covering else None
        name = (exemption.by if exemption else "") or requirement.name
        found.append(Row(requirement, exemption, name, *have.get(name, ())))
    return found


def locked(python: str, platform: str) -> dict[str, tuple[str, str]]:
    """By package, its version and the smaller image that has it."""
    environment = {
        "os_name": "posix",
        "platform_machine": PLATFORMS[platform],
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    resolve = f"py{python.replace('.', '')}"
    found = {}
    for file in (FOLDER / resolve).glob("*.txt"):
        image = f"{resolve}-full" if file.stem in _prelude()["FULL_LAYERS"] else resolve
        for requirement in _requirements(file):
            if requirement.marker is None or requirement.marker.evaluate(environment):
                (pin,) = requirement.specifier
                found[requirement.name] = (pin.version, image)
    return found


def _prelude() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec((FOLDER / "pythons.py").read_text(), names)
    return names


def _requirements(file: Path) -> Iterator[Requirement]:
    for line in file.read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line.rstrip("\\ "))
            requirement.name = canonicalize_name(requirement.name)
            yield requirement


def measured(found: Sequence[Row], imports: dict[str, Any]) -> Iterator[Row]:
    """The rows with what importable.py said in an image of the same lock."""
    for row in found:
        said = imports.get(row.name)
        if not row.version:
            yield row
        # Of an index without code for GPUs, torch is 2.0.1+cpu.
        elif said is None or said["version"].partition("+")[0] != row.version:
            there = said["version"] if said else "none"
            yield replace(row, error=f"an image that has {there} was tried")
        else:
            yield replace(row, imports=not said["error"], error=said["error"])


def table(found: Sequence[Row], others: Sequence[Row], other: str) -> Iterator[str]:
    """The lines of a table, with what is different on another platform among the notes."""
    head = ("package", "numerai-predict", "here", "image", "imports", "note")
    lines: list[tuple[str, ...]] = [head]
    for row, elsewhere in zip(found, others, strict=True):
        lines.append((*row.cells(), row.note(elsewhere, other)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(map(str.ljust, line, widths)).rstrip()


def summary(found: Sequence[Row], python: str, platform: str) -> str:
    excepted = sum(bool(row.exemption) for row in found)
    inside = sum(row.inside and not row.exemption for row in found)
    tried = [row for row in found if row.imports is not None]
    importing = f"{sum(bool(row.imports) for row in tried)} of {len(tried)} import"
    return (
        f"Python {python} on {platform}: {inside} of {len(found)} inside, {excepted} excepted; "
        f"{importing if tried else 'not tried whether they import'}"
    )


def host() -> str:
    return next(name for name, machine in PLATFORMS.items() if machine == os.uname().machine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", default=pythons(), help="such as 3.11; default: all")
    parser.add_argument("--platform", choices=PLATFORMS, default=host(), help="default: this one's")
    parser.add_argument("--imports", type=Path, help="folder with importable.py's 3.11.json")
    args = parser.parse_args()
    problems: list[str] = []
    for python in args.pythons:
        found = rows(python, args.platform)
        if args.imports:
            tried = json.loads((args.imports / f"{python}.json").read_text())
            found = list(measured(found, tried))
        (other,) = set(PLATFORMS) - {args.platform}
        others = rows(python, other)
        print(*table(found, others, other), "", summary(found, python, args.platform), "", sep="\n")
        for row in (*found, *others):
            if row.problem():
                problems.append(f"Python {python}: {row.problem()}")
    sys.exit("\n".join(dict.fromkeys(problems)) or 0)


if __name__ == "__main__":
    main()
