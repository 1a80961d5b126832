"""Costs that are looked up are the costs that are computed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fn3hw.cost import CostModel, fit_cost, tables
from fn3hw.profiler import Profile
from tests.cost.quantized import integer_kernels
from tests.cost.quantized import profile as quantized_profile

PROFILES = Path(__file__).parents[2] / "profiles"


@cache
def model(name: str) -> CostModel:
    """Fitted once: on a real profile with branches and bits, or on a synthetic one."""
    if name == "synthetic":
        return fit_cost(quantized_profile(integer_kernels))
    return fit_cost(Profile.read(PROFILES / "amd-epyc-x86-64" / f"{name}.json"))


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(("synthetic", "mobilenet_small-1-thread", "resnext29-1-thread")),
    seed=st.integers(0, 2**32 - 1),
)
def test_costs_on_ladders_are_those_of_the_counts(name: str, seed: int) -> None:
    cost, rng = model(name), np.random.default_rng(seed)
    ladders = []
    for gate in cost.space:
        counts = np.arange(gate.min_kept, gate.size + 1)
        ladders.append(rng.permutation(counts)[: rng.integers(1, 6)])
    rungs = np.stack([rng.integers(len(ladder), size=20) for ladder in ladders], axis=1)
    counts = np.stack([ladder[column] for ladder, column in zip(ladders, rungs.T, strict=True)], axis=1)
    look_up = cost.on_ladders(ladders)
    assert look_up is not None
    np.testing.assert_allclose(look_up(rungs), cost.costs(counts), rtol=1e-9)


def test_tables_that_would_be_too_large_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = model("synthetic")
    ladders = [np.arange(gate.size, gate.min_kept - 1, -1) for gate in cost.space]
    monkeypatch.setattr(tables, "MOST", 1)
    assert cost.on_ladders(ladders) is None


def test_where_no_gate_moves_there_is_one_state_to_look_up() -> None:
    cost = model("synthetic")
    sizes = np.array([gate.size for gate in cost.space])
    look_up = cost.on_ladders([np.array([size]) for size in sizes])
    assert look_up is not None
    none = np.zeros((1, len(sizes)), dtype=np.int64)
    np.testing.assert_allclose(look_up(none), cost.costs(sizes[None]), rtol=1e-9)
