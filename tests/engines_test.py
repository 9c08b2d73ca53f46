"""Programs of others take image.tar: Docker and Podman load and run it, skopeo and umoci read it."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Program = Callable[..., str]
Installed = Callable[[str, str], Program]

# Podman's own limits are higher than what it may set where it is nested in a container.
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")

VERSION = re.compile(r"numerai_predict \S+ \(Python 3\.11\.\d+\)\n")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards: unpacked images are large."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_docker_loads_and_runs_this_machines_platform(
    docker: Program, docker_image: str, built: dict[str, Any]
):
    assert VERSION.fullmatch(docker("run", "--rm", f"{docker_image}:latest", "--version"))
    config = docker("image", "inspect", "--format={{.Id}}", docker_image).strip()
    assert config == built["config_digest"]


def test_docker_runs_it_without_privileges(docker: Program, docker_image: str):
    argv = ["--read-only", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    argv += ["--user=12345:12345", "--memory=4g", "--pids-limit=256", docker_image, "--version"]
    assert VERSION.fullmatch(docker("run", "--rm", *argv))


def test_docker_finds_packages_under_another_entry_point(docker: Program, docker_image: str):
    code = "import lightgbm, numerai_predict; print(numerai_predict.__file__)"
    printed = docker("run", "--rm", "--entrypoint=python3", docker_image, "-c", code)
    assert printed.startswith("/usr/local/lib/python3.11/")


def test_podman_loads_and_runs_it(
    installed: Installed,
    archive: Path,
    description: dict[str, Any],
    built: dict[str, Any],
    scratch: Path,
):
    podman = installed("podman", "podman")
    # Images of its own, so that those of this machine stay as they are.
    storage = (f"--root={scratch}/root", f"--runroot={scratch}/run", f"--tmpdir={scratch}/tmp")
    try:
        podman(*storage, "load", "--quiet", "--input", archive)
        image = description["reference"]
        inspected = podman(
            *storage, "image", "inspect", "--format={{.Digest}} sha256:{{.Id}}", image
        )
        assert inspected.split() == [description["digest"], built["config_digest"]]
        assert VERSION.fullmatch(podman(*storage, "run", "--rm", *LIMITS, image, "--version"))
    finally:
        podman(*storage, "image", "rm", "--all", "--force")


def test_skopeo_copies_it_as_it_is(
    installed: Installed, archive: Path, description: dict[str, Any], scratch: Path
):
    skopeo = installed("skopeo", "skopeo")
    layout = f"oci:{scratch}/copy:latest"
    options = (f"--tmpdir={scratch}", "--insecure-policy", "copy", "--quiet", "--all")
    skopeo(*options, f"oci-archive:{archive}", layout)
    (top,) = json.loads((scratch / "copy/index.json").read_text())["manifests"]
    assert top["digest"] == description["digest"]


def test_skopeo_takes_each_platform(
    installed: Installed, archive: Path, description: dict[str, Any], scratch: Path
):
    skopeo = installed("skopeo", "skopeo")
    options = (f"--tmpdir={scratch}", "inspect", "--raw", f"oci-archive:{archive}")
    index = json.loads(skopeo(*options))
    assert {
        f"linux/{manifest['platform']['architecture']}": manifest["digest"]
        for manifest in index["manifests"]
    } == {platform: image["digest"] for platform, image in description["platforms"].items()}
    for platform, image in description["platforms"].items():
        architecture = f"--override-arch={platform.rpartition('/')[2]}"
        copy = f"dir:{scratch}/{architecture}"
        flags = (f"--tmpdir={scratch}", "--insecure-policy", architecture)
        skopeo(*flags, "copy", "--quiet", f"oci-archive:{archive}", copy)
        manifest = (scratch / architecture / "manifest.json").read_bytes()
        assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == image["digest"]


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_umoci_unpacks_it(
    installed: Installed, archive: Path, description: dict[str, Any], scratch: Path, platform: str
):
    umoci = installed("umoci", "umoci")
    with tarfile.open(archive) as tar:
        tar.extractall(scratch / "layout")
    # umoci takes what the layout names directly.
    (top,) = json.loads((scratch / "layout/index.json").read_text())["manifests"]
    index = scratch / "layout/blobs" / top["digest"].replace(":", "/")
    named = json.loads(index.read_text())
    for manifest in named["manifests"]:
        name = manifest["platform"]["architecture"]
        manifest["annotations"] = {"org.opencontainers.image.ref.name": name}
    (scratch / "layout/index.json").write_text(json.dumps(named))
    image = f"--image={scratch}/layout:{platform.rpartition('/')[2]}"
    umoci("unpack", "--rootless", image, scratch / "bundle")
    root = scratch / "bundle" / "rootfs"
    assert (root / "usr" / "bin" / "python3").readlink() == Path("python3.11")
    assert (root / "bin" / "python3.11").stat().st_mode & 0o777 == 0o755
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (root / "usr/local/lib/python3.11/dist-packages/numerai_predict/__main__.py").exists()
