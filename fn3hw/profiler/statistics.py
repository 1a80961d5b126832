"""From raw samples to a ratio, its interval, and how well it repeats.

What disturbs a sample makes it slower, never faster, so the fastest sample is the time without disturbance. Seen on a
shared machine with busy neighbours (two cores; profiles of 20 subnets of mobilenet_v2 and of 143 subnets of a joint
network), mean difference of the ratios that the one and the other half of a subnet's rounds give
(``benchmarks/estimators.py``):

===============================================  ============  ================
of the rounds with a fast reference              mobilenet_v2  joint, 1 to 2 ms
===============================================  ============  ================
fastest samples, both views below                1.7%          2.8%
fastest samples, median over rounds              2.5%          3.0%
fastest samples of all rounds                    1.5%          3.2%
2% quantiles, median over rounds                 3.5%          3.1%
lower deciles, median over rounds                4.6%          4.5%
===============================================  ============  ================
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

QUIET = 1.1
"""A round counts where the reference took at most this times what it took in the second fastest round."""

Samples = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Per round the alternating samples of the reference and of the candidate, in ns."""


def reference_time(reference_ns: Sequence[int]) -> float:
    """Time of the reference in one round, undisturbed."""
    return float(min(reference_ns))


def quiet(rounds: Samples) -> Samples:
    """The rounds that count: those with the reference about as fast as in the second fastest; two at least."""
    times = [reference_time(reference) for reference, _ in rounds]
    limit = QUIET * sorted(times)[min(1, len(times) - 1)]
    return [one for one, time in zip(rounds, times, strict=True) if time <= limit]


def round_ratio(reference_ns: Sequence[int], candidate_ns: Sequence[int]) -> float:
    """Time of the candidate relative to the reference in one round."""
    return min(candidate_ns) / min(reference_ns)


def ratio(rounds: Samples) -> float:
    """Time of the candidate relative to the reference, from the rounds that count.

    The geometric mean of two views: the median over rounds, each a process with a memory layout of its own; and the
    fastest samples of all rounds, for which one moment without disturbance is enough.
    """
    fastest = np.array([(min(reference), min(candidate)) for reference, candidate in quiet(rounds)], dtype=np.float64)
    return float(_both_views(fastest[:, None])[0])


def interval(rounds: Samples, *, level: float = 0.9, repeats: int = 400, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval of `ratio`: rounds are drawn with replacement, then pairs of samples within each.

    The rounds are drawn first because samples of one process share its memory layout, and so are not independent.
    """
    rng, rounds = np.random.default_rng(seed), quiet(rounds)
    drawn = np.stack([_resampled(reference, candidate, repeats, rng) for reference, candidate in rounds])
    picks = rng.integers(len(rounds), size=(len(rounds), repeats))
    ratios = _both_views(drawn[picks, np.arange(repeats)])
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    middle = ratio(rounds)
    return min(float(low), middle), max(float(high), middle)


def repeat_error(rounds: Samples) -> float:
    """Mean relative difference between the ratios of two rounds that count; 0 for a single round."""
    ratios = [round_ratio(reference, candidate) for reference, candidate in quiet(rounds)]
    differences = [abs(a - b) / ((a + b) / 2) for a, b in combinations(ratios, 2)]
    return float(np.mean(differences)) if differences else 0.0


def _both_views(fastest: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the fastest samples of reference and candidate, shape (rounds, repeats, 2), to ratios, shape (repeats,)."""
    per_round = np.median(fastest[..., 1] / fastest[..., 0], axis=0)
    over_all = fastest[..., 1].min(axis=0) / fastest[..., 0].min(axis=0)
    both: NDArray[np.float64] = np.sqrt(per_round * over_all)
    return both


def _resampled(
    reference: Sequence[int], candidate: Sequence[int], repeats: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The fastest samples of each of many resamples: shape (repeats, 2)."""
    n = min(len(reference), len(candidate))
    picks = rng.integers(n, size=(repeats, n))
    times = np.stack([np.asarray(reference, dtype=np.float64)[:n], np.asarray(candidate, dtype=np.float64)[:n]], axis=1)
    fastest: NDArray[np.float64] = times[picks].min(axis=1)
    return fastest
