"""Exact batch-norm statistics of a subnet, by a pass of data through its own ONNX graph.

Each batch-norm node is replaced by the operations that it does in training: mean and variance over the batch, then
normalisation with them, so that every statistic is taken on the activations that the corrected layers before it give.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fn3hw.deploy.graph import attribute
from fn3hw.deploy.runtime import FloatArray, batches, open_session
from fn3hw.deploy.supernet import Statistics, Supernet
from fn3hw.errors import InputError
from fn3hw.space.subnet import Subnet


def recalibrate(
    supernet: Supernet,
    subnet: Subnet,
    images: FloatArray,
    *,
    batch_size: int = 256,
    threads: int | None = None,
) -> Statistics:
    """Mean and variance of every batch-norm node of a subnet over ``images``, averaged over batches.

    Args:
        supernet: the network.
        subnet: which blocks are kept.
        images: normalised images (N, C, H, W), N >= 2.
        batch_size: images per batch; statistics are taken per batch, as training takes them.
        threads: threads of ONNX Runtime; one per core by default.

    Raises:
        InputError: the images have another shape than the network's input.
    """
    check_images(supernet, images)
    statistics, _ = observe(supernet.slice(subnet, packed=False), images, batch_size=batch_size, threads=threads)
    return statistics


def observe(
    model: onnx.ModelProto,
    images: FloatArray,
    *,
    watch: Sequence[str] = (),
    batch_size: int = 256,
    threads: int | None = None,
) -> tuple[Statistics, list[list[FloatArray]]]:
    """Batch-norm statistics of a sliced model, and per batch the values of the tensors named in ``watch``."""
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    session = open_session(training_form(model, watch), threads=threads)
    outputs = [name for node in norms for name in _outputs(node)] + list(watch)
    sums: list[np.ndarray] = []
    seen: list[list[FloatArray]] = []
    parts = [part for part in batches(images, batch_size) if len(part) > 1]
    for part in parts:
        values = session.run(outputs, {model.graph.input[0].name: part}) if outputs else []
        found = [np.asarray(v, dtype=np.float64) for v in values[: 2 * len(norms)]]
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        seen.append(values[2 * len(norms) :])
    means = [total / len(parts) for total in sums]
    statistics = {
        node.name: (means[2 * i].astype(np.float32), means[2 * i + 1].astype(np.float32))
        for i, node in enumerate(norms)
    }
    return statistics, seen


def training_form(model: onnx.ModelProto, watch: Sequence[str] = ()) -> onnx.ModelProto:
    """The model with batch norm as in training: normalised by, and giving out, the statistics of the batch."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    shapes = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "BatchNormalization":
            rank = len(shapes[node.input[0]].type.tensor_type.shape.dim) if node.input[0] in shapes else 4
            graph.node.extend(_normalise(node, rank, graph))
        else:
            graph.node.append(node)
    graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in watch)
    return result


def check_images(supernet: Supernet, images: FloatArray) -> None:
    """Raise `InputError` unless ``images`` fit the network's input."""
    if images.shape[1:] != supernet.input_shape:
        raise InputError(f"The images have shape {images.shape[1:]}, the network takes {supernet.input_shape}.")
    if len(images) < 2:
        raise InputError(f"Batch-norm statistics need at least 2 images, not {len(images)}.")


def _outputs(node: onnx.NodeProto) -> tuple[str, str]:
    return f"{node.name}/batch_mean", f"{node.name}/batch_var"


def _normalise(node: onnx.NodeProto, rank: int, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    x, scale, shift = node.input[:3]
    mean, variance = _outputs(node)
    own = f"{node.name}/"
    constants: dict[str, np.ndarray] = {
        "axes": np.array([0, *range(2, rank)], dtype=np.int64),
        "column": np.array([1, -1, *[1] * (rank - 2)], dtype=np.int64),
        "epsilon": np.array(attribute(node, "epsilon", 1e-5), dtype=np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(value, own + key) for key, value in constants.items())
    graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in (mean, variance))
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("ReduceMean", [x, own + "axes"], own + "m", {"keepdims": 1}),
        ("Sub", [x, own + "m"], own + "d", {}),
        ("Mul", [own + "d", own + "d"], own + "dd", {}),
        ("ReduceMean", [own + "dd", own + "axes"], own + "v", {"keepdims": 1}),
        ("Add", [own + "v", own + "epsilon"], own + "ve", {}),
        ("Sqrt", [own + "ve"], own + "s", {}),
        ("Reshape", [scale, own + "column"], own + "g", {}),
        ("Reshape", [shift, own + "column"], own + "b", {}),
        ("Div", [own + "g", own + "s"], own + "f", {}),
        ("Mul", [own + "d", own + "f"], own + "n", {}),
        ("Add", [own + "n", own + "b"], node.output[0], {}),
        ("Squeeze", [own + "m", own + "axes"], mean, {}),
        ("Squeeze", [own + "v", own + "axes"], variance, {}),
    ]
    return [helper.make_node(op, inputs, [out], name=out, **attrs) for op, inputs, out, attrs in steps]
