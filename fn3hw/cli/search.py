"""``fn3hw search``: find the most accurate subnet for every cost, once for all budgets."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from fn3hw.cli.console import Console
from fn3hw.cli.options import AsJson, Plot, ProfileFile, RunFolder, Seed
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import fit_cost
from fn3hw.errors import UnknownName
from fn3hw.profiler import Profile
from fn3hw.searcher import Atlas, plot_front
from fn3hw.searcher import search as search_front
from fn3hw.searcher.api import Progress

COSTS = ("latency", "peak", "size", "blocks")


def search(
    run: RunFolder,
    profile: ProfileFile,
    evaluations: Annotated[int, typer.Option(min=2, help="The most subnets whose accuracy is evaluated.")] = 300,
    images: Annotated[
        int, typer.Option(min=1, help="Images per evaluation, of the search split; the front is verified on all.")
    ] = 1000,
    cost: Annotated[
        str, typer.Option(help="What is charged: latency, peak, size, or blocks (the paper's count).")
    ] = "latency",
    level: Annotated[
        list[str] | None, typer.Option("--level", help="Search this level alone; may be repeated. By default all.")
    ] = None,
    seed: Seed = 0,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Search under measured cost. Interrupted, run again, it goes on; what was evaluated is never evaluated again."""
    if cost not in COSTS:
        raise UnknownName("cost", cost, COSTS)
    console = Console(as_json=as_json)
    opened = OpenRun(run, console)
    measured = opened.profile(profile)
    started = time.monotonic()
    atlas = run_search(opened, measured, evaluations=evaluations, images=images, cost_by=cost, levels=level, seed=seed)
    seconds = time.monotonic() - started
    picture = plot or run / "front.png"
    plot_front(atlas, picture)
    document = {
        "evaluations": len(atlas.points) + len(atlas.dominated),
        "seconds": seconds,
        "plot": str(picture),
        "points": [point.to_json() for point in atlas.points],
    }
    show_front(console, atlas)
    console.result(document, f"{document['evaluations']} subnets evaluated in {seconds:.0f} s; picture: {picture}")


def run_search(
    opened: OpenRun,
    measured: Profile,
    *,
    evaluations: int,
    images: int,
    cost_by: Any,
    seed: int,
    levels: list[str] | None = None,
) -> Atlas:
    """Search in a run folder, with progress."""
    with opened.console.progress("searching") as ticker:

        def tick(p: Progress) -> None:
            ticker.tick(p.evaluations, p.budget, p.seconds_left, f"{p.phase}, rung {p.rung}/{p.n_rungs}")

        atlas = search_front(
            opened.supernet,
            fit_cost(measured),
            opened.data,
            folder=opened.folder,
            evaluations=evaluations,
            images=images,
            final_images=len(opened.data.split("search")),
            cost_by=cost_by,
            levels=levels or None,
            seed=seed,
            profile=measured,
            moments=opened.moments,
            progress=tick,
        )
    opened.remember_evaluator(atlas.provenance.evaluator)
    return atlas


def show_front(console: Console, atlas: Atlas, rows: int = 12) -> None:
    """About a dozen points of the front as a table."""
    points = sorted(atlas.points, key=lambda p: p.latency_ms)
    chosen = [
        points[round(i * (len(points) - 1) / max(1, min(rows, len(points)) - 1))] for i in range(min(rows, len(points)))
    ]
    cells = [
        (
            f"{p.latency_ms:.3f}",
            f"{p.latency_ms_high:.3f}",
            f"{p.peak_mib:.1f}",
            f"{p.size_mib:.3f}",
            f"{p.accuracy:.2f}",
            p.subnet.id,
        )
        for p in chosen
    ]
    cost = "relative cost" if atlas.provenance.emulated else "latency ms"
    console.table("front", (cost, "at most", "peak MiB", "size MiB", "accuracy %", "subnet"), cells)
