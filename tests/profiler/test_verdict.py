from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fn3hw.profiler import statistics
from fn3hw.profiler.measuring import Round
from fn3hw.profiler.record import Measurement, RoundRecord
from fn3hw.profiler.verdict import judge, noise
from tests.profiler.test_measuring import CALM, raw, round_of


def measurement(rounds: list[Round]) -> Measurement:
    samples = [one.samples for one in rounds]
    ratio = statistics.ratio(samples)
    low, high = statistics.interval(samples)
    records = tuple(RoundRecord.of(one.to_json()) for one in rounds)
    return Measurement(
        subnet="1", counts={"g": 1}, role="fit", size_bytes=1, ratio=ratio, ratio_low=low, ratio_high=high,
        latency_ms=1, latency_p10_ms=1, latency_p50_ms=1, latency_p90_ms=1, rounds=records, kernels={}, peak_mib=1,
        peak_mib_no_arena=1, runtime_mib=1, increment_mib=1, load_ms=1, first_run_ms=1,
    )  # fmt: skip


def rounds(scales: tuple[float, ...], **conditions: Any) -> list[Round]:
    return [replace(round_of(raw(scale, CALM | conditions)), number=i) for i, scale in enumerate(scales)]


def test_calm_measurements_are_stable_and_need_no_advice() -> None:
    measurements = [measurement(rounds((0.5, 0.501, 0.5)))] * 5
    seen = noise(measurements)
    assert judge(seen, measurements, {}) == ("stable", (), ())
    assert seen.repeat_mape < 0.002
    assert seen.cpu_share == pytest.approx(0.99)


def test_rounds_that_disagree_are_noisy() -> None:
    measurements = [measurement(rounds((0.5, 0.56, 0.6)))] * 5
    verdict, reasons, advice = judge(noise(measurements), measurements, {})
    assert verdict == "noisy"
    assert any("differ by" in reason for reason in reasons)
    assert advice


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("steal: 9%", "shared"),
        ("throttled: it", "Cool"),
        ("frequency: fell", "cpupower"),
        ("preempted: x", "Close"),
        ("clock: moved", "timedatectl"),
    ],
)
def test_each_disturbance_has_its_advice(fault: str, advice: str) -> None:
    disturbed = [replace(one, faults=(fault,)) for one in rounds((0.5, 0.5, 0.5))]
    verdict, reasons, advices = judge(noise([measurement(disturbed)]), [measurement(disturbed)], {})
    assert verdict == "noisy"
    assert fault.split(":")[0] in reasons[0]
    assert any(advice in text for text in advices)


def test_a_competing_load_is_mentioned_but_forgiven() -> None:
    measurements = [measurement(rounds((0.5, 0.5, 0.5), cpu_s=0.5))]
    verdict, reasons, advice = judge(noise(measurements), measurements, {"governor": "powersave"})
    assert verdict == "stable"
    assert "50%" in reasons[0]
    assert any("performance" in text for text in advice)


def test_programs_that_took_turns_are_mentioned() -> None:
    one = rounds((0.5, 0.5, 0.5))[0]
    waited = replace(one, conditions={**one.conditions, "waited_s": 4.0})
    measurements = [measurement([waited, *rounds((0.5, 0.5, 0.5))[1:]])]
    verdict, reasons, _ = judge(noise(measurements), measurements, {})
    assert verdict == "stable" and any("took turns" in reason for reason in reasons)
