"""One descent that answers all budgets."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fn3hw.baselines.methods import Task
from fn3hw.baselines.methods.greedy import Greedy

from .toy import BUDGETS, CHARGE, WEIGHTS, accuracy


def descent(evaluations: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    """The states of each step, to whose most accurate the search goes on."""
    proposals = Greedy(Task(charge=CHARGE, budgets=BUDGETS, evaluations=evaluations)).propose()
    steps = [next(proposals)]
    with pytest.raises(StopIteration):
        while True:
            steps.append(proposals.send(accuracy(steps[-1])))
    return steps


@pytest.mark.parametrize("evaluations", [10, 60, 300])
def test_every_step_starts_at_the_most_accurate_of_the_last(evaluations: int) -> None:
    steps = descent(evaluations)
    assert sum(len(states) for states in steps) <= evaluations
    for before, after in pairwise(steps):
        best = before[np.argmax(accuracy(before))]
        assert (after <= best).all() and (after < best).any(axis=1).all()


def test_each_budget_is_met_to_within_a_block() -> None:
    costs = np.concatenate([CHARGE.of(states) for states in descent(30)])
    for budget in BUDGETS:
        assert costs[costs <= budget].max() > budget - WEIGHTS.max()


@pytest.mark.parametrize("evaluations", [1, 2, 3, 5])
def test_the_smallest_budget_is_met_however_few_the_evaluations(evaluations: int) -> None:
    assert CHARGE.of(descent(evaluations)[-1]).min() <= min(BUDGETS)
