"""A picture of a profile and its cost model: the staircase of each gate, predictions against measurements, drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fn3hw.cost.basis import FloatArray
from fn3hw.cost.evidence import read_evidence, unit_table
from fn3hw.cost.model import CostModel
from fn3hw.profiler import Profile
from fn3hw.space.files import write_figure
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import Subnet

PANELS = 24
"""Gates that have a panel, at most: those that can save most."""

_COLUMNS = 6
_FITTED, _HELD_OUT, _DISTURBED, _KERNELS = "#1f5fa8", "#d1495b", "#d1495b", "#2a9d8f"


def plot_profile(profile: Profile, cost: CostModel, path: Path | str | None = None) -> Figure:
    """Draw what was measured and what was learned from it; an emulator's time is shown as no unit of time.

    Args:
        profile: what was measured.
        cost: fitted on it.
        path: where to write the PNG; ``None`` only returns the figure.

    Returns:
        A figure whose axes are, in order: a panel per gate, the largest saving first; those of kernels, laid over
        panels; predicted against measured; and the reference over time.

    Raises:
        InputError: the picture cannot be written.
    """
    rows = -(-min(len(cost.space), PANELS) // _COLUMNS)
    heights = [1.8 * rows + 0.6, 4.4]
    figure = Figure(figsize=(15, sum(heights) + 0.3), dpi=110, layout="constrained")
    figure.suptitle(_title(profile), fontsize=13)
    grid = figure.add_gridspec(2, 1, height_ratios=heights)
    above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    scale = _Scale.of(profile)
    _draw_curves(above, cost, _Kernels(profile), scale)
    agreement, drift = below.subplots(1, 2, width_ratios=[1, 1.6])
    _draw_agreement(agreement, profile, cost, scale)
    _draw_drift(drift, profile, scale)
    if path is not None:
        write_figure(path, figure)
    return figure


@dataclass(frozen=True, slots=True)
class _Scale:
    """What costs are shown in.

    Args:
        full: shown cost of the full network.
        unit: what stands beside the axes.
    """

    full: float
    unit: str

    @classmethod
    def of(cls, profile: Profile) -> _Scale:
        """Milliseconds, but for an emulator, whose time is only good for comparing."""
        return cls(profile.full_cost, "relative to the full network" if profile.emulated else "ms")


class _Kernels:
    """Measured time of the nodes that one gate alone decides; an emulator's kernels are not shown."""

    def __init__(self, profile: Profile) -> None:
        self._table = unit_table(profile)
        self._evidence = read_evidence(profile, profile.measurements, self._table)
        self._is_real = bool(self._evidence.times.size) and not profile.emulated

    def of(self, gate: Gate) -> tuple[FloatArray, FloatArray]:
        """Counts and µs where the nodes are there in full precision, as in the curve; empty where there are none."""
        states, encoder = self._evidence.states, self._table.encoder
        own = [k for k, unit in enumerate(self._table.units) if unit.widths == (gate.name,)]
        shown = np.full(len(states), bool(own) and self._is_real)
        for unit in (self._table.units[k] for k in own):
            shown &= states.branches[:, [encoder.branch_column[branch] for branch in unit.branches]].all(axis=1)
            for bits in unit.precisions:
                shown &= states.counts[:, encoder.column[bits]] == encoder.space[bits].size
        if not shown.any():
            return np.empty(0), np.empty(0)
        us = self._evidence.times[shown][:, own].sum(axis=1)
        return states.counts[shown, encoder.column[gate.name]][us > 0], us[us > 0]


def _title(profile: Profile) -> str:
    device = str(profile.device.get("cpu_model") or profile.command)
    emulated = ", emulated" if profile.emulated else ""
    return f"{profile.network.name} on {device}{emulated}: {len(profile.measurements)} subnets, {profile.verdict}"


def _ratios(cost: CostModel, subnets: Sequence[Subnet]) -> FloatArray:
    """Predicted cost of subnets, the measured one of the reference being 1."""
    predicted: FloatArray = cost.predict(subnets).latency_ms.to_numpy() / cost.profile.full_cost
    return predicted


def _curves(cost: CostModel) -> tuple[list[Gate], list[pd.DataFrame]]:
    """The gates, the one that can save most first, and of as many as have a panel the relative latency by count."""
    gates = list(cost.space)
    least = cost.relative(cost.space.from_counts({gate.name: gate.min_kept}) for gate in gates).relative.to_numpy()
    gates = [gates[i] for i in np.argsort(least, kind="stable")]
    ladders = [(gate, range(gate.min_kept, gate.size + 1)) for gate in gates[:PANELS]]
    table = cost.relative(cost.space.from_counts({gate.name: c}) for gate, counts in ladders for c in counts)
    ends = np.cumsum([0, *(len(counts) for _, counts in ladders)])
    return gates, [
        table.iloc[start:end].set_index(pd.Index(counts))
        for start, end, (_, counts) in zip(ends[:-1], ends[1:], ladders, strict=True)
    ]


