"""From a point of the atlas to a file that was measured to meet its budget.

The file's batch norm is recalibrated with data. A budget is met where a later measurement would find so, too: not the
measured latency has to keep below it but what it may be when measured again. Where it does not, the ratio of measured
to predicted corrects the predictions, and the next best point is tried. Where much of the budget is left unused, a
more accurate point is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fn3hw.deploy import Statistics, Supernet, finish
from fn3hw.errors import InputError
from fn3hw.profiler import Reading
from fn3hw.searcher.atlas import Atlas, Point
from fn3hw.searcher.budget import Budget
from fn3hw.space.files import sha256, write_bytes
from fn3hw.space.subnet import Subnet

_MIB = 2.0**20
_SLACK = 0.03
"""Share of the latency budget that an export may leave unused before a more accurate point is tried."""
_MARGIN = 0.005
"""How far below the budget such a point has to be predicted."""
_SCATTER = 0.01
"""How much longer a file may take when it is measured again, as long as nothing was measured."""
_PEAK_SCATTER = 0.005
"""How much more memory it may then need; two measurements differ by half of that."""


class Meter(Protocol):
    """Measures latency on one device, in the milliseconds of the profile that the predictions come from.

    On an emulated device it is the cost relative to the full network's.
    """

    def close(self) -> None:
        """Give the device back."""
        ...

    def read(self, model: bytes, percentile: int) -> Reading:
        """Latency of an ONNX file: the usual one (50), or what nine of ten runs keep below (90).

        Raises:
            DeviceError: the device cannot be reached or used.
            NoisyMeasurement: the measurement is too noisy to trust.
        """
        ...

    def peak_mib(self, model: bytes) -> float:
        """Peak memory of a process that runs an ONNX file.

        Raises:
            DeviceError: the device cannot be reached or used.
        """
        ...


class FileMaker(Protocol):
    """Makes the final file of a subnet."""

    def make(self, subnet: Subnet) -> tuple[bytes, float]:
        """The ONNX file, and the largest absolute difference of its output to the masked network's."""
        ...


@dataclass(frozen=True, slots=True)
class Try:
    """A point whose file was measured.

    Args:
        subnet: of the point.
        latency_ms: predicted.
        measured_latency_ms: measured.
        again_ms: what it keeps below when it is measured again.
        peak: measured over predicted peak memory; 1 where it was not measured.
    """

    subnet: Subnet
    latency_ms: float
    measured_latency_ms: float
    again_ms: float
    peak: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote.

    Args:
        path: the ONNX file.
        sha256: its checksum.
        point: the subnet it holds; another one than asked for where that one missed the budget.
        size_mib: real size of the file.
        measured_latency_ms: ``None`` where nothing was measured; relative to the full network on an emulated device.
        measured_peak_mib: ``None`` where no budget asked for it.
        budget_met: whether all limits are met, latency as it may be measured again; not measured ones as predicted.
        max_abs_diff: largest absolute difference between the file's output and the masked network's.
        tries: what was measured, in order.
        percentile: of the runs, that ``measured_latency_ms`` and the budget are about.
        missed: name of the limit that is exceeded most; None where all are met.
    """

    path: Path
    sha256: str
    point: Point
    size_mib: float
    measured_latency_ms: float | None
    budget_met: bool
    max_abs_diff: float
    tries: tuple[Try, ...]
    percentile: int = 50
    measured_peak_mib: float | None = None
    missed: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: the point's values and these."""
        measured = {"measured_latency_ms": self.measured_latency_ms}
        if self.point.quantity != "latency":
            measured = {"measured_latency_ms": None, "measured_relative_cost": self.measured_latency_ms}
        return {
            **self.point.to_json(),
            "counts": self.point.counts,
            "binding": self.point.binding,
            "path": str(self.path),
            "sha256": self.sha256,
            "size_mib": self.size_mib,
            **measured,
            "measured_peak_mib": self.measured_peak_mib,
            "percentile": self.percentile,
            "budget_met": self.budget_met,
            "max_abs_diff": self.max_abs_diff,
        }


