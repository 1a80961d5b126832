"""Greedy descent: from the full network, the gate whose move costs the least accuracy moves, again and again.

In every step each gate proposes the first rung down its ladder that lowers the cost by the step's share; all proposals
are evaluated and the most accurate goes on (NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications,
Yang et al., 2018, section 3; AutoSlim: Towards One-Shot Architecture Search for Channel Numbers, Yu and Huang, 2019,
section 3). One descent answers all budgets: no step goes past a budget without a stop at it.

The steps share what is left of the cost, and of the evaluations, equally. There are at least as many as gates, since
a gate has about that share of the cost to give; where the evaluations do not allow every gate a proposal in every step,
each step asks gates drawn at random. A gate that cannot lower the cost by the share alone goes all the way, and others,
in random order, after it.
"""

from __future__ import annotations

import numpy as np

from fn3hw.baselines.methods.port import Proposals, Proposer, Task
from fn3hw.searcher.ports import FloatArray, IntArray


class Greedy(Proposer):
    """One descent, from the full network to the smallest budget."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        n_moving = max(1, int((task.n_rungs > 1).sum()))
        self._n_asked = int(np.clip(task.evaluations // (n_moving + len(task.budgets)), 1, n_moving))

    def propose(self) -> Proposals:
        """See `Proposer`."""
        rungs, left = np.zeros(self.task.n_gates, dtype=np.int64), self.task.evaluations
        if left > 1:
            yield self.task.rungs(rungs[None])
            left -= 1
        while left > 0:
            target = self._target(float(self._cost(rungs[None])[0]), max(1, left // self._n_asked))
            if target is None:
                return
            proposals = np.stack([self._moved(rungs, gate, target) for gate in self._asked(rungs, left)])
            accuracies = yield self.task.rungs(proposals)
            rungs = proposals[np.argmax(np.nan_to_num(accuracies, nan=-np.inf))]
            left -= len(proposals)

    def _target(self, cost: float, steps: int) -> float | None:
        """The cost to go down to next, in so many steps to the smallest budget; none if all budgets are met."""
        ahead = sorted((budget for budget in self.task.budgets if budget < cost), reverse=True)
        if not ahead:
            return None
        stops = ahead[-steps:]
        share = (cost - stops[-1]) / (steps - len(stops) + 1)
        return max(stops[0], cost - share)

    def _asked(self, rungs: IntArray, left: int) -> IntArray:
        """The gates that propose: as many as a step may ask, of those that alone lower the cost if there are any."""
        bottom = self.task.n_rungs - 1
        lowest = np.repeat(rungs[None], len(rungs), axis=0)
        np.fill_diagonal(lowest, bottom)
        lowers = self._cost(lowest) < self._cost(rungs[None])
        gates = np.flatnonzero(lowers if lowers.any() else rungs < bottom)
        return self.rng.permutation(gates)[: min(self._n_asked, left)]

    def _moved(self, rungs: IntArray, first: int, target: float) -> IntArray:
        """Gates moved down until the cost meets the target: the first one, then others if it does not suffice."""
        rungs = rungs.copy()
        others = np.setdiff1d(np.arange(len(rungs)), first)
        for gate in (first, *self.rng.permutation(others)):
            below = np.arange(rungs[gate], self.task.n_rungs[gate])
            states = np.repeat(rungs[None], len(below), axis=0)
            states[:, gate] = below
            meets = np.flatnonzero(self._cost(states) <= target)
            rungs[gate] = below[meets[0]] if meets.size else below[-1]
            if meets.size:
                break
        return rungs

    def _cost(self, rungs: IntArray) -> FloatArray:
        return self.task.charge.of(self.task.rungs(rungs))
