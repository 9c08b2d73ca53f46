"""What an image of one platform holds, told by the descriptions of its layers."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import quote

from oci.tool.compatibility import canonical

from .licences import Licence, of_deb, of_names, of_wheel
from .lock import Lock, installed_from


@dataclass(frozen=True)
class Package:
    """
    Attributes:
        kind: deb, wheel, interpreter, library (come with an interpreter) or sources.
        sha256: Of the `file` that it came as; "" where it is not known which that was.
        purl: https://github.com/package-url/purl-spec; "" of what is in no registry.
        layer: What the layer is called that holds it.
    """

    kind: str
    name: str
    version: str
    layer: str
    licence: Licence
    sha256: str = ""
    file: str = ""
    purl: str = ""
    cpe: str = ""
    source: str = ""

    @property
    def ref(self) -> str:
        """Names it within a document."""
        return "-".join(filter(None, (self.kind, self.name, self.version)))


@dataclass(frozen=True)
class Inventory:
    """`digest` is that of the manifest of the image `name` for `platform`."""

    name: str
    platform: str
    digest: str
    distribution: Mapping[str, str]
    packages: Sequence[Package]

    @property
    def sha256(self) -> str:
        return self.digest.partition(":")[2]

    @property
    def purl(self) -> str:
        name = self.name.rpartition("/")[2].lower()
        return _purl("oci", name, self.digest, arch=self.platform.partition("/")[2])


def take_inventory(
    name: str, platform: str, digest: str, layers: Sequence[Dict[str, Any]], lock: Lock
) -> Inventory:
    """`layers` are their `layer.json`, the lowest first; what several hold is told once."""
    distribution: Dict[str, str] = {}
    for layer in layers:
        distribution.update(layer.get("distribution", {}))
    found: Dict[str, Package] = {}
    for layer in layers:
        for package in _packages(layer, distribution, lock):
            found.setdefault(package.ref, package)
    packages = [found[ref] for ref in sorted(found)]
    return Inventory(name, platform, digest, distribution, packages)


def _packages(
    layer: Dict[str, Any], distribution: Mapping[str, str], lock: Lock
) -> Iterator[Package]:
    what = layer["what"]
    for deb in layer.get("debs", ()):
        yield _deb(deb, what, distribution)
    for wheel in layer.get("wheels", ()):
        yield _wheel(wheel, what, layer["inputs"], lock)
    if "interpreter" in layer:
        yield from _interpreter(layer["interpreter"], what)
    # Its packages have no names in a registry: it is this repository's own.
    if "for_python" in layer and "wheels" not in layer:
        sha256 = layer["digest"].partition(":")[2]
        yield Package("sources", what, "", what, Licence(), sha256, "layer.tar.gz")


def _deb(deb: Dict[str, Any], layer: str, distribution: Mapping[str, str]) -> Package:
    source = deb["source"]
    upstream = source["name"]
    if source["version"] != deb["version"]:
        upstream += f"@{source['version']}"
    qualifiers = {
        "arch": deb["architecture"],
        "distro": "-".join(filter(None, map(distribution.get, ("ID", "VERSION_ID")))),
        "upstream": upstream if upstream != deb["name"] else "",
    }
    vendor = distribution.get("ID", "debian")
    # Without the epoch, which names of files leave out.
    version = deb["version"].rpartition(":")[2]
    return Package(
        *("deb", deb["name"], deb["version"], layer, of_deb(deb), deb["sha256"]),
        file=f"{deb['name']}_{version}_{deb['architecture']}.deb",
        purl=_purl(f"deb/{vendor}", deb["name"], deb["version"], **qualifiers),
        source=f"{source['name']} {source['version']}",
    )


def _wheel(wheel: Dict[str, Any], layer: str, inputs: Mapping[str, str], lock: Lock) -> Package:
    name, version = canonical(wheel["name"]), wheel["version"]
    file = installed_from(wheel, lock)
    sha256 = file.sha256 if file else _of_cpu_index(name, version, inputs)
    return Package(
        *("wheel", name, version, layer, of_wheel(wheel["licence"]), sha256 or ""),
        file=file.name if file else "",
        purl=_purl("pypi", name, version),
    )


def _of_cpu_index(name: str, version: str, inputs: Mapping[str, str]) -> Optional[str]:
    """The layer's pin of a wheel that the lock's hashes do not cover (`requirements.Pin`)."""
    pinned, *hashes = inputs.get(name, "").split()[:3] or [""]
    return hashes[0].partition(":")[2] if pinned == version and len(hashes) == 1 else None


def _interpreter(facts: Dict[str, Any], layer: str) -> Iterator[Package]:
    version = facts["version"]
    yield Package(
        *("interpreter", "cpython", version, layer, of_names(["PSF-2.0"]), facts["sha256"]),
        file=facts["file"],
        purl=_purl("generic", "cpython", version),
        cpe=f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
    )
    for path, sha256 in sorted(facts["libraries"].items()):
        name = posixpath.basename(path)
        yield Package("library", name, "", layer, Licence(), sha256, path)


def _purl(kind: str, name: str, version: str, **qualifiers: str) -> str:
    told: List[Tuple[str, str]] = sorted(item for item in qualifiers.items() if item[1])
    listed = "&".join(f"{key}={quote(value, safe=':')}" for key, value in told)
    purl = f"pkg:{kind}/{quote(name)}@{quote(version, safe=':')}"
    return f"{purl}?{listed}" if listed else purl
