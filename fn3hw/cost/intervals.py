"""Intervals without assumptions on the shape of errors.

With n fits that each leave out one measured subnet, fit i is off by |r_i| at the subnet that it has not seen. Around
what each of them predicts of a new subnet, as far as each was off, lies the new subnet's true value: between the order
statistics of these 2n ends at the level asked for (the jackknife+ of Barber et al., "Predictive inference with the
jackknife+", 2021). Where the fits disagree about a subnet, its interval is wider. Errors are relative, as the fit is.

What a fit is off by has two parts: what the model does not know, and how far the measurement of that one subnet was
from the truth. An interval says where a subnet's latency lies, not what one more noisy measurement of it would print;
so the known share of noise is taken out of the errors first.

What is never measured by itself, such as the ratio of two latencies, has no residuals. Its interval is that of the
jackknife (Tukey, 1958), from how much it changes as each subnet is left out.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import t

from fn3hw.cost.basis import FloatArray

_LEAST_SHARE = 0.25
"""Of the mean square of residuals, what noise never explains: how large it is, is itself known roughly."""


def jackknife_plus(left_out: FloatArray, residuals: FloatArray, *, level: float = 0.9) -> tuple[FloatArray, FloatArray]:
    """Lower and upper ends of intervals of new values, each of shape (m,).

    At least ``2 * level - 1`` of them hold the value whatever the model, and about ``level`` as a rule. No level above
    n / (n + 1) can be vouched for: the outermost ends are taken there.

    Args:
        left_out: what the fit without sample i predicts, shape (n, m), positive.
        residuals: true / predicted - 1 of each sample by the fit without it, shape (n,).
        level: coverage asked for.
    """
    n, reach = len(left_out), np.abs(residuals)[:, None]
    beyond = min(n, int(np.ceil((n + 1) * level - 1e-9))) - 1
    low = np.partition(left_out * (1.0 - reach), n - 1 - beyond, axis=0)[n - 1 - beyond]
    high = np.partition(left_out * (1.0 + reach), beyond, axis=0)[beyond]
    return np.maximum(low, 0.0), high


def without_noise(residuals: FloatArray, noise: FloatArray) -> FloatArray:
    """The residuals as they would be if what they are told by had been measured exactly, of the same shape (n,).

    Variances add up: all residuals are scaled alike, so that their mean square is less by that of the noise.

    Args:
        residuals: true / predicted - 1.
        noise: standard error of each "true", relative.
    """
    square = float(np.mean(residuals**2))
    share = float(np.mean(noise**2)) / square if square > 0 else 0.0
    return residuals * float(np.sqrt(max(1.0 - share, _LEAST_SHARE)))


def jackknife(estimate: FloatArray, refitted: FloatArray, *, level: float = 0.9) -> tuple[FloatArray, FloatArray]:
    """Lower and upper ends of intervals of estimates, each of shape (m,).

    Args:
        estimate: from all n samples, shape (m,).
        refitted: the same from all but one of them, shape (n, m).
        level: coverage asked for.
    """
    n = len(refitted)
    error = np.sqrt((n - 1) * np.var(refitted, axis=0))
    reach = float(t.ppf((1 + level) / 2, n - 1)) * error
    return estimate - reach, estimate + reach
