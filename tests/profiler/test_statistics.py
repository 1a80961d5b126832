from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
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
    assert statistics.ratio(mixed) == pytest.approx(statistics.ratio(calm), rel=0.002 / np.log(slowdown))
    assert statistics.repeat_error(mixed) == pytest.approx(statistics.repeat_error(calm), abs=1e-4)
    assert len(statistics.quiet([calm[0], loud[0]])) == 2  # one round alone would have nothing to agree with


def busy_rounds(
    true_ratio: float, slope: float, *, n_rounds: int = 6, least: float = 0.0, seed: int = 0
) -> list[tuple[list[int], list[int]]]:
    """Rounds in which the reference takes up to 20% longer than in a quiet moment, and the candidate the slope's share.

    Args:
        true_ratio: in a quiet moment, when the reference takes a millisecond.
        slope: of the candidate's slowing down.
        n_rounds: how many.
        least: how much slower the reference is at least.
        seed: of what is random.
    """
    rng = np.random.default_rng(seed)
    found = []
    for busy in rng.uniform(least, 0.2, n_rounds):
        pair = [1e6 * np.exp(busy), true_ratio * 1e6 * np.exp(slope * busy)]
        found.append(tuple([int(time * (1 + 0.003 * abs(rng.standard_normal()))) for _ in range(40)] for time in pair))
    return found  # type: ignore[return-value]


@given(st.floats(0.3, 1.0), st.floats(-0.4, 0.2), st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_a_busy_neighbour_does_not_change_what_is_said_of_a_quiet_moment(
    slope: float, by_log_ratio: float, seed: int
) -> None:
    ratios = np.exp(np.random.default_rng(seed).uniform(-1, 0.5, 30))
    candidates = [
        busy_rounds(one, slope + by_log_ratio * np.log(one), seed=100 * seed + i) for i, one in enumerate(ratios)
    ]
    quiet = [([1_000_000] * 10, [1_000_000] * 10)]
    known = statistics.sensitivity([*candidates, *[quiet] * 20])
    assert known.quiet == pytest.approx(1e6, rel=0.02)
    assert known.slope == pytest.approx(slope, abs=0.08) and known.by_log_ratio == pytest.approx(by_log_ratio, abs=0.15)
    errors = [statistics.ratio(one, known) / true - 1 for one, true in zip(candidates, ratios, strict=True)]
    assert np.abs(errors).mean() < 0.01
    busier = [busy_rounds(one, slope + by_log_ratio * np.log(one), least=0.15, seed=i) for i, one in enumerate(ratios)]
    off = [statistics.ratio(one, known) / true - 1 for one, true in zip(busier, ratios, strict=True)]
    assert np.abs(off).mean() < 0.015
    for rounds_ in candidates:
        low, high = statistics.interval(rounds_, known)
        assert low <= statistics.ratio(rounds_, known) <= high and high / low < 1.05
        assert statistics.repeat_error(rounds_, known) <= statistics.repeat_error(rounds_) + 0.01


def test_one_round_each_teaches_no_slope() -> None:
    known = statistics.sensitivity([rounds(0.5, spread=0.01, n_rounds=1, seed=seed) for seed in range(4)])
    assert (known.slope, known.by_log_ratio) == (1.0, 0.0)
    one = rounds(0.5, spread=0.01, n_rounds=1)
    assert statistics.ratio(one, known) == pytest.approx(statistics.round_ratio(*one[0]), rel=1e-9)


def test_quantiles_are_those_of_each_round_about_its_median() -> None:
    samples = [[10, 20, 30], [100, 200, 300]]
    assert statistics.about_the_median(samples, [0.0, 0.5, 1.0]) == pytest.approx([0.5, 1.0, 1.5])


def test_tails_that_differ_between_rounds_are_unsure() -> None:
    rng = np.random.default_rng(0)

    def measured(slow: list[float]) -> list[list[int]]:
        return [[*rng.normal(1000, 1, 80).astype(int).tolist(), *[int(1000 * factor)] * 20] for factor in slow]

    alike, apart = (statistics.tail_error(measured(slow), 0.9) for slow in ([1.2] * 6, [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]))
    assert alike < 0.005
    assert apart == pytest.approx(np.std(np.log([1.0, 1.1, 1.2, 1.3, 1.4, 1.5]), ddof=1) / 6**0.5, rel=0.05)
    assert statistics.tail_error(measured([1.2]), 0.9) == 0.0
