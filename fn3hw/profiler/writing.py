"""From rounds and details to a profile: what was measured, written down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from fn3hw.profiler import statistics
from fn3hw.profiler.device import Device
from fn3hw.profiler.kernels import Kernel, quiet_times
from fn3hw.profiler.measuring import Round
from fn3hw.profiler.ports import Sliceable
from fn3hw.profiler.record import Measurement, Network, Profile, Reference, RoundRecord
from fn3hw.profiler.verdict import judge, noise
from fn3hw.space.subnet import Subnet

_PERCENTILES = (0.1, 0.5, 0.9, 0.99)
Role = Literal["fit", "holdout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was taken on a device.

    Args:
        device: that it was taken on.
        network: whose subnets were measured.
        settings: effort, runtime, clock and seed, and what was found out before measuring.
        rounds: of all subnets.
        details: by subnet, which node each kernel comes from, memory and file size.
    """

    device: Device
    network: Sliceable
    settings: dict[str, Any]
    rounds: Sequence[Round]
    details: Mapping[str, Mapping[str, Any]]

    def ms(self, ns: float) -> float | None:
        """Nanoseconds as a latency; an emulated device has none."""
        return None if self.device.key.get("emulated") else float(ns) / 1e6


def written(taken: Taken, subnets: Mapping[Subnet, Role], name: str, origin: Profile | None) -> Profile:
    """The profile of what was taken.

    Args:
        taken: rounds and details of all the subnets, and maybe of others.
        subnets: in the order of the profile, and what each is for.
        name: of the network, for people.
        origin: another device's profile that the cost model starts from.
    """
    own: dict[str, list[Round]] = {subnet.id: [] for subnet in subnets}
    for one in taken.rounds:
        if one.subnet in own:
            own[one.subnet].append(one)
    rounds = [one for one in taken.rounds if one.subnet in own]
    reference_ns = float(np.median([one.reference_median_ns for one in rounds]))
    known = statistics.sensitivity([[one.samples for one in some] for some in own.values()])
    kernels = quiet_times(rounds, known.quiet)
    measurements = [
        _measurement(taken, subnet, role, own[subnet.id], reference_ns, known, kernels.get(subnet.id, {}))
        for subnet, role in subnets.items()
    ]
    seen = noise(measurements, known)
    verdict, reasons, advice = judge(seen, measurements, taken.device.key)
    return Profile(
        schema_name="fn3hw.profile/1",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=taken.device.command,
        device=taken.device.key,
        state=taken.device.state,
        settings=taken.settings,
        network=_network(taken.network, name),
        reference=_reference(taken, rounds, reference_ns),
        sensitivity=known,
        measurements=tuple(measurements),
        noise=seen,
        verdict=verdict,
        reasons=reasons,
        advice=advice,
        origin=origin,
    )


def _network(network: Sliceable, name: str) -> Network:
    plain = [asdict(p) if is_dataclass(p) and not isinstance(p, type) else dict(p) for p in network.parameters()]
    parameters = json.loads(json.dumps(plain))
    return Network(
        digest=network.architecture,
        name=name,
        input_shape=network.input_shape,
        gates=network.space.to_json(),
        units={node: tuple(gates) for node, gates in network.units().items()},
        parameters=parameters,
    )


def _reference(taken: Taken, rounds: Sequence[Round], reference_ns: float) -> Reference:
    medians = [one.reference_median_ns for one in rounds]
    p10, p90, p99 = np.quantile(np.concatenate([one.samples[0] for one in rounds]), [0.1, 0.9, 0.99])
    return Reference(
        subnet=taken.network.space.full().id,
        latency_ms=taken.ms(reference_ns),
        latency_p10_ms=taken.ms(p10),
        latency_p90_ms=taken.ms(p90),
        latency_p99_ms=taken.ms(p99),
        instructions=reference_ns if taken.settings["clock"] == "instructions" else None,
        drift=max(medians) / min(medians),
        n_rounds=len(rounds),
    )


def _measurement(
    taken: Taken,
    subnet: Subnet,
    role: Role,
    rounds: Sequence[Round],
    reference_ns: float,
    known: statistics.Sensitivity,
    kernels: Mapping[Kernel, float],
) -> Measurement:
    own = sorted(rounds, key=lambda one: one.number)
    samples = [one.samples for one in own]
    ratio = statistics.ratio(samples, known)
    low, high = statistics.interval(samples, known, seed=taken.settings["seed"])
    p10, p50, p90, p99 = ratio * reference_ns * statistics.about_the_median([c for _, c in samples], _PERCENTILES)
    details = dict(taken.details[subnet.id])
    times: dict[str, float] = {}
    operators: dict[str, tuple[str, ...]] = {}
    for *kernel, owner in details.pop("owners"):
        times[owner] = round(times.get(owner, 0.0) + kernels[tuple(kernel)], 3)
        operators[owner] = (*operators.get(owner, ()), kernel[1])
    return Measurement(
        subnet=subnet.id,
        counts=subnet.counts,
        role=role,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        latency_ms=taken.ms(ratio * reference_ns),
        latency_p10_ms=taken.ms(p10),
        latency_p50_ms=taken.ms(p50),
        latency_p90_ms=taken.ms(p90),
        latency_p99_ms=taken.ms(p99),
        rounds=tuple(RoundRecord.of(one.to_json()) for one in own),
        kernels=times,
        operators=operators,
        **details,
    )
