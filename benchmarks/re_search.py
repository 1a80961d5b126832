"""What a new budget and a new device cost, once a search was made.

A lookup in an atlas of 10,000 points; an atlas for another device from an archive of 10,000 subnets, without one
evaluation; and how good that atlas is, beside a full new search for that device, and beside a short refinement.
Usage: python benchmarks/re_search.py RUN PROFILE OTHER_PROFILE [EVALUATIONS] [SEEDS]; archives are kept in runs/anew
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from report import report

from fn3hw.baselines.compare.scoring import Range
from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import CostModel, fit_cost
from fn3hw.profiler import Profile
from fn3hw.searcher import Archive, Atlas, Charge, Evaluation, Heuristic, provenance_of, run_search
from fn3hw.searcher.api import ARCHIVE
from fn3hw.searcher.ports import AccuracyEvaluator
from fn3hw.searcher.searching import evaluator_of

FOLDER = Path("runs/anew")
POINTS = 10_000
LOOKUPS = 200
IMAGES = 1000
SHORT = 50


def main() -> None:
    opened = OpenRun(Path(sys.argv[1]), Console(as_json=False))
    here, there = Profile.read(sys.argv[2]), Profile.read(sys.argv[3])
    evaluations = int(sys.argv[4]) if len(sys.argv) > 4 else 300
    seeds = int(sys.argv[5]) if len(sys.argv) > 5 else 5
    supernet = opened.supernet.with_blockwise(here.blockwise)
    evaluator = evaluator_of(supernet, opened.moments, opened.data, "search", IMAGES, integers=False)
    costs = {"here": fit_cost(here), "there": fit_cost(there)}
    made_from = provenance_of(supernet, costs["there"], there, evaluator.key)
    charge = Charge(supernet.space, costs["there"])
    full, smallest = (float(cost) for cost in charge.of(np.stack([charge.sizes, charge.bottom])))
    span = Range(full=full, smallest=smallest, floor=evaluator.accuracy(charge.subnet(charge.bottom)))
    volumes: dict[str, list[float]] = {"atlas, no evaluation": [], "refined": [], "full new search": []}
    for seed in range(seeds):
        folder = FOLDER / opened.folder.name / str(seed)
        searched(folder / "old", costs["here"], evaluator, made_from, Heuristic(evaluations=evaluations, seed=seed))
        volumes["atlas, no evaluation"].append(hypervolume(folder / "old", charge, evaluator, span))
        short = Heuristic(evaluations=SHORT, seed=seed)
        copied(folder / "old", folder / "refined")
        searched(folder / "refined", costs["there"], evaluator, made_from, short)
        volumes["refined"].append(hypervolume(folder / "refined", charge, evaluator, span))
        anew = Heuristic(evaluations=evaluations, seed=seed)
        searched(folder / "new", costs["there"], evaluator, made_from, anew)
        volumes["full new search"].append(hypervolume(folder / "new", charge, evaluator, span))
        print(seed, {name: values[-1] for name, values in volumes.items()}, file=sys.stderr)
    report(
        "re_search",
        {
            "devices": [here.device_id[:8], there.device_id[:8]],
            "evaluations": {"search": evaluations, "refinement": SHORT},
            "seeds": seeds,
            "hypervolume": {name: float(np.mean(values)) for name, values in volumes.items()},
            "hypervolume_by_seed": volumes,
            **times(supernet.space, costs["there"], made_from),
        },
    )


def searched(folder: Path, cost: CostModel, evaluator: AccuracyEvaluator, made_from: Any, settings: Heuristic) -> None:
    """Search in a folder; done before, it only looks the answers up."""
    run_search(cost.space, cost, evaluator, made_from, folder=folder, settings=settings)


def copied(source: Path, target: Path) -> None:
    """The archive of one folder in another, unless that has one already."""
    target.mkdir(parents=True, exist_ok=True)
    if not (target / ARCHIVE).exists():
        (target / ARCHIVE).write_bytes((source / ARCHIVE).read_bytes())


def hypervolume(folder: Path, charge: Charge, evaluator: AccuracyEvaluator, span: Range) -> float:
    """Of all subnets in an archive, at the costs of a device."""
    known = Archive(folder / ARCHIVE, charge.space, evaluator.key).evaluations
    cost = charge.of(np.array([charge.state(one.subnet) for one in known]))
    return span.hypervolume(cost, np.array([one.accuracy for one in known]))


def times(space: Any, cost: CostModel, made_from: Any) -> dict[str, float]:
    """Seconds of making an atlas of random subnets with made-up accuracies, and milliseconds of a lookup in it."""
    rng = np.random.default_rng(0)
    subnets = list(dict.fromkeys(space.random(rng, prefix=True) for _ in range(POINTS)))
    evaluations = [Evaluation(subnet, float(rng.uniform(50, 90)), 0.0, "random") for subnet in subnets]
    started = time.perf_counter()
    atlas = Atlas.build(evaluations, cost, made_from, space=space)
    built_s = time.perf_counter() - started
    low, high = np.quantile([point.latency_ms_high for point in atlas.points], [0.1, 1.0])
    limits = {"relative_cost" if made_from.emulated else "latency_ms": 0.0}
    took = []
    for limit in rng.uniform(low, high, LOOKUPS):
        started = time.perf_counter()
        atlas.lookup(**dict.fromkeys(limits, float(limit)))
        took.append(time.perf_counter() - started)
    return {
        "archived_subnets": len(subnets),
        "atlas_s": built_s,
        "lookup_ms_median": 1e3 * float(np.median(took)),
        "lookup_ms_largest": 1e3 * max(took),
    }


if __name__ == "__main__":
    main()
