"""Whether measurements can be trusted, why not, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from fn3hw.profiler import statistics
from fn3hw.profiler.measuring import Round
from fn3hw.profiler.record import Measurement, Noise

WIDE_INTERVAL = 0.04
"""A median width of the 90% intervals above this is noisy: it would hide differences that a cost model should see."""

WIDEST_INTERVAL = 0.10
"""No more than a tenth of the subnets may have an interval wider than this."""

REPEAT_ERROR = 0.03
"""Two rounds of a subnet differ by more than this on average: noisy."""

Verdict = tuple[Literal["stable", "noisy"], tuple[str, ...], tuple[str, ...]]


def noise(measurements: Sequence[Measurement], known: statistics.Sensitivity | None = None) -> Noise:
    """How well measurements repeat, with what is known of how they follow the reference."""
    widths = [(m.ratio_high - m.ratio_low) / m.ratio for m in measurements]
    rounds = [one for m in measurements for one in m.rounds]
    repeats = [statistics.repeat_error([one.samples for one in m.rounds], known) for m in measurements]
    shares = [one.conditions["cpu_s"] / max(one.conditions["wall_s"], 1e-9) for one in rounds]
    return Noise(
        repeat_mape=float(np.mean(repeats)),
        interval_width=float(np.median(widths)),
        widest_interval=float(np.max(widths)),
        cpu_share=float(np.mean(shares)),
        disturbed_rounds=sum(bool(one.faults) for one in rounds),
        rejected_rounds=sum(one.rejected for one in rounds),
    )


def judge(seen: Noise, measurements: Sequence[Measurement], device: Mapping[str, Any]) -> Verdict:
    """The verdict with its reasons and what to do; reasons that do not make it noisy are given too."""
    rounds = [one for m in measurements for one in m.rounds]
    grave: list[str] = []
    slight: list[str] = []
    if seen.interval_width > WIDE_INTERVAL:
        grave.append(
            f"The intervals are {100 * seen.interval_width:.1f}% wide in the median, above {100 * WIDE_INTERVAL:.0f}%."
        )
    wide = sum((m.ratio_high - m.ratio_low) / m.ratio > WIDEST_INTERVAL for m in measurements)
    if wide > len(measurements) / 10:
        grave.append(f"{wide} of {len(measurements)} subnets have an interval wider than {100 * WIDEST_INTERVAL:.0f}%.")
    if seen.repeat_mape > REPEAT_ERROR:
        grave.append(f"Two rounds of a subnet differ by {100 * seen.repeat_mape:.1f}% on average.")
    share = seen.disturbed_rounds / len(rounds)
    if seen.disturbed_rounds:
        text = f"{seen.disturbed_rounds} of {len(rounds)} rounds stayed disturbed: {_usual_fault(rounds)}."
        (grave if share > 0.25 else slight).append(text)
    if any(one.conditions.get("waited_s", 0.0) > 1.0 for one in rounds):
        slight.append("Another program measured on the device at the same time; the two took turns.")
    if seen.cpu_share < 0.9 and rounds[0].clock != "instructions":
        slight.append(f"Other programs took {100 * (1 - seen.cpu_share):.0f}% of the time while it measured.")
    advice = _advice(rounds, device) if grave or slight else ()
    return ("noisy" if grave else "stable"), (*grave, *slight), advice


def _usual_fault(rounds: Sequence[Any]) -> str:
    kinds = [fault.split(":")[0] for one in rounds for fault in one.faults]
    return ", ".join(sorted(set(kinds), key=kinds.count, reverse=True))


def _advice(rounds: Sequence[Round] | Sequence[Any], device: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = {fault.split(":")[0] for one in rounds for fault in one.faults}
    advice = []
    if "clock" in kinds:
        advice.append("Let the device's clock settle (timedatectl shows it), and measure again.")
    if kinds & {"preempted", "drift", "slow"} or not kinds:
        advice.append("Close other programs on the device and measure again; more rounds narrow the intervals.")
    if "steal" in kinds:
        advice.append("The machine is shared with others: measure at another time, or on a machine of your own.")
    if "throttled" in kinds:
        advice.append("Cool the device, or lower its maximum frequency, and measure again.")
    if "frequency" in kinds or device.get("governor") not in (None, "performance"):
        advice.append("Fix the frequency on the device: sudo cpupower frequency-set -g performance")
    return tuple(advice)
