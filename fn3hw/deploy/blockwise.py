"""Linear layers as `MatMulNBits`: packed integers that the kernel itself unpacks, in blocks along the inputs.

The kernel reads and writes fp32 and rounds what it reads to 8 bits, one scale for each block, so nothing is calibrated
and no borders stand around it. For one row of activations reading the weights is all there is to do, and fewer bytes
are less to read; whether it beats a `Gemm` on integers is up to the device, so the profiler times both.

Source: ONNX Runtime's contributed operators, com.microsoft.MatMulNBits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from fn3hw.deploy.graph import Array, attribute
from fn3hw.deploy.integers import IntegerWeight, pack, storage_bits

DOMAIN = "com.microsoft"
BLOCK = 128
"""Inputs that share a scale."""
OVERHEAD_BITS = 32 / BLOCK
"""Bits per weight that the scales take."""
_ROUND_ACTIVATIONS = 4
"""The accuracy level at which the kernel computes on 8-bit activations."""


def block_bits(levels: tuple[int, ...]) -> int | None:
    """Bits per weight in blocks; None where a `Gemm` would store these levels in fewer.

    Args:
        levels: the integers that weights can be, ascending.
    """
    bits = next(bits for bits in (2, 4, 8) if levels[-1] < 2 ** (bits - 1))
    return bits if bits <= storage_bits(levels) else None


def is_linear(node: onnx.NodeProto) -> bool:
    """Whether a node is a linear layer on one row of activations, with nothing else in it."""
    plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0 and not attribute(node, "transA", 0)
    return node.op_type == "Gemm" and plain


def blockwise_form(
    nodes: list[onnx.NodeProto], arrays: Mapping[str, Array], weights: dict[str, IntegerWeight], layers: frozenset[str]
) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Rewrite linear layers with integer weights.

    Args:
        nodes: of the subnet.
        arrays: their constants.
        weights: its integer weights by name; those of rewritten layers are taken out.
        layers: names of the nodes to rewrite, as far as their weights are integers that blocks hold.

    Returns:
        The nodes and constants of the file, biases and activations in fp32.
    """
    result, kept = [], dict(arrays)
    for node in nodes:
        weight = weights.get(node.input[1]) if node.name in layers and is_linear(node) else None
        bits = block_bits(weight.levels) if weight is not None else None
        if weight is None or bits is None:
            result.append(node)
            continue
        del weights[node.input[1]]
        values = weight.values if attribute(node, "transB", 0) else weight.values.T
        outputs, inputs = values.shape
        blocks = -(-inputs // BLOCK)
        middle = 2 ** (bits - 1)  # what stands for zero where the file names no zero point
        codes = np.full((outputs, blocks * BLOCK), middle, dtype=np.uint8)
        codes[:, :inputs] = values.astype(np.int16) + middle
        packed, scales = f"{node.input[1]}/packed", f"{node.input[1]}/scales"
        kept[packed] = np.frombuffer(pack(codes, bits), dtype=np.uint8).reshape(outputs, blocks, BLOCK * bits // 8)
        kept[scales] = np.full(outputs * blocks, weight.scale, dtype=np.float32)
        bias = ["", "", node.input[2]] if len(node.input) > 2 and node.input[2] else []
        result.append(
            helper.make_node(
                "MatMulNBits",
                [node.input[0], packed, scales, *bias],
                list(node.output),
                node.name,
                domain=DOMAIN,
                K=inputs,
                N=outputs,
                bits=bits,
                block_size=BLOCK,
                accuracy_level=_ROUND_ACTIVATIONS,
            )
        )
    return result, kept


def import_domain(model: onnx.ModelProto) -> None:
    """Name the operator's domain in a model that uses it."""
    if any(node.domain == DOMAIN for node in model.graph.node):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
