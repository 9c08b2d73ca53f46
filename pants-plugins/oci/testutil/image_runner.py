"""A RuleRunner that builds layers and images, with the toolchain that this repository locks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable

from pants.backend.python.target_types import PythonSourcesGeneratorTarget, PythonSourceTarget
from pants.backend.python.target_types_rules import rules as python_target_rules
from pants.backend.python.util_rules import python_sources
from pants.core.goals import publish
from pants.core.goals.package import BuiltPackage
from pants.core.goals.test import TestResult
from pants.core.target_types import FileTarget
from pants.core.util_rules.partitions import Partitions
from pants.engine.rules import QueryRule
from pants.testutil.rule_runner import RuleRunner

from oci import register
from oci.goals.package import PackageImageFieldSet
from oci.goals.test import ImageTestFieldSet, ImageTestFiles, ImageTestRequest
from oci.util_rules.debian_packages import DebianMirrors, SuiteMirrorsRequest
from oci.util_rules.image import ImagePlatforms, ImagePlatformsRequest
from oci.util_rules.layer import Layer, LayerOf
from oci.util_rules.release_tools import ReleaseTools

LOCK = "3rdparty/debian/bookworm.lock"


def image_runner(*, mirror: str = "", options: Iterable[str] = ()) -> RuleRunner:
    """Looks for Debian packages at `mirror` first, then where this machine finds bookworm's.

    What was downloaded is kept; what was built is built again.
    """
    runner = RuleRunner(
        rules=[
            *register.rules(),
            *publish.rules(),
            *python_sources.rules(),
            *python_target_rules(),
            QueryRule(BuiltPackage, [PackageImageFieldSet]),
            QueryRule(Partitions, [ImageTestRequest.PartitionRequest]),
            QueryRule(ImageTestFiles, [ImageTestFieldSet]),
            QueryRule(TestResult, [ImageTestRequest.Batch]),
            QueryRule(DebianMirrors, [SuiteMirrorsRequest]),
            QueryRule(ImagePlatforms, [ImagePlatformsRequest]),
            QueryRule(Layer, [LayerOf]),
            QueryRule(ReleaseTools, []),
        ],
        target_types=[
            *register.target_types(),
            FileTarget,
            PythonSourcesGeneratorTarget,
            PythonSourceTarget,
        ],
        ca_certs_path=os.environ.get("SSL_CERT_FILE"),
        bootstrap_args=["--no-local-cache"],
    )
    runner.write_files({LOCK: Path(LOCK).read_text()})
    runner.set_options([], env_inherit={"DEBIAN_MIRROR"})
    bookworm = runner.request(DebianMirrors, [SuiteMirrorsRequest("bookworm")]).addresses
    runner.set_options(
        ["--source-root-patterns=/src", "--python-infer-use-rust-parser", *options],
        env={"DEBIAN_MIRROR": " ".join((mirror, *bookworm))},
        env_inherit={"PATH", "PYENV_ROOT", "HOME"},
    )
    return runner
