"""Quantized weights as what they are: integers in the file, in the narrowest type that ONNX has for their levels.

The supernet is exported with its weights in fp32, and a list of its quantizers in the model's metadata. A subnet's file
holds the integers that the kept steps add up to, packed, and dequantizes them in front of the layer; with the block of
full precision kept, a layer's weights stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fn3hw.deploy.runtime import FloatArray
from fn3hw.errors import InputError
from fn3hw.space.quantizer import Schedule

METADATA = "fn3hw.quantizers"
_TYPES = ((1, TensorProto.INT2, 2), (7, TensorProto.INT4, 4), (127, TensorProto.INT8, 8))
"""Largest level, ONNX type, and bits per weight."""
_OPSETS = {
    TensorProto.INT2: (25, 13),
    TensorProto.INT4: (21, 10),
    TensorProto.UINT4: (21, 10),
    TensorProto.INT8: (13, 7),
}
"""The first opset that has a type, with its IR version."""
_FINE = 64
"""Largest integer that kernels read: 255 · 64 twice is the most that the 16-bit sums of AVX2 hold."""


@dataclass(frozen=True)
class WeightQuantizer:
    """What is needed to quantize weights without torch; see `fn3hw.space.quantizer.Quantizer`.

    Args:
        gate: its bit gate.
        schedule: the levels.
        step: step size, 1/τ.
        weights: the initializers that it quantizes.
    """

    gate: str
    schedule: Schedule
    step: float
    weights: tuple[str, ...]

    def is_float(self, blocks: Collection[int]) -> bool:
        """Whether the weights are fp32 with these blocks kept."""
        return self.schedule.is_float(blocks)

    def integers(self, weight: FloatArray, blocks: Collection[int]) -> NDArray[np.int8]:
        """Weights of any shape to the levels that the blocks with these indices add up to."""
        kept = [height * (block in blocks) for block, height in enumerate(self.schedule.heights)]
        levels = np.concatenate([[0], np.cumsum(kept)]).astype(np.int8)
        scaled = weight / np.float32(self.step)
        reached = np.searchsorted(np.array(self.schedule.thresholds, dtype=np.float32), np.abs(scaled), side="left")
        return np.asarray(levels[reached] * np.sign(scaled).astype(np.int8), dtype=np.int8)

    def values(self, weight: FloatArray, blocks: Collection[int]) -> FloatArray:
        """The weights as they compute: integers times the step size, or fp32."""
        step = np.float32(self.step)
        every = range(len(self.schedule.levels))
        if not self.is_float(blocks):
            return np.asarray(self.integers(weight, blocks) * step, dtype=np.float32)
        if all(block in blocks for block in every):
            return weight
        kept, whole = self.integers(weight, blocks), self.integers(weight, every)
        return np.asarray(weight + (kept.astype(np.float32) - whole.astype(np.float32)) * step, dtype=np.float32)

    def levels(self, blocks: Collection[int]) -> tuple[int, ...]:
        """The integers that the blocks with these indices can add up to, ascending."""
        positive = np.unique(np.cumsum([h * (block in blocks) for block, h in enumerate(self.schedule.heights)]))
        magnitudes = [int(level) for level in positive if level]
        return (*(-m for m in reversed(magnitudes)), 0, *magnitudes)

    def bits(self, blocks: Collection[int]) -> int:
        """Bits per weight in the file."""
        return 32 if self.is_float(blocks) else storage_bits(self.levels(blocks))


@dataclass(frozen=True)
class IntegerWeight:
    """A weight of a file as integers times a scale.

    Kernels read multiples of the integers, with as much smaller a scale: the weights are the same, but a layer's bias,
    which has to be a whole number of (input scale · weight scale), is as much finer.

    Args:
        values: int8, of the weight's shape.
        levels: what they can be, ascending.
        scale: float32, one number or one per entry along ``axis``.
        axis: the axis of the scale.
    """

    values: NDArray[np.int8]
    levels: tuple[int, ...]
    scale: NDArray[np.float32]
    axis: int = 0

    @property
    def multiple(self) -> int:
        """A power of two, so that nothing is rounded."""
        return 1 << max(0, (_FINE // max(self.levels)).bit_length() - 1)

    @property
    def unit(self) -> NDArray[np.float32]:
        """What one of the integers that kernels read stands for."""
        return np.asarray(self.scale / np.float32(self.multiple), dtype=np.float32)

    def written(self, name: str) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
        """The initializers that hold the weight ``name``, and the nodes that give its values.

        ONNX Runtime unpacks the integers once, when it opens the file. The zero point says what would hold without it;
        but ONNX Runtime 1.31 fuses a linear layer into an integer kernel only where it is written down.
        """
        kind, bits = _storage(self.levels)
        packed, integers, scale, zero = (f"{name}/{part}" for part in ("packed", "integers", "scale", "zero"))
        tensors = [numpy_helper.from_array(self.unit, scale)]
        tensors.append(numpy_helper.from_array(np.zeros(self.scale.shape, dtype=np.int8), zero))
        nodes: list[onnx.NodeProto] = []
        if kind == TensorProto.INT8:
            tensors.append(numpy_helper.from_array((self.values * self.multiple).astype(np.int8), integers))
        else:
            codes, table = self._coded(signed=kind != TensorProto.UINT4)
            tensors.append(helper.make_tensor(packed, kind, codes.shape, pack(codes, bits), raw=True))
            tensors.append(numpy_helper.from_array((table * self.multiple).astype(np.int8), f"{name}/levels"))
            nodes.append(_node("Cast", [packed], f"{name}/codes", to=TensorProto.INT32))
            nodes.append(_node("Gather", [f"{name}/levels", f"{name}/codes"], integers))
        attributes: dict[str, Any] = {"axis": self.axis} if self.scale.ndim else {}
        nodes.append(_node("DequantizeLinear", [integers, scale, zero], name, **attributes))
        return tensors, nodes

    def _coded(self, *, signed: bool) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        """What is packed, and the table of levels that it indexes; negative entries count from the table's end."""
        if signed:
            largest = self.levels[-1]
            return self.values, np.array([*range(largest + 1), *range(-largest, 0)])
        # More levels than a 4-bit integer has, but no more than 16: the file holds their numbers.
        return np.searchsorted(self.levels, self.values).astype(np.int8), np.array(self.levels)


