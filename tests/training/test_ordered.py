from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace
from fn3hw.training.ordered import sample, step_passes
from fn3hw.training.recipe import Sampling

SPACE = SearchSpace([Gate("a", "channel", 8, 2), Gate("b", "neuron", 5, 1), Gate("c", "layer", 3, 0)])
samplings = st.builds(
    Sampling,
    full=st.just(True),
    smallest=st.booleans(),
    random=st.integers(1, 3),
    distill=st.booleans(),
    drop=st.dictionaries(st.sampled_from(["channel", "layer"]), st.floats(0, 1)),
)


@settings(deadline=None)
@given(samplings, st.integers(0, 2**40), st.integers(0, 2**40))
def test_passes_are_ordered_subnets_of_the_space_and_depend_on_seed_and_step_alone(
    sampling: Sampling, seed: int, step: int
) -> None:
    passes = list(step_passes(SPACE, sampling, seed=seed, step=step))
    assert passes == list(step_passes(SPACE, sampling, seed=seed, step=step))
    assert [p.is_full for p in passes] == [True] + [False] * (sampling.smallest + sampling.random)
    assert passes[0].subnet == SPACE.full() and passes[0].from_labels
    assert all(p.from_labels is not sampling.distill for p in passes[1:])
    for p in passes:
        assert p.subnet.is_prefix
        assert all(g.min_kept <= p.subnet.counts[g.name] <= g.size for g in SPACE)
    if sampling.smallest:
        assert passes[1].subnet == SPACE.smallest()


def test_counts_are_uniform_over_the_allowed_range() -> None:
    sampling, draws = Sampling(), 4000
    kept = [next(step_passes(SPACE, sampling, seed=1, step=step)).subnet.counts for step in range(draws)]
    for gate in SPACE:
        allowed = range(gate.min_kept, gate.size + 1)
        frequency = np.bincount([counts[gate.name] for counts in kept], minlength=gate.size + 1) / draws
        # Five standard deviations of a binomial share.
        expected = 1 / len(allowed)
        assert frequency[list(allowed)] == pytest.approx(expected, abs=5 * (expected / draws) ** 0.5)
        assert frequency.sum() == pytest.approx(frequency[list(allowed)].sum())


def test_uniform_subnets_keep_one_share_of_every_gate() -> None:
    shares = []
    for step in range(300):
        counts = next(step_passes(SPACE, Sampling(uniform=True), seed=1, step=step)).subnet.counts
        share = np.array([(counts[g.name] - g.min_kept) / (g.size - g.min_kept) for g in SPACE])
        step_size = np.array([1 / (g.size - g.min_kept) for g in SPACE])
        assert np.ptp(share) <= step_size.max()
        shares.append(share.mean())
    assert np.quantile(shares, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.12)


def test_gates_are_drawn_independently() -> None:
    kept = [next(step_passes(SPACE, Sampling(), seed=2, step=step)).subnet.counts for step in range(4000)]
    table = np.array([[counts[gate.name] for gate in SPACE] for counts in kept])
    assert np.corrcoef(table.T)[np.triu_indices(3, 1)] == pytest.approx(0.0, abs=0.08)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_drop_is_the_probability_that_a_gate_of_the_level_is_sampled(probability: float) -> None:
    rng = np.random.default_rng(3)
    sampling = Sampling(drop={"layer": probability})
    whole = np.mean([sample(SPACE, sampling, rng).counts["c"] == 3 for _ in range(3000)])
    # A sampled gate of four allowed counts is whole by chance in a quarter of the draws.
    assert whole == pytest.approx(1 - probability * 0.75, abs=0.05)


def test_plain_training_runs_the_full_network_alone() -> None:
    passes = list(step_passes(SPACE, Sampling(ordered=False), seed=0, step=0))
    assert [(p.subnet, p.from_labels, p.is_full) for p in passes] == [(SPACE.full(), True, True)]
