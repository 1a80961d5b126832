"""A supernet as an ONNX file with gates, and zero-gate elimination: any subnet of it as a really smaller file."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from fn3hw.deploy.activations import Ranges, bias_node, border_nodes, nominal_ranges
from fn3hw.deploy.blockwise import OVERHEAD_BITS, block_bits, is_linear
from fn3hw.deploy.graph import Graph
from fn3hw.deploy.integers import read_quantizers, unpacking_nodes, without_step_sizes
from fn3hw.deploy.kept import Kept
from fn3hw.deploy.slicing import Slicer
from fn3hw.errors import InputError, RunError
from fn3hw.space.files import sha256, write_bytes, write_text
from fn3hw.space.subnet import SearchSpace, Subnet

SPACE_FORMAT = 1
_ROUNDED, _ROUNDED_BYTES = 4096, 2**26
"""Quantized weights that are kept, at most, and bytes of them."""
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

    Attributes:
        blockwise: linear layers whose files compute on blocks of packed integers; see `with_blockwise`.

    Raises:
        InputError: the gates of the model and those of the space differ, or a gate cannot be eliminated.
    """

    def __init__(self, model: onnx.ModelProto, space: SearchSpace) -> None:
        self.model, self.space = model, space
        self.blockwise: frozenset[str] = frozenset()
        self._rounded = Kept[tuple[str, tuple[int, ...]], NDArray[np.float32]](_ROUNDED, _ROUNDED_BYTES)
        self.graph = Graph(model)
        self.quantizers = {name: one for one in read_quantizers(model) for name in one.weights}
        in_graph = {gate_node.gate for gate_node in self.graph.gate_nodes.values()}
        in_graph |= {one.gate for one in self.quantizers.values()}
        if in_graph != {gate.name for gate in space}:
            odd = sorted(in_graph ^ {gate.name for gate in space})
            raise InputError(f"The ONNX graph and the search space have different gates: {', '.join(odd)}.")
        entries = self.graph.gate_entries()
        for gate in space:
            found = entries.get(gate.name, gate.size)
            if found % gate.size or (gate.level == "layer" and found != gate.size):
                raise InputError(
                    f"Gate {gate.name!r} has {gate.size} blocks in the search space, but {found} entries in the graph."
                )
            if gate.level != "layer" and gate.min_kept < 1:
                raise InputError(
                    f"Gate {gate.name!r} may lose all of its blocks: only layers can be left out as a whole."
                )

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

    def rounded(self, name: str, blocks: Collection[int]) -> NDArray[np.float32]:
        """A quantized weight, unsliced, as it computes with these blocks of its quantizer: to be read only.

        Rounding is entry by entry, so that a slice of it is what rounding a slice would give.
        """

        def make() -> tuple[NDArray[np.float32], int]:
            weight = self.quantizers[name].values(self.graph.arrays[name].astype(np.float32, copy=False), blocks)
            return weight, weight.nbytes

        return self._rounded.get((name, tuple(blocks)), make)

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
                the network has them. The output is the same; it may come sooner. Integers are not padded.
            packed: write integer weights as such. If not, they are the fp32 numbers that the integers stand for: the
                output is the same up to rounding, and without ``ranges`` it comes sooner: nothing is dequantized.

        Raises:
            InputError: the subnet is of another space, or statistics or ranges do not fit it.
        """
        pad = 1 if self.quantizers and packed else pad
        return Slicer(self, subnet, statistics or {}, pad=pad).model(ranges, packed=packed)

    def deployed(self, subnet: Subnet) -> onnx.ModelProto:
        """The subnet as it runs on a device, to measure time and memory with; not for its outputs.

        Batch norm is the supernet's, and where weights are integers, ranges of activations are nominal ones.
        """
        model = self.slice(subnet)
        return self.slice(subnet, ranges=nominal_ranges(model)) if self.quantizers else model

    def weights(self, subnet: Subnet, nodes: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Per named node its weight in the subnet: sliced, and with what its gates scale folded in."""
        return Slicer(self, subnet, {}).weights(set(nodes))

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
        try:
            model = onnx.load_from_string(data)
        except Exception as error:  # protobuf raises what it likes
            raise RunError(
                f"{onnx_path} is no ONNX file.", hint="Train the run again, or export the network."
            ) from error
        return cls(model, SearchSpace.from_json(gates))


def split_branch(text: str) -> tuple[str, int]:
    """The layer gate and the block of a tag such as ``"layer1[0]"``."""
    name, _, block = text[:-1].rpartition("[")
    return name, int(block)
