"""Optuna's tree-structured Parzen estimator, one budget at a time, the cost as a constraint.

TPE (Algorithms for Hyper-Parameter Optimization, Bergstra et al., 2011, section 4) models where good and where other
trials lie and proposes where the ratio of the two densities is highest; here over all gates jointly. Costs are free to
know: a proposal beyond the budget is told to Optuna as infeasible, with its excess, and is not evaluated. After a
number of these in a row, the last one is moved down to the budget and becomes a trial of its own.
"""

from __future__ import annotations

from optuna.samplers import TPESampler

from fn3hw.baselines.methods.budgeted import Budgeted
from fn3hw.baselines.methods.port import Proposals
from fn3hw.baselines.methods.trials import Trials

_REFUSED = 10
"""Infeasible proposals in a row, at most."""
_REPEATED = 10
"""Proposals in a row that were evaluated before, after which the sampler has converged."""


class OptunaTpe(Budgeted):
    """Optuna's defaults, on the number of each gate's rung."""

    def search(self, budget: float, evaluations: int) -> Proposals:
        """See `Budgeted`."""
        sampler = TPESampler(multivariate=True, constant_liar=False, seed=int(self.rng.integers(2**31)))
        trials, refused, repeated = Trials(self.task, sampler, ["maximize"]), 0, 0
        seen: set[bytes] = set()
        while repeated < _REPEATED:
            trial = trials.ask()
            places = trials.places([trial])
            state = self.task.at(places)
            excess = float(self.task.charge.of(state)[0]) - budget
            if excess > 0:
                trials.refuse(trial, excess)
                refused += 1
                if refused % _REFUSED == 0:
                    trials.queue(self.lowered(places, budget)[0])
                continue
            (accuracy,) = yield state
            trials.tell(trial, [accuracy])
            repeated = repeated + 1 if state.tobytes() in seen else 0
            seen.add(state.tobytes())
            refused = 0
