from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from fn3hw.errors import DeviceError, ProfileError
from fn3hw.profiler.device import Runtime, Session
from fn3hw.profiler.measuring import Effort
from fn3hw.profiler.meter import Meter
from fn3hw.profiler.profiling import Progress, profile
from fn3hw.profiler.record import Profile
from fn3hw.space.subnet import Subnet
from tests.profiler.fake import FakeSupernet


class Emulated(Session):
    """The local session, said to be an emulated device; its counts of instructions are sizes of files."""

    def __init__(self, local: Session, counts: bool) -> None:
        self.__dict__.update(local.__dict__)
        counting = {"counts_instructions": True} if counts else {}
        self.device = replace(local.device, key=local.device.key | {"emulated": True} | counting)

    def measure(self, *, reference: bytes, candidate: bytes, runtime: Runtime, **rest: Any) -> dict[str, Any]:
        raw = super().measure(
            reference=reference, candidate=candidate, runtime=replace(runtime, count_instructions=False), **rest
        )
        if runtime.count_instructions:
            raw["reference_instructions"], raw["candidate_instructions"] = [len(reference)] * 3, [len(candidate)] * 3
        return raw


@pytest.mark.parametrize("counts", [False, True])
def test_an_emulated_device_has_ratios_and_no_latency(
    local: Session, network: FakeSupernet, quick: Effort, counts: bool
) -> None:
    session = Emulated(local, counts)
    found = Profile.from_text(profile(network, session, 4, effort=quick).to_text())
    assert found.emulated and found.quantity == ("instructions" if counts else "emulated time")
    assert found.reference.latency_ms is None and all(
        m.latency_ms is m.latency_p90_ms is None for m in found.measurements
    )
    full = len(network.model())
    assert found.reference.instructions == (full if counts else None)
    if counts:
        assert all(m.ratio == pytest.approx(m.size_bytes / full) and not m.kernels for m in found.measurements)
        assert found.verdict == "stable"
    with Meter(network, found, session) as meter:
        assert meter.time(network.model()).latency_ms == pytest.approx(1, rel=1e-9 if counts else 0.5)


class Fragile:
    """A network whose slices give out after some calls."""

    def __init__(self, network: FakeSupernet, calls: int) -> None:
        self._network, self._calls = network, calls

    def __getattr__(self, name: str) -> object:
        return getattr(self._network, name)

    def deployed(self, subnet: object) -> object:
        self._calls -= 1
        if self._calls < 0:
            raise KeyboardInterrupt
        return self._network.deployed(subnet)  # type: ignore[arg-type]


def test_an_interrupted_profile_goes_on_where_it_stopped(
    local: Session, network: FakeSupernet, quick: Effort, tmp_path: Path
) -> None:
    path = tmp_path / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt):
        profile(Fragile(network, 6), local, 3, effort=quick, journal=path)
    before = [json.loads(line) for line in path.read_text().splitlines()][1:]
    assert [entry["kind"] for entry in before] == ["round"] * 5
    steps: list[Progress] = []
    found = profile(network, local, 3, effort=quick, journal=path, progress=steps.append)
    assert [step.done for step in steps] == [6, 7, 8, 9]
    kept = {(e["subnet"], e["number"], tuple(e["reference_ns"])) for e in before if e["kind"] == "round"}
    assert kept <= {(m.subnet, one.number, one.reference_ns) for m in found.measurements for one in m.rounds}


def test_a_journal_with_other_settings_is_refused(
    local: Session, network: FakeSupernet, quick: Effort, tmp_path: Path
) -> None:
    path = tmp_path / "journal.jsonl"
    profile(network, local, 2, effort=quick, journal=path)
    with pytest.raises(ProfileError, match="settings"):
        profile(network, local, 2, effort=quick, seed=5, journal=path)


def test_a_lost_device_keeps_what_was_measured(network: FakeSupernet, quick: Effort, tmp_path: Path) -> None:
    from fn3hw.profiler.device import connect

    path = tmp_path / "journal.jsonl"
    session = connect(reconnects=0)

    def cut(step: Progress) -> None:
        if step.done == 4:
            session._link._process.kill()

    with pytest.raises(DeviceError):
        profile(network, session, 3, effort=quick, journal=path, progress=cut)
    session.close()
    assert len(path.read_text().splitlines()) == 1 + 4
    steps: list[Progress] = []
    profile(network, "local", 3, effort=quick, journal=path, progress=steps.append)
    assert steps[0].done == 5


class Choosing(FakeSupernet):
    """Its linear layers have two forms: of ``fc`` the other one is faster, of ``out`` it is slower."""

    def __init__(self, layers: Iterable[str] = ()) -> None:
        self.layers = tuple(layers)
        super().__init__(channels=32, size=24)

    def blockwise_layers(self) -> tuple[str, ...]:
        return "fc", "out"

    def with_blockwise(self, layers: Iterable[str]) -> FakeSupernet:
        return Choosing(layers)

    def deployed(self, subnet: Subnet) -> onnx.ModelProto:
        change = {"fc": {"stem": 2}, "out": {"stem": 32}}
        counts = {name: n for layer in self.layers for name, n in change[layer].items()}
        usual = {"stem": 16} if subnet == self.space.full() else {}
        return super().deployed(self.space.from_counts({**subnet.counts, **usual, **counts}))


def test_linear_layers_run_in_blocks_where_the_device_is_faster_so(
    local: Session, quick: Effort, tmp_path: Path
) -> None:
    path = tmp_path / "journal.jsonl"
    found = profile(Choosing(), local, 2, effort=quick, journal=path)
    assert found.blockwise == ("fc",)
    full = found.measurements[0]
    assert full.subnet == found.space.full().id
    assert full.size_bytes == len(Choosing(["fc"]).deployed(found.space.full()).SerializeToString())
    assert Profile.from_text(found.to_text()).blockwise == ("fc",)
    steps: list[Progress] = []
    again = profile(Choosing(), local, 2, effort=quick, journal=path, progress=steps.append)
    assert not steps and again.settings == found.settings
