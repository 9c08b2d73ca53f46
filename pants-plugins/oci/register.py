"""Hermetic, reproducible container images, made without a container engine."""

from oci import subsystem
from oci.goals import package, publish, run, test
from oci.target_types import (
    DebianLayer,
    DebianPythonInterpreter,
    OciImage,
    PythonPackagesLayer,
    PythonSourcesLayer,
    StandalonePythonInterpreter,
)
from oci.util_rules import (
    cpython,
    debian_layer,
    debian_packages,
    host_interpreter,
    image,
    interpreter,
    layer,
    programs,
    python_layers,
    release_tools,
    sbom,
    standalone_layer,
    toolchain,
)


def target_types():
    return [
        DebianLayer,
        DebianPythonInterpreter,
        StandalonePythonInterpreter,
        PythonPackagesLayer,
        PythonSourcesLayer,
        OciImage,
    ]


def rules():
    return [
        *package.rules(),
        *publish.rules(),
        *run.rules(),
        *subsystem.rules(),
        *test.rules(),
        *cpython.rules(),
        *debian_layer.rules(),
        *debian_packages.rules(),
        *host_interpreter.rules(),
        *image.rules(),
        *interpreter.rules(),
        *layer.rules(),
        *python_layers.rules(),
        *programs.rules(),
        *release_tools.rules(),
        *sbom.rules(),
        *standalone_layer.rules(),
        *toolchain.rules(),
    ]
