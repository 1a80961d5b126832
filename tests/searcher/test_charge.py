"""What a search charges, and the ladders that its gates move along."""

from __future__ import annotations

import numpy as np
import pytest

from fn3hw.cost import fit_cost
from fn3hw.errors import InputError, UnknownName
from fn3hw.searcher.charge import Charge
from tests.cost.quantized import SPACE, integer_kernels, profile

from .synthetic import SyntheticCost, make_space


def test_where_fewer_bits_buy_no_time_they_are_spent_on_size_only() -> None:
    cost = fit_cost(profile(integer_kernels))
    ladders = {by: Charge(SPACE, cost, by).ladders for by in ("latency", "size")}
    names = [gate.name for gate in SPACE]
    for gate in ("one.bits", "two.bits"):
        assert list(ladders["latency"][names.index(gate)]) == [5, 4]
        assert list(ladders["size"][names.index(gate)]) == [5, 4, 1]


def test_counting_blocks_needs_no_cost_model() -> None:
    charge = Charge(SPACE, None, "blocks")
    full = charge.state(SPACE.full())
    assert charge.of(full[None]).tolist() == [SPACE.n_blocks]
    with pytest.raises(InputError, match="needs a cost model"):
        Charge(SPACE, None, "latency")
    with pytest.raises(UnknownName):
        Charge(SPACE, None, "energy")


def test_a_renewed_charge_asks_again_and_says_the_same() -> None:
    space = make_space(3)
    cost = SyntheticCost(space)
    charge = Charge(space, cost)
    states = np.stack([charge.sizes, charge.bottom, charge.sizes // 2])
    before = charge.of(states)
    asked = cost.asked
    charge.of(states)
    assert cost.asked == asked
    renewed = charge.renewed()
    np.testing.assert_array_equal(renewed.of(states), before)
    assert cost.asked > asked
    assert renewed.identity() == charge.identity()


def test_costs_are_looked_up_on_the_ladders_and_computed_off_them() -> None:
    cost = fit_cost(profile(integer_kernels))
    charge = Charge(SPACE, cost, "size")
    on = np.stack([ladder[-2:] for ladder in charge.ladders], axis=1)
    off = charge.sizes[None] - (charge.sizes > 10)
    assert any(count not in ladder for count, ladder in zip(off[0], Charge(SPACE, cost).ladders, strict=True))
    for by, column in (("latency", 0), ("size", 2)):
        charge = Charge(SPACE, cost, by)
        for states in (on, off):
            np.testing.assert_allclose(charge.of(states), cost.costs(charge.canonical(states))[:, column], rtol=1e-9)
