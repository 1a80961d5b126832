from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fn3hw.cost import fit_cost
from fn3hw.cost.sampling import START, _next, _stop, profile_until
from fn3hw.errors import InputError
from fn3hw.profiler import holdout as random_subnets
from fn3hw.space.subnet import Subnet
from tests.cost.synthetic import SPACE, FakeProfile, Machine, measure, subnets, true_ms

NET = SimpleNamespace(space=SPACE, deployed=None)
MACHINE = Machine()


class Bench:
    """Stands for the profiler: measures what it is asked for on a device whose rules are known."""

    def __init__(self, noise: float = 0.003) -> None:
        self.noise = noise
        self.asked: list[Sequence[Subnet]] = []
        self.closed = False
        self.device = SimpleNamespace(key={})

    def profile(self, net: Any, session: Any, *, subnets: Sequence[Subnet], holdout: int = 0, **_: Any) -> FakeProfile:
        self.asked.append(list(subnets))
        tests = random_subnets(SPACE, holdout, exclude=subnets)
        return measure(MACHINE, subnets, tests, noise=self.noise, seed=len(subnets))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    one = Bench()
    monkeypatch.setattr("fn3hw.cost.sampling.profile", one.profile)
    monkeypatch.setattr("fn3hw.cost.sampling.connect", lambda _: one)
    return one


def test_it_stops_as_soon_as_the_target_is_met(bench: Bench) -> None:
    found = profile_until(NET, target_mape=0.015, held_out=20)
    sampling = found.settings["sampling"]
    assert sampling["stopped_by"] == "target" and sampling["error"] <= 0.015
    assert len(bench.asked[0]) == START
    errors = [
        fit_cost(measure(MACHINE, asked, noise=0.003, seed=len(asked))).holdout.mape for asked in bench.asked[:-1]
    ]
    *before, last = [max(pair) for pair in pairwise(errors)]
    assert last <= 0.015 and all(error > 0.015 for error in before)
    cost = fit_cost(found)
    truth = np.array([true_ms(MACHINE, one) for one in subnets(40, 9)])
    assert np.mean(np.abs(cost.predict(subnets(40, 9)).latency_ms / truth - 1)) < 0.03
    assert len(found.held_out) == 20
    assert bench.closed


def test_one_fit_that_meets_the_target_may_be_luck() -> None:
    def stopped(errors: list[float]) -> str | None:
        return _stop(errors, 0.02, None, full=False, seconds=0.0)

    assert stopped([0.01]) is stopped([0.01, 0.03]) is stopped([0.03, 0.01]) is None
    assert stopped([0.03, 0.01, 0.02]) == "target"


def test_every_step_adds_to_what_was_measured_and_repeats(bench: Bench) -> None:
    profile_until(NET, target_mape=1e-6, at_most=12)
    for before, after in zip(bench.asked, bench.asked[1:], strict=False):
        assert after[: len(before)] == before and len(set(after)) == len(after)
    assert len(bench.asked[-1]) == 12
    first = bench.asked.copy()
    bench.asked.clear()
    found = profile_until(NET, target_mape=1e-6, at_most=12)
    assert bench.asked == first and found.settings["sampling"]["stopped_by"] == "subnets"


def test_time_ends_it(bench: Bench) -> None:
    assert profile_until(NET, minutes=1e-9).settings["sampling"]["stopped_by"] == "time"
    assert [len(asked) for asked in bench.asked] == [START]


def test_what_is_disputed_most_is_measured_next() -> None:
    measured = subnets(12, 0)
    cost = fit_cost(measure(MACHINE, measured, noise=0.003))
    chosen = _next(cost, measured, 3, seed=0)
    pool = random_subnets(SPACE, 400, seed=len(measured), exclude=measured)
    dispute = (cost.disagreement(pool) ** 2).mean(axis=0) ** 0.5
    assert chosen[0] == pool[int(dispute.argmax())]
    assert len(set(chosen)) == 3 and not set(chosen) & set(measured)


@pytest.mark.parametrize("wrong", [{"target_mape": 2.0}, {"target_mape": 0.0}, {"minutes": 0.0}])
def test_a_target_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        profile_until(NET, **wrong)
