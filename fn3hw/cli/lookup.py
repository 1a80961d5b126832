"""``fn3hw lookup``: the best subnet for a budget, from what was searched before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fn3hw.cli import remote
from fn3hw.cli.connecting import refuse
from fn3hw.cli.console import Console
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
from fn3hw.cli.runs import OpenRun
from fn3hw.errors import InputError
from fn3hw.profiler import cost_text
from fn3hw.searcher import Budget, Point, plot_front


def lookup(
    run: RunFolder,
    profile: ProfileOrSearch = None,
    latency_ms: LatencyMs = None,
    relative_cost: RelativeCost = None,
    peak_mib: PeakMib = None,
    size_mib: SizeMib = None,
    plot: Plot = None,
    search: SearchId = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """The most accurate subnet that meets all budgets. Needs no measurement and no evaluation."""
    console = Console(as_json=as_json)
    budget = Budget(latency_ms=latency_ms, relative_cost=relative_cost, peak_mib=peak_mib, size_mib=size_mib)
    check_budget(budget)
    if server is not None:
        refuse({"--plot": plot})
        return remote.lookup(server, console, run, profile, search, budget.limits)
    opened = OpenRun(run, console)
    atlas = opened.atlas(opened.profile(profile_here(profile, search)))
    point = atlas.lookup(**budget.limits)
    if plot is not None:
        plot_front(atlas, plot, chosen=[point])
    console.result(document(point), describe(point))


def check_budget(budget: Budget) -> None:
    """Raise `InputError` unless there is a limit."""
    if not budget.limits:
        raise InputError("No budget is given.", hint="Give --latency-ms, --peak-mib or --size-mib, or several.")


def profile_here(profile: Path | None, search: str | None) -> Path:
    """The profile file, which a verb without a server needs.

    Raises:
        InputError: it is missing, or a search of a server is given.
    """
    if search is not None:
        raise InputError("--search goes with --server: here a run has one search for a profile.")
    if profile is None:
        raise InputError("Which device is it for? --profile is missing.", hint="Give --profile FILE")
    return profile


def document(point: Point) -> dict[str, Any]:
    """A point as JSON, with its counts and the limit that binds."""
    return {**point.to_json(), "counts": point.counts, "binding": point.binding}


def describe(point: Point) -> str:
    """A point for people."""
    return (
        f"subnet {point.subnet.id}\n"
        f"predicted {cost_text(point.latency_ms, point.quantity)} "
        f"(at most {point.latency_ms_high:.3f}), peak {point.peak_mib:.1f} MiB, "
        f"file {point.size_mib:.3f} MiB, accuracy {point.accuracy:.2f}% on the search split"
        + (f"; the limit that binds is {point.binding}" if len(point.budget.limits) > 1 else "")
    )
