from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.baselines.compare import Play, score, write_report
from fn3hw.baselines.compare.scoring import Mean, Range, to_verify

SPAN = Range(full=10.0, smallest=2.0, floor=50.0)
points = st.lists(st.tuples(st.floats(1.0, 11.0), st.floats(40.0, 99.0)), min_size=1, max_size=12)


def play(method: str, seed: int, cost: list[float], accuracy: list[float]) -> Play:
    n = len(cost)
    names = tuple(f"{method}{seed}-{i}" for i in range(n))
    return Play(method, seed, names, np.array(cost), np.array(accuracy), np.full(n, 2.0), np.full(n, 0.5), 0)


def mean_accuracy(cost: np.ndarray, accuracy: np.ndarray) -> float:  # type: ignore[type-arg]
    """The definition, on a fine grid of costs."""
    grid = np.linspace(SPAN.smallest, SPAN.full, 200_001)
    best = np.full(len(grid), SPAN.floor)
    for c, a in zip(cost, accuracy, strict=True):
        best = np.where(grid >= c, np.maximum(best, a), best)
    return float(best.mean())


@given(points)
def test_hypervolume_is_the_mean_accuracy_over_costs(found: list[tuple[float, float]]) -> None:
    cost, accuracy = np.array(found).T
    assert SPAN.hypervolume(cost, accuracy) == pytest.approx(mean_accuracy(cost, accuracy), abs=0.01)


@given(points, st.tuples(st.floats(1.0, 11.0), st.floats(40.0, 99.0)))
def test_one_more_subnet_never_lowers_hypervolume(found: list[tuple[float, float]], more: tuple[float, float]) -> None:
    before = SPAN.hypervolume(*np.array(found).T)
    assert SPAN.hypervolume(*np.array([*found, more]).T) >= before - 1e-9


def test_failed_evaluations_have_no_part() -> None:
    cost, accuracy = np.array([3.0, 4.0]), np.array([np.nan, 80.0])
    assert SPAN.hypervolume(cost, accuracy) == pytest.approx(50 + 30 * 6 / 8)
    assert SPAN.hypervolume(cost[:1], accuracy[:1]) == SPAN.floor


def test_the_interval_of_a_mean_holds_it_and_needs_two_seeds() -> None:
    mean = Mean.of([1.0, 2.0, 3.0, 6.0])
    assert mean.mean == 3.0 and 1.0 <= mean.low < 3.0 < mean.high <= 6.0
    assert np.isnan(Mean.of([1.0]).low)


def test_scores_compare_with_the_first_method() -> None:
    plays = [play("ours", seed, [8.0, 4.0, 3.0], [90.0, 85.0 + seed, 80.0]) for seed in range(5)]
    plays += [play("theirs", seed, [8.0, 4.0, 3.0], [70.0, 75.0 + seed, 70.0]) for seed in range(5)]
    ours, theirs = score(plays, (5.0, 2.5), SPAN).methods
    assert ours.hypervolume.mean.mean > theirs.hypervolume.mean.mean and ours.unseen is None
    assert ours.reached is not None and ours.reached[0] <= 3 and theirs.reached is None
    assert theirs.hypervolume.difference.mean < 0 and theirs.hypervolume.difference.high < 0
    assert theirs.hypervolume.p_value == pytest.approx(2 / 32)  # all five seeds agree: no smaller one can be had
    assert ours.at_budget[5.0][0].mean == 87 and ours.at_budget[5.0][1] == 1
    assert ours.at_budget[2.5][1] == 0 and np.isnan(ours.at_budget[2.5][0].mean)
    assert ours.seconds == pytest.approx(7.5) and ours.thinking == pytest.approx(0.2)
    assert ours.chosen.mean.mean == pytest.approx((87 + SPAN.floor) / 2)  # the smallest subnet where none was found
    assert theirs.chosen.difference.mean == pytest.approx(-5) and theirs.chosen.p_value == pytest.approx(2 / 32)
    assert list(ours.curve["evaluations"]) == [1, 2, 3] and ours.curve["mean"].is_monotonic_increasing


def test_accuracy_at_a_budget_is_that_on_other_images_where_it_is_known() -> None:
    plays = [play("ours", seed, [8.0, 4.0], [90.0, 85.0]) for seed in range(2)]
    names = to_verify(plays, (5.0, 9.0))
    assert names == ["ours0-1", "ours0-0", "ours1-1", "ours1-0"]
    (ours,) = score(plays, (5.0, 9.0), SPAN, final=dict.fromkeys(names, 60.0)).methods
    assert ours.at_budget[5.0][0].mean == 60.0 and ours.chosen.mean.mean == 60.0


@given(points)
def test_a_front_is_what_budgets_are_answered_with(found: list[tuple[float, float]]) -> None:
    one = play("ours", 0, *(list(column) for column in zip(*found, strict=True)))
    front = one.front()
    assert (np.diff(one.cost[front]) > 0).all() and (np.diff(one.accuracy[front]) > 0).all()
    for budget in (1.5, 4.0, 11.0):
        best, within = one.best_within(budget), [row for row in front if one.cost[row] <= budget]
        assert (best is None) == (not within)
        assert best is None or one.accuracy[best] == one.accuracy[within[-1]]


@given(points)
def test_hypervolume_on_unseen_images_is_that_of_the_seen_ones_where_they_agree(
    found: list[tuple[float, float]],
) -> None:
    one = play("ours", 0, *(list(column) for column in zip(*found, strict=True)))
    agreed = {name: max(float(a), SPAN.floor) for name, a in zip(one.subnets, one.accuracy, strict=True)}
    assert SPAN.unseen(one, agreed) == pytest.approx(SPAN.hypervolume(one.cost, one.accuracy))
    (scored,) = score([one], (5.0,), SPAN, agreed).methods
    assert scored.unseen is not None and scored.unseen.mean.mean == pytest.approx(scored.hypervolume.mean.mean)


def test_what_is_lucky_on_seen_images_only_is_worth_what_unseen_ones_say() -> None:
    one = play("ours", 0, [2.0, 6.0], [60.0, 99.0])
    final = dict(zip(one.subnets, (60.0, 70.0), strict=True))
    assert SPAN.unseen(one, final) == pytest.approx(65.0)


def test_the_report_is_complete_and_needs_no_network(tmp_path: Path) -> None:
    plays = [play(name, seed, [8.0, 4.0], [90.0, 85.0]) for name in ("ours", "one seed <b>") for seed in range(2)]
    paths = write_report(tmp_path, score(plays, (5.0, 2.5), SPAN), {"evaluations": 2})
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths.values()}
    document = json.loads(paths["json"].read_text())
    assert [method["name"] for method in document["methods"]] == ["ours", "one seed <b>"]
    assert document["methods"][0]["accuracy_at_budget"]["2.5"]["mean"] is None
    assert set(pd.read_csv(paths["curves"])["method"]) == {"ours", "one seed <b>"}
    assert len(pd.read_csv(paths["methods"])) == 2
    page = paths["html"].read_text()
    assert "one seed <b>" not in page.split("<script")[0] and 'src="http' not in page
    assert paths["png"].read_bytes().startswith(b"\x89PNG")
