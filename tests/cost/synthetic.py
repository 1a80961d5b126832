"""Devices whose rules are known, and profiles measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace, Subnet

SPACE = SearchSpace(
    [
        Gate("a", "channel", 96, 24),
        Gate("b", "channel", 128, 32),
        Gate("c", "channel", 64, 16),
        Gate("stage", "layer", 2, 0),
        Gate("d", "channel", 192, 48),
        Gate("e", "channel", 160, 40),
    ]
)
"""``b`` and ``c`` are the two widths of one branch each of the stage, which can be removed; ``d`` feeds ``e``."""

UNITS: dict[str, tuple[str, ...]] = {
    "a.expand": ("a",),
    "a.project": ("a",),
    "b.expand": ("b", "stage[0]"),
    "b.add": ("stage[0]",),
    "c.expand": ("c", "stage[1]"),
    "d.conv": ("d",),
    "de.conv": ("d", "e"),
    "head": ("e",),
    "softmax": (),
}
PARAMETERS: list[dict[str, Any]] = [
    {"name": "a.weight", "fixed_bytes": 4 * 160, "gates": ("a",), "branches": ()},
    {"name": "b.weight", "fixed_bytes": 4 * 90, "gates": ("b",), "branches": (("stage", 0),)},
    {"name": "c.weight", "fixed_bytes": 4 * 90, "gates": ("c",), "branches": (("stage", 1),)},
    {"name": "de.weight", "fixed_bytes": 4 * 9, "gates": ("d", "e"), "branches": ()},
    {"name": "head.bias", "fixed_bytes": 40, "gates": (), "branches": ()},
]


@dataclass(frozen=True)
class Machine:
    """A device: µs per node.

    Args:
        step: of its staircase.
        align: of its fast path, 1 for none.
        penalty: share by which an unaligned count is slower.
        scale: factor of all times.
        per_kernel_us: what its profiler adds to each kernel.
        narrow: widths of ``c`` and ``d`` below it run another kernel, 2.5 times slower.
        reorder_us: what the head adds to change the layout of its data, where ``e`` is aligned and ``d`` is not.
        cached_us: what gated nodes take less, as small sizes stay in the cache.
        fine: second alignment of ``c`` and ``d``; off it, they take as much longer once more.
        tail: of ``c`` and ``d``, what is left of a count after blocks of so many is computed one by one.
        alone_us: what the ungated node takes more where no branch of the stage is left.
        together: alignment of ``de.conv`` where it is another one than the device's; off it, its time is that of ``e``.
        per_add_us: what its profiler adds to the sum of the branch of ``b`` besides.
        crowding: share of the time of ``de.conv`` that others take longer, as it leaves them a cold cache.
        blocks: off the fast path, counts are computed in whole blocks of so many.
        bend: small subnets take longer than the sum of their kernels, by so many times its root in ms.
    """

    step: int = 16
    align: int = 4
    penalty: float = 0.6
    scale: float = 1.0
    per_kernel_us: float = 0.0
    narrow: int = 0
    reorder_us: float = 0.0
    cached_us: float = 0.0
    fine: int = 0
    tail: int = 0
    alone_us: float = 0.0
    crowding: float = 0.0
    per_add_us: float = 0.0
    together: int = 0
    bend: float = 0.0
    blocks: int = 1

    def node_us(self, node: str, counts: dict[str, int]) -> float:
        gates = [g for g in UNITS[node] if "[" not in g]
        us = 20.0
        if node == "softmax" and not counts["stage"]:
            us += self.alone_us
        if gates:
            us -= self.cached_us
            steps = [float(-(-counts[g] // self.step) * self.step) for g in gates]
            off = any(counts[g] % self.align for g in gates)
            us += 3.0 * np.prod(steps) / 50 ** (len(gates) - 1)
            if off:
                whole = [float(-(-counts[g] // self.blocks) * self.blocks) for g in gates]
                us += 15.0 + self.penalty * 3.0 * np.prod(whole) / 50 ** (len(gates) - 1)
        if self.together and len(gates) > 1:
            off = any(counts[g] % self.together for g in gates)
            us = 20.0 + (40.0 * counts["e"] if off else 2.0 * np.prod([counts[g] for g in gates]) / 50)
        if any(counts[g] < self.narrow for g in gates if g in "cd"):
            us *= 2.5
        for gate in [g for g in gates if g in "cd"] if len(gates) == 1 else ():
            if self.fine and counts[gate] % self.fine:
                us += 10.0 + 2.0 * counts[gate]
            if self.tail:
                us += 15.0 * (counts[gate] % self.tail)
        if node == "head" and counts["e"] % self.align == 0 and counts["d"] % self.align:
            us += self.reorder_us
        return float(us * self.scale)

    def kernels(self, subnet: Subnet) -> dict[str, float]:
        kept = set(subnet.blocks("stage"))
        gone = {f"stage[{m}]" for m in range(2) if m not in kept}
        return {n: self.node_us(n, subnet.counts) for n, gates in UNITS.items() if not gone & set(gates)}


@dataclass(frozen=True)
class Measurement:
    subnet: str
    size_bytes: int
    ratio: float
    kernels: dict[str, float]
    peak_mib: float
    role: str = "fit"
    operators: dict[str, tuple[str, ...]] = field(default_factory=dict)
    noise: float = 0.0
    rounds: tuple[str, ...] = ("only",)

    @property
    def ratio_low(self) -> float:
        return self.ratio * float(np.exp(-1.645 * self.noise))

    @property
    def ratio_high(self) -> float:
        return self.ratio * float(np.exp(1.645 * self.noise))


@dataclass(frozen=True)
class Value:
    repeat_mape: float = 0.0


@dataclass(frozen=True)
class Net:
    units: dict[str, tuple[str, ...]]
    parameters: list[dict[str, Any]]


@dataclass(frozen=True)
class FakeProfile:
    """What `fit_cost` reads of a profile."""

    measurements: tuple[Measurement, ...]
    space: SearchSpace = SPACE
    network: Net = field(default_factory=lambda: Net(UNITS, PARAMETERS))
    full_cost: float = 1.0
    noise: Value = Value(repeat_mape=0.004)
    settings: dict[str, Any] = field(default_factory=dict)
    origin: FakeProfile | None = None

    def model_copy(self, *, update: dict[str, Any]) -> FakeProfile:
        return replace(self, **update)

    @property
    def fitted(self) -> tuple[Measurement, ...]:
        return tuple(m for m in self.measurements if m.role == "fit")

    @property
    def held_out(self) -> tuple[Measurement, ...]:
        return tuple(m for m in self.measurements if m.role == "holdout")

    def changed(self, row: int, **fields: Any) -> FakeProfile:
        """The profile with one measurement edited."""
        rows = list(self.measurements)
        rows[row] = replace(rows[row], **fields)
        return replace(self, measurements=tuple(rows))


def parameter_bytes(subnet: Subnet) -> int:
    kept, counts, total = set(subnet.blocks("stage")), subnet.counts, 0
    for one in PARAMETERS:
        if all(block in kept for _, block in one["branches"]):
            total += int(one["fixed_bytes"] * np.prod([counts[g] for g in one["gates"]], dtype=np.int64))
    return total


def true_ms(machine: Machine, subnet: Subnet) -> float:
    kernels = machine.kernels(subnet)
    ms = 0.05 * machine.scale + 1e-3 * (sum(kernels.values()) + machine.crowding * kernels["de.conv"])
    return float(ms + machine.bend * np.sqrt(ms))


def subnets(n: int, seed: int) -> list[Subnet]:
    rng = np.random.default_rng(seed)
    return [SPACE.full(), *(SPACE.random(rng) for _ in range(n - 1))]


def measure(
    machine: Machine,
    fit: Sequence[Subnet],
    held_out: Sequence[Subnet] = (),
    *,
    noise: float = 0.0,
    drift: float = 0.0,
    kernels: bool = True,
    seed: int = 0,
) -> FakeProfile:
    """Measure subnets: ``noise`` on every time, ``drift`` common to all kernel times of a subnet, both relative."""
    rng = np.random.default_rng(seed)
    rows = []
    for role, subnet in [("fit", s) for s in fit] + [("holdout", s) for s in held_out]:
        shift = np.exp(drift * rng.normal())
        times = {
            node: us * shift * np.exp(noise * rng.normal())
            + machine.per_kernel_us
            + machine.per_add_us * (node == "b.add")
            for node, us in machine.kernels(subnet).items()
        }
        rows.append(
            Measurement(
                subnet=subnet.id,
                size_bytes=parameter_bytes(subnet) + 1500 + 40 * subnet.counts["stage"],
                ratio=true_ms(machine, subnet) * float(np.exp(noise * rng.normal())),
                kernels=times if kernels else {},
                operators={node: ("Add",) if node == "b.add" else ("Conv",) for node in times},
                peak_mib=30.0 + 2.1 * parameter_bytes(subnet) / 2**20 + 0.01 * subnet.counts["a"],
                role=role,
                noise=noise,
            )
        )
    return FakeProfile(tuple(rows))
