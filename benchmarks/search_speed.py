"""Evaluations per second of a search: as it is, of files in chains, without races, as at first, and by eager torch.

The same search, with each of some seeds, is run as it is; with files that are cut into chains; and without races, too.
What an evaluation takes otherwise is timed on subnets that the search asked for, in turns: one after the other with
layers that compute on integers, as the first evaluator did it; and torch in eager mode, masked, after recalibration on
as many images. What the searches choose at ten budgets is compared on all images of the search split.
Usage: python benchmarks/search_speed.py RUN PROFILE [EVALUATIONS] [SEEDS]; archives are kept in RUN/speed
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluator import recalibrated_accuracy, trained_torch
from report import report

from fn3hw.cli.compare import usual_budgets
from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import CostModel, fit_cost
from fn3hw.profiler import Profile
from fn3hw.searcher import Atlas, Charge, Heuristic, provenance_of, run_search
from fn3hw.searcher.searching import evaluator_of
from fn3hw.space.subnet import Subnet

IMAGES = 1000
TIMED = 12
THREADS = 2
CUTS = 3


def main() -> None:
    opened = OpenRun(Path(sys.argv[1]), Console(as_json=False))
    profile = Profile.read(sys.argv[2])
    evaluations = int(sys.argv[3]) if len(sys.argv) > 3 else 300
    seeds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    torch.set_num_threads(THREADS)
    cost = fit_cost(profile)
    supernet = opened.supernet.with_blockwise(profile.blockwise)
    budgets = usual_budgets(Charge(supernet.space, cost))
    folder = opened.folder / "speed"
    shutil.rmtree(folder, ignore_errors=True)
    usual = Heuristic(evaluations=evaluations)
    ways = {"racing": (usual, 0), "chains": (usual, CUTS), "no races": (replace(usual, race=None), 0)}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    peak_gib = None
    for seed in range(seeds):
        for name, (settings, cuts) in ways.items():
            here = folder / f"{name}-{seed}".replace(" ", "-")
            found[name].append(search(opened, profile, cost, replace(settings, seed=seed), cuts, here, budgets))
            print(seed, name, found[name][-1], file=sys.stderr)
            if peak_gib is None:  # of the first search, as it is: nothing else has run yet
                peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    timed = seconds_per_evaluation(opened, profile, asked(folder / "racing-0", opened))
    rates = {name: float(np.mean([run["per_second"] for run in runs])) for name, runs in found.items()}
    rates |= {name: 1 / seconds for name, seconds in timed.items()}
    report(
        f"search_speed-{opened.folder.name}",
        {
            "evaluations": evaluations,
            "images": IMAGES,
            "seeds": seeds,
            "threads": THREADS,
            "evaluations_per_second": rates,
            "over_torch": {name: rate / rates["torch, masked, recalibrated"] for name, rate in rates.items()},
            "proposing_share": float(np.mean([run["proposing_share"] for run in found["racing"]])),
            "images_seen_share": float(np.mean([run["images_seen_share"] for run in found["racing"]])),
            "accuracy_at_budgets": {
                name: [float(np.mean(values)) for values in zip(*(run["accuracy"] for run in runs), strict=True)]
                for name, runs in found.items()
            },
            "racing_minus_no_races_points": [
                float(np.mean(np.subtract(a["accuracy"], b["accuracy"])))
                for a, b in zip(found["racing"], found["no races"], strict=True)
            ],
            "peak_memory_of_a_search_gib": peak_gib,
        },
    )


def search(
    opened: OpenRun,
    profile: Profile,
    cost: CostModel,
    settings: Heuristic,
    cuts: int,
    folder: Path,
    budgets: Sequence[float],
) -> dict[str, Any]:
    """Seconds of one search, and the accuracies of its choices on all images of the search split."""
    supernet = opened.supernet.with_blockwise(profile.blockwise)
    evaluator = evaluator_of(
        supernet, opened.moments, opened.data, "search", IMAGES, integers=False, threads=THREADS, cuts=cuts
    )
    made_from = provenance_of(supernet, cost, profile, evaluator.key)
    started = time.perf_counter()
    atlas = run_search(supernet.space, cost, evaluator, made_from, folder=folder, settings=settings)
    seconds = time.perf_counter() - started
    lines = [json.loads(line) for line in (folder / "archive.jsonl").read_text().splitlines()]
    final = evaluator_of(supernet, opened.moments, opened.data, "search", None, threads=THREADS)
    return {
        "per_second": len(lines) / seconds,
        "proposing_share": 1 - sum(line["seconds"] for line in lines) / seconds,
        "images_seen_share": float(np.mean([line.get("images", IMAGES) for line in lines])) / IMAGES,
        "accuracy": [final.accuracy(choice(atlas, budget)) for budget in budgets],
    }


def choice(atlas: Atlas, budget: float) -> Subnet:
    """The most accurate subnet whose predicted latency meets a budget, as the search itself counts."""
    points = [point for point in (*atlas.points, *atlas.dominated) if point.latency_ms <= budget * (1 + 1e-9)]
    return max(points, key=lambda point: point.evaluated_accuracy).subnet


def asked(folder: Path, opened: OpenRun) -> list[Subnet]:
    """Some of the subnets that a search asked for, evenly over its course."""
    lines = (folder / "archive.jsonl").read_text().splitlines()
    rows = np.linspace(0, len(lines) - 1, TIMED).round().astype(int)
    return [opened.supernet.space.parse(json.loads(lines[row])["subnet"]) for row in rows]


def seconds_per_evaluation(opened: OpenRun, profile: Profile, subnets: Sequence[Subnet]) -> dict[str, float]:
    """Mean seconds of one evaluation, each way in turns."""
    supernet = opened.supernet.with_blockwise(profile.blockwise)
    net = trained_torch(opened)
    images, labels = opened.data.arrays("search", IMAGES)
    calibration = opened.data.arrays("train")[0][-IMAGES:]
    first = evaluator_of(supernet, opened.moments, opened.data, "search", IMAGES, threads=THREADS)
    ways: dict[str, Callable[[Subnet], float]] = {
        "as at first": first.accuracy,
        "torch, masked, recalibrated": lambda subnet: recalibrated_accuracy(
            net, subnet, calibration, images, labels, sliced=False
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for subnet in subnets:
        for name, way in ways.items():
            started = time.perf_counter()
            way(subnet)
            seconds[name].append(time.perf_counter() - started)
    return {name: float(np.mean(values)) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
