"""Methods that learn get nearer to the known answer than random search does, from as many evaluations."""

from __future__ import annotations

import numpy as np
import pytest

from .toy import play

EVALUATIONS = {"optuna-tpe": 90}
"""Evaluations after which a method has to be better than random search, where it needs others than 300."""
LEARNING = ["evolution", "greedy", "optuna-nsga2", "optuna-tpe"]


@pytest.fixture(scope="module")
def random_regret() -> float:
    return float(np.mean([play("random", 300, seed=seed).regret for seed in range(3)]))


@pytest.mark.parametrize("name", LEARNING)
def test_a_method_learns(name: str, random_regret: float) -> None:
    regret = float(np.mean([play(name, EVALUATIONS.get(name, 300), seed=seed).regret for seed in range(3)]))
    assert regret < random_regret / 2
