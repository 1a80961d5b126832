"""Whether exported files meet their budgets when they are measured again: latency and peak memory together.

Random budgets: a latency between the smallest and the full network's, met by the usual run (p50) and by nine of ten
(p90) in turn, and a peak memory between what the answer to that latency alone needs and the full network's. Slack is
what is left of the limit that is used most.
Usage: python benchmarks/budgets.py RUN [BUDGETS]; RUN has profile.json and was searched
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from report import report

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.profiler import Meter

PERCENTILES = (50, 90)


def main() -> None:
    folder = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    opened = OpenRun(folder, Console(as_json=False))
    measured = opened.profile(folder / "profile.json")
    atlas = opened.atlas(measured)
    low = min(point.latency_ms_high for point in atlas.points)
    high = max(point.latency_ms for point in atlas.points)
    largest = max(point.peak_mib for point in atlas.points)
    chance, rows = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as scratch, Meter(opened.supernet, measured, "local") as meter:
        for number in range(count):
            percentile = PERCENTILES[number % len(PERCENTILES)]
            factor = measured.tail if percentile == 90 else 1.0
            budget_ms = factor * float(chance.uniform(low, high))
            needed = atlas.lookup(latency_ms=budget_ms / factor).peak_mib
            budget_mib = float(chance.uniform(1.01 * needed, 1.01 * largest))
            path = Path(scratch) / f"{number}.onnx"
            point = atlas.lookup(latency_ms=budget_ms, peak_mib=budget_mib)
            exported = point.export(path, verify_on="local", percentile=percentile)
            again = meter.time(path.read_bytes())
            again_ms = again.latency_p90_ms if percentile == 90 else again.latency_ms
            again_mib = meter.peak_mib(path.read_bytes())
            row = {
                "percentile": percentile,
                "budget_ms": budget_ms,
                "budget_mib": budget_mib,
                "said_to_be_met": exported.budget_met,
                "measured_ms": exported.measured_latency_ms,
                "measured_again_ms": again_ms,
                "measured_again_mib": again_mib,
                "met_again": again_ms <= budget_ms and again_mib <= budget_mib,
                "tries": len(exported.tries),
                "slack_pct": 100 * (1 - max(exported.measured_latency_ms / budget_ms, again_mib / budget_mib)),
                "accuracy": exported.point.accuracy,
                "binding": exported.point.binding,
            }
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    report(
        "budgets",
        {
            "budgets": count,
            "said_to_be_met_pct": share(rows, "said_to_be_met"),
            "met_when_measured_again_pct": share(rows, "met_again"),
            **{
                f"met_when_measured_again_pct_p{p}": share([row for row in rows if row["percentile"] == p], "met_again")
                for p in PERCENTILES
            },
            "median_slack_pct": float(np.median([row["slack_pct"] for row in rows])),
            "median_tries": float(np.median([row["tries"] for row in rows])),
            "points_on_the_front": len(atlas),
            "rows": rows,
        },
    )


def share(rows: list[dict[str, Any]], name: str) -> float:
    """Percent of the rows where it holds."""
    return 100 * float(np.mean([row[name] for row in rows]))


if __name__ == "__main__":
    main()
