"""From raw samples to a ratio, its interval, and how well it repeats.

What disturbs a sample makes it slower, never faster, so the fastest samples are nearest to the time without
disturbance. The very fastest one may be an accident of the clock: the mean of the three fastest ones stands for a
round.

That leaves what lasts for longer than a round. A busy neighbour takes caches and memory bandwidth, which slows the
reference and a subnet down, but not alike: what reads much memory suffers more than what computes much. So the ratio
of the two is another one in a busy hour than in a quiet one. What is asked for is the ratio in a quiet moment: it is
where a line through the rounds, the subnet's time over the reference's, meets the reference's quiet time. Few rounds
say little about the slope of one line, but subnets have much the same slopes (`Sensitivity`), and each of them is held
close to what all the others show. ``benchmarks/estimators.py`` compares this with other ways to take a ratio, by what
the one and the other half of a subnet's rounds give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

QUIET = 1.1
"""A round is quiet where the reference took at most this times what it took in the second fastest round."""
_FASTEST = 3
"""Samples whose mean stands for a round."""
_QUIET_QUANTILE = 0.05
"""The quantile of the reference's times in all rounds that stands for a quiet moment."""
_SOFT = 0.1
"""A round in which both models together took this share longer than in quiet ones counts half."""
_OWN_SLOPE = 0.05
"""Standard deviation of subnets' slopes about those that their ratios let expect."""
_USUAL_SLOPE = 0.5
"""Standard deviation of slopes about 1 before anything is known."""
_USUAL_SCATTER = 0.012
_OWN_KERNEL_SLOPE = 0.3
_KERNEL_SCATTER = 0.02
"""The same of a kernel: slopes about that of all kernels of its name, and rounds about its line."""
_PASSES = 3

Samples = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Per round the alternating samples of the reference and of the candidate, in ns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """How much slower subnets get where the reference gets slower.

    Where the reference takes exp(x) times as long as in a quiet moment, a subnet takes about exp(slope * x) times as
    long; slopes differ with the ratio to the reference.

    Args:
        quiet: what the reference takes in a quiet moment, on the clock that counts.
        slope: of a subnet that takes as long as the reference.
        by_log_ratio: what is added to it per unit of the logarithm of the ratio.
        scatter: standard deviation of rounds about the line of their subnet, as logarithms.
    """

    quiet: float
    slope: float = 1.0
    by_log_ratio: float = 0.0
    scatter: float = _USUAL_SCATTER


def sensitivity(candidates: Sequence[Samples]) -> Sensitivity:
    """What the rounds of several candidates, one at least, show together."""
    times = [_undisturbed_times(rounds) for rounds in candidates if len(rounds)]
    return _sensitivity(times, float(np.quantile(np.concatenate([one[:, 0] for one in times]), _QUIET_QUANTILE)))


def _sensitivity(candidates: Sequence[FloatArray], quiet: float) -> Sensitivity:
    found = Sensitivity(quiet=quiet)
    for _ in range(_PASSES):
        found = _refined(found, candidates)
    return found


def _refined(known: Sensitivity, candidates: Sequence[FloatArray]) -> Sensitivity:
    """The slopes as rounds show them about the mean of each candidate, and the scatter that is left."""
    matrix, targets, weights = [], [], []
    for times in candidates:
        x, y, weight = (one[:, 0] for one in _coordinates(times[:, None], known))
        off = x - np.average(x, weights=weight)
        log_ratio, _ = _lines(times[:, None], known)
        matrix.append(np.stack([off, off * log_ratio], axis=1))
        targets.append(y - np.average(y, weights=weight))
        weights.append(weight)
    rows, target, weight = np.concatenate(matrix), np.concatenate(targets), np.concatenate(weights)
    shrink = np.eye(2) * (known.scatter / _USUAL_SLOPE) ** 2
    slopes = np.linalg.solve(rows.T @ (rows * weight[:, None]) + shrink, rows.T @ (target * weight) + shrink @ [1.0, 0])
    free = len(target) - len(candidates)
    scatter = known.scatter
    if free > 0:
        left = np.average((target - rows @ slopes) ** 2, weights=weight) * len(target) / free
        scatter = max(float(np.sqrt(left)), 1e-6)
    return Sensitivity(quiet=known.quiet, slope=float(slopes[0]), by_log_ratio=float(slopes[1]), scatter=scatter)