@dataclass(frozen=True, slots=True)
class _Done:
    """A point, its file, the file's difference to the masked network, and what was measured."""

    point: Point
    model: bytes
    difference: float
    reading: Reading | None
    peak_mib: float | None

    @property
    def tried(self) -> Try | None:
        """As a try, where it was measured."""
        if self.reading is None:
            return None
        peak = 1.0 if self.peak_mib is None else self.peak_mib * (1 + _PEAK_SCATTER) / self.point.peak_mib
        return Try(self.point.subnet, self.point.latency_ms, self.reading.latency_ms, self.reading.again_ms, peak)

    @property
    def costs(self) -> dict[str, float]:
        """What is compared with each limit: as it may be measured again; what was not measured, as predicted."""
        latency = self.point.latency_ms_high if self.reading is None else self.reading.again_ms
        peak = self.point.peak_mib if self.peak_mib is None else self.peak_mib * (1 + _PEAK_SCATTER)
        size = len(self.model) / _MIB
        return {"latency_ms": latency, "relative_cost": latency, "peak_mib": peak, "size_mib": size}

    def meets(self, budget: Budget) -> bool:
        """Whether it keeps within all limits."""
        return all(self.costs[name] <= limit for name, limit in budget.limits.items())


class Exporter:
    """Writes and measures files.

    Args:
        maker: makes the file of a subnet.
        meter: gives the meter of a device by name.
        max_tries: points that are measured at most for one export.
        tail: how much longer one of ten runs takes on the device than the usual one, as a factor.
    """

    def __init__(
        self, maker: FileMaker, meter: Callable[[str], Meter], *, max_tries: int = 4, tail: float = 1.0
    ) -> None:
        if max_tries < 1:
            raise InputError(f"An export needs at least one try, not {max_tries}.")
        self._maker = maker
        self._meter = meter
        self._max_tries = max_tries
        self._tail = tail

    def export(
        self,
        atlas: Atlas,
        point: Point,
        path: Path | str,
        *,
        verify_on: str | None = "local",
        percentile: int = 50,
    ) -> Exported:
        """Write the file of a point, or of the next best one where the measured latency misses the point's budget.

        Where none of the tries meets the budget, the fastest of them is written and ``budget_met`` is false.

        Args:
            atlas: where the next best points are.
            point: the answer of a lookup, which carries the budget; without one, any latency is accepted.
            path: the ONNX file to write.
            verify_on: name of the device to measure on; ``None`` measures nothing.
            percentile: of the runs that have to meet the latency budget: 50, or 90.

        Raises:
            DeviceError: the device cannot be reached or used; no file is written.
            NoisyMeasurement: the measurement is too noisy to trust; no file is written.
            InputError: the file cannot be written, or there is no such percentile.
        """
        if percentile not in (50, 90):
            raise InputError(f"A budget is for 50 or for 90 percent of the runs, not for {percentile}.")
        target = Path(path)
        if target.is_dir():
            raise InputError(f"{target} is a folder.", hint="Give the name of a file, such as model.onnx.")
        meter = self._meter(verify_on) if verify_on is not None else None
        try:
            done = self._tried(atlas, point, meter, percentile)
        finally:
            if meter is not None:
                meter.close()
        budget = point.budget
        met = [one for one in done if one.meets(budget)]
        if met:
            chosen = max(met, key=lambda one: one.point.accuracy)
        else:
            chosen = min(done, key=lambda one: one.reading.latency_ms if one.reading else np.inf)
        write_bytes(target, chosen.model)
        return Exported(
            path=target,
            sha256=sha256(chosen.model),
            point=chosen.point,
            size_mib=len(chosen.model) / _MIB,
            measured_latency_ms=chosen.reading.latency_ms if chosen.reading else None,
            budget_met=bool(met),
            max_abs_diff=chosen.difference,
            tries=tuple(one.tried for one in done if one.tried is not None),
            percentile=percentile,
            measured_peak_mib=chosen.peak_mib,
            missed=None if met else budget.binding(chosen.costs),
        )

    def _tried(self, atlas: Atlas, point: Point, meter: Meter | None, percentile: int) -> list[_Done]:
        """Files of points, until one meets the budget and leaves little of it unused, or nothing is left to try.

        A lookup has to be right without measuring and keeps the whole interval below the budget. Here each file is
        measured, so the first try is the best point whose prediction alone meets it; the lookup's answer comes last.
        """
        done = list[_Done]()
        current: Point | None = point
        if meter is not None and point.budget.limits:
            usual = self._tail if percentile == 90 else 1.0
            current = next_best(atlas.points, point.budget, [], usual=usual) or point
        while current is not None:
            model, difference = self._maker.make(current.subnet)
            reading = meter.read(model, percentile) if meter is not None else None
            peak_mib = meter.peak_mib(model) if meter is not None and "peak_mib" in point.budget.limits else None
            done.append(_Done(current, model, difference, reading, peak_mib))
            current = self._following(atlas, point, done)
        return done

    def _following(self, atlas: Atlas, point: Point, done: Sequence[_Done]) -> Point | None:
        """What to try next, or None where the last try was the last."""
        budget = point.budget
        tries = [one.tried for one in done if one.tried is not None]
        if len(tries) < len(done) or len(done) == self._max_tries:
            return None
        met = [one for one in done if one.meets(budget)]
        if met:
            best = max(met, key=lambda one: one.point.accuracy)
            used = best.reading.latency_ms if best.reading else np.inf
            enough = budget.cost is None or used >= (1 - _SLACK) * budget.cost
            return None if enough else next_best(atlas.points, budget, tries, better_than=best.point)
        # Where what was measured is too unsure for any other point to be certain, the likely ones are measured, too.
        following = next_best(atlas.points, budget, tries) or next_best(atlas.points, budget, tries, certain=False)
        if len(done) == self._max_tries - 1 and point.subnet not in {t.subnet for t in tries}:
            return point if following is None or point.latency_ms < following.latency_ms else following
        return following


