from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fn3hw.profiler.device import STORED_BYTES, Session
from fn3hw.profiler.trust import findings, unrest

KEY = {"cores": [0, 1, 2, 3], "emulated": False, "governor": "performance", "min_khz": "2400000", "max_khz": "2400000"}
STATE: dict[str, Any] = {
    **{"cpu_count": 4, "free_mib": 6000, "free_disk_mib": 9000, "folder": "/tmp", "load_average": 0.2, "turbo": False},
    "now": {"throttle_count": 0, "steal_s": 5.0},
}
CONDITIONS = {"wall_s": 1.0, "steal_s": 0.0, "throttle_count": 0, "throttled_flags": [0, 0], "temperature_c": [50, 55]}
QUIET = [1_000_000 + i % 7 for i in range(200)]


def found(key: Any = (), state: Any = (), conditions: Any = (), wall_ns: Any = QUIET) -> list[tuple[str, str]]:
    probe = {"wall_ns": wall_ns, "conditions": {**CONDITIONS, **dict(conditions)}}
    return [(one.what, one.fix) for one in findings({**KEY, **dict(key)}, {**STATE, **dict(state)}, probe)]


def test_a_quiet_device_with_a_fixed_frequency_has_no_findings() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        ({"key": {"emulated": True}}, "emulated", "device itself"),
        ({"key": {"governor": "schedutil"}}, "'schedutil'", "frequency-set -g performance"),
        ({"key": {"min_khz": "600000"}}, "from 600 to 2400 MHz", "-d 2400MHz -u 2400MHz"),
        ({"state": {"turbo": True}}, "Turbo", "boost"),
        ({"conditions": {"throttle_count": 2}}, "throttled just now", "Cool"),
        ({"conditions": {"throttled_flags": [0, 0x4]}}, "throttled just now", "Cool"),
        ({"state": {"now": {"throttle_count": 3}}}, "since the device was started", "Cool"),
        ({"conditions": {"throttled_flags": [0x40000, 0x40000]}}, "since the device was started", "Cool"),
        ({"conditions": {"throttled_flags": [0, 0x10000]}}, "voltage", "power supply"),
        ({"conditions": {"temperature_c": [70.0, 84.0]}}, "84 °C", "Cool"),
        ({"state": {"load_average": 2.5}}, "load average is 2.5 on 4 cores", "top"),
        ({"conditions": {"steal_s": 0.4}}, "10%", "machine of your own"),
        ({"state": {"free_mib": 80}}, "80 MiB of memory", "Close"),
        ({"state": {"free_disk_mib": 20}}, "20 MiB are free in /tmp", "TMPDIR"),
        ({"wall_ns": [1000] * 80 + [1200] * 20}, "varies by 20%", "quiet"),
    ],
)
def test_each_limit_is_found_alone_with_its_fix(changes: dict[str, Any], what: str, fix: str) -> None:
    ((said, how),) = found(**changes)
    assert what in said and fix in how


def test_what_a_device_cannot_tell_is_no_finding() -> None:
    key, state = {"cores": [0], "emulated": False}, {"now": {}, "cpu_count": None, "free_mib": 0}
    assert findings(key, state, {"wall_ns": QUIET, "conditions": {"wall_s": 1.0}}) == []


def test_a_device_always_has_room_for_what_a_session_keeps() -> None:
    """A session removes models above this; a device that is not warned of has that much."""
    assert found(state={"free_disk_mib": STORED_BYTES >> 20}) == []
    assert found(state={"free_disk_mib": (STORED_BYTES >> 20) - 1})


def test_unrest_sees_a_tenth_of_slow_samples_and_no_single_one() -> None:
    assert unrest([1000] * 99 + [10**9]) == 0
    assert unrest([1000] * 80 + [1500] * 20) == pytest.approx(0.5)


def test_a_probe_takes_as_long_as_asked_and_sees_its_conditions(local: Session) -> None:
    probe = local.probe(seconds=0.1)
    assert len(probe["wall_ns"]) >= 20 and min(probe["wall_ns"]) > 0
    assert 0.9 * sum(probe["wall_ns"]) < 1e9 * probe["conditions"]["wall_s"] < 60e9
    assert np.isfinite(unrest(probe["wall_ns"]))


def test_a_device_says_what_findings_need(local: Session) -> None:
    state = local.device.state
    assert state["free_disk_mib"] > 0 and state["folder"] and state["load_average"] >= 0
