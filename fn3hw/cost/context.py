"""Contexts: what a unit's time depends on besides its own widths.

Where integers follow floats, numbers are converted; where a branch is gone, what it shared with others is fused in
another way, or no more; where all of a stage's branches are gone, what comes before meets what comes after. Each of
these costs the units at the border about a constant. Which conditions matter is found from the measured kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fn3hw.cost.state import Encoder, States

_FEWEST = 2
"""A context is asked for only where that many of a unit's subnets are in it and as many are not."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A yes-or-no question about a subnet.

    Args:
        kind: ``"bits"``: whether a bit gate has the count; ``"stage"``: whether any branch of a layer gate is there;
            ``"branch"``: whether one branch is.
        column: of the gate in `States.counts`, or of the branch in `States.branches`.
        count: of the bit gate.
        negated: whether the answer has to be no.
    """

    kind: Literal["bits", "stage", "branch"]
    column: int
    count: int = 0
    negated: bool = False

    def holds(self, states: States) -> NDArray[np.bool_]:
        """The answers for n subnets, shape (n,)."""
        if self.kind == "branch":
            answers = states.branches[:, self.column]
        elif self.kind == "stage":
            answers = states.counts[:, self.column] > 0
        else:
            answers = states.counts[:, self.column] == self.count
        return np.asarray(answers != self.negated, dtype=np.bool_)


Context = tuple[Condition, ...]
"""Conditions that hold together."""


def conditions(encoder: Encoder) -> tuple[Condition, ...]:
    """All that may be asked about subnets of a space, each question and its negation."""
    space, column = encoder.space, encoder.column
    asked = [Condition("bits", column[gate.name], gate.size) for gate in space if gate.level == "bit"]
    asked += [Condition("stage", column[g.name]) for g in space if g.level == "layer" and g.size > 1 and not g.min_kept]
    asked += [Condition("branch", number) for number in range(len(encoder.branches))]
    return tuple(Condition(one.kind, one.column, one.count, negated) for one in asked for negated in (False, True))


class Contexts:
    """The contexts of one or two conditions that measured subnets show.

    Args:
        asked: the conditions.
        states: the measured subnets, n of them.
    """

    def __init__(self, asked: Sequence[Condition], states: States) -> None:
        found: dict[bytes, Context] = {}
        columns: list[NDArray[np.bool_]] = []
        held = [one.holds(states) for one in asked]
        singles: list[tuple[Context, NDArray[np.bool_]]] = [
            ((one,), holds) for one, holds in zip(asked, held, strict=True)
        ]
        pairs: list[tuple[Context, NDArray[np.bool_]]] = [
            ((asked[a], asked[b]), held[a] & held[b]) for a, b in combinations(range(len(asked)), 2)
        ]
        for context, holds in (*singles, *pairs):
            if holds.tobytes() not in found:  # of those that hold alike, the first is the simplest
                found[holds.tobytes()] = context
                columns.append(holds)
        self.contexts = list(found.values())
        self.matrix = np.array(columns).T if columns else np.zeros((len(states), 0), dtype=bool)

    def likely(self, present: NDArray[np.bool_], residual: NDArray[np.float64], few: int) -> list[Context]:
        """The contexts that best explain why a unit takes longer than predicted.

        Args:
            present: which subnets have the unit, shape (n,).
            residual: measured less predicted time there, relative to latency, shape (present.sum(),).
            few: how many to name, at most.
        """
        held = self.matrix[present].astype(np.float64)
        inside = held.sum(axis=0)
        usable = (inside >= _FEWEST) & (len(held) - inside >= _FEWEST)
        off = held - held.mean(axis=0)
        size = np.sqrt((off**2).sum(axis=0))
        score = np.where(usable, (off.T @ (residual - residual.mean())) / np.where(size > 0, size, 1.0), -np.inf)
        best = np.argsort(-score, kind="stable")[:few]
        return [self.contexts[k] for k in best if score[k] > 0]
