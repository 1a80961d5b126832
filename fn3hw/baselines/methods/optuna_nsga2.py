"""Optuna's NSGA-II, all budgets at once: accuracy and cost are its two objectives.

NSGA-II (A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, Deb et al., 2002, section III) keeps the
least dominated members of a generation and its parents, of equal ones the least crowded. Both ends of the front are
known, the full and the smallest network: they are in the first generation, so that every budget is met. Optuna's
population of 50 is meant for thousands of trials; here it is the square root of the evaluations, so that there are
about as many generations as members, at least 8 and at most 50.
"""

from __future__ import annotations

import numpy as np
from optuna.samplers import NSGAIISampler

from fn3hw.baselines.methods.port import Proposals, Proposer
from fn3hw.baselines.methods.trials import Trials

_POPULATION = (8, 50)
"""Fewest and most members."""


class OptunaNsga2(Proposer):
    """Optuna's defaults but for the population, a generation at a time."""

    def propose(self) -> Proposals:
        """See `Proposer`."""
        size = int(np.clip(round(self.task.evaluations**0.5), *_POPULATION))
        sampler = NSGAIISampler(population_size=size, seed=int(self.rng.integers(2**31)))
        trials = Trials(self.task, sampler, ["maximize", "minimize"])
        for end in self.task.at(np.array([[1.0], [0.0]]).repeat(self.task.n_gates, axis=1)):
            trials.queue(end)
        while True:
            generation = [trials.ask() for _ in range(size)]
            states = self.task.at(trials.places(generation))
            accuracies = yield states
            costs = self.task.charge.of(states)
            for trial, *values in zip(generation, accuracies, costs, strict=True):
                trials.tell(trial, values)
