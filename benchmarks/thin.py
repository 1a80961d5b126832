"""A profile with fewer raw samples per round, small enough to be kept in profiles/.

Of each round it keeps evenly spaced samples; ratios, intervals and kernels stay those of all samples.
Usage: python benchmarks/thin.py PROFILE OUTPUT [SAMPLES]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fn3hw.profiler import Profile
from fn3hw.profiler.record import RoundRecord

SAMPLES = 8
RAW = ("reference_ns", "candidate_ns", "reference_cpu_ns", "candidate_cpu_ns")


def main() -> None:
    most = int(sys.argv[3]) if len(sys.argv) > 3 else SAMPLES
    thinned(Profile.read(Path(sys.argv[1])), most).write(Path(sys.argv[2]))


def thinned(profile: Profile, most: int = SAMPLES) -> Profile:
    """The profile with at most so many raw samples of each round."""
    measurements = (
        m.model_copy(update={"rounds": tuple(with_fewer(one, most) for one in m.rounds)}) for m in profile.measurements
    )
    return profile.model_copy(update={"measurements": tuple(measurements)})


def with_fewer(one: RoundRecord, most: int) -> RoundRecord:
    """The round with some of its samples; those of both models and clocks belong together."""
    last = len(one.reference_ns) - 1
    rows = np.unique(np.linspace(0, last, min(most, last + 1)).round().astype(int))
    samples = {name: getattr(one, name) for name in RAW}
    return one.model_copy(update={name: tuple(of[row] for row in rows) for name, of in samples.items() if of})


if __name__ == "__main__":
    main()
