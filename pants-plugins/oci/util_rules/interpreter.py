from __future__ import annotations

from dataclasses import dataclass

from pants.engine.addresses import UnparsedAddressInputs
from pants.engine.fs import EMPTY_DIGEST, Digest
from pants.engine.rules import Get, collect_rules, rule
from pants.engine.target import Targets

from oci.target_types import (
    CpythonLockField,
    InterpreterField,
    PythonVersionField,
    SitePackagesField,
)
from oci.util_rules import toolchain
from oci.util_rules.cpython import Cpython, CpythonFieldSet, CpythonRequest
from oci.util_rules.platform import ImagePlatform
from oci.util_rules.toolchain import Toolchain


@dataclass(frozen=True)
class InterpreterRequest:
    field: InterpreterField
    platform: ImagePlatform


@dataclass(frozen=True)
class Interpreter:
    """The interpreter of an image, and one of its minor version to compile with on this machine.

    Attributes:
        version: The minor version.
        python: The command that starts the build machine's interpreter in a `ToolProcess` ...
        digest: ... that has this as its `interpreter`.
    """

    version: str
    site_packages: str
    python: tuple[str, ...]
    digest: Digest = EMPTY_DIGEST


@rule
async def interpreter(request: InterpreterRequest, tools: Toolchain) -> Interpreter:
    inputs = request.field.to_unparsed_address_inputs()
    target = (await Get(Targets, UnparsedAddressInputs, inputs)).expect_single()
    version = target[PythonVersionField].value
    assert version is not None, "the field is required"
    if target.has_field(CpythonLockField):
        fields = CpythonFieldSet.create(target)
        found = await Get(Cpython, CpythonRequest(fields, request.platform))
        packages = f"/usr/local/lib/python{version}/site-packages"
        return Interpreter(version, packages, found.python, found.python_digest)
    if version != toolchain.VERSION:
        raise ValueError(
            f"{target.address} is Python {version}, but the toolchain's interpreter, which compiles "
            f"for interpreters of Debian, is {toolchain.VERSION}."
        )
    site_packages = target[SitePackagesField].value
    assert site_packages is not None, "the field is required"
    return Interpreter(version, site_packages, tools.python)


def rules():
    return collect_rules()