def undisturbed(ns: Sequence[int]) -> float:
    """Time of a model in one round, undisturbed: the mean of its three fastest samples."""
    return float(_fastest(np.asarray(ns, dtype=np.float64)))


def quiet(rounds: Samples) -> Samples:
    """The rounds with the reference about as fast as in the second fastest; two at least."""
    return [one for one, is_quiet in zip(rounds, _quiet(_undisturbed_times(rounds)), strict=True) if is_quiet]


def round_ratio(reference_ns: Sequence[int], candidate_ns: Sequence[int]) -> float:
    """Time of the candidate relative to the reference in one round."""
    return undisturbed(candidate_ns) / undisturbed(reference_ns)


def ratio(rounds: Samples, known: Sensitivity | None = None) -> float:
    """Time of the candidate relative to the reference, both in a quiet moment.

    Args:
        rounds: each is a process with a memory layout of its own, so that no single one decides.
        known: from many subnets; without it, the fastest of these rounds is taken to be quiet, and both models to get
            slower alike.
    """
    times = _undisturbed_times(rounds)
    return float(np.exp(_lines(times[:, None], known or _plain(times))[0][0]))


def interval(
    rounds: Samples, known: Sensitivity | None = None, *, level: float = 0.9, repeats: int = 400, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of `ratio`: rounds are drawn with replacement, then pairs of samples within each.

    The rounds are drawn first because samples of one process share its memory layout, and so are not independent.
    """
    known = known or _plain(_undisturbed_times(rounds))
    rng = np.random.default_rng(seed)
    drawn = np.stack([_resampled(reference, candidate, repeats, rng) for reference, candidate in rounds])
    picks = rng.integers(len(rounds), size=(len(rounds), repeats))
    ratios = np.exp(_lines(drawn[picks, np.arange(repeats)], known)[0])
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    middle = ratio(rounds, known)
    return min(float(low), middle), max(float(high), middle)


def repeat_error(rounds: Samples, known: Sensitivity | None = None) -> float:
    """Mean relative difference between what two quiet rounds say of `ratio`; 0 for a single round."""
    times = _undisturbed_times(rounds)
    known = known or _plain(times)
    x, y, _ = _coordinates(times[:, None], known)
    _, slopes = _lines(times[:, None], known)
    ratios = np.exp(y - slopes * x)[_quiet(times), 0]
    differences = [abs(a - b) / ((a + b) / 2) for a, b in combinations(ratios, 2)]
    return float(np.mean(differences)) if differences else 0.0


def quiet_totals(candidates: Sequence[FloatArray], quiet: float) -> FloatArray:
    """Times of several subnets in a quiet moment, as `ratio` finds them.

    Args:
        candidates: per subnet what the reference and what the subnet took in each round, shape (rounds, 2).
        quiet: what the reference takes in a quiet moment.
    """
    known = _sensitivity(candidates, quiet)
    return quiet * np.exp([_lines(times[:, None], known)[0][0] for times in candidates])


def at_quiet(times: FloatArray, reference: FloatArray, groups: Sequence[NDArray[np.intp]], quiet: float) -> FloatArray:
    """Times of one thing in several subnets, such as a kernel, each in a quiet moment.

    As `ratio` does it, but slopes of kernels differ more: with its size, one fits into a cache or does not.

    Args:
        times: of all rounds of all subnets, shape (n,).
        reference: what the reference took meanwhile, shape (n,).
        groups: per subnet its rows.
        quiet: what the reference takes in a quiet moment.

    Returns:
        A time per group.
    """
    x, y = np.log(reference / quiet), np.log(times)
    weights = [_weights(x[rows], y[rows]) for rows in groups]
    up, down = (_KERNEL_SCATTER / _USUAL_SLOPE) ** 2, (_KERNEL_SCATTER / _USUAL_SLOPE) ** 2
    for rows, weight in zip(groups, weights, strict=True):
        off = weight * (x[rows] - np.average(x[rows], weights=weight))
        up, down = up + float(off @ y[rows]), down + float(off @ x[rows])
    shrink = (_KERNEL_SCATTER / _OWN_KERNEL_SLOPE) ** 2
    lines = [_line(x[rows], y[rows], weight, up / down, shrink) for rows, weight in zip(groups, weights, strict=True)]
    return np.exp([found for found, _ in lines])


def about_the_median(samples: Sequence[Sequence[int]], quantiles: Sequence[float]) -> FloatArray:
    """Quantiles of the samples of rounds, each relative to the median of its round."""
    relative = np.concatenate([np.asarray(one) / np.median(one) for one in samples])
    return np.asarray(np.quantile(relative, quantiles), dtype=np.float64)


def tail_error(samples: Sequence[Sequence[int]], quantile: float) -> float:
    """Standard error, relative, of what `about_the_median` says of rounds; 0 for a single one.

    Rounds differ in it by far more than their samples explain: how long the slow runs take is up to what else the
    device does.
    """
    tails = [float(about_the_median([one], [quantile])[0]) for one in samples]
    return float(np.std(np.log(tails), ddof=1) / np.sqrt(len(tails))) if len(tails) > 1 else 0.0


def _plain(times: FloatArray) -> Sensitivity:
    return Sensitivity(quiet=float(times[:, 0].min()))


def _lines(times: FloatArray, known: Sensitivity) -> tuple[FloatArray, FloatArray]:
    """Where lines through the rounds meet the quiet moment, and their slopes, both of shape (repeats,).

    Least squares with a normal prior of the slope.

    Args:
        times: undisturbed ones of reference and candidate, shape (rounds, repeats, 2).
        known: what slope to expect.
    """
    x, y, weight = _coordinates(times, known)
    shrink = (known.scatter / _OWN_SLOPE) ** 2
    found = np.average(y - x, axis=0, weights=weight)
    slope = np.ones_like(found)
    for _ in range(2):
        found, slope = _line(x, y, weight, known.slope + known.by_log_ratio * found, shrink)
    return found, slope


def _line(
    x: FloatArray, y: FloatArray, weight: FloatArray, expected: FloatArray | float, shrink: float
) -> tuple[FloatArray, FloatArray]:
    """Value at 0 and slope of lines through points along the first axis, the slope shrunk to what is expected."""
    w, wx, wxx = weight.sum(axis=0), (weight * x).sum(axis=0), (weight * x * x).sum(axis=0)
    wy, wxy = (weight * y).sum(axis=0), (weight * x * y).sum(axis=0)
    slope = (w * (wxy + shrink * expected) - wx * wy) / (w * (wxx + shrink) - wx**2)
    return (wy - slope * wx) / w, slope


def _coordinates(times: FloatArray, known: Sensitivity) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Logarithms of both times over the reference's quiet one, and how much a round counts: shape (rounds, repeats)."""
    x, y = (np.log(times[..., which] / known.quiet) for which in (0, 1))
    return x, y, _weights(x, y)


def _weights(x: FloatArray, y: FloatArray) -> FloatArray:
    excess = np.maximum(x, 0.0) + y - y.min(axis=0)
    found: FloatArray = 1.0 / (1.0 + (excess / _SOFT) ** 2)
    return found


def _quiet(times: FloatArray) -> NDArray[np.bool_]:
    limit = QUIET * np.sort(times[:, 0])[min(1, len(times) - 1)]
    return np.asarray(times[:, 0] <= limit)


def _undisturbed_times(rounds: Samples) -> FloatArray:
    """Of reference and candidate, shape (rounds, 2)."""
    return np.array([(undisturbed(reference), undisturbed(candidate)) for reference, candidate in rounds])


def _resampled(
    reference: Sequence[int], candidate: Sequence[int], repeats: int, rng: np.random.Generator
) -> FloatArray:
    """Undisturbed times of each of many resamples: shape (repeats, 2)."""
    n = min(len(reference), len(candidate))
    picks = rng.integers(n, size=(repeats, n))
    times = np.stack([np.asarray(reference, dtype=np.float64)[:n], np.asarray(candidate, dtype=np.float64)[:n]])
    return np.stack([_fastest(one[picks]) for one in times], axis=1)


def _fastest(ns: FloatArray) -> FloatArray:
    """Mean of the fastest few along the last axis."""
    few = min(_FASTEST, ns.shape[-1])
    found: FloatArray = np.partition(ns, few - 1, axis=-1)[..., :few].mean(axis=-1)
    return found
