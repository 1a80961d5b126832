"""Walks down the ladders, on a device and a network that are known."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fn3hw.searcher.candidates import Walker
from fn3hw.searcher.charge import Charge
from fn3hw.searcher.surrogate import Surrogate
from fn3hw.space import Gate, SearchSpace

from .synthetic import SyntheticCost, make_space

SPACE = SearchSpace(gate for gate in make_space() if gate.level == "channel")
CHARGE = Charge(SPACE, SyntheticCost(SPACE))
WALKER = Walker(CHARGE)
FULL, LOW = (float(cost) for cost in CHARGE.of(np.stack([CHARGE.sizes, CHARGE.bottom])))
seeds = st.integers(0, 2**32 - 1)


def starts(rng: np.random.Generator, n: int = 6) -> np.ndarray:  # type: ignore[type-arg]
    """Random states on the ladders."""
    return np.stack([ladder[rng.integers(len(ladder), size=n)] for ladder in CHARGE.ladders], axis=1)


def surrogate(rng: np.random.Generator) -> Surrogate:
    removed = rng.random((12, len(SPACE.gates)))
    return Surrogate(removed, 90 - 20 * removed.mean(axis=1) + rng.normal(0, 0.1, 12))


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0.02, 1.0))
def test_walks_only_go_down_and_meet_their_target(seed: int, place: float) -> None:
    rng = np.random.default_rng(seed)
    target, begin = LOW + place * (FULL - LOW), starts(rng)
    for found in (
        WALKER.random(begin, target, CHARGE.bottom, rng),
        WALKER.guided(begin, target, surrogate(rng), rng),
        WALKER.guided(begin, target, surrogate(rng), rng, around=begin[::-1]),
    ):
        assert len(found) == len(begin)
        assert (CHARGE.of(found) <= target).all()
        assert (found <= begin).all() and (found >= CHARGE.bottom).all()
        there = CHARGE.of(begin) <= target
        assert (found[there] == begin[there]).all()


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0.2, 0.9))
def test_random_walks_stay_above_their_floor_or_are_left_out(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    floor = np.maximum((share * CHARGE.sizes).astype(np.int64), CHARGE.bottom)
    found = WALKER.random(np.repeat(CHARGE.sizes[None], 8, axis=0), LOW + 0.5 * (FULL - LOW), floor, rng)
    assert (found >= floor).all()


@given(st.floats(0.02, 1.0))
@settings(max_examples=30, deadline=None)
def test_a_walk_of_one_gate_stops_at_the_first_count_that_meets_the_target(place: float) -> None:
    space = SearchSpace([Gate("branch0.hidden", "channel", 128, 8)])
    charge = Charge(space, SyntheticCost(space))
    (ladder,) = charge.ladders
    costs = charge.of(ladder[:, None])
    target = float(costs[-1] + place * (costs[0] - costs[-1]))
    found = Walker(charge).random(charge.sizes[None], target, charge.bottom, np.random.default_rng(0))
    assert found.item() == ladder[np.flatnonzero(costs <= target)[0]]


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0.0, 1.0))
def test_undone_moves_raise_states_along_their_ladders(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    begin = starts(rng)
    raised = WALKER.raised(begin, rng, share)
    assert (raised >= begin).all() and (raised <= CHARGE.sizes).all()
    assert all(count in ladder for column, ladder in zip(raised.T, CHARGE.ladders, strict=True) for count in column)
    np.testing.assert_array_equal(WALKER.raised(begin, rng, 0.0), begin)
    np.testing.assert_array_equal(WALKER.raised(begin, rng, 1.0), np.repeat(CHARGE.sizes[None], len(begin), axis=0))


def test_no_walk_starts_from_nothing() -> None:
    rng = np.random.default_rng(0)
    none = np.empty((0, len(SPACE.gates)), dtype=np.int64)
    assert not len(WALKER.random(none, LOW, CHARGE.bottom, rng))
    assert not len(WALKER.guided(none, LOW, surrogate(rng), rng))
