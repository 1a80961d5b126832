"""Measures and tests the files that searches find; several benchmarks share it."""

from __future__ import annotations

from collections.abc import Sequence

from fn3hw.cli.runs import OpenRun, onnx_accuracy
from fn3hw.cost import CostModel
from fn3hw.deploy import finish
from fn3hw.profiler import Meter, Profile
from fn3hw.searcher import Atlas, Heuristic, search
from fn3hw.space import Subnet
from fn3hw.space.files import sha256

CALIBRATION_IMAGES = 2048
_MIB = 1 << 20


class Judge:
    """Measures and tests files of subnets, each once."""

    def __init__(self, opened: OpenRun, profile: Profile, meter: Meter) -> None:
        self.opened, self.meter = opened, meter
        self.supernet = opened.supernet.with_blockwise(profile.blockwise)
        self.images = opened.data.arrays("train", CALIBRATION_IMAGES)[0]
        self.files: dict[Subnet, bytes] = {}
        self.accuracies: dict[Subnet, float] = {}
        self.latency: dict[Subnet, float] = {}

    def at_latency(self, atlas: Atlas, limit_ms: float) -> float:
        """Test accuracy of what a search would choose: by merit, the first point that is measured to meet the limit."""
        points = [p for p in atlas.points if p.latency_ms <= 1.1 * limit_ms]
        for point in sorted(points, key=lambda p: -p.accuracy):
            if self.latency_ms(point.subnet) <= limit_ms:
                return self.accuracy(point.subnet)
        return float("nan")

    def at_size(self, atlas: Atlas, limit_mib: float) -> float:
        """Test accuracy of what a search would choose: by merit, the first point whose file is no larger."""
        points = [p for p in atlas.points if p.size_mib <= 1.1 * limit_mib]
        for point in sorted(points, key=lambda p: -p.accuracy):
            if len(self.file(point.subnet)) / _MIB <= limit_mib:
                return self.accuracy(point.subnet)
        return float("nan")

    def latency_ms(self, subnet: Subnet) -> float:
        """Measured latency of a subnet's file."""
        if subnet not in self.latency:
            self.latency[subnet] = self.meter.time(self.file(subnet)).latency_ms
        return self.latency[subnet]

    def accuracy(self, subnet: Subnet) -> float:
        """Test accuracy of a subnet's file in percent."""
        if subnet not in self.accuracies:
            self.accuracies[subnet] = onnx_accuracy(self.file(subnet), self.opened.data, "test")
        return self.accuracies[subnet]

    def file(self, subnet: Subnet) -> bytes:
        """A subnet's file, batch norm and activations calibrated by data."""
        if subnet not in self.files:
            self.files[subnet] = finish(self.supernet, subnet, self.images)[0].SerializeToString()
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
    """A search of its own: it goes on where it was interrupted, and reuses nothing that another one evaluated."""
    own = sha256(repr((profile.to_text(), by, levels, settings)).encode())[:12]
    return search(
        opened.supernet, cost, opened.data, folder=opened.folder / "searches" / own, settings=settings, cost_by=by,
        levels=levels, profile=profile, moments=opened.moments, final_images=final_images,
    )  # fmt: skip
