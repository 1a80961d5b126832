"""``fn3hw search``: find the most accurate subnet for every cost, once for all budgets."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Any

import typer

from fn3hw.cli import remote
from fn3hw.cli.connecting import refuse
from fn3hw.cli.console import Console
from fn3hw.cli.options import Address, AsJson, ExecutorName, Plot, ProfileFile, RunFolder, Seed, Server
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import fit_cost
from fn3hw.errors import InputError, UnknownName
from fn3hw.profiler import Profile
from fn3hw.searcher import Atlas, Executor, Heuristic, open_executor, plot_front
from fn3hw.searcher import search as search_front
from fn3hw.searcher.api import Progress

COSTS = ("latency", "peak", "size", "blocks")


def search(
    run: RunFolder,
    profile: ProfileFile,
    evaluations: Annotated[
        int,
        typer.Option(min=0, help="The most subnets whose accuracy is evaluated; 0 takes what earlier searches know."),
    ] = 300,
    images: Annotated[
        int, typer.Option(min=1, help="Images per evaluation, of the search split; the front is verified on all.")
    ] = 1000,
    cost: Annotated[
        str, typer.Option(help="What is charged: latency, peak, size, or blocks (the paper's count).")
    ] = "latency",
    level: Annotated[
        list[str] | None, typer.Option("--level", help="Search this level alone; may be repeated. By default all.")
    ] = None,
    race: Annotated[
        bool, typer.Option("--race/--no-race", help="Give candidates up that are certainly beaten after some images.")
    ] = True,
    seed: Seed = 0,
    executor: ExecutorName = "local",
    address: Address = None,
    plot: Plot = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Search under measured cost. Interrupted, run again, it goes on; what was evaluated is never evaluated again."""
    if cost not in COSTS:
        raise UnknownName("cost", cost, COSTS)
    if not evaluations and (cost != "latency" or level or executor != "local"):
        raise InputError(
            "--evaluations 0 takes what earlier searches know: --cost, --level and --executor have nothing to search.",
            hint="Leave them out, or ask for some evaluations.",
        )
    console = Console(as_json=as_json)
    if server is not None:
        refuse({"--executor": executor != "local", "--address": address})
        return remote.search(
            server, console, run, profile, plot,
            evaluations=evaluations, images=images, cost=cost, level=tuple(level or ()), race=race, seed=seed,
        )  # fmt: skip
    opened = OpenRun(run, console)
    measured = opened.profile(profile)
    started = time.monotonic()
    if evaluations:
        settings = (Heuristic.plain if cost == "blocks" else Heuristic)(evaluations=evaluations, seed=seed)
        if not race:
            settings = replace(settings, race=None)
        with open_executor(executor, address) as runner:
            atlas, asked = run_search(
                opened, measured, settings, images=images, cost_by=cost, levels=level, executor=runner
            )
    else:
        atlas, asked = opened.atlas(measured), 0
    seconds = time.monotonic() - started
    picture = plot or run / "front.png"
    plot_front(atlas, picture)
    document = {
        "evaluations": asked,
        "seconds": seconds,
        "plot": str(picture),
        "points": [point.to_json() for point in atlas.points],
    }
    show_front(console, atlas)
    console.result(document, f"{asked} subnets evaluated in {seconds:.0f} s; picture: {picture}")


def run_search(
    opened: OpenRun,
    measured: Profile,
    settings: Heuristic,
    *,
    images: int,
    cost_by: Any = "latency",
    levels: list[str] | None = None,
    executor: Executor | None = None,
) -> tuple[Atlas, int]:
    """Search in a run folder, with progress; the atlas, and how many subnets the search asked for."""
    asked = 0
    with opened.console.progress("searching") as ticker:

        def tick(p: Progress) -> None:
            nonlocal asked
            asked = p.evaluations if p.phase == "search" else asked
            ticker.tick(p.evaluations, p.budget, p.seconds_left, f"{p.phase}, rung {p.rung}/{p.n_rungs}")

        atlas = search_front(
            opened.supernet,
            fit_cost(measured),
            opened.data,
            folder=opened.folder,
            images=images,
            final_images=len(opened.data.split("search")),
            cost_by=cost_by,
            levels=levels or None,
            settings=settings,
            executor=executor,
            profile=measured,
            moments=opened.moments,
            progress=tick,
        )
    return atlas, asked


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
