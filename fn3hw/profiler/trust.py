"""What limits trust in a device before anything is measured there, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from fn3hw.profiler.device import STORED_BYTES

UNREST: Final = 0.10
"""A fixed computation that varies by more than this is disturbed just now."""
BUSY: Final = 0.5
"""Load average per core above which other programs are in the way."""
STEAL: Final = 0.02
"""Share of the time that a hypervisor may take."""
HOT_C: Final = 80.0
"""Boards lower their frequency from about here on."""
LITTLE_MEMORY_MIB: Final = 512
LITTLE_DISK_MIB: Final = STORED_BYTES >> 20

_Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that limits trust.

    Args:
        what: was found.
        fix: what to do about it.
    """

    what: str
    fix: str

    def to_json(self) -> dict[str, str]:
        """Plain JSON values."""
        return asdict(self)


def unrest(wall_ns: Sequence[int]) -> float:
    """Distance of the 10th and the 90th percentile of a probe's samples, relative to their median."""
    low, middle, high = np.quantile(wall_ns, [0.1, 0.5, 0.9])
    return float((high - low) / middle)


def findings(key: _Values, state: _Values, probe: _Values) -> list[Finding]:
    """What limits trust in a device; what cannot be read there is passed over.

    Args:
        key: of the device: `Device.key`.
        state: what it is like just now: `Device.state`.
        probe: what `Session.probe` returned.
    """
    conditions = probe["conditions"]
    cores = state.get("cpu_count") or len(key["cores"])
    found = [*_processor(key, state), *_heat(state, conditions), *_company(state, conditions, cores), *_room(state)]
    if (spread := unrest(probe["wall_ns"])) > UNREST:
        found.append(
            Finding(
                what=f"A computation that is always the same varies by {100 * spread:.0f}% just now.",
                fix="Close other programs on the device, or measure when it is quiet.",
            )
        )
    return found


def _processor(key: _Values, state: _Values) -> Iterator[Finding]:
    if key.get("emulated"):
        yield Finding(
            what="The processor is emulated: what takes long here may be short on a real one.",
            fix="Use it for tests; measure latency on the device itself.",
        )
    if (governor := key.get("governor", "performance")) != "performance":
        yield Finding(
            what=f"The frequency governor is {governor!r}: the frequency follows the load.",
            fix="On the device: sudo cpupower frequency-set -g performance",
        )
    lowest, highest = (int(key.get(name, 0)) // 1000 for name in ("min_khz", "max_khz"))
    if lowest != highest:
        yield Finding(
            what=f"The frequency may be anything from {lowest} to {highest} MHz.",
            fix=f"Fix it where the device stays cool: sudo cpupower frequency-set -d {highest}MHz -u {highest}MHz",
        )
    if state.get("turbo"):
        yield Finding(
            what="Turbo is on: the frequency follows temperature and the load of other cores.",
            fix="On the device: echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost (or, with intel_pstate, "
            "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo)",
        )


def _heat(state: _Values, conditions: _Values) -> Iterator[Finding]:
    before, during = state["now"].get("throttle_count", 0), conditions.get("throttle_count", 0)
    flags = conditions.get("throttled_flags", [0])[-1]  # of a Raspberry Pi: bits 0 to 3 now, 16 to 19 since its start
    cool = "Cool the device (a fan, a heat sink), or lower its maximum frequency."
    if during or flags & 0xE:
        yield Finding(what="The processor is throttled just now.", fix=cool)
    elif before or flags >> 16 & 0xE:
        yield Finding(what="The processor was throttled since the device was started.", fix=cool)
    if (flags | flags >> 16) & 1:
        yield Finding(
            what="The voltage of the board was too low, and its frequency with it.",
            fix="Use a stronger power supply and a shorter cable.",
        )
    if (degrees := conditions.get("temperature_c", [0.0])[-1]) > HOT_C:
        yield Finding(what=f"The processor is at {degrees:.0f} °C, where throttling begins.", fix=cool)


def _company(state: _Values, conditions: _Values, cores: int) -> Iterator[Finding]:
    if (load := state.get("load_average", 0.0)) > BUSY * cores:
        yield Finding(
            what=f"The load average is {load:.1f} on {cores} cores: other programs run.",
            fix="See what runs on the device (top), and stop it or wait for its end.",
        )
    if (stolen := conditions.get("steal_s", 0.0) / (conditions["wall_s"] * cores)) > STEAL:
        yield Finding(
            what=f"The hypervisor gave {100 * stolen:.0f}% of the processor's time to other machines.",
            fix="Measure at another time, or on a machine of your own.",
        )


def _room(state: _Values) -> Iterator[Finding]:
    if 0 < state.get("free_mib", 0) < LITTLE_MEMORY_MIB:
        yield Finding(
            what=f"Only {state['free_mib']} MiB of memory are free: large models may not run.",
            fix="Close other programs on the device.",
        )
    if state.get("free_disk_mib", LITTLE_DISK_MIB) < LITTLE_DISK_MIB:
        yield Finding(
            what=f"Only {state['free_disk_mib']} MiB are free in {state.get('folder')}, where models are kept.",
            fix="Free some space there, or set TMPDIR on the device to a folder with more.",
        )
