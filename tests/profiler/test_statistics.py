from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.profiler import statistics


def rounds(true_ratio: float, *, spread: float, n_rounds: int = 3, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    rng = np.random.default_rng(seed)

    def one(scale: float) -> list[int]:
        return [int(scale * (1 + spread * abs(rng.standard_normal()))) for _ in range(60)]

    return [(one(1e6), one(true_ratio * 1e6)) for _ in range(n_rounds)]


@given(st.floats(0.05, 3), st.floats(1, 50), st.integers(0, 3))
def test_what_slows_both_down_does_not_change_the_ratio(true_ratio: float, slowdown: float, seed: int) -> None:
    samples = rounds(true_ratio, spread=0.02, seed=seed)
    slower = [([int(slowdown * r) for r in a], [int(slowdown * c) for c in b]) for a, b in samples]
    assert statistics.ratio(samples) == pytest.approx(true_ratio, rel=0.03)
    assert statistics.ratio(slower) == pytest.approx(statistics.ratio(samples), rel=1e-3)


def test_disturbed_samples_do_not_change_the_ratio() -> None:
    samples = rounds(0.5, spread=0.005)
    disturbed = [(r, [10 * c if i % 3 == 0 else c for i, c in enumerate(cs)]) for r, cs in samples]
    assert statistics.ratio(disturbed) == pytest.approx(0.5, rel=0.01)


def test_the_interval_holds_the_ratio_and_widens_with_noise_between_rounds() -> None:
    quiet = rounds(0.7, spread=0.002)
    low, high = statistics.interval(quiet)
    assert low <= statistics.ratio(quiet) <= high
    assert (high - low) < 0.01
    drifting = [(r, [int(c * scale) for c in cs]) for (r, cs), scale in zip(quiet, (0.9, 1.0, 1.1), strict=True)]
    wide_low, wide_high = statistics.interval(drifting)
    assert wide_high - wide_low > 10 * (high - low)
    assert statistics.repeat_error(drifting) == pytest.approx(0.134, abs=0.01)
    assert statistics.repeat_error(quiet[:1]) == 0
    assert statistics.interval(quiet) == statistics.interval(quiet)


@given(st.floats(0.05, 3), st.floats(1.2, 3), st.integers(1, 4))
def test_rounds_with_a_busy_neighbour_hardly_count(true_ratio: float, slowdown: float, busy: int) -> None:
    calm = rounds(true_ratio, spread=0.01)
    loud = [([int(slowdown * r) for r in a], [int(2 * slowdown * c) for c in b]) for a, b in calm]
    mixed = [*(loud * 2)[:busy], *calm]
    assert statistics.quiet(mixed) == calm
    assert statistics.ratio(mixed) == pytest.approx(statistics.ratio(calm), rel=0.1 * np.exp(-np.log(slowdown) / 0.05))
    assert statistics.repeat_error(mixed) == statistics.repeat_error(calm)
    assert len(statistics.quiet([calm[0], loud[0]])) == 2  # one round alone would have nothing to agree with
