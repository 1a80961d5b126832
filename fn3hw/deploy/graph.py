"""The ONNX front end: an ONNX graph in the terms of `fn3hw.space.flow`, and which gate decides what in it.

A gate is an initializer whose name starts with ``gate/``: ``gate/NAME@K`` multiplies all blocks of gate NAME at its
K-th site, ``gate/NAME[M]`` multiplies block M of a layer gate, one residual branch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from fn3hw.errors import InputError
from fn3hw.space.flow import ChannelFlow, Group, Layout, Operand, Slice

Array = NDArray[np.generic]

POINTWISE = frozenset(
    {
        *(
            "Relu",
            "Clip",
            "HardSwish",
            "HardSigmoid",
            "Sigmoid",
            "Tanh",
            "Gelu",
            "Elu",
            "Selu",
            "LeakyRelu",
            "Softplus",
        ),
        *("Identity", "Dropout", "Mish", "Mul", "Add", "Sub", "Div", "Neg", "Swish", "Cast", "Erf"),
    }
)
IDEMPOTENT = frozenset({"Relu", "Clip"})
"""Activations that change nothing of what they made."""
POOLING = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize"})
_HEADS = ("q_num_heads", "kv_num_heads")
GROUPS = ("group", *_HEADS)
"""Attributes that say how many groups or heads a node has."""
_GATE = re.compile(r"gate/(?P<name>.+?)(?:@(?P<site>\d+)|\[(?P<block>\d+)\])")


def gate_initializer(name: str, *, site: int | None = None, block: int | None = None) -> str:
    """The name of a gate's initializer: at a site, or for one block of a layer gate."""
    return f"gate/{name}@{site}" if block is None else f"gate/{name}[{block}]"


@dataclass(frozen=True)
class GateNode:
    """A node that multiplies by a gate.

    Args:
        gate: the gate's name.
        block: the residual branch that it gates, or None where it gates channels or neurons.
        source: name of the tensor that it multiplies.
        output: name of the product.
    """

    gate: str
    block: int | None
    source: str
    output: str


@dataclass(frozen=True)
class Cut:
    """One axis of an initializer that shrinks with a gate, and where the gate's blocks lie along it."""

    gate: str
    layout: Layout


