"""What holds for every method of a comparison."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fn3hw.baselines.methods import Task, find_method, method_names
from fn3hw.errors import InputError, UnknownName

from .toy import BUDGETS, CHARGE, Desk, play

FEW = {"uniform": 6}
"""States that a method proposes at least, where it has no more than that."""

every_method = pytest.mark.parametrize("name", method_names())


@every_method
def test_a_method_spends_its_evaluations_and_no_more(name: str) -> None:
    desk = play(name, 60)
    assert desk.left >= 0
    assert len(desk.states) >= FEW.get(name, 30)
    assert ((desk.states >= 1) & (desk.states <= 8)).all()


@every_method
def test_equal_seeds_propose_equal_states(name: str) -> None:
    first, second = (play(name, 40, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.states, second.states)


@every_method
def test_every_budget_is_met(name: str) -> None:
    cost = CHARGE.of(play(name, 60).states)
    assert all((cost <= budget).any() for budget in BUDGETS)


@every_method
def test_a_failed_evaluation_is_survived(name: str) -> None:
    class Failing(Desk):
        def evaluate(self, states: np.ndarray) -> None:  # type: ignore[type-arg]
            super().evaluate(states)
            for key, (state, _) in self.known.items():
                if state[0] == 5:
                    self.known[key] = state, float("nan")

    desk = Failing(60)
    find_method(name)(Task(charge=CHARGE, budgets=BUDGETS, evaluations=60)).run(desk)
    assert len(desk.states) >= FEW.get(name, 30)


@every_method
def test_a_single_evaluation_is_enough_to_begin_with(name: str) -> None:
    assert len(play(name, 1).states) == 1


def test_a_method_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UnknownName, match="random"):
        find_method("randem")


def test_what_a_method_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fn3hw.baselines.methods.random", None)
    with pytest.raises(InputError) as caught:
        find_method("random")
    assert "not installed" in str(caught.value) and "pip install" in str(caught.value.hint)


def test_a_task_without_a_reachable_budget_is_refused() -> None:
    for budgets in ((), (2.0, 30.0)):
        with pytest.raises(InputError):
            Task(charge=CHARGE, budgets=budgets, evaluations=10)
