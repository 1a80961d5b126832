from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fn3hw.cli.reporting import USABLE, summary, text
from fn3hw.cost import fit_cost
from fn3hw.profiler import Profile

PROFILES = Path(__file__).parents[2] / "profiles" / "amd-epyc-x86-64"


def test_a_cost_model_that_cannot_be_used_is_said_to_be() -> None:
    measured = Profile.read(PROFILES / "mlp-1-thread.json")
    good = fit_cost(measured)
    assert summary(measured, good, Path("p.json"))["advice"] == list(measured.advice)
    for mape in (2 * USABLE, 1e9, float("nan")):
        bad = replace(good, holdout=replace(good.holdout, mape=mape))
        *_, last = summary(measured, bad, Path("p.json"))["advice"]
        assert "cannot be used" in last and "--subnets" in last and last in text(measured, bad, Path("p.json"))
