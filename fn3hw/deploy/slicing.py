"""Zero-gate elimination: the nodes and arrays of a supernet that one subnet keeps, as a model of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from fn3hw.deploy.activations import IntegerForm, Ranges
from fn3hw.deploy.blockwise import blockwise_form, import_domain
from fn3hw.deploy.graph import GROUPS, Array, attribute, resolve
from fn3hw.deploy.integers import IntegerWeight, raise_opset
from fn3hw.errors import InputError
from fn3hw.space.flow import Layout
from fn3hw.space.subnet import Subnet

if TYPE_CHECKING:
    from fn3hw.deploy.supernet import Statistics, Supernet


class Slicer:
    """Zero-gate elimination of one subnet.

    Args:
        supernet: the network.
        subnet: which blocks are kept.
        statistics: of batch norm, in the subnet's widths.
        pad: fill widths up to a multiple of this.
    """

    def __init__(self, supernet: Supernet, subnet: Subnet, statistics: Statistics, *, pad: int = 1) -> None:
        self.supernet, self.graph, self.statistics, self.subnet = supernet, supernet.graph, statistics, subnet
        masks = supernet.space.masks(subnet)
        self.kept = {
            name: _padded(mask, pad) if supernet.space[name].level in ("channel", "neuron") else np.flatnonzero(mask)
            for name, mask in masks.items()
        }
        self.real = {name: masks[name][kept] for name, kept in self.kept.items()}
        self.full = {name: len(kept) == masks[name].size for name, kept in self.kept.items()}
        gates = self.graph.gate_nodes.values()
        self.dropped = frozenset((g.gate, g.block) for g in gates if g.block is not None and not masks[g.gate][g.block])
        self.substitutes = self.graph.bypass(self.dropped)
        self.scales: dict[str, Array] = {}

    def model(self, ranges: Ranges | None, *, packed: bool) -> onnx.ModelProto:
        """The subnet's file; see `Supernet.slice`."""
        live = self.graph.live(self.dropped)
        self._fold_gates(live)
        nodes = [self._node(index) for index in sorted(live) if not self._is_folded(index)]
        used = {name for node in nodes for name in node.input}
        integers = self.supernet.integer_weights(self.subnet) & used if packed else frozenset[str]()
        arrays = {name: self._array(name, rounded=name not in integers) for name in self.graph.arrays if name in used}
        self._scale_weights(nodes, arrays)
        self._set_statistics(nodes, arrays)
        source = self.supernet.model
        model = onnx.ModelProto(ir_version=source.ir_version, producer_name="fn3hw", opset_import=source.opset_import)
        graph = model.graph
        graph.name = source.graph.name
        weights = {name: self._packed(name, arrays.pop(name)) for name in [*arrays] if name in integers}
        if ranges is not None:
            nodes, arrays = blockwise_form(nodes, arrays, weights, self.supernet.blockwise)
        if ranges is not None and weights:
            form = IntegerForm(nodes, arrays, weights, ranges, self.graph.output)
            nodes, arrays, weights = form.build(self.graph.input), form.arrays, form.weights
            used = {name for node in nodes for name in node.input}
            arrays = {name: array for name, array in arrays.items() if name in used}
            graph.initializer.extend(form.tensors)
        for name, weight in weights.items():
            tensors, before = weight.written(name)
            graph.initializer.extend(tensors)
            graph.node.extend(before)
        graph.node.extend(nodes)
        graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in arrays.items())
        graph.input.extend(source.graph.input)
        graph.output.extend(source.graph.output)
        raise_opset(model)
        import_domain(model)
        return model

    def weights(self, names: set[str]) -> dict[str, NDArray[np.float32]]:
        """Weights of some nodes; see `Supernet.weights`."""
        live = self.graph.live(self.dropped)
        self._fold_gates(live)
        nodes = [self.graph.nodes[index] for index in live if self.graph.nodes[index].name in names]
        arrays = {node.input[1]: self._array(node.input[1]) for node in nodes}
        self._scale_weights(nodes, arrays)
        return {node.name: arrays[node.input[1]].astype(np.float32, copy=False) for node in nodes}

    def _packed(self, name: str, weight: Array) -> IntegerWeight:
        quantizer = self.supernet.quantizers[name]
        blocks, scale = self.subnet.blocks(quantizer.gate), np.array(quantizer.step, dtype=np.float32)
        integers = quantizer.integers(weight.astype(np.float32, copy=False), blocks)
        return IntegerWeight(integers, quantizer.levels(blocks), scale)

    def _fold_gates(self, live: set[int]) -> None:
        """A gate whose kept values are all 1 is passed by; another channel gate moves into the weights that read it."""
        for index in live & self.graph.gate_nodes.keys():
            gate_node = self.graph.gate_nodes[index]
            value = self.graph.arrays[self._gate_value(index)]
            if gate_node.block is None:
                entries = self._entries(gate_node.gate, value.size)
                real = self.real[gate_node.gate]
                value = value.ravel()[entries] * np.repeat(real, len(entries) // len(real)).astype(value.dtype)
            if (value != 1).any():
                if gate_node.block is not None:
                    continue
                self.scales[gate_node.output] = value.ravel()
            self.substitutes[gate_node.output] = gate_node.source

    def _gate_value(self, index: int) -> str:
        return next(str(name) for name in self.graph.nodes[index].input if name.startswith("gate/"))

    def _is_folded(self, index: int) -> bool:
        gate_node = self.graph.gate_nodes.get(index)
        return gate_node is not None and gate_node.output in self.substitutes

    def _node(self, index: int) -> onnx.NodeProto:
        original = self.graph.nodes[index]
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for position, name in enumerate(node.input):
            node.input[position] = resolve(name, self.substitutes)
        gate = self.graph.gate_of_grouped.get(index)
        if gate is not None:
            for groups in [a for a in node.attribute if a.name in GROUPS]:
                groups.i = len(self.kept[gate]) * (groups.i // self.supernet.space[gate].size)
        return node

    def _entries(self, gate: str, length: int) -> NDArray[np.intp]:
        """Indices along ``length`` entries, as many for each block, that the kept blocks of a gate occupy."""
        size = self.supernet.space[gate].size
        return Layout(0, length // size).entries(self.kept[gate], size)

    def _array(self, name: str, *, rounded: bool = True) -> Array:
        """An initializer in the subnet's widths; weights that a quantizer rounds are, unless they are to be packed."""
        if rounded and name in self.supernet.quantizers:
            array: Array = self.supernet.rounded(name, self.subnet.blocks(self.supernet.quantizers[name].gate))
        else:
            array = self.graph.arrays[name]
        for gate, layout in [(cut.gate, cut.layout) for cut in self.graph.cuts.get(name, ())]:
            if not self.full[gate]:
                entries = layout.entries(self.kept[gate], self.supernet.space[gate].size)
                array = np.take(array, entries, axis=layout.axis)
        return array

    def _scale_weights(self, nodes: list[onnx.NodeProto], arrays: dict[str, Array]) -> None:
        scaled = {node.name: node.input[0] for node in self.graph.nodes if node.input and node.input[0] in self.scales}
        for node in nodes:
            if node.name in scaled:
                weight, scale = arrays[node.input[1]], self.scales[scaled[node.name]]
                axis = 1 if node.op_type == "Conv" or attribute(node, "transB", 0) else 0
                shape = [-1 if a == axis else 1 for a in range(weight.ndim)]
                arrays[node.input[1]] = weight.astype(np.float32) * scale.astype(np.float32).reshape(shape)

    def _set_statistics(self, nodes: list[onnx.NodeProto], arrays: dict[str, Array]) -> None:
        for node in nodes:
            if node.op_type == "BatchNormalization" and node.name in self.statistics:
                for name, value in zip(node.input[3:5], self.statistics[node.name], strict=True):
                    value = self._widened(name, value)
                    if value.shape != arrays[name].shape:
                        raise InputError(
                            f"Statistics of {node.name} have shape {value.shape}, "
                            f"the subnet needs {arrays[name].shape}."
                        )
                    arrays[name] = value.astype(np.float32)

    def _widened(self, name: str, value: NDArray[np.float32]) -> NDArray[np.float32]:
        """Statistics of the kept channels, with 1 where the model has channels that nothing reads."""
        cuts = self.graph.cuts.get(name, ())
        real = self.real[cuts[0].gate] if cuts else np.ones(0, dtype=np.bool_)
        wide = np.repeat(real, cuts[0].layout.repeat) if cuts else real
        if wide.all() or value.size != wide.sum():
            return value
        widened = np.ones(wide.size, dtype=np.float32)
        widened[wide] = value
        return widened


def _padded(mask: NDArray[np.bool_], pad: int) -> NDArray[np.intp]:
    """Indices of the kept blocks, and of as many removed ones as fill their number up to a multiple of ``pad``."""
    missing = -int(mask.sum()) % pad
    return np.sort(np.concatenate([np.flatnonzero(mask), np.flatnonzero(~mask)[:missing]]))
