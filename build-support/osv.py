"""A folder of OSV's advisories, and which of them are about a version of a package.

The folder is laid out as OSV's public export is: ECOSYSTEM/all.zip, with a JSON file for each advisory
(https://ossf.github.io/osv-schema/). Debian's advisories name source packages.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvss import CVSS2, CVSS3, CVSS4, CVSSError
from debian.debian_support import Version as DebianVersion
from packaging.utils import canonicalize_name
from packaging.version import Version as PythonVersion
from tqdm import tqdm

# Outlives `make clean`: where there is no network it was carried here.
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "numerai-predict/osv")

# From harmless to worst. Debian calls unimportant what does no harm in its packages.
SEVERITIES = ("unimportant", "unknown", "low", "medium", "high", "critical")
# GitHub's word, and that of CVSS.
SYNONYMS = {"moderate": "medium", "none": "unimportant"}
CVSS: dict[str, Callable[[str], Any]] = {"CVSS_V2": CVSS2, "CVSS_V3": CVSS3, "CVSS_V4": CVSS4}

Advisory = dict[str, Any]
Parse = Callable[[str], Any]


@dataclass(frozen=True)
class Ecosystem:
    """The advisories of an ecosystem that are about the packages that were asked for.

    Attributes:
        advisories: by package.
        count: of all there are, withdrawn ones too.
        newest: the date of the latest change, `2026-11-24`; OSV's export changes many times a day.
    """

    advisories: dict[str, list[Advisory]]
    count: int
    newest: str


@dataclass
class Hit:
    """A vulnerability of a version of a package, as one or more advisories tell of it.

    Attributes:
        names: what it is called, CVE numbers first.
        fixed: the first version without it, as far as the advisories know of one.
    """

    names: list[str]
    severity: str = "unknown"
    fixed: str = ""
    summary: str = ""
    advisories: list[str] = field(default_factory=list)


def parser(ecosystem: str) -> Parse:
    """What makes comparable versions of an ecosystem's strings, or raises ValueError."""
    return DebianVersion if ecosystem.startswith("Debian") else PythonVersion


def archive(folder: Path, ecosystem: str) -> Path:
    return folder / ecosystem / "all.zip"


def load(folder: Path, ecosystem: str, packages: Collection[str]) -> Ecosystem:
    """Reads what is known of these packages.

    Raises:
        OSError, zipfile.BadZipFile, ValueError: there is no export, or a damaged or empty one.
    """
    found: dict[str, list[Advisory]] = defaultdict(list)
    newest = ""
    with zipfile.ZipFile(archive(folder, ecosystem)) as export:
        names = [name for name in export.namelist() if name.endswith(".json")]
        for name in tqdm(names, desc=f"reading {ecosystem}", unit="", leave=False, disable=None):
            advisory = parsed(export.read(name))
            newest = max(newest, advisory["modified"][: len("2026-11-24")])
            for package in {name for name, _ in affected(advisory, ecosystem)} & {*packages}:
                found[package].append(advisory)
    if not names:
        raise ValueError("holds no advisory")
    return Ecosystem(found, len(names), newest)


def parsed(text: bytes) -> Advisory:
    """Without what is null, which the schema allows for most things that are not there."""
    hook = without_nulls if b"null" in text else None
    advisory: Advisory = json.loads(text, object_hook=hook)
    return advisory


def without_nulls(thing: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in thing.items() if value is not None}