def next_best(
    points: Sequence[Point],
    budget: Budget,
    tries: Sequence[Try],
    *,
    better_than: Point | None = None,
    usual: float = 1.0,
    certain: bool = True,
) -> Point | None:
    """The most accurate untried point that meets the budget once predictions are corrected.

    Args:
        points: to choose from.
        budget: the limits.
        tries: what was measured: the worst ratio to the prediction corrects the others.
        better_than: a point that met the budget with much to spare; only more accurate ones count, corrected by the
            mean of the tries, and with a margin.
        usual: measured over predicted before anything was tried.
        certain: whether a point has to meet the budget when it is measured again, too, or once as things stand.
    """
    ratios = [(t.again_ms if certain else t.measured_latency_ms) / t.latency_ms for t in tries]
    ratios = ratios or [usual * (1 + _SCATTER)]
    correction = max(ratios) if better_than is None else float(np.mean(ratios)) / (1 - _MARGIN)
    accuracy = -np.inf if better_than is None else better_than.accuracy
    tried = {t.subnet for t in tries}
    peak = max((t.peak for t in tries), default=1.0)
    limits, cost = budget.limits, np.inf if budget.cost is None else budget.cost
    fitting = [
        p
        for p in points
        if p.subnet not in tried
        and p.accuracy > accuracy
        and p.latency_ms * correction <= cost
        and not ("peak_mib" in limits and not p.peak_mib * peak <= limits["peak_mib"])
        and not ("size_mib" in limits and not p.size_mib <= limits["size_mib"])
    ]
    best = max(fitting, key=lambda p: (p.accuracy, -p.latency_ms), default=None)
    return None if best is None else replace(best, budget=budget)


class FinishedFile:
    """Makes final files (`fn3hw.deploy.finish`) and checks them against the masked network.

    Args:
        supernet: the trained network.
        images: training images that batch norm and activations are set by, float32 (N, C, H, W).
        parity: of supernet, subnet, statistics and model, the largest absolute difference.
    """

    def __init__(
        self,
        supernet: Supernet,
        images: NDArray[np.float32],
        *,
        parity: Callable[[Supernet, Subnet, Statistics, Any], float],
    ) -> None:
        self._supernet = supernet
        self._images = images
        self._parity = parity

    def make(self, subnet: Subnet) -> tuple[bytes, float]:
        """See `FileMaker`."""
        model, statistics = finish(self._supernet, subnet, self._images)
        return model.SerializeToString(), float(self._parity(self._supernet, subnet, statistics, model))
