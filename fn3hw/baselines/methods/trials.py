"""Optuna's trials as states: one integer per gate that moves, the number of its rung."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from fn3hw.baselines.methods.port import Task
from fn3hw.searcher.ports import FloatArray, IntArray


class Trials:
    """A study of a task, asked and told.

    Args:
        task: what is searched for.
        sampler: proposes.
        directions: of the objectives.
    """

    def __init__(self, task: Task, sampler: BaseSampler, directions: Sequence[Literal["minimize", "maximize"]]) -> None:
        self._task = task
        self._moving: dict[str, int] = {
            gate.name: g for g, gate in enumerate(task.charge.space) if len(task.charge.ladders[g]) > 1
        }
        self._distributions: dict[str, BaseDistribution] = {
            name: IntDistribution(0, len(task.charge.ladders[g]) - 1) for name, g in self._moving.items()
        }
        with _quiet():
            self._study = optuna.create_study(sampler=sampler, directions=directions)

    def ask(self) -> Trial:
        """A new trial, or the one that was queued."""
        return self._study.ask(self._distributions)

    def queue(self, state: IntArray) -> None:
        """Make a state of shape (G,) the next trial."""
        ladders = self._task.charge.ladders
        rungs = {name: int(np.flatnonzero(ladders[g] == state[g])[0]) for name, g in self._moving.items()}
        self._study.enqueue_trial(rungs)

    def places(self, trials: Sequence[Trial]) -> FloatArray:
        """Places of n trials on the ladders, shape (n, G); see `Task.at`."""
        places = np.zeros((len(trials), self._task.n_gates))
        for row, trial in zip(places, trials, strict=True):
            for name, rung in trial.params.items():
                row[self._moving[name]] = rung
        return places / np.maximum(self._task.n_rungs - 1, 1)

    def tell(self, trial: Trial, values: Sequence[float]) -> None:
        """What a trial came to; one without an accuracy has failed."""
        if np.isnan(values).any():
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, values)

    def refuse(self, trial: Trial, excess: float) -> None:
        """Tell without an evaluation that a trial breaks a constraint, and by how much."""
        trial.set_constraint("cost", excess)
        self._study.tell(trial, state=TrialState.PRUNED)


@contextmanager
def _quiet() -> Iterator[None]:
    """No message about a new study on stderr."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
