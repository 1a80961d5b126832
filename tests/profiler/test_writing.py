from __future__ import annotations

import pytest

from fn3hw.profiler.device import Session
from fn3hw.profiler.kernels import Kernel, quiet_times
from fn3hw.profiler.measuring import Effort, Round
from fn3hw.profiler.profiling import Progress, profile
from tests.profiler.fake import FakeSupernet


def test_a_profile_has_all_that_was_measured(local: Session, network: FakeSupernet, quick: Effort) -> None:
    steps: list[Progress] = []
    found = profile(network, local, 4, holdout=2, effort=quick, seed=1, name="fake", progress=steps.append)
    assert [m.role for m in found.measurements] == ["fit"] * 4 + ["holdout"] * 2
    assert (len(found.fitted), len(found.held_out)) == (4, 2)
    assert found.network.digest == network.architecture
    assert found.device == local.device.key
    assert found.reference.n_rounds == 12
    full = next(m for m in found.measurements if m.subnet == network.space.full().id)
    smallest = next(m for m in found.measurements if m.subnet == network.space.smallest().id)
    assert smallest.latency_ms < full.latency_ms
    assert full.size_bytes == len(network.deployed(network.space.full()).SerializeToString())
    assert {"conv", "conv2", "fc", "out"} <= full.kernels.keys()
    assert "conv2" not in smallest.kernels
    for m in found.measurements:
        assert m.ratio_low <= m.ratio <= m.ratio_high
        assert m.latency_p10_ms <= m.latency_p50_ms <= m.latency_p90_ms <= m.latency_p99_ms
        assert m.latency_ms == pytest.approx(m.ratio * found.reference.latency_ms)
        assert m.peak_mib > m.runtime_mib > 0
        assert [one.number for one in m.rounds] == [0, 1]
    assert [step.done for step in steps] == list(range(1, 19))
    assert {step.total for step in steps} == {18}


def test_all_the_time_of_kernels_is_told_of_some_node(
    local: Session, network: FakeSupernet, quick: Effort, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: dict[str, dict[Kernel, float]] = {}

    def seen(rounds: list[Round], quiet_ns: float) -> dict[str, dict[Kernel, float]]:
        times.update(quiet_times(rounds, quiet_ns))
        return times

    monkeypatch.setattr("fn3hw.profiler.writing.quiet_times", seen)
    found = profile(network, local, 4, effort=quick)
    assert all(m.kernels for m in found.measurements)
    for m in found.measurements:
        assert sum(m.kernels.values()) == pytest.approx(sum(times[m.subnet].values()), abs=0.1)
        assert m.operators.keys() == m.kernels.keys()
        ran = sorted(operator for some in m.operators.values() for operator in some)
        assert ran == sorted(operator for _, operator, _ in times[m.subnet])
