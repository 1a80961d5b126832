"""Measuring one more file in the milliseconds of a profile, such as an exported one against its budget."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

import numpy as np

from fn3hw.errors import NoisyMeasurement, ProfileError
from fn3hw.profiler import statistics
from fn3hw.profiler.device import Runtime, Session, connect, differing
from fn3hw.profiler.measuring import Candidate, Effort, measure_rounds
from fn3hw.profiler.ports import Sliceable
from fn3hw.profiler.quantity import cost_text
from fn3hw.profiler.record import Profile

TOO_WIDE = 0.15
"""A 90% interval wider than this, relative to the ratio, is no answer."""
_AGAIN = 2.05 * 2**0.5
"""How far a later measurement may come out above this one, in units of the standard error, but for 2 of 100: both of
them scatter."""
_HALF = 1.645
"""Standard errors in the upper half of a 90% interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a file takes.

    Args:
        ratio: relative to the profile's reference subnet.
        latency_ms: that times the reference's own time in the profile, so that it compares with predictions; of an
            emulated device the ratio itself.
        latency_low_ms: lower end of the 90% interval.
        latency_high_ms: upper end of the 90% interval.
        latency_p90_ms: what one of ten runs exceeds, in the same unit; each round's runs are compared with its median.
        p90_error: relative standard error of what it is above the usual latency.
    """

    ratio: float
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    latency_p90_ms: float
    p90_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A measured latency, or a cost relative to the full network's on an emulated device.

    Args:
        latency_ms: as measured.
        again_ms: what a later measurement of the same file keeps below, but for 2 of 100.
    """

    latency_ms: float
    again_ms: float


class Meter:
    """Times files on the device of a profile, in alternation with the profile's reference subnet.

    The ratio is what repeats from one day to the next; times of themselves do not. Use it as a context manager.

    Args:
        network: the profile's network, for the reference subnet.
        profile: whose milliseconds are meant.
        device: how to reach the profile's device: a name, a command or a session.
        effort: how much measuring is enough; the profile's where it is left out.

    Raises:
        ProfileError: the profile is of another network, or the device is not the profile's.
        DeviceError: the device cannot be reached or used.
    """

    def __init__(
        self, network: Sliceable, profile: Profile, device: str | Session = "local", *, effort: Effort | None = None
    ) -> None:
        profile.check_network(network.architecture)
        settings = profile.settings
        self._profile = profile
        self._effort = effort or Effort.from_json(settings["effort"])
        self._runtime = Runtime.from_json(settings["runtime"])
        full = network.with_blockwise(profile.blockwise).deployed(network.space.parse(profile.reference.subnet))
        self._reference: bytes = full.SerializeToString(deterministic=True)
        self._owned = not isinstance(device, Session)
        self._session = device if isinstance(device, Session) else connect(device)
        if self._session.device.id != profile.device_id:
            self.close()
            odd = differing(self._session.device.key, profile.device)
            raise ProfileError(
                f"The profile was measured on another device: {', '.join(odd)} differ.",
                hint="Reach the profile's device with --device, or measure this one: fn3hw profile RUN --output FILE",
            )

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session that was opened here."""
        if self._owned:
            self._session.close()

    def time(self, model: bytes) -> Timing:
        """Time an ONNX file.

        Raises:
            DeviceError: the device is lost, or refuses the model.
        """
        candidate = Candidate(subnet="", model=lambda: model)
        rounds = measure_rounds(
            self._session, self._reference, [candidate], effort=self._effort, runtime=self._runtime, seed=0
        )
        samples = [one.samples for one in rounds]
        known, unit = self._profile.sensitivity, self._profile.full_cost
        ratio = statistics.ratio(samples, known)
        low, high = statistics.interval(samples, known)
        own = [of for _, of in samples]
        (p90,) = ratio * statistics.about_the_median(own, [0.9])
        return Timing(
            ratio=ratio,
            latency_ms=ratio * unit,
            latency_low_ms=low * unit,
            latency_high_ms=high * unit,
            latency_p90_ms=float(p90) * unit,
            p90_error=statistics.tail_error(own, 0.9),
        )

    def read(self, model: bytes, percentile: int = 50) -> Reading:
        """Latency of an ONNX file, or on an emulated device its cost relative to the reference's.

        Args:
            model: the file.
            percentile: 50 for the usual latency, 90 for what nine of ten runs keep below.

        Raises:
            DeviceError: the device is lost, or refuses the model.
            NoisyMeasurement: the interval is too wide to be an answer.
        """
        timing = self.time(model)
        width = (timing.latency_high_ms - timing.latency_low_ms) / timing.latency_ms
        if width > TOO_WIDE:
            high = cost_text(timing.latency_high_ms, self._profile.quantity)
            raise NoisyMeasurement(
                f"The cost lies between {timing.latency_low_ms:.3f} and {high}: an interval {100 * width:.0f}% wide.",
                hint="Close other programs on the device and measure again.",
            )
        error = (timing.latency_high_ms / timing.latency_ms - 1.0) / _HALF
        latency_ms = timing.latency_ms
        if percentile == 90:
            latency_ms, error = timing.latency_p90_ms, float(np.hypot(error, timing.p90_error))
        return Reading(latency_ms=latency_ms, again_ms=latency_ms * (1.0 + _AGAIN * error))

    def peak_mib(self, model: bytes) -> float:
        """Peak resident memory of a fresh process that opens an ONNX file and runs it.

        Raises:
            DeviceError: the device is lost, or refuses the model.
        """
        return float(self._session.peak_memory(model, runtime=self._runtime, arena=self._runtime.arena)["peak_mib"])
