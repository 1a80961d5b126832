"""Candidates of a rung: walks down (or up) the gates' ladders, cut where the predicted cost reaches the target.

A walk is an order of single moves. Random walks take it at random within the sliding window of the paper (sec. 3);
guided walks take first the moves that are expected to lose least accuracy per cost saved. All walks of a rung are cut
together by bisection, so that the cost model is asked a few large questions instead of many small ones.
"""

from __future__ import annotations

import numpy as np

from fn3hw.searcher.charge import Charge
from fn3hw.searcher.knapsack import solved
from fn3hw.searcher.ports import FloatArray, IntArray
from fn3hw.searcher.surrogate import Surrogate

_SAME = 1e-9


class Walker:
    """Makes candidates that cost at most a target.

    Args:
        charge: cost of states and ladders of gates.
    """

    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        self._saved = self._single_gate_savings()
        self._moves = int(sum(len(ladder) - 1 for ladder in charge.ladders))

    def removed(self, states: IntArray) -> FloatArray:
        """Removed fraction of what each gate may lose: states of shape (n, G) to shape (n, G)."""
        free = np.maximum(self.charge.sizes - self.charge.lowest, 1)
        return np.asarray((self.charge.sizes - self.charge.canonical(states)) / free, dtype=np.float64)

    def random(self, starts: IntArray, target: float, floor: IntArray, rng: np.random.Generator) -> IntArray:
        """Random walks down from (n, G) states, no gate below ``floor`` (G,). Walks that fall short are left out."""
        orders = [self._down(state, floor, rng.random(self._moves)) for state in starts]
        return self._cut(starts, orders, target)

    def guided(
        self, starts: IntArray, target: float, surrogate: Surrogate, rng: np.random.Generator, spread: float = 0.5
    ) -> IntArray:
        """Walks down by expected loss per saved cost, with log-normal noise of scale ``spread`` per gate."""
        loss = self.losses(surrogate)
        orders = []
        for state in starts:
            noise = np.exp(spread * rng.standard_normal(len(state)))
            orders.append(self._down(state, self.charge.lowest, self._price(state, loss, noise)))
        return self._cut(starts, orders, target)

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
        result = starts.copy()
        for state in result:
            for g, ladder in enumerate(self.charge.ladders):
                at = int(np.searchsorted(-ladder, -state[g]))
                at = min(at, len(ladder) - 1)
                state[g] = max(state[g], ladder[at - rng.binomial(at, share)])
        return result

    def filled(self, states: IntArray, rng: np.random.Generator) -> IntArray:
        """(n, G) states with every gate, in random order, as high as it costs nothing.

        Ladders are those of the full network. Where a part of a subnet runs another kernel, with wider steps, several
        of their counts may cost the same, and the largest is the one to have.
        """
        result = self.charge.canonical(states)
        limit = self.charge.of(result) * (1 + _SAME)
        for g in rng.permutation(len(self.charge.ladders)):
            ladder = self.charge.ladders[g]
            high = np.minimum(np.searchsorted(-ladder, -result[:, g]), len(ladder) - 1)
            low = np.full_like(high, -1)
            while (high - low > 1).any():
                middle = np.where(high - low > 1, (low + high) // 2, high)
                trial = result.copy()
                trial[:, g] = np.maximum(result[:, g], ladder[middle])
                free = self.charge.of(trial) <= limit
                high, low = np.where(free, middle, high), np.where(free, low, middle)
            result[:, g] = np.maximum(result[:, g], ladder[high])
        return self.charge.canonical(result)

    def _down(self, state: IntArray, floor: IntArray, priority: FloatArray) -> list[tuple[int, int]]:
        """Moves (gate, new count) by ascending priority; a gate's own moves keep their order down the ladder."""
        moves: list[tuple[int, int]] = []
        slots: list[tuple[float, int]] = []
        rests: list[list[int]] = []
        used = 0
        for g, ladder in enumerate(self.charge.ladders):
            rest = [int(c) for c in ladder if floor[g] <= c < state[g]]
            slots += [(float(priority[used + i]), g) for i in range(len(rest))]
            used += len(ladder) - 1
            rests.append(rest[::-1])
        for _, g in sorted(slots):
            moves.append((g, rests[g].pop()))
        return moves

    def _price(self, state: IntArray, loss: list[FloatArray], noise: FloatArray) -> FloatArray:
        """Loss per saved cost of the moves of every gate from ``state``, made ascending along each ladder."""
        price = np.full(self._moves, np.inf)
        used = 0
        for g, ladder in enumerate(self.charge.ladders):
            below = np.flatnonzero(ladder < state[g])
            if below.size:
                at = max(int(below[0]) - 1, 0)
                gained = np.maximum(self._saved[g][below] - self._saved[g][at], 1e-12)
                lost = np.maximum(loss[g][below] - loss[g][at], 1e-4)
                # The average from here on: a cheap move behind a dear one is not reached by way of its own price.
                ratio = noise[g] * lost / gained
                price[used : used + below.size] = np.maximum.accumulate(ratio)
            used += len(ladder) - 1
        return price

    def losses(self, surrogate: Surrogate) -> list[FloatArray]:
        """Expected loss that each rung of each gate's ladder adds by itself."""
        free = np.maximum(self.charge.sizes - self.charge.lowest, 1)
        tables = []
        for g, ladder in enumerate(self.charge.ladders):
            tables.append(surrogate.gate_loss(g, (self.charge.sizes[g] - ladder) / free[g]))
        return tables

    def _single_gate_savings(self) -> list[FloatArray]:
        savings = []
        for g, ladder in enumerate(self.charge.ladders):
            states = np.repeat(self.charge.sizes[None], len(ladder), axis=0)
            states[:, g] = ladder
            cost = self.charge.of(states)
            savings.append(cost[0] - cost)
        return savings

    def _cut(self, starts: IntArray, orders: list[list[tuple[int, int]]], target: float) -> IntArray:
        """The first state of each walk that costs at most ``target``, as far as bisection finds it."""
        ends = np.array([len(order) for order in orders], dtype=np.int64)
        reached = self.charge.of(_apply(starts, orders, ends)) <= target if len(starts) else np.zeros(0, dtype=bool)
        starts, orders, high = starts[reached], [o for o, r in zip(orders, reached, strict=True) if r], ends[reached]
        if not len(starts):
            return starts
        low = np.full_like(high, -1)
        while (high - low > 1).any():
            middle = (low + high) // 2
            open_ = high - low > 1
            middle = np.where(open_, middle, high)
            meets = self.charge.of(_apply(starts, orders, middle)) <= target
            high = np.where(open_ & meets, middle, high)
            low = np.where(open_ & ~meets, middle, low)
        return self.charge.canonical(_apply(starts, orders, high))


def _apply(starts: IntArray, orders: list[list[tuple[int, int]]], lengths: IntArray) -> IntArray:
    states = starts.copy()
    for state, order, length in zip(states, orders, lengths.tolist(), strict=True):
        for gate, count in order[:length]:
            state[gate] = count
    return states
