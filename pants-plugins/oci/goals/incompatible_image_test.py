from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from pants.core.goals.package import BuiltPackage
from pants.engine.addresses import Address
from pants.engine.internals.scheduler import ExecutionError

from oci.goals.package import PackageImageFieldSet
from oci.testutil.debs import Member, make_deb
from oci.testutil.elf import make_elf
from oci.testutil.image_runner import image_runner

BUILD = """
debian_layer(name="layer", lock="tiny.lock", set="tiny")
oci_image(name="image", repository="tiny", layers=[":layer"], entrypoint=["/usr/bin/tiny"])
"""


def test_an_image_that_could_not_run_is_not_built(tmp_path: Path) -> None:
    program = make_elf(needed=["libgone.so.1"], machine="arm64")
    deb = make_deb("tiny", {"usr/bin/tiny": Member(program, 0o755)})
    (tmp_path / "tiny.deb").write_bytes(deb)
    locked = {
        **{"name": "tiny", "version": "1", "architecture": "all", "path": "tiny.deb"},
        **{"sha256": hashlib.sha256(deb).hexdigest(), "size": len(deb), "set": "tiny"},
    }
    runner = image_runner(mirror=f"file://{tmp_path}")
    lock = json.dumps({"suite": "tiny-suite", "packages": [locked]})
    runner.write_files({"images/BUILD": BUILD, "tiny.lock": lock})
    target = runner.get_target(Address("images", target_name="image"))
    with pytest.raises(ExecutionError) as failure:
        runner.request(BuiltPackage, [PackageImageFieldSet.create(target)])
    shown = str(failure.value)
    assert "\nThe layers do not make an image for linux/amd64:\n" in shown
    assert "- layer: usr/bin/tiny is for arm64, the image for amd64." in shown
    assert "- layer: usr/bin/tiny needs libgone.so.1, which no layer has." in shown
    assert "oci/tool/image.py" not in shown, "a message, not a traceback"
