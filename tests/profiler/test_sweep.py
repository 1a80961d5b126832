from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fn3hw.profiler import DeviceRefusal, Effort, Runtime, Session, profile
from fn3hw.profiler.sweep import sweep
from tests.profiler.fake import FakeSupernet


class FakeDevice:
    """Four cores, a provider that does not start, and a time that follows from the settings."""

    def __init__(self) -> None:
        self.device = type("Device", (), {
            "state": {"providers": ["BrokenExecutionProvider", "CPUExecutionProvider", "AzureExecutionProvider"]},
            "key": {"cores": [0, 1, 2, 3]},
        })  # fmt: skip
        self.asked: list[tuple[Runtime, Runtime]] = []

    def measure(self, *, runtime: Runtime, candidate_runtime: Runtime, **_: Any) -> dict[str, Any]:
        self.asked.append((runtime, candidate_runtime))
        if "BrokenExecutionProvider" in candidate_runtime.providers:
            raise DeviceRefusal("does not start", reason="no-provider")
        times = [self.time(one) for one in (runtime, candidate_runtime)]
        return dict(zip(("reference_ns", "candidate_ns"), ([t + i for i in range(9)] for t in times), strict=True))

    @staticmethod
    def time(runtime: Runtime) -> int:
        # Two threads are the fastest, and spinning pays only with several.
        by_threads = {1: 10_000, 2: 6_000, 4: 7_000}[runtime.intra_op_threads]
        return by_threads - 500 * runtime.spinning * (runtime.intra_op_threads > 1) + 300 * (not runtime.arena)


def test_the_fastest_setting_is_found_and_none_is_tried_twice() -> None:
    device = FakeDevice()
    best, trials = sweep(device, b"", start=Runtime(), effort=Effort(rounds=2))  # type: ignore[arg-type]
    assert best == Runtime(intra_op_threads=2, spinning=True)
    assert len({trial.runtime for trial in trials}) == len(trials) == len(set(device.asked)) > 5
    refused = [trial for trial in trials if trial.refused]
    assert refused and all("BrokenExecutionProvider" in trial.runtime.providers for trial in refused)
    assert not any("Azure" in provider for trial in trials for provider in trial.runtime.providers)


def test_noise_is_no_reason_to_change() -> None:
    class Noisy(FakeDevice):
        def measure(self, **arguments: Any) -> dict[str, Any]:
            raw = super().measure(**arguments)
            return {name: [10_000 + 900 * (i % 3) for i in range(9)] for name in raw}

    best, _ = sweep(Noisy(), b"", start=Runtime(pin=True), effort=Effort(rounds=2))  # type: ignore[arg-type]
    assert best == Runtime(pin=True)


def test_a_profile_is_measured_with_what_the_sweep_found(
    local: Session, network: FakeSupernet, quick: Effort, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Runtime(graph_optimization="enable_basic")
    monkeypatch.setattr("fn3hw.profiler.profiling.sweep", lambda *_, **__: (found, []))
    one = replace(quick, rounds=1)
    measured = profile(network, local, subnets=[network.space.full()], effort=one, fastest=True)
    assert measured.settings["runtime"] == found.to_json()
    assert measured.settings["sweep"] == []


def test_a_provider_that_is_not_there_is_a_refusal(local: Session, network: FakeSupernet, quick: Effort) -> None:
    with pytest.raises(DeviceRefusal, match="CUDA") as caught:
        local.measure(
            reference=network.model(),
            candidate=network.model(),
            plan=quick.to_json(),
            runtime=Runtime(providers=("CUDAExecutionProvider",)),
        )
    assert caught.value.reason == "no-provider" and "CPUExecutionProvider" in caught.value.message
