"""What charging measured cost is worth: the search by predicted latency against the same search by block count.

Same trained network, same evaluator, same number of evaluations. Of each search the best file at five measured
latencies is compared: points of its front are exported and measured, and the most accurate one that is measured at or
below the latency counts, by test accuracy.
Usage: python benchmarks/measured_cost.py RUN [EVALUATIONS] [SEEDS]
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
from fn3hw.searcher import Atlas, search
from fn3hw.searcher.verify import ProfiledMeter
from fn3hw.space import Subnet

SHARES = (0.8, 0.7, 0.6, 0.5, 0.35)
WAYS = ("latency", "blocks")


def main() -> None:
    folder = Path(sys.argv[1])
    evaluations = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    opened = OpenRun(folder, Console(as_json=False))
    measured = opened.profile(folder / "profile.json")
    cost = fit_cost(measured)
    best: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    spent: dict[str, list[int]] = {way: [] for way in WAYS}
    with ProfiledMeter(opened.supernet, measured, "local") as meter:
        judge = Judge(opened, meter, measured.reference.latency_ms)
        for seed in range(seeds):
            for way in WAYS:
                with tempfile.TemporaryDirectory() as scratch:
                    atlas = search(
                        opened.supernet, cost, opened.data, folder=scratch, evaluations=evaluations, seed=seed,
                        cost_by=way, profile=measured, moments=opened.moments,
                    )  # fmt: skip
                spent[way].append(len(atlas.points) + len(atlas.dominated))
                best[way].append([judge.best(atlas, share) for share in SHARES])
                print(way, seed, spent[way][-1], best[way][-1], file=sys.stderr)
    tables = {way: np.array(rows) for way, rows in best.items()}
    report(
        "measured_cost",
        {
            "evaluations": evaluations,
            "spent": spent,
            "seeds": seeds,
            "shares_of_full_measured_latency": SHARES,
            "test_accuracy": {
                way: {
                    "mean": table.mean(axis=0).tolist(),
                    "spread": np.ptp(table, axis=0).tolist(),
                    "all": table.tolist(),
                }
                for way, table in tables.items()
            },
            "gain_points": (tables["latency"].mean(axis=0) - tables["blocks"].mean(axis=0)).tolist(),
        },
    )


class Judge:
    """Measures and tests files of subnets, each once."""

    def __init__(self, opened: OpenRun, meter: ProfiledMeter, full_ms: float) -> None:
        self.opened, self.meter, self.full_ms = opened, meter, full_ms
        self.images = opened.data.arrays("train", 2048)[0]
        self.known: dict[Subnet, tuple[float, float]] = {}

    def best(self, atlas: Atlas, share: float) -> float:
        """Test accuracy of what a search would choose at a latency: by merit, the first point measured to meet it."""
        limit = share * self.full_ms
        points = sorted((p for p in atlas.points if p.latency_ms <= 1.1 * limit), key=lambda p: -p.accuracy)
        for point in points:
            latency_ms, accuracy = self.measure(point.subnet)
            if latency_ms <= limit:
                return accuracy
        return float("nan")

    def measure(self, subnet: Subnet) -> tuple[float, float]:
        """Measured latency in ms and test accuracy of a subnet's file, recalibrated."""
        if subnet not in self.known:
            supernet = self.opened.supernet
            model = supernet.slice(subnet, recalibrate(supernet, subnet, self.images)).SerializeToString()
            self.known[subnet] = self.meter.latency_ms(model), onnx_accuracy(model, self.opened.data, "test")
        return self.known[subnet]


if __name__ == "__main__":
    main()
