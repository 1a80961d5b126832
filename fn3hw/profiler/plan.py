"""Which subnets to measure: few, where they teach most.

The full and the smallest subnet are always among them. The others fill the space: the range of every gate is cut into
as many strata as there are subnets, and each gate visits its strata in an order of its own (a Latin hypercube). Within
its stratum a count is moved to a wanted alignment: odd, 2·odd, 4·odd, ... So for each gate by itself there are narrow
and wide counts of each alignment, and the rules of a device (a step every 16 channels, a penalty off multiples of 4,
...) can be found gate by gate. How many of a subnet's counts are odd, or round, differs from subnet to subnet, from
nearly none to nearly all: were it alike in all of them, nobody could tell what alignment is worth end to end. Of
several such designs the one is taken whose gates are least correlated.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fn3hw.errors import InputError
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace, Subnet

_ALL_FEWER, _ALL_FULL = 0.4, 0.8
"""Shares of the subnets that have fewer bits in all gates, and that do not have full precision in all gates."""

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_DESIGNS = 20
_ALIGNMENTS = (0, 0, 1, 1, 2, 3, 4, 5)
"""Wanted powers of two, in equal shares: half of the counts are no multiple of 4, as most random counts are not."""


def plan(space: SearchSpace, n: int, *, seed: int = 0) -> list[Subnet]:
    """About ``n`` different subnets to fit a cost model on; fewer where the space has fewer.

    Raises:
        InputError: ``n`` is less than 2.
    """
    if n < 2:
        raise InputError(f"A plan has at least 2 subnets, the full and the smallest one, not {n}.")
    rng = np.random.default_rng([seed, 1])
    designs = [_design(space, n - 2, rng) for _ in range(_DESIGNS)] if n > 2 else []
    rows = min(designs, key=_correlation) if designs else np.empty((0, len(space)), np.int64)
    chosen = [space.full(), space.smallest()]
    chosen += [_subnet(space, row, rng) for row in rows]
    return _distinct(space, chosen, n, rng)


def holdout(space: SearchSpace, n: int, *, seed: int = 0, exclude: Iterable[Subnet] = ()) -> list[Subnet]:
    """``n`` different subnets to test a cost model on, every count uniform over its range; none of ``exclude``."""
    rng = np.random.default_rng([seed, 2])
    excluded = list(exclude)
    return _distinct(space, excluded, len(set(excluded)) + n, rng)[len(set(excluded)) :]


def _design(space: SearchSpace, n: int, rng: np.random.Generator) -> IntArray:
    roundness = _strata(n, rng)
    precision = _strata(n, rng) if "bit" in space.levels else np.zeros(n)
    columns = [_column(gate, roundness, precision, rng) for gate in space]
    return np.stack(columns, axis=1) if len(space) else np.empty((n, 0), np.int64)


def _strata(n: int, rng: np.random.Generator) -> FloatArray:
    """``n`` numbers from 0 to 1, one in each n-th part of the range, in random order."""
    return np.asarray((rng.permutation(n) + rng.random(n)) / n)


def _column(gate: Gate, roundness: FloatArray, precision: FloatArray, rng: np.random.Generator) -> IntArray:
    """Counts of one gate for n subnets.

    Args:
        gate: the gate.
        roundness: per subnet, how round its counts are to be, from 0 to 1.
        precision: per subnet, whether it has few bits everywhere (towards 0), or all everywhere (towards 1).
        rng: of what is random.
    """
    position = _strata(len(roundness), rng)
    if gate.level == "layer":
        # A branch that is off teaches nothing about the gates inside it: three of four single branches are on.
        position = np.sqrt(position)
    span = gate.size - gate.min_kept + 1
    if gate.level == "bit" and span > 1:
        # The last block, full precision where there is any, decides which kernels run, and what is converted between
        # two gates: some subnets have it nowhere, as most random ones, some everywhere, and some here and there.
        inner = gate.min_kept + np.floor(position * (span - 1)).astype(np.int64)
        fewer = (precision < _ALL_FEWER) | ((precision < _ALL_FULL) & (rng.random(len(precision)) < 0.5))
        return np.where(fewer, inner, gate.size)
    counts = gate.min_kept + np.floor(position * span).astype(np.int64)
    if gate.level == "layer" or span < 8:
        return counts
    # The sum of two uniform numbers, and which share of such sums is smaller: uniform again, but like its subnet's.
    mixed = roundness + _strata(len(roundness), rng)
    share = np.where(mixed < 1, mixed**2 / 2, 1 - (2 - mixed) ** 2 / 2)
    wanted = np.asarray(_ALIGNMENTS)[(share * len(_ALIGNMENTS)).astype(np.int64).clip(max=len(_ALIGNMENTS) - 1)]
    return np.asarray([_align(gate, int(c), int(a)) for c, a in zip(counts, wanted, strict=True)], dtype=np.int64)


def _align(gate: Gate, count: int, power: int) -> int:
    """The allowed count nearest to ``count`` that is an odd multiple of 2**power, or of the next lower power."""
    for lower in range(power, -1, -1):
        step = 1 << lower
        first = step * ((gate.min_kept + step - 1) // step | 1)
        options = np.arange(first, gate.size + 1, 2 * step)
        options = options[options >= gate.min_kept]
        if len(options):
            return int(options[np.argmin(np.abs(options - count))])
    return count


def _correlation(rows: IntArray) -> float:
    varied = rows[:, rows.std(axis=0) > 0] if len(rows) else rows
    if len(rows) < 3 or varied.shape[1] < 2:
        return 0.0
    matrix = np.corrcoef(varied, rowvar=False)
    return float(np.mean(np.triu(matrix, 1) ** 2))


def _subnet(space: SearchSpace, counts: IntArray, rng: np.random.Generator) -> Subnet:
    """Channels are equal in cost, so the first ones stand for any; branches are not, so any are drawn."""
    blocks: dict[str, Iterable[int]] = {}
    for gate, count in zip(space, counts, strict=True):
        drawn = gate.level == "layer"
        blocks[gate.name] = (
            (int(m) for m in rng.choice(gate.size, size=count, replace=False)) if drawn else range(count)
        )
    return space.from_blocks(blocks)


def _distinct(space: SearchSpace, subnets: list[Subnet], n: int, rng: np.random.Generator) -> list[Subnet]:
    """Without repetition, filled up to ``n`` with uniformly random ones as far as the space has as many."""
    chosen = list(dict.fromkeys(subnets))
    seen, misses = set(chosen), 0
    while len(chosen) < n and misses < 100:
        counts = np.asarray([rng.integers(gate.min_kept, gate.size + 1) for gate in space], dtype=np.int64)
        subnet = _subnet(space, counts, rng)
        misses = misses + 1 if subnet in seen else 0
        if subnet not in seen:
            seen.add(subnet)
            chosen.append(subnet)
    return chosen[:n]
