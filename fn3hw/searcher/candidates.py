"""Candidates of a rung: walks down (or up) the gates' ladders, cut where the predicted cost reaches the target.

A walk is an order of single moves. Random walks take it at random within the sliding window of the paper (sec. 3);
guided walks take first the moves that are expected to lose least accuracy per cost saved. All walks of a rung are made
and cut together, as arrays over (walk, gate, move), and the cost model is asked a few large questions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fn3hw.searcher.charge import Charge
from fn3hw.searcher.knapsack import solved
from fn3hw.searcher.ports import FloatArray, IntArray
from fn3hw.searcher.surrogate import Surrogate

_SAME = 1e-9
_LEAST_LOST, _LEAST_SAVED = 1e-6, 1e-4
"""A move that saves next to nothing comes last if it is expected to lose accuracy, and first if it is not."""


class Walker:
    """Makes candidates that cost at most a target.

    Args:
        charge: cost of states and ladders of gates.
    """

    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        lengths = [len(ladder) for ladder in charge.ladders]
        self._ladders = np.stack([np.pad(ladder, (0, max(lengths) - len(ladder)), "edge") for ladder in charge.ladders])
        self._is_move = np.arange(1, max(lengths)) < np.array(lengths)[:, None]
        self._gates = np.arange(len(lengths))

    def removed(self, states: IntArray) -> FloatArray:
        """Removed fraction of what each gate may lose: states of shape (n, G) to shape (n, G)."""
        free = np.maximum(self.charge.sizes - self.charge.lowest, 1)
        return np.asarray((self.charge.sizes - self.charge.canonical(states)) / free, dtype=np.float64)

    def random(self, starts: IntArray, target: float, floor: IntArray, rng: np.random.Generator) -> IntArray:
        """Random walks down from (n, G) states, no gate below ``floor`` (G,). Walks that fall short are left out."""
        return self._walked(starts, rng.random((len(starts), *self._is_move.shape)), floor, target)

    def guided(
        self,
        starts: IntArray,
        target: float,
        surrogate: Surrogate,
        rng: np.random.Generator,
        *,
        around: IntArray | None = None,
        spread: float = 0.5,
    ) -> IntArray:
        """Walks down from (n, G) states by expected loss per saved cost.

        Args:
            starts: the states.
            target: cost to walk to.
            surrogate: expects losses.
            rng: draws log-normal noise of the prices.
            around: what moves save is seen around these states, shape (n, G); by default around the starts.
            spread: scale of the noise, the same for all moves of a gate.
        """
        noise = np.exp(spread * rng.standard_normal(starts.shape))
        states, inverse = np.unique(starts if around is None else around, axis=0, return_inverse=True)
        price = self._price(starts, self.losses(surrogate), self._costs_around(states)[inverse.ravel()], noise)
        return self._walked(starts, price, self.charge.lowest, target)

    def exact(
        self, starts: IntArray, target: float, surrogate: Surrogate, rng: np.random.Generator, spread: float = 0.5
    ) -> IntArray:
        """The states with the least sum of expected losses of single gates, solved as a knapsack around (n, G) states.

        Losses have log-normal noise of scale ``spread`` per gate. States that nothing is found around are left out.
        """
        losses, found = self.losses(surrogate), []
        for state in starts:
            noise = np.exp(spread * rng.standard_normal(len(state)))
            found.append(solved(self.charge, [n * one for n, one in zip(noise, losses, strict=True)], state, target))
        kept = [state for state in found if state is not None]
        return np.array(kept, dtype=np.int64).reshape(-1, starts.shape[1])

    def raised(self, starts: IntArray, rng: np.random.Generator, share: float) -> IntArray:
        """States with a random ``share`` of the moves undone that led from the full network to (n, G) states."""
        moved = (self._ladders > starts[:, :, None]).sum(axis=2)
        moved = np.minimum(moved, self._is_move.sum(axis=1))
        return np.asarray(np.maximum(starts, self._ladders[self._gates, moved - rng.binomial(moved, share)]))

    def filled(self, states: IntArray, rng: np.random.Generator) -> IntArray:
        """(n, G) states with every gate, in random order, as high as it costs nothing.

        Ladders have the steps of every precision and width. Where a part of a subnet runs a kernel with wider steps,
        several of their counts cost the same, and the largest is the one to have. Of bits it need not be: a bit gate
        stays as it is in about half of the states.
        """
        result = self.charge.canonical(states)
        limit = self.charge.of(result) * (1 + _SAME)
        for g in rng.permutation(len(self.charge.ladders)):
            ladder = self.charge.ladders[g]
            is_bits = self.charge.space.gates[g].level == "bit"
            stays = rng.random(len(result)) < 0.5 if is_bits else np.zeros(len(result), dtype=bool)
            high = np.minimum(np.searchsorted(-ladder, -result[:, g]), len(ladder) - 1)
            low = np.where(stays, high - 1, -1)
            while (high - low > 1).any():
                middle = np.where(high - low > 1, (low + high) // 2, high)
                trial = result.copy()
                trial[:, g] = np.maximum(result[:, g], ladder[middle])
                free = self.charge.of(trial) <= limit
                high, low = np.where(free, middle, high), np.where(free, low, middle)
            result[:, g] = np.maximum(result[:, g], ladder[high])
        return self.charge.canonical(result)

    def losses(self, surrogate: Surrogate) -> list[FloatArray]:
        """Expected loss that each rung of each gate's ladder adds by itself."""
        free = np.maximum(self.charge.sizes - self.charge.lowest, 1)
        tables = []
        for g, ladder in enumerate(self.charge.ladders):
            tables.append(surrogate.gate_loss(g, (self.charge.sizes[g] - ladder) / free[g]))
        return tables

    def _price(
        self, starts: IntArray, losses: Sequence[FloatArray], costs: FloatArray, noise: FloatArray
    ) -> FloatArray:
        """Loss per saved share of the cost of every move, (n, G, R), from (n, G) states on, ascending along ladders."""
        at, loss = self._rungs(starts), self._padded(losses)
        lost = loss[:, 1:] - loss[self._gates, at][:, :, None]
        saved = 1.0 - costs[:, :, 1:] / np.take_along_axis(costs, at[:, :, None], axis=2)
        # The average from here on: a cheap move behind a dear one is not reached by way of its own price.
        ratio = noise[:, :, None] * np.maximum(lost, _LEAST_LOST) / np.maximum(saved, _LEAST_SAVED)
        ratio[np.arange(ratio.shape[2]) < at[:, :, None]] = 0.0
        return np.asarray(np.maximum.accumulate(ratio, axis=2))

    def _costs_around(self, states: IntArray) -> FloatArray:
        """What (n, G) states cost with one gate on each of its rungs, shape (n, G, R + 1)."""
        gate, rung = np.nonzero(np.pad(self._is_move, ((0, 0), (1, 0)), constant_values=True))
        moved = np.repeat(states[:, None], len(gate), axis=1)
        moved[:, np.arange(len(gate)), gate] = self._ladders[gate, rung]
        costs = np.ones((len(states), *self._ladders.shape))
        costs[:, gate, rung] = self.charge.of(moved.reshape(-1, states.shape[1])).reshape(len(states), len(gate))
        return costs

    def _walked(self, starts: IntArray, priority: FloatArray, floor: IntArray, target: float) -> IntArray:
        """The first state of each walk that costs at most ``target``, as far as bisection finds it.

        A walk takes moves by ascending priority, (n, G, R); a gate's own moves keep their order down the ladder. Walks
        that do not reach the target are left out.
        """
        at = self._rungs(starts)
        free = (
            self._is_move & (self._ladders[:, 1:] >= floor[:, None]) & (np.arange(priority.shape[2]) >= at[:, :, None])
        )
        rank = np.where(free, priority, np.inf).reshape(len(starts), self._is_move.size).argsort(axis=1, kind="stable")
        rank = rank.argsort(axis=1).reshape(free.shape)

        def after(lengths: IntArray) -> IntArray:
            moves = (free & (rank < lengths[:, None, None])).sum(axis=2)
            return np.where(moves > 0, self._ladders[self._gates, at + moves], starts)

        high = free.sum(axis=(1, 2))
        reached = self.charge.of(after(high)) <= target
        low = np.where(reached, -1, high - 1)
        while (high - low > 1).any():
            middle = np.where(high - low > 1, (low + high) // 2, high)
            meets = self.charge.of(after(middle)) <= target
            high, low = np.where(meets, middle, high), np.where(meets, low, middle)
        return self.charge.canonical(after(high)[reached])

    def _rungs(self, states: IntArray) -> IntArray:
        """Numbers of the last rungs that hold no less than (n, G) states."""
        return np.asarray((self._ladders[:, 1:] >= states[:, :, None]).sum(axis=2, where=self._is_move), dtype=np.int64)

    def _padded(self, of_rungs: Sequence[FloatArray]) -> FloatArray:
        """A number of each rung of each ladder as one array (G, R + 1)."""
        width = self._ladders.shape[1]
        return np.stack([np.pad(one, (0, width - len(one)), "edge") for one in of_rungs])
