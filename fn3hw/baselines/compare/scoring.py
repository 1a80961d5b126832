"""From plays to figures: hypervolume over evaluations and seconds, accuracy at budgets, intervals and paired tests.

Hypervolume is given as the mean accuracy over all costs between the smallest subnet's and the full network's, of the
best subnet that costs no more: the area of Zitzler and Thiele (Multiobjective Evolutionary Algorithms, 1999) divided by
the range of costs, in points. The smallest subnet is known to every method. Intervals are of the mean over seeds, by
bootstrap; seeds are paired, because a seed stands for the same draws of everything that methods share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np
import pandas as pd
from scipy import stats

from fn3hw.baselines.compare.desk import Play
from fn3hw.searcher.ports import FloatArray

LEVEL = 0.95
_CHECKPOINTS = 24
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What hypervolume is measured over.

    Args:
        full: cost of the full network.
        smallest: cost of the smallest subnet.
        floor: accuracy of the smallest subnet in percent, known to every method.
    """

    full: float
    smallest: float
    floor: float

    def hypervolume(self, cost: FloatArray, accuracy: FloatArray) -> float:
        """Mean accuracy over costs in percent, of subnets of shapes (n,) and (n,); failed ones are NaN."""
        there = np.isfinite(accuracy)
        points = np.stack([np.maximum(cost[there], self.smallest), -accuracy[there]], axis=1)
        if not len(points):
            return self.floor
        area = moocore.hypervolume(points, ref=[self.full, -self.floor])
        return float(self.floor + area / (self.full - self.smallest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean over seeds with its interval; the ends are NaN where there is one seed alone."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of one value per seed."""
        array = np.asarray(values, dtype=np.float64)
        mean = float(array.mean())
        if len(array) < 2 or not np.isfinite(array).all():
            return cls(mean=mean, low=float("nan"), high=float("nan"))
        rng = np.random.default_rng(0)
        drawn = array[rng.integers(len(array), size=(_RESAMPLES, len(array)))].mean(axis=1)
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(mean=mean, low=float(low), high=float(high))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"mean": self.mean, "ci": [self.low, self.high]}


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodScore:
    """How one method did.

    Args:
        name: of the method.
        curve: columns evaluations, seconds, mean, low, high: hypervolume on the way.
        hypervolume: at the end.
        at_budget: per budget the accuracy of the chosen subnets, and the share of seeds that met it.
        evaluations: per play, mean.
        seconds: per play, mean.
        thinking: share of the seconds that the method itself took.
        failed: evaluations without an accuracy, of all plays.
        infeasible: evaluations of subnets that cost more than every budget, of all plays.
        reached: evaluations and seconds until the first method's final hypervolume, medians; None where the median
            play never got there.
        difference: to the first method in hypervolume.
        p_value: of that difference, by a paired permutation test; NaN where there is one seed alone.
        chosen: mean over the budgets of the chosen subnets' accuracy; the smallest subnet's where none was found.
        chosen_difference: the same to the first method.
        chosen_p_value: of that difference.
    """

    name: str
    curve: pd.DataFrame
    hypervolume: Mean
    at_budget: dict[float, tuple[Mean, float]]
    evaluations: float
    seconds: float
    thinking: float
    failed: int
    infeasible: int
    reached: tuple[float, float] | None
    difference: Mean
    p_value: float
    chosen: Mean
    chosen_difference: Mean
    chosen_p_value: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "name": self.name,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "thinking_share": self.thinking,
            "failed": self.failed,
            "infeasible": self.infeasible,
            "hypervolume_mean": self.hypervolume.mean,
            "hypervolume_ci": [self.hypervolume.low, self.hypervolume.high],
            "accuracy_at_budget": {
                f"{budget:.6g}": {**found.to_json(), "met": met} for budget, (found, met) in self.at_budget.items()
            },
            "reached_the_first": None
            if self.reached is None
            else dict(zip(("evaluations", "seconds"), self.reached, strict=True)),
            "difference_to_the_first": {**self.difference.to_json(), "p_value": self.p_value},
            "chosen_accuracy": self.chosen.to_json(),
            "chosen_difference_to_the_first": {**self.chosen_difference.to_json(), "p_value": self.chosen_p_value},
        }


@dataclass(frozen=True, slots=True)
class Scores:
    """How all methods did; the first one is what the others are compared with."""

    methods: tuple[MethodScore, ...]
    range: Range

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "methods": [method.to_json() for method in self.methods],
            "hypervolume": {
                "full_cost": self.range.full,
                "smallest_cost": self.range.smallest,
                "floor": self.range.floor,
                "level": LEVEL,
            },
        }


def score(
    plays: Sequence[Play], budgets: Sequence[float], span: Range, final: Mapping[str, float] | None = None
) -> Scores:
    """Score plays of several methods.

    Args:
        plays: of the methods, each with the same seeds.
        budgets: that accuracy is given at.
        span: what hypervolume is measured over.
        final: accuracy of chosen subnets on images that the search did not see, by subnet id; by default the accuracy
            that the search saw.
    """
    by_method: dict[str, list[Play]] = {}
    for play in plays:
        by_method.setdefault(play.method, []).append(play)
    curves = {name: [_Curve.of(play, span) for play in own] for name, own in by_method.items()}
    chosen = {
        name: np.array([_mean_of_choices(play, budgets, span.floor, final) for play in own])
        for name, own in by_method.items()
    }
    first = next(iter(by_method))
    return Scores(
        tuple(
            _scored(name, own, (curves[name], curves[first]), (chosen[name], chosen[first]), budgets, final)
            for name, own in by_method.items()
        ),
        span,
    )


