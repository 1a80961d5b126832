"""``fn3hw quickstart``: the whole path on the digits data set, in a few minutes on a laptop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from fn3hw.cli.console import Console, duration
from fn3hw.cli.measuring import Wanted, measure_profile
from fn3hw.cli.options import AsJson, Seed
from fn3hw.cli.runs import OpenRun, onnx_accuracy
from fn3hw.cli.search import run_search, show_front
from fn3hw.cli.train import train_run
from fn3hw.deploy import recalibrate
from fn3hw.errors import InputError
from fn3hw.searcher import Heuristic, plot_front
from fn3hw.training import Recipe, Run


def quickstart(
    output: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/quickstart"),
    share: Annotated[
        float, typer.Option(help="Latency budget as a share of the full network's measured latency.")
    ] = 0.5,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train, profile, search and export on digits. Interrupted, run again, it goes on."""
    if not 0 < share <= 1:
        raise InputError(f"--share is {share}: it is a share of the full latency, above 0 and at most 1.")
    console, started = Console(as_json=as_json), time.monotonic()
    recipe = Recipe.load("digits")
    opened = OpenRun(output, console)
    console.say("1/4 train: a small MobileNetV2 on digits, its channels and layers ordered by importance")
    train_run(Run.create(output, recipe.model_copy(update={"seed": seed})), console)
    console.say("2/4 profile: measure 20 of its subnets on this machine")
    path = output / "profile.json"
    measured = measure_profile(opened, Wanted(subnets=20, holdout=5, seed=seed), device="local", path=path)
    console.say("3/4 search: the most accurate subnet for every latency")
    atlas, _ = run_search(opened, measured, Heuristic(evaluations=150, seed=seed), images=recipe.data.search)
    show_front(console, atlas)
    console.say(f"4/4 export: the best one at {share:.0%} of the full latency")
    limit, budget = "relative_cost" if measured.emulated else "latency_ms", share * measured.full_cost
    point = atlas.lookup(**{limit: budget})
    exported = point.export(output / "model.onnx", verify_on="local")
    plot_front(atlas, output / "front.png", chosen=[point], exported=[exported])
    tighter = (min(point.latency_ms_high for point in atlas.points) + budget) / 2
    supernet = opened.supernet
    full = supernet.space.full()
    statistics = recalibrate(supernet, full, opened.data.arrays("train", 2048)[0])
    full_accuracy = onnx_accuracy(supernet.slice(full, statistics).SerializeToString(), opened.data, "test")
    accuracy = onnx_accuracy(exported.path.read_bytes(), opened.data, "test")
    reached = (exported.measured_latency_ms or 0.0) / measured.full_cost
    seconds = time.monotonic() - started
    document = {
        **exported.to_json(),
        "test_accuracy": accuracy,
        "full_test_accuracy": full_accuracy,
        "full_latency_ms": measured.reference.latency_ms,
        "latency_share": reached,
        "verdict": measured.verdict,
        "seconds": seconds,
    }
    full_ms = measured.reference.latency_ms
    took = f"{full_ms:.4f} ms" if full_ms else measured.quantity
    console.result(
        document,
        f"{exported.path}: measured at {reached:.0%} of the full network's {took}; test accuracy {accuracy:.2f}% "
        f"(full network {full_accuracy:.2f}%).\n"
        f"Picture: {output / 'front.png'}. Done in {duration(seconds)}.\n"
        f"Next: fn3hw lookup {output} --profile {path} --{limit.replace('_', '-')} {tighter:.4g}",
    )
