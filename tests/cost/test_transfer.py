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


def few(machine: Machine, n: int, seed: int) -> FakeProfile:
    return measure(machine, subnets(n, seed), noise=0.004, drift=0.05, seed=seed)


def test_a_slower_device_of_the_same_kind_needs_few_measurements(origin: FakeProfile) -> None:
    slower, errors = Machine(scale=3.0), []
    for seed in (3, 5):
        here = few(slower, 6, seed)
        errors.append([error(fit_cost(one), slower) for one in (here, replace(here, origin=origin))])
    alone, started = np.mean(errors, axis=0)
    assert started < min(0.01, 0.7 * alone)


def test_what_holds_on_the_other_device_only_is_not_believed(origin: FakeProfile) -> None:
    other = Machine(step=8, align=8, penalty=0.3, scale=2.0)
    here = few(other, 12, 4)
    assert error(fit_cost(replace(here, origin=origin)), other) < error(fit_cost(here), other) + 0.01


def test_units_that_the_other_device_does_not_have_are_fitted_alone(origin: FakeProfile) -> None:
    units = {node: gates for node, gates in origin.network.units.items() if node not in ("de.conv", "d.conv")}
    measurements = tuple(
        replace(m, kernels={node: us for node, us in m.kernels.items() if node in units}) for m in origin.measurements
    )
    without = replace(origin, network=Net(units, origin.network.parameters), measurements=measurements)
    here = few(Machine(scale=2.0), 16, 4)
    cost = fit_cost(replace(here, origin=without))
    assert error(cost, Machine(scale=2.0)) < 0.03
