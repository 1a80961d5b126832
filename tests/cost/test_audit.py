from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fn3hw.cost import fit_cost
from fn3hw.cost.audit import describe
from tests.cost.synthetic import SPACE, FakeProfile, Machine, measure, subnets

MACHINE = Machine()


def tilted(gate: str, share: float, n: int = 40) -> FakeProfile:
    """A device on which subnets take longer end to end the fewer blocks a gate keeps; their kernels do not."""
    profile = measure(MACHINE, subnets(n, 0), noise=0.002)
    whole = SPACE[gate]
    rows = []
    for m in profile.measurements:
        removed = (whole.size - SPACE.parse(m.subnet).counts[gate]) / (whole.size - whole.min_kept)
        rows.append(replace(m, ratio=m.ratio * (1 + share * removed)))
    return replace(profile, measurements=tuple(rows))


def test_where_parts_add_up_there_is_nothing_to_find():
    found = fit_cost(tilted("d", 0.0)).audit
    assert not found.biased
    assert found.sum_error < 0.01
    assert found.error < 0.01
    assert sum(unit.share for unit in found.units) == pytest.approx(1.0)


@pytest.mark.parametrize("share", [0.15, -0.1])
def test_a_sum_that_is_wrong_is_found_where_it_is(share: float):
    found = fit_cost(tilted("d", share)).audit
    worst = found.gates[0]
    assert worst.gate == "d"
    assert worst in found.biased
    assert np.sign(worst.change) == np.sign(share)
    assert 0.3 * abs(share) < abs(worst.change) < 1.5 * abs(share)
    assert worst.low < worst.change < worst.high
    assert found.sum_error > 0.01
    assert any(line.strip().startswith("d:") for line in describe(found))


def test_a_profile_without_kernel_times_has_no_sum_to_audit():
    found = fit_cost(measure(MACHINE, subnets(40, 0), noise=0.002, kernels=False)).audit
    assert found.sum_error is None
    assert not found.units
    assert found.to_json()["gates"]
