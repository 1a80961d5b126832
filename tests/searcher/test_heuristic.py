"""Quality and behaviour of the search on a network and a device whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fn3hw.errors import InputError, UnknownName
from fn3hw.searcher import Archive, Atlas, Charge, Evaluation, Heuristic, LocalExecutor, Provenance
from fn3hw.searcher.candidates import Walker
from fn3hw.searcher.heuristic import _Run
from fn3hw.searcher.ledger import Ledger
from fn3hw.space import Gate, SearchSpace, Subnet

from .synthetic import SyntheticAccuracy, SyntheticCost, make_space

SPACE = make_space()
COST = SyntheticCost(SPACE)
SHARES = (0.15, 0.3, 0.45, 0.6, 0.75)


def searched(
    folder: Path, settings: Heuristic, *, by: str = "latency", network: int = 0, levels: tuple[str, ...] | None = None
) -> tuple[Ledger, Charge]:
    accuracy = SyntheticAccuracy(SPACE, seed=network)
    charge = Charge(SPACE, COST, by, levels=levels)
    return run(folder / f"{by}-{network}-{settings}"[:200], settings, charge, accuracy), charge


def run(path: Path, settings: Heuristic, charge: Charge, accuracy: SyntheticAccuracy) -> Ledger:
    """A search of its own archive."""
    with Archive(path, accuracy.space, accuracy.key) as archive:
        ledger = Ledger(
            archive=archive,
            evaluator=accuracy,
            executor=LocalExecutor(),
            charge=charge,
            budget=settings.evaluations,
            search=settings.identity(charge),
        )
        settings.run(charge, ledger)
    return ledger


def expected_accuracy(folder: Path, settings: Heuristic, *, by: str = "latency", network: int = 0) -> float:
    """True accuracy, averaged over latency budgets, of what a lookup would choose by the noisy one."""
    ledger, charge = searched(folder, settings, by=by, network=network)
    subnets = [charge.subnet(state) for state in ledger.states]
    latency = COST.predict(subnets).latency_ms.to_numpy()
    full, low = COST.predict([SPACE.full(), SPACE.smallest()]).latency_ms.to_numpy()
    truth = SyntheticAccuracy(SPACE, seed=network)
    found = []
    for share in SHARES:
        fits = np.flatnonzero(latency <= low + share * (full - low))
        found.append(truth.expected(subnets[fits[ledger.accuracies[fits].argmax()]]))
    return float(np.mean(found))


def mean_over_networks(folder: Path, by: str = "latency", **settings: float) -> float:
    values = [
        expected_accuracy(folder, Heuristic(evaluations=100, seed=n, **settings), by=by, network=n)  # type: ignore[arg-type]
        for n in range(10)
    ]
    return float(np.mean(values))


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = tmp_path_factory.mktemp("search")
    return {
        "blocks": mean_over_networks(folder, "blocks", guided=0.0, refined=0.0),
        "plain": mean_over_networks(folder, guided=0.0, refined=0.0),
        "guided": mean_over_networks(folder),
    }


def test_charging_measured_cost_beats_counting_blocks(scores: dict[str, float]) -> None:
    assert scores["plain"] > scores["blocks"] + 2


def test_guided_candidates_beat_random_ones_at_equal_evaluations(scores: dict[str, float]) -> None:
    assert scores["guided"] > scores["plain"] + 1


@pytest.mark.parametrize("by", ["latency", "blocks", "size", "peak"])
@pytest.mark.parametrize("evaluations", [2, 7, 40])
def test_budget_is_never_exceeded_and_no_subnet_is_evaluated_twice(tmp_path: Path, by: str, evaluations: int) -> None:
    ledger, charge = searched(tmp_path, Heuristic(evaluations=evaluations), by=by)
    states = ledger.states
    assert len(states) == len({charge.subnet(s) for s in states}) == ledger.spent <= evaluations
    assert charge.subnet(states[0]) == SPACE.full()


@pytest.mark.parametrize("settings", [Heuristic(evaluations=40), Heuristic.plain(evaluations=40)])
def test_a_network_may_lose_all_of_its_blocks(tmp_path: Path, settings: Heuristic) -> None:
    space = SearchSpace([Gate("a", "layer", 8, 0), Gate("b", "layer", 3, 0)])
    charge = Charge(space, None, "blocks")
    kept = charge.of(run(tmp_path / "a", settings, charge, SyntheticAccuracy(space)).states)
    assert kept.min() == 0 and kept.max() == 11 and len(set(kept)) > 2


@pytest.mark.parametrize("rungs", [1, 3, 9])
def test_a_search_descends_in_as_many_rungs_as_it_is_told(tmp_path: Path, rungs: int) -> None:
    settings = Heuristic(evaluations=40, rungs=rungs, refined=0.0)
    charge, seen = Charge(SPACE, COST), []
    accuracy = SyntheticAccuracy(SPACE)
    with Archive(tmp_path / "a", SPACE, accuracy.key) as archive:
        ledger = Ledger(
            archive=archive, evaluator=accuracy, executor=LocalExecutor(), charge=charge, budget=40, search="s"
        )
        settings.run(charge, ledger, lambda rung, of: seen.append((rung, of)))
    assert seen == [(rung, rungs) for rung in range(1, rungs + 1)]
    assert ledger.spent <= 40


def test_knapsack_proposals_are_evaluated_once_and_within_the_budget(tmp_path: Path) -> None:
    ledger, charge = searched(tmp_path, Heuristic(evaluations=40, exact=2))
    assert len({charge.subnet(state) for state in ledger.states}) == ledger.spent == 40


@pytest.mark.parametrize("wrong", [{"rungs": 0}, {"exact": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least"):
        Heuristic(**wrong)  # type: ignore[arg-type]


def test_the_plain_form_by_blocks_spends_all_evaluations(tmp_path: Path) -> None:
    ledger, _ = searched(tmp_path, Heuristic.plain(evaluations=100), by="blocks")
    assert ledger.spent == 100


@pytest.mark.parametrize("by", ["latency", "blocks"])
def test_gates_of_other_levels_stay_whole(tmp_path: Path, by: str) -> None:
    ledger, charge = searched(tmp_path, Heuristic(evaluations=60), by=by, levels=("channel",))
    layers = np.array([gate.level == "layer" for gate in SPACE])
    assert (ledger.states[:, layers] == charge.sizes[layers]).all()
    assert (ledger.states[:, ~layers] < charge.sizes[~layers]).any(axis=0).all()


def test_a_level_that_the_network_does_not_have_is_refused() -> None:
    with pytest.raises(UnknownName, match="bit"):
        Charge(SPACE, COST, levels=("channel", "bit"))


def test_equal_seeds_give_equal_searches_and_others_do_not(tmp_path: Path) -> None:
    runs = [searched(tmp_path / str(i), Heuristic(evaluations=60, seed=s))[0] for i, s in enumerate((3, 3, 4))]
    assert np.array_equal(runs[0].states, runs[1].states)
    assert not np.array_equal(runs[0].states, runs[2].states)


def test_widths_of_a_latency_charged_search_are_ends_of_the_staircase(tmp_path: Path) -> None:
    ledger, charge = searched(tmp_path, Heuristic(evaluations=60))
    pairs = zip(charge.ladders, SPACE, strict=True)
    ladders = [set(ladder.tolist()) | {gate.size, gate.min_kept} for ladder, gate in pairs]
    for state in ledger.states:
        assert all(int(count) in ladder for count, ladder in zip(state, ladders, strict=True))


def test_lookups_are_tight_over_the_range_of_latencies(tmp_path: Path) -> None:
    slack = []
    for network in range(3):
        ledger, charge = searched(tmp_path, Heuristic(evaluations=150), network=network)
        known = zip(ledger.states, ledger.accuracies, strict=True)
        evaluations = [Evaluation(charge.subnet(state), float(accuracy), 0.0, "s") for state, accuracy in known]
        made_from = Provenance(device="d", network="n", profile="p", evaluator="e")
        atlas = Atlas.build(evaluations, COST, made_from, space=SPACE)
        low, high = atlas.points[0].latency_ms_high, COST.predict([SPACE.full()]).latency_ms_high.iloc[0]
        for budget in np.linspace(low, high, 40):
            slack.append(1 - atlas.lookup(latency_ms=float(budget)).latency_ms_high / budget)
    assert np.median(slack) <= 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        {"evaluations": 1},
        {"trajectories": 0},
        {"candidates": 0},
        {"window": 0.0},
        {"window": float("nan")},
        {"guided": 2.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Heuristic(**wrong)  # type: ignore[arg-type]


def test_each_level_is_looked_at_by_itself(tmp_path: Path) -> None:
    ledger, charge = searched(tmp_path, Heuristic(evaluations=40))
    known = {state.tobytes() for state in ledger.states}
    for level in SPACE.levels:
        lowest = [charge.ladders[g][-1 if gate.level == level else 0] for g, gate in enumerate(SPACE)]
        assert charge.canonical(np.array([lowest], dtype=np.int64))[0].tobytes() in known


class Stepped(SyntheticCost):
    """A device on which channels cost in steps of 64 once a layer is off, and in narrower ones before."""

    def predict(self, subnets: Sequence[Subnet]) -> pd.DataFrame:
        return super().predict([self.rounded(subnet) for subnet in subnets])

    def rounded(self, subnet: Subnet) -> Subnet:
        counts = subnet.counts
        if all(counts[gate.name] == gate.size for gate in SPACE if gate.level == "layer"):
            return subnet
        wide = {g.name: min(g.size, -(-counts[g.name] // 64) * 64) for g in SPACE if g.level == "channel"}
        return SPACE.from_counts({**counts, **wide})


@pytest.mark.parametrize("seed", range(3))
def test_what_costs_nothing_is_kept(seed: int) -> None:
    charge, rng = Charge(SPACE, Stepped(SPACE)), np.random.default_rng(seed)
    states = np.array([[rng.choice(ladder) for ladder in charge.ladders] for _ in range(20)], dtype=np.int64)
    filled = Walker(charge).filled(states, rng)
    assert (filled >= charge.canonical(states)).all() and (filled > charge.canonical(states)).any()
    assert charge.of(filled) == pytest.approx(charge.of(states))
    for g, ladder in enumerate(charge.ladders):
        at = np.searchsorted(-ladder, -filled[:, g])
        higher = filled.copy()
        higher[:, g] = np.maximum(filled[:, g], ladder[np.clip(at - 1, 0, len(ladder) - 1)])
        raised = (charge.canonical(higher) != filled).any(axis=1)
        assert (charge.of(higher)[raised] > charge.of(filled)[raised]).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_targets_lie_in_the_range_and_close_together_where_the_front_is_steep(seed: int, n: int) -> None:
    charge = Charge(SPACE, COST)
    states = np.stack([charge.sizes, charge.bottom])
    high, low = charge.of(states)
    ledger = SimpleNamespace(states=states, accuracies=np.array([90.0, 30.0]))
    run = _Run(Heuristic(seed=seed), charge, ledger, lambda *_: None)  # type: ignore[arg-type]
    targets = run._targets(high, low, n)
    assert len(targets) == n and (targets >= low).all() and (targets <= high).all() and (np.diff(targets) >= 0).all()
    # All of the fall is at the full network's own cost: half of the targets are next to it.
    many = run._targets(high, low, 100)
    assert np.mean(many > high**0.97 * low**0.03) > 0.45
    assert np.mean(many < np.sqrt(high * low)) == pytest.approx(0.25, abs=0.03)
