"""Methods that learn get nearer to the known answer than random search does, from as many evaluations."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from .toy import play

EVALUATIONS = {"mnasnet": 1500, "optuna-tpe": 90}
"""Evaluations after which a method has to be better than random search, where it needs others than 300."""
LEARNING = ["evolution", "greedy", "haq", "mnasnet", "optuna-nsga2", "optuna-tpe", "proxylessnas"]


def regret(name: str, evaluations: int) -> float:
    return float(np.mean([play(name, evaluations, seed=seed).regret for seed in range(3)]))


@pytest.fixture(scope="module")
def random_regret() -> Callable[[int], float]:
    return cache(lambda evaluations: regret("random", evaluations))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "haq" else []) for name in LEARNING]
)
def test_a_method_learns(name: str, random_regret: Callable[[int], float]) -> None:
    evaluations = EVALUATIONS.get(name, 300)
    assert regret(name, evaluations) < random_regret(max(300, evaluations)) / 2
