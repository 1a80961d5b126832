"""Measures and tests the files that searches find; several benchmarks share it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

from fn3hw.cli.runs import OpenRun, onnx_accuracy
from fn3hw.cost import CostModel
from fn3hw.deploy import finish
from fn3hw.profiler import Meter, Profile
from fn3hw.searcher import Atlas, Heuristic, search
from fn3hw.space import Subnet

CALIBRATION_IMAGES = 2048
_MIB = 1 << 20


class Judge:
    """Measures and tests files of subnets, each once."""

    def __init__(self, opened: OpenRun, profile: Profile, meter: Meter) -> None:
        self.opened, self.meter = opened, meter
        self.supernet = opened.supernet.with_blockwise(profile.blockwise)
        self.images = opened.data.arrays("train", CALIBRATION_IMAGES)[0]
        self.files: dict[Subnet, tuple[bytes, float]] = {}
        self.latency: dict[Subnet, float] = {}

    def at_latency(self, atlas: Atlas, limit_ms: float) -> float:
        """Test accuracy of what a search would choose: by merit, the first point that is measured to meet the limit."""
        points = [p for p in atlas.points if p.latency_ms <= 1.1 * limit_ms]
        for point in sorted(points, key=lambda p: -p.accuracy):
            if self.latency_ms(point.subnet) <= limit_ms:
                return self.file(point.subnet)[1]
        return float("nan")

    def at_size(self, atlas: Atlas, limit_mib: float) -> float:
        """Test accuracy of what a search would choose: by merit, the first point whose file is no larger."""
        points = [p for p in atlas.points if p.size_mib <= 1.1 * limit_mib]
        for point in sorted(points, key=lambda p: -p.accuracy):
            if len(self.file(point.subnet)[0]) / _MIB <= limit_mib:
                return self.file(point.subnet)[1]
        return float("nan")

    def latency_ms(self, subnet: Subnet) -> float:
        """Measured latency of a subnet's file."""
        if subnet not in self.latency:
            self.latency[subnet] = self.meter.time(self.file(subnet)[0]).latency_ms
        return self.latency[subnet]

    def file(self, subnet: Subnet) -> tuple[bytes, float]:
        """A subnet's file, batch norm and activations calibrated by data, and its test accuracy."""
        if subnet not in self.files:
            model = finish(self.supernet, subnet, self.images)[0].SerializeToString()
            self.files[subnet] = model, onnx_accuracy(model, self.opened.data, "test")
        return self.files[subnet]


def searched(
    opened: OpenRun,
    cost: CostModel,
    profile: Profile,
    *,
    by: str,
    levels: Sequence[str],
    settings: Heuristic,
    final_images: int | None = None,
) -> Atlas:
    """A search of its own: nothing that another one evaluated is reused."""
    with tempfile.TemporaryDirectory() as scratch:
        return search(
            opened.supernet, cost, opened.data, folder=scratch, settings=settings, cost_by=by, levels=levels,
            profile=profile, moments=opened.moments, final_images=final_images,
        )  # fmt: skip
