"""What charging measured cost is worth: the search by predicted latency against the same search by block count.

Same trained network, same evaluator, same number of evaluations. Of each search the best file at five measured
latencies is compared: points of its front are exported and measured, and the most accurate one that is measured at or
below the latency counts, by test accuracy.
Twice: over all levels of the network, and over its channels alone.
Usage: python benchmarks/measured_cost.py RUN [EVALUATIONS] [SEEDS]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from judging import Judge, searched
from numpy.typing import NDArray
from report import report

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import fit_cost
from fn3hw.searcher.verify import ProfiledMeter

SHARES = (0.8, 0.7, 0.6, 0.5, 0.35)
WAYS = ("latency", "blocks")
Array = NDArray[np.float64]


def main() -> None:
    folder = Path(sys.argv[1])
    evaluations = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    opened = OpenRun(folder, Console(as_json=False))
    measured = opened.profile(folder / "profile.json")
    cost = fit_cost(measured)
    with ProfiledMeter(opened.supernet, measured, "local") as meter:
        judge, full_ms = Judge(opened, meter), measured.reference.latency_ms

        def table(way: str, levels: tuple[str, ...]) -> Array:
            """Test accuracy per seed and share."""
            rows = []
            for seed in range(seeds):
                atlas = searched(opened, cost, measured, by=way, levels=levels, evaluations=evaluations, seed=seed)
                spent.append(len(atlas.points) + len(atlas.dominated))
                rows.append([judge.at_latency(atlas, share * full_ms) for share in SHARES])
                print(*levels, way, seed, spent[-1], rows[-1], file=sys.stderr)
            return np.array(rows)

        spent: list[int] = []
        figures = {}
        for levels in dict.fromkeys((opened.supernet.space.levels, ("channel",))):
            tables = {way: table(way, levels) for way in WAYS}
            figures[" and ".join(levels)] = compared(tables)
    report(
        "measured_cost",
        {
            "evaluations": evaluations,
            "fewest_spent": min(spent),
            "seeds": seeds,
            "shares_of_full_measured_latency": SHARES,
            **figures,
        },
    )


def compared(tables: dict[str, Array]) -> dict[str, object]:
    """Mean, spread and all values of test accuracy per way, and what charging latency gains."""
    accuracy = {
        way: {"mean": one.mean(axis=0).tolist(), "spread": np.ptp(one, axis=0).tolist(), "all": one.tolist()}
        for way, one in tables.items()
    }
    gain = tables["latency"].mean(axis=0) - tables["blocks"].mean(axis=0)
    return {"test_accuracy": accuracy, "gain_points": gain.tolist()}


if __name__ == "__main__":
    main()
