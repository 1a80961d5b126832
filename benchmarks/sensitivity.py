"""What the settings of our search matter: one changed at a time, the others at their defaults.

On the space that is known completely (`truth.py`), regret in points, mean over ten budgets; with a run, hypervolume,
the mean accuracy over all latencies, too. Intervals are of the mean over seeds.
Usage: python benchmarks/sensitivity.py [EVALUATIONS] [SEEDS] [RUN PROFILE]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from regret import best
from report import report
from truth import Truth

from fn3hw.baselines.compare import Desk, Play
from fn3hw.baselines.compare.scoring import Mean, Range
from fn3hw.cli.compare import usual_budgets
from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import fit_cost
from fn3hw.profiler import Profile
from fn3hw.searcher import Archive, Charge, Heuristic
from fn3hw.searcher.executors import LocalExecutor
from fn3hw.searcher.ports import AccuracyEvaluator
from fn3hw.searcher.searching import evaluator_of

FOLDER = Path("runs/sensitivity")
IMAGES = 1000
VALUES: dict[str, tuple[Any, ...]] = {
    "trajectories": (1, 2, 5, 8),
    "candidates": (1, 2, 8, 16),
    "window": (0.1, 0.5, 1.0),
    "rungs": (3, 6, 12, 24),
    "guided": (0.0, 0.25, 0.75, 1.0),
    "refined": (0.0, 0.25, 0.75),
    "pool": (2, 12),
    "generations": (0, 1, 4),
    "exact": (1, 3),
}


def main() -> None:
    evaluations = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    truth = Truth()
    charge = Charge(truth.space, truth)
    budgets = usual_budgets(charge)
    figures: dict[str, Any] = {"evaluations": evaluations, "seeds": seeds, "defaults": asdict(Heuristic())}
    figures["regret_points"] = {}
    for name, settings in variants(evaluations):
        plays = [play(settings, seed, charge, truth, FOLDER / "truth.jsonl") for seed in range(seeds)]
        regrets = [np.mean([truth.best_within(b) - best(one, b, truth) for b in budgets]) for one in plays]
        figures["regret_points"][name] = Mean.of([float(value) for value in regrets]).to_json()
        print(name, figures["regret_points"][name], file=sys.stderr)
    if len(sys.argv) > 4:
        opened, profile = OpenRun(Path(sys.argv[3]), Console(as_json=False)), Profile.read(sys.argv[4])
        supernet = opened.supernet.with_blockwise(profile.blockwise)
        charge = Charge(supernet.space, fit_cost(profile))
        evaluator = evaluator_of(supernet, opened.moments, opened.data, "search", IMAGES, integers=False)
        full, smallest = (float(c) for c in charge.of(np.stack([charge.sizes, charge.bottom])))
        span = Range(full=full, smallest=smallest, floor=evaluator.accuracy(charge.subnet(charge.bottom)))
        figures["hypervolume"] = {}
        for name, settings in variants(evaluations):
            path = FOLDER / f"{opened.folder.name}.jsonl"
            plays = [play(settings, seed, charge, evaluator, path) for seed in range(seeds)]
            volumes = [span.hypervolume(one.cost, one.accuracy) for one in plays]
            figures["hypervolume"][name] = Mean.of(volumes).to_json()
            print(name, figures["hypervolume"][name], file=sys.stderr)
    report("sensitivity", figures)


def variants(evaluations: int) -> Iterator[tuple[str, Heuristic]]:
    """The defaults, the paper's plain form, and every other value of each setting."""
    default = Heuristic(evaluations=evaluations)
    yield "defaults", default
    yield "plain", Heuristic.plain(evaluations=evaluations)
    for name, values in VALUES.items():
        for value in values:
            yield f"{name}={value}", replace(default, **{name: value})


def play(settings: Heuristic, seed: int, charge: Charge, evaluator: AccuracyEvaluator, path: Path) -> Play:
    """One search; what other searches evaluated is looked up."""
    with Archive(path, charge.space, evaluator.key) as archive:
        desk = Desk(
            charge=charge, archive=archive, evaluator=evaluator, executor=LocalExecutor(), budget=settings.evaluations
        )
        replace(settings, seed=seed).run(charge, desk)
    return desk.play("fn3hw", seed, float("inf"))


if __name__ == "__main__":
    main()
