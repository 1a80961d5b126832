"""The knapsack's answers are the best ones: compared with all choices, where they can be counted."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fn3hw.searcher import Charge
from fn3hw.searcher.knapsack import best_choice, solved

from .synthetic import SyntheticCost, make_space


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 4), min_size=1, max_size=5), st.floats(0.0, 1.2))
def test_no_choice_within_the_limit_loses_less(seed: int, lengths: list[int], place: float) -> None:
    rng = np.random.default_rng(seed)
    losses, costs = ([rng.random(n) for n in lengths] for _ in range(2))
    limit = place * sum(float(one.max()) for one in costs)
    every = [
        (sum(one[i] for one, i in zip(losses, choice, strict=True)), choice)
        for choice in product(*(range(n) for n in lengths))
        if sum(one[i] for one, i in zip(costs, choice, strict=True)) <= limit
    ]
    found = best_choice(losses, costs, limit)
    if not every:
        assert found is None
    else:
        assert found is not None
        assert sum(one[i] for one, i in zip(costs, found, strict=True)) <= limit + 1e-6
        least = min(every)[0]
        assert sum(one[i] for one, i in zip(losses, found, strict=True)) <= least + 2e-3 * max(least, 1e-3) + 1e-6


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_what_is_solved_meets_the_target_and_comes_near_it(seed: int, place: float) -> None:
    space = make_space(4)
    charge = Charge(space, SyntheticCost(space))
    rng = np.random.default_rng(seed)
    losses = [np.cumsum(rng.random(len(ladder))) for ladder in charge.ladders]
    high, low = charge.of(np.stack([charge.sizes, charge.bottom]))
    target = float(low * (high / low) ** place)
    found = solved(charge, losses, charge.sizes, target)
    assert found is not None
    assert charge.of(found[None])[0] <= target
    assert all(count in ladder for count, ladder in zip(found, charge.ladders, strict=True))
