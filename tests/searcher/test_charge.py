"""What a search charges, and the ladders that its gates move along."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from fn3hw.cost import fit_cost
from fn3hw.errors import InputError, UnknownName
from fn3hw.searcher.charge import Charge
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace, Subnet
from tests.cost.quantized import SPACE, integer_kernels, profile

from .synthetic import SyntheticCost, make_space


def test_bits_may_be_fewer_where_that_buys_no_time() -> None:
    cost = fit_cost(profile(integer_kernels))
    for by in ("latency", "size"):
        ladders = dict(zip((gate.name for gate in SPACE), Charge(SPACE, cost, by).ladders, strict=True))
        assert list(ladders["one.bits"]) == list(ladders["two.bits"]) == [5, 4, 3, 2, 1]


class Precise:
    """A device on which floats have steps of 32 channels and integers of 8, a fifth of the time."""

    def predict(self, subnets: Sequence[Subnet]) -> pd.DataFrame:
        counts = [one.counts for one in subnets]
        ms = [-(-c["width"] // 32) if c["bits"] == 3 else 0.2 * -(-c["width"] // 8) / 4 for c in counts]
        return pd.DataFrame({"latency_ms": 1.0 + np.array(ms), "peak_mib": 1.0, "size_mib": 1.0})


def test_a_ladder_has_the_steps_of_every_precision() -> None:
    space = SearchSpace([Gate("bits", "bit", 3, 1), Gate("width", "channel", 128, 16)])
    bits, width = Charge(space, Precise()).ladders
    assert list(bits) == [3, 2, 1]
    assert list(width) == list(range(128, 15, -8))


def test_a_ladder_of_too_many_steps_keeps_those_of_the_full_network_and_the_ends() -> None:
    space = SearchSpace([Gate("bits", "bit", 3, 1), Gate("width", "channel", 512, 16)])
    width = Charge(space, Precise()).ladders[1]
    assert len(width) == 24
    assert {*range(512, 31, -32), 16} <= {*width.tolist()}


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


def test_costs_are_looked_up_on_the_ladders_and_computed_off_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = fit_cost(profile(integer_kernels))
    charge = Charge(SPACE, cost)
    on = np.stack([ladder[-2:] for ladder in charge.ladders], axis=1)
    off = charge.sizes[None] - (charge.sizes > 10)
    expected = [cost.costs(charge.canonical(states))[:, 0] for states in (on, off)]
    np.testing.assert_allclose(charge.of(off), expected[1], rtol=1e-9)
    monkeypatch.setattr(type(cost), "costs", lambda *_: pytest.fail("computed, not looked up"))
    np.testing.assert_allclose(charge.renewed().of(on), expected[0], rtol=1e-9)
    with pytest.raises(pytest.fail.Exception, match="not looked up"):
        charge.renewed().of(off)
