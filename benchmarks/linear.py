"""Linear layers of integers on this device: ours against ONNX Runtime's MatMulNBits, both against fp32.

Ours is what `fn3hw export` writes: packed weights and 8-bit activations around a Gemm, which ONNX Runtime fuses to one
integer kernel; or, for one row of activations and where the profile finds it faster, MatMulNBits. That multiplies
packed weights with activations that it takes as they are (accuracy level 0) or rounds to 8 bits (level 4). One thread;
the files of a shape take turns.
Usage: python benchmarks/linear.py [REPEATS]
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from report import report
from torch import nn

from fn3hw.deploy import export
from fn3hw.deploy.runtime import open_session
from fn3hw.space import Bits, Schedule, nest

SHAPES = ((1, 784, 512), (1, 768, 3072), (49, 384, 1536), (197, 768, 768))
"""Rows of activations, inputs, outputs: the paper's MLP, and MLPs and projections of swin_t and vit_b_16."""
MATMULNBITS = [(bits, block, level) for bits in (2, 4, 8) for block in (32, 128) for level in (0, 4)]
WORK = 2e7
"""Multiplications per timed repeat."""


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    rows = []
    for rows_of_x, inputs, outputs in SHAPES:
        over = over_fp32(rows_of_x, inputs, outputs, repeats)
        best = min((name for name in over if name.startswith("MatMulNBits")), key=over.__getitem__)
        rows.append({"shape": [rows_of_x, inputs, outputs], "best": best, "seconds_over_fp32": over})
        print(rows[-1], file=sys.stderr)
    gains = [row["seconds_over_fp32"][row["best"]] < row["seconds_over_fp32"]["ours"] for row in rows]
    report("linear", {"threads": 1, "shapes_where_matmulnbits_is_faster": sum(gains), "shapes": rows})


def over_fp32(rows: int, inputs: int, outputs: int, repeats: int) -> dict[str, float]:
    """Median seconds of each form of one layer over those of fp32."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    sessions = {name: open_session(model) for name, model in our_files(rows, inputs, outputs).items()}
    for bits, block, level in MATMULNBITS:
        model = matmulnbits(rows, inputs, outputs, bits=bits, block=block, level=level)
        sessions[f"MatMulNBits, {bits} bits, block {block}, level {level}"] = open_session(model)
    count = max(1, round(WORK / (rows * inputs * outputs)))
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for repeat in range(repeats + 2):
        for name, session in sessions.items():
            took = timed(session, x, count)
            if repeat >= 2:
                seconds[name].append(took)
    fp32 = statistics.median(seconds["fp32"])
    return {name: statistics.median(values) / fp32 for name, values in seconds.items()}


def timed(session: onnxruntime.InferenceSession, x: np.ndarray, count: int) -> float:
    """Seconds of the thread for a few runs."""
    feed = {session.get_inputs()[0].name: x}
    started = time.thread_time()
    for _ in range(count):
        session.run(None, feed)
    return time.thread_time() - started


def our_files(rows: int, inputs: int, outputs: int) -> dict[str, onnx.ModelProto]:
    """A linear layer, and a small one that reads it, computed in fp32 and on integers of up to ±4."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, 2))
    bits = Bits(schedule=Schedule(full_precision=True))
    supernet = export(nest(layer, torch.zeros(rows, inputs), ("bit",), bits=bits))
    subnet = supernet.space.from_counts({gate.name: 3 for gate in supernet.space})
    files = {"fp32": supernet.deployed(supernet.space.full()), "ours": supernet.deployed(subnet)}
    if layers := supernet.blockwise_layers():
        files["ours in blocks"] = supernet.with_blockwise(layers).deployed(subnet)
    return files


def matmulnbits(rows: int, inputs: int, outputs: int, *, bits: int, block: int, level: int) -> onnx.ModelProto:
    """A file of one MatMulNBits node with random weights."""
    blocks, rng = -(-inputs // block), np.random.default_rng(0)
    packed = rng.integers(0, 256, (outputs, blocks, block * bits // 8)).astype(np.uint8)
    scales = np.full(outputs * blocks, 0.01, np.float32)
    attributes: dict[str, Any] = {"K": inputs, "N": outputs, "bits": bits, "block_size": block}
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", accuracy_level=level, **attributes
    )
    graph = helper.make_graph(
        [node],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, outputs])],
        [numpy_helper.from_array(packed, "w"), numpy_helper.from_array(scales, "s")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


if __name__ == "__main__":
    main()