class Graph:
    """A supernet's ONNX graph, analysed once.

    Args:
        model: an ONNX model whose gates are initializers named as `gate_initializer` does.

    Raises:
        InputError: a gate stands where its channels cannot be sliced; the message says why.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.arrays: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.output = model.graph.output[0].name
        self.input = model.graph.input[0].name
        self.shapes = _shapes(model)
        self.gate_nodes = self._find_gates()
        self._flow = self._walk()
        self.groups = self._gated_groups()
        self.cuts = self._cuts()
        self.gate_of_grouped = self._grouped()
        """Per convolution and attention node that has groups or heads the gate that decides how many."""

    def live(self, dropped: frozenset[tuple[str, int]] = frozenset()) -> set[int]:
        """Indices of the nodes that the output needs when the given (layer gate, block) branches are zero."""
        skip = self.bypass(dropped)
        made_by = {name: i for i, node in enumerate(self.nodes) for name in node.output}
        live: set[int] = set()
        wanted = [resolve(self.output, skip)]
        while wanted:
            index = made_by.get(wanted.pop())
            if index is not None and index not in live:
                live.add(index)
                wanted.extend(resolve(name, skip) for name in self.nodes[index].input if name)
        return live

    def bypass(self, dropped: frozenset[tuple[str, int]]) -> dict[str, str]:
        """Sums whose gated branch is zero, and the other summand that stands for each.

        Where an activation then follows another one like it, the first one stands for both: the second changes nothing.
        """
        zero = {g.output for g in self.gate_nodes.values() if g.block is not None and (g.gate, g.block) in dropped}
        skip: dict[str, str] = {}
        activations: dict[str, tuple[str, ...]] = {}
        for node in self.nodes:
            output = node.output[0]
            if node.op_type == "Add" and (dead := [name for name in node.input if name in zero]):
                skip[output] = next(name for name in node.input if name != dead[0])
            elif node.op_type in IDEMPOTENT:
                kind = (node.op_type, *node.input[1:])
                if activations.get(resolve(node.input[0], skip)) == kind:
                    skip[output] = node.input[0]
                activations[output] = kind
        return skip

    def gate_entries(self) -> dict[str, int]:
        """How many entries the initializer of each gate has; of a layer gate, how many initializers it has."""
        found: dict[str, int] = {}
        for name, array in self.arrays.items():
            if match := _GATE.fullmatch(name):
                of_layer = match["block"] is not None
                found[match["name"]] = found.get(match["name"], 0) + 1 if of_layer else array.size
        return found

    def units(self) -> dict[str, tuple[str, ...]]:
        """Per node the gates that decide its shape (``"NAME"``) and the branches that it belongs to (``"NAME[M]"``)."""
        found: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for gate, group in self.groups.items():
            for operation in dict.fromkeys((*group.producers, *group.carriers, *group.readers)):
                found[operation].append(gate)
        full = self.live()
        for gate_node in self.gate_nodes.values():
            if gate_node.block is not None:
                for index in full - self.live(frozenset({(gate_node.gate, gate_node.block)})):
                    found[self.nodes[index].name].append(f"{gate_node.gate}[{gate_node.block}]")
        return {name: tuple(gates) for name, gates in found.items()}

    def _find_gates(self) -> dict[int, GateNode]:
        found = {}
        for index, node in enumerate(self.nodes):
            for name, other in (node.input, node.input[::-1]) if node.op_type == "Mul" else ():
                if match := _GATE.fullmatch(other):
                    block = match["block"]
                    found[index] = GateNode(match["name"], None if block is None else int(block), name, node.output[0])
        return found

    def _walk(self) -> ChannelFlow:
        flow = ChannelFlow()
        shape = self.shapes.get(self.input, ())
        if len(shape) > 1:
            flow.make(self.input, shape[1], operation=self.input, kind="input")
            flow.pin(self.input, "it is the network's input")
        for index, node in enumerate(self.nodes):
            self._visit(flow, index, node)
        flow.pin(self.output, "it is the network's output")
        return flow

    def _visit(self, flow: ChannelFlow, index: int, node: onnx.NodeProto) -> None:
        data = [name for name in node.input if name and name not in self.arrays]
        out = node.output[0]
        axis = flow.axis(data[0]) if data else None
        if index in self.gate_nodes:
            flow.carry(out, [self.gate_nodes[index].source], operation=node.name)
        elif node.op_type == "Conv":
            self._convolution(flow, node)
        elif node.op_type == "Gemm":
            self._dense(flow, node, kind="linear", axis=1 if attribute(node, "transB", 0) else 0)
        elif node.op_type == "MatMul" and self._is_matrix(node.input[1]):
            self._dense(flow, node, kind="linear", axis=0)
        elif node.op_type == "BatchNormalization":
            flow.carry(out, data, operation=node.name, parameters=tuple((name, 0) for name in node.input[1:5]))
        elif node.op_type == "PRelu":
            parameters = tuple((name, 0) for name in node.input[1:] if self.arrays[name].size > 1)
            flow.carry(out, data, operation=node.name, parameters=parameters)
        elif node.op_type == "Flatten" and attribute(node, "axis", 1) == 1:
            flow.flatten(out, data[0], shape=self.shapes[data[0]], operation=node.name)
        elif node.op_type == "Attention":
            self._attention(flow, node)
        elif node.op_type == "Split" and axis is not None and attribute(node, "num_outputs", 0) == 3:
            flow.split(list(node.output), data[0], parts=3, operation=node.name)
        elif node.op_type == "Transpose" and axis is not None:
            flow.carry(out, data, operation=node.name, axis=attribute(node, "perm", []).index(axis))
        elif node.op_type in POINTWISE:
            flow.pointwise(out, self.shapes.get(out, ()), self._operands(node), operation=node.name)
        elif (node.op_type in POOLING and axis == 1) or (node.op_type == "ReduceMean" and self._is_behind(node, axis)):
            flow.carry(out, data[:1], operation=node.name)
        else:
            reason = f"{node.op_type} ({node.name}) is no operation that fn3hw can slice"
            outs = {name: self.shapes.get(name, ()) for name in node.output}
            flow.leave_whole(outs, self._operands(node), operation=node.name, reason=reason)

    def _operands(self, node: onnx.NodeProto) -> list[Operand]:
        return [
            Operand(name, self.arrays[name].shape, parameter=True)
            if name in self.arrays
            else Operand(name, self.shapes.get(name, ()))
            for name in node.input
            if name
        ]

    def _attention(self, flow: ChannelFlow, node: onnx.NodeProto) -> None:
        """Heads are blocks that never mix, as the groups of a grouped convolution are."""
        query, out = node.input[0], node.output[0]
        width, heads = self.shapes[query][-1], {attribute(node, name, 0) for name in _HEADS}
        flow.carry(out, list(node.input[:3]), operation=node.name, block=width // max(heads))
        if len(heads) != 1:
            flow.pin(out, f"{node.name} has fewer keys than queries")
        for bias in [name for name in node.input[3:4] if name]:
            table = self._table_behind(bias)
            if table is None or self.arrays[table].ndim != 4:
                flow.pin(out, f"{node.name} adds what fn3hw cannot slice")
            elif self.arrays[table].shape[1] != 1:
                flow.own(out, table, axis=1)

    def _table_behind(self, name: str) -> str | None:
        """The constant (windows, heads, L, L) that a bias of scores repeats for all images."""
        if name in self.arrays:
            return name
        node = next((node for node in self.nodes if name in node.output), None)
        return (
            str(node.input[0]) if node is not None and node.op_type == "Tile" and node.input[0] in self.arrays else None
        )

    def _is_matrix(self, name: str) -> bool:
        return name in self.arrays and self.arrays[name].ndim == 2

    def _convolution(self, flow: ChannelFlow, node: onnx.NodeProto) -> None:
        weight, groups = self.arrays[node.input[1]], attribute(node, "group", 1)
        if groups == 1:
            self._dense(flow, node, kind="conv", axis=1)
        elif weight.shape[0] == groups * weight.shape[1]:
            out, parameters = node.output[0], tuple((name, 0) for name in node.input[1:])
            flow.carry(out, [node.input[0]], operation=node.name, parameters=parameters, block=weight.shape[1])
        else:
            reason = f"the groups of {node.name} read and make different numbers of channels"
            flow.pin(node.input[0], reason)
            self._dense(flow, node, kind="conv", axis=1)
            flow.pin(node.output[0], reason)

    def _dense(self, flow: ChannelFlow, node: onnx.NodeProto, *, kind: str, axis: int) -> None:
        """A mixing operation whose weight has its inputs along ``axis`` (0 or 1) and its outputs along the other."""
        source, weight = node.input[0], node.input[1]
        last = 1 if kind == "conv" else len(self.shapes.get(source, (0, 0))) - 1
        if flow.axis(source) == last:
            flow.mix(source, operation=node.name, weight=weight, axis=axis)
        else:
            flow.pin(source, f"{node.name} works along another axis")
        slices = (Slice(weight, 1 - axis), *(Slice(bias, 0) for bias in node.input[2:3] if bias))
        width = self.arrays[weight].shape[1 - axis]
        flow.make(node.output[0], width, operation=node.name, kind=kind, slices=slices, axis=last)

    def _is_behind(self, node: onnx.NodeProto, axis: int | None) -> bool:
        """Whether a mean is over axes behind the channels' only, so that their place stays."""
        axes = self.arrays[node.input[1]] if len(node.input) > 1 else np.array(attribute(node, "axes", []))
        rank = len(self.shapes.get(node.input[0], ()))
        return axis is not None and axes.size > 0 and all(int(a) % rank > axis for a in axes.ravel())

    def _gated_groups(self) -> dict[str, Group]:
        found: dict[str, Group] = {}
        for gate_node in self.gate_nodes.values():
            if gate_node.block is not None:
                continue
            span = self._flow.span(gate_node.source)
            if span is None or span[0].pins or found.get(gate_node.gate, span[0]) is not span[0]:
                reason = span[0].pins[0] if span and span[0].pins else "its sites do not carry the same channels"
                raise InputError(f"Gate {gate_node.gate!r} cannot be eliminated from the ONNX graph: {reason}.")
            found[gate_node.gate] = span[0]
        return found

    def _cuts(self) -> dict[str, list[Cut]]:
        cuts: dict[str, list[Cut]] = {}
        for gate, group in self.groups.items():
            for piece in group.cuts():
                cuts.setdefault(piece.parameter, []).append(Cut(gate, piece.layout))
        return cuts

    def _grouped(self) -> dict[int, str]:
        carriers = {operation: gate for gate, group in self.groups.items() for operation in group.carriers}
        grouped = ("Conv", "Attention")
        return {i: carriers[n.name] for i, n in enumerate(self.nodes) if n.op_type in grouped and n.name in carriers}


def resolve(name: str, substitutes: dict[str, str]) -> str:
    """Follow a chain of substitutions to the tensor that stands for ``name``."""
    while name in substitutes:
        name = substitutes[name]
    return name


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or the default."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors; an axis of unknown size, such as the batch, is 0."""
    graph = shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
