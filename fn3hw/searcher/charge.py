"""What a search charges for a subnet, and the ladder of counts that each gate moves along.

A gate's ladder holds, from the full count downwards, the largest count of every cost that the gate can have: a count
that costs no less than a larger one is never worth visiting. Kernels of integers have other steps than those of full
precision, and narrow layers may have others than wide ones: a ladder has the steps of all of them. Bits are the
exception: fewer levels are not always less accurate, so their ladders have all counts whatever these cost.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from fn3hw.errors import InputError, UnknownName
from fn3hw.searcher.ports import BoolArray, CostPredictor, CountsPredictor, FloatArray, IntArray, LadderPredictor
from fn3hw.space.subnet import SearchSpace, Subnet

COLUMNS: Final = {"latency": "latency_ms", "peak": "peak_mib", "size": "size_mib"}
"""What can be charged besides ``"blocks"``, and the column of the cost model that holds it."""

_MAX_RUNGS = 24
_SAME = 1e-9


class Charge:
    """Predicted cost of subnets, each asked of the cost model once.

    A state is a row of counts, one per gate of the space. Gates inside a removed branch cost nothing: they are kept
    whole in every state (`canonical`), so that one real network has one state.

    Args:
        space: the search space.
        cost: the cost model; counting blocks needs none.
        by: ``"latency"``, ``"peak"``, ``"size"``, or ``"blocks"``: the number of kept blocks, as the paper counts.
        levels: levels whose gates move; those of the others stay whole. By default all.

    ``inside`` lists, per gate and count, the gates inside the branches that are removed then.

    Raises:
        UnknownName: nothing of that name can be charged, or the space has no gate of a level.
        InputError: what is charged needs a cost model, and there is none.
    """

    def __init__(
        self,
        space: SearchSpace,
        cost: CostPredictor | None,
        by: str = "latency",
        *,
        levels: Iterable[str] | None = None,
    ) -> None:
        if by != "blocks" and by not in COLUMNS:
            raise UnknownName("cost", by, [*COLUMNS, "blocks"])
        if cost is None and by != "blocks":
            raise InputError(f"Charging {by} needs a cost model.", hint="Fit one on a profile: fn3hw profile RUN")
        moving = set(space.levels if levels is None else levels)
        for level in sorted(moving.difference(space.levels)):
            raise UnknownName("level of this network", level, space.levels)
        self.space = space
        self.by = by
        self._cost = cost
        self._names = [gate.name for gate in space]
        self._known: dict[bytes, float] = {}
        self._look_up: Callable[[IntArray], FloatArray] | None = None
        self.sizes: IntArray = np.array([gate.size for gate in space], dtype=np.int64)
        self.lowest: IntArray = np.array(
            [gate.min_kept if gate.level in moving else gate.size for gate in space], dtype=np.int64
        )
        self.inside: list[tuple[int, int, IntArray]] = [] if by == "blocks" else list(self._find_inside())
        self.ladders: tuple[IntArray, ...] = tuple(self._ladder(g) for g in range(len(space)))
        self._rungs = _Rungs(self.ladders, self.sizes)
        if by != "blocks" and isinstance(cost, LadderPredictor):
            self._look_up = cost.on_ladders(self.ladders)
        self._known_first = dict(self._known)

    @property
    def bottom(self) -> IntArray:
        """The state with every gate at the end of its ladder, shape (G,)."""
        return np.array([ladder[-1] for ladder in self.ladders], dtype=np.int64)

    def identity(self) -> dict[str, Any]:
        """What is charged, as JSON: equal for charges that a search cannot tell apart by ladders and ends."""
        ends = np.stack([self.sizes, self.lowest])
        return {
            "by": self.by,
            "ladders": [ladder.tolist() for ladder in self.ladders],
            "ends": [float(f"{cost:.6g}") for cost in self.of(ends)],
        }

    def renewed(self) -> Charge:
        """The same, that has not asked for any cost yet but those of the ladders."""
        result = copy.copy(self)
        result._known = dict(self._known_first)
        return result

    def subnet(self, counts: IntArray) -> Subnet:
        """The subnet of a state of shape (G,)."""
        return self.space.from_counts(dict(zip(self._names, counts.tolist(), strict=True)))

    def state(self, subnet: Subnet) -> IntArray:
        """The canonical state of a subnet, of shape (G,)."""
        counts = subnet.counts
        row = np.array([[counts[name] for name in self._names]], dtype=np.int64)
        return np.asarray(self.canonical(row)[0], dtype=np.int64)

    def canonical(self, states: IntArray) -> IntArray:
        """States of shape (n, G) with the gates inside removed branches kept whole."""
        result = states.copy()
        for gate, count, inside in self.inside:
            rows = np.flatnonzero(states[:, gate] == count)
            result[np.ix_(rows, inside)] = self.sizes[inside]
        return result

    def of(self, states: IntArray) -> FloatArray:
        """Cost of states of shape (n, G): shape (n,), in ms or MiB, or in kept blocks.

        Raises:
            InputError: the cost model predicts a cost that is no positive number.
        """
        if self.by == "blocks":
            return np.asarray(states.sum(axis=1), dtype=np.float64)
        canonical = self.canonical(states)
        if self._look_up is not None and (rungs := self._rungs.of(canonical)) is not None:
            return self._checked(self._look_up(rungs))
        keys = [row.tobytes() for row in canonical]
        new = {key: row for key, row in zip(keys, canonical, strict=True) if key not in self._known}
        if new:
            values = self._checked(self._predict(np.array(list(new.values()))))
            self._known.update(zip(new, values.tolist(), strict=True))
        return np.array([self._known[key] for key in keys], dtype=np.float64)

    def _checked(self, costs: FloatArray) -> FloatArray:
        """What is charged, shape (n,), of all costs, shape (n, 3)."""
        values = costs[:, list(COLUMNS).index(self.by)]
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise InputError(f"The cost model predicts a {self.by} that is no positive number.")
        return values

    def _predict(self, states: IntArray) -> FloatArray:
        """All costs of (n, G) states, in the order of `COLUMNS`, shape (n, 3)."""
        assert self._cost is not None
        if isinstance(self._cost, CountsPredictor):
            return self._cost.costs(states)
        subnets = [self.subnet(row) for row in states]
        return self._cost.predict(subnets)[list(COLUMNS.values())].to_numpy(dtype=np.float64)

    def _find_inside(self) -> Iterator[tuple[int, int, IntArray]]:
        """Per layer gate and count, the gates that then no longer change any cost, though they do otherwise."""
        probes = np.flatnonzero(self.lowest < self.sizes)
        alive = self._changed(self.sizes, probes)
        for gate in (g for g in probes if self.space.gates[g].level == "layer"):
            others = probes[probes != gate]
            for count in range(int(self.lowest[gate]), int(self.sizes[gate])):
                base = self.sizes.copy()
                base[gate] = count
                changed = self._changed(base, others)
                inside = np.array([g for g in others if g in alive and g not in changed], dtype=np.int64)
                if inside.size:
                    yield int(gate), count, inside

    def _changed(self, base: IntArray, gates: IntArray) -> set[int]:
        if not gates.size:
            return set()
        states = np.repeat(base[None], len(gates) + 1, axis=0)
        states[np.arange(len(gates)), gates] = self.lowest[gates]
        costs = np.nan_to_num(self._predict(states))
        moved = np.abs(costs[:-1] - costs[-1]) > _SAME * np.abs(costs[-1])
        return {int(g) for g, row in zip(gates, moved, strict=True) if row.any()}

    def _bases(self) -> IntArray:
        """States around which gates may have steps of their own, shape (n, G): the full network first."""
        bits = np.array([gate.level == "bit" for gate in self.space])
        wide = np.array([gate.level in ("bit", "layer") for gate in self.space])
        coarser = np.where(bits, np.maximum(self.sizes - 1, self.lowest), self.sizes)
        coarsest = np.where(bits, self.lowest, self.sizes)
        precisions = np.stack([self.sizes, coarser, coarsest])
        narrow = np.where(wide, precisions, self.lowest)
        bases = np.concatenate([precisions, narrow])
        return bases[np.sort(np.unique(bases, axis=0, return_index=True)[1])]

    def _ladder(self, g: int) -> IntArray:
        descending = np.arange(self.sizes[g], self.lowest[g] - 1, -1)
        if self.by == "blocks" or self.space.gates[g].level == "bit":
            return descending
        first, *others = (descending[self._lowers(base, g, descending)] for base in self._bases())
        more = np.setdiff1d(np.concatenate([first, *others]), first)
        return np.sort(np.concatenate([_thinned(first, _MAX_RUNGS), _thinned(more, _MAX_RUNGS - len(first))]))[::-1]

    def _lowers(self, base: IntArray, g: int, descending: IntArray) -> BoolArray:
        """Which counts of a gate cost less than all larger ones, the other gates as in a state."""
        states = np.repeat(base[None], len(descending), axis=0)
        states[:, g] = descending
        costs = self.of(states)
        before = np.minimum.accumulate(np.concatenate(([np.inf], costs[:-1])))
        return np.asarray(costs < before * (1 - _SAME))


class _Rungs:
    """Counts to numbers of rungs.

    Args:
        ladders: counts of each gate.
        sizes: of the gates, shape (G,).
    """

    def __init__(self, ladders: Sequence[IntArray], sizes: IntArray) -> None:
        self._gates = np.arange(len(ladders))
        self._numbers: IntArray = np.full((len(ladders), int(sizes.max(initial=0)) + 1), -1, dtype=np.int64)
        for g, ladder in enumerate(ladders):
            self._numbers[g, ladder] = np.arange(len(ladder))

    def of(self, states: IntArray) -> IntArray | None:
        """Numbers for (n, G) states; None if a count is on no ladder."""
        numbers: IntArray = self._numbers[self._gates, states]
        return numbers if (numbers >= 0).all() else None


def _thinned(counts: IntArray, most: int) -> IntArray:
    """At most so many of some counts, evenly over their order, both ends among them."""
    if len(counts) <= most:
        return counts
    rows = np.unique(np.linspace(0, len(counts) - 1, max(most, 0)).round().astype(int))
    return np.asarray(counts[rows], dtype=np.int64)
