from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.cost.context import Condition, Contexts, conditions
from fn3hw.cost.state import Encoder
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace, Subnet

SPACE = SearchSpace(
    [Gate("a", "channel", 8, 2), Gate("stage", "layer", 2, 0), Gate("kept", "layer", 1, 1), Gate("bits", "bit", 4, 1)]
)
ENCODER = Encoder(SPACE)
ASKED = conditions(ENCODER)


def subnets(n: int, seed: int) -> list[Subnet]:
    rng = np.random.default_rng(seed)
    return [SPACE.full(), SPACE.smallest(), *(SPACE.random(rng) for _ in range(n))]


@given(st.integers(0, 50))
def test_a_condition_is_about_full_precision_a_stage_or_a_branch(seed: int) -> None:
    chosen = subnets(6, seed)
    states = ENCODER.encode(chosen)
    answers = {
        "bits": [one.counts["bits"] == 4 for one in chosen],
        "stage": [one.counts["stage"] > 0 for one in chosen],
        "branch": [0 in one.blocks("stage") for one in chosen],
    }
    assert {one.kind for one in ASKED} == set(answers)
    for one in ASKED:
        if one.kind != "branch" or one.column == 0:
            assert one.holds(states).tolist() == [answer != one.negated for answer in answers[one.kind]]


def test_contexts_that_hold_alike_are_one_and_the_simplest_explains() -> None:
    states = ENCODER.encode(subnets(30, 0))
    contexts = Contexts(ASKED, states)
    assert len({column.tobytes() for column in contexts.matrix.T}) == len(contexts.contexts)
    gone = Condition("stage", ENCODER.column["stage"], negated=True)
    everywhere = np.ones(len(states), dtype=bool)
    likely = contexts.likely(everywhere, 0.1 * gone.holds(states), few=3)
    assert likely[0] == (gone,) and len(likely) <= 3
    assert contexts.likely(everywhere, np.zeros(len(states)), few=3) == []
    assert Contexts((), states).likely(everywhere, 0.1 * gone.holds(states), few=3) == []
