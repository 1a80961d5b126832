"""From a profile to arrays, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fn3hw.cost.basis import FloatArray
from fn3hw.cost.ports import Measured, MeasuredProfile
from fn3hw.cost.state import Encoder, States
from fn3hw.cost.units import UnitTable
from fn3hw.errors import InputError, ProfileError

MIN_SUBNETS = 4
_MORE = "Measure more subnets: fn3hw profile RUN --output FILE"
_AGAIN = "Measure it again: fn3hw profile RUN --output FILE"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What latency is fitted on.

    Args:
        states: n measured subnets.
        times: kernel time of each part, shape (n, U), in µs.
        kernels: how many kernels that was, of each operator, shape (n, U, O).
        latency_ms: end to end, shape (n,).
        offset_ms: part of the latency that is in no kernel, below 0 where timing adds to kernels; see `comparable`.
    """

    states: States
    times: FloatArray
    kernels: FloatArray
    latency_ms: FloatArray
    offset_ms: float = 0.0

    def of(self, parts: Sequence[int]) -> Evidence:
        """Of some of the parts."""
        return replace(self, times=self.times[:, list(parts)], kernels=self.kernels[:, list(parts)])

    def take(self, rows: NDArray[np.intp]) -> Evidence:
        """Some of the subnets."""
        states, latency_ms = self.states.take(rows), self.latency_ms[rows]
        return replace(self, states=states, times=self.times[rows], kernels=self.kernels[rows], latency_ms=latency_ms)


def read_evidence(profile: MeasuredProfile, measurements: Sequence[Measured], table: UnitTable) -> Evidence:
    """Measurements as arrays; kernel times have shape (n, 0) where any measurement lacks them.

    Raises:
        ProfileError: a subnet is not of the profile's space, or a value is no positive number.
    """
    try:
        states = table.encoder.parse([m.subnet for m in measurements])
    except InputError as error:
        raise ProfileError(
            f"The profile's measurements are of another network: {error.message}", hint=_AGAIN
        ) from error
    latency_ms = np.array([m.ratio for m in measurements], dtype=np.float64) * profile.full_cost
    if not (np.isfinite(latency_ms).all() and (latency_ms > 0).all()):
        raise ProfileError("The profile has a latency that is no positive number.", hint=_AGAIN)
    has_kernels = bool(measurements) and all(m.kernels for m in measurements)
    empty = np.empty((len(measurements), 0)), np.empty((len(measurements), 0, 0))
    times, kernels = table.times(measurements) if has_kernels else empty
    if not (np.isfinite(times).all() and (times >= 0).all()):
        raise ProfileError("The profile has a kernel time that is no number of microseconds.", hint=_AGAIN)
    return Evidence(states, times, kernels, latency_ms)


def unit_table(profile: MeasuredProfile) -> UnitTable:
    """The units of the profile's network.

    Raises:
        ProfileError: a unit names a gate that the space does not have.
    """
    try:
        return UnitTable(profile.network.units, Encoder(profile.space))
    except InputError as error:
        raise ProfileError(error.message, hint=_AGAIN) from error


def require_enough(measurements: Sequence[Measured]) -> None:
    """Raise `ProfileError` where there is too little to fit on."""
    if len(measurements) < MIN_SUBNETS:
        raise ProfileError(
            f"The profile has {len(measurements)} subnets to fit on; a cost model needs at least {MIN_SUBNETS}.",
            hint=_MORE,
        )
