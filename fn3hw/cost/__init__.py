"""Counts to cost: what any subnet costs on a device, from a few that were measured there.

Three ideas. *Latency is a sum over units*, the nodes whose shapes the same gates decide, and one measured subnet
gives the time of every unit at once, by the runtime's own profile (`units`). *Devices have rules*: time is a staircase
in each count, with a penalty off the alignment of the fast path; which stairs and which alignment is found from the
data, once for all units, and apart from that only where a unit's own data insist (`basis`, `rules`), as on what is
left of its neighbours (`context`). Units that run the same kernels tell what to expect of each other (`kin`). *Time is
physical*: it is positive and grows with the work, so coefficients are not negative, and errors are relative (`solve`).

A profile is read into arrays (`evidence`), its units are fitted and their sum is calibrated to end-to-end latency, by a
line or a little bent (`latency`; `endtoend` where there are no kernel times); `fitting` does so. Each subnet is left
out in turn to learn how far off predictions are (`intervals`) and whether the units' or their sum is to blame
(`audit`), and `model` puts file size and peak memory (`memory`) beside it. `CountRegressor` is the same idea as a
scikit-learn estimator for any table of counts. `validation` has the simple models to beat. To look at: `plot` draws a
profile and its model, `difference` says what changed between two profiles of a network.
"""

from fn3hw.cost.basis import Rule
from fn3hw.cost.fitting import fit_cost
from fn3hw.cost.metrics import Metrics, score
from fn3hw.cost.model import CostModel, Rules
from fn3hw.cost.regressor import CountRegressor

__all__ = ["CostModel", "CountRegressor", "Metrics", "Rule", "Rules", "fit_cost", "score"]
