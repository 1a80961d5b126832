"""From raw samples to a ratio, its interval, and how well it repeats.

What disturbs a sample makes it slower, never faster, so the fastest samples are nearest to the time without
disturbance. The very fastest one may be an accident of the clock: the mean of the three fastest ones stands for a
round. Rounds count the more the nearer both models came to their fastest round. ``benchmarks/estimators.py`` compares
this with other ways to take a ratio, by what the one and the other half of a subnet's rounds give.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

QUIET = 1.1
"""A round is quiet where the reference took at most this times what it took in the second fastest round."""
_FASTEST = 3
"""Samples whose mean stands for a round."""
_SOFT = 0.05
"""A round in which both models together took this share longer than in their fastest ones counts 1/e."""

Samples = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Per round the alternating samples of the reference and of the candidate, in ns."""


def undisturbed(ns: Sequence[int]) -> float:
    """Time of a model in one round, undisturbed: the mean of its three fastest samples."""
    return float(_fastest(np.asarray(ns, dtype=np.float64)))


def quiet(rounds: Samples) -> Samples:
    """The rounds with the reference about as fast as in the second fastest; two at least."""
    times = [undisturbed(reference) for reference, _ in rounds]
    limit = QUIET * sorted(times)[min(1, len(times) - 1)]
    return [one for one, time in zip(rounds, times, strict=True) if time <= limit]


def round_ratio(reference_ns: Sequence[int], candidate_ns: Sequence[int]) -> float:
    """Time of the candidate relative to the reference in one round."""
    return undisturbed(candidate_ns) / undisturbed(reference_ns)


def ratio(rounds: Samples) -> float:
    """Time of the candidate relative to the reference: the geometric mean over the rounds, quieter ones counting more.

    Each round is a process with a memory layout of its own, so that no single one decides.
    """
    times = np.array([(undisturbed(reference), undisturbed(candidate)) for reference, candidate in rounds])
    return float(_weighted(times[:, None])[0])


def interval(rounds: Samples, *, level: float = 0.9, repeats: int = 400, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval of `ratio`: rounds are drawn with replacement, then pairs of samples within each.

    The rounds are drawn first because samples of one process share its memory layout, and so are not independent.
    """
    rng = np.random.default_rng(seed)
    drawn = np.stack([_resampled(reference, candidate, repeats, rng) for reference, candidate in rounds])
    picks = rng.integers(len(rounds), size=(len(rounds), repeats))
    ratios = _weighted(drawn[picks, np.arange(repeats)])
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    middle = ratio(rounds)
    return min(float(low), middle), max(float(high), middle)


def repeat_error(rounds: Samples) -> float:
    """Mean relative difference between the ratios of two quiet rounds; 0 for a single round."""
    ratios = [round_ratio(reference, candidate) for reference, candidate in quiet(rounds)]
    differences = [abs(a - b) / ((a + b) / 2) for a, b in combinations(ratios, 2)]
    return float(np.mean(differences)) if differences else 0.0


def _weighted(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """From undisturbed times of reference and candidate, shape (rounds, repeats, 2), to ratios, shape (repeats,)."""
    logs = np.log(times)
    weights = np.exp(-(logs - logs.min(axis=0)).sum(axis=-1) / _SOFT)
    found: NDArray[np.float64] = np.exp(np.average(logs[..., 1] - logs[..., 0], axis=0, weights=weights))
    return found


def _resampled(
    reference: Sequence[int], candidate: Sequence[int], repeats: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Undisturbed times of each of many resamples: shape (repeats, 2)."""
    n = min(len(reference), len(candidate))
    picks = rng.integers(n, size=(repeats, n))
    times = np.stack([np.asarray(reference, dtype=np.float64)[:n], np.asarray(candidate, dtype=np.float64)[:n]])
    return np.stack([_fastest(one[picks]) for one in times], axis=1)


def _fastest(ns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the fastest few along the last axis."""
    few = min(_FASTEST, ns.shape[-1])
    found: NDArray[np.float64] = np.partition(ns, few - 1, axis=-1)[..., :few].mean(axis=-1)
    return found
