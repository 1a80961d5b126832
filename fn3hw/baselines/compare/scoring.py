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

    def unseen(self, play: Play, final: Mapping[str, float]) -> float:
        """Mean accuracy over costs, on other images, of what a play chose by the accuracy that it saw.

        Args:
            play: with its accuracies.
            final: accuracy on the other images of the subnets of its front, by id.
        """
        rows = [row for row in play.front() if play.cost[row] <= self.full]
        ends = [*np.maximum(play.cost[rows], self.smallest), self.full]
        total = self.floor * (ends[0] - self.smallest)
        total += sum(final[play.subnets[row]] * (b - a) for row, a, b in zip(rows, ends[:-1], ends[1:], strict=True))
        return float(total / (self.full - self.smallest))


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
class Measured:
    """A figure of one value per seed, and how it compares with the first method's.

    Args:
        mean: over seeds.
        difference: to the first method, seeds paired.
        p_value: of that difference, by a paired permutation test; NaN where there is one seed alone.
    """

    mean: Mean
    difference: Mean
    p_value: float

    @classmethod
    def of(cls, own: Sequence[float], first: Sequence[float]) -> Measured:
        """From one value per seed of a method and of the first one."""
        differences = [a - b for a, b in zip(own, first, strict=True)]
        return cls(mean=Mean.of(own), difference=Mean.of(differences), p_value=_p_value(own, first))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        compared = {**self.difference.to_json(), "p_value": self.p_value}
        return {**self.mean.to_json(), "difference_to_the_first": compared}


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodScore:
    """How one method did.

    Args:
        name: of the method.
        curve: columns evaluations, seconds, mean, low, high: hypervolume on the way.
        hypervolume: at the end, on the images that the search saw.
        unseen: mean accuracy over all costs of what would be chosen, on images that no search saw; None without such.
        chosen: mean over the budgets of the accuracy of the chosen subnets; of the smallest where none was found.
        at_budget: per budget the accuracy of the chosen subnets, and the share of seeds that met it.
        evaluations: per play, mean.
        seconds: per play, mean.
        thinking: share of the seconds that the method itself took.
        failed: evaluations without an accuracy, of all plays.
        infeasible: evaluations of subnets that cost more than every budget, of all plays.
        reached: evaluations and seconds until the first method's final hypervolume, medians; None where the median
            play never got there.
    """

    name: str
    curve: pd.DataFrame
    hypervolume: Measured
    unseen: Measured | None
    chosen: Measured
    at_budget: dict[float, tuple[Mean, float]]
    evaluations: float
    seconds: float
    thinking: float
    failed: int
    infeasible: int
    reached: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        hypervolume = self.hypervolume.to_json()
        return {
            "name": self.name,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "thinking_share": self.thinking,
            "failed": self.failed,
            "infeasible": self.infeasible,
            "hypervolume_mean": hypervolume["mean"],
            "hypervolume_ci": hypervolume["ci"],
            "difference_to_the_first": hypervolume["difference_to_the_first"],
            "hypervolume_on_unseen_images": None if self.unseen is None else self.unseen.to_json(),
            "chosen_accuracy": self.chosen.to_json(),
            "accuracy_at_budget": {
                f"{budget:.6g}": {**found.to_json(), "met": met} for budget, (found, met) in self.at_budget.items()
            },
            "reached_the_first": None
            if self.reached is None
            else dict(zip(("evaluations", "seconds"), self.reached, strict=True)),
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
        final: accuracy of the subnets of `to_verify` on images that the search did not see, by id; by default the
            accuracy that the search saw.
    """
    by_method: dict[str, list[Play]] = {}
    for play in plays:
        by_method.setdefault(play.method, []).append(play)
    values = {name: _Values.of(own, budgets, span, final) for name, own in by_method.items()}
    first = next(iter(values.values()))
    return Scores(
        tuple(_scored(name, own, values[name], first, budgets, final) for name, own in by_method.items()), span
    )


def to_verify(plays: Sequence[Play], budgets: Sequence[float]) -> list[str]:
    """Ids of the subnets that plays would answer budgets with, these and any other, each once."""
    rows = [
        (play, row)
        for play in plays
        for row in (*(play.best_within(budget) for budget in budgets), *play.front())
        if row is not None
    ]
    return list(dict.fromkeys(play.subnets[row] for play, row in rows))


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


@dataclass(frozen=True, slots=True)
class _Values:
    """What is compared of one method, one value per seed."""

    curves: list[_Curve]
    hypervolume: list[float]
    unseen: list[float] | None
    chosen: list[float]

    @classmethod
    def of(
        cls, plays: Sequence[Play], budgets: Sequence[float], span: Range, final: Mapping[str, float] | None
    ) -> _Values:
        curves = [_Curve.of(play, span) for play in plays]
        unseen = None if final is None else [span.unseen(play, final) for play in plays]
        chosen = [_mean_of_choices(play, budgets, span.floor, final) for play in plays]
        return cls(curves, [curve.final for curve in curves], unseen, chosen)


def _scored(
    name: str,
    plays: Sequence[Play],
    own: _Values,
    first: _Values,
    budgets: Sequence[float],
    final: Mapping[str, float] | None,
) -> MethodScore:
    target = float(np.mean(first.hypervolume))
    evaluations, seconds = np.median([curve.reaching(target) for curve in own.curves], axis=0)
    total = [float(play.seconds[-1]) if len(play.subnets) else 0.0 for play in plays]
    return MethodScore(
        name=name,
        curve=_mean_curve(own.curves),
        hypervolume=Measured.of(own.hypervolume, first.hypervolume),
        unseen=Measured.of(own.unseen, first.unseen) if own.unseen is not None and first.unseen is not None else None,
        chosen=Measured.of(own.chosen, first.chosen),
        at_budget={budget: _at_budget(plays, budget, final) for budget in sorted(budgets, reverse=True)},
        evaluations=float(np.mean([len(play.subnets) for play in plays])),
        seconds=float(np.mean(total)),
        thinking=float(sum(play.thinking_s.sum() for play in plays) / max(sum(total), 1e-9)),
        failed=sum(play.failed for play in plays),
        infeasible=sum(play.infeasible for play in plays),
        reached=(float(evaluations), float(seconds)) if np.isfinite(evaluations) else None,
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


def _p_value(a: Sequence[float], b: Sequence[float]) -> float:
    if len(a) < 2 or len(a) != len(b):
        return float("nan")
    found = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True, rng=0
    )
    return float(found.pvalue)
