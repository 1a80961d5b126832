"""A supernet as an ONNX file with gates, and zero-gate elimination: any subnet of it as a really smaller file."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from fn3hw.deploy.activations import IntegerForm, Ranges, bias_node, border_nodes, nominal_ranges
from fn3hw.deploy.blockwise import OVERHEAD_BITS, block_bits, blockwise_form, import_domain, is_linear
from fn3hw.deploy.graph import GROUPS, Array, Graph, attribute, resolve
from fn3hw.deploy.integers import IntegerWeight, raise_opset, read_quantizers, unpacking_nodes, without_step_sizes
from fn3hw.errors import InputError, RunError
from fn3hw.space.files import sha256, write_bytes, write_text
from fn3hw.space.flow import Layout
from fn3hw.space.subnet import SearchSpace, Subnet

SPACE_FORMAT = 1
Statistics = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Per batch-norm node its mean and variance, one entry per channel that the subnet keeps."""


@dataclass(frozen=True)
class Parameter:
    """How many bytes of a subnet's file one initializer takes.

    Args:
        name: the initializer.
        fixed_bytes: bytes per entry of the axes that gates decide.
        gates: the gates that decide an axis; each multiplies by its number of kept blocks.
        branches: the (layer gate, block) that all must be kept for the initializer to exist.
        precision: for a quantized one its bit gate and the bits per entry with 1, 2, ... blocks kept; 32 otherwise.
            Of weights in blocks the last block may be wider than that by what fills it up.
    """

    name: str
    fixed_bytes: int
    gates: tuple[str, ...]
    branches: tuple[tuple[str, int], ...]
    precision: tuple[str, tuple[float, ...]] | None = None


