"""What the evaluations so far say about subnets that were not evaluated: a Gaussian process over removed fractions.

The logarithm of the error is modelled as a common slope, plus one smooth function per gate, plus a smooth interaction
of all gates, plus noise. The sum of single-gate functions is what proposes moves; the whole model ranks proposals.
Its four scales are chosen by marginal likelihood (Rasmussen and Williams, Gaussian Processes for Machine Learning,
sec. 5.4; additive kernels: Duvenaud et al., Additive Gaussian Processes, 2011).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from threadpoolctl import threadpool_limits

from fn3hw.searcher.ports import FloatArray

MAX_POINTS = 400
_MIN_TO_SMOOTH = 20
_SLOPE = 4.0
_CHOICES = (
    (0.1, 0.5, 2.0, 8.0),
    (0.0, 0.02, 0.1, 0.5),
    (0.25, 0.5),
    (0.001, 0.005, 0.02, 0.08, 0.3),
)
"""Of the additive part, the interaction, its length, and noise."""

Scales = tuple[float, float, float, float]
"""One of each of the choices."""


def loss_of(accuracy: FloatArray) -> FloatArray:
    """The modelled loss of accuracies in percent: log of the error, so that a lost point weighs most near the top."""
    return np.log(101.0 - accuracy)


def expected_accuracy(removed: FloatArray, accuracy: FloatArray, cost: FloatArray) -> FloatArray:
    """Accuracies of evaluated subnets once the chance of having been chosen for a lucky value is taken out.

    Args:
        removed: removed fraction per gate, shape (n, G).
        accuracy: evaluated, in percent, shape (n,).
        cost: shape (n,). Of very many subnets, those that are the most accurate for their cost are fitted.
    """
    if len(accuracy) < _MIN_TO_SMOOTH:
        return accuracy
    rows = np.arange(len(accuracy))
    if len(rows) > MAX_POINTS:
        by_cost = np.argsort(cost, kind="stable")
        behind = np.empty(len(rows))
        behind[by_cost] = np.maximum.accumulate(accuracy[by_cost]) - accuracy[by_cost]
        rows = np.sort(np.argsort(behind, kind="stable")[:MAX_POINTS])
    with threadpool_limits(1, "blas"):  # on matrices this small, more threads take longer
        loss = Surrogate(removed[rows], accuracy[rows]).predict(removed)
    return np.clip(101.0 - np.exp(loss), 0.0, 100.0)


class Surrogate:
    """The model, fitted.

    Args:
        removed: removed fraction per gate, 0 to 1: shape (n, G), n >= 2.
        accuracy: percent, shape (n,). Of very many points, the last ones are used.
        near: scales of an earlier fit: the choice begins with these and their neighbours.
    """

    def __init__(self, removed: FloatArray, accuracy: FloatArray, *, near: Scales | None = None) -> None:
        self._x = removed[-MAX_POINTS:]
        loss = loss_of(accuracy[-MAX_POINTS:])
        self._mean = float(loss.mean())
        self._scale = float(loss.std()) or 1.0
        y = (loss - self._mean) / self._scale
        parts, fits = _Parts(self._x, self._x), dict[Scales, _Fit | None]()

        def evidence(scales: Scales) -> float:
            if scales not in fits:
                fits[scales] = _fit(parts.kernel(scales), scales[3], y)
            fit = fits[scales]
            return -np.inf if fit is None else fit.evidence

        self.scales = max(_grid(), key=evidence) if near is None else _climbed(near, evidence)
        best = fits[self.scales]
        assert best is not None, "noise of that size makes any kernel positive definite"
        self._cholesky, self._alpha = best.factor, best.alpha

    def sample(self, removed: FloatArray, rng: np.random.Generator, n: int) -> FloatArray:
        """Draws from the posterior of the loss at (m, G) states: shape (n, m)."""
        mean, covariance = self._posterior(removed)
        jitter = 1e-8 * np.eye(len(mean)) * max(1.0, float(np.trace(covariance)) / len(mean))
        values, vectors = np.linalg.eigh(covariance + jitter)
        root = vectors * np.sqrt(np.clip(values, 0.0, None))
        return np.asarray(mean + rng.standard_normal((n, len(mean))) @ root.T)

    def predict(self, removed: FloatArray) -> FloatArray:
        """Expected loss at (m, G) states: shape (m,)."""
        return np.asarray(self._mean + self._scale * (_Parts(removed, self._x).kernel(self.scales) @ self._alpha))

    def gate_loss(self, gate: int, fractions: FloatArray) -> FloatArray:
        """Expected loss that gate number ``gate`` alone adds at removed fractions of shape (m,): shape (m,)."""
        additive = self.scales[0]
        n_gates = self._x.shape[1]
        x = self._x[:, gate]
        linear = np.outer(fractions, x)
        kernel = additive * (linear + linear**2) / n_gates
        common = _SLOPE * np.outer(fractions, self._x.mean(axis=1)) / n_gates
        return np.asarray(self._scale * ((kernel + common) @ self._alpha), dtype=np.float64)

    def _posterior(self, removed: FloatArray) -> tuple[FloatArray, FloatArray]:
        cross = _Parts(removed, self._x).kernel(self.scales)
        reduced = solve_triangular(self._cholesky, cross.T, lower=True)
        covariance = _Parts(removed, removed).kernel(self.scales) - reduced.T @ reduced
        return self._mean + self._scale * (cross @ self._alpha), self._scale**2 * covariance


class _Parts:
    """The pieces of the kernel between states of shapes (n, G) and (m, G), which any scales combine."""

    def __init__(self, a: FloatArray, b: FloatArray) -> None:
        n_gates = a.shape[1]
        self.common = np.outer(a.mean(axis=1), b.mean(axis=1))
        self.additive = (a @ b.T + (a**2) @ (b**2).T) / n_gates
        squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
        self.distance = np.clip(squares, 0.0, None) / n_gates

    def kernel(self, scales: Scales) -> FloatArray:
        additive, interaction, length, _ = scales
        result = 1.0 + _SLOPE * self.common + additive * self.additive
        if interaction:
            result = result + interaction * np.exp(-self.distance / (2 * length**2))
        return np.asarray(result, dtype=np.float64)


def _grid() -> Iterator[Scales]:
    """All choices, but for lengths of an interaction that there is not."""
    for scales in product(*_CHOICES):
        if scales[1] or scales[2] == _CHOICES[2][0]:
            yield scales


@dataclass(frozen=True, slots=True)
class _Fit:
    """Log marginal likelihood, Cholesky factor and weights."""

    evidence: float
    factor: FloatArray
    alpha: FloatArray


def _fit(kernel: FloatArray, noise: float, y: FloatArray) -> _Fit | None:
    """``None`` where the kernel is not positive definite."""
    try:
        factor = cholesky(kernel + noise * np.eye(len(y)), lower=True)
    except np.linalg.LinAlgError:
        return None
    alpha = cho_solve((factor, True), y)
    return _Fit(float(-0.5 * y @ alpha - np.log(np.diag(factor)).sum()), factor, alpha)


def _climbed(scales: Scales, evidence: Callable[[Scales], float]) -> Scales:
    """From some scales on to the best neighbour, one choice up or down in one of them, as long as that is better."""
    while True:
        places = [choices.index(scale) for choices, scale in zip(_CHOICES, scales, strict=True)]
        around = [scales]
        for axis, choices in enumerate(_CHOICES):
            for place in (places[axis] - 1, places[axis] + 1):
                if 0 <= place < len(choices):
                    around.append((*scales[:axis], choices[place], *scales[axis + 1 :]))  # type: ignore[arg-type]
        best = max(around, key=evidence)
        if best == scales:
            return scales
        scales = best
