"""Regret of every method on a space that is known completely: what its choice lacks to the best subnet of each budget.

Every method plays with every number of evaluations anew, since some of them plan with it. Accuracies are looked up in
the table that `truth.py` made, so that nothing but the choice of subnets is compared.
Usage: python benchmarks/regret.py [SEEDS] [METHOD ...]; plays are kept in runs/regret and gone on with
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from report import report
from truth import Truth

from fn3hw.baselines.compare import Contest, Play, Rules, methods_of
from fn3hw.cli.compare import FIRST, usual_budgets
from fn3hw.searcher import Charge

FOLDER = Path("runs/regret")
EVALUATIONS = (50, 100, 200, 500)
PROCESSES = 2


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    methods = methods_of(sys.argv[2:] or None, first=FIRST)
    tasks = [(method, evaluations, seeds) for evaluations in EVALUATIONS for method in methods]
    with ProcessPoolExecutor(PROCESSES) as pool:
        found = dict(zip(tasks, pool.map(regrets, tasks), strict=True))
    rows = {
        method: {str(evaluations): summary(found[method, evaluations, seeds]) for evaluations in EVALUATIONS}
        for method in methods
    }
    lowest = {
        str(evaluations): min(methods, key=lambda method: rows[method][str(evaluations)]["mean"])
        for evaluations in EVALUATIONS
    }
    truth = Truth()
    report(
        "regret",
        {
            "subnets": len(truth.table),
            "budgets": list(usual_budgets(Charge(truth.space, truth))),
            "seeds": seeds,
            "regret_points": rows,
            "lowest": lowest,
        },
    )


def regrets(task: tuple[str, int, int]) -> np.ndarray:
    """Points that a method's choices lack, shape (seeds, budgets)."""
    method, evaluations, seeds = task
    torch.set_num_threads(1)
    truth = Truth()
    charge = Charge(truth.space, truth)
    budgets = usual_budgets(charge)
    rules = Rules(methods=(method,), seeds=tuple(range(seeds)), budgets=budgets, evaluations=evaluations)
    plays = Contest(rules, charge, truth, FOLDER / f"{method}-{evaluations}").play()
    print(method, evaluations, file=sys.stderr)
    return np.array([[truth.best_within(budget) - best(play, budget, truth) for budget in budgets] for play in plays])


def best(play: Play, budget: float, truth: Truth) -> float:
    """Accuracy of a play's choice; the smallest subnet, which every method knows, where it has none."""
    found = play.best_within(budget)
    smallest = truth.accuracy(truth.space.smallest())
    return smallest if found is None else max(smallest, float(play.accuracy[found]))


def summary(points: np.ndarray) -> dict[str, float]:
    """Mean over seeds and budgets, its standard error over seeds, and the worst budget's mean."""
    by_seed = points.mean(axis=1)
    return {
        "mean": float(by_seed.mean()),
        "standard_error": float(by_seed.std(ddof=1) / np.sqrt(len(by_seed))),
        "worst_budget": float(points.mean(axis=0).max()),
    }


if __name__ == "__main__":
    main()
