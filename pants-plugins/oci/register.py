"""Hermetic, reproducible container images, made without a container engine."""

from oci import subsystem
from oci.goals import package, run, test
from oci.target_types import (
    DebianLayer,
    OciImage,
    OciImageTest,
    PythonInterpreter,
    PythonPackagesLayer,
    PythonSourcesLayer,
)
from oci.util_rules import (
    debian_layer,
    debian_packages,
    image,
    layer,
    programs,
    python_layers,
    toolchain,
)


def target_types():
    return [
        DebianLayer,
        PythonInterpreter,
        PythonPackagesLayer,
        PythonSourcesLayer,
        OciImage,
        OciImageTest,
    ]


def rules():
    return [
        *package.rules(),
        *run.rules(),
        *subsystem.rules(),
        *test.rules(),
        *debian_layer.rules(),
        *debian_packages.rules(),
        *image.rules(),
        *layer.rules(),
        *python_layers.rules(),
        *programs.rules(),
        *toolchain.rules(),
    ]
