from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.errors import InputError, UnknownName
from fn3hw.space import Gate, SearchSpace
from tests.networks import spaces, subnets


@given(st.data())
def test_subnet_ids_read_back(data: st.DataObject) -> None:
    space = data.draw(spaces())
    subnet = data.draw(subnets(space))
    assert space.parse(subnet.id) == subnet


@given(st.data())
def test_equal_ids_mean_equal_subnets(data: st.DataObject) -> None:
    space = data.draw(spaces())
    one, two = data.draw(subnets(space)), data.draw(subnets(space))
    assert (one.id == two.id) == (one == two) == (hash(one) == hash(two) and one == two)


@given(st.data())
def test_random_subnets_are_within_the_space(data: st.DataObject) -> None:
    space = data.draw(spaces())
    subnet = data.draw(subnets(space))
    for gate in space:
        assert gate.min_kept <= subnet.counts[gate.name] <= gate.size
        assert space.masks(subnet)[gate.name].sum() == subnet.counts[gate.name] == len(subnet.blocks(gate.name))


@given(spaces())
def test_a_space_reads_back_from_json(space: SearchSpace) -> None:
    again = SearchSpace.from_json(space.to_json())
    assert again == space and again.digest == space.digest


@given(spaces())
def test_full_and_smallest_are_the_bounds(space: SearchSpace) -> None:
    assert space.full().counts == {gate.name: gate.size for gate in space}
    assert space.smallest().counts == {gate.name: gate.min_kept for gate in space}
    assert space.full().is_prefix and space.smallest().is_prefix


def test_counts_are_uniform_over_the_allowed_range() -> None:
    space = SearchSpace([Gate("g", "channel", 4, 2)])
    rng = np.random.default_rng(0)
    counts = [space.random(rng, prefix=True).counts["g"] for _ in range(3000)]
    shares = np.bincount(counts, minlength=5)[2:] / 3000
    assert np.abs(shares - 1 / 3).max() < 0.04


def test_keep_probability_is_the_papers_beta() -> None:
    gate = Gate("g", "channel", 4)
    assert [gate.keep_probability(m) for m in range(4)] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("text", ["3", "3-x-1", "3-1-1-1", "", "99-1-1", "x3-1-1", "-1-1-1"])
def test_ids_that_are_not_canonical_are_refused(text: str) -> None:
    space = SearchSpace([Gate("a", "channel", 8), Gate("b", "channel", 8), Gate("c", "layer", 2, 0)])
    with pytest.raises(InputError):
        space.parse(text)


def test_wrong_counts_and_names_are_refused() -> None:
    space = SearchSpace([Gate("features.0", "channel", 8, 2)])
    for count in (1, 9, 2.5):
        with pytest.raises(InputError, match="whole numbers from 2 to 8"):
            space.from_counts({"features.0": count})  # type: ignore[dict-item]
    with pytest.raises(UnknownName, match=r"did you mean 'features\.0'"):
        space.from_counts({"feature.0": 3})
    with pytest.raises(InputError, match="blocks 0 to 7"):
        space.from_blocks({"features.0": [1, 8]})


def test_a_subnet_of_another_space_is_refused() -> None:
    one, two = SearchSpace([Gate("a", "channel", 8)]), SearchSpace([Gate("b", "channel", 8)])
    smaller = SearchSpace([Gate("a", "channel", 4)])
    for other in (two, smaller):
        with pytest.raises(InputError, match="another search space"):
            other.masks(one.full())


def test_gate_names_must_differ() -> None:
    with pytest.raises(InputError, match="used twice: a"):
        SearchSpace([Gate("a", "channel", 8), Gate("a", "channel", 4)])
