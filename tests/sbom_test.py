"""The lists of what the image holds: package for package what is found inside it, and valid."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib

# What Python and dpkg's files say from inside.
INSIDE = r"""
import importlib.metadata, json, pathlib, re
canonical = lambda name: re.sub(r"[-_.]+", "-", name).lower()
wheels = [(canonical(d.metadata["Name"]), d.version) for d in importlib.metadata.distributions()]
status = pathlib.Path("/var/lib/dpkg/status.d")
fields = [dict(re.findall(r"(?m)^(\w+): (.*)$", file.read_text()))
          for file in status.iterdir() if not file.name.endswith(".md5sums")]
debs = [(each["Package"], each["Version"], each["Architecture"]) for each in fields]
print(json.dumps({"wheels": sorted(wheels), "debs": sorted(debs)}))
"""


@pytest.fixture(scope="module")
def lists(archive: Path, host: str) -> dict[str, Path]:
    """The files of this machine's platform, by kind."""
    name = host.replace("/", "-")
    return {kind: archive.parent / f"{name}.{kind}.json" for kind in ("cdx", "spdx")}


@pytest.fixture(scope="module")
def inside(request: pytest.FixtureRequest) -> dict[str, list[tuple[str, ...]]]:
    try:
        image = request.getfixturevalue("docker_image")
        argv = ["docker", "run", "--rm", "--network=none", "--entrypoint=python3", image]
    except pytest.skip.Exception:
        *argv, archive = request.getfixturevalue("engine")("bubblewrap")
        argv += ["--entrypoint=/usr/bin/python3", archive]
    done = subprocess.run([*argv, "-c", INSIDE], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return {kind: [tuple(package) for package in found[kind]] for kind in found}


@pytest.fixture(scope="module", params=["cdx", "spdx"])
def listed(request: pytest.FixtureRequest, lists: dict[str, Path]) -> list[dict[str, str]]:
    """Package URL, name, version and SHA-256 of all that one of the lists has."""
    document = json.loads(lists[request.param].read_text())
    return [*(cyclonedx if request.param == "cdx" else spdx)(document)]


def cyclonedx(document: dict[str, Any]) -> Iterator[dict[str, str]]:
    for each in document["components"]:
        sha256 = [one["content"] for one in each.get("hashes", ()) if one["alg"] == "SHA-256"]
        yield {
            **{"purl": each.get("purl", ""), "name": each["name"]},
            **{"version": each.get("version", ""), "sha256": "".join(sha256)},
        }


def spdx(document: dict[str, Any]) -> Iterator[dict[str, str]]:
    for each in document["packages"]:
        refs = {
            one["referenceType"]: one["referenceLocator"] for one in each.get("externalRefs", ())
        }
        sums = {one["algorithm"]: one["checksumValue"] for one in each.get("checksums", ())}
        yield {
            **{"purl": refs.get("purl", ""), "name": each["name"]},
            **{"version": each.get("versionInfo", ""), "sha256": sums.get("SHA256", "")},
        }


def test_wheels_are_those_that_python_finds(
    listed: list[dict[str, str]], inside: dict[str, list[tuple[str, ...]]]
):
    wheels = [package for package in listed if package["purl"].startswith("pkg:pypi/")]
    found = sorted((wheel["name"], wheel["version"]) for wheel in wheels)
    assert len(found) > 80
    assert found == inside["wheels"]


def test_debian_packages_are_those_that_scanners_find(
    listed: list[dict[str, str]], inside: dict[str, list[tuple[str, ...]]]
):
    debs = [package for package in listed if package["purl"].startswith("pkg:deb/debian/")]
    architecture = re.compile(r"[?&]arch=(\w+)&distro=debian-12")
    found = sorted(
        (deb["name"], deb["version"], "".join(architecture.findall(deb["purl"]))) for deb in debs
    )
    assert len(found) > 20
    assert found == inside["debs"]


def test_every_wheel_has_the_hash_of_a_locked_file_for_it(listed: list[dict[str, str]]):
    locked: dict[tuple[str, str], set[str]] = {}
    for package in tomllib.loads(Path("poetry.lock").read_text())["package"]:
        hashes = {file["hash"] for file in package["files"] if file["file"].endswith(".whl")}
        locked[package["name"], package["version"]] = hashes
    wheels = [package for package in listed if package["purl"].startswith("pkg:pypi/")]
    other = [
        (wheel["name"], wheel["sha256"])
        for wheel in wheels
        if f"sha256:{wheel['sha256']}" not in locked[wheel["name"], wheel["version"]]
    ]
    assert not other


def test_every_debian_package_has_its_locked_hash(
    listed: list[dict[str, str]], built: dict[str, Any]
):
    pins = {
        name: pin.partition(" sha256:")[2]
        for layer in ("os", "cpython311")
        for name, pin in built["inputs"][layer].items()
    }
    debs = [package for package in listed if package["purl"].startswith("pkg:deb/")]
    assert {deb["name"]: deb["sha256"] for deb in debs} == pins


def test_the_lists_name_the_images_manifest(lists: dict[str, Path], built: dict[str, Any]):
    cdx, spdx = (json.loads(lists[kind].read_text()) for kind in ("cdx", "spdx"))
    (of,) = [each for each in spdx["packages"] if each["SPDXID"] == "SPDXRef-image"]
    assert cdx["metadata"]["component"]["version"] == of["versionInfo"] == built["digest"]
    assert cdx["metadata"]["timestamp"] == spdx["creationInfo"]["created"] == "2026-01-01T00:00:00Z"


def test_listed_hashes_are_of_files_for_this_machine(
    environment: Callable[..., Any], listed: list[dict[str, str]], tmp_path: Path
):
    # Some that have a file for each machine and Python.
    chosen = [each for each in listed if each["name"] in ("multidict", "pyyaml", "wrapt")]
    pins = tmp_path / "pins.txt"
    pins.write_text(
        "".join(f"{p['name']}=={p['version']} --hash=sha256:{p['sha256']}\n" for p in chosen)
    )
    with environment(os.fspath(pins)) as python:
        code = "import multidict, wrapt, yaml"
        subprocess.run([python, "-c", code], check=True)


def test_the_standards_own_libraries_accept_them(
    environment: Callable[..., Any], archive: Path, lists: dict[str, Path]
):
    files = [os.fspath(file) for file in sorted(archive.parent.glob("*.*.json"))]
    assert len(files) >= 2
    with environment("3rdparty/python/tools/sbom.txt") as python:
        argv = [os.fspath(python), "tests/validate_sboms.py", *files]
        done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr
