from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from pants.core.goals.package import BuiltPackage
from pants.engine.addresses import Address
from pants.engine.fs import DigestContents
from pants.engine.internals.scheduler import ExecutionError

from oci.goals.package import PackageImageFieldSet
from oci.testutil.debs import make_deb
from oci.testutil.image_runner import image_runner

PACKAGES = {
    "tiny-libs": make_deb("tiny-libs", {"lib/x86_64-linux-gnu/libtiny.so.1": ""}),
    "tiny": make_deb("tiny", {"usr/lib/tiny/mod.py": "a = 1\n", "usr/share/man/tiny.1": ""}),
}
LOCKED = [
    {
        "name": name,
        "version": "1",
        "architecture": "all",
        "path": f"pool/{name}.deb",
        "sha256": hashlib.sha256(deb).hexdigest(),
        "size": len(deb),
        "set": name,
    }
    for name, deb in PACKAGES.items()
]
BUILD = """
debian_layer(name="libs", lock="tiny.lock", set="tiny-libs")

debian_layer(
    name="program",
    lock="tiny.lock",
    set="tiny",
    base=["tiny-libs"],
    omit=["usr/share"],
    symlinks={"usr/bin/tiny": "../lib/tiny/mod.py"},
)

oci_image(
    name="image",
    repository="team/tiny",
    image_tag="1.0",
    layers=[":libs", ":program"],
    entrypoint=["/usr/bin/tiny", "--run"],
    env={"B": "2", "A": "1"},
    labels={"who": "me"},
    platforms=["linux/amd64", "linux/arm64"],
)
"""


def packaged(mirror: Path, *options: str) -> dict[str, bytes]:
    runner = image_runner(mirror=f"file://{mirror}", options=options)
    lock = json.dumps({"suite": "tiny-suite", "packages": LOCKED})
    runner.write_files({"images/BUILD": BUILD, "tiny.lock": lock})
    target = runner.get_target(Address("images", target_name="image"))
    package = runner.request(BuiltPackage, [PackageImageFieldSet.create(target)])
    files = runner.request(DigestContents, [package.digest])
    assert {artifact.relpath for artifact in package.artifacts} == {file.path for file in files}
    return {file.path: file.content for file in files}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mirror")
    (folder / "pool").mkdir()
    for name, deb in PACKAGES.items():
        (folder / f"pool/{name}.deb").write_bytes(deb)
    return folder


@pytest.fixture(scope="module")
def files(mirror: Path) -> dict[str, bytes]:
    return packaged(mirror)


@pytest.fixture(scope="module")
def summary(files: dict[str, bytes]) -> Any:
    return json.loads(files["images/image/image.json"])["platforms"]["linux/amd64"]


def blob(files: dict[str, bytes], digest: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(files["images/image/image.tar"])) as tar:
        content = tar.extractfile(f"blobs/{digest.replace(':', '/')}")
        assert content is not None
        return content.read()


def test_an_archive_its_description_and_lists_are_written(files: dict[str, bytes]) -> None:
    lists = [
        f"linux-{machine}.{kind}" for machine in ("amd64", "arm64") for kind in ("cdx", "spdx")
    ]
    names = ("image.tar", "image.json", *(f"{name}.json" for name in lists))
    assert files.keys() == {f"images/image/{name}" for name in names}


def test_the_lists_are_of_the_image(files: dict[str, bytes], summary: Any) -> None:
    listed = json.loads(files["images/image/linux-amd64.cdx.json"])
    assert listed["metadata"]["component"]["name"] == "team/tiny"
    assert listed["metadata"]["component"]["version"] == summary["digest"]
    hashes = {each["name"]: each["hashes"][0]["content"] for each in listed["components"]}
    assert hashes == {package["name"]: package["sha256"] for package in LOCKED}


def test_another_build_gives_the_same_bytes(mirror: Path, files: dict[str, bytes]) -> None:
    assert packaged(mirror) == files


def test_one_platform_may_be_chosen(mirror: Path, files: dict[str, bytes]) -> None:
    chosen = json.loads(packaged(mirror, "--oci-platform=linux/arm64")["images/image/image.json"])
    everything = json.loads(files["images/image/image.json"])
    assert everything["platforms"].keys() == {"linux/amd64", "linux/arm64"}
    assert chosen["platforms"] == {"linux/arm64": everything["platforms"]["linux/arm64"]}


def test_the_description_names_layers_and_pins(files: dict[str, bytes], summary: Any) -> None:
    assert json.loads(files["images/image/image.json"])["reference"] == "team/tiny:1.0"
    assert [layer["what"] for layer in summary["layers"]] == ["libs", "program"]
    assert summary["inputs"] == {
        layer: {package["name"]: f"1 sha256:{package['sha256']}"}
        for layer, package in zip(("libs", "program"), LOCKED)
    }


def test_the_configuration_is_what_the_target_says(files: dict[str, bytes], summary: Any) -> None:
    assert json.loads(blob(files, summary["config_digest"]))["config"] == {
        "Entrypoint": ["/usr/bin/tiny", "--run"],
        "Env": ["A=1", "B=2"],
        "Labels": {"who": "me"},
        "WorkingDir": "/",
    }


def test_a_release_names_its_commit_and_its_target(mirror: Path, summary: Any) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    released = packaged(mirror, f"--oci-git-ref={commit}")
    told = json.loads(released["images/image/image.json"])["platforms"]["linux/amd64"]
    assert told["labels"] == {
        "who": "me",
        "org.opencontainers.image.revision": commit,
        "oci.target": "images:image",
    }
    config = json.loads(blob(released, told["config_digest"]))["config"]
    assert f"GIT_REF={commit}" in config["Env"]
    assert told["layers"] == summary["layers"]


def test_a_release_names_no_branch(mirror: Path) -> None:
    with pytest.raises(ExecutionError, match="a full commit id"):
        packaged(mirror, "--oci-git-ref=main")


def test_a_layer_holds_what_its_target_says(files: dict[str, bytes], summary: Any) -> None:
    content = blob(files, summary["layers"][1]["digest"])
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        held = {member.name for member in tar if not member.isdir()}
    assert held == {
        "etc/ld.so.cache",
        "usr/bin/tiny",
        "usr/lib/tiny/__pycache__/mod.cpython-311.pyc",
        "usr/lib/tiny/mod.py",
        "var/lib/dpkg/status.d/tiny",
    }
