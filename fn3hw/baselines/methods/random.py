"""Random search: every gate at a random rung of its ladder; a share of it is common to all gates.

Independent rungs alone would all cost about the same, in the middle of the range: a common shift spreads them out.
"""

from __future__ import annotations

from fn3hw.baselines.methods.port import Proposals, Proposer

_BATCH = 16


class Random(Proposer):
    """Uniform common place, uniform places of the gates around it."""

    def propose(self) -> Proposals:
        """See `Proposer`."""
        while True:
            common = self.rng.random((_BATCH, 1))
            spread = self.rng.random((_BATCH, 1))
            places = common + spread * (self.rng.random((_BATCH, self.task.n_gates)) - 0.5)
            yield self.task.at(places)
