"""All levels at once against each level by itself: accuracy at equal measured latencies and at equal file sizes.

One supernet carries channels, layers and bits. It is searched once over all of them, and once per level with the others
whole; every search spends as many evaluations. Of each, the best file at five latencies and at five sizes is measured,
as shares of the full network in fp32, and tested.
Usage: python benchmarks/joint.py RUN [EVALUATIONS]; RUN was trained by recipe fashion-mnist-joint and has profile.json
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
from judging import Judge, searched
from report import RESULTS, report

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import fit_cost
from fn3hw.profiler import Meter
from fn3hw.searcher import Heuristic

LATENCIES = (0.7, 0.5, 0.4, 0.3, 0.25)
SIZES = (0.7, 0.5, 0.25, 0.15, 0.1)
INTEGER_SHARE = 0.25
FINAL_IMAGES = 8000
"""Of the search split, on which the points of a front are evaluated once more."""


def main() -> None:
    folder = Path(sys.argv[1])
    evaluations = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    opened = OpenRun(folder, Console(as_json=False))
    measured = opened.profile(folder / "profile.json")
    cost, space = fit_cost(measured), opened.supernet.space
    alone = [(level,) for level in space.levels]
    settings = Heuristic(evaluations=evaluations)
    atlases = {
        (levels, by): searched(
            opened, cost, measured, by=by, levels=levels, settings=settings, final_images=FINAL_IMAGES
        )
        for levels in (space.levels, *alone)
        for by in ("latency", "size")
    }
    print("measuring", file=sys.stderr, flush=True)
    rows = {}
    with Meter(opened.supernet, measured, "local") as meter:
        judge, full_ms = Judge(opened, measured, meter), measured.reference.latency_ms
        full_accuracy = judge.accuracy(space.full())
        full_mib = len(judge.file(space.full())) / (1 << 20)
        for levels in (space.levels, *alone):
            rows[" + ".join(levels)] = {
                "at_latency": [judge.at_latency(atlases[levels, "latency"], share * full_ms) for share in LATENCIES],
                "at_size": [judge.at_size(atlases[levels, "size"], share * full_mib) for share in SIZES],
            }
            print(levels, rows[" + ".join(levels)], file=sys.stderr)
    joint = rows[" + ".join(space.levels)]
    report(
        "joint",
        {
            "evaluations": evaluations,
            "full_test_accuracy": full_accuracy,
            "full_latency_ms": full_ms,
            "full_size_mib": full_mib,
            "latency_shares": LATENCIES,
            "size_shares": SIZES,
            "test_accuracy": rows,
            "rules": str(cost.rules),
            "cost_model_mape": cost.holdout.mape,
            "points_lost_at_25_pct_latency": full_accuracy - joint["at_latency"][LATENCIES.index(INTEGER_SHARE)],
        },
    )
    draw(rows, RESULTS / "joint.png")


def draw(rows: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Accuracy over the share of the full network's latency, and of its file size."""
    _, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
    sides = (("at_latency", LATENCIES, "measured latency"), ("at_size", SIZES, "file size"))
    for axis, (key, shares, what) in zip(axes, sides, strict=True):
        for levels, row in rows.items():
            axis.plot(shares, row[key], "o-", markersize=3, label=levels)
        axis.set(xlabel=f"{what} over that of the full network", ylabel="test accuracy %")
    axes[0].legend(fontsize=8)
    plt.tight_layout()
    plt.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
