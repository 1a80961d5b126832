from __future__ import annotations

from pathlib import Path

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


def test_a_network_of_channels_layers_and_bits_is_known_from_forty_subnets():
    """Kernels of few microseconds in two precisions, as an AMD EPYC ran them: the rest of the profile is the truth."""
    folder = Path(__file__).parents[2] / "profiles"
    profile = Profile.read(folder / "amd-epyc-x86-64" / "fashion-mnist-joint-1-thread.json")
    kept = {m.subnet for m in profile.fitted[:40]}
    few = [m for m in profile.measurements if m.role == "holdout" or m.subnet in kept]
    cost = fit_cost(profile.model_copy(update={"measurements": tuple(few)}))
    assert cost.holdout.n == 60
    assert cost.holdout.mape < 0.04
    assert cost.holdout.spearman > 0.99
    assert "full precision runs by itself" in cost.rules.precisions
