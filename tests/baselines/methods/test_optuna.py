"""The two methods that ask Optuna."""

from __future__ import annotations

import warnings

import numpy as np
import optuna
import pytest

from fn3hw.baselines.methods import Task
from fn3hw.baselines.methods.optuna_tpe import OptunaTpe
from fn3hw.baselines.methods.trials import Trials

from .toy import BUDGETS, CHARGE, accuracy, play

TASK = Task(charge=CHARGE, budgets=BUDGETS, evaluations=30)


def test_tpe_asks_for_no_state_beyond_the_budget() -> None:
    search = OptunaTpe(TASK).search(BUDGETS[2], 15)
    states = next(search)
    for _ in range(14):
        assert CHARGE.of(states).max() <= BUDGETS[2]
        states = search.send(accuracy(states))


def test_a_queued_state_is_the_next_trial() -> None:
    trials = Trials(TASK, optuna.samplers.RandomSampler(seed=0), ["maximize"])
    state = np.array([8, 1, 3, 5, 2])
    trials.queue(state)
    np.testing.assert_array_equal(TASK.at(trials.places([trials.ask()])), state[None])


@pytest.mark.parametrize("name", ["optuna-tpe", "optuna-nsga2"])
def test_nothing_is_written_to_stderr_and_no_setting_of_optuna_changes(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    verbosity = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(name, 20)
    assert capfd.readouterr().err == ""
    assert optuna.logging.get_verbosity() == verbosity
