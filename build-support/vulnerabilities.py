"""`make vulnerabilities`: what is known against the packages of images, from their SBOMs.

Reads any CycloneDX JSON whose components have package URLs of the types deb and pypi, and OSV's advisories
from a folder that `make vulnerability_db` fills: the network is not used. Exits 0 if nothing is known, 1
if something is, and 2 if it could not look.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import tomllib

from osv import FOLDER, SEVERITIES, Ecosystem, Hit, archive, hits, load
from sbom_packages import Inventory, Package, Unreadable

ACCEPTED = Path("3rdparty/vulnerabilities.toml")
# Advisories of some of an image's hundred packages come every week.
OLD = 14  # days


class CannotLook(Exception):
    """Why what is known cannot be told."""


@dataclass
class Row:
    """A vulnerability of a package.

    Attributes:
        accepted: why it is left as it is; empty if nobody said so.
    """

    package: Package
    hit: Hit
    purls: list[str]
    sboms: list[str]
    accepted: str = ""

    def cells(self, sboms: int) -> tuple[str, ...]:
        where = "all" if len(self.sboms) == sboms else " ".join(map(short, self.sboms))
        names = " ".join(self.hit.names)
        fixed = self.hit.fixed or "-"
        return self.package.name, self.package.version, self.hit.severity, fixed, names, where

    def order(self) -> tuple[int, Package, list[str]]:
        return -SEVERITIES.index(self.hit.severity), self.package, self.hit.names

    def fails(self, least: str) -> bool:
        """What nobody rated always does: that it is harmless is not known."""
        rank = SEVERITIES.index
        bad = self.hit.severity == "unknown" or rank(self.hit.severity) >= rank(least)
        return bad and not self.accepted


def short(sbom: str) -> str:
    """`py311/linux-amd64` for dist/images/py311/linux-amd64.cdx.json."""
    path = Path(sbom)
    return f"{path.parent.name}/{path.name.removesuffix('.json').removesuffix('.cdx')}"


def databases(inventory: Inventory, folder: Path) -> dict[str, Ecosystem]:
    """Raises CannotLook unless there is one for each ecosystem of the packages."""
    wanted: dict[str, set[str]] = {}
    for package in inventory.packages:
        wanted.setdefault(package.ecosystem, set()).add(package.name)
    if not wanted:
        raise CannotLook("The SBOMs name no package of PyPI or Debian.")
    found, problems = {}, []
    for ecosystem, names in sorted(wanted.items()):
        file = archive(folder, ecosystem)
        try:
            found[ecosystem] = load(folder, ecosystem, names)
        except FileNotFoundError:
            problems.append(f"{file} is missing")
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, KeyError) as error:
            problems.append(f"{file} is damaged: {error}")
    if problems:
        raise CannotLook(
            "\n".join(problems)
            + "\nWhat is known against these packages cannot be told without it. "
            "`make vulnerability_db` fetches it;\nwhere there is no network, copy the folder from a "
            "machine that has one (docs/vulnerabilities.md)."
        )
    return found


def rows(inventory: Inventory, known: dict[str, Ecosystem]) -> tuple[list[Row], list[str]]:
    """What is known, the worst first, and which packages' versions cannot be compared."""
    found, problems = [], []
    for package, (purls, sboms) in inventory.packages.items():
        try:
            told = hits(known[package.ecosystem], package.ecosystem, package.name, package.version)
        except ValueError as error:
            problems.append(f"{package.name} {package.version} cannot be compared: {error}")
            continue
        found += [Row(package, hit, sorted(purls), sorted(sboms)) for hit in told]
    return sorted(found, key=Row.order), problems


def accept(found: Iterable[Row], file: Path) -> list[str]:
    """Notes which rows are accepted, and why.

    Returns:
        The entries of the file that say nothing about these rows.

    Raises:
        CannotLook: the file is not as it says of itself.
    """
    stale = []
    try:
        listed = tomllib.loads(file.read_text())["accepted"] if file.exists() else []
        entries = [(each["package"], each["id"], each["reason"]) for each in listed]
    except (ValueError, KeyError, TypeError) as error:
        raise CannotLook(f"{file}: {error}") from error
    for package, name, reason in entries:
        told = [row for row in found if package == row.package.name and name in row.hit.names]
        for row in told:
            row.accepted = reason
        if not told:
            stale.append(f"{package} {name}")
    return stale


