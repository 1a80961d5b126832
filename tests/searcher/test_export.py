"""Exports that are measured, corrected and tried again, on devices that are slower than predicted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.errors import DeviceError, InputError
from fn3hw.profiler import Reading
from fn3hw.searcher import Atlas, Exporter, Point
from fn3hw.searcher.budget import Budget
from fn3hw.space.files import sha256
from fn3hw.space.subnet import Subnet

from .test_atlas import MADE_FROM, point

TAIL = 1.3
"""One of ten runs takes so much longer than the usual one on the device."""


class Maker:
    def make(self, subnet: Subnet) -> tuple[bytes, float]:
        return subnet.id.encode(), 1e-6


class Slow:
    """A device on which every file takes ``factor`` times as long as predicted, and up to ``scatter`` more again."""

    def __init__(self, points: tuple[Point, ...], factor: float, scatter: float = 0.0) -> None:
        self.predicted = {p.subnet.id.encode(): p.latency_ms for p in points}
        self.factor = factor
        self.scatter = scatter
        self.memory = 1.0
        self.asked: list[bytes] = []
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    def read(self, model: bytes, percentile: int) -> Reading:
        self.asked.append(model)
        latency_ms = self.factor * self.predicted[model] * (TAIL if percentile == 90 else 1.0)
        return Reading(latency_ms=latency_ms, again_ms=latency_ms * (1 + self.scatter))

    def peak_mib(self, model: bytes) -> float:
        return 10.0 * self.memory


def atlas_on(factor: float, n: int = 20, max_tries: int = 4, scatter: float = 0.0) -> tuple[Atlas, Slow]:
    points = [point(i, latency=1 + 0.2 * i, high=1.02, peak=10, size=5, accuracy=50.0 + i) for i in range(n)]
    device = Slow(tuple(points), factor, scatter)
    return Atlas(
        points, MADE_FROM, exporter=Exporter(Maker(), lambda name: device, max_tries=max_tries, tail=TAIL)
    ), device


def test_an_accurate_prediction_is_exported_at_once(tmp_path: Path) -> None:
    atlas, device = atlas_on(1.0)
    asked = atlas.lookup(latency_ms=3.0)
    exported = asked.export(tmp_path / "model.onnx")
    # Measuring frees it from the interval: the best point whose prediction meets the budget, scatter included.
    assert exported.point.accuracy >= asked.accuracy and exported.point.latency_ms <= 3.0
    assert exported.budget_met and len(device.asked) == device.closed == 1
    assert exported.sha256 == sha256((tmp_path / "model.onnx").read_bytes())
    assert exported.measured_latency_ms == exported.point.latency_ms
    assert {"subnet", "counts", "path", "sha256", "measured_latency_ms", "budget_met", "max_abs_diff"} <= set(
        exported.to_json()
    )


def test_what_was_measured_too_unsurely_to_be_sure_of_any_other_point_is_no_reason_to_give_up(tmp_path: Path) -> None:
    atlas, device = atlas_on(1.0)

    def read(model: bytes, percentile: int) -> Reading:
        first = not device.asked
        device.asked.append(model)
        latency_ms = device.predicted[model]
        return Reading(latency_ms=latency_ms, again_ms=latency_ms * (1.5 if first else 1.0))

    device.read = read  # type: ignore[method-assign]
    exported = atlas.lookup(latency_ms=1.3).export(tmp_path / "model.onnx")
    assert exported.budget_met and exported.point.latency_ms == 1.0 and len(device.asked) == 2


@given(st.floats(0.9, 1.6))
def test_the_next_best_point_is_tried_until_the_measured_latency_meets_the_budget(factor: float) -> None:
    import tempfile

    atlas, device = atlas_on(factor)
    with tempfile.TemporaryDirectory() as folder:
        exported = atlas.lookup(latency_ms=3.0).export(Path(folder) / "model.onnx")
        assert exported.budget_met and exported.measured_latency_ms is not None and exported.measured_latency_ms <= 3.0
        assert Path(exported.path).read_bytes() == exported.point.subnet.id.encode()
    assert len(device.asked) == len(exported.tries) <= 3
    better = [p for p in atlas.points if p.accuracy > exported.point.accuracy]
    assert all(factor * p.latency_ms > 0.98 * 3.0 for p in better)


@given(st.floats(0.9, 1.4), st.floats(0.0, 0.05))
def test_a_later_measurement_meets_the_budget_too(factor: float, scatter: float) -> None:
    import tempfile

    atlas, device = atlas_on(factor, scatter=scatter)
    with tempfile.TemporaryDirectory() as folder:
        exported = atlas.lookup(latency_ms=3.0).export(Path(folder) / "model.onnx")
    assert exported.budget_met and exported.measured_latency_ms is not None
    assert exported.measured_latency_ms * (1 + scatter) <= 3.0
    assert len(device.asked) <= 4


def test_a_budget_for_nine_of_ten_runs_is_met_by_them(tmp_path: Path) -> None:
    atlas, device = atlas_on(1.0)
    asked = atlas.lookup(latency_ms=3.0)
    usual, nine_of_ten = (asked.export(tmp_path / f"{p}.onnx", percentile=p) for p in (50, 90))
    assert nine_of_ten.budget_met and nine_of_ten.measured_latency_ms == TAIL * nine_of_ten.point.latency_ms
    assert nine_of_ten.point.latency_ms < usual.point.latency_ms <= 3.0
    assert len(device.asked) == 2  # how long the tail usually is was known before
    assert nine_of_ten.to_json()["percentile"] == 90
    with pytest.raises(InputError, match="99"):
        asked.export(tmp_path / "99.onnx", percentile=99)


def test_a_budget_that_was_left_unused_is_used_by_a_better_point(tmp_path: Path) -> None:
    atlas, device = atlas_on(0.7)
    exported = atlas.lookup(latency_ms=3.0).export(tmp_path / "model.onnx")
    assert exported.budget_met and exported.measured_latency_ms == pytest.approx(0.7 * 4.2)
    assert exported.point.accuracy == max(p.accuracy for p in atlas.points if 0.7 * p.latency_ms <= 3.0 * 0.985)
    assert len(device.asked) == 2


def test_a_better_point_that_misses_the_budget_is_not_taken(tmp_path: Path) -> None:
    atlas, device = atlas_on(0.7)
    slow = max(atlas.points, key=lambda p: p.latency_ms if 0.7 * p.latency_ms <= 2.95 else 0.0)
    device.predicted[slow.subnet.id.encode()] = 100.0
    exported = atlas.lookup(latency_ms=3.0).export(tmp_path / "model.onnx")
    assert slow.subnet in {t.subnet for t in exported.tries}
    assert exported.budget_met and exported.point.subnet != slow.subnet
    assert exported.path.read_bytes() == exported.point.subnet.id.encode()


def test_tries_are_bounded_and_a_miss_is_said(tmp_path: Path) -> None:
    atlas, device = atlas_on(10.0)
    exported = atlas.lookup(latency_ms=3.0).export(tmp_path / "model.onnx")
    assert not exported.budget_met and exported.missed == "latency_ms" and len(device.asked) <= 4
    assert (tmp_path / "model.onnx").read_bytes() == min(device.asked, key=lambda model: device.predicted[model])


def test_without_a_budget_any_latency_is_fine_and_without_a_device_nothing_is_measured(tmp_path: Path) -> None:
    atlas, device = atlas_on(10.0)
    assert atlas.lookup().export(tmp_path / "a.onnx").budget_met
    assert len(device.asked) == 1
    exported = atlas.lookup(latency_ms=3.0).export(tmp_path / "b.onnx", verify_on=None)
    assert exported.measured_latency_ms is None and exported.budget_met and len(device.asked) == 1


def test_a_memory_budget_is_measured(tmp_path: Path) -> None:
    atlas, device = atlas_on(1.0)
    exported = atlas.lookup(latency_ms=3.0, peak_mib=12.0).export(tmp_path / "a.onnx")
    assert exported.budget_met and exported.measured_peak_mib == exported.to_json()["measured_peak_mib"] == 10.0
    assert atlas.lookup(latency_ms=3.0).export(tmp_path / "b.onnx").measured_peak_mib is None
    device.memory = 1.3
    missed = atlas.lookup(latency_ms=3.0, peak_mib=12.0).export(tmp_path / "c.onnx")
    assert not missed.budget_met and missed.missed == "peak_mib"


def test_a_size_budget_is_checked_on_the_file(tmp_path: Path) -> None:
    atlas, _ = atlas_on(1.0)
    asked = replace(atlas.points[0], budget=Budget(size_mib=1e-9))
    assert not asked.export(tmp_path / "model.onnx", verify_on=None).budget_met


def test_a_device_that_fails_leaves_no_file(tmp_path: Path) -> None:
    class Gone:
        def close(self) -> None:
            pass

        def read(self, model: bytes, percentile: int) -> Reading:
            raise DeviceError("The device is gone.")

        def peak_mib(self, model: bytes) -> float:
            raise DeviceError("The device is gone.")

    points = [point(1, latency=1, high=1, peak=1, size=1, accuracy=1)]
    atlas = Atlas(points, MADE_FROM, exporter=Exporter(Maker(), lambda name: Gone()))
    with pytest.raises(DeviceError):
        atlas.lookup().export(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file_to_export_to(tmp_path: Path) -> None:
    atlas, device = atlas_on(1.0)
    with pytest.raises(InputError, match="folder"):
        atlas.lookup().export(tmp_path)
    assert not device.asked
    with pytest.raises(InputError):
        Exporter(Maker(), lambda name: device, max_tries=0)
