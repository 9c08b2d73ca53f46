from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pants.engine.addresses import Address
from pants.engine.environment import EnvironmentName
from pants.engine.fs import Digest
from pants.engine.rules import Get, collect_rules, rule
from pants.engine.target import FieldSet, Target, WrappedTarget, WrappedTargetRequest
from pants.engine.unions import UnionMembership, union

from oci.util_rules.platform import ImagePlatform


@dataclass(frozen=True)
class Layer:
    """A folder of `layer.tar.gz` and `layer.json` (`oci.tool.layer.write_layer`)."""

    digest: Digest


@union(in_scope_types=[EnvironmentName])
@dataclass(frozen=True)
class LayerRequest:
    """A layer to build. Each kind of layer is a subclass, with a rule that makes the `Layer`."""

    field_set_type: ClassVar[type[FieldSet]]

    field_set: FieldSet
    platform: ImagePlatform


@dataclass(frozen=True)
class LayerOf:
    """The layer that the target at `address` describes."""

    address: Address
    platform: ImagePlatform


@rule
async def build_layer(request: LayerOf, union_membership: UnionMembership) -> Layer:
    wrapped = await Get(WrappedTarget, WrappedTargetRequest(request.address, "<infallible>"))
    kind = _kind(wrapped.target, union_membership)
    return await Get(
        Layer,
        LayerRequest,
        kind(kind.field_set_type.create(wrapped.target), request.platform),
    )


def _kind(target: Target, union_membership: UnionMembership) -> type[LayerRequest]:
    for kind in union_membership[LayerRequest]:
        if kind.field_set_type.is_applicable(target):
            return kind
    raise ValueError(f"{target.address} is a `{target.alias}`, which is not a layer.")


def rules():
    return collect_rules()
