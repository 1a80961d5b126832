"""A picture of an atlas: accuracy against latency, with budgets and measured files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from fn3hw.searcher.atlas import Atlas, Point
from fn3hw.space.files import write_figure

if TYPE_CHECKING:
    from fn3hw.searcher.export import Exported

_FRONT, _CHOSEN, _MEASURED = "#1f5fa8", "#d1495b", "#2a9d8f"


def plot_front(
    atlas: Atlas,
    path: Path | str | None = None,
    *,
    chosen: Sequence[Point] = (),
    exported: Sequence[Exported] = (),
    title: str = "",
) -> Figure:
    """Draw the evaluated subnets, the front of accuracy against latency, budgets, predictions and measurements.

    Args:
        atlas: what to draw.
        path: where to write the PNG; ``None`` only returns the figure.
        chosen: answers of lookups: the budget as a line, the prediction with its interval.
        exported: exported files, of which the measured latency is marked.
        title: above the picture; the device by default.

    Raises:
        InputError: the picture cannot be written.
    """
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    every = [*atlas.points, *atlas.dominated]
    axes.scatter(
        [p.latency_ms for p in every],
        [p.evaluated_accuracy for p in every],
        s=14,
        color="0.75",
        label="evaluated",
        zorder=1,
    )
    front = latency_front(atlas)
    axes.plot(
        [p.latency_ms for p in front],
        [p.accuracy for p in front],
        drawstyle="steps-post",
        marker="o",
        markersize=3.5,
        color=_FRONT,
        label="front",
        zorder=2,
    )
    for number, point in enumerate(chosen):
        label = "predicted, with interval" if not number else None
        spans = [[point.latency_ms - point.latency_ms_low], [point.latency_ms_high - point.latency_ms]]
        spans = np.maximum(spans, 0.0).tolist()
        axes.errorbar(
            point.latency_ms, point.accuracy, xerr=spans, fmt="D", ms=6, capsize=4, color=_CHOSEN, label=label, zorder=4
        )
        if point.budget.cost is not None:
            line_label = "budget" if not number else None
            axes.axvline(point.budget.cost, color=_CHOSEN, linestyle="--", linewidth=1, label=line_label, zorder=0)
    measured = [e for e in exported if e.measured_latency_ms is not None]
    if measured:
        axes.scatter(
            [e.measured_latency_ms or 0.0 for e in measured],
            [e.point.accuracy for e in measured],
            marker="x",
            s=60,
            color=_MEASURED,
            label="measured",
            zorder=5,
        )
    what, unit = "latency", "ms"
    if atlas.provenance.emulated:
        what, unit = "relative cost", f"{atlas.provenance.quantity}, full network = 1; emulated"
    axes.set_xlabel(f"{what} on {atlas.provenance.device} ({unit})")
    axes.set_ylabel("accuracy on the search split (%)")
    axes.set_title(title or f"Accuracy against {what}, {atlas.provenance.device}", fontsize=11)
    _frame(axes, [p.accuracy for p in front])
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", framealpha=0.9)
    if path is not None:
        write_figure(path, figure)
    return figure


def latency_front(atlas: Atlas) -> list[Point]:
    """The points that are more accurate than every faster one, by ascending predicted latency."""
    front: list[Point] = []
    for point in sorted(atlas.points, key=lambda p: (p.latency_ms, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def _frame(axes: object, accuracies: Sequence[float]) -> None:
    """Show the front: points far below it would press it against the upper edge."""
    low, high = min(accuracies), max(accuracies)
    margin = max(1.0, 0.08 * (high - low))
    axes.set_ylim(low - 2 * margin, min(100.0, high + margin) + 0.2)  # type: ignore[attr-defined]
