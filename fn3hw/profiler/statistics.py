"""From raw samples to a ratio, its interval, and how well it repeats.

The ratio of a round is that of the lower deciles. What disturbs a sample makes it slower, never faster, so the lower
decile is the time without disturbance, and two rounds agree on it best. Seen on a shared machine (two cores, four to
six programs running, 20 subnets, 3 rounds), mean difference of two rounds of a subnet:

=============================  ===============  ==========================
on the thread's own clock      0.02 to 0.6 ms   mobilenet_v2 (0.6 to 8 ms)
=============================  ===============  ==========================
ratio of lower deciles         0.5%             1.6%
ratio of lower quartiles       1.0%             2.1%
ratio of medians               3.9%             3.1%
median of paired ratios        3.2%             3.1%
ratio of medians, wall clock   3.8%             9.4%
=============================  ===============  ==========================
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

UNDISTURBED = 0.1
"""The quantile of the samples that stands for a round."""

QUIET = 1.1
"""A round counts where the reference took at most this times what it took in the second fastest round."""

Samples = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Per round the alternating samples of the reference and of the candidate, in ns."""


def reference_time(reference_ns: Sequence[int]) -> float:
    """Time of the reference in one round, undisturbed."""
    return float(np.quantile(reference_ns, UNDISTURBED))


def quiet(rounds: Samples) -> Samples:
    """The rounds that count: those with the reference about as fast as in the second fastest; two at least."""
    times = [reference_time(reference) for reference, _ in rounds]
    limit = QUIET * sorted(times)[min(1, len(times) - 1)]
    return [one for one, time in zip(rounds, times, strict=True) if time <= limit]


def round_ratio(reference_ns: Sequence[int], candidate_ns: Sequence[int]) -> float:
    """Time of the candidate relative to the reference in one round."""
    return float(np.quantile(candidate_ns, UNDISTURBED) / np.quantile(reference_ns, UNDISTURBED))


def ratio(rounds: Samples) -> float:
    """Time of the candidate relative to the reference: the median over the rounds that count."""
    return float(np.median([round_ratio(reference, candidate) for reference, candidate in quiet(rounds)]))


def interval(rounds: Samples, *, level: float = 0.9, repeats: int = 400, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval of `ratio`: rounds are drawn with replacement, then pairs of samples within each.

    The rounds are drawn first because samples of one process share its memory layout, and so are not independent.
    """
    rng, rounds = np.random.default_rng(seed), quiet(rounds)
    drawn = np.stack([_resampled_ratios(r, c, repeats, rng) for r, c in rounds])
    picks = rng.integers(len(rounds), size=(len(rounds), repeats))
    ratios = np.median(drawn[picks, np.arange(repeats)], axis=0)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def repeat_error(rounds: Samples) -> float:
    """Mean relative difference between the ratios of two rounds that count; 0 for a single round."""
    ratios = [round_ratio(reference, candidate) for reference, candidate in quiet(rounds)]
    differences = [abs(a - b) / ((a + b) / 2) for a, b in combinations(ratios, 2)]
    return float(np.mean(differences)) if differences else 0.0


def _resampled_ratios(
    reference: Sequence[int], candidate: Sequence[int], repeats: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    n = min(len(reference), len(candidate))
    picks = rng.integers(n, size=(repeats, n))
    top = np.quantile(np.asarray(candidate, dtype=np.float64)[picks], UNDISTURBED, axis=1)
    bottom = np.quantile(np.asarray(reference, dtype=np.float64)[picks], UNDISTURBED, axis=1)
    ratios: NDArray[np.float64] = top / bottom
    return ratios
