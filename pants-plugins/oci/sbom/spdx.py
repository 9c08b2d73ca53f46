"""SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3/)."""

from __future__ import annotations

import re
import uuid
from typing import Any, Dict, Sequence, Tuple

from .inventory import Inventory, Package

UNKNOWN = "NOASSERTION"
SUBJECT = "SPDXRef-image"
SYSTEM = "SPDXRef-os"
PURPOSES = {"interpreter": "APPLICATION", "sources": "APPLICATION"}


def document(inventory: Inventory, created: str) -> Dict[str, Any]:
    packages = [_package(package) for package in inventory.packages]
    distribution = inventory.distribution
    if distribution:
        system = {"name": distribution.get("ID", "linux"), "SPDXID": SYSTEM}
        system["versionInfo"] = distribution.get("VERSION_ID", "")
        packages.append({**_unknown("OPERATING-SYSTEM"), **system})
    names: Dict[str, str] = {}
    for package in inventory.packages:
        names.update(package.licence.names)
    held = [(SUBJECT, "CONTAINS", package["SPDXID"]) for package in packages]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{inventory.name} {inventory.platform}",
        "documentNamespace": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'spdx:{inventory.digest}')}",
        "creationInfo": {"created": created, "creators": ["Tool: oci.sbom"]},
        "packages": [_image(inventory), *packages],
        "relationships": [
            _relationship(*each) for each in (("SPDXRef-DOCUMENT", "DESCRIBES", SUBJECT), *held)
        ],
        "hasExtractedLicensingInfos": [
            {"licenseId": ref, "name": name, "extractedText": name}
            for ref, name in sorted(names.items())
        ],
    }


def _image(inventory: Inventory) -> Dict[str, Any]:
    return {
        **_unknown("CONTAINER"),
        "name": inventory.name,
        "SPDXID": SUBJECT,
        "versionInfo": inventory.digest,
        "checksums": _checksums(inventory.sha256),
        "externalRefs": _references((("PACKAGE-MANAGER", "purl", inventory.purl),)),
    }


def _package(package: Package) -> Dict[str, Any]:
    references = (
        ("PACKAGE-MANAGER", "purl", package.purl),
        ("SECURITY", "cpe23Type", package.cpe),
    )
    optional = {
        "versionInfo": package.version,
        "packageFileName": package.file,
        "checksums": _checksums(package.sha256) if package.sha256 else [],
        "sourceInfo": f"built from the source package {package.source}" if package.source else "",
        "externalRefs": _references(references),
        "comment": f"in the layer {package.layer}",
    }
    return {
        **_unknown(PURPOSES.get(package.kind, "LIBRARY")),
        "name": package.name,
        "SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", package.ref),
        "licenseDeclared": package.licence.expression or UNKNOWN,
        **{key: value for key, value in optional.items() if value},
    }


def _unknown(purpose: str) -> Dict[str, Any]:
    keys = ("downloadLocation", "licenseConcluded", "licenseDeclared", "copyrightText")
    return {
        **dict.fromkeys(keys, UNKNOWN),
        "filesAnalyzed": False,
        "primaryPackagePurpose": purpose,
    }


def _checksums(sha256: str) -> Sequence[Dict[str, str]]:
    return [{"algorithm": "SHA256", "checksumValue": sha256}]


def _references(references: Sequence[Tuple[str, str, str]]) -> Sequence[Dict[str, str]]:
    keys = ("referenceCategory", "referenceType", "referenceLocator")
    return [dict(zip(keys, reference)) for reference in references if reference[2]]


def _relationship(of: str, kind: str, to: str) -> Dict[str, str]:
    return {"spdxElementId": of, "relationshipType": kind, "relatedSpdxElement": to}
