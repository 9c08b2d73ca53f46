from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from pants.engine.addresses import Addresses, UnparsedAddressInputs
from pants.engine.fs import AddPrefix, Digest, MergeDigests, RemovePrefix
from pants.engine.process import ProcessResult
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.unions import UnionRule

from oci.util_rules.cpython import Cpython, CpythonFieldSet, CpythonRequest
from oci.util_rules.layer import Layer, LayerOf, LayerRequest
from oci.util_rules.toolchain import Toolchain, ToolProcess


@dataclass(frozen=True)
class StandaloneLayerRequest(LayerRequest):
    field_set_type = CpythonFieldSet

    field_set: CpythonFieldSet


@rule
async def build_standalone_layer(request: StandaloneLayerRequest, toolchain: Toolchain) -> Layer:
    fields = request.field_set
    cpython, addresses = await MultiGet(
        Get(Cpython, CpythonRequest(fields, request.platform)),
        Get(Addresses, UnparsedAddressInputs, fields.base.to_unparsed_address_inputs()),
    )
    layers = await MultiGet(Get(Layer, LayerOf(address, request.platform)) for address in addresses)
    below = [f"below/{number}" for number in range(len(layers))]
    placed = await MultiGet(
        Get(Digest, AddPrefix(layer.digest, folder)) for layer, folder in zip(layers, below)
    )
    digest = await Get(Digest, MergeDigests((cpython.digest, *placed)))
    result = await Get(
        ProcessResult,
        ToolProcess(
            (
                "interpreter",
                *(f"--what={fields.address.target_name}", f"--libdeflate={toolchain.libdeflate}"),
                f"--python={shlex.join(cpython.python)}",
                f"--inputs={json.dumps(dict(cpython.inputs))}",
                f"--labels={json.dumps(dict(cpython.labels))}",
                f"--version={fields.version.value}",
                *cpython.argv,
                *(f"--omit={pattern}" for pattern in fields.omit.value or ()),
                f"--triplet={request.platform.triplet}",
                *("--below", *below),
            ),
            input_digest=digest,
            interpreter=cpython.python_digest,
            description=f"Build the layer {fields.address} from {cpython.inputs['cpython']}",
        ),
    )
    return Layer(await Get(Digest, RemovePrefix(result.output_digest, "out")))


def rules():
    return [*collect_rules(), UnionRule(LayerRequest, StandaloneLayerRequest)]