class Supernet:
    """The trained network, exported once; no torch from here on.

    Args:
        model: ONNX model with its gates as initializers (see `fn3hw.deploy.graph`); the batch axis is dynamic.
        space: the gates' search space.
        space: the gates' search space.

    Raises:
        InputError: the gates of the model and those of the space differ, or a gate cannot be eliminated.
    """

    def __init__(self, model: onnx.ModelProto, space: SearchSpace) -> None:
        self.model, self.space = model, space
        self.blockwise: frozenset[str] = frozenset()
        self.graph = Graph(model)
        self.quantizers = {name: one for one in read_quantizers(model) for name in one.weights}
        in_graph = {gate_node.gate for gate_node in self.graph.gate_nodes.values()}
        in_graph |= {one.gate for one in self.quantizers.values()}
        if in_graph != {gate.name for gate in space}:
            odd = sorted(in_graph ^ {gate.name for gate in space})
            raise InputError(f"The ONNX graph and the search space have different gates: {', '.join(odd)}.")

    def blockwise_layers(self) -> tuple[str, ...]:
        """Linear layers that have the choice: their weights can be integers that blocks hold."""
        return tuple(
            node.name
            for node in self.graph.nodes
            if is_linear(node) and (one := self.quantizers.get(node.input[1])) and block_bits(one.levels([0]))
        )

    def with_blockwise(self, layers: Iterable[str]) -> Supernet:
        """The same network, its files with these layers on blocks of packed integers (`fn3hw.deploy.blockwise`).

        Raises:
            InputError: a layer does not have the choice.
        """
        twin = copy.copy(self)
        twin.blockwise = frozenset(layers)
        if odd := sorted(twin.blockwise.difference(self.blockwise_layers())):
            raise InputError(f"No linear layers with quantized weights: {', '.join(odd)}.")
        return twin

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return self.graph.shapes[self.graph.input][1:]

    @property
    def n_classes(self) -> int:
        """Width of the output."""
        return self.graph.shapes[self.graph.output][1]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over graph, weights and space."""
        return sha256(self.model.SerializeToString(deterministic=True) + self.space.digest.encode())

    @cached_property
    def architecture(self) -> str:
        """SHA-256 over graph, shapes and space, the values of the weights left out.

        Latency and memory depend on these alone: a network that was trained anew keeps its profile.
        """
        bare = onnx.ModelProto()
        bare.CopyFrom(self.model)
        for tensor in bare.graph.initializer:
            if tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT:
                tensor.ClearField("raw_data")
                tensor.ClearField("float_data")
        without_step_sizes(bare)
        return sha256(bare.SerializeToString(deterministic=True) + self.space.digest.encode())

    def units(self) -> dict[str, tuple[str, ...]]:
        """Per node the gates that decide its shape (``"NAME"``) and the branches that it belongs to (``"NAME[M]"``).

        Of a node on the way between quantized layers, and of the borders of its output, also the bit gates on both
        sides: whether its input and its output are integers is up to them.
        """
        units = self.graph.units()
        if not self.quantizers:
            return units
        gates = {name: one.gate for name, one in self.quantizers.items()}
        read_by: dict[str, list[str]] = {}
        for node in self.graph.nodes:
            for name in node.input:
                read_by.setdefault(name, []).extend(gates[weight] for weight in node.input if weight in gates)
        behind: dict[str, tuple[str, ...]] = {}
        found = dict.fromkeys(border_nodes(self.graph.input), tuple(dict.fromkeys(read_by[self.graph.input])))
        for node in self.graph.nodes:
            own = tuple(gates[name] for name in node.input if name in gates)
            before = () if own else tuple(gate for name in node.input for gate in behind.get(name, ()))
            output = node.output[0]
            # A sum starts anew: through a chain of residual sums every layer would decide about every other one.
            behind[output] = () if node.op_type == "Add" and not own else own or before
            for name in (name for name in node.input if name in gates):
                helpers = (*unpacking_nodes(name), bias_node(node.name))
                found |= dict.fromkeys(helpers, (*units[node.name], *own))
            found[node.name] = (*units[node.name], *dict.fromkeys((*own, *before)))
            sides = dict.fromkeys((*own, *before, *read_by.get(output, ())))
            found |= dict.fromkeys(border_nodes(output), (*units[node.name], *sides))
        return found

    def parameters(self) -> list[Parameter]:
        """How the bytes of each initializer follow from the counts of a subnet."""
        units = self.units()
        used_by: dict[str, list[str]] = {}
        for node in self.graph.nodes:
            for name in node.input:
                used_by.setdefault(name, []).append(node.name)
        layer_gates = {gate.name for gate in self.space if gate.level == "layer"}
        found = []
        for name, array in self.graph.arrays.items():
            if name.startswith("gate/"):
                continue
            cuts = self.graph.cuts.get(name, [])
            shares = [set(u for u in units[n] if u.split("[")[0] in layer_gates) for n in used_by.get(name, [])]
            branches = sorted(set.intersection(*shares)) if shares else []
            size = array.nbytes
            for cut in cuts:
                size //= self.space[cut.gate].size
            precision = None
            if name in self.quantizers:
                gate = self.space[self.quantizers[name].gate]
                blocks = self.blockwise.intersection(used_by[name])
                bits = (self._bits(name, range(count), bool(blocks)) for count in range(1, gate.size + 1))
                precision = gate.name, tuple(bits)
            owners = tuple(cut.gate for cut in cuts)
            found.append(Parameter(name, size, owners, tuple(split_branch(text) for text in branches), precision))
        return found

    def _bits(self, weight: str, kept: range, blockwise: bool) -> float:
        """Bits per entry of a quantized weight in the file."""
        quantizer = self.quantizers[weight]
        in_blocks = block_bits(quantizer.levels(kept)) if blockwise and not quantizer.is_float(kept) else None
        return quantizer.bits(kept) if in_blocks is None else in_blocks + OVERHEAD_BITS

    def integer_weights(self, subnet: Subnet) -> frozenset[str]:
        """Names of the weights that are integers in a subnet's file, as far as the subnet has them."""
        kept = {gate.name: subnet.blocks(gate.name) for gate in self.space if gate.level == "bit"}
        return frozenset(name for name, one in self.quantizers.items() if not one.is_float(kept[one.gate]))

    def slice(
        self,
        subnet: Subnet,
        statistics: Statistics | None = None,
        *,
        ranges: Ranges | None = None,
        pad: int = 1,
        packed: bool = True,
    ) -> onnx.ModelProto:
        """The subnet as an ONNX model of its own, without what a zero gate makes dead.

        Node names stay those of the supernet. Batch norm is left as nodes, which ONNX Runtime folds into the
        convolution before it when it loads the model.

        Args:
            subnet: which blocks are kept.
            statistics: mean and variance for batch-norm nodes, in the subnet's widths; others keep the supernet's.
            ranges: of the activations (`fn3hw.deploy.activation_ranges`): quantized layers then compute on integers.
            pad: fill numbers of channels and neurons up to a multiple of this with ones that nothing reads, as far as
                the network has them. The output is the same; it may come sooner. Quantized networks are not padded.
            packed: write integer weights as such. If not, they are the fp32 numbers that the integers stand for: the
                output is the same up to rounding, and without ``ranges`` it comes several times sooner.

        Raises:
            InputError: the subnet is of another space, or statistics or ranges do not fit it.
        """
        return _Slicer(self, subnet, statistics or {}, pad=1 if self.quantizers else pad).model(ranges, packed=packed)

    def deployed(self, subnet: Subnet) -> onnx.ModelProto:
        """The subnet as it runs on a device, to measure time and memory with; not for its outputs.

        Batch norm is the supernet's, and where weights are integers, ranges of activations are nominal ones.
        """
        model = self.slice(subnet)
        return self.slice(subnet, ranges=nominal_ranges(model)) if self.quantizers else model

    def weights(self, subnet: Subnet, nodes: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Per named node its weight in the subnet: sliced, and with what its gates scale folded in."""
        return _Slicer(self, subnet, {}).weights(set(nodes))

    def save(self, folder: Path | str) -> None:
        """Write ``supernet.onnx`` and ``space.json`` into a folder."""
        data = self.model.SerializeToString(deterministic=True)
        write_bytes(Path(folder) / "supernet.onnx", data)
        document = {"format": SPACE_FORMAT, "gates": self.space.to_json(), "onnx_sha256": sha256(data)}
        write_text(Path(folder) / "space.json", json.dumps(document, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path | str) -> Supernet:
        """Read what `save` wrote.

        Raises:
            RunError: a file is missing, damaged or from a newer version.
        """
        onnx_path, space_path = Path(folder) / "supernet.onnx", Path(folder) / "space.json"
        for path in (onnx_path, space_path):
            if not path.is_file():
                raise RunError(f"{path} does not exist.", hint="Train the run first: fn3hw train --help")
        try:
            document: dict[str, Any] = json.loads(space_path.read_text())
            version, gates, checksum = int(document["format"]), document["gates"], document["onnx_sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{space_path} is damaged: {error}.", hint=f"Train the run again: {folder}.") from error
        if version > SPACE_FORMAT:
            raise RunError(
                f"{space_path} has format {version}; this fn3hw reads up to {SPACE_FORMAT}.", hint="Upgrade fn3hw."
            )
        data = onnx_path.read_bytes()
        if sha256(data) != checksum:
            raise RunError(
                f"{onnx_path} is not the file that {space_path} was written with: half written or edited.",
                hint=f"Run fn3hw train on {folder} again; it goes on from its checkpoint.",
            )
        return cls(onnx.load_from_string(data), SearchSpace.from_json(gates))


class _Slicer:
    """Zero-gate elimination of one subnet."""

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
        live = self.graph.live(self.dropped)
        self._fold_gates(live)
        nodes = [self._node(index) for index in sorted(live) if not self._is_folded(index)]
        used = {name for node in nodes for name in node.input}
        arrays = {name: self._array(name) for name in self.graph.arrays if name in used}
        self._scale_weights(nodes, arrays)
        self._set_statistics(nodes, arrays)
        source = self.supernet.model
        model = onnx.ModelProto(ir_version=source.ir_version, producer_name="fn3hw", opset_import=source.opset_import)
        graph = model.graph
        graph.name = source.graph.name
        weights = self._quantize(arrays, packed=packed)
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
        live = self.graph.live(self.dropped)
        self._fold_gates(live)
        nodes = [self.graph.nodes[index] for index in live if self.graph.nodes[index].name in names]
        arrays = {node.input[1]: self._array(node.input[1]) for node in nodes}
        self._scale_weights(nodes, arrays)
        for name in arrays.keys() & self.supernet.quantizers.keys():
            quantizer = self.supernet.quantizers[name]
            arrays[name] = quantizer.values(arrays[name].astype(np.float32), self.subnet.blocks(quantizer.gate))
        return {node.name: arrays[node.input[1]].astype(np.float32, copy=False) for node in nodes}

    def _quantize(self, arrays: dict[str, Array], *, packed: bool) -> dict[str, IntegerWeight]:
        """Takes the weights that are integers in this subnet out of ``arrays``; quantized fp32 ones stay there."""
        found = {}
        integers = self.supernet.integer_weights(self.subnet) if packed else ()
        for name in [name for name in arrays if name in self.supernet.quantizers]:
            quantizer = self.supernet.quantizers[name]
            blocks, weight = self.subnet.blocks(quantizer.gate), arrays[name].astype(np.float32, copy=False)
            if name not in integers:
                arrays[name] = quantizer.values(weight, blocks)
                continue
            del arrays[name]
            scale = np.array(quantizer.step, dtype=np.float32)
            found[name] = IntegerWeight(quantizer.integers(weight, blocks), quantizer.levels(blocks), scale)
        return found

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

    def _array(self, name: str) -> Array:
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


def split_branch(text: str) -> tuple[str, int]:
    """The layer gate and the block of a tag such as ``"layer1[0]"``."""
    name, _, block = text[:-1].rpartition("[")
    return name, int(block)
