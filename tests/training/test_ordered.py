from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.space import Gate, SearchSpace
from fn3hw.training.ordered import sample, step_passes
from fn3hw.training.recipe import Sampling
from tests.networks import spaces


@given(spaces(), st.integers(0, 2**32 - 1))
def test_samples_are_ordered_and_within_the_space(space: SearchSpace, seed: int) -> None:
    subnet = sample(space, Sampling(), np.random.default_rng(seed))
    assert subnet.is_prefix
    assert all(gate.min_kept <= subnet.counts[gate.name] <= gate.size for gate in space)


def test_a_level_can_be_sampled_less_often() -> None:
    space = SearchSpace([Gate("a", "channel", 50), Gate("b", "layer", 1, 0)])
    rng = np.random.default_rng(0)
    counts = [sample(space, Sampling(drop={"layer": 0.2}), rng).counts["b"] for _ in range(4000)]
    assert abs(np.mean(counts) - 0.9) < 0.02


def test_passes_of_a_step() -> None:
    space, rng = SearchSpace([Gate("a", "channel", 50)]), np.random.default_rng(0)

    def kinds(**options: object) -> list[tuple[bool, bool]]:
        return [(p.is_full, p.from_labels) for p in step_passes(space, Sampling.model_validate(options), rng)]

    assert kinds(ordered=False) == [(True, True)]
    assert kinds() == [(False, True)]
    assert kinds(full=True) == [(True, True), (False, True)]
    assert kinds(full=True, distill=True) == [(True, True), (False, False)]
    assert kinds(full=True, smallest=True, random=2, distill=True) == [(True, True), *[(False, False)] * 3]
    sandwich = list(step_passes(space, Sampling(full=True, smallest=True), rng))
    assert (sandwich[0].subnet, sandwich[1].subnet) == (space.full(), space.smallest())
