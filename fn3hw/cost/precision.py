"""Which settings of a bit gate run alike, found from the measurements and never assumed.

A device may compute on integers with one kernel whatever their number of bits, and on full precision with another; or
it may have no kernel for integers at all. So the parts of a quantized unit are told apart by *mode*: an interval of
counts for each bit gate that decides which kernel runs. A part of a mode is there in the subnets of that mode only, as
the parts of a branch are there only where the branch is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from fn3hw.cost.parts import Mode, Part, blank_part
from fn3hw.cost.state import States
from fn3hw.cost.units import UnitTable
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace

_FEWEST = 3
"""Modes are told apart where each of them was measured so often."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A way to tell the counts of bit gates apart.

    Args:
        says: what it means, for people.
        apart: how many of the largest counts are told apart, each by itself; None for all.
    """

    says: str
    apart: int | None

    def intervals(self, gate: Gate) -> list[tuple[int, int]]:
        """Counts of a gate that run alike, ascending, as (lowest, highest)."""
        alike = gate.min_kept if self.apart is None else max(gate.size - self.apart, gate.min_kept)
        single = [(count, count) for count in range(alike + 1, gate.size + 1)]
        return [(gate.min_kept, alike), *single]


ALIKE = Partition("fewer bits buy no time", 0)
FULL_APART = Partition("full precision runs by itself; among integers fewer bits buy no time", 1)
EACH_APART = Partition("every number of bits has a time of its own", None)


def partitions(space: SearchSpace) -> tuple[Partition, ...]:
    """What is worth trying for a space, the simplest first."""
    return (ALIKE, FULL_APART, EACH_APART) if "bit" in space.levels else (ALIKE,)


def parts_of(table: UnitTable, k: int, partition: Partition, states: States) -> list[Part]:
    """The k-th unit as one part per mode that can be told apart in the measured states."""
    # Kernels of full precision and of integers are different ones: one measurement of each says more than none.
    fewest = 1 if partition.apart == 1 else _FEWEST
    return told_apart(blank_part(table, k), table, partition, states, fewest=fewest)


def told_apart(
    part: Part, table: UnitTable, partition: Partition, states: States, *, fewest: int = _FEWEST
) -> list[Part]:
    """A part as one per mode of its unit's bit gates that can be told apart in the measured states.

    Args:
        part: of any mode.
        table: of all units.
        partition: which counts of bit gates run alike.
        states: the measured subnets.
        fewest: how often each mode has to be measured.
    """
    for gates in _coarser(part.unit.precisions):
        parts = [replace(part, mode=mode) for mode in _modes(table, gates, partition)]
        if len(parts) == 1 or all(one.present(states).sum() >= fewest for one in parts):
            return parts
    return [part]


def _coarser(gates: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """All bit gates of a unit, then fewer of them; its own come first."""
    for count in range(len(gates), -1, -1):
        yield gates[:count]


def _modes(table: UnitTable, gates: tuple[str, ...], partition: Partition) -> Iterator[Mode]:
    encoder = table.encoder
    intervals = [[(encoder.column[g], *i) for i in partition.intervals(encoder.space[g])] for g in gates]
    yield from product(*intervals)
