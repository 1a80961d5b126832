"""Whether a file says what the masked supernet says."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from fn3hw.deploy import Statistics, Supernet, compare_outputs
from fn3hw.deploy.runtime import open_session
from fn3hw.space.subnet import Subnet


def masked_difference(
    supernet: Supernet, subnet: Subnet, statistics: Statistics, model: onnx.ModelProto, images: NDArray[np.float32]
) -> float:
    """Largest absolute difference of a sliced model's output to that of the supernet with its gates set to the subnet.

    Args:
        supernet: the network.
        subnet: which blocks are kept.
        statistics: batch-norm statistics that the model was sliced with.
        model: the sliced model.
        images: to compare on, float32 (N, C, H, W).
    """
    outputs = []
    for one in (model, masked(supernet, subnet, statistics)):
        outputs.append(np.asarray(open_session(one).run(None, {one.graph.input[0].name: images})[0]))
    return compare_outputs(outputs[0], outputs[1]).max_abs_diff


def masked(supernet: Supernet, subnet: Subnet, statistics: Statistics) -> onnx.ModelProto:
    """The whole supernet with its gates set to a subnet and with the subnet's batch-norm statistics."""
    values = _gates(supernet, subnet)
    for name, quantizer in supernet.quantizers.items():
        values[name] = quantizer.values(supernet.graph.arrays[name].astype(np.float32), subnet.blocks(quantizer.gate))
    for node in supernet.graph.nodes:
        if node.name in statistics:
            for name, kept in zip(node.input[3:5], statistics[node.name], strict=True):
                values[name] = _scattered(supernet, subnet, name, kept)
    result = onnx.ModelProto()
    result.CopyFrom(supernet.model)
    for tensor in result.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name].astype(np.float32), tensor.name))
    return result


def _gates(supernet: Supernet, subnet: Subnet) -> dict[str, NDArray[Any]]:
    masks = supernet.space.masks(subnet)
    values: dict[str, NDArray[Any]] = {}
    for index, gate in supernet.graph.gate_nodes.items():
        name = next(name for name in supernet.graph.nodes[index].input if name.startswith("gate/"))
        full = supernet.graph.arrays[name]
        mask = masks[gate.gate]
        if gate.block is not None:
            values[name] = full * mask[gate.block]
        else:
            wide = np.repeat(mask, full.size // mask.size)
            values[name] = full * wide.reshape(full.shape)
    return values


def _scattered(supernet: Supernet, subnet: Subnet, name: str, kept: NDArray[np.float32]) -> NDArray[Any]:
    """Statistics of the kept channels in the full width; what the gates hide keeps the supernet's."""
    full = supernet.graph.arrays[name].copy()
    cuts = supernet.graph.cuts.get(name, [])
    if not cuts:
        return kept
    mask = supernet.space.masks(subnet)[cuts[0].gate]
    full[np.repeat(mask, len(full) // mask.size)] = kept
    return full
