from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from fn3hw.training.optimising import learning_rate, make_optimiser
from tests.training.conftest import make_recipe


def test_cosine_rises_linearly_and_falls_to_zero() -> None:
    recipe = make_recipe(epochs=10, warm_up=2, learning_rate=0.4)
    rates = [learning_rate(recipe, step, 5) for step in range(50)]
    assert rates[:10] == pytest.approx([0.04 * k for k in range(1, 11)])
    assert max(rates) == 0.4 and all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] < 0.001


def test_steps_scale_the_rate_at_their_epochs() -> None:
    recipe = make_recipe(schedule="step", step_epochs=2, step_factor=0.5, epochs=6, learning_rate=1.0)
    assert [learning_rate(recipe, step, 1) for step in range(6)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_steps_at_given_epochs() -> None:
    recipe = make_recipe(schedule="step", step_at=[2, 3], step_factor=0.1, epochs=5, learning_rate=1.0)
    assert [learning_rate(recipe, step, 1) for step in range(5)] == pytest.approx([1.0, 1.0, 0.1, 0.01, 0.01])


def test_step_sizes_of_quantizers_do_not_decay() -> None:
    net = nn.Module()
    net.weight, net.step = nn.Parameter(torch.ones(3)), nn.Parameter(torch.tensor(1.0))
    groups = make_optimiser(net, make_recipe(weight_decay=0.5)).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.5), (1, 0.0)]


def test_constant_stays() -> None:
    recipe = make_recipe(schedule="constant", learning_rate=0.3)
    assert {learning_rate(recipe, step, 4) for step in range(12)} == {0.3}
