"""The packages that CycloneDX SBOMs name, as vulnerability databases know them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packageurl import PackageURL
from packaging.utils import canonicalize_name


class Unreadable(Exception):
    """Why a file is no SBOM that packages can be taken from."""


@dataclass(frozen=True, order=True)
class Package:
    """What advisories know a package by. Of Debian it is the source package, of its source's version."""

    ecosystem: str
    name: str
    version: str


@dataclass
class Inventory:
    """The packages of SBOMs.

    Attributes:
        packages: each with the package URLs and the SBOMs that name it.
        others: package URLs of what no database here covers.
    """

    packages: dict[Package, tuple[set[str], set[str]]] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)

    def add(self, sbom: Path) -> None:
        """Raises Unreadable if the file is no CycloneDX document that names packages."""
        try:
            document = json.loads(sbom.read_text(encoding="utf-8"))
            if document["bomFormat"] != "CycloneDX":
                raise ValueError(f"its bomFormat is {document['bomFormat']}")
            named = [each for each in components(document) if each.get("purl")]
            found = [(each["purl"], packaged(each)) for each in named]
        except OSError as error:
            raise Unreadable(f"{sbom}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unreadable(f"{sbom} is no CycloneDX SBOM in JSON: {error}") from error
        if not found:
            raise Unreadable(f"{sbom} names no package: none of its components has a purl")
        for purl, package in found:
            if package:
                purls, sboms = self.packages.setdefault(package, (set(), set()))
                purls.add(purl)
                sboms.add(str(sbom))
            else:
                self.others.add(purl)


def components(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for component in document.get("components", ()):
        yield component
        yield from components(component)


def packaged(component: dict[str, Any]) -> Package | None:
    """How OSV knows a package; None if it does not."""
    purl = PackageURL.from_string(component["purl"])
    if purl.type == "pypi" and purl.version:
        return Package("PyPI", canonicalize_name(purl.name), purl.version)
    qualifiers = purl.qualifiers if isinstance(purl.qualifiers, dict) else {}
    release = re.match(r"debian-(\d+)", qualifiers.get("distro", ""))
    if purl.type == "deb" and purl.namespace == "debian" and purl.version and release:
        # Trivy tells of epochs apart.
        epoch = f"{qualifiers['epoch']}:" if "epoch" in qualifiers else ""
        name, version = source(purl.name, epoch + purl.version, qualifiers, component)
        return Package(f"Debian:{release[1]}", name, version)
    return None


def source(
    name: str, version: str, qualifiers: dict[str, str], component: dict[str, Any]
) -> tuple[str, str]:
    """Name and version of the source of a Debian package.

    If it is called or numbered otherwise, Syft and others say so in the purl,
    `upstream=bzip2@1.0.8-5`, and trivy in properties.
    """
    properties = {each["name"]: each.get("value") for each in component.get("properties", ())}
    upstream, _, numbered = qualifiers.get("upstream", "").partition("@")
    upstream = upstream or properties.get("aquasecurity:trivy:SrcName") or name
    # +b1 is a rebuild of the same source.
    return upstream, numbered or re.sub(r"\+b\d+$", "", version)
