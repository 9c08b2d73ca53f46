from __future__ import annotations

import hashlib
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pants.core.goals.test import TestResult
from pants.core.util_rules.partitions import Partitions
from pants.engine.addresses import Address
from pants.engine.fs import DigestContents
from pants.engine.internals.scheduler import ExecutionError

from oci.goals import test
from oci.goals.test import ImageTestFieldSet, ImageTestFiles, ImageTestRequest
from oci.testutil.debs import make_deb
from oci.testutil.image_runner import image_runner
from oci.util_rules.platform import host_platform

TINY = make_deb("tiny", {"etc/tiny.conf": "version = 3.12\n"})
LOCK = {
    "suite": "tiny-suite",
    "packages": [
        {
            "name": "tiny",
            "version": "1",
            "architecture": "all",
            "path": "tiny.deb",
            "sha256": hashlib.sha256(TINY).hexdigest(),
            "size": len(TINY),
            "set": "tiny",
        }
    ],
}
BUILD = """
debian_layer(name="layer", lock="tiny.lock", set="tiny")

file(name="data", source="data.txt")

oci_image(
    name="image",
    repository="tiny",
    layers=[":layer"],
    entrypoint=["/usr/bin/tiny"],
    platforms=["linux/amd64", "linux/arm64"],
    tests=["image.yaml"],
    test_values={"version": "3.12"},
    test_dependencies=[":data"],
)

oci_image(name="untested", repository="tiny", layers=[":layer"], entrypoint=["/usr/bin/tiny"])
"""
YAML = """
image: {entrypoint: [/usr/bin/tiny]}
files: [{path: /etc/tiny.conf, contains: "^version = ${version}$"}]
"""
HOST = host_platform().name
(FOREIGN,) = {"linux/amd64", "linux/arm64"} - {HOST}


class Images:
    def __init__(self, mirror: Path) -> None:
        (mirror / "tiny.deb").write_bytes(TINY)
        self.mirror = f"file://{mirror}"
        self.start()

    def start(self, *options: str) -> None:
        self.runner = image_runner(mirror=self.mirror, options=options)
        # Where bubblewrap would be.
        self.runner.write_files({".setup/current/uv.digest": "0 0"})
        self.write(YAML)

    def write(self, yaml: str) -> None:
        files = {"BUILD": BUILD, "image.yaml": yaml, "data.txt": "data", "tiny.lock": LOCK}
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            self.runner.write_files({f"{'' if name == 'tiny.lock' else 'images/'}{name}": text})

    @property
    def field_set(self) -> ImageTestFieldSet:
        target = self.runner.get_target(Address("images", target_name="image"))
        return ImageTestFieldSet.create(target)

    def partitions(self) -> Partitions:
        return self.runner.request(
            Partitions, [ImageTestRequest.PartitionRequest((self.field_set,))]
        )

    def result(self, platform: str) -> TestResult:
        (partition,) = (each for each in self.partitions() if each.metadata.name == platform)
        batch = ImageTestRequest.Batch("", partition.elements, partition.metadata)
        return self.runner.request(TestResult, [batch])


@pytest.fixture
def tested(tmp_path: Path) -> Images:
    return Images(tmp_path)


def cases(result: TestResult, tested: Images) -> dict[str, list[str]]:
    """What the report has of each check: nothing if all is well."""
    assert result.xml_results is not None and result.partition_description is not None
    (file,) = tested.runner.request(DigestContents, [result.xml_results.digest])
    assert file.path == f"images.image-{result.partition_description.replace('/', '-')}.xml"
    return {
        str(case.get("name")): [child.tag for child in case]
        for case in ElementTree.fromstring(file.content).iter("testcase")
    }


def test_an_image_as_expected(tested: Images) -> None:
    result = tested.result(HOST)
    assert result.exit_code == 0, result.stdout + result.stderr
    assert cases(result, tested) == {"image: entrypoint": [], "files: /etc/tiny.conf": []}


def test_an_image_that_is_not(tested: Images) -> None:
    tested.write(YAML.replace("version =", "release ="))
    result = tested.result(HOST)
    assert result.exit_code == 1
    assert "FAILED   files: /etc/tiny.conf: expected content to match" in result.stdout
    assert cases(result, tested) == {"image: entrypoint": [], "files: /etc/tiny.conf": ["failure"]}


def test_commands_of_a_platform_that_cannot_run_here_are_skipped(
    tested: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test, "is_emulated", lambda _: False)
    tested.write(YAML + "commands: [{name: it starts}]\n")
    result = tested.result(FOREIGN)
    assert result.exit_code == 0, result.stdout + result.stderr
    assert f"skipped  commands: this machine cannot run {FOREIGN}: install qemu" in result.stdout
    assert cases(result, tested)["commands"] == ["skipped"]


def test_a_partition_for_every_platform_or_the_options(tested: Images) -> None:
    def descriptions() -> set[str | None]:
        return {partition.metadata.description for partition in tested.partitions()}

    assert descriptions() == {HOST, FOREIGN}
    tested.start("--oci-platform=host")
    assert descriptions() == {HOST}
    tested.start("--oci-test-skip")
    assert descriptions() == set()


def test_commands_find_files_and_expectations(tested: Images) -> None:
    digest = tested.runner.request(ImageTestFiles, [tested.field_set]).digest
    files = {each.path: each.content for each in tested.runner.request(DigestContents, [digest])}
    assert files.keys() == {"expectations.json", "images/data.txt"}
    (expectations,) = json.loads(files["expectations.json"])
    assert expectations["files"][0]["contains"] == [r"^version = 3\.12$"]


def test_an_image_without_tests_has_none(tested: Images) -> None:
    untested = tested.runner.get_target(Address("images", target_name="untested"))
    assert not ImageTestFieldSet.is_applicable(untested) or ImageTestFieldSet.opt_out(untested)


def test_a_mistake_in_the_expectations(tested: Images) -> None:
    tested.write("files: [{path: /a, mod: 0755}]")
    with pytest.raises(ExecutionError) as error:
        tested.result(HOST)
    assert "images/image.yaml: files[0] /a: unknown key 'mod'; allowed are" in str(error.value)
