"""Which batch-norm nodes a network has, what linear operation stands before each, and what a subnet keeps of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fn3hw.deploy.features import features_of
from fn3hw.deploy.graph import attribute
from fn3hw.deploy.supernet import Supernet

MAX_PATCH = 2304
"""Longest input patch (channels × kernel size) whose second moments are collected; longer ones are left to the fit."""


@dataclass(frozen=True)
class Norm:
    """A batch-norm node and the linear operation before it.

    Args:
        name: the batch-norm node.
        operation: the node of the linear operation, or None where the closed form does not apply to it.
        groups: of the operation, each with an input of its own.
        gate: the gate on its input; with several groups, they go with the operation's own gate instead.
        own_gate: the gate that decides its own width, or None.
        bits: the bit gate of the operation's weight, or None.
        bias: of the operation, or None.
        upstream: columns of the features that can change its input.
    """

    name: str
    operation: str | None
    groups: int
    gate: str | None
    own_gate: str | None
    bits: str | None
    bias: str | None
    upstream: NDArray[np.intp]


def norms_of(supernet: Supernet) -> tuple[Norm, ...]:
    """Its batch-norm nodes, in the order of the graph."""
    graph = supernet.graph
    made_by = {node.output[0]: node for node in graph.nodes}
    order = {node.name: index for index, node in enumerate(graph.nodes)}
    reader_gate = {operation: gate for gate, group in graph.groups.items() for operation in group.readers}
    carrier_gate = {operation: gate for gate, group in graph.groups.items() for operation in group.carriers}
    positions = [f.first for f in features_of(supernet) for _ in f.values(supernet.space.masks(supernet.space.full()))]
    found = []
    for node in graph.nodes:
        if node.op_type != "BatchNormalization":
            continue
        before = made_by.get(node.input[0])
        gate, operation, groups, own_gate = None, None, 1, carrier_gate.get(node.name)
        bits, bias = None, None
        if before is not None and before.op_type in ("Conv", "Gemm"):
            gate, groups, weight = reader_gate.get(before.name), attribute(before, "group", 1), before.input[1]
            varies = gate is not None or weight in supernet.quantizers
            whole = own_gate is None or groups % supernet.space[own_gate].size == 0
            if varies and np.prod(graph.arrays[weight].shape[1:]) <= MAX_PATCH and (groups == 1 or whole):
                operation = before.name
                bits = supernet.quantizers[weight].gate if weight in supernet.quantizers else None
                bias = before.input[2] if len(before.input) > 2 else None
        upstream = np.flatnonzero([position < order[node.name] for position in positions])
        found.append(Norm(node.name, operation, groups, gate, own_gate, bits, bias, upstream))
    return tuple(found)


def kept_entries(
    supernet: Supernet, gate: str | None, masks: dict[str, NDArray[np.bool_]], length: int
) -> NDArray[np.intp]:
    """Indices along an axis of ``length`` entries that a gate's kept blocks occupy; all of them without a gate."""
    if gate is None:
        return np.arange(length)
    return np.flatnonzero(np.repeat(masks[gate], length // supernet.space[gate].size))


def kept_inputs(
    supernet: Supernet, norm: Norm, masks: dict[str, NDArray[np.bool_]], groups: int, length: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which groups of an operation a subnet keeps, and which of the ``length`` entries of each one's input."""
    if groups == 1:
        return np.arange(1), kept_entries(supernet, norm.gate, masks, length)
    return kept_entries(supernet, norm.own_gate, masks, groups), np.arange(length)
