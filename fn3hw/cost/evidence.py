"""From a profile to arrays, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from fn3hw.cost.basis import FloatArray
from fn3hw.cost.ports import Measured, MeasuredProfile
from fn3hw.cost.state import Encoder, States
from fn3hw.cost.units import UnitTable
from fn3hw.errors import InputError, ProfileError

MIN_SUBNETS = 4
_INTERVAL_ERRORS = 2 * float(norm.ppf(0.95))
"""Standard errors that a measurement's 90% interval is wide."""
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
        noise: standard error of each latency, relative to it, shape (n,).
        offset_ms: part of the latency that is in no kernel, below 0 where timing adds to kernels; see
            `fn3hw.cost.latency.comparable`.
        bend: how much longer small subnets take than the sum of their kernels says, in root ms; see `bent`.
    """

    states: States
    times: FloatArray
    kernels: FloatArray
    latency_ms: FloatArray
    noise: FloatArray
    offset_ms: float = 0.0
    bend: float = 0.0

    @property
    def sum_ms(self) -> FloatArray:
        """What kernels add up to: latency without what is in none of them and without the bend, shape (n,)."""
        return straightened(self.latency_ms - self.offset_ms, self.bend)

    def of(self, parts: Sequence[int]) -> Evidence:
        """Of some of the parts."""
        return replace(self, times=self.times[:, list(parts)], kernels=self.kernels[:, list(parts)])

    def take(self, rows: NDArray[np.intp]) -> Evidence:
        """Some of the subnets."""
        return replace(
            self,
            states=self.states.take(rows),
            times=self.times[rows],
            kernels=self.kernels[rows],
            latency_ms=self.latency_ms[rows],
            noise=self.noise[rows],
        )


def bent(sum_ms: FloatArray, bend: float) -> FloatArray:
    """Latency of what kernels add up to, both in ms and of any shape.

    The fewer kernels a run has, the larger is the share of them that finds the caches cold, and the rarer the run in
    which none of many kernels is disturbed: latency grows a little less than the sum of kernels that are each timed
    in their own best runs. A multiple of the root of the sum follows that closely.
    """
    return sum_ms + bend * np.sqrt(np.maximum(sum_ms, 0.0)) if bend else sum_ms


def straightened(latency_ms: FloatArray, bend: float) -> FloatArray:
    """The sums that `bent` bends to a latency."""
    if not bend:
        return latency_ms
    root = (np.sqrt(bend**2 + 4 * np.maximum(latency_ms, 0.0)) - bend) / 2
    return np.where(latency_ms > 0, root**2, latency_ms)


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
    noise = np.array([_standard_error(m) for m in measurements], dtype=np.float64)
    return Evidence(states, times, kernels, latency_ms, noise)


def _standard_error(measured: Measured) -> float:
    """Of a measured ratio, relative to it.

    Means of n rounds drawn with replacement vary by (n - 1) / n of what means of n new rounds would: where there are
    few, the bootstrap interval is too narrow.
    """
    n = len(measured.rounds)
    errors = (measured.ratio_high - measured.ratio_low) / measured.ratio / _INTERVAL_ERRORS
    return errors * float(np.sqrt(n / max(n - 1, 1)))


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
