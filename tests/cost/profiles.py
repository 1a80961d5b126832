"""Profiles as the profiler writes them, of the devices of `tests.cost.synthetic`."""

from __future__ import annotations

from typing import Any

from fn3hw.profiler import Profile, Runtime
from tests.cost.synthetic import SPACE, FakeProfile

DEVICE = {"cpu_model": "fake", "cores": [0, 1], "emulated": False, "cpu_features": ["avx", "fma"]}
SETTINGS = {
    "seed": 0,
    "effort": {"rounds": 3, "seconds": 0.4},
    "runtime": Runtime().to_json(),
    "blockwise": {"fc": [1.01, 1.04]},
}
REFERENCE_MS = 5.0
ROUNDS = 3


def as_profile(fake: FakeProfile, *, digest: str = "0" * 64, timed: bool = True, **changes: Any) -> Profile:
    """What was measured as a profile; each subnet's second round is disturbed, and they were measured last one first.

    Args:
        fake: what was measured; one of its milliseconds is the time of the full network.
        digest: of the network.
        timed: whether rounds say when they ended.
        changes: other entries of the profile.
    """
    full = next(m.ratio for m in fake.measurements if SPACE.parse(m.subnet) == SPACE.full())
    is_real = not changes.get("device", DEVICE)["emulated"]
    rows = [
        {
            "subnet": m.subnet,
            "counts": SPACE.parse(m.subnet).counts,
            "role": m.role,
            "size_bytes": m.size_bytes,
            "kernels": m.kernels,
            "peak_mib": m.peak_mib,
            **{
                key: m.ratio / full * factor
                for key, factor in (("ratio", 1), ("ratio_low", 0.99), ("ratio_high", 1.02))
            },
            **dict.fromkeys(
                ("latency_ms", "latency_p10_ms", "latency_p50_ms", "latency_p90_ms"), m.ratio if is_real else None
            ),
            **dict.fromkeys(("peak_mib_no_arena", "runtime_mib", "increment_mib", "load_ms", "first_run_ms"), 1.0),
            "rounds": [_round(number, 1e9 - 60 * row if timed else None) for number in range(ROUNDS)],
        }
        for row, m in enumerate(fake.measurements)
    ]
    return Profile.model_validate(
        {
            "schema": "fn3hw.profile/1",
            "created": "2026-01-01T00:00:00+00:00",
            "command": "local",
            "device": DEVICE,
            "state": {},
            "settings": SETTINGS,
            "network": {
                "digest": digest,
                "name": "fake",
                "input_shape": [3, 8, 8],
                "gates": SPACE.to_json(),
                "units": fake.network.units,
                "parameters": fake.network.parameters,
            },
            "reference": {
                "subnet": SPACE.full().id,
                **dict.fromkeys(("latency_ms", "latency_p10_ms", "latency_p90_ms"), REFERENCE_MS if is_real else None),
                "drift": 1.2,
                "n_rounds": ROUNDS * len(rows),
            },
            "measurements": rows,
            "noise": {
                **dict.fromkeys(("repeat_mape", "interval_width", "widest_interval"), 0.01),
                **{"cpu_share": 1.0, "disturbed_rounds": len(rows), "rejected_rounds": 0},
            },
            "verdict": "stable",
            "reasons": [],
            "advice": [],
            **changes,
        }
    )


def _round(number: int, at_s: float | None) -> dict[str, Any]:
    """A round of the reference at 0.9, 1 or 1.1 times its usual time."""
    samples = [int(REFERENCE_MS * 1e6 * (0.9 + 0.1 * number))]
    return {
        "number": number,
        **dict.fromkeys(("reference_ns", "candidate_ns", "reference_cpu_ns", "candidate_cpu_ns"), samples),
        **{"clock": "cpu", "batches": [1, 1], "load_ms": 1.0, "conditions": {}, "rejected": 0},
        "faults": ["drift: a lot"] if number == 1 else [],
        "at_s": None if at_s is None else at_s + number,
    }
