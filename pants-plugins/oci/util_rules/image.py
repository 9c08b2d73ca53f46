from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from pants.engine.addresses import Address, Addresses, UnparsedAddressInputs
from pants.engine.fs import AddPrefix, Digest, MergeDigests, RemovePrefix
from pants.engine.process import ProcessResult
from pants.engine.rules import Get, MultiGet, _uncacheable_rule, collect_rules, rule
from pants.engine.target import FieldSet, Targets, WrappedTarget, WrappedTargetRequest

from oci.subsystem import InterpreterSource, Oci
from oci.target_types import (
    EntrypointField,
    EnvField,
    LabelsField,
    LayersField,
    PlatformsField,
    RepositoryField,
    TagField,
)
from oci.util_rules.cpython import (
    Cpython,
    CpythonFieldSet,
    CpythonRequest,
    InterpreterNotFound,
)
from oci.util_rules.layer import Layer, LayerOf
from oci.util_rules.platform import PLATFORMS, host_platform
from oci.util_rules.toolchain import ToolProcess

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFieldSet(FieldSet):
    required_fields = (LayersField, RepositoryField)

    layers: LayersField
    repository: RepositoryField
    tag: TagField
    platforms: PlatformsField
    entrypoint: EntrypointField
    env: EnvField
    labels: LabelsField


@dataclass(frozen=True)
class ImageRequest:
    """The image that the `oci_image` at `address` describes, for `platforms`; none are all of its."""

    address: Address
    platforms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """A folder of `image.tar` and `image.json` (`oci.tool.image.write_image`)."""

    digest: Digest


@dataclass(frozen=True)
class ImagePlatformsRequest:
    """Which of its platforms the `oci_image` at `address` can be built for on this machine."""

    address: Address


@dataclass(frozen=True)
class ImagePlatforms:
    names: tuple[str, ...]


# Where an interpreter comes from may change from one run to the next, and is to be said in each.
@_uncacheable_rule
async def image_platforms(request: ImagePlatformsRequest, oci: Oci) -> ImagePlatforms:
    wrapped = await Get(WrappedTarget, WrappedTargetRequest(request.address, "<infallible>"))
    fields = ImageFieldSet.create(wrapped.target)
    layers = await Get(Targets, UnparsedAddressInputs, fields.layers.to_unparsed_address_inputs())
    interpreters = [
        CpythonFieldSet.create(layer) for layer in layers if CpythonFieldSet.is_applicable(layer)
    ]
    names = []
    for name in fields.platforms.value or ():
        try:
            for interpreter in interpreters:
                await Get(Cpython, CpythonRequest(interpreter, PLATFORMS[name]))
            names.append(name)
        except InterpreterNotFound:
            # This machine's own interpreter stands in for the archive, but not for another platform.
            if oci.interpreter_source == InterpreterSource.PINNED or name == host_platform().name:
                raise
            logger.warning(
                f"{fields.address}: {name} is left out. Its interpreter comes from this machine, which "
                "has none for another platform; the pinned archive serves all."
            )
    return ImagePlatforms(tuple(names))


@rule
async def build_image(request: ImageRequest, oci: Oci) -> Image:
    wrapped = await Get(WrappedTarget, WrappedTargetRequest(request.address, "<infallible>"))
    fields = ImageFieldSet.create(wrapped.target)
    platforms = _known(fields, request.platforms)
    if not platforms:
        buildable = await Get(ImagePlatforms, ImagePlatformsRequest(request.address))
        platforms = buildable.names
    addresses = await Get(
        Addresses, UnparsedAddressInputs, fields.layers.to_unparsed_address_inputs()
    )
    layers = await MultiGet(
        Get(Layer, LayerOf(address, PLATFORMS[platform]))
        for platform in platforms
        for address in addresses
    )
    # Numbered, because two layers may be called the same.
    folders = [f"layers/{number}" for number in range(len(layers))]
    placed = await MultiGet(
        Get(Digest, AddPrefix(layer.digest, folder)) for layer, folder in zip(layers, folders)
    )
    env, labels = _stamp(fields.address, oci.checked_git_ref)
    env = {**(fields.env.value or {}), **env}
    config = {
        "Entrypoint": list(fields.entrypoint.value or ()),
        "Env": [f"{name}={value}" for name, value in sorted(env.items())],
        "Labels": {**(fields.labels.value or {}), **labels},
        "WorkingDir": "/",
    }
    each = len(addresses)
    of_platforms = {
        platform: folders[number * each : (number + 1) * each]
        for number, platform in enumerate(platforms)
    }
    digest = await Get(Digest, MergeDigests(placed))
    result = await Get(
        ProcessResult,
        ToolProcess(
            (
                "image",
                f"--reference={fields.repository.value}:{fields.tag.value}",
                f"--run={json.dumps(config)}",
                f"--load={host_platform().name}",
                f"--layers={json.dumps(of_platforms)}",
            ),
            input_digest=digest,
            description=f"Assemble the image {fields.address} for {', '.join(platforms)}",
        ),
    )
    return Image(await Get(Digest, RemovePrefix(result.output_digest, "out")))


def _stamp(address: Address, git_ref: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """What a release says of its source, as environment and labels; other builds say nothing, so that
    equal content has an equal digest."""
    if not git_ref:
        return {}, {}
    labels = {"org.opencontainers.image.revision": git_ref, "oci.target": address.spec}
    return {"GIT_REF": git_ref}, labels


def _known(fields: ImageFieldSet, chosen: tuple[str, ...]) -> tuple[str, ...]:
    known = fields.platforms.value or ()
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(
            f"{fields.address} is for {', '.join(known)}, not for {', '.join(unknown)}."
        )
    return chosen


def rules():
    return collect_rules()
