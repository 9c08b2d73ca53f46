"""image.tar is an OCI image layout by the specification's own schemas, image.json describes it
truly, and nothing in either depends on who built them."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import runpy
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import jsonschema
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

TABULAR = runpy.run_path("3rdparty/python/pythons.py")["TABULAR_LAYERS"]
SCHEMAS = Path("/usr/share/gocode/src/github.com/opencontainers/image-spec/schema")

Document = dict[str, Any]


@pytest.fixture(scope="module")
def tar(archive: Path) -> Iterator[tarfile.TarFile]:
    with tarfile.open(archive) as tar:
        yield tar


def content(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    assert file is not None, f"{name} is a file"
    return file


def document(tar: tarfile.TarFile, name: str) -> Any:
    return json.load(content(tar, name))


def blob(descriptor: Document) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


@pytest.fixture(scope="module")
def layout(tar: tarfile.TarFile) -> Document:
    return document(tar, "index.json")


@pytest.fixture(scope="module")
def index(tar: tarfile.TarFile, layout: Document) -> Document:
    """One manifest for each platform."""
    (descriptor,) = layout["manifests"]
    return document(tar, blob(descriptor))


@pytest.fixture(scope="module", params=["linux/amd64", "linux/arm64"])
def platform(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def manifest(tar: tarfile.TarFile, index: Document, platform: str) -> Document:
    return manifests(tar, index)[platform]


def manifests(tar: tarfile.TarFile, index: Document) -> dict[str, Document]:
    return {
        "{os}/{architecture}".format(**found["platform"]): document(tar, blob(found))
        for found in index["manifests"]
    }


@pytest.fixture(scope="module")
def config(tar: tarfile.TarFile, manifest: Document) -> Document:
    return document(tar, blob(manifest["config"]))


class Hashed:
    """A stream, and the digest and size of what was read from it."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._sha256, self.size = stream, hashlib.sha256(), 0

    def read(self, size: int = 1 << 20) -> bytes:
        data = self._stream.read(size)
        self._sha256.update(data)
        self.size += len(data)
        return data

    def finish(self) -> str:
        while self.read():
            pass
        return f"sha256:{self._sha256.hexdigest()}"


class Layer:
    def __init__(self, name: str, blob: IO[bytes]) -> None:
        packed: Any = Hashed(blob)
        unpacked: Any = Hashed(gzip.GzipFile(fileobj=packed))
        with tarfile.open(fileobj=unpacked, mode="r|", bufsize=1 << 20) as files:
            self.members = list(files)
        self.description = {
            "what": name,
            "diff_id": unpacked.finish(),
            "digest": packed.finish(),
            "size": packed.size,
            "unpacked": unpacked.size,
        }
        if packages := sorted(found for member in self.members for found in installed(member.name)):
            self.description["packages"] = packages


def installed(path: str) -> list[str]:
    """The `name==version` of the wheel that was installed if there is such a file."""
    match = re.search(r"-packages/([^/-]+)-([^/-]+)\.dist-info/WHEEL$", path)
    return [f"{re.sub(r'[._]+', '-', match[1]).lower()}=={match[2]}"] if match else []


@pytest.fixture(scope="module")
def layers(tar: tarfile.TarFile, manifest: Document, config: Document) -> list[Layer]:
    """The layers, read to their ends."""
    return [
        Layer(history["created_by"], content(tar, blob(descriptor)))
        for descriptor, history in zip(manifest["layers"], config["history"], strict=True)
    ]


@pytest.mark.parametrize("name", ["layout", "index", "top", "manifest", "config"])
def test_documents_follow_the_oci_schemas(name, tar, layout, index, manifest, config):
    if not SCHEMAS.exists():
        pytest.skip("no schemas here: apt-get install golang-github-opencontainers-image-spec-dev")

    def schema(file: str) -> Document:
        return json.loads((SCHEMAS / file).read_text())

    def resource(uri: str) -> Resource:
        return DRAFT4.create_resource(schema(PurePosixPath(uri).name))

    # References name other files of the folder.
    registry = Registry(retrieve=resource)  # type: ignore[call-arg]
    documents = {
        "layout": ("image-layout", document(tar, "oci-layout")),
        "top": ("image-index", layout),
        "index": ("image-index", index),
        "manifest": ("image-manifest", manifest),
        "config": ("config", config),
    }
    kind, found = documents[name]
    jsonschema.Draft4Validator(schema(f"{kind}-schema.json"), registry=registry).validate(found)


