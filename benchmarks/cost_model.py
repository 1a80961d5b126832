"""The cost model on torchvision's MobileNetV2 at 224×224, its hidden widths random and unaligned.

Fitted on the subnets of the sampling plan, tested on uniformly random ones, beside the repeat noise of the same
measurements and simpler models fitted on the same subnets.
Usage: python benchmarks/cost_model.py [FIT] [TEST] [PROFILE]; an existing profile file is read instead of measured.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from onnx import helper, numpy_helper, shape_inference
from report import report
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from fn3hw.cost import fit_cost, score
from fn3hw.deploy import Supernet, export
from fn3hw.profiler import Measurement, Profile, profile
from fn3hw.space import nest
from fn3hw.space.networks import build


def main() -> None:
    n_fit = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    n_test = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    path = Path(sys.argv[3] if len(sys.argv) > 3 else "runs/mobilenet_v2.profile.json")
    supernet = mobilenet()
    started = time.monotonic()
    if not path.is_file():
        journal = path.with_suffix(".journal")
        journal.parent.mkdir(parents=True, exist_ok=True)
        tick = lambda p: print(p.stage, p.done, p.total, round(p.remaining_s or 0), "s left", file=sys.stderr)  # noqa: E731
        profile(supernet, "local", n_fit, holdout=n_test, name="mobilenet_v2", journal=journal, progress=tick).write(path)
    seconds = time.monotonic() - started
    measured = Profile.read(path)
    measured.check_network(supernet.digest)
    cost = fit_cost(measured)
    space, fit, test = supernet.space, measured.fitted, measured.held_out
    truth = np.array([m.latency_ms for m in test])
    rows = {"fn3hw": cost.predict([space.parse(m.subnet) for m in test])["latency_ms"].to_numpy()}
    known = np.array([m.latency_ms for m in fit])
    flops = [np.array([[flop_count(supernet, m)] for m in part]) for part in (fit, test)]
    rows["FLOPs, linear"] = LinearRegression().fit(flops[0], known).predict(flops[1])
    counts = [np.array([list(m.counts.values()) for m in part]) for part in (fit, test)]
    rows["gradient boosting on counts"] = GradientBoostingRegressor(random_state=0).fit(counts[0], known).predict(counts[1])
    rows["per-layer look-up table"] = lookup_table(measured)
    report(
        "cost_model",
        {
            "network": "torchvision mobilenet_v2, 224x224, level channel",
            "fitted_on": len(fit),
            "tested_on": len(test),
            "measuring_seconds": seconds,
            "full_latency_ms": measured.reference.latency_ms,
            "verdict": measured.verdict,
            "repeat_mape": measured.noise.repeat_mape,
            "reference_drift": measured.reference.drift,
            "rules": str(cost.rules),
            "unaligned_widths_in_test": float(np.mean(counts[1] % 4 != 0)),
            "models": {name: figures(truth, predicted) for name, predicted in rows.items()},
        },
    )


def mobilenet() -> Supernet:
    """MobileNetV2 with random weights, its hidden widths gated."""
    torch.manual_seed(0)
    module = build("torchvision/mobilenet_v2", n_classes=1000, input_shape=(3, 224, 224)).eval()
    return export(nest(module, torch.zeros(1, 3, 224, 224), ("channel",), keep={"channel": 0.25}))


def figures(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Errors of predictions, in percent."""
    one = score(truth, predicted, source="held-out subnets")
    worst = float(100 * np.abs(predicted / truth - 1).max())
    shares = {"within_5pct": 100 * one.within_5pct, "within_10pct": 100 * one.within_10pct}
    return {"mean_error_pct": 100 * one.mape, "worst_error_pct": worst, **shares, "spearman": one.spearman}


def flop_count(supernet: Supernet, measurement: Measurement) -> float:
    """Multiply-adds of a measured subnet's convolutions and linear layers."""
    model = supernet.slice(supernet.space.parse(measurement.subnet))
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in shape_inference.infer_shapes(model).graph.value_info
    }
    weights = {t.name: numpy_helper.to_array(t).shape for t in model.graph.initializer}
    total = 0.0
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            positions = np.prod(shapes[node.output[0]][2:]) if node.op_type == "Conv" else 1
            total += float(np.prod(weights[node.input[1]]) * positions)
    return total


def lookup_table(measured: Profile) -> np.ndarray:
    """Latency of the held-out subnets as the sum of tables: per kernel, its time over its gate's measured counts.

    What nn-Meter and others call a look-up table: each kernel alone, linear between the counts that were measured, and
    the sum scaled to end-to-end latency.
    """
    nodes = sorted({node for m in measured.fitted for node in m.kernels})
    sums = []
    for part in (measured.fitted, measured.held_out):
        sums.append(np.array([sum(kernel_time(measured, node, m) for node in nodes) for m in part]))
    scale = LinearRegression().fit(sums[0][:, None], [m.latency_ms for m in measured.fitted])
    return scale.predict(sums[1][:, None])


def kernel_time(measured: Profile, node: str, measurement: Measurement) -> float:
    """Time of one kernel at a subnet's width, linear between the nearest measured widths of its gate."""
    gates = measured.network.units.get(node.split("@")[-1], ())
    gate = gates[0] if gates else None
    seen = [(m.counts[gate] if gate else 0, m.kernels.get(node, 0.0)) for m in measured.fitted]
    widths = sorted({width for width, _ in seen})
    times = [np.mean([time for width, time in seen if width == one]) for one in widths]
    return float(np.interp(measurement.counts[gate] if gate else 0, widths, times))


if __name__ == "__main__":
    main()
