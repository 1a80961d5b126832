"""What charging measured cost is worth: the search by predicted latency against the same search by block count.

Same trained network, same evaluator, same number of evaluations. Of each search the best file at five measured
latencies is compared: points of its front are exported and measured, and the most accurate one that is measured at or
below the latency counts, by test accuracy.
By default twice: over all levels of the network, and over its channels alone. The sliding window of the paper's search
(sec. 3) ends at uniform shares of all widths, which on a network of round widths are round, too; ``--window 1`` is the
search by blocks without it.
Usage: python benchmarks/measured_cost.py RUN [--evaluations N] [--seeds N] [--levels LEVEL ...] [--window SHARE]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from judging import Judge, searched
from numpy.typing import NDArray
from report import report

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import fit_cost
from fn3hw.profiler import Meter
from fn3hw.searcher import Heuristic

SHARES = (0.8, 0.7, 0.6, 0.5, 0.35)
WAYS = ("latency", "blocks")
WINDOW = 0.25
Array = NDArray[np.float64]


def main() -> None:
    wanted = arguments()
    opened = OpenRun(wanted.run, Console(as_json=False))
    measured = opened.profile(wanted.run / "profile.json")
    cost = fit_cost(measured)
    every = opened.supernet.space.levels
    spent: list[int] = []
    figures = {}
    with Meter(opened.supernet, measured, "local") as meter:
        judge, full_ms = Judge(opened, measured, meter), measured.reference.latency_ms

        def table(way: str, levels: tuple[str, ...]) -> Array:
            """Test accuracy per seed and share."""
            rows = []
            for seed in range(wanted.seeds):
                plain = Heuristic(
                    evaluations=wanted.evaluations, seed=seed, guided=0.0, refined=0.0, window=wanted.window
                )
                settings = plain if way == "blocks" else Heuristic(evaluations=wanted.evaluations, seed=seed)
                atlas = searched(opened, cost, measured, by=way, levels=levels, settings=settings)
                spent.append(len(atlas.points) + len(atlas.dominated))
                rows.append([judge.at_latency(atlas, share * full_ms) for share in SHARES])
                print(*levels, way, seed, spent[-1], rows[-1], file=sys.stderr)
            return np.array(rows)

        for levels in dict.fromkeys([tuple(wanted.levels)] if wanted.levels else [every, ("channel",)]):
            figures[" and ".join(levels)] = compared({way: table(way, levels) for way in WAYS})
    report(
        "measured_cost" if wanted.window == WINDOW else "measured_cost-without-window",
        {
            "evaluations": wanted.evaluations,
            "fewest_spent": min(spent),
            "seeds": wanted.seeds,
            "window_of_the_search_by_blocks": wanted.window,
            "shares_of_full_measured_latency": SHARES,
            **figures,
        },
    )


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--levels", nargs="*")
    parser.add_argument("--window", type=float, default=WINDOW)
    return parser.parse_args()


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
