from __future__ import annotations

import pytest

from fn3hw.errors import NoisyMeasurement, ProfileError
from fn3hw.profiler import meter as meter_module
from fn3hw.profiler.device import Session
from fn3hw.profiler.measuring import Effort
from fn3hw.profiler.meter import Meter
from fn3hw.profiler.profiling import profile
from fn3hw.profiler.record import Profile
from tests.profiler.fake import FakeSupernet


@pytest.fixture(scope="module")
def measured(local: Session, network: FakeSupernet, quick: Effort) -> Profile:
    return profile(network, local, 2, effort=quick)


def test_a_file_is_timed_on_the_scale_of_the_profile(
    local: Session, network: FakeSupernet, measured: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "TOO_WIDE", 1e9)
    with Meter(network, measured, local) as meter:
        full = meter.time(network.model())
        slow = meter.read(network.model(), 90)
        small = meter.read(network.deployed(network.space.smallest()).SerializeToString())
    assert full.latency_low_ms <= full.latency_ms <= full.latency_high_ms
    assert full.latency_ms == pytest.approx(full.ratio * measured.reference.latency_ms)
    assert small.latency_ms < full.latency_ms < full.latency_p90_ms
    assert small.latency_ms <= small.again_ms
    assert slow.latency_ms > 0.5 * full.latency_ms
    assert slow.again_ms >= slow.latency_ms
    assert local.put(network.model())  # the session that was passed in is still open


def test_a_profile_of_an_earlier_version_is_read_with_the_settings_that_there_still_are(
    local: Session, network: FakeSupernet, measured: Profile
) -> None:
    effort = measured.settings["effort"] | {"kernel_warmup_s": 0.5}
    with Meter(network, measured.model_copy(update={"settings": measured.settings | {"effort": effort}}), local) as old:
        assert old.time(network.model()).latency_ms > 0
    assert Effort.from_json({"rounds": 2, "kernel_warmup_s": 0.5}) == Effort(rounds=2)
    assert Effort.from_json(Effort(rounds=7, seconds=0.3).to_json()) == Effort(rounds=7, seconds=0.3)


def test_an_interval_that_is_too_wide_is_no_answer(
    local: Session, network: FakeSupernet, measured: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "TOO_WIDE", 0.0)
    with Meter(network, measured, local) as meter, pytest.raises(NoisyMeasurement, match="interval"):
        meter.read(network.model())


def test_another_device_or_network_is_refused(local: Session, network: FakeSupernet, measured: Profile) -> None:
    elsewhere = measured.model_copy(update={"device": measured.device | {"cpu_model": "another"}})
    with pytest.raises(ProfileError, match="cpu_model"):
        Meter(network, elsewhere, local)
    with pytest.raises(ProfileError, match="another network"):
        Meter(FakeSupernet(architecture="0" * 64), measured, local)
