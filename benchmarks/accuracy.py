"""Accuracy at shares of the full network's measured latency, and a plain-trained network removed at random beside it.

Usage: python benchmarks/accuracy.py RUN [PLAIN_RUN]; RUN has profile.json and was searched.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from report import report

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun, onnx_accuracy
from fn3hw.cost import fit_cost
from fn3hw.deploy import recalibrate
from fn3hw.profiler import Profile
from fn3hw.space import Subnet

SHARES = (0.8, 0.65, 0.5, 0.35, 0.25)
RANDOM = 5


def main() -> None:
    console = Console(as_json=False)
    ours = OpenRun(Path(sys.argv[1]), console)
    plain = OpenRun(Path(sys.argv[2]), console) if len(sys.argv) > 2 else None
    measured = ours.profile(ours.folder / "profile.json")
    full_ms = measured.reference.latency_ms
    atlas = ours.atlas(measured)
    full = tested(ours, ours.supernet.space.full())
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for share in SHARES:
            path = Path(scratch) / "model.onnx"
            exported = atlas.lookup(latency_ms=share * full_ms).export(path, verify_on="local")
            accuracy = onnx_accuracy(path.read_bytes(), ours.data, "test")
            row = {
                "share": share,
                "measured_share": exported.measured_latency_ms / full_ms,
                "test_accuracy": accuracy,
                "points_below_full": full - accuracy,
                "subnet": exported.point.subnet.id,
            }
            if plain is not None:
                removed = [tested(plain, subnet) for subnet in random_at(plain, measured, share * full_ms)]
                row |= {"plain_random_mean": float(np.mean(removed)), "plain_random_best": float(np.max(removed))}
            rows.append(row)
            print(row, file=sys.stderr)
    history = ours.run.history()
    report(
        "accuracy",
        {
            "training_minutes": sum(epoch["seconds"] for epoch in history) / 60,
            "epochs": len(history),
            "full_test_accuracy": full,
            "full_latency_ms": full_ms,
            "plain_full_test_accuracy": tested(plain, plain.supernet.space.full()) if plain is not None else None,
            "rows": rows,
        },
    )


def tested(opened: OpenRun, subnet: Subnet) -> float:
    """Test accuracy in percent of a subnet with recalibrated batch norm."""
    statistics = recalibrate(opened.supernet, subnet, opened.data.arrays("train", 2048)[0])
    return onnx_accuracy(opened.supernet.slice(subnet, statistics).SerializeToString(), opened.data, "test")


def random_at(opened: OpenRun, measured: Profile, budget_ms: float) -> list[Subnet]:
    """Random subnets whose predicted latency is just below a budget: within 5%, out of 20,000 draws."""
    rng = np.random.default_rng(0)
    cost = fit_cost(measured)
    drawn = [opened.supernet.space.random(rng) for _ in range(20_000)]
    latency = cost.predict(drawn)["latency_ms"].to_numpy()
    fitting = np.flatnonzero((latency <= budget_ms) & (latency > 0.95 * budget_ms))
    if not len(fitting):
        fitting = np.argsort(np.abs(latency - budget_ms))[:RANDOM]
    return [drawn[i] for i in fitting[:RANDOM]]


if __name__ == "__main__":
    main()
