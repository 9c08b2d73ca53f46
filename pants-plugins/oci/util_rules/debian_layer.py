from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from pants.engine.fs import Digest, MergeDigests, RemovePrefix
from pants.engine.process import ProcessResult
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import FieldSet
from pants.engine.unions import UnionRule

from oci.target_types import (
    DebianBaseField,
    DebianLockField,
    DebianSetField,
    OmitField,
    OptionalPythonVersionField,
    SymlinksField,
)
from oci.util_rules.debian_packages import DebianPackages, DebianPackagesRequest
from oci.util_rules.layer import Layer, LayerRequest
from oci.util_rules.toolchain import Toolchain, ToolProcess


@dataclass(frozen=True)
class DebianLayerFieldSet(FieldSet):
    required_fields = (DebianLockField, DebianSetField)

    lock: DebianLockField
    set: DebianSetField
    base: DebianBaseField
    omit: OmitField
    symlinks: SymlinksField
    python_version: OptionalPythonVersionField


@dataclass(frozen=True)
class DebianLayerRequest(LayerRequest):
    field_set_type = DebianLayerFieldSet

    field_set: DebianLayerFieldSet


@rule
async def build_debian_layer(request: DebianLayerRequest, toolchain: Toolchain) -> Layer:
    fields = request.field_set
    lock, name = fields.lock.value, fields.set.value
    assert lock is not None and name is not None, "both fields are required"
    packages, base = await MultiGet(
        Get(DebianPackages, DebianPackagesRequest(lock, (name,), request.platform)),
        Get(DebianPackages, DebianPackagesRequest(lock, fields.base.value or (), request.platform)),
    )
    digest = await Get(Digest, MergeDigests((packages.digest, base.digest)))
    python_version = fields.python_version.value
    pins = {
        package.name: f"{package.version} sha256:{package.sha256}" for package in packages.packages
    }
    result = await Get(
        ProcessResult,
        ToolProcess(
            (
                "debian",
                *(f"--what={fields.address.target_name}", f"--libdeflate={toolchain.libdeflate}"),
                f"--python={shlex.join(toolchain.python)}",
                f"--inputs={json.dumps(pins)}",
                f"--triplet={request.platform.triplet}",
                *((f"--python-version={python_version}",) if python_version else ()),
                *(f"--omit={pattern}" for pattern in fields.omit.value or ()),
                *(f"--link={path}={to}" for path, to in (fields.symlinks.value or {}).items()),
                *packages.files,
                "--base",
                *base.files,
            ),
            input_digest=digest,
            description=f"Build the layer {fields.address} from {len(packages.files)} Debian packages",
        ),
    )
    return Layer(await Get(Digest, RemovePrefix(result.output_digest, "out")))


def rules():
    return [*collect_rules(), UnionRule(LayerRequest, DebianLayerRequest)]
