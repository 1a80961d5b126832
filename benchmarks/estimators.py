"""How well ways to take a ratio from raw samples repeat, on profiles that were measured before.

Two halves of a subnet's rounds, in all ways to halve them, give a ratio each; what they differ by is averaged over the
subnets with at least four rounds. Of two profiles of the same subnets, also what the profiles differ by.
Usage: python benchmarks/estimators.py PROFILE [PROFILE ...]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np
from report import report

from fn3hw.profiler import Profile, statistics

Samples = statistics.Samples
Known = statistics.Sensitivity
Estimator = Callable[[Samples, Known], float]


def main() -> None:
    paths = [Path(argument) for argument in sys.argv[1:]]
    rounds = {path.stem: samples(Profile.read(path)) for path in paths}
    known = {name: statistics.sensitivity(list(own.values())) for name, own in rounds.items()}
    report(
        "estimators",
        {
            "sensitivity": {name: asdict(one) for name, one in known.items()},
            "halves_of_a_profile": {
                name: {way: spread(halves(own, known[name], ESTIMATORS[way])) for way in ESTIMATORS}
                for name, own in rounds.items()
            },
            "two_profiles": {
                f"{a}, {b}": {
                    way: spread(shared(rounds[a], rounds[b], known[a], ESTIMATORS[way])) for way in ESTIMATORS
                }
                for a, b in combinations(rounds, 2)
                if rounds[a].keys() & rounds[b].keys()
            },
        },
    )


def samples(profile: Profile) -> dict[str, Samples]:
    """Per subnet its rounds' samples on the thread's own clock."""
    return {m.subnet: [(one.reference_cpu_ns, one.candidate_cpu_ns) for one in m.rounds] for m in profile.measurements}


def halves(rounds: dict[str, Samples], known: Known, estimator: Estimator) -> Iterator[float]:
    """Relative differences between the halves of each subnet's first six rounds."""
    for own in (every[:6] for every in rounds.values()):
        n = len(own)
        for chosen in combinations(range(n), n // 2) if n >= 4 else ():
            if 0 in chosen:
                rest = [own[i] for i in range(n) if i not in chosen]
                yield abs(float(np.log(estimator([own[i] for i in chosen], known) / estimator(rest, known))))


def shared(
    first: dict[str, Samples], second: dict[str, Samples], known: Known, estimator: Estimator
) -> Iterator[float]:
    """Relative differences of each subnet between two profiles, by what the first shows of a quiet moment."""
    for name in first.keys() & second.keys():
        yield abs(estimator(second[name], known) / estimator(first[name], known) - 1)


def spread(differences: Iterator[float]) -> dict[str, float]:
    """Mean, median and largest difference in percent."""
    found = 100 * np.array(list(differences))
    return {
        "mean": float(found.mean()),
        "median": float(np.median(found)),
        "largest": float(found.max()),
        "n": len(found),
    }


def quantile_over_rounds(quantile: float) -> Estimator:
    """Median over the quiet rounds of the ratio of a quantile; 0 is the fastest sample."""
    return lambda own, _: float(np.median([np.quantile(c, quantile) / np.quantile(r, quantile)
                                        for r, c in statistics.quiet(own)]))  # fmt: skip


def fastest_of_all(few: int) -> Estimator:
    """Mean of the candidate's few fastest samples over that of the reference's, of all rounds together."""
    return lambda own, _: float(
        np.divide(*(np.sort(np.concatenate(ns))[:few].mean() for ns in list(zip(*own, strict=True))[::-1]))
    )


def plain_mean(own: Samples, _: Known) -> float:
    """Geometric mean of the ratios of the rounds, all of which count alike."""
    return float(np.exp(np.mean([np.log(statistics.round_ratio(r, c)) for r, c in own])))


ESTIMATORS: dict[str, Estimator] = {
    "ours: three fastest, a line to the quiet moment": statistics.ratio,
    "the same, as if both got slower alike": lambda own, known: statistics.ratio(own),
    "three fastest, mean over rounds": plain_mean,
    "fastest sample, median over quiet rounds": quantile_over_rounds(0.0),
    "fastest sample of all rounds": fastest_of_all(1),
    "six fastest samples of all rounds": fastest_of_all(6),
    "2% quantiles, median over quiet rounds": quantile_over_rounds(0.02),
    "lower deciles, median over quiet rounds": quantile_over_rounds(0.1),
    "medians, median over quiet rounds": quantile_over_rounds(0.5),
}


if __name__ == "__main__":
    main()
