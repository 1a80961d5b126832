"""Properties of the methods that learn by gradients: HAQ, MnasNet and ProxylessNAS."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from fn3hw.baselines.methods import Task
from fn3hw.baselines.methods.haq import GatesEnv
from fn3hw.baselines.methods.mnasnet import soft_reward
from fn3hw.baselines.methods.policy import RungPolicy
from fn3hw.baselines.methods.proxylessnas import expected_cost, rung_costs

from .toy import BUDGETS, CHARGE, play

TASK = Task(charge=CHARGE, budgets=BUDGETS, evaluations=10)


@pytest.mark.parametrize("budget", [*BUDGETS, 9.0])
def test_haq_meets_the_budget_with_any_actions(budget: float) -> None:
    env, rng = GatesEnv(TASK, budget), np.random.default_rng(0)
    for actions in [np.zeros(5), np.ones(5), *rng.random((20, 5))]:
        seen, _ = env.reset()
        for action in actions:
            assert env.observation_space.contains(seen)
            seen, _, over, _, _ = env.step(np.array([action]))
        assert over
        assert (CHARGE.of(env.states) <= budget).all()


def test_haq_lowers_gates_one_after_the_other_from_the_last() -> None:
    env = GatesEnv(TASK, 61.0)
    assert CHARGE.of(np.array([[8, 8, 8, 7, 7]]))[0] <= 61.0
    assert env.clipped(np.zeros(5, dtype=np.int64)).tolist() == [[8, 8, 8, 7, 7]]
    assert GatesEnv(TASK, 56.0).clipped(np.zeros(5, dtype=np.int64)).tolist() == [[7, 7, 7, 7, 6]]
    assert env.clipped(np.full(5, 2)).tolist() == [[6, 6, 6, 6, 6]], "what meets the budget stays"


def test_haq_leaves_the_global_random_numbers_alone() -> None:
    def numbers() -> tuple[float, ...]:
        return random.random(), float(np.random.random()), float(torch.rand(1))

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = numbers()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    play("haq", 30)
    assert numbers() == expected


def test_the_soft_reward_falls_with_cost_and_is_the_accuracy_on_target() -> None:
    rewards = soft_reward(np.full(3, 80.0), np.array([10.0, 20.0, 40.0]), 20.0)
    assert rewards[1] == pytest.approx(0.8)
    assert (np.diff(rewards) < 0).all()
    assert rewards[2] == pytest.approx(0.8 * 0.95, rel=0.01), "twice the cost is worth 5 % of the accuracy"


def test_the_expected_cost_is_right_where_the_rungs_are_certain() -> None:
    mode = np.array([0, 3, 7, 1, 2])
    one_hot = torch.nn.functional.one_hot(torch.as_tensor(mode), 8).double()
    expected = expected_cost(one_hot, rung_costs(TASK, mode), mode)
    assert float(expected) == pytest.approx(CHARGE.of(TASK.rungs(mode[None]))[0])


def test_the_expected_cost_of_a_linear_model_is_exact_and_its_gradient_lowers_it() -> None:
    policy = RungPolicy(TASK.n_rungs, rate=0.1, betas=(0.0, 0.999), seed=0)
    costs = rung_costs(TASK, policy.mode)
    before = expected_cost(policy.log_probabilities.exp(), costs, policy.mode)
    drawn = CHARGE.of(TASK.rungs(policy.draw(4000))).mean()
    assert float(before.detach()) == pytest.approx(drawn, rel=0.02)
    mode = policy.mode
    policy.descend(before)
    assert float(expected_cost(policy.log_probabilities.exp(), costs, mode).detach()) < float(before.detach())
