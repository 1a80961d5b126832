"""``fn3hw export``: the ONNX file for a budget, measured to meet it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fn3hw.cli.console import Console
from fn3hw.cli.lookup import check_budget, describe
from fn3hw.cli.options import AsJson, LatencyMs, PeakMib, Plot, ProfileFile, RunFolder, SizeMib
from fn3hw.cli.runs import OpenRun, onnx_accuracy
from fn3hw.errors import InfeasibleBudget
from fn3hw.searcher import Exported, plot_front


def export(
    run: RunFolder,
    profile: ProfileFile,
    output: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    latency_ms: LatencyMs = None,
    peak_mib: PeakMib = None,
    size_mib: SizeMib = None,
    verify_on: Annotated[
        str, typer.Option(help='Device to measure on: a name, "local", a command, or "none".')
    ] = "local",
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Write the file of the best subnet for a budget and measure it; where it misses, the next best is tried."""
    console = Console(as_json=as_json)
    check_budget(latency_ms, peak_mib, size_mib)
    opened = OpenRun(run, console)
    atlas = opened.atlas(opened.profile(profile))
    point = atlas.lookup(latency_ms, peak_mib, size_mib)
    exported = point.export(output, verify_on=None if verify_on == "none" else verify_on)
    accuracy = onnx_accuracy(output.read_bytes(), opened.data, "test")
    if plot is not None:
        plot_front(atlas, plot, chosen=[point], exported=[exported])
    console.result(document(exported, accuracy), text(exported, accuracy), error=missed(exported, latency_ms))


def missed(exported: Exported, latency_ms: float | None) -> InfeasibleBudget | None:
    """The error to end in where the latency budget was measured to be missed."""
    if exported.budget_met or exported.measured_latency_ms is None or latency_ms is None:
        return None
    return InfeasibleBudget(
        f"None of the {len(exported.tries)} files tried was measured at {latency_ms:g} ms or less; the best, kept "
        f"in {exported.path}, took {exported.measured_latency_ms:.4g} ms.",
        limit="latency_ms",
        best=exported.measured_latency_ms,
        hint="Profile with more subnets, or ask for a little more.",
    )


def document(exported: Exported, accuracy: float) -> dict[str, Any]:
    """What was exported, as JSON."""
    return {**exported.to_json(), "test_accuracy": accuracy, "tries": len(exported.tries)}


def text(exported: Exported, accuracy: float) -> str:
    """What was exported, for people."""
    measured = exported.measured_latency_ms
    said = (
        f"measured {measured:.3f} ms, budget {'met' if exported.budget_met else 'missed'}"
        if measured
        else "not measured"
    )
    return (
        f"{exported.path} ({exported.size_mib:.3f} MiB): {said}\n{describe(exported.point)}\n"
        f"test accuracy {accuracy:.2f}%, largest difference to the masked network {exported.max_abs_diff:.2g}"
    )
