"""Non-negative ridge regression on relative error, with its leave-one-out residuals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from fn3hw.cost.basis import FloatArray

_MAX_LEVERAGE = 0.999
"""A row that alone decides its own fit hardly has a residual. What is left of it, due to the ridge, is stretched by at
most 1,000: less would make a fit that knows some terms from a single row each seem exact."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted linear model.

    Args:
        coef: shape (p,), one per column of the design.
        loo: leave-one-out residuals relative to y, or to a scale, shape (n,), as the active set predicts them.
    """

    coef: FloatArray
    loo: FloatArray

    @property
    def error(self) -> float:
        """Mean absolute relative leave-one-out error."""
        return float(np.mean(np.abs(self.loo)))


def fit_relative(
    matrix: FloatArray,
    y: FloatArray,
    *,
    alpha: float | FloatArray,
    weights: FloatArray | None = None,
    scale: FloatArray | None = None,
) -> Fit:
    """Minimise the squared relative error of ``matrix @ coef`` with ``coef >= 0`` and a ridge.

    Leave-one-out residuals are those of the ridge regression on the coefficients that are not zero, ``r / (1 - h)``.

    Args:
        matrix: design of shape (n, p); its first column, the constant, is not shrunk.
        y: positive targets of shape (n,).
        alpha: ridge per row, on columns scaled to unit root mean square; one for all columns, or one each.
        weights: how much each row counts, shape (n,), by default 1.
        scale: what errors are relative to, shape (n,), by default the targets.
    """
    scale = y if scale is None else scale
    rows = matrix / scale[:, None]
    root = np.ones(len(y)) if weights is None else np.sqrt(weights)
    rows, target = rows * root[:, None], root * y / scale
    size = np.sqrt(np.mean(rows**2, axis=0))
    size[size == 0] = 1.0
    scaled = rows / size
    shrink = np.sqrt(np.broadcast_to(alpha, scaled.shape[1]) * len(y))
    shrink[0] = 0.0
    stacked = np.concatenate([scaled, np.diag(shrink)])
    wanted = np.concatenate([target, np.zeros(len(shrink))])
    coef = _solve(stacked, wanted)
    active = coef > 0
    design = scaled[:, active]
    gram = design.T @ design + np.diag(shrink[active] ** 2) + 1e-12 * np.eye(int(active.sum()))
    leverage = np.einsum("ij,ji->i", design, np.linalg.solve(gram, design.T)) if active.any() else np.zeros(len(y))
    residual = (matrix @ (coef / size) - y) / scale
    return Fit(coef=coef / size, loo=residual / (1.0 - np.clip(leverage, 0.0, _MAX_LEVERAGE)))


def huber_weights(residuals: FloatArray, *, floor: float) -> FloatArray:
    """Weights that bound the pull of outliers: 1 within three times the usual size of residuals, less beyond.

    Args:
        residuals: shape (n,).
        floor: residuals smaller than this are never outliers.
    """
    usual = 1.4826 * float(np.median(np.abs(residuals)))
    return np.minimum(1.0, max(3 * usual, floor) / np.maximum(np.abs(residuals), 1e-300))


def _solve(stacked: FloatArray, wanted: FloatArray) -> FloatArray:
    try:
        coef, _ = nnls(stacked, wanted, maxiter=30 * stacked.shape[1])
    except RuntimeError:  # it cycles on columns that are all but equal: a little more ridge tells them apart
        p = stacked.shape[1]
        coef, _ = nnls(
            np.concatenate([stacked, 1e-3 * np.eye(p)]), np.concatenate([wanted, np.zeros(p)]), maxiter=300 * p
        )
    return np.asarray(coef, dtype=np.float64)
