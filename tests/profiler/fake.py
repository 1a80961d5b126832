"""A little network whose widths follow the counts: what the profiler needs of a supernet, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace, Subnet


class FakeSupernet:
    """Conv, batch norm, Clip, a second convolution that a layer gate removes, pooling, and a linear layer."""

    def __init__(self, channels: int = 16, hidden: int = 8, size: int = 12, architecture: str = "f" * 64) -> None:
        self.architecture = architecture
        self.input_shape = (3, size, size)
        self.space = SearchSpace(
            [Gate("stem", "channel", channels, 2), Gate("branch", "layer", 1, 0), Gate("hidden", "neuron", hidden, 1)]
        )

    def blockwise_layers(self) -> tuple[str, ...]:
        return ()

    def with_blockwise(self, layers: Iterable[str]) -> FakeSupernet:
        assert not list(layers)
        return self

    def units(self) -> dict[str, tuple[str, ...]]:
        return {"conv": ("stem",), "conv2": ("stem", "branch[0]"), "fc": ("stem", "hidden"), "out": ("hidden",)}

    def parameters(self) -> Sequence[Any]:
        return [{"name": "w", "fixed_bytes": 108, "gates": ("stem",), "branches": ()}]

    def deployed(self, subnet: Subnet) -> onnx.ModelProto:
        counts = subnet.counts
        width, hidden, branch = counts["stem"], counts["hidden"], counts["branch"]
        rng = np.random.default_rng(0)
        arrays = {
            "w": rng.standard_normal((width, 3, 3, 3)),
            **{name: np.ones(width) for name in ("scale", "shift", "mean", "var")},
            "low": np.asarray(0.0),
            "high": np.asarray(6.0),
            "w2": rng.standard_normal((width, width, 3, 3)),
            "fc_w": rng.standard_normal((width, hidden)),
            "fc_b": np.zeros(hidden),
            "out_w": rng.standard_normal((hidden, 10)),
            "out_b": np.zeros(10),
        }
        nodes = [
            helper.make_node("Conv", ["input", "w"], ["c"], "conv", kernel_shape=[3, 3], pads=[1] * 4),
            helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["b"], "bn"),
            helper.make_node("Clip", ["b", "low", "high"], ["r"], "clip"),
        ]
        last = "r"
        if branch:
            nodes += [
                helper.make_node("Conv", ["r", "w2"], ["c2"], "conv2", kernel_shape=[3, 3], pads=[1] * 4),
                helper.make_node("Add", ["r", "c2"], ["s"], "sum"),
            ]
            last = "s"
        nodes += [
            helper.make_node("GlobalAveragePool", [last], ["p"], "pool"),
            helper.make_node("Flatten", ["p"], ["f"], "flatten"),
            helper.make_node("Gemm", ["f", "fc_w", "fc_b"], ["h"], "fc"),
            helper.make_node("Relu", ["h"], ["hr"], "relu"),
            helper.make_node("Gemm", ["hr", "out_w", "out_b"], ["output"], "out"),
        ]
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            "fake",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *self.input_shape])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 10])],
            [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items() if name in used],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def model(self) -> bytes:
        """The full network as a file."""
        return self.deployed(self.space.full()).SerializeToString()
