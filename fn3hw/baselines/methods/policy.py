"""A policy over rungs: one categorical distribution per gate, whose logits are learned."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fn3hw.searcher.ports import FloatArray, IntArray

_IMPOSSIBLE = -1e9


class RungPolicy:
    """Independent softmax distributions over the rungs of each gate, uniform to begin with.

    Args:
        n_rungs: rungs per gate, shape (G,).
        rate: learning rate of Adam.
        betas: of Adam.
        seed: equal seeds, equal draws.
    """

    def __init__(self, n_rungs: IntArray, *, rate: float, betas: tuple[float, float], seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._n_rungs = n_rungs
        self._exists = torch.arange(int(n_rungs.max())) < torch.as_tensor(n_rungs)[:, None]
        self.logits = torch.zeros(self._exists.shape, requires_grad=True)
        self._optimizer = torch.optim.Adam([self.logits], lr=rate, betas=betas)

    @property
    def log_probabilities(self) -> Tensor:
        """Shape (G, R), for the gate with the most rungs; very low where a gate has no such rung."""
        return torch.log_softmax(torch.where(self._exists, self.logits, _IMPOSSIBLE), dim=1)

    @property
    def entropy(self) -> Tensor:
        """In nats, mean over the gates."""
        logs = self.log_probabilities
        return -torch.sum(logs.exp() * logs, dim=1).mean()

    @property
    def mode(self) -> IntArray:
        """The most probable rungs, shape (G,)."""
        return np.asarray(self.log_probabilities.detach().argmax(dim=1).numpy(), dtype=np.int64)

    @property
    def mode_places(self) -> FloatArray:
        """Their places on the ladders, shape (G,)."""
        return np.asarray(self.mode / np.maximum(self._n_rungs - 1, 1), dtype=np.float64)

    def draw(self, size: int) -> IntArray:
        """Rungs of shape (size, G)."""
        probabilities = self.log_probabilities.detach().exp()
        drawn = torch.multinomial(probabilities, size, replacement=True, generator=self._generator)
        return np.asarray(drawn.T.numpy(), dtype=np.int64)

    def reinforced(self, rungs: IntArray, advantages: FloatArray) -> Tensor:
        """The loss whose gradient is that of REINFORCE (Williams, 1992), for drawn (n, G) rungs and their advantages.

        Draws whose advantage is no number are left out.
        """
        valued = np.isfinite(advantages)
        taken = torch.as_tensor(rungs[valued].T)
        likelihoods = self.log_probabilities.gather(1, taken).sum(dim=0)
        weights = torch.as_tensor(advantages[valued] / max(int(valued.sum()), 1), dtype=likelihoods.dtype)
        return torch.sum(-weights * likelihoods)

    def descend(self, loss: Tensor) -> None:
        """One step of Adam down a loss."""
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
