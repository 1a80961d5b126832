from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fn3hw.errors import InputError
from fn3hw.profiler.plan import holdout, plan
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace

SPACE = SearchSpace(
    [Gate("a", "channel", 96, 24), Gate("b", "channel", 384, 1), Gate("on", "layer", 1, 0), Gate("c", "neuron", 64, 1)]
)
gates = st.builds(
    lambda level, size, kept: (level, size, min(kept, size)),
    st.sampled_from(["channel", "layer", "neuron"]), st.integers(1, 70), st.integers(0, 70),
)  # fmt: skip
spaces = st.lists(gates, max_size=5).map(lambda gs: SearchSpace(Gate(f"g{i}", *g) for i, g in enumerate(gs)))


@settings(max_examples=50, deadline=None)
@given(spaces, st.integers(2, 25), st.integers(0, 5))
def test_a_plan_is_of_this_space_different_deterministic_and_has_both_ends(
    space: SearchSpace, n: int, seed: int
) -> None:
    subnets = plan(space, n, seed=seed)
    assert subnets == plan(space, n, seed=seed)
    assert len(set(subnets)) == len(subnets) <= n
    assert {space.full(), space.smallest()} <= set(subnets)
    for subnet in subnets:
        space.check(subnet)
        assert all(subnet.counts[g.name] >= g.min_kept for g in space)
    tests = holdout(space, 10, seed=seed, exclude=subnets)
    assert len(set(tests)) == len(tests) <= 10
    assert not set(tests) & set(subnets)


@pytest.mark.parametrize("gate", ["a", "b", "c"])
def test_each_gate_alone_sees_its_range_and_every_alignment(gate: str) -> None:
    counts = np.array([s.counts[gate] for s in plan(SPACE, 20)])
    size, kept = SPACE[gate].size, SPACE[gate].min_kept
    thirds = np.histogram(counts, bins=3, range=(kept, size))[0]
    assert thirds.min() >= 3
    odd, twice, four, eight = ((counts % 2 != 0), (counts % 4 == 2), (counts % 8 == 4), (counts % 8 == 0))
    assert min(odd.sum(), twice.sum(), four.sum(), eight.sum()) >= 2
    assert 0.35 <= (counts % 4 != 0).mean() <= 0.65


def test_branches_are_on_and_off_and_gates_are_hardly_correlated() -> None:
    table = np.array([list(s.counts.values()) for s in plan(SPACE, 20)])
    assert 0.5 < table[:, 2].mean() < 0.95
    assert np.abs(np.corrcoef(table[2:], rowvar=False) - np.eye(4)).max() < 0.5


def test_a_space_with_few_subnets_gives_them_all() -> None:
    tiny = SearchSpace([Gate("a", "channel", 3, 1)])
    assert {s.counts["a"] for s in plan(tiny, 20)} == {1, 2, 3}


def test_a_plan_of_one_is_bad_input() -> None:
    with pytest.raises(InputError):
        plan(SPACE, 1)
