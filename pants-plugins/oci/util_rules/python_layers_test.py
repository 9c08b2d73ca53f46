from __future__ import annotations

import json

import pytest
from pants.engine.addresses import Address
from pants.engine.fs import DigestContents
from pants.testutil.rule_runner import RuleRunner

from oci.testutil.image_runner import LOCK, image_runner
from oci.util_rules.layer import Layer, LayerOf
from oci.util_rules.platform import PLATFORMS

BUILD = f"""
debian_python_interpreter(
    name="python",
    lock="{LOCK}",
    set="python3.11",
    version="3.11",
    site_packages="/usr/local/lib/python3.11/dist-packages",
)
python_sources_layer(name="one", interpreter=":python", dependencies=["src/one"])
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
