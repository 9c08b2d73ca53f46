from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from typing import Mapping
from urllib.parse import urlsplit

from pants.backend.python.util_rules.python_sources import (
    PythonSourceFilesRequest,
    StrippedPythonSourceFiles,
)
from pants.engine.addresses import Addresses
from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.fs import (
    AddPrefix,
    Digest,
    DigestContents,
    MergeDigests,
    PathGlobs,
    RemovePrefix,
)
from pants.engine.process import ProcessResult
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import (
    DependenciesRequest,
    FieldSet,
    TransitiveTargets,
    TransitiveTargetsRequest,
)
from pants.engine.unions import UnionRule
from pants.option.global_options import GlobalOptions, GlobMatchErrorBehavior
from pants.util.frozendict import FrozenDict

from oci.subsystem import Oci
from oci.target_types import (
    FromCpuIndexField,
    InterpreterField,
    OnlyForGpusField,
    OptionalLibrariesField,
    PackagesOmitField,
    RequirementsField,
    SourcesLayerDependencies,
    StripField,
)
from oci.util_rules.interpreter import Interpreter, InterpreterRequest
from oci.util_rules.layer import Layer, LayerRequest
from oci.util_rules.programs import Uv
from oci.util_rules.toolchain import Toolchain, ToolProcess

# How uv reaches the package index and proves who it is; none of it shows in what it installs.
UV_ENVIRONMENT = (
    "UV_DEFAULT_INDEX",
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy"),
)


@dataclass(frozen=True)
class PythonPackagesLayerFieldSet(FieldSet):
    required_fields = (InterpreterField, RequirementsField)

    interpreter: InterpreterField
    requirements: RequirementsField
    omit: PackagesOmitField
    strip: StripField
    from_cpu_index: FromCpuIndexField
    only_for_gpus: OnlyForGpusField
    optional_libraries: OptionalLibrariesField


@dataclass(frozen=True)
class PythonPackagesLayerRequest(LayerRequest):
    field_set_type = PythonPackagesLayerFieldSet

    field_set: PythonPackagesLayerFieldSet


@dataclass(frozen=True)
class PythonSourcesLayerFieldSet(FieldSet):
    required_fields = (InterpreterField, SourcesLayerDependencies)

    interpreter: InterpreterField
    dependencies: SourcesLayerDependencies


@dataclass(frozen=True)
class PythonSourcesLayerRequest(LayerRequest):
    field_set_type = PythonSourcesLayerFieldSet

    field_set: PythonSourcesLayerFieldSet


@rule
async def build_packages_layer(
    request: PythonPackagesLayerRequest,
    toolchain: Toolchain,
    uv: Uv,
    oci: Oci,
    global_options: GlobalOptions,
) -> Layer:
    fields = request.field_set
    path = fields.requirements.value
    assert path is not None, "the field is required"
    origin = f"the `requirements` of {fields.address}"
    requirements = PathGlobs((path,), GlobMatchErrorBehavior.error, description_of_origin=origin)
    interpreter, file, contents, env = await MultiGet(
        Get(Interpreter, InterpreterRequest(fields.interpreter, request.platform)),
        Get(Digest, PathGlobs, requirements),
        Get(DigestContents, PathGlobs, requirements),
        Get(EnvironmentVars, EnvironmentVarsRequest(UV_ENVIRONMENT)),
    )
    if global_options.remote_cache_write:
        _check_no_password({**env, "[oci].cpu_index": oci.checked_cpu_index or ""})
    pins = {path: f"sha256:{hashlib.sha256(contents[0].content).hexdigest()}"}
    digest = await Get(Digest, MergeDigests((file, uv.digest)))
    result = await Get(
        ProcessResult,
        ToolProcess(
            (
                "packages",
                *(f"--what={fields.address.target_name}", f"--inputs={json.dumps(pins)}"),
                *(f"--libdeflate={toolchain.libdeflate}", "--uv=uv"),
                f"--python={shlex.join(interpreter.python)}",
                *(f"--requirements={path}", f"--for-python={interpreter.version}"),
                *(
                    f"--platform={request.platform.wheels}",
                    f"--site-packages={interpreter.site_packages}",
                ),
                *(f"--omit={pattern}" for pattern in fields.omit.value or ()),
                *(() if fields.strip.value else ("--no-strip",)),
                *(f"--optional-library={name}" for name in fields.optional_libraries.value or ()),
                *_of_cpu_index(fields, oci.checked_cpu_index),
            ),
            input_digest=digest,
            interpreter=interpreter.digest,
            description=f"Build the layer {fields.address} from {path}",
            # Gone with the process: Pants keeps the layer, and wheels of one full image are 7 GB.
            env=FrozenDict({**env, "UV_CACHE_DIR": ".uv-cache"}),
        ),
    )
    return Layer(await Get(Digest, RemovePrefix(result.output_digest, "out")))


def _check_no_password(addresses: Mapping[str, str]) -> None:
    """A shared cache keeps the command and environment of each process, for all who may read it."""
    for name, address in addresses.items():
        if urlsplit(address).password is not None:
            raise ValueError(
                f"{name} holds a password, which would be written to the cache that builds share: "
                "take an address without, or build with --no-remote-cache-write."
            )


def _of_cpu_index(fields: PythonPackagesLayerFieldSet, index: str | None) -> tuple[str, ...]:
    packages = fields.from_cpu_index.value or ()
    if index and fields.only_for_gpus.value:
        return ("--left-out",)
    if index and packages:
        return (f"--cpu-index={index}", *(f"--from-cpu-index={name}" for name in packages))
    return ()


@rule
async def build_sources_layer(request: PythonSourcesLayerRequest, toolchain: Toolchain) -> Layer:
    fields = request.field_set
    interpreter, roots = await MultiGet(
        Get(Interpreter, InterpreterRequest(fields.interpreter, request.platform)),
        Get(Addresses, DependenciesRequest(fields.dependencies)),
    )
    targets = await Get(TransitiveTargets, TransitiveTargetsRequest(roots))
    sources = await Get(StrippedPythonSourceFiles, PythonSourceFilesRequest(targets.closure))
    snapshot = sources.stripped_source_files.snapshot
    digest = await Get(Digest, AddPrefix(snapshot.digest, "source"))
    result = await Get(
        ProcessResult,
        ToolProcess(
            (
                "sources",
                *(f"--what={fields.address.target_name}", "--source=source"),
                f"--for-python={interpreter.version}",
                *(
                    f"--libdeflate={toolchain.libdeflate}",
                    f"--python={shlex.join(interpreter.python)}",
                    f"--site-packages={interpreter.site_packages}",
                ),
            ),
            input_digest=digest,
            interpreter=interpreter.digest,
            description=f"Build the layer {fields.address} from {len(snapshot.files)} files",
        ),
    )
    return Layer(await Get(Digest, RemovePrefix(result.output_digest, "out")))


def rules():
    return [
        *collect_rules(),
        UnionRule(LayerRequest, PythonPackagesLayerRequest),
        UnionRule(LayerRequest, PythonSourcesLayerRequest),
    ]