def _draw_curves(figure: SubFigure, cost: CostModel, kernels: _Kernels, scale: _Scale) -> None:
    """A panel per gate; those of a row share their scales, so that steps can be compared."""
    gates, curves = _curves(cost)
    left_out = len(gates) - len(curves)
    note = f"; the {len(curves)} gates that save most, {left_out} left out" if left_out else ""
    figure.suptitle(f"Cost over the blocks kept of each gate, all other gates whole{note}", fontsize=11)
    figure.supylabel(scale.unit, fontsize=9)
    full = scale.full * float(_ratios(cost, [cost.space.full()])[0])
    rows = -(-len(curves) // _COLUMNS)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False, sharey="row")
    with_kernels = False
    for row in range(rows):
        twins = []
        here = slice(row * _COLUMNS, (row + 1) * _COLUMNS)
        for axes, gate, curve in zip(panels[row], gates[here], curves[here], strict=False):
            _draw_curve(axes, gate, curve * full)
            counts, us = kernels.of(gate)
            if len(counts):
                twins.append(axes.twinx())
                twins[-1].scatter(counts, us, s=7, color=_KERNELS, alpha=0.7, linewidths=0)
        _share_kernel_scale(twins)
        with_kernels |= bool(twins)
    for axes in panels.flat[len(curves) :]:
        axes.remove()
    handles: list[Artist] = [
        Line2D([], [], color=_FITTED, label=f"predicted, {scale.unit}"),
        Patch(color=_FITTED, alpha=0.2, label="90% interval of the difference to the full network"),
    ]
    if with_kernels:
        label = "measured kernels of the nodes that the gate alone decides, µs (right)"
        handles.append(Line2D([], [], color=_KERNELS, marker="o", ms=3, linestyle="", label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def _draw_curve(axes: Axes, gate: Gate, curve: pd.DataFrame) -> None:
    """A stair per count, without risers: where alignment matters there are two staircases, one above the other."""
    edges = np.arange(gate.min_kept, gate.size + 2) - 0.5
    low, high = curve.relative_low.to_numpy(), curve.relative_high.to_numpy()
    axes.use_sticky_edges = False
    axes.stairs(high, edges, baseline=low, fill=True, color=_FITTED, alpha=0.2)
    axes.hlines(curve.relative, edges[:-1], edges[1:], color=_FITTED, linewidth=1.6)
    axes.set_title(_short(gate.name), fontsize=8)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(alpha=0.25)


def _share_kernel_scale(twins: Sequence[Axes]) -> None:
    top = max((axes.get_ylim()[1] for axes in twins), default=1.0)
    for axes in twins:
        axes.set_ylim(0.0, top)
        axes.tick_params(labelsize=7, labelright=axes is twins[-1], colors=_KERNELS, axis="y")


def _draw_agreement(axes: Axes, profile: Profile, cost: CostModel, scale: _Scale) -> None:
    """Predicted against measured latency of every subnet."""
    predicted = scale.full * _ratios(cost, [cost.space.parse(m.subnet) for m in profile.measurements])
    low, measured, high = scale.full * np.array([(m.ratio_low, m.ratio, m.ratio_high) for m in profile.measurements]).T
    errors = np.stack([measured - low, high - measured])
    held_out = np.array([m.role == "holdout" for m in profile.measurements])
    for rows, color, label in ((~held_out, _FITTED, "fitted on"), (held_out, _HELD_OUT, "held out")):
        if rows.any():
            axes.errorbar(
                measured[rows], predicted[rows], xerr=errors[:, rows], fmt="o", ms=3.5, elinewidth=0.8,
                color=color, label=f"{label} ({int(rows.sum())})",
            )  # fmt: skip
    ends = [float(measured.min()), float(measured.max())]
    axes.plot(ends, ends, color="0.5", linewidth=0.8, zorder=0)
    axes.set_title(f"Mean error {100 * cost.holdout.mape:.2f}% ({cost.holdout.source})", fontsize=11)
    axes.set_xlabel(f"measured, with 90% interval ({scale.unit})")
    axes.set_ylabel(f"predicted ({scale.unit})")
    axes.legend(loc="upper left", framealpha=0.9)
    axes.grid(alpha=0.25)


def _draw_drift(axes: Axes, profile: Profile, scale: _Scale) -> None:
    """The reference in every round."""
    rounds = [one for m in profile.measurements for one in m.rounds]
    timed = all(one.at_s is not None for one in rounds)
    rounds.sort(key=lambda one: (one.at_s or 0.0, one.number))
    at = [((one.at_s or 0.0) - (rounds[0].at_s or 0.0)) / 60 if timed else i for i, one in enumerate(rounds)]
    when = np.array(at, dtype=np.float64)
    medians = np.array([float(np.median(one.samples[0])) for one in rounds])
    medians *= scale.full / np.median(medians)
    disturbed = np.array([bool(one.faults) for one in rounds])
    axes.plot(when, medians, ".-", ms=4, linewidth=0.5, color=_FITTED, label="median of a round")
    if disturbed.any():
        axes.plot(when[disturbed], medians[disturbed], "x", ms=6, color=_DISTURBED,
                  label=f"disturbed ({int(disturbed.sum())} of {len(rounds)})")  # fmt: skip
    axes.axhline(scale.full, color="0.5", linewidth=0.8, zorder=0)
    axes.set_title(
        f"Full network in {len(rounds)} rounds: slowest {profile.reference.drift:.2f} × fastest", fontsize=11
    )
    axes.set_xlabel("minutes" if timed else "rounds, by number; the order within one is not known")
    axes.set_ylabel(scale.unit)
    axes.margins(y=0.15)
    axes.legend(loc="upper right", ncols=2, framealpha=0.9)
    axes.grid(alpha=0.25)


def _short(name: str, longest: int = 30) -> str:
    return name if len(name) <= longest else f"…{name[1 - longest :]}"
