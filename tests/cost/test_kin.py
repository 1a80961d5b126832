from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fn3hw.cost.basis import Rule
from fn3hw.cost.evidence import Evidence
from fn3hw.cost.kin import with_priors
from fn3hw.cost.parts import Part, blank_part, fit_part
from fn3hw.cost.state import Encoder, States
from fn3hw.cost.units import UnitTable
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace

LINES = {"a": (2.0, 1.0), "b": (5.0, 0.2), "c": (1.0, 3.0), "d": (0.5, 0.7)}
"""Per unit its constant and its factor of the common function."""
SPACE = SearchSpace([*(Gate(name, "channel", 96, 8) for name in LINES), Gate("stage", "layer", 1, 0)])
TABLE = UnitTable({name: (name, "stage[0]") if name == "a" else (name,) for name in LINES}, Encoder(SPACE))
RULE = Rule(16, 4)


def common(counts: np.ndarray) -> np.ndarray:
    """A staircase with a penalty off multiples of four."""
    return np.ceil(counts / 16) + (counts % 4 != 0) * (1 + counts / 16)


def states(n: int, seed: int) -> States:
    rng = np.random.default_rng(seed)
    return TABLE.encoder.encode([SPACE.random(rng) for _ in range(n)])


def evidence(n: int, *, noise: float, seed: int = 0) -> Evidence:
    seen, rng = states(n, seed), np.random.default_rng(seed)
    times = np.stack([truth(seen, k) * np.exp(noise * rng.normal(size=n)) for k in range(len(LINES))], axis=1)
    return Evidence(seen, times, np.ones((n, len(LINES), 1)), times.sum(axis=1) + 20.0, np.full(n, noise))


def truth(seen: States, k: int) -> np.ndarray:
    constant, factor = list(LINES.values())[k]
    there = seen.branches[:, 0] if k == 0 else 1.0
    return np.asarray((constant + factor * common(seen.counts[:, k])) * there)


def parts(kin: str | None) -> list[Part]:
    blank = [blank_part(TABLE, k) for k in range(len(LINES))]
    return [replace(part, rules=(RULE,), kin=kin) for part in blank]


def errors(fitted: list[Part]) -> list[float]:
    unseen = states(200, 99)
    return [float(np.abs(part.predict(unseen) - truth(unseen, k)).mean()) for k, part in enumerate(fitted)]


def test_parts_that_run_the_same_kernels_are_known_from_fewer_measurements() -> None:
    gains = []
    for seed in range(10):
        seen = evidence(8, noise=0.05, seed=seed)
        alone, together = (
            [fit_part(part, seen.of([k])) for k, part in enumerate(with_priors(parts(kin), seen))]
            for kin in (None, "alike")
        )
        gains.append(np.array(errors(together)) / errors(alone))
    assert np.mean(gains) < 0.85


def test_the_common_function_is_found_with_a_constant_and_a_factor_of_each_part() -> None:
    seen = evidence(60, noise=0.0)
    fitted = [fit_part(part, seen.of([k])) for k, part in enumerate(with_priors(parts("alike"), seen))]
    sizes = [float(truth(states(200, 99), k).mean()) for k in range(len(LINES))]
    assert np.array(errors(fitted)) / sizes == pytest.approx([0.0] * len(LINES), abs=0.01)
    assert all(part.prior is not None for part in fitted)


def test_parts_that_were_never_seen_have_no_prior() -> None:
    seen = evidence(30, noise=0.0)
    gone = seen.take(np.flatnonzero(~seen.states.branches[:, 0]))
    found = with_priors(parts("alike"), gone)
    assert [part.prior is None for part in found] == [True, False, False, False]
    assert with_priors(parts(None), seen) == parts(None)


def test_a_part_whose_time_does_not_vary_still_has_a_share_of_the_common_function() -> None:
    """A factor of all but zero would blow up what the common function is where only this part was measured."""
    seen = evidence(40, noise=0.0)
    times, there = seen.times.copy(), seen.states.branches[:, 0]
    times[there, 0] = 7.0
    flat = with_priors(parts("alike"), replace(seen, times=times))[0]
    assert flat.prior is not None
    varied = flat.terms(seen.states.take(np.flatnonzero(there)))[:, 1:] @ flat.prior[1:]
    assert varied.mean() > 0.01 * 7.0
