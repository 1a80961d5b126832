"""Intervals without assumptions on the shape of errors: conformal, on leave-one-out residuals.

With relative residuals |r_1|, ..., |r_n| of subnets that the model was not fitted on, the next one's lies below the
ceil((n + 1) * level)-th smallest with at least that probability where subnets are exchangeable (Vovk et al., 2005; the
jackknife form is Barber et al., "Predictive inference with the jackknife+", 2021, which also says what it costs that
the residuals share their data). Errors are taken as relative and signed: too fast and too slow have their own tails.

What is never measured by itself, such as the ratio of two latencies, has no residuals. Its interval is that of the
jackknife (Tukey, 1958), from how much it changes as each subnet is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from fn3hw.cost.basis import FloatArray


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true value lies, relative to the predicted one.

    Args:
        low: factor of the lower end, at most 1.
        high: factor of the upper end, at least 1.
        level: the coverage asked for.
        attainable: the highest level that as many residuals can vouch for, n / (n + 1).
    """

    low: float
    high: float
    level: float
    attainable: float


def conformal(residuals: FloatArray, *, level: float = 0.9) -> Interval:
    """Interval of measured over predicted from held-out residuals.

    Args:
        residuals: measured / predicted - 1 of subnets not fitted on, shape (n,).
        level: coverage asked for; where n is too small for it, the largest residual is taken.
    """
    n = len(residuals)
    if n == 0:
        return Interval(low=0.0, high=np.inf, level=level, attainable=0.0)
    size = np.sort(np.abs(residuals))
    reach = float(size[min(n, int(np.ceil((n + 1) * level))) - 1])
    return Interval(low=max(0.0, 1.0 - reach), high=1.0 + reach, level=level, attainable=n / (n + 1))


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
