"""A small problem whose answers are known: five gates of eight blocks, every subnet enumerated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from fn3hw.baselines.methods import Task, find_method
from fn3hw.searcher import Charge
from fn3hw.searcher.ledger import first_seen
from fn3hw.searcher.ports import FloatArray, IntArray
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace, Subnet

SPACE = SearchSpace([Gate(f"layer{g}", "channel", 8, 1) for g in range(5)])
WEIGHTS = np.array([1.0, 2.0, 0.5, 3.0, 1.5])
"""Cost per block."""
SENSITIVE = np.array([4.0, 1.0, 3.0, 0.5, 2.0])
"""What removing a gate's blocks costs in accuracy: the dear gates are the ones that are needed least."""


class Cost:
    """Linear in the counts."""

    def predict(self, subnets: Sequence[Subnet]) -> pd.DataFrame:
        counts = np.array([list(subnet.counts.values()) for subnet in subnets], dtype=float)
        latency = 1.0 + counts @ WEIGHTS
        names = ("latency_ms", "latency_ms_low", "latency_ms_high", "peak_mib", "size_mib")
        return pd.DataFrame(dict.fromkeys(names, latency), index=[subnet.id for subnet in subnets])


CHARGE = Charge(SPACE, Cost(), "latency")
EVERY = np.array(list(product(range(1, 9), repeat=5)), dtype=np.int64)
BUDGETS = (50.0, 35.0, 20.0)


def accuracy(states: IntArray) -> FloatArray:
    removed = (8 - states) / 8
    return np.asarray(90.0 - 8 * (removed**2) @ SENSITIVE - 4 * removed[:, 0] * removed[:, 2])


ACCURACY, COST = accuracy(EVERY), CHARGE.of(EVERY)
BEST = np.array([ACCURACY[budget >= COST].max() for budget in BUDGETS])


class Desk:
    """Evaluates the toy problem and keeps books."""

    def __init__(self, evaluations: int) -> None:
        self.budget = self.left = evaluations
        self.known: dict[bytes, tuple[IntArray, float]] = {}

    @property
    def spent(self) -> int:
        return self.budget - self.left

    @property
    def states(self) -> IntArray:
        return np.array([state for state, value in self.known.values() if value == value]).reshape(-1, 5)

    @property
    def accuracies(self) -> FloatArray:
        return np.array([value for _, value in self.known.values() if value == value])

    def is_new(self, states: IntArray) -> list[bool]:
        return first_seen(states, self.known)

    def evaluate(self, states: IntArray) -> None:
        for state, value in zip(states, accuracy(states), strict=True):
            if state.tobytes() not in self.known and self.left > 0:
                self.known[state.tobytes()] = state, float(value)
                self.left -= 1

    @property
    def regret(self) -> float:
        """Points below the best subnet, mean over the budgets; 50 points where a budget is not met."""
        cost = CHARGE.of(self.states)
        found = [self.accuracies[cost <= budget].max(initial=40.0) for budget in BUDGETS]
        return float(np.mean(BEST - found))


def play(name: str, evaluations: int, *, seed: int = 0) -> Desk:
    """A method at the toy problem."""
    desk = Desk(evaluations)
    find_method(name)(Task(charge=CHARGE, budgets=BUDGETS, evaluations=evaluations, seed=seed)).run(desk)
    return desk
