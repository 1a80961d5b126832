"""A profile with fewer raw samples per round, small enough to be kept in profiles/.

Of each round it keeps evenly spaced samples; ratios, intervals and kernels stay those of all samples.
Usage: python benchmarks/thin.py PROFILE OUTPUT [SAMPLES]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fn3hw.profiler import Profile

RAW = ("reference_ns", "candidate_ns", "reference_cpu_ns", "candidate_cpu_ns")


def main() -> None:
    profile = Profile.read(Path(sys.argv[1]))
    most = int(sys.argv[3]) if len(sys.argv) > 3 else 8
    thinned = profile.model_copy(
        update={
            "measurements": tuple(
                m.model_copy(update={"rounds": tuple(one.model_copy(update=kept(one, most)) for one in m.rounds)})
                for m in profile.measurements
            )
        }
    )
    thinned.write(Path(sys.argv[2]))


def kept(one: object, most: int) -> dict[str, tuple[int, ...]]:
    """The samples of a round that stay; those of both models and clocks belong together."""
    picked = {}
    for name in RAW:
        samples = getattr(one, name)
        rows = np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int))
        picked[name] = tuple(samples[row] for row in rows)
    return picked


if __name__ == "__main__":
    main()
