"""CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/)."""

from __future__ import annotations

import uuid
from typing import Any, Dict, List

from .inventory import Inventory, Package
from .licences import Licence

TYPES = {"interpreter": "platform", "sources": "application"}


def document(inventory: Inventory, created: str) -> Dict[str, Any]:
    subject = f"image-{inventory.sha256}"
    components = [_component(package) for package in inventory.packages]
    distribution = inventory.distribution
    if distribution:
        # What scanners look for before they look at Debian packages.
        system = {
            "type": "operating-system",
            "bom-ref": "os",
            "name": distribution.get("ID", "linux"),
        }
        components.append({**system, "version": distribution.get("VERSION_ID", "")})
    held = [component["bom-ref"] for component in components]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # The same of the same image; there is nothing random in a build.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, inventory.digest)}",
        "version": 1,
        "metadata": {
            "timestamp": created,
            "tools": {"components": [{"type": "application", "name": "oci.sbom"}]},
            "component": {
                "type": "container",
                "bom-ref": subject,
                "name": inventory.name,
                "version": inventory.digest,
                "purl": inventory.purl,
                "hashes": _hashes(inventory.sha256),
                "properties": [{"name": "oci:platform", "value": inventory.platform}],
            },
        },
        "components": components,
        "dependencies": [{"ref": subject, "dependsOn": held}],
    }


def _component(package: Package) -> Dict[str, Any]:
    properties = {"layer": package.layer, "file": package.file, "source": package.source}
    optional = {
        "version": package.version,
        "purl": package.purl,
        "cpe": package.cpe,
        "hashes": _hashes(package.sha256) if package.sha256 else [],
        "licenses": _licences(package.licence),
    }
    return {
        "type": TYPES.get(package.kind, "library"),
        "bom-ref": package.ref,
        "name": package.name,
        **{key: value for key, value in optional.items() if value},
        "properties": [
            {"name": f"oci:{name}", "value": value} for name, value in properties.items() if value
        ],
    }


def _hashes(sha256: str) -> List[Dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def _licences(licence: Licence) -> List[Dict[str, Any]]:
    name = licence.names.get(licence.expression)
    if name is not None:
        return [{"license": {"name": name, "acknowledgement": "declared"}}]
    expression = {"expression": licence.expression, "acknowledgement": "declared"}
    return [expression] if licence.expression else []