def table(found: Sequence[Row], sboms: int) -> Iterator[str]:
    cells: list[tuple[str, ...]] = [
        ("package", "version", "severity", "fixed in", "vulnerability", "where")
    ]
    cells += [row.cells(sboms) for row in found]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()


def age(ecosystem: str, known: Ecosystem) -> str:
    """How many advisories there are, and how old the newest one is."""
    days = (date.today() - date.fromisoformat(known.newest)).days
    text = f"{ecosystem}: {known.count} advisories, the newest of {known.newest}"
    return f"{text}, {days} days ago: `make vulnerability_db` renews them" if days > OLD else text


def summary(found: Sequence[Row], compared: int) -> str:
    left = [row for row in found if not row.accepted]
    severities = Counter(row.hit.severity for row in left)
    rated = ", ".join(f"{severities[word]} {word}" for word in SEVERITIES[::-1] if severities[word])
    nothing = "nothing else known" if found else "nothing known"
    known = f"{len(left)} vulnerabilities known ({rated})" if left else nothing
    packages = {row.package for row in left}
    against = f"{len(packages)} of {compared}" if left else compared
    return f"{known} against {against} packages"


def notes(
    found: Sequence[Row], inventory: Inventory, stale: Sequence[str], accepted: Path
) -> Iterator[str]:
    for row in found:
        if row.accepted:
            yield f"accepted: {row.package.name} {row.hit.names[0]}: {row.accepted}"
    for entry in stale:
        yield f"not needed for these SBOMs: {accepted.name} accepts {entry}"
    for purl in sorted(inventory.others):
        yield f"not looked up, in none of these databases: {purl}"


def as_json(
    found: Sequence[Row], inventory: Inventory, known: dict[str, Ecosystem], stale: Sequence[str]
) -> str:
    document = {
        "databases": {
            name: {"advisories": ecosystem.count, "newest": ecosystem.newest}
            for name, ecosystem in known.items()
        },
        "packages": len(inventory.packages),
        "vulnerabilities": [
            {
                **asdict(row.package),
                **asdict(row.hit),
                **{"purls": row.purls, "sboms": row.sboms, "accepted": row.accepted},
            }
            for row in found
        ],
        "not_looked_up": sorted(inventory.others),
        "not_needed": [*stale],
    }
    return json.dumps(document, indent=1)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="vulnerabilities", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "sboms",
        type=Path,
        nargs="*",
        metavar="SBOM",
        default=sorted(Path("dist/images").glob("*/*.cdx.json")),
        help="CycloneDX files (default: those of the images in dist/images)",
    )
    parser.add_argument(
        "--database", type=Path, default=FOLDER, help="folder of advisories (default: %(default)s)"
    )
    parser.add_argument("--accepted", type=Path, default=ACCEPTED, help="default: %(default)s")
    parser.add_argument(
        "--fail-on",
        choices=[word for word in SEVERITIES if word != "unknown"],
        default=SEVERITIES[0],
        help="exit 1 for this severity and worse, and for unknown ones (default: for any)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    inventory = Inventory()
    try:
        if not args.sboms:
            raise CannotLook("There is no SBOM: `./pants package images:py311` writes some.")
        for sbom in args.sboms:
            inventory.add(sbom)
        known = databases(inventory, args.database)
        found, problems = rows(inventory, known)
        stale = accept(found, args.accepted)
    except (CannotLook, Unreadable) as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        print(as_json(found, inventory, known, stale))
    else:
        print(*(age(*each) for each in known.items()), "", sep="\n")
        left = [row for row in found if not row.accepted]
        if left:
            print(*table(left, len(args.sboms)), "", sep="\n")
        told = summary(found, len(inventory.packages) - len(problems))
        print(*notes(found, inventory, stale, args.accepted), told, sep="\n")
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    return 2 if problems else int(any(row.fails(args.fail_on) for row in found))


if __name__ == "__main__":
    sys.exit(main())
