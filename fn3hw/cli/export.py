"""``fn3hw export``: the ONNX file for a budget, measured to meet it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fn3hw.cli import remote
from fn3hw.cli.connecting import refuse
from fn3hw.cli.console import Console
from fn3hw.cli.lookup import check_budget, describe, profile_here
from fn3hw.cli.options import (
    AsJson,
    LatencyMs,
    PeakMib,
    Plot,
    ProfileOrSearch,
    RelativeCost,
    RunFolder,
    SearchId,
    Server,
    SizeMib,
)
from fn3hw.cli.runs import OpenRun, onnx_accuracy
from fn3hw.errors import InfeasibleBudget
from fn3hw.profiler import cost_text
from fn3hw.searcher import Budget, Exported, plot_front
from fn3hw.searcher.budget import UNITS


def export(
    run: RunFolder,
    output: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    profile: ProfileOrSearch = None,
    latency_ms: LatencyMs = None,
    relative_cost: RelativeCost = None,
    peak_mib: PeakMib = None,
    size_mib: SizeMib = None,
    verify_on: Annotated[
        str, typer.Option(help='Device to measure on: a name, "local", a command, or "none".')
    ] = "local",
    percentile: Annotated[
        int, typer.Option(help="Of the runs that have to meet the latency budget: 50, the usual one, or 90.")
    ] = 50,
    plot: Plot = None,
    search: SearchId = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Write the file of the best subnet for a budget and measure it; where it misses, the next best is tried."""
    console = Console(as_json=as_json)
    budget = Budget(latency_ms=latency_ms, relative_cost=relative_cost, peak_mib=peak_mib, size_mib=size_mib)
    check_budget(budget)
    if server is not None:
        refuse({"--plot": plot})
        device = None if verify_on == "none" else verify_on
        return remote.export(
            server, console, run, profile, search, output, budget.limits, verify_on=device, percentile=percentile
        )
    opened = OpenRun(run, console)
    atlas = opened.atlas(opened.profile(profile_here(profile, search)))
    point = atlas.lookup(**budget.limits)
    exported = point.export(output, verify_on=None if verify_on == "none" else verify_on, percentile=percentile)
    accuracy = onnx_accuracy(output.read_bytes(), opened.data, "test")
    if plot is not None:
        plot_front(atlas, plot, chosen=[point], exported=[exported])
    console.result(document(exported, accuracy), text(exported, accuracy), error=missed(exported, budget))


def missed(exported: Exported, budget: Budget) -> InfeasibleBudget | None:
    """The error to end in where a limit was measured to be missed: the one that is exceeded most."""
    limit = exported.missed
    if limit is None or exported.measured_latency_ms is None:
        return None
    others = {"peak_mib": exported.measured_peak_mib, "size_mib": exported.size_mib}
    measured = others.get(limit, exported.measured_latency_ms)
    assert measured is not None  # peak memory is measured where it has a limit
    wanted, unit = budget.limits[limit], UNITS[limit]
    return InfeasibleBudget(
        f"None of the {len(exported.tries)} files tried is sure to keep within {wanted:g} {unit}; the best, kept in "
        f"{exported.path}, was measured at {measured:.4g} {unit}.",
        limit=limit,
        best=measured,
        hint="Profile with more subnets, or ask for a little more.",
    )


def document(exported: Exported, accuracy: float) -> dict[str, Any]:
    """What was exported, as JSON."""
    return {**exported.to_json(), "test_accuracy": accuracy, "tries": len(exported.tries)}


def text(exported: Exported, accuracy: float) -> str:
    """What was exported, for people."""
    said, measured = "not measured", exported.measured_latency_ms
    if measured:
        of = f" at p{exported.percentile}" if exported.percentile != 50 else ""
        met = "met" if exported.budget_met else "missed"
        memory = f", peak {exported.measured_peak_mib:.1f} MiB" if exported.measured_peak_mib else ""
        said = f"measured {cost_text(measured, exported.point.quantity)}{of}{memory}, budget {met}"
    return (
        f"{exported.path} ({exported.size_mib:.3f} MiB): {said}\n{describe(exported.point)}\n"
        f"test accuracy {accuracy:.2f}%, largest difference to the masked network {exported.max_abs_diff:.2g}"
    )
