"""Reinforcement learning as in MnasNet: a policy draws subnets, and learns from their accuracies and costs.

The reward of a subnet is accuracy × (cost / target)^w with w = -0.07 on both sides of the target: a soft constraint
(MnasNet: Platform-Aware Neural Architecture Search for Mobile, Tan et al., 2019, sec. 3). Draws may exceed the budget;
the policy's mode, moved down until it meets the budget, is proposed with every batch, so that each budget has answers.

What differs:

- REINFORCE with a moving average as baseline and an entropy bonus of 0.0001, as in the searches before it (Neural
  Architecture Search with Reinforcement Learning, Zoph and Le, 2017, sec. 3; Efficient Neural Architecture Search via
  Parameter Sharing, Pham et al., 2018), not PPO.
- The policy has independent logits per gate, not an LSTM over the gates: on the toy problem of our tests an LSTM
  controller repeated itself before it had learned.
- The papers draw thousands of subnets per search, a search here a few hundred: Adam's rate is 0.05, not 0.0006, and a
  batch is a thirtieth of the evaluations, 4 to 16 subnets, so that there are some thirty updates.
"""

from __future__ import annotations

import numpy as np

from fn3hw.baselines.methods.budgeted import Budgeted
from fn3hw.baselines.methods.policy import RungPolicy
from fn3hw.baselines.methods.port import Proposals
from fn3hw.searcher.ports import FloatArray

_EXPONENT = -0.07
_ENTROPY = 1e-4
_RATE = 0.05
_BASELINE_DECAY = 0.9
_UPDATES = 30
_BATCHES = 4, 16


def soft_reward(accuracies: FloatArray, costs: FloatArray, target: float) -> FloatArray:
    """Accuracies in percent weighted by cost: shape (n,), 1 for a perfect subnet on target."""
    return np.asarray(accuracies / 100 * (costs / target) ** _EXPONENT)


class MnasNet(Budgeted):
    """REINFORCE on independent logits with a soft constraint."""

    def search(self, budget: float, evaluations: int) -> Proposals:
        """See `Budgeted`."""
        seed = int(self.rng.integers(2**62))
        policy = RungPolicy(self.task.n_rungs, rate=_RATE, betas=(0.9, 0.999), seed=seed)
        size = int(np.clip(evaluations // _UPDATES, *_BATCHES))
        baseline = np.nan
        while True:
            rungs = policy.draw(size)
            states = self.task.rungs(rungs)
            answers = yield np.concatenate([self.lowered(policy.mode_places[None], budget), states])
            rewards = soft_reward(answers[1:], self.task.charge.of(states), budget)
            if np.isnan(rewards).all():
                continue
            mean = float(np.nanmean(rewards))
            baseline = mean if np.isnan(baseline) else baseline
            policy.descend(policy.reinforced(rungs, rewards - baseline) - _ENTROPY * policy.entropy)
            baseline = _BASELINE_DECAY * baseline + (1 - _BASELINE_DECAY) * mean
