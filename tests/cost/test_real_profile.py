from __future__ import annotations

from fn3hw.cost import fit_cost
from fn3hw.cost.validation import comparators
from fn3hw.profiler import Profile
from tests.cost.profiles import as_profile
from tests.cost.synthetic import Machine, measure, subnets


def test_a_profile_as_it_is_read_from_a_file_is_fitted():
    written = as_profile(measure(Machine(), subnets(20, 0), subnets(10, 1)[1:], noise=0.003))
    profile = Profile.from_text(written.to_text())
    cost = fit_cost(profile)
    assert cost.holdout.n == 9
    assert cost.holdout.mape < 0.02
    assert set(comparators(profile)) == {"gradient boosting", "random forest", "look-up table"}
