"""Gradient search as in ProxylessNAS: probabilities of rungs descend a loss with a differentiable cost.

The loss is the expected error plus λ (expected cost / budget - 1). The expected cost is exact in the probabilities,
given the cost of each gate's rungs with the other gates at their most probable ones, which is asked of the cost model
anew with every step (ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware, Cai et al., 2019,
sec. 3.3.1). The gradient of the expected error comes from draws by REINFORCE (sec. 3.3.2), not from two sampled paths
(sec. 3.2.1): what can be asked for is the accuracy of whole subnets, so that a path's own gradient would take a pair of
evaluations for every gate. The weights are fixed and shared; only the probabilities are learned.

As in the paper's code, Adam has β1 = 0, and λ begins at 0.1. What differs: a search here takes some thirty steps, not
thousands, so Adam's rate is 0.1, not 0.001 to 0.006; and λ rises while the expected cost exceeds the budget and falls
while it stays below (dual ascent), as each budget is to be met and none to be undercut. The mode, moved down until it
meets the budget, is proposed with every batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fn3hw.baselines.methods.budgeted import Budgeted
from fn3hw.baselines.methods.policy import RungPolicy
from fn3hw.baselines.methods.port import Proposals, Task
from fn3hw.searcher.ports import FloatArray, IntArray

_PRICE = 0.1
_PRICE_RATE = 0.03
_RATE = 0.1
_BASELINE_DECAY = 0.9
_UPDATES = 30
_BATCHES = 4, 16


def rung_costs(task: Task, mode: IntArray) -> FloatArray:
    """Cost of each gate's rungs with the others at those of ``mode`` (G,): shape (G, R), zero where there is none."""
    pairs = [(gate, rung) for gate, count in enumerate(task.n_rungs) for rung in range(count)]
    gates, rungs = np.array(pairs).T
    states = np.repeat(mode[None], len(pairs), axis=0)
    states[np.arange(len(pairs)), gates] = rungs
    costs = np.zeros((task.n_gates, int(task.n_rungs.max())))
    costs[gates, rungs] = task.charge.of(task.rungs(states))
    return costs


def expected_cost(probabilities: Tensor, costs: FloatArray, mode: IntArray) -> Tensor:
    """Expected cost under probabilities of rungs (G, R), gate by gate: what each adds to the cost of the mode."""
    base = float(costs[0, mode[0]])
    added = torch.as_tensor(costs - base, dtype=probabilities.dtype)
    return torch.sum(probabilities * added) + base


class ProxylessNAS(Budgeted):
    """REINFORCE for the accuracy, an exact gradient for the cost, and a price of it that makes the budget met."""

    def search(self, budget: float, evaluations: int) -> Proposals:
        """See `Budgeted`."""
        seed = int(self.rng.integers(2**62))
        policy = RungPolicy(self.task.n_rungs, rate=_RATE, betas=(0.0, 0.999), seed=seed)
        size = int(np.clip(evaluations // _UPDATES, *_BATCHES))
        baseline, price = np.nan, _PRICE
        while True:
            rungs = policy.draw(size)
            lowered = self.lowered(policy.mode_places[None], budget)
            accuracies = (yield np.concatenate([lowered, self.task.rungs(rungs)]))[1:] / 100
            if np.isnan(accuracies).all():
                continue
            mean = float(np.nanmean(accuracies))
            baseline = mean if np.isnan(baseline) else baseline
            mode = policy.mode
            expected = expected_cost(policy.log_probabilities.exp(), rung_costs(self.task, mode), mode)
            excess = expected / budget - 1
            policy.descend(policy.reinforced(rungs, accuracies - baseline) + price * excess)
            price = max(0.0, price + _PRICE_RATE * float(excess.detach()))
            baseline = _BASELINE_DECAY * baseline + (1 - _BASELINE_DECAY) * mean
