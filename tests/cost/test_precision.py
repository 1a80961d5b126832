from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fn3hw.cost import fit_cost
from fn3hw.cost.precision import EACH_APART, FULL_APART, partitions
from fn3hw.profiler.plan import plan
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace
from tests.cost.quantized import SPACE, integer_kernels, narrow_kernels, profile, wide_kernels


def test_integer_kernels_are_found_and_fewer_bits_buy_no_more_time() -> None:
    cost = fit_cost(profile(integer_kernels))
    assert FULL_APART.says in str(cost.rules)
    assert cost.steps("two.bits") == [5, 4, 1]
    assert cost.holdout.mape < 0.01


@pytest.mark.parametrize("inflated", [0.7, 1.6])
def test_a_profiler_that_is_unfair_to_integers_is_corrected(inflated: float) -> None:
    costs = [fit_cost(profile(integer_kernels, inflated=inflated, seed=seed)) for seed in range(4)]
    assert np.mean([cost.holdout.mape for cost in costs]) < 0.012


def test_a_device_that_gains_by_every_bit_is_found() -> None:
    cost = fit_cost(profile(narrow_kernels))
    assert EACH_APART.says in str(cost.rules)
    assert len(cost.steps("one.bits")) >= 4
    assert cost.holdout.mape < 0.05  # a sixth of the subnets for each number of bits


@pytest.mark.parametrize("share", [0.4, 1.4])
def test_without_kernel_times_integers_may_be_faster_or_slower(share: float) -> None:
    measured = profile(lambda count: 1.0 if count == 5 else share, n=50)
    blind = tuple(replace(m, kernels={}) for m in measured.measurements)
    cost = fit_cost(replace(measured, measurements=blind))
    assert cost.rules.by == "end-to-end" and FULL_APART.says in str(cost.rules)
    assert cost.holdout.mape < 0.06  # what two widths take together is not seen without kernels
    full, integers = cost.predict([SPACE.full(), SPACE.from_counts({"one.bits": 4, "two.bits": 4})]).latency_ms
    assert (integers < full) == (share < 1)


def test_without_integer_kernels_fewer_bits_buy_no_time() -> None:
    cost = fit_cost(profile(wide_kernels))
    full = SPACE.full()
    fewest = SPACE.from_counts({"one.bits": 1, "two.bits": 1})
    predicted = cost.predict([full, fewest]).latency_ms
    assert predicted.iloc[1] == pytest.approx(predicted.iloc[0], rel=0.02)
    assert cost.holdout.mape < 0.01


def test_a_mode_that_was_never_measured_is_not_free() -> None:
    measured = profile(integer_kernels)
    only_full = [m for m in measured.measurements if SPACE.parse(m.subnet).counts["two.bits"] == 5]
    cost = fit_cost(replace(measured, measurements=tuple(only_full)))
    unseen = SPACE.from_counts({"two.bits": 2})
    assert cost.predict([unseen]).latency_ms.iloc[0] > 0.5 * cost.predict([SPACE.full()]).latency_ms.iloc[0]


def test_spaces_without_bits_have_nothing_to_tell_apart() -> None:
    plain = SearchSpace([Gate("a", "channel", 8)])
    assert len(partitions(plain)) == 1
    assert partitions(plain)[0].intervals(plain.gates[0]) == [(1, 8)]


def test_a_plan_has_full_precision_everywhere_nowhere_and_here_and_there() -> None:
    counts = np.array([[subnet.counts[name] for name in ("one.bits", "two.bits")] for subnet in plan(SPACE, 42)])
    full = (counts == 5).sum(axis=1)
    assert np.mean(full == 0) > 0.35 and np.mean(full == 2) > 0.15 and np.mean(full == 1) > 0.1
    assert set(counts.ravel()) == {1, 2, 3, 4, 5}
