"""How far predictions are from measurements."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from scipy.stats import spearmanr

from fn3hw.cost.basis import FloatArray

Source = Literal["held-out subnets", "leave-one-out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Accuracy of predictions; errors and shares are fractions, not percent.

    Args:
        mape: mean of |predicted / measured - 1|.
        within_5pct: share of subnets whose error is at most 5%.
        within_10pct: share of subnets whose error is at most 10%.
        spearman: rank correlation, NaN where all are equal.
        n: number of subnets.
        source: which they are: subnets of the profile that were kept out of the fit, or each fitted one left out.
        coverage: share of subnets whose interval holds what was measured, where they have intervals.
    """

    mape: float
    within_5pct: float
    within_10pct: float
    spearman: float
    n: int
    source: Source
    coverage: float | None = None

    def to_json(self) -> dict[str, float | int | str | None]:
        """As plain JSON values; a correlation that does not exist is null."""
        return asdict(self) | {"spearman": None if math.isnan(self.spearman) else self.spearman}


def score(
    measured: FloatArray,
    predicted: FloatArray,
    *,
    source: Source = "held-out subnets",
    interval: tuple[FloatArray, FloatArray] | None = None,
) -> Metrics:
    """Compare predictions of shape (n,) with positive measurements of shape (n,).

    Args:
        measured: true values.
        predicted: of the same subnets.
        source: which subnets they are.
        interval: lower and upper ends of the predictions, each of shape (n,).
    """
    error = np.abs(predicted / measured - 1.0)
    ranked = len(measured) > 1 and np.ptp(measured) > 0 and np.ptp(predicted) > 0
    return Metrics(
        mape=float(np.mean(error)),
        within_5pct=float(np.mean(error <= 0.05)),
        within_10pct=float(np.mean(error <= 0.10)),
        spearman=float(spearmanr(measured, predicted).statistic) if ranked else float("nan"),
        n=len(measured),
        source=source,
        coverage=None if interval is None else float(np.mean((interval[0] <= measured) & (measured <= interval[1]))),
    )
