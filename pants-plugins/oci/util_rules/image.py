from __future__ import annotations

import json
from dataclasses import dataclass

from pants.engine.addresses import Address, Addresses, UnparsedAddressInputs
from pants.engine.fs import AddPrefix, Digest, MergeDigests, RemovePrefix
from pants.engine.process import ProcessResult
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import FieldSet, WrappedTarget, WrappedTargetRequest

from oci.target_types import (
    EntrypointField,
    EnvField,
    LabelsField,
    LayersField,
    PlatformsField,
    RepositoryField,
    TagField,
)
from oci.util_rules.layer import Layer, LayerOf
from oci.util_rules.platform import PLATFORMS, host_platform
from oci.util_rules.toolchain import ToolProcess


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


@rule
async def build_image(request: ImageRequest) -> Image:
    wrapped = await Get(WrappedTarget, WrappedTargetRequest(request.address, "<infallible>"))
    fields = ImageFieldSet.create(wrapped.target)
    platforms = _platforms(fields, request.platforms)
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
    config = {
        "Entrypoint": list(fields.entrypoint.value or ()),
        "Env": [f"{name}={value}" for name, value in sorted((fields.env.value or {}).items())],
        "Labels": dict(fields.labels.value or {}),
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


def _platforms(fields: ImageFieldSet, chosen: tuple[str, ...]) -> tuple[str, ...]:
    known = fields.platforms.value or ()
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(
            f"{fields.address} is for {', '.join(known)}, not for {', '.join(unknown)}."
        )
    return chosen or known


def rules():
    return collect_rules()
