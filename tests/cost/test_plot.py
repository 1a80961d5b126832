"""The picture shows every subnet, every count and every round, and no emulator's time."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import fn3hw.cost.plot as drawing
from fn3hw.cost import CostModel, fit_cost
from fn3hw.cost.plot import plot_profile
from fn3hw.profiler import Profile
from tests.cost.profiles import DEVICE, REFERENCE_MS, ROUNDS, as_profile
from tests.cost.synthetic import SPACE, Machine, measure, subnets

FAKE = measure(Machine(), subnets(12, 0), subnets(8, 1)[1:], noise=0.004)


@pytest.fixture(scope="module")
def profile() -> Profile:
    return as_profile(FAKE)


@pytest.fixture(scope="module")
def cost(profile: Profile) -> CostModel:
    return fit_cost(profile)


@pytest.fixture(scope="module")
def png(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plot") / "p.png"


@pytest.fixture(scope="module")
def figure(profile: Profile, cost: CostModel, png: Path) -> Figure:
    return plot_profile(profile, cost, png)


@pytest.fixture(scope="module")
def emulated(cost: CostModel) -> Figure:
    """The same measurements said to be taken on an emulator, by a version that did not note when."""
    return plot_profile(as_profile(FAKE, timed=False, device={**DEVICE, "emulated": True}), cost)


def said(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def test_it_is_written_as_png(figure: Figure, png: Path):
    written = png.read_bytes()
    assert written.startswith(b"\x89PNG") and len(written) > 20_000


def test_a_stair_per_count_of_each_gate(figure: Figure, cost: CostModel):
    panels = figure.axes[: len(SPACE)]
    assert {axes.get_title() for axes in panels} == {gate.name for gate in SPACE}
    spans = []
    for axes in panels:
        gate = SPACE[axes.get_title()]
        (stairs,) = axes.collections
        heights = np.array([segment[0, 1] for segment in stairs.get_segments()])
        assert heights == pytest.approx(cost.curve(gate.name).to_numpy())
        (band,) = axes.patches
        assert len(band.get_data().values) == len(heights)
        assert (np.array(band.get_data().baseline) <= heights).all() and (heights <= band.get_data().values).all()
        spans.append(heights[-1] - heights[0])
    assert spans == sorted(spans, reverse=True)


def test_measured_kernels_of_each_gate_that_has_nodes_of_its_own(figure: Figure, profile: Profile):
    dots = [axes.collections[0].get_offsets() for axes in figure.axes[len(SPACE) : -2]]
    branch = {name: sum(block in SPACE.parse(m.subnet).blocks("stage") for m in profile.measurements)
              for name, block in (("b", 0), ("c", 1))}  # fmt: skip
    n = len(profile.measurements)
    assert sorted(len(one) for one in dots) == sorted([n, branch["b"], branch["c"], n, n])
    of_a = {(m.counts["a"], m.kernels["a.expand"] + m.kernels["a.project"]) for m in profile.measurements}
    assert of_a in [set(map(tuple, one.tolist())) for one in dots]


def test_predicted_against_measured(figure: Figure, profile: Profile, cost: CostModel):
    axes = figure.axes[-2]
    assert f"{100 * cost.holdout.mape:.2f}% (held-out subnets)" in axes.get_title()
    assert "ms" in axes.get_xlabel() and "ms" in axes.get_ylabel()
    fitted, held_out = axes.containers
    assert [one.get_label() for one in (fitted, held_out)] == ["fitted on (12)", "held out (7)"]
    assert fitted.lines[0].get_color() != held_out.lines[0].get_color()
    for drawn, measured in ((fitted, profile.fitted), (held_out, profile.held_out)):
        points = drawn.lines[0]
        assert points.get_xdata() == pytest.approx([REFERENCE_MS * m.ratio for m in measured])
        assert points.get_ydata() == pytest.approx(cost.predict(SPACE.parse(m.subnet) for m in measured).latency_ms)
        (bars,) = drawn.lines[2]
        ends = [segment[:, 0] for segment in bars.get_segments()]
        assert np.array(ends) == pytest.approx(REFERENCE_MS * np.array([(m.ratio_low, m.ratio_high) for m in measured]))


def test_rounds_over_time_with_the_disturbed_ones_marked(figure: Figure, profile: Profile):
    axes = figure.axes[-1]
    rounds, disturbed = axes.lines[:2]
    n = len(profile.measurements)
    assert len(rounds.get_xdata()) == ROUNDS * n and disturbed.get_label() == f"disturbed ({n} of {ROUNDS * n})"
    assert rounds.get_ydata() == pytest.approx(REFERENCE_MS * np.tile([0.9, 1.0, 1.1], n))
    assert disturbed.get_ydata() == pytest.approx(np.full(n, REFERENCE_MS))
    assert rounds.get_xdata()[0] == 0 and (np.diff(rounds.get_xdata()) > 0).all()
    assert rounds.get_xdata()[-1] == pytest.approx(n - 1 + (ROUNDS - 1) / 60)
    assert axes.get_xlabel() == "minutes"


def test_rounds_whose_time_is_not_known_are_in_order_of_their_numbers(emulated: Figure):
    axes = emulated.axes[-1]
    assert "order within one is not known" in axes.get_xlabel()
    assert axes.lines[0].get_ydata() == pytest.approx(np.repeat([0.9, 1.0, 1.1], len(FAKE.measurements)))


def test_an_emulator_has_no_milliseconds(figure: Figure, emulated: Figure, profile: Profile):
    time_units = re.compile(r"\b(ms|milliseconds?)\b|µs")
    assert any(time_units.search(text) for text in said(figure))
    assert not any(time_units.search(text) for text in said(emulated))
    assert len(emulated.axes) == len(SPACE) + 2  # no kernels
    panels, (agreement, drift) = emulated.axes[:-2], emulated.axes[-2:]
    labels = (emulated.subfigs[0].get_supylabel(), agreement.get_xlabel(), agreement.get_ylabel(), drift.get_ylabel())
    assert all("relative to the full network" in label for label in labels)
    assert any("fake, emulated" in text for text in said(emulated))
    for axes in panels:
        assert axes.collections[0].get_segments()[-1][0, 1] == pytest.approx(1.0, abs=0.05)
    points = agreement.containers[0].lines[0]
    assert points.get_xdata() == pytest.approx([m.ratio for m in profile.fitted])
    assert points.get_ydata() == pytest.approx([m.ratio for m in profile.fitted], rel=0.05)


def test_gates_that_save_little_are_left_out_and_counted(
    profile: Profile, cost: CostModel, figure: Figure, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(drawing, "PANELS", 4)
    smaller = plot_profile(profile, cost)
    assert any("4 gates that save most, 2 left out" in text for text in said(smaller))
    assert not any("left out" in text for text in said(figure))
    titles = [axes.get_title() for axes in figure.axes]
    assert [axes.get_title() for axes in smaller.axes[:4]] == titles[:4]


def test_without_kernel_times_there_are_the_curves_alone():
    bare = as_profile(measure(Machine(), subnets(8, 0), kernels=False))
    figure = plot_profile(bare, fit_cost(bare))
    assert len(figure.axes) == len(SPACE) + 2
    assert "leave-one-out" in figure.axes[-2].get_title()
