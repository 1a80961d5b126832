"""The best subnet for a cost, were losses of single gates to add up: a multiple-choice knapsack, solved exactly.

Of each gate's ladder exactly one rung is chosen, so that the losses add up to the least while the costs meet a limit
(Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004, chapter 11). Costs of gates do not add up: what a layer saves
depends on the widths around it. So the problem is linear around a state only, and is solved again around each answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from fn3hw.searcher.charge import Charge
from fn3hw.searcher.ports import FloatArray, IntArray

_ROUNDS = 4
_GAP = 1e-3
_SECONDS = 1.0
_STEP = 0.5
"""Share of the error in cost that the next round's limit makes up for; no limit is below that share of the target."""


def best_choice(losses: Sequence[FloatArray], costs: Sequence[FloatArray], limit: float) -> IntArray | None:
    """One option of each class, shape (G,), with the least sum of losses at a sum of costs of at most ``limit``.

    Args:
        losses: of the options of each class, G arrays.
        costs: of the same.
        limit: of the sum.

    Returns:
        None where no choice meets the limit, or none was found in time.
    """
    lengths = [len(one) for one in losses]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    n = len(owner)
    one_each = csr_array((np.ones(n), (owner, np.arange(n))), shape=(len(lengths), n))
    found = milp(
        np.concatenate(losses),
        integrality=np.ones(n, dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(np.concatenate(costs)[None], -np.inf, limit),
        ],
        options={"mip_rel_gap": _GAP, "time_limit": _SECONDS},
    )
    if found.x is None:
        return None
    firsts = np.cumsum([0, *lengths[:-1]])
    return np.array([int(found.x[a : a + n].argmax()) for a, n in zip(firsts, lengths, strict=True)], dtype=np.int64)


def solved(charge: Charge, losses: Sequence[FloatArray], start: IntArray, target: float) -> IntArray | None:
    """The state of shape (G,) with the least sum of losses that was found at a cost of at most ``target``.

    Args:
        charge: what states cost, and the ladders.
        losses: of the rungs of each gate's ladder.
        start: the state around which costs are taken as linear first.
        target: the cost.

    Returns:
        None where none was found.
    """
    best, least, state, limit = None, np.inf, start, target
    for _ in range(_ROUNDS):
        base = float(charge.of(state[None])[0])
        chosen = best_choice(losses, _costs_around(charge, state, base), limit - base)
        if chosen is None:
            break
        state = np.array([ladder[rung] for ladder, rung in zip(charge.ladders, chosen, strict=True)], dtype=np.int64)
        state = charge.canonical(state[None])[0]
        cost = float(charge.of(state[None])[0])
        loss = float(sum(one[rung] for one, rung in zip(losses, chosen, strict=True)))
        if cost <= target and loss < least:
            best, least = state, loss
        # What the costs of several gates together differ from their sum by, the next round allows for.
        limit = target if abs(cost - target) <= _GAP * target else max(limit + _STEP * (target - cost), _STEP * target)
    return best


def _costs_around(charge: Charge, state: IntArray, base: float) -> list[FloatArray]:
    """What each rung of each ladder costs more than the state, all other gates as they are."""
    ladders = charge.ladders
    rows = np.repeat(state[None], sum(len(ladder) for ladder in ladders), axis=0)
    gates = np.repeat(np.arange(len(ladders)), [len(ladder) for ladder in ladders])
    rows[np.arange(len(rows)), gates] = np.concatenate(ladders)
    return np.split(charge.of(rows) - base, np.cumsum([len(ladder) for ladder in ladders])[:-1])
