from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oci.sbom.lock import LockedFile, installed_from, read_lock

FILES = {
    name: f"sha256:{number:064x}"
    for number, name in enumerate(
        (
            "Tiny.Lib-1.0.tar.gz",
            "tiny_lib-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "tiny_lib-1.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "tiny_lib-1.0-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
            "tiny_lib-1.0-1-py3-none-any.whl",
            "tiny_lib-1.0-2-py3-none-any.whl",
        )
    )
}
LOCK = """
[[package]]
name = "Tiny.Lib"
version = "1.0"
files = [%s]

[[package]]
name = "tiny-lib"
version = "2.0"
files = [{file = "tiny_lib-2.0-py3-none-any.whl", hash = "sha256:2"}]
"""


def wheel(*tags: str, version: str = "1.0", build: str = "") -> dict[str, Any]:
    return {"name": "tiny_lib", "version": version, "file": {"tags": tags, "build": build}}


AMD64 = ("cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux2014_x86_64")


@pytest.mark.parametrize(
    "facts, number",
    [
        (wheel(*AMD64), 1),
        # Some builders write compressed sets.
        (wheel("cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64"), 1),
        (wheel(*(tag.replace("x86_64", "aarch64") for tag in AMD64)), 3),
        (wheel("py3-none-any", build="2"), 5),
        (wheel("py3-none-any", version="2.0"), 2),
        # Nothing is guessed.
        (wheel("py3-none-any"), None),
        (wheel("cp311-cp311-linux_x86_64"), None),
        (wheel("py3-none-any", version="2.0+cpu"), None),
    ],
)
def test_tags_and_build_tell_the_file(tmp_path: Path, facts: dict[str, Any], number: int) -> None:
    listed = ", ".join(f'{{file = "{name}", hash = "{sha}"}}' for name, sha in FILES.items())
    file = tmp_path / "poetry.lock"
    file.write_text(LOCK % listed)
    found = installed_from(facts, read_lock(file))
    if number is None:
        assert found is None
    elif facts["version"] == "2.0":
        assert found == LockedFile("tiny_lib-2.0-py3-none-any.whl", "2")
    else:
        assert found == LockedFile([*FILES][number], f"{number:064x}")