def unpacking_nodes(name: str) -> tuple[str, ...]:
    """The nodes that may stand between the integers of the weight ``name`` and its values."""
    return f"{name}/DequantizeLinear", f"{name}/codes/Cast", f"{name}/integers/Gather"


def write_quantizers(model: onnx.ModelProto, quantizers: Iterable[WeightQuantizer]) -> None:
    """Note a supernet's quantizers in its metadata."""
    listed = [
        {
            "gate": one.gate,
            "levels": list(one.schedule.levels),
            "full_precision": one.schedule.full_precision,
            "step": one.step,
            "weights": list(one.weights),
        }
        for one in quantizers
    ]
    if listed:
        helper.set_model_props(model, {METADATA: json.dumps(listed)})


def read_quantizers(model: onnx.ModelProto) -> tuple[WeightQuantizer, ...]:
    """The quantizers that `write_quantizers` noted.

    Raises:
        InputError: they are damaged.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA), "[]")
    try:
        return tuple(
            WeightQuantizer(
                entry["gate"],
                Schedule(tuple(entry["levels"]), bool(entry["full_precision"])),
                float(entry["step"]),
                tuple(entry["weights"]),
            )
            for entry in json.loads(text)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"The quantizers in the supernet's metadata are damaged: {error}.") from error


def raise_opset(model: onnx.ModelProto) -> None:
    """Lift a model to the opset that its integer types need."""
    kinds = {tensor.data_type for tensor in model.graph.initializer} & _OPSETS.keys()
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        opset, ir_version = max(_OPSETS[kind] for kind in kinds)
        for entry in model.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = max(entry.version, opset)
        model.ir_version = max(model.ir_version, ir_version)


def without_step_sizes(model: onnx.ModelProto) -> None:
    """Drop from the metadata what training decides; how the network is built stays."""
    for entry in model.metadata_props:
        if entry.key == METADATA:
            entry.value = json.dumps([{k: v for k, v in one.items() if k != "step"} for one in json.loads(entry.value)])


def storage_bits(levels: tuple[int, ...]) -> int:
    """Bits per weight that the narrowest ONNX type for a set of levels takes."""
    bits: int = _storage(levels)[1]
    return bits


def _storage(levels: tuple[int, ...]) -> tuple[Any, int]:
    """The narrowest ONNX type for a set of levels, and its bits."""
    largest = levels[-1]
    if largest > 7 and len(levels) <= 16:
        return TensorProto.UINT4, 4
    return next((kind, bits) for limit, kind, bits in _TYPES if largest <= limit)


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", **attributes)


def pack(integers: NDArray[np.int8] | NDArray[np.uint8], bits: int) -> bytes:
    """Several entries per byte, the first in the lowest bits, as the ONNX format has it."""
    flat = integers.view(np.uint8).ravel() & (2**bits - 1)
    per_byte = 8 // bits
    rows = np.concatenate([flat, np.zeros(-len(flat) % per_byte, dtype=np.uint8)]).reshape(-1, per_byte)
    shifted = rows.astype(np.uint8) << (bits * np.arange(per_byte, dtype=np.uint8))
    return bytes(np.bitwise_or.reduce(shifted, axis=1))
