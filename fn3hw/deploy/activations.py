"""Eight-bit activations around integer weights, so that the device computes on integers.

A quantized layer reads and writes unsigned 8-bit integers: `QuantizeLinear` and `DequantizeLinear` stand at its
borders, batch norm is folded into the scales of its weights, and ONNX Runtime fuses all of it into one integer kernel.
What range each tensor has is found by running the subnet on training images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from fn3hw.deploy.graph import attribute
from fn3hw.deploy.integers import IntegerWeight
from fn3hw.deploy.runtime import FloatArray, batches, open_session
from fn3hw.errors import InputError

Ranges = Mapping[str, tuple[float, float]]
"""Per tensor the smallest and the largest value that its integers stand for; zero lies between them."""

LAYERS = ("Conv", "Gemm")
"""Layers that take a bias and whose integer kernel writes integers; products of sequences (MatMul) only read them."""
FUSED = ("Relu", "Clip")
"""What a layer's integer kernel does on its way out."""
CLIPPED = 1e-4
"""Share of values that may lie outside of a range, on either side."""

SAMPLE = 2**15
"""Values per tensor and pass that a range is found from."""

Array = NDArray[np.generic]


def activation_ranges(
    model: onnx.ModelProto, images: FloatArray, *, integers: Collection[str] | None = None, batch_size: int = 128
) -> Ranges:
    """Ranges of all tensors that integers are to stand for.

    Args:
        model: a subnet.
        images: normalised images (N, C, H, W), some hundreds.
        integers: weights that are integers in the file, where the model has them as the numbers that they stand for
            (`Supernet.integer_weights`); by default those that the model dequantizes.
        batch_size: images per pass.

    Raises:
        InputError: the images do not fit the network's input.
    """
    graph = model.graph
    shape = tuple(d.dim_value for d in graph.input[0].type.tensor_type.shape.dim)[1:]
    if images.shape[1:] != shape or not len(images):
        raise InputError(f"The calibration images have shape {images.shape[1:]}, the network takes {shape}.")
    found = borders(graph.node, _weights(model) if integers is None else integers, graph.output[0].name)
    watched = [name for name in found if name != graph.input[0].name]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in watched)
    session = open_session(probe, threads=None)
    lows: dict[str, list[float]] = {}
    highs: dict[str, list[float]] = {}
    for part in batches(images, batch_size):
        values = session.run(watched, {graph.input[0].name: part}) if watched else []
        for name, value in zip([graph.input[0].name, *watched], [part, *values], strict=True):
            sample = value.reshape(-1)[:: max(1, value.size // SAMPLE)]
            low, high = np.quantile(sample, [CLIPPED, 1 - CLIPPED])
            lows.setdefault(name, []).append(float(low))
            highs.setdefault(name, []).append(float(high))
    return {name: (min(0.0, float(np.mean(lows[name]))), max(1e-6, float(np.mean(highs[name])))) for name in lows}


def nominal_ranges(model: onnx.ModelProto) -> Ranges:
    """Ranges to measure time and memory with, which do not depend on them, but for how activations are fused."""
    nodes, weights = list(model.graph.node), _weights(model)
    positive = {node.output[0] for node in nodes if node.op_type in FUSED}
    names = [model.graph.input[0].name, *borders(nodes, weights, model.graph.output[0].name)]
    return {name: (0.0, 6.0) if name in positive else (-4.0, 4.0) for name in names}


def _weights(model: onnx.ModelProto) -> set[str]:
    return {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}


def borders(nodes: Iterable[onnx.NodeProto], weights: Collection[str], output: str) -> list[str]:
    """The tensors that quantized layers, and the sums between them, read and write."""
    nodes = list(nodes)
    made = {name for node in nodes for name in node.output}
    layers = [node for node in nodes if node.op_type in (*LAYERS, "MatMul") and node.input[1] in weights]
    found: dict[str, None] = {}
    for layer in layers:
        found |= dict.fromkeys([layer.input[0], *([end_of(nodes, layer)] if layer.op_type in LAYERS else [])])
    for node in nodes:
        if node.op_type == "Add" and found.keys() & set(node.input) and made.issuperset(node.input):
            found |= dict.fromkeys([*node.input, end_of(nodes, node)])
    return [name for name in found if name != output]


def end_of(nodes: list[onnx.NodeProto], node: onnx.NodeProto) -> str:
    """The last tensor that an operation's integer kernel writes: behind its batch norm and activation."""
    output = str(node.output[0])
    readers = [reader for reader in nodes if output in reader.input]
    if len(readers) == 1 and (
        readers[0].op_type in FUSED or (readers[0].op_type == "BatchNormalization" and node.op_type == "Conv")
    ):
        return end_of(nodes, readers[0])
    return output


class IntegerForm:
    """Rewrites a subnet's nodes so that its quantized layers compute on integers.

    Args:
        nodes: of the subnet, in order of execution.
        arrays: their constants.
        weights: its integer weights by name, with one scale each.
        ranges: of `activation_ranges`.
        output: the network's output.

    Raises:
        InputError: a range is missing.
    """

    def __init__(
        self,
        nodes: list[onnx.NodeProto],
        arrays: Mapping[str, Array],
        weights: Mapping[str, IntegerWeight],
        ranges: Ranges,
        output: str,
    ) -> None:
        self.ranges = ranges
        self.arrays: dict[str, Array] = dict(arrays)
        self.weights = dict(weights)
        self.tensors: list[onnx.TensorProto] = []
        self.nodes = self._fold_norms(nodes)
        self.borders = set(borders(self.nodes, set(self.weights), output))
        if missing := sorted(self.borders - ranges.keys()):
            raise InputError(
                f"There is no range for {', '.join(missing[:3])}: the ranges are of another subnet.",
                hint="Calibrate this subnet: fn3hw.deploy.activation_ranges",
            )

    def build(self, graph_input: str) -> list[onnx.NodeProto]:
        """The nodes of the file; what they read is in ``arrays``, ``weights`` and ``tensors``."""
        result: list[onnx.NodeProto] = []
        self._cross(graph_input, result)
        for node in self.nodes:
            for position, name in enumerate(node.input):
                if name in self.borders:
                    node.input[position] = border_nodes(name)[1]
            if node.op_type in LAYERS and node.input[1] in self.weights:
                self._integer_bias(node, result)
            result.append(node)
            self._cross(node.output[0], result)
        return result

    def _cross(self, name: str, result: list[onnx.NodeProto]) -> None:
        """Put a border behind a tensor."""
        if name not in self.borders:
            return
        low, high = self.ranges[name]
        scale, zero = quantization(low, high)
        constants = [f"{name}/scale", f"{name}/zero"]
        self.tensors.append(numpy_helper.from_array(np.array(scale, dtype=np.float32), constants[0]))
        self.tensors.append(numpy_helper.from_array(np.array(zero, dtype=np.uint8), constants[1]))
        quantized, dequantized = border_nodes(name)
        for operator, source, target in (
            ("QuantizeLinear", name, quantized),
            ("DequantizeLinear", quantized, dequantized),
        ):
            result.append(helper.make_node(operator, [source, *constants], [target], name=target))

    def _integer_bias(self, node: onnx.NodeProto, result: list[onnx.NodeProto]) -> None:
        """A layer's bias as int32 in units of its input's scale times its weights' scale."""
        if len(node.input) < 3 or not node.input[2]:
            return
        bias = self.arrays.pop(node.input[2]).astype(np.float64)
        source = node.input[0].removesuffix("/dequantized")
        scale = quantization(*self.ranges[source])[0] * self.weights[node.input[1]].unit.astype(np.float64)
        limit = 2.0**31 - 1
        integers = np.clip(np.rint(bias / scale), -limit, limit).astype(np.int32)
        name = node.input[2]
        self.tensors.append(numpy_helper.from_array(integers, f"{name}/integers"))
        self.tensors.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}/scale"))
        inputs = [f"{name}/integers", f"{name}/scale"]
        attributes: dict[str, Any] = {"axis": 0} if scale.ndim else {}
        result.append(helper.make_node("DequantizeLinear", inputs, [name], name=bias_node(node.name), **attributes))

    def _fold_norms(self, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """Batch norm behind a quantized convolution goes into the scales of its weights and into its bias."""
        dropped: set[str] = set()
        for node in nodes:
            if node.op_type not in LAYERS or node.input[1] not in self.weights:
                continue
            readers = [reader for reader in nodes if node.output[0] in reader.input]
            norm = readers[0] if len(readers) == 1 and readers[0].op_type == "BatchNormalization" else None
            self._scale_channels(node, norm if node.op_type == "Conv" else None)
            if norm is not None and node.op_type == "Conv":
                node.output[0] = norm.output[0]
                dropped.add(norm.name)
        return [node for node in nodes if node.name not in dropped]

    def _scale_channels(self, node: onnx.NodeProto, norm: onnx.NodeProto | None) -> None:
        weight = self.weights[node.input[1]]
        axis = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1
        width = weight.values.shape[axis]
        factor, shift = np.ones(width), np.zeros(width)
        if norm is not None:
            scale, offset, mean, variance = (self.arrays[name].astype(np.float64) for name in norm.input[1:5])
            factor = scale / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
            shift = offset - mean * factor
        has_bias = len(node.input) > 2 and bool(node.input[2])
        bias = self.arrays.pop(node.input[2]).astype(np.float64) if has_bias else np.zeros(width)
        name = bias_of(node.name)
        self.arrays[name] = bias * factor + shift
        del node.input[2:]
        node.input.append(name)
        # Scales are positive: a negative factor turns the integers of its channel round.
        signs = np.where(factor < 0, -1, 1).astype(np.int8)
        shape = [-1 if a == axis else 1 for a in range(weight.values.ndim)]
        scales = np.maximum(np.abs(factor) * float(weight.scale), 1e-12).astype(np.float32)
        self.weights[node.input[1]] = IntegerWeight(weight.values * signs.reshape(shape), weight.levels, scales, axis)


def bias_of(layer: str) -> str:
    """What the bias of an integer layer is called."""
    return f"{layer}/bias"


def bias_node(layer: str) -> str:
    """The node that gives the bias of an integer layer."""
    return f"{bias_of(layer)}/dequantize"


def border_nodes(name: str) -> tuple[str, str]:
    """The two nodes of the border behind a tensor, called like what they write."""
    return f"{name}/quantized", f"{name}/dequantized"


def quantization(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of unsigned 8-bit integers for a range that has zero in it."""
    scale = (high - low) / 255
    return scale, round(-low / scale)
