"""Reinforcement learning as in HAQ: an agent sets gate after gate, and learns what that did to the accuracy.

The agent is DDPG with a continuous action per gate, its place on the ladder. What it sees describes the gate, its share
of the cost, and what is still to be saved. Where all gates together miss the budget, they are lowered one after the
other, a rung each, until it is met. The reward, the accuracy lost times 0.1, goes to every action of the episode, less
a moving average of it; nothing is discounted (HAQ: Hardware-Aware Automated Quantization with Mixed Precision, Wang et
al., 2019, sec. 3; before it AMC: AutoML for Model Compression, He et al., 2018, sec. 3). As there: two hidden layers of
300, batches of 64, τ = 0.01, and noise from a normal distribution truncated to [0, 1] whose σ decays from 0.5 by 0.99
per episode.

What differs, as there are tens to hundreds of episodes per budget here, not 600:

- The agent acts at random for 20 episodes as there, but for half of them at most.
- An episode is followed by a fixed number of updates, not by one per gate: that keeps an episode at tens of
  milliseconds whatever the number of gates, well below what an evaluation takes.
- Actor and critic learn at the critic's rate, 0.001: stable-baselines3 has one rate, and with the actor's, a tenth of
  it, so few updates would hardly move the actor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from scipy.special import ndtr, ndtri
from stable_baselines3 import DDPG
from stable_baselines3.common.logger import Logger

from fn3hw.baselines.methods.budgeted import Budgeted
from fn3hw.baselines.methods.port import Proposals, Task
from fn3hw.searcher.ports import FloatArray, IntArray
from fn3hw.space.gate import LEVELS

_SCALE = 0.1
_NOISE = 0.5
_NOISE_DECAY = 0.99
_WARM_UP = 20
_UPDATES = 2
_BATCH = 64
_BASELINE_DECAY = 0.9
_REPLAYED = 128
"""Episodes that the replay buffer holds."""

Transition = tuple[FloatArray, FloatArray, float, bool]
"""What was seen, what was seen next, the action, and whether the episode ended with it."""


class GatesEnv(gymnasium.Env[Any, Any]):
    """An episode sets each gate that moves, in the order of the space; `states` is then what is proposed.

    Its rewards are zero: the accuracy is not known when the episode ends.

    Args:
        task: what is searched for.
        budget: the cost that is met at the end of every episode.
    """

    def __init__(self, task: Task, budget: float) -> None:
        self._task = task
        self._budget = budget
        self._moving = np.flatnonzero(task.n_rungs > 1)
        self._full = float(task.charge.of(task.charge.sizes[None])[0])
        self._savings = self._saved_by_rung()
        self._gates = self._described()
        self._actions: list[float] = []
        self.observation_space = Box(0.0, 1.0, (self._gates.shape[1] + 3,), np.float32)
        self.action_space = Box(0.0, 1.0, (1,), np.float32)

    @property
    def length(self) -> int:
        """Actions per episode."""
        return len(self._moving)

    @property
    def states(self) -> IntArray:
        """The state that the finished episode ended with, shape (1, G)."""
        places = np.zeros(self._task.n_gates)
        places[self._moving] = self._actions
        return self.clipped(np.rint(places * (self._task.n_rungs - 1)).astype(np.int64))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Begin an episode with all gates whole."""
        super().reset(seed=seed)
        self._actions = []
        return self._observation(), {}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Set the next gate to a place on its ladder."""
        self._actions.append(float(np.clip(action, 0.0, 1.0).item()))
        return self._observation(), 0.0, len(self._actions) == self.length, False, {}

    def clipped(self, rungs: IntArray) -> IntArray:
        """The state at rungs (G,), lowered until the budget is met; shape (1, G).

        Each gate in turn goes down a rung, from the last gate to the first, and again from the last.
        """
        last = self._task.n_rungs - 1
        rounds = np.minimum(rungs + np.arange(last.max() + 1)[:, None], last)
        done = int(np.argmax(self._meets(rounds)))
        if done == 0:
            return self._task.rungs(rounds[:1])
        # Within the round that first meets the budget: the last gates are lowered, the others not yet.
        lowered = np.tri(len(rungs), dtype=bool)[:, ::-1]
        steps = np.where(lowered, rounds[done], rounds[done - 1])
        return self._task.rungs(steps[[int(np.argmax(self._meets(steps)))]])

    def _meets(self, rungs: IntArray) -> Any:
        return self._task.charge.of(self._task.rungs(rungs)) <= self._budget

    def _saved_by_rung(self) -> list[FloatArray]:
        """Per gate that moves, the share of the full cost that each rung saves on its own."""
        found = []
        for gate in self._moving:
            rungs = np.zeros((self._task.n_rungs[gate], self._task.n_gates), dtype=np.int64)
            rungs[:, gate] = np.arange(len(rungs))
            found.append(1 - self._task.charge.of(self._task.rungs(rungs)) / self._full)
        return found

    def _described(self) -> FloatArray:
        """Per gate that moves: its position, level, size, number of rungs, and the cost it can save."""
        gates = [self._task.charge.space.gates[gate] for gate in self._moving]
        levels = np.array([[gate.level == level for level in LEVELS] for gate in gates]).reshape(-1, len(LEVELS))
        position = np.arange(len(gates)) / max(len(gates), 1)
        sizes = np.log([gate.size + 1 for gate in gates])
        rungs = np.log(self._task.n_rungs[self._moving])
        savings = np.array([saved.max() for saved in self._savings])
        columns = [column / max(column.max(initial=0.0), 1e-9) for column in (sizes, rungs, savings)]
        return np.column_stack([position, levels, *columns])

    def _observation(self) -> FloatArray:
        """The gate, what the gates before saved and the later ones can save of what is needed, the last action."""
        index = min(len(self._actions), self.length - 1)
        needed = max(1 - self._budget / self._full, 1e-9)
        saved = sum(
            float(np.interp(action * (len(savings) - 1), np.arange(len(savings)), savings))
            for action, savings in zip(self._actions, self._savings, strict=False)
        )
        rest = sum(float(savings.max()) for savings in self._savings[len(self._actions) :])
        progress = np.clip([saved / needed, rest / needed], 0.0, 2.0) / 2
        action = self._actions[-1] if self._actions else 0.0
        return np.concatenate([self._gates[index], progress, [action]]).astype(np.float32)


class HAQ(Budgeted):
    """DDPG, gate by gate; one evaluation per episode."""

    def search(self, budget: float, evaluations: int) -> Proposals:
        """See `Budgeted`."""
        env = GatesEnv(self.task, budget)
        full = float((yield self.task.charge.sizes[None])[0])
        if env.length == 0:
            return
        agent = self._agent(env)
        memory = _Memory(agent)
        warm_up = min(_WARM_UP, evaluations // 2)
        episode = 0
        while True:
            noise = None if episode < warm_up else _NOISE * _NOISE_DECAY ** (episode - warm_up)
            transitions = self._play(env, agent, noise)
            accuracy = float((yield env.states)[0])
            episode += 1
            full = accuracy if np.isnan(full) else full
            if np.isnan(accuracy):
                continue
            memory.add(transitions, _SCALE * (accuracy - full))
            if episode > warm_up:
                with self._seeded():
                    agent.train(_UPDATES, _BATCH)

    def _agent(self, env: GatesEnv) -> DDPG:
        with self._seeded():
            agent = DDPG(
                "MlpPolicy",
                env,
                learning_rate=1e-3,
                buffer_size=_REPLAYED * env.length,
                tau=0.01,
                gamma=1.0,
                policy_kwargs={"net_arch": [300, 300]},
                device="cpu",
            )
        agent.set_logger(Logger(None, []))
        return agent

    def _play(self, env: GatesEnv, agent: DDPG, noise: float | None) -> list[Transition]:
        """An episode; at random without noise."""
        transitions: list[Transition] = []
        seen, over = env.reset()[0], False
        while not over:
            action = self.rng.random() if noise is None else self._explored(_place(agent, seen), noise)
            following, _, over, _, _ = env.step(np.array([action]))
            transitions.append((seen, following, action, over))
            seen = following
        return transitions

    def _explored(self, place: float, noise: float) -> float:
        """A draw from a normal distribution around a place, truncated to [0, 1]."""
        low, high = ndtr(-place / noise), ndtr((1 - place) / noise)
        return float(np.clip(place + noise * ndtri(low + (high - low) * self.rng.random()), 0.0, 1.0))

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Global random numbers, which stable-baselines3 draws, from this search's seed; then as they were before."""
        seed, before = int(self.rng.integers(2**32)), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed)
            try:
                yield
            finally:
                np.random.set_state(before)


class _Memory:
    """Fills an agent's replay buffer with rewards less their moving average, also where the average moves later."""

    def __init__(self, agent: DDPG) -> None:
        assert agent.replay_buffer is not None
        self._buffer = agent.replay_buffer
        self._average: float | None = None

    def add(self, transitions: list[Transition], reward: float) -> None:
        """Give a reward to every transition of an episode."""
        before = reward if self._average is None else self._average
        self._average = _BASELINE_DECAY * before + (1 - _BASELINE_DECAY) * reward
        self._buffer.rewards -= self._average - before
        for seen, following, place, over in transitions:
            # The agent's own actions are in [-1, 1].
            action, value, ended = np.array([2 * place - 1]), np.array([reward - self._average]), np.array([over])
            self._buffer.add(seen, following, action, value, ended, [{}])


def _place(agent: DDPG, seen: FloatArray) -> float:
    with torch.no_grad():
        return (float(agent.actor(torch.as_tensor(seen)[None])) + 1) / 2