def test_image_json_describes_what_is_there(
    description, platform, tar, layout, manifest, config, layers
):
    assert description["reference"] == "numerai_predict_py_3_11:latest"
    assert description["digest"] == Hashed(content(tar, blob(layout["manifests"][0]))).finish()
    assert f"{config['os']}/{config['architecture']}" == platform
    described = description["platforms"][platform]
    assert set(described["inputs"]) == {layer.description["what"] for layer in layers}
    assert described == {
        "digest": f"sha256:{hashlib.sha256(canonical(manifest)).hexdigest()}",
        "config_digest": Hashed(content(tar, blob(manifest["config"]))).finish(),
        "labels": config["config"]["Labels"],
        "layers": described["layers"],
        "inputs": described["inputs"],
    }
    # What was left out of a layer cannot be seen in it.
    told = [{key: layer[key] for key in layer if key != "omitted"} for layer in described["layers"]]
    assert told == [layer.description for layer in layers]


def canonical(document: Document) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def test_documents_name_each_other_by_digest_and_size(tar, layout, index, manifest, config, layers):
    for descriptor in (*layout["manifests"], *index["manifests"], manifest["config"]):
        file = Hashed(content(tar, blob(descriptor)))
        assert (file.finish(), file.size) == (descriptor["digest"], descriptor["size"])
    for descriptor, layer in zip(manifest["layers"], layers, strict=True):
        assert descriptor["digest"] == layer.description["digest"]
        assert descriptor["size"] == layer.description["size"]
    assert config["rootfs"]["diff_ids"] == [layer.description["diff_id"] for layer in layers]


def test_nothing_else_is_carried_along(tar, layout, index):
    descriptors = [*layout["manifests"], *index["manifests"]]
    for manifest in manifests(tar, index).values():
        descriptors += [manifest["config"], *manifest["layers"]]
    documents = ["oci-layout", "index.json", "manifest.json"]
    assert tar.getnames() == [*documents, *sorted({*map(blob, descriptors)})]


def test_docker_finds_the_blobs_of_this_machine(tar, description, host, index):
    manifest = manifests(tar, index)[host]
    assert document(tar, "manifest.json") == [
        {
            "Config": blob(manifest["config"]),
            "RepoTags": [description["reference"]],
            "Layers": [blob(descriptor) for descriptor in manifest["layers"]],
        }
    ]


def test_members_say_nothing_about_the_build(tar, layers):
    members = [*tar, *(member for layer in layers for member in layer.members)]
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    assert len({member.mtime for member in members}) == 1
    assert {key for member in members for key in member.pax_headers} <= {"path", "linkpath"}
    for layer in layers:
        names = [member.name for member in layer.members]
        assert names == sorted(set(names)), "sorted, nothing twice"


def test_members_are_plain_and_lie_in_folders_of_the_same_layer(layers):
    for layer in layers:
        seen = {"."}
        for member in layer.members:
            assert member.isreg() or member.issym() or member.isdir(), member.name
            assert not member.mode & 0o6000, f"{member.name} makes someone another user"
            assert not member.mode & 0o002 or member.issym() or member.name == "tmp", member.name
            path = PurePosixPath(member.name)
            assert str(path.parent) in seen and ".." not in path.parts, member.name
            if member.isdir():
                seen.add(member.name)


def test_no_layer_hides_what_another_holds(layers):
    holders = Counter(
        member.name for layer in layers for member in layer.members if not member.isdir()
    )
    # Each layer of libraries brings the cache of all so far.
    assert {name for name, count in holders.items() if count > 1} == {"etc/ld.so.cache"}
    # A real folder would replace the link to the one below /usr.
    merged = {"bin", "sbin", "lib", "lib64"}
    names = [member for layer in layers for member in layer.members if member.name in merged]
    assert {member.name for member in names if member.issym()} == merged
    assert len(names) == len(merged)


def test_an_image_without_packages_is_small(layers):
    sizes = {layer.description["what"]: layer.description["unpacked"] for layer in layers}
    # python:3.11-slim has about 130 MB.
    assert sizes["os"] + sizes["cpython311"] < 60_000_000


def test_the_image_is_small_and_a_new_release_resends_little(layers):
    sizes = [layer.description["size"] for layer in layers]
    assert sum(sizes) < 450_000_000
    assert sum(layer.description["unpacked"] for layer in layers) < 1_300_000_000
    # What a patch release of one package changes is its layer.
    assert max(sizes) < 0.15 * sum(sizes)


@pytest.mark.parametrize("name", TABULAR)
def test_a_layer_holds_exactly_the_pinned_packages(name, layers):
    (layer,) = (layer for layer in layers if layer.description["what"] == f"py311-{name}")
    folders = {PurePosixPath(member.name) for member in layer.members if member.isdir()}
    names = [folder.stem for folder in folders if folder.match("dist-packages/*.dist-info")]
    installed = {(canonicalize_name(name.split("-")[0]), name.split("-")[1]) for name in names}

    lines = Path(f"3rdparty/python/py311/{name}.txt").read_text().splitlines()
    pins = [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalpha()]
    assert installed == {
        (canonicalize_name(pin.name), str(pin.specifier).removeprefix("=="))
        for pin in pins
        if not pin.marker or pin.marker.evaluate()
    }
