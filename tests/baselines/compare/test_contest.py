from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fn3hw.baselines.compare import Contest, Play, Progress, Rules, methods_of
from fn3hw.errors import InfeasibleBudget, InputError, RunError, UnknownName
from fn3hw.space.subnet import Subnet

from ..methods.toy import BUDGETS, CHARGE, SPACE, accuracy

RULES = Rules(methods=("fn3hw", "random"), seeds=(0, 1), budgets=BUDGETS, evaluations=30)


class Toy:
    """The toy problem as an evaluator; it may fail, and stop."""

    key = "toy:1"

    def __init__(self, *, fails: Callable[[Subnet], bool] = lambda _: False, stop_after: float = np.inf) -> None:
        self.calls = 0
        self.fails, self.stop_after = fails, stop_after

    def accuracy(self, subnet: Subnet) -> float:
        self.calls += 1
        if self.calls > self.stop_after:
            raise KeyboardInterrupt
        if self.fails(subnet):
            raise RuntimeError("the runtime rejects this subnet")
        return float(accuracy(np.array([list(subnet.counts.values())]))[0])


def contest(folder: Path, evaluator: Any = None, rules: Rules = RULES) -> Contest:
    return Contest(rules, CHARGE, evaluator or Toy(), folder)


def test_every_method_plays_with_every_seed_and_the_same_number_of_evaluations(tmp_path: Path) -> None:
    seen = list[Progress]()
    plays = contest(tmp_path).play(seen.append)
    assert [(play.method, play.seed) for play in plays] == [("fn3hw", 0), ("random", 0), ("fn3hw", 1), ("random", 1)]
    assert all(len(play.subnets) == RULES.evaluations for play in plays)
    assert [p.done for p in seen] == list(range(1, 121)) and seen[-1].total == 120 and seen[-1].seconds_left == 0
    for play in plays:
        states = np.array([list(SPACE.parse(name).counts.values()) for name in play.subnets])
        np.testing.assert_allclose(play.accuracy, accuracy(states))
        np.testing.assert_allclose(play.cost, CHARGE.of(states))
        assert play.infeasible == (play.cost > max(BUDGETS)).sum()


def test_an_interrupted_contest_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    undisturbed = contest(tmp_path / "a").play()
    first, second = Toy(stop_after=70), Toy()
    with pytest.raises(KeyboardInterrupt):
        contest(tmp_path / "b", first).play()
    resumed = contest(tmp_path / "b", second).play()
    assert [play.subnets for play in resumed] == [play.subnets for play in undisturbed]
    unique = {name for play in undisturbed for name in play.subnets}
    assert first.calls - 1 + second.calls == len(unique)  # nothing was evaluated twice, by whatever method

    again = Toy()
    assert [play.subnets for play in contest(tmp_path / "b", again).play()] == [p.subnets for p in undisturbed]
    assert again.calls == 0


def test_plays_round_trip_through_their_file_and_damaged_ones_are_named(tmp_path: Path) -> None:
    (play, *_) = contest(tmp_path).play()
    path = tmp_path / "play.csv"
    play.write(path)
    back = Play.read(path)
    assert (back.method, back.seed, back.subnets, back.infeasible) == ("fn3hw", 0, play.subnets, play.infeasible)
    np.testing.assert_allclose(back.seconds, play.seconds)
    path.write_text("# what is this")
    with pytest.raises(RunError) as caught:
        Play.read(path)
    assert str(path) in caught.value.hint


def test_failing_evaluations_are_counted_and_survived(tmp_path: Path) -> None:
    evaluator = Toy(fails=lambda subnet: subnet.counts["layer0"] == 5)
    plays = contest(tmp_path, evaluator).play()
    assert sum(play.failed for play in plays) > 0
    for play in plays:
        failed = np.array([SPACE.parse(name).counts["layer0"] == 5 for name in play.subnets])
        np.testing.assert_array_equal(np.isnan(play.accuracy), failed)
        best = play.best_within(35.0)
        assert best is None or (play.cost[best] <= 35 and np.isfinite(play.accuracy[best]))


def test_other_rules_are_other_plays(tmp_path: Path) -> None:
    first = contest(tmp_path)
    others = [replace(RULES, evaluations=31), replace(RULES, budgets=(40.0,))]
    assert len({c.path("random", 0) for c in (first, *(contest(tmp_path, rules=one) for one in others))}) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"methods": ()}, {"methods": ("random", "random")}, {"seeds": ()}, {"budgets": ()}, {"evaluations": 1},
        {"budgets": (10.0, -1.0)}, {"budgets": (float("nan"),)},
    ],
)  # fmt: skip
def test_rules_without_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        replace(RULES, **wrong)


def test_unknown_methods_and_budgets_that_nothing_meets_are_refused_before_anything_is_evaluated(
    tmp_path: Path,
) -> None:
    with pytest.raises(UnknownName):
        contest(tmp_path, rules=replace(RULES, methods=("randem",)))
    with pytest.raises(InfeasibleBudget) as caught:
        contest(tmp_path, rules=replace(RULES, budgets=(2.0, 30.0)))
    assert caught.value.best == pytest.approx(9.0)
    assert list(tmp_path.iterdir()) == []


def test_the_first_method_is_the_one_that_others_are_compared_with() -> None:
    assert methods_of(["random", "fn3hw"], first="fn3hw") == ("fn3hw", "random")
    assert methods_of(None, first="fn3hw")[0] == "fn3hw"
