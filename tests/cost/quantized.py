"""A quantized network on devices that compute on integers, or not, or bit by bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fn3hw.profiler.plan import plan
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace, Subnet
from tests.cost.synthetic import FakeProfile, Measurement, Net

Speed = Callable[[int], float]
"""Share of the time of full precision that a count of kept steps takes."""

SPACE = SearchSpace(
    [Gate("one.bits", "bit", 5), Gate("a", "channel", 96, 24), Gate("two.bits", "bit", 5), Gate("b", "channel", 64, 16)]
)
UNITS = {
    "one": ("a", "one.bits"),
    "one/border": ("a", "one.bits", "two.bits"),
    "two": ("a", "b", "two.bits"),
    "head": ("b",),
}
PARAMETERS = [
    {
        "name": "one.weight",
        "fixed_bytes": 36,
        "gates": ("a",),
        "branches": (),
        "precision": ("one.bits", (2, 4, 4, 4, 32)),
    },
    {
        "name": "two.weight",
        "fixed_bytes": 4,
        "gates": ("a", "b"),
        "branches": (),
        "precision": ("two.bits", (2, 4, 4, 4, 32)),
    },
]


def integer_kernels(count: int) -> float:
    """A device with one kernel for integers and one for full precision."""
    return 1.0 if count == 5 else 0.4


def wide_kernels(count: int) -> float:
    """A device that knows no integers: weights are unpacked in every run."""
    return 1.0


def narrow_kernels(count: int) -> float:
    """A device that computes bit by bit."""
    return count / 5


def times(subnet: Subnet, speed: Speed) -> dict[str, float]:
    c = subnet.counts
    one, two = (c[name] == 5 for name in ("one.bits", "two.bits"))
    found = {
        "one": 30 + 4.0 * c["a"] * speed(c["one.bits"]),
        "two": 30 + 0.1 * c["a"] * c["b"] * speed(c["two.bits"]),
        "head": 20 + 1.0 * c["b"],
    }
    return found | ({"one/border": 10 + 0.5 * c["a"]} if one != two and speed is integer_kernels else {})


def profile(speed: Speed, n: int = 40, seed: int = 0, *, inflated: float = 1.0) -> FakeProfile:
    """Measurements; the device's own profiler makes kernels of integers seem slower by a factor."""
    rng = np.random.default_rng(seed)
    rows = []
    for role, subnet in [("fit", s) for s in plan(SPACE, n)] + [("holdout", SPACE.random(rng)) for _ in range(40)]:
        kernels = {name: us * float(np.exp(0.003 * rng.normal())) for name, us in times(subnet, speed).items()}
        for name in ("one", "two"):
            kernels[name] *= inflated if subnet.counts[f"{name}.bits"] < 5 else 1.0
        total = 0.05 + 1e-3 * sum(times(subnet, speed).values())
        rows.append(Measurement(subnet.id, size_bytes(subnet), total, kernels, 30.0, role))
    return FakeProfile(tuple(rows), space=SPACE, network=Net(UNITS, PARAMETERS))


def size_bytes(subnet: Subnet) -> int:
    """Packed weights, and the graph around them."""
    c = subnet.counts
    one, two = PARAMETERS
    bits = [one["precision"][1][c["one.bits"] - 1], two["precision"][1][c["two.bits"] - 1]]
    return 1500 + (36 * c["a"] * bits[0] + 4 * c["a"] * c["b"] * bits[1]) // 32
