"""Images that are made of pins alone have the digests that the repository expects, on every machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

EXPECTED = json.loads(Path("images/digests.json").read_text())


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_the_digest_is_the_expected_one(description: dict[str, Any], platform: str):
    name = description["reference"].partition(":")[0]
    image = description["platforms"].get(platform)
    if image is None or {"oci.interpreter", "oci.cpu_index"} & image["labels"].keys():
        pytest.skip(
            f"{name}: this machine's own interpreter, and none for others, or packages of a CPU "
            "index: no digest expected"
        )
    expected = EXPECTED.get(name, {}).get(platform)
    if expected is None:
        pytest.skip(f"{name}: never built of its pins before: `make digests` would note its digest")
    assert image["digest"] == expected, (
        "the image is not what images/digests.json says: run `make digests`, and commit what changes "
        "if it was meant to"
    )
