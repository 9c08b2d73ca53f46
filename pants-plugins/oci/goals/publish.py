from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass

from pants.base.build_root import BuildRoot
from pants.core.goals.package import OutputPathField
from pants.core.goals.publish import (
    PublishFieldSet,
    PublishPackages,
    PublishProcesses,
    PublishRequest,
)
from pants.core.util_rules.adhoc_binaries import PythonBuildStandaloneBinary
from pants.engine.addresses import UnparsedAddressInputs
from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.fs import Digest, DigestContents, DigestSubset, MergeDigests, PathGlobs
from pants.engine.process import InteractiveProcess
from pants.engine.rules import Get, collect_rules, rule
from pants.engine.target import Targets

from oci.subsystem import Oci
from oci.target_types import (
    CpythonLockField,
    DebianLockField,
    LayersField,
    PlatformsField,
    RepositoryField,
    RequirementsField,
    SkipPushField,
)
from oci.tool.layer import EPOCH
from oci.util_rules.image import ImageFieldSet
from oci.util_rules.programs import Publisher
from oci.util_rules.release_tools import ReleaseTools

# Where credentials, certificates and the helpers that registries want are found, and what cosign asks
# an identity provider with.
ENVIRONMENT = (
    *("HOME", "PATH", "TMPDIR", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy"),
)
SECRETS = (
    *("COSIGN_PASSWORD", "SIGSTORE_ID_TOKEN"),
    *("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL"),
    # What credential helpers read.
    *(
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_PROFILE",
    ),
)
LOCKS = (RequirementsField, DebianLockField, CpythonLockField)


class Secret(str):
    """Pants logs the processes that it starts, when it is asked to."""

    def __repr__(self) -> str:
        return "<secret>"


class PublishImageRequest(PublishRequest):
    pass


@dataclass(frozen=True)
class PublishImageFieldSet(PublishFieldSet):
    publish_request_type = PublishImageRequest
    required_fields = ImageFieldSet.required_fields

    layers: LayersField
    output_path: OutputPathField
    platforms: PlatformsField
    repository: RepositoryField
    skip_push: SkipPushField


@dataclass(frozen=True)
class Inputs:
    """The files that pin what an image is made of: path and SHA-256."""

    sha256: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class InputsRequest:
    layers: LayersField


@rule
async def inputs(request: InputsRequest, oci: Oci) -> Inputs:
    layers = await Get(Targets, UnparsedAddressInputs, request.layers.to_unparsed_address_inputs())
    paths = {oci.toolchain_lock, *oci.provenance_inputs}
    for layer in layers:
        paths.update(str(layer[field].value) for field in LOCKS if layer.has_field(field))
    files = await Get(DigestContents, PathGlobs(sorted(paths)))
    return Inputs(tuple((file.path, hashlib.sha256(file.content).hexdigest()) for file in files))


@rule
async def publish_image(
    request: PublishImageRequest,
    oci: Oci,
    build_root: BuildRoot,
    publisher: Publisher,
    tools: ReleaseTools,
    python: PythonBuildStandaloneBinary,
) -> PublishProcesses:
    fields = request.field_set
    if fields.skip_push.value:
        name = str(fields.repository.value)
        reason = f"(by `{SkipPushField.alias}` on {fields.address})"
        return PublishProcesses([PublishPackages(names=(name,), description=reason)])
    if not oci.registry:
        raise ValueError("publish needs --oci-registry, such as registry.example/numerai.")
    if not oci.checked_git_ref:
        raise ValueError('publish needs --oci-git-ref="$(git rev-parse HEAD)".')

    folder = fields.output_path.value_or_default(file_ending=None)
    package = await Get(Digest, MergeDigests(package.digest for package in request.packages))
    summary = await Get(Digest, DigestSubset(package, PathGlobs([f"{folder}/image.json"])))
    (file,) = await Get(DigestContents, Digest, summary)
    if not oci.publish_incomplete:
        check_complete(fields, json.loads(file.content)["platforms"])

    pins = await Get(Inputs, InputsRequest(fields.layers))
    made_of = {
        "target": fields.address.spec,
        "git_ref": oci.git_ref,
        "builder": oci.builder_id,
        "inputs": dict(pins.sha256),
    }
    repository = f"{oci.registry.rstrip('/')}/{fields.repository.value}"
    tags = tuple(dict.fromkeys((oci.git_ref, *oci.publish_tags)))
    sign = signing_options(oci, build_root.path)
    of_key = (oci.signing_key or "").partition("env://")[2]
    secrets = (*SECRETS, *([of_key] if of_key else ()))
    env = await Get(EnvironmentVars, EnvironmentVarsRequest((*ENVIRONMENT, *secrets)))
    process = InteractiveProcess(
        (
            *(python.path, "publish.py", f"--programs={json.dumps(dict(tools.programs))}"),
            *(f"--repository={repository}", *(f"--tag={tag}" for tag in tags)),
            *(f"--made-of={json.dumps(made_of, sort_keys=True)}", f"--epoch={EPOCH}"),
            *(f"--sign={option}" for option in sign),
            *(["--plain-http"] if oci.publish_plain_http else ()),
            folder,
        ),
        input_digest=await Get(Digest, MergeDigests((package, publisher.digest, tools.digest))),
        env={name: Secret(value) if name in secrets else value for name, value in env.items()},
    )
    names = tuple(f"{repository}:{tag}" for tag in tags)
    return PublishProcesses([PublishPackages(names=names, process=process)])


def check_complete(fields: PublishImageFieldSet, built: dict) -> None:
    """Raises ValueError for an image that others could not use, or not make again."""
    missing = [name for name in fields.platforms.value or () if name not in built]
    own = [name for name in built if "oci.interpreter" in built[name]["labels"]]
    if not missing and not own:
        return
    reasons = [f"lacks {', '.join(missing)}"] if missing else []
    reasons += [f"has this machine's own interpreter for {', '.join(own)}"] if own else []
    raise ValueError(
        f"{fields.address} {' and '.join(reasons)}; nothing is published. Build where the pinned "
        "interpreters can be had, without --oci-platform, or publish it as it is with "
        "--oci-publish-incomplete."
    )


def signing_options(oci: Oci, build_root: str) -> tuple[str, ...]:
    """The options of cosign; none if images are not to be signed."""
    if not oci.signing_key and not oci.sign_keyless:
        return ()
    log = () if oci.transparency_log else ("--tlog-upload=false",)
    if not oci.signing_key:
        return log or ("--tlog-upload=true",)
    is_file = "://" not in oci.signing_key
    key = os.path.join(build_root, oci.signing_key) if is_file else oci.signing_key
    return (f"--key={key}", *log)


def rules():
    return [*collect_rules(), *PublishImageFieldSet.rules()]
