"""Evolutionary search of Once-for-All, one budget at a time.

From a random population that meets the budget, the most accurate quarter are the parents of the next; half of the
children are mutated parents, every gate redrawn with probability 0.1, and half take each gate from one of two parents;
a child that exceeds the budget is drawn again (Once-for-All: Train One Network and Specialize It for Efficient
Deployment, Cai et al., 2020, section 3.4 and its published settings). That search has a population of 100 and asks a
predictor of accuracy many thousand times. Here every answer is an evaluation: the population is the square root of a
budget's evaluations, so that there are about as many generations as members, at least 8 and at most 100, and a child
that was seen before is drawn again as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from fn3hw.baselines.methods.budgeted import Budgeted
from fn3hw.baselines.methods.port import Proposals
from fn3hw.searcher.ports import IntArray

_POPULATION = (8, 100)
"""Fewest and most members."""
_PARENTS = 0.25
_MUTATED = 0.5
_MUTATION = 0.1
_DRAWS = 50
"""Times that children are drawn again, at most."""


class Evolution(Budgeted):
    """Truncation selection, mutation and uniform crossover on the counts of the gates."""

    def search(self, budget: float, evaluations: int) -> Proposals:
        """See `Budgeted`."""
        size = int(np.clip(round(evaluations**0.5), *_POPULATION))
        n_parents, n_crossed = max(2, round(_PARENTS * size)), round((1 - _MUTATED) * size)
        states = self._first(size, budget)
        seen = {state.tobytes() for state in states}
        accuracies = yield states
        while True:
            # Failed evaluations, NaN, are sorted to the end.
            best = np.argsort(-accuracies, kind="stable")[:n_parents]
            parents = states[best]
            # Parents that are much alike have few children between them that were not seen: mutants fill up.
            crossed = self._drawn(partial(self._crossed, parents), n_crossed, budget, seen)
            mutated = self._drawn(partial(self._mutated, parents), size - len(crossed), budget, seen)
            children = np.concatenate([crossed, mutated])
            if not len(children):
                return
            answers = yield children
            states, accuracies = np.concatenate([parents, children]), np.concatenate([accuracies[best], answers])

    def _first(self, size: int, budget: float) -> IntArray:
        """Random states that meet the budget; where too few of them do, others moved down to it."""
        drawn = self._drawn(self._random, size, budget, set())
        missing = self.rng.random((size - len(drawn), self.task.n_gates))
        return np.concatenate([drawn, self.lowered(missing, budget)])

    def _drawn(self, draw: Callable[[int], IntArray], n: int, budget: float, seen: set[bytes]) -> IntArray:
        """Up to n states that meet the budget and were not seen; they are from then on."""
        found: list[IntArray] = []
        for _ in range(_DRAWS):
            states = self.task.charge.canonical(draw(n))
            for state in states[self.task.charge.of(states) <= budget]:
                if len(found) < n and state.tobytes() not in seen:
                    seen.add(state.tobytes())
                    found.append(state)
            if len(found) == n:
                break
        return np.array(found, dtype=np.int64).reshape(-1, self.task.n_gates)

    def _random(self, n: int) -> IntArray:
        return self.task.rungs(self.rng.integers(0, self.task.n_rungs, (n, self.task.n_gates)))

    def _mutated(self, parents: IntArray, n: int) -> IntArray:
        chosen = parents[self.rng.integers(len(parents), size=n)]
        return np.asarray(np.where(self.rng.random(chosen.shape) < _MUTATION, self._random(n), chosen))

    def _crossed(self, parents: IntArray, n: int) -> IntArray:
        first, second = parents[self.rng.integers(len(parents), size=(2, n))]
        return np.asarray(np.where(self.rng.random(first.shape) < 0.5, first, second))