def affected(advisory: Advisory, ecosystem: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Packages of an ecosystem and what is said of each of them; of withdrawn advisories nothing."""
    for entry in () if "withdrawn" in advisory else advisory.get("affected", ()):
        package = entry.get("package", {})
        if package.get("ecosystem") == ecosystem:
            name = package["name"]
            yield canonicalize_name(name) if ecosystem == "PyPI" else name, entry


def hits(known: Ecosystem, ecosystem: str, package: str, version: str) -> list[Hit]:
    """The vulnerabilities of a version of a package, each with all advisories about it.

    Raises:
        ValueError: the version, or one that an advisory names, is none of this ecosystem.
    """
    parse = parser(ecosystem)
    found: list[Hit] = []
    about: list[tuple[Advisory, dict[str, Any]]] = []
    for advisory in known.advisories.get(package, ()):
        entries = [entry for name, entry in affected(advisory, ecosystem) if name == package]
        try:
            about += [(advisory, each) for each in entries if is_affected(each, version, parse)][:1]
        except ValueError as error:
            raise ValueError(f"{advisory['id']}: {error}") from error
    # First those of one vulnerability, by which those of several then are known.
    for advisory, entry in sorted(about, key=lambda each: (len(each[0].get("upstream", ())) > 1)):
        tell(found, advisory, entry, version, parse)
    return found


def is_affected(entry: dict[str, Any], version: str, parse: Parse) -> bool:
    """The schema's evaluation of a version. Commits (ranges of the type GIT) say nothing of releases."""
    ranges = [each for each in entry.get("ranges", ()) if each["type"] != "GIT"]
    return any(in_range(each["events"], version, parse) for each in ranges) or any(
        same(listed, version, parse) for listed in entry.get("versions", ())
    )


def same(listed: str, version: str, parse: Parse) -> bool:
    """Lists hold versions that are none by today's rules."""
    try:
        return listed == version or bool(parse(listed) == parse(version))
    except ValueError:
        return False


def in_range(events: list[dict[str, str]], version: str, parse: Parse) -> bool:
    here = parse(version)
    limits = [event["limit"] for event in events if "limit" in event]
    if limits and not any(limit == "*" or here < parse(limit) for limit in limits):
        return False
    inside = False
    for kind, at in in_order(events, parse):
        if kind == "introduced" and (at == "0" or here >= parse(at)):
            inside = True
        elif kind == "fixed" and here >= parse(at):
            inside = False
        elif kind == "last_affected" and here > parse(at):
            inside = False
    return inside


def in_order(events: list[dict[str, str]], parse: Parse) -> list[tuple[str, str]]:
    """The events by version; 0 is before all."""
    pairs = [pair for event in events for pair in event.items() if pair[0] != "limit"]
    started = [pair for pair in pairs if pair[1] == "0"]
    rest = [pair for pair in pairs if pair[1] != "0"]
    return started + sorted(rest, key=lambda pair: parse(pair[1]))


def first_fixed(entry: dict[str, Any], version: str, parse: Parse) -> str:
    """The first fixed version after this one, in the ranges that hold it; empty if none is known."""
    fixes = [
        event["fixed"]
        for each in entry.get("ranges", ())
        if each["type"] != "GIT" and in_range(each["events"], version, parse)
        for event in each["events"]
        if "fixed" in event and parse(event["fixed"]) > parse(version)
    ]
    return min(fixes, key=parse, default="")


def tell(
    found: list[Hit], advisory: Advisory, entry: dict[str, Any], version: str, parse: Parse
) -> None:
    """Adds an advisory to the vulnerabilities that it is about.

    Distributions have an advisory for each CVE, which is its only `upstream`, and others for an
    update that fixes several: those are a vulnerability of their own only if nothing else tells of it.
    """
    upstream = {*advisory.get("upstream", ())}
    names = {advisory["id"], *advisory.get("aliases", ()), *upstream}
    told = [hit for hit in found if names & {*hit.names}]
    several = len(upstream) > 1
    if several and upstream <= {name for hit in told for name in hit.names}:
        for hit in told:
            hit.names.append(advisory["id"])
            hit.advisories.append(advisory["id"])
            hit.fixed = hit.fixed or first_fixed(entry, version, parse)
        return
    merged = Hit([], severity(advisory, entry), first_fixed(entry, version, parse))
    merged.summary = advisory.get("summary", "")
    merged.advisories = [advisory["id"]]
    for hit in told if not several else ():
        found.remove(hit)
        names |= {*hit.names}
        merged.severity = max(hit.severity, merged.severity, key=SEVERITIES.index)
        merged.fixed = max(filter(None, (hit.fixed, merged.fixed)), key=parse, default="")
        merged.summary = hit.summary or merged.summary
        merged.advisories = hit.advisories + merged.advisories
    merged.names = sorted(names, key=lambda name: (not name.startswith("CVE-"), name))
    found.append(merged)


def severity(advisory: Advisory, entry: dict[str, Any]) -> str:
    """The distribution's word that it does not matter, else what the CVSS vectors give, else what the
    advisory says in a word."""
    specific = {**advisory.get("database_specific", {}), **entry.get("ecosystem_specific", {})}
    words = [str(specific.get(key, "")).lower() for key in ("urgency", "severity")]
    if words[0] == "unimportant":
        return words[0]
    rated = []
    for vector in (*advisory.get("severity", ()), *entry.get("severity", ())):
        try:
            score = CVSS[vector["type"]](vector["score"])
        except (KeyError, CVSSError):
            continue
        rated.append(score.severity if isinstance(score, CVSS4) else score.severities()[0])
    rated = [SYNONYMS.get(word.lower(), word.lower()) for word in rated or words]
    known = [word for word in rated if word in SEVERITIES]
    return max(known, key=SEVERITIES.index, default="unknown")
