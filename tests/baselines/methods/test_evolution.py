"""What the search never asks for."""

from __future__ import annotations

import numpy as np

from fn3hw.baselines.methods import Task
from fn3hw.baselines.methods.evolution import Evolution

from .toy import BUDGETS, CHARGE, accuracy


def test_no_state_is_beyond_the_budget_and_none_is_asked_for_twice() -> None:
    search = Evolution(Task(charge=CHARGE, budgets=BUDGETS, evaluations=100)).search(BUDGETS[1], 100)
    generations = [next(search)]
    for _ in range(9):
        generations.append(search.send(accuracy(generations[-1])))
    asked = np.concatenate(generations)
    assert len(asked) == 100 == len(np.unique(asked, axis=0))
    assert (CHARGE.of(asked) <= BUDGETS[1]).all()


def test_the_first_population_is_moved_down_where_none_at_random_meets_the_budget() -> None:
    lowest = float(CHARGE.of(np.ones((1, 5), dtype=np.int64))[0])
    first = next(Evolution(Task(charge=CHARGE, budgets=(lowest,), evaluations=64)).search(lowest, 64))
    assert (first == 1).all()
