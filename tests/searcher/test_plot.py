"""The picture is a PNG that shows what it is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fn3hw.searcher import Atlas, plot_front

from .test_export import atlas_on


def test_picture_shows_device_budget_prediction_and_measurement(tmp_path: Path) -> None:
    atlas, _ = atlas_on(1.1)
    asked = atlas.lookup(latency_ms=3.0)
    exported = asked.export(tmp_path / "model.onnx")
    figure = plot_front(atlas, tmp_path / "front.png", chosen=[asked], exported=[exported])
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    axes = figure.axes[0]
    assert atlas.provenance.device in axes.get_xlabel()
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "(ms)" in axes.get_xlabel()
    emulated = Atlas(atlas.points, replace(atlas.provenance, quantity="instructions"))
    axes = plot_front(emulated, chosen=[emulated.lookup(relative_cost=3.0)]).axes[0]
    assert "relative cost" in axes.get_xlabel() and "ms" not in axes.get_xlabel().replace(
        emulated.provenance.device, ""
    )
    assert sorted(labels) == ["budget", "evaluated", "front", "measured", "predicted, with interval"]
