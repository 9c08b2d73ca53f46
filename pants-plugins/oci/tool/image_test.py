from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, Sequence

import pytest

from oci.tool.compatibility import IncompatibleImage
from oci.tool.image import write_image
from oci.tool.layer import EPOCH, Tree, write_layer

RUN = {"Entrypoint": ["/usr/bin/python3"], "Env": ["LANG=C.UTF-8"]}


def layer(folder: Path, what: str, content: str) -> Path:
    folder.mkdir()
    tree = Tree()
    tree.file("etc/content", content)
    write_layer(tree, folder, what, {what: "1"}, lambda data: gzip.compress(data, mtime=0))
    return folder


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """The first and the last hold the same."""
    contents = {"os": "same", "python": "other", "copy": "same"}
    return [layer(tmp_path / what, what, content) for what, content in contents.items()]


class Image:
    def __init__(
        self,
        layers: list[Path],
        folder: Path,
        reference: str = "tiny:1.0",
        platforms: Sequence[str] = ("linux/arm64",),
        load: str = "linux/amd64",
    ) -> None:
        folder.mkdir()
        write_image({name: layers for name in platforms}, reference, RUN, load, folder)
        self.summary = json.loads((folder / "image.json").read_text())
        self.archive = (folder / "image.tar").read_bytes()
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as tar:
            self.members = tar.getmembers()
            self.files = {m.name: tar.extractfile(m).read() for m in self.members}  # type: ignore
        self.index = json.loads(self.files["index.json"])
        if len(platforms) == 1:
            self.manifest = self.blob(self.index["manifests"][0])
            self.config = self.blob(self.manifest["config"])

    def blob(self, descriptor: dict[str, Any]) -> Any:
        content = self.files[f"blobs/{descriptor['digest'].replace(':', '/')}"]
        assert len(content) == descriptor["size"]
        return json.loads(content)


def test_every_blob_is_what_its_name_says(layers: list[Path], tmp_path: Path) -> None:
    image = Image(layers, tmp_path / "image")
    blobs = {name: content for name, content in image.files.items() if name.startswith("blobs/")}
    assert blobs.keys() == {f"blobs/sha256/{hashlib.sha256(b).hexdigest()}" for b in blobs.values()}


def test_equal_layers_are_stored_once(layers: list[Path], tmp_path: Path) -> None:
    image = Image(layers, tmp_path / "image")
    assert len(image.manifest["layers"]) == len(image.config["rootfs"]["diff_ids"]) == 3
    stored = [member.name for member in image.members if member.name.startswith("blobs/")]
    assert len(stored) == len({*stored}) == 2 + len(["manifest", "config"])


def test_manifest_and_configuration_describe_the_layers(layers: list[Path], tmp_path: Path) -> None:
    image = Image(layers, tmp_path / "image")
    packed = [(folder / "layer.tar.gz").read_bytes() for folder in layers]
    assert image.manifest["layers"] == [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
            "size": len(content),
        }
        for content in packed
    ]
    assert image.config["rootfs"]["diff_ids"] == [
        f"sha256:{hashlib.sha256(gzip.decompress(content)).hexdigest()}" for content in packed
    ]
    assert [entry["created_by"] for entry in image.config["history"]] == ["os", "python", "copy"]
    assert (image.config["os"], image.config["architecture"]) == ("linux", "arm64")
    assert image.index["manifests"][0]["platform"] == {"os": "linux", "architecture": "arm64"}
    assert image.config["config"] == {**RUN, "Labels": {}}


def test_docker_finds_the_same_image(layers: list[Path], tmp_path: Path) -> None:
    image = Image(layers, tmp_path / "image")
    (docker,) = json.loads(image.files["manifest.json"])
    assert docker["RepoTags"] == ["tiny:1.0"]
    assert json.loads(image.files[docker["Config"]]) == image.config
    digests = [f"sha256:{Path(path).name}" for path in docker["Layers"]]
    assert digests == [described["digest"] for described in image.manifest["layers"]]
    assert {*docker["Layers"]} <= image.files.keys()


def test_the_summary_agrees_with_the_archive(layers: list[Path], tmp_path: Path) -> None:
    image = Image(layers, tmp_path / "image")
    described = [json.loads((folder / "layer.json").read_text()) for folder in layers]
    assert image.summary == {
        "reference": "tiny:1.0",
        "digest": image.index["manifests"][0]["digest"],
        "platforms": {
            "linux/arm64": {
                "digest": image.index["manifests"][0]["digest"],
                "config_digest": image.manifest["config"]["digest"],
                "labels": {},
                "inputs": {what: {what: "1"} for what in ("os", "python", "copy")},
                "layers": [
                    {key: each[key] for key in ("what", "digest", "diff_id", "size", "unpacked")}
                    for each in described
                ],
            }
        },
    }


