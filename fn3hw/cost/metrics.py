"""How far predictions are from measurements."""

from __future__ import annotations

from typing import Literal, TypedDict

import numpy as np
from scipy.stats import spearmanr

from fn3hw.cost.basis import FloatArray

Source = Literal["held-out subnets", "leave-one-out"]


class Metrics(TypedDict):
    """Accuracy of predictions; errors and shares are fractions, not percent.

    ``mape`` is the mean of |predicted / measured - 1|, ``within_5pct`` and ``within_10pct`` the shares of subnets with
    a smaller error than that, ``spearman`` the rank correlation (NaN where all are equal), ``n`` the number of subnets,
    and ``source`` says which: subnets of the profile that were kept out of the fit, or each fitted one left out.
    """

    mape: float
    within_5pct: float
    within_10pct: float
    spearman: float
    n: int
    source: Source


def score(measured: FloatArray, predicted: FloatArray, *, source: Source = "held-out subnets") -> Metrics:
    """Compare predictions of shape (n,) with positive measurements of shape (n,)."""
    error = np.abs(predicted / measured - 1.0)
    ranked = len(measured) > 1 and np.ptp(measured) > 0 and np.ptp(predicted) > 0
    return Metrics(
        mape=float(np.mean(error)),
        within_5pct=float(np.mean(error <= 0.05)),
        within_10pct=float(np.mean(error <= 0.10)),
        spearman=float(spearmanr(measured, predicted).statistic) if ranked else float("nan"),
        n=len(measured),
        source=source,
    )