def chosen(plays: Sequence[Play], budgets: Sequence[float]) -> list[str]:
    """Ids of the subnets that plays would answer budgets with, each once."""
    found = [(play, play.best_within(budget)) for play in plays for budget in budgets]
    return list(dict.fromkeys(play.subnets[best] for play, best in found if best is not None))


@dataclass(frozen=True, slots=True)
class _Curve:
    """Hypervolume of one play after each of some evaluations."""

    evaluations: FloatArray
    seconds: FloatArray
    hypervolume: FloatArray

    @classmethod
    def of(cls, play: Play, span: Range) -> _Curve:
        n = len(play.subnets)
        at = np.unique(np.rint(np.geomspace(1, max(n, 1), _CHECKPOINTS)).astype(int)) if n else np.zeros(0, dtype=int)
        values = [span.hypervolume(play.cost[:k], play.accuracy[:k]) for k in at]
        return cls(at.astype(np.float64), play.seconds[at - 1], np.array(values))

    @property
    def final(self) -> float:
        return float(self.hypervolume[-1]) if len(self.hypervolume) else float("nan")

    def reaching(self, value: float) -> tuple[float, float]:
        """Evaluations and seconds until a hypervolume; infinite where it is not reached."""
        rows = np.flatnonzero(self.hypervolume >= value)
        return (self.evaluations[rows[0]], self.seconds[rows[0]]) if len(rows) else (np.inf, np.inf)


def _scored(
    name: str,
    plays: Sequence[Play],
    curves: tuple[Sequence[_Curve], Sequence[_Curve]],
    chosen: tuple[FloatArray, FloatArray],
    budgets: Sequence[float],
    final: Mapping[str, float] | None,
) -> MethodScore:
    """One method's score; of curves and of the mean accuracy of choices, its own and the first method's are given."""
    own, theirs = (np.array([curve.final for curve in some]) for some in curves)
    evaluations, seconds = np.median([curve.reaching(float(theirs.mean())) for curve in curves[0]], axis=0)
    total = [float(play.seconds[-1]) if len(play.subnets) else 0.0 for play in plays]
    return MethodScore(
        name=name,
        curve=_mean_curve(curves[0]),
        hypervolume=Mean.of(own.tolist()),
        at_budget={budget: _at_budget(plays, budget, final) for budget in sorted(budgets, reverse=True)},
        evaluations=float(np.mean([len(play.subnets) for play in plays])),
        seconds=float(np.mean(total)),
        thinking=float(sum(play.thinking_s.sum() for play in plays) / max(sum(total), 1e-9)),
        failed=sum(play.failed for play in plays),
        infeasible=sum(play.infeasible for play in plays),
        reached=(float(evaluations), float(seconds)) if np.isfinite(evaluations) else None,
        difference=Mean.of((own - theirs).tolist()),
        p_value=_p_value(own, theirs),
        chosen=Mean.of(chosen[0].tolist()),
        chosen_difference=Mean.of((chosen[0] - chosen[1]).tolist()),
        chosen_p_value=_p_value(*chosen),
    )


def _at_budget(plays: Sequence[Play], budget: float, final: Mapping[str, float] | None) -> tuple[Mean, float]:
    found = [accuracy for play in plays if (accuracy := _choice(play, budget, final)) is not None]
    return Mean.of(found or [float("nan")]), len(found) / len(plays)


def _mean_of_choices(play: Play, budgets: Sequence[float], floor: float, final: Mapping[str, float] | None) -> float:
    found = [_choice(play, budget, final) for budget in budgets]
    return float(np.mean([floor if accuracy is None else accuracy for accuracy in found]))


def _choice(play: Play, budget: float, final: Mapping[str, float] | None) -> float | None:
    """Accuracy of the subnet that a play would answer a budget with; None where it has none."""
    best = play.best_within(budget)
    if best is None:
        return None
    return float(play.accuracy[best]) if final is None else final[play.subnets[best]]


def _mean_curve(curves: Sequence[_Curve]) -> pd.DataFrame:
    """At the evaluations of the longest play; a shorter one stays where it ended."""
    at = max((curve.evaluations for curve in curves), key=len)
    rows = []
    for k in at:
        index = [max(0, int(np.searchsorted(curve.evaluations, k, side="right")) - 1) for curve in curves]
        values = [curve.hypervolume[i] for curve, i in zip(curves, index, strict=True)]
        seconds = [curve.seconds[i] for curve, i in zip(curves, index, strict=True)]
        mean = Mean.of(values)
        rows.append((int(k), float(np.mean(seconds)), mean.mean, mean.low, mean.high))
    return pd.DataFrame(rows, columns=["evaluations", "seconds", "mean", "low", "high"])


def _p_value(a: FloatArray, b: FloatArray) -> float:
    if len(a) < 2 or len(a) != len(b):
        return float("nan")
    found = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True, rng=0
    )
    return float(found.pvalue)
