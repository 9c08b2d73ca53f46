from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from pants.engine.addresses import Address
from pants.engine.fs import DigestContents
from pants.engine.internals.scheduler import ExecutionError
from pants.testutil.rule_runner import RuleRunner

from oci.testutil.image_runner import LOCK, image_runner
from oci.util_rules.layer import Layer, LayerOf
from oci.util_rules.platform import PLATFORMS

INTERPRETER = f"""
debian_python_interpreter(
    name="python",
    lock="{LOCK}",
    set="python3.11",
    version="3.11",
    site_packages="/usr/local/lib/python3.11/dist-packages",
)
"""
BUILD = f"""
{INTERPRETER}python_sources_layer(name="one", interpreter=":python", dependencies=["src/one"])
python_sources_layer(name="two", interpreter=":python", dependencies=["src/two"])
"""
FILES = {
    "images/BUILD": BUILD,
    "src/one/BUILD": "python_sources()",
    "src/one/mod.py": "import shared.mod\n",
    "src/two/BUILD": "python_sources()",
    "src/two/mod.py": "two = 1\n",
    "src/shared/BUILD": "python_sources()",
    "src/shared/mod.py": "shared = 1\n",
}


@pytest.fixture(scope="module")
def rule_runner() -> RuleRunner:
    return image_runner()


# Keeps what it is asked for where packages are installed.
FAKE_UV = """#!/bin/sh
/bin/mkdir -p installed
echo "$*" >> installed/asked
"""
PACKAGES = f"""
{INTERPRETER}python_packages_layer(
    name="torch", interpreter=":python", requirements="pins.txt", from_cpu_index=["torch"]
)
python_packages_layer(
    name="gpus", interpreter=":python", requirements="gpus.txt", only_for_gpus=True
)
"""


def packages_layer(name: str, *options: str) -> tuple[dict[str, Any], str]:
    """The description of a layer of PACKAGES, and what uv was asked to make it."""
    runner = image_runner(options=options)
    program = FAKE_UV.encode()
    runner.write_files(
        {
            "images/BUILD": PACKAGES,
            "pins.txt": "torch==1 --hash=sha256:00\n",
            "gpus.txt": "cuda==1 --hash=sha256:00\n",
            ".setup/current/tools/bin/uv": program,
            ".setup/current/uv.digest": f"{hashlib.sha256(program).hexdigest()} {len(program)}",
        }
    )
    address = Address("images", target_name=name)
    layer = runner.request(Layer, [LayerOf(address, PLATFORMS["linux/amd64"])])
    held = {file.path: file.content for file in runner.request(DigestContents, [layer.digest])}
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(held["layer.tar.gz"]))) as tar:
        asked = [tar.extractfile(member) for member in tar if Path(member.name).name == "asked"]
        text = "".join(file.read().decode() for file in asked if file is not None)
    return json.loads(held["layer.json"]), text


@pytest.mark.parametrize("name", ["torch", "gpus"])
def test_without_a_cpu_index_the_lock_is_installed(name: str) -> None:
    asked = packages_layer(name)[1].splitlines()
    assert len(asked) == 1 and asked[0].startswith("pip install ") and "index" not in asked[0]


def test_a_cpu_index_is_asked_for_the_packages_that_are_named() -> None:
    described, asked = packages_layer("torch", "--oci-cpu-index=https://index.invalid/cpu")
    compiled, *installed = asked.splitlines()
    assert compiled.startswith("pip compile ") and len(installed) == 2
    assert "--default-index https://index.invalid/cpu" in compiled
    assert "index.invalid" not in json.dumps(described)


def test_with_a_cpu_index_a_layer_for_gpus_holds_nothing() -> None:
    described, asked = packages_layer("gpus", "--oci-cpu-index=/wheels")
    assert (asked, described["missing"]) == ("", ["cuda"])


def test_the_cpu_index_is_the_same_wherever_one_is() -> None:
    with pytest.raises(ExecutionError, match="is a URL or an absolute path; not wheels"):
        packages_layer("gpus", "--oci-cpu-index=wheels")


def test_a_password_is_not_shared() -> None:
    secret = "--oci-cpu-index=https://ada:s3cret@index.invalid/cpu"
    writes = ("--remote-cache-write", "--remote-store-address=grpc://127.0.0.1:1")
    with pytest.raises(ExecutionError, match="cpu_index holds a password") as error:
        packages_layer("torch", secret, *writes)
    assert "s3cret" not in str(error.value)


def layers(rule_runner: RuleRunner, files: dict[str, str]) -> dict[str, str]:
    rule_runner.write_files(files)
    digests = {}
    for name in ("one", "two"):
        request = LayerOf(Address("images", target_name=name), PLATFORMS["linux/amd64"])
        layer = rule_runner.request(Layer, [request])
        contents = rule_runner.request(DigestContents, [layer.digest])
        held = {file.path: file.content for file in contents}
        digests[name] = json.loads(held["layer.json"])["digest"]
    return digests


@pytest.mark.parametrize(
    "edited, changes",
    [
        ({"src/one/mod.py": "import shared.mod, os\n"}, {"one"}),
        ({"src/two/new.py": "two = 2\n"}, {"two"}),
        ({"src/shared/mod.py": "shared = 2\n"}, {"one"}),
        ({"src/one/BUILD": "python_sources(tags=['new'])"}, set()),
    ],
    ids=["source", "new-source", "dependency", "nothing"],
)
def test_an_edit_changes_its_own_layer(
    rule_runner: RuleRunner, edited: dict[str, str], changes: set[str]
) -> None:
    before = layers(rule_runner, FILES)
    after = layers(rule_runner, edited)
    assert {name for name in before if before[name] != after[name]} == changes
