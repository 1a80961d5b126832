"""The fastest way to run a network on a device: ONNX Runtime's settings by turns, each against the best so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from fn3hw.profiler import statistics
from fn3hw.profiler.device import DeviceRefusal, Runtime, Session
from fn3hw.profiler.measuring import Effort

SAMPLE_US: Final = 20_000.0
"""Samples are this long: threads of the one session that still spin would disturb a shorter one of the other."""
_NO_HARDWARE: Final = {"AzureExecutionProvider"}
_CPU: Final = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A setting, compared with the best one before it.

    Args:
        runtime: the setting.
        ratio: its time relative to that of the best one before; None where it was refused.
        low: lower end of the 90% interval of the ratio.
        high: upper end.
        refused: why the device cannot run the network so; empty where it can.
    """

    runtime: Runtime
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    refused: str = ""

    @property
    def is_faster(self) -> bool:
        """Whether it is faster beyond the noise."""
        return self.high is not None and self.high < 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        numbers = {"ratio": self.ratio, "low": self.low, "high": self.high}
        return {"runtime": self.runtime.to_json(), **numbers, "refused": self.refused}


def sweep(
    session: Session,
    model: bytes,
    *,
    start: Runtime,
    effort: Effort,
    seed: int = 0,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> tuple[Runtime, list[Trial]]:
    """The fastest setting that single changes lead to, and all that were tried.

    Args:
        session: the device.
        model: the ONNX file.
        start: the setting to start from.
        effort: how much measuring is enough for one comparison.
        seed: of the inputs.
        on_trial: called after each comparison.

    Raises:
        DeviceError: the device is lost, or cannot run the network as ``start`` says.
    """
    best, tried, trials = start, {start}, []
    improved = True
    while improved:
        improved = False
        for change in _changes(session):
            setting = replace(best, **change)
            if setting in tried or (set(change) == {"spinning"} and best.intra_op_threads == 1):
                continue
            tried.add(setting)
            trial = _compare(session, model, best, setting, effort, seed)
            trials.append(trial)
            on_trial(trial)
            if trial.is_faster:
                best, improved = setting, True
    return best, trials


def _changes(session: Session) -> Iterator[dict[str, Any]]:
    """Single settings that may be worth it on a device."""
    for name in session.device.state["providers"]:
        if name not in _NO_HARDWARE:
            yield {"providers": (name,) if name == _CPU else (name, _CPU)}
    cores = len(session.device.key["cores"])
    for threads in sorted({cores, *(2**i for i in range(cores.bit_length()) if 2**i <= cores)}):
        yield {"intra_op_threads": threads}
    for spinning in (True, False):
        yield {"spinning": spinning}
    for level in ("enable_all", "enable_extended", "enable_basic"):
        yield {"graph_optimization": level}
    for arena in (True, False):
        yield {"arena": arena}


def _compare(session: Session, model: bytes, best: Runtime, setting: Runtime, effort: Effort, seed: int) -> Trial:
    plan = {**effort.to_json(), "min_sample_us": SAMPLE_US}
    rounds = []
    try:
        for _ in range(effort.rounds):
            raw = session.measure(
                reference=model, candidate=model, plan=plan, runtime=best, candidate_runtime=setting, seed=seed
            )
            rounds.append((raw["reference_ns"], raw["candidate_ns"]))
    except DeviceRefusal as refusal:
        return Trial(runtime=setting, refused=refusal.message)
    low, high = statistics.interval(rounds, seed=seed)
    return Trial(runtime=setting, ratio=statistics.ratio(rounds), low=low, high=high)