@pytest.mark.parametrize("load", ["linux/amd64", "linux/arm64"])
def test_an_image_of_two_platforms_is_an_index(
    layers: list[Path], tmp_path: Path, load: str
) -> None:
    platforms = ("linux/amd64", "linux/arm64")
    image = Image(layers, tmp_path / "image", platforms=platforms, load=load)
    (top,) = image.index["manifests"]
    assert top["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert image.summary["digest"] == top["digest"]
    manifests = {
        f"linux/{each['platform']['architecture']}": each for each in image.blob(top)["manifests"]
    }
    assert manifests.keys() == {*platforms} == image.summary["platforms"].keys()
    for platform, descriptor in manifests.items():
        manifest = image.blob(descriptor)
        alone = Image(layers, tmp_path / platform.replace("/", "-"), platforms=(platform,))
        assert descriptor["digest"] == alone.index["manifests"][0]["digest"]
        assert image.summary["platforms"][platform] == alone.summary["platforms"][platform]
        assert f"linux/{image.blob(manifest['config'])['architecture']}" == platform
    (docker,) = json.loads(image.files["manifest.json"])
    assert f"linux/{json.loads(image.files[docker['Config']])['architecture']}" == load


def test_a_layer_that_holds_nothing_is_left_out(layers: list[Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    facts = {"missing": ["a"]}
    write_layer(Tree(), empty, "empty", {"empty": "1"}, lambda data: data, facts)
    image = Image([*layers, empty], tmp_path / "image")
    without = Image(layers, tmp_path / "without")
    assert image.manifest["layers"] == without.manifest["layers"]
    assert image.config["config"]["Labels"] == {"oci.missing_packages": "a"}
    assert [entry["created_by"] for entry in image.config["history"]] == ["os", "python", "copy"]
    described, expected = (each.summary["platforms"]["linux/arm64"] for each in (image, without))
    assert described["layers"] == expected["layers"]
    assert described["inputs"] == expected["inputs"]
    assert len(image.members) == len(without.members)


def test_the_summary_tells_the_packages_of_layers(layers: list[Path], tmp_path: Path) -> None:
    wheels = [{"name": name, "version": "1.0", "tags": []} for name in ("b", "A.c_d")]
    tell(layers[1], {"wheels": wheels, "omitted": {"files": 1, "bytes": 2}})
    tell(layers[2], {"wheels": []})
    image = Image(layers, tmp_path / "image")
    found = image.summary["platforms"]["linux/arm64"]["layers"]
    assert found[1]["packages"] == ["a-c-d==1.0", "b==1.0"]
    assert found[1]["omitted"] == {"files": 1, "bytes": 2}
    assert [layer["what"] for layer in found if "packages" in layer] == ["python"]


def tell(layer: Path, facts: dict[str, Any]) -> None:
    """Adds facts to the layer's description."""
    description = layer / "layer.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), **facts}))


def test_layers_say_what_the_image_is_to_be_labelled_with(
    layers: list[Path], tmp_path: Path
) -> None:
    told: list[dict[str, Any]] = [
        {"labels": {"a": "1"}, "from_cpu_index": []},
        {"missing": ["z", "b"], "from_cpu_index": ["b==1+cpu"]},
        {"missing": ["b"], "from_cpu_index": ["a==1+cpu"]},
    ]
    for number, facts in enumerate(told):
        tell(layers[number], facts)
    image = Image(layers, tmp_path / "image")
    labels = {"a": "1", "oci.missing_packages": "b,z", "oci.cpu_index": "a==1+cpu,b==1+cpu"}
    assert image.config["config"]["Labels"] == labels
    assert image.summary["platforms"]["linux/arm64"]["labels"] == labels


@pytest.mark.parametrize(
    "reference, name, tag",
    [
        ("tiny:1.0", "docker.io/library/tiny:1.0", "1.0"),
        (
            "registry.invalid:5000/team/tiny:latest",
            "registry.invalid:5000/team/tiny:latest",
            "latest",
        ),
    ],
)
def test_names(layers: list[Path], tmp_path: Path, reference: str, name: str, tag: str) -> None:
    annotations = Image(layers, tmp_path / "image", reference).index["manifests"][0]["annotations"]
    assert annotations == {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": tag,
    }


def test_layers_that_do_not_fit_make_no_image(layers: list[Path], tmp_path: Path) -> None:
    tell(layers[1], {"for_python": "3.11"})
    with pytest.raises(IncompatibleImage, match="python is for Python 3.11, and no layer holds it"):
        Image(layers, tmp_path / "image")
    assert not [*(tmp_path / "image").iterdir()]


def test_the_name_does_not_change_the_digest(layers: list[Path], tmp_path: Path) -> None:
    one, two = Image(layers, tmp_path / "1"), Image(layers, tmp_path / "2", "other:2.0")
    assert one.summary["digest"] == two.summary["digest"]


def test_the_archive_says_nothing_of_who_made_it(layers: list[Path], tmp_path: Path) -> None:
    one, two = Image(layers, tmp_path / "1"), Image(layers, tmp_path / "2")
    assert one.archive == two.archive
    facts = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in one.members}
    assert facts == {(EPOCH, 0, 0, "", "", 0o644)}
