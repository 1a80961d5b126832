"""A cost model that starts from another device's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fn3hw.cost import CostModel, fit_cost
from tests.cost.synthetic import FakeProfile, Machine, Net, measure, subnets, true_ms


@pytest.fixture(scope="module")
def origin() -> FakeProfile:
    return measure(Machine(), subnets(30, 0), noise=0.004, drift=0.05)


def error(cost: CostModel, machine: Machine) -> float:
    unseen = subnets(40, 9)
    truth = np.array([true_ms(machine, one) for one in unseen])
    return float(np.mean(np.abs(cost.predict(unseen).latency_ms.to_numpy() / truth - 1)))


def few(machine: Machine, n: int = 6) -> FakeProfile:
    return measure(machine, subnets(n, 3), noise=0.004, drift=0.05)


def test_a_slower_device_of_the_same_kind_needs_few_measurements(origin: FakeProfile) -> None:
    slower = Machine(scale=3.0)
    alone, started = fit_cost(few(slower)), fit_cost(replace(few(slower), origin=origin))
    assert error(started, slower) < 0.015 < error(alone, slower)


def test_what_holds_on_the_other_device_only_is_not_believed(origin: FakeProfile) -> None:
    other = Machine(step=8, align=8, penalty=0.3, scale=2.0)
    alone, started = fit_cost(few(other, 12)), fit_cost(replace(few(other, 12), origin=origin))
    assert error(started, other) < error(alone, other) + 0.01


def test_units_that_the_other_device_does_not_have_are_fitted_alone(origin: FakeProfile) -> None:
    renamed = {f"x.{node}": gates for node, gates in origin.network.units.items() if node != "de.conv"}
    measurements = tuple(
        replace(m, kernels={f"x.{node}": us for node, us in m.kernels.items() if node != "de.conv"})
        for m in origin.measurements
    )
    without = replace(origin, network=Net(renamed, origin.network.parameters), measurements=measurements)
    machine = Machine(scale=2.0)
    assert error(fit_cost(replace(few(machine, 12), origin=without)), machine) < 0.03
