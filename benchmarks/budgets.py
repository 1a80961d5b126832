"""Whether exported files meet their budgets: random latency budgets between the smallest and the full network.

Usage: python benchmarks/budgets.py RUN [BUDGETS]; RUN has profile.json and was searched.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from report import report

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.profiler import Meter


def main() -> None:
    folder = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    opened = OpenRun(folder, Console(as_json=False))
    measured = opened.profile(folder / "profile.json")
    atlas = opened.atlas(measured)
    low = min(point.latency_ms_high for point in atlas.points)
    high = max(point.latency_ms for point in atlas.points)
    budgets = np.sort(np.random.default_rng(0).uniform(low, high, count))
    rows = []
    with tempfile.TemporaryDirectory() as scratch, Meter(opened.supernet, measured, "local") as meter:
        for number, budget in enumerate(budgets):
            path = Path(scratch) / f"{number}.onnx"
            exported = atlas.lookup(latency_ms=float(budget)).export(path, verify_on="local")
            again = meter.time(path.read_bytes()).latency_ms
            row = {
                "budget_ms": float(budget),
                "measured_ms": exported.measured_latency_ms,
                "measured_again_ms": again,
                "first_try_met": exported.tries[0].measured_latency_ms <= budget,
                "tries": len(exported.tries),
                "slack_pct": 100 * (1 - exported.measured_latency_ms / budget),
            }
            rows.append(row)
            print(row, file=sys.stderr)
    report(
        "budgets",
        {
            "budgets": count,
            "met_pct": 100 * float(np.mean([row["measured_ms"] <= row["budget_ms"] for row in rows])),
            "met_when_measured_again_pct": 100
            * float(np.mean([row["measured_again_ms"] <= row["budget_ms"] for row in rows])),
            "met_at_first_try_pct": 100 * float(np.mean([row["first_try_met"] for row in rows])),
            "median_slack_pct": float(np.median([row["slack_pct"] for row in rows])),
            "points_on_the_front": len(atlas),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
