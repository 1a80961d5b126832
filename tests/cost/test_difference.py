from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from fn3hw.cost.difference import Difference, difference
from fn3hw.cost.intervals import jackknife
from fn3hw.errors import ProfileError
from fn3hw.profiler import Profile
from tests.cost.profiles import DEVICE, REFERENCE_MS, SETTINGS, as_profile
from tests.cost.synthetic import SPACE, Machine, measure, subnets, true_ms


@dataclass(frozen=True)
class SlowAt(Machine):
    """A device that is slow at one node."""

    node: str = "a.expand"

    def node_us(self, node: str, counts: dict[str, int]) -> float:
        return super().node_us(node, counts) * (8.0 if node == self.node else 1.0)


def of(machine: Machine, seed: int = 0, n: int = 12, **changes: Any) -> Profile:
    return as_profile(measure(machine, subnets(n, seed), noise=0.005, drift=0.02, seed=seed), **changes)


def saving(machine: Machine, gate: str, kept: int) -> float:
    """What keeping so many blocks really saves."""
    return 1 - true_ms(machine, SPACE.from_counts({gate: kept})) / true_ms(machine, SPACE.full())


@pytest.fixture(scope="module")
def slow() -> Difference:
    return difference(of(Machine(), 0), of(SlowAt(), 1))


def test_the_gate_that_costs_more_saves_more(slow: Difference):
    (more,) = (gate for gate in slow.gates if gate.is_certain and gate.whole.difference > 0)
    assert more.gate.name == "a"
    assert (more.half.kept, more.whole.kept) == (48, 24)
    assert 0.1 < more.half.difference < more.whole.difference


def test_gates_are_sorted_by_how_far_they_exceed_the_intervals(slow: Difference):
    excesses = [max(gate.excess, 0.0) for gate in slow.gates]
    assert excesses == sorted(excesses, reverse=True) and excesses[0] > excesses[-1]
    for gate in slow.gates:
        for saving_ in (gate.half, gate.whole):
            low, high = saving_.interval
            assert (saving_.excess > 0) == (not low <= 0 <= high)


def test_the_intervals_hold_what_each_gate_really_saves(slow: Difference):
    held = []
    for one in slow.gates:
        for found in (one.half, one.whole):
            truth = [saving(machine, one.gate.name, found.kept) for machine in (Machine(), SlowAt())]
            held += [low <= true <= high for low, true, high in zip(found.low, truth, found.high, strict=True)]
            low, high = found.interval
            held.append(low <= truth[1] - truth[0] <= high)
    assert np.mean(held) > 0.85


def test_milliseconds_are_shares_of_each_ones_own_full_network(slow: Difference):
    assert slow.reference_latency_ms == (REFERENCE_MS, REFERENCE_MS)
    for gate in slow.gates:
        for side in (0, 1):
            assert gate.whole.ms[side] == pytest.approx(gate.whole.share[side] * REFERENCE_MS, rel=0.02)


def test_the_ladder_has_every_count_worth_keeping(slow: Difference):
    ladder = next(gate.ladder for gate in slow.gates if gate.gate.name == "a")
    assert [rung.kept for rung in ladder] == [96, 80, 64, 48, 32, 24]
    assert ladder[0].share == pytest.approx((0.0, 0.0))
    assert (np.diff([rung.share for rung in ladder], axis=0) >= 0).all()
    assert min(ladder[-1].share) > 0


def test_what_is_noise_or_speed_alone_is_no_difference():
    found = difference(of(Machine(), 0), of(Machine(scale=2.0), 1))
    assert [gate.gate.name for gate in found.gates if gate.is_certain] == []


@pytest.fixture(scope="module")
def elsewhere() -> Difference:
    """The same measurements said to be taken on an emulator, with other settings."""
    device = {**DEVICE, "cpu_features": ["avx", "avx512f", "fma"], "governor": "performance", "emulated": True}
    settings = {**SETTINGS, "effort": {"rounds": 5, "seconds": 0.4}, "blockwise": {"fc": [0.7, 0.8]}}
    return difference(of(Machine(), n=8), of(Machine(), n=8, device=device, settings=settings, verdict="noisy"))


def test_device_settings_and_noise_differ_and_no_gate(elsewhere: Difference):
    assert elsewhere.device == {
        "cpu_features": (["avx", "fma"], ["avx", "avx512f", "fma"]),
        "emulated": (False, True),
        "governor": (None, "performance"),
    }
    assert elsewhere.settings == {"effort.rounds": (3, 5), "blockwise": ([], ["fc"])}
    assert elsewhere.noise["verdict"] == ("stable", "noisy")
    for gate in elsewhere.gates:
        assert max(abs(gate.half.difference), abs(gate.whole.difference)) < 1e-9 and not gate.is_certain


def test_an_emulator_has_no_milliseconds(elsewhere: Difference):
    assert elsewhere.reference_latency_ms == (REFERENCE_MS, None)
    document = json.loads(json.dumps(elsewhere.to_json(), allow_nan=False))
    assert document["reference_latency_ms"] == [REFERENCE_MS, None]
    for gate in document["gates"]:
        for part in ("half", "all"):
            real, emulated = gate[part]["saved_ms"]
            assert real is not None and emulated is None


def test_profiles_of_different_networks_are_refused():
    with pytest.raises(ProfileError, match="different networks") as caught:
        difference(of(Machine(), n=4), of(Machine(), n=4, digest="1" * 64))
    assert "000000000000" in caught.value.message and "111111111111" in caught.value.message


def test_the_jackknife_of_a_mean_is_its_standard_error():
    sample = np.random.default_rng(0).normal(size=12)
    left_out = np.array([[np.delete(sample, i).mean()] for i in range(12)])
    low, high = jackknife(np.array([sample.mean()]), left_out, level=0.9)
    reach = t.ppf(0.95, 11) * sample.std(ddof=1) / np.sqrt(12)
    assert (high - low)[0] == pytest.approx(2 * reach)
    assert (low + high)[0] / 2 == pytest.approx(sample.mean())
