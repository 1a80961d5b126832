"""Races give up what is beaten, seldom anything else, and a search with them ends where one without them does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.errors import InputError
from fn3hw.searcher import Archive, Atlas, Heuristic, LocalExecutor, Provenance, run_search
from fn3hw.searcher.api import ARCHIVE
from fn3hw.searcher.racing import FEWEST, Race, Runner, is_behind, looks
from fn3hw.space.subnet import Subnet

from .synthetic import SyntheticCost, SyntheticImages, archived, make_space

SPACE = make_space(6)
MADE_FROM = Provenance(device="bench", network="synthetic", profile="p", evaluator="synthetic:1")
SETTINGS = Heuristic(evaluations=80, seed=5)


def runners(evaluator: SyntheticImages, n: int, *, seed: int = 0) -> list[Runner]:
    rng = np.random.default_rng(seed)
    return [Runner(SPACE.random(rng, prefix=True), cost=1.0) for _ in range(n)]


def known(evaluator: SyntheticImages, subnet: Subnet, cost: float) -> Runner:
    return Runner(subnet, cost, evaluator.accuracy(subnet))


@given(st.integers(1, 20_000), st.integers(1, 256))
def test_looks_are_multiples_of_the_batch_and_end_with_all_images(n_images: int, batch_size: int) -> None:
    found = looks(n_images, batch_size)
    assert found[-1] == n_images and list(found) == sorted(set(found))
    assert all(n % batch_size == 0 and n >= FEWEST for n in found[:-1])


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 4.0))
def test_none_is_behind_itself_or_behind_one_that_is_never_right_where_it_is_wrong(seed: int, errors: float) -> None:
    rng = np.random.default_rng(seed)
    own = rng.random(200) < 0.9
    assert not is_behind(own, own, 1000, errors)
    assert not is_behind(own, own & (rng.random(200) < 0.9), 1000, errors)


def test_when_all_images_were_seen_any_difference_tells() -> None:
    rival, own = np.ones(100, dtype=bool), np.ones(100, dtype=bool)
    own[0] = False
    assert is_behind(own, rival, 100, 2.0) and not is_behind(own, rival, 200, 2.0)


def test_outcomes_are_the_accuracies_of_those_that_stay_and_near_those_of_the_others() -> None:
    evaluator = SyntheticImages(SPACE)
    candidates = runners(evaluator, 40)
    others = [known(evaluator, one.subnet, 1.0) for one in runners(evaluator, 5, seed=1)]
    outcomes = {one.subnet: one for one in Race(evaluator, LocalExecutor(), behind=2.0).run(candidates, others)}
    assert outcomes.keys() == {one.subnet for one in candidates}
    stayed = [one for one in outcomes.values() if one.images is None]
    given_up = [one for one in outcomes.values() if one.images is not None]
    assert stayed and given_up
    assert all(one.accuracy == evaluator.accuracy(one.subnet) for one in stayed)
    assert np.mean([abs(one.accuracy - evaluator.accuracy(one.subnet)) for one in given_up]) < 3.0
    best = max(candidates, key=lambda one: evaluator.accuracy(one.subnet)).subnet
    assert outcomes[best].images is None


def test_a_race_sees_fewer_images_and_seldom_gives_up_the_best() -> None:
    lost, seen = 0, 0
    for seed in range(40):
        evaluator = SyntheticImages(SPACE, seed=seed)
        candidates = runners(evaluator, 8, seed=seed)
        race = Race(evaluator, LocalExecutor(), behind=2.0)
        outcomes = list(race.run(candidates, [known(evaluator, SPACE.smallest(), 0.5)]))
        seen += evaluator.seen - 2000  # the known one, once here and once in the race
        accuracies = {one.subnet: evaluator.accuracy(one.subnet) for one in candidates}
        kept = [accuracies[one.subnet] for one in outcomes if one.images is None]
        lost += max(accuracies.values()) > max(kept)
    assert lost <= 2
    assert seen < 0.6 * 40 * 8 * 1000


def test_who_costs_less_than_its_betters_is_never_given_up() -> None:
    evaluator = SyntheticImages(SPACE)
    candidates = [Runner(SPACE.smallest(), 0.5), Runner(SPACE.full(), 1.0)]
    race = Race(evaluator, LocalExecutor(), behind=2.0)
    outcomes = list(race.run(candidates, [known(evaluator, SPACE.from_counts({"branch0.hidden": 8}), 0.9)]))
    assert all(one.images is None for one in outcomes)


def test_nothing_is_given_up_while_nothing_is_known() -> None:
    evaluator = SyntheticImages(SPACE)
    outcomes = Race(evaluator, LocalExecutor(), behind=0.1).run(runners(evaluator, 10), [])
    assert all(one.images is None for one in outcomes)


@pytest.mark.parametrize("behind", [0.0, -1.0, float("nan")])
def test_a_margin_that_is_none_is_refused(behind: float) -> None:
    with pytest.raises(InputError, match="standard errors"):
        Race(SyntheticImages(SPACE), LocalExecutor(), behind=behind)
    with pytest.raises(InputError, match="standard errors"):
        Heuristic(race=behind)


def search(folder: Path, evaluator: SyntheticImages, settings: Heuristic = SETTINGS, workers: int = 1) -> Atlas:
    return run_search(
        SPACE,
        SyntheticCost(SPACE),
        evaluator,
        MADE_FROM,
        folder=folder,
        settings=settings,
        executor=LocalExecutor(workers),
    )


class Interrupted(SyntheticImages):
    def __init__(self, after: int) -> None:
        super().__init__(SPACE)
        self.after = after

    def right(self, subnet: Subnet, start: int = 0, stop: int | None = None):  # type: ignore[no-untyped-def]
        if self.calls == self.after:
            raise KeyboardInterrupt
        return super().right(subnet, start, stop)


@pytest.mark.parametrize("after", [0, 3, 17, 60, 111, 150])
def test_an_interrupted_search_ends_as_if_it_had_not_been(tmp_path: Path, after: int) -> None:
    search(tmp_path / "whole", SyntheticImages(SPACE))
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "cut", Interrupted(after))
    search(tmp_path / "cut", SyntheticImages(SPACE))
    assert sorted(archived(tmp_path / "cut")) == sorted(archived(tmp_path / "whole"))


def test_workers_side_by_side_find_the_same(tmp_path: Path) -> None:
    search(tmp_path / "one", SyntheticImages(SPACE))
    search(tmp_path / "three", SyntheticImages(SPACE), workers=3)
    assert archived(tmp_path / "one") == archived(tmp_path / "three")


def test_a_finished_search_run_again_evaluates_nothing(tmp_path: Path) -> None:
    search(tmp_path, SyntheticImages(SPACE))
    before, again = archived(tmp_path), SyntheticImages(SPACE)
    search(tmp_path, again)
    assert again.calls == 0 and archived(tmp_path) == before


def test_what_was_given_up_is_on_no_front_and_no_answer_to_another_search(tmp_path: Path) -> None:
    evaluator = SyntheticImages(SPACE)
    atlas = search(tmp_path, evaluator)
    archive = Archive(tmp_path / ARCHIVE, SPACE, evaluator.key)
    everyone = [SPACE.parse(line.split('"')[3]) for line in archived(tmp_path)]
    given_up = [subnet for subnet in everyone if archive.find(subnet) is None]
    assert given_up and not {point.subnet for point in (*atlas.points, *atlas.dominated)}.intersection(given_up)
    search_id = (tmp_path / ARCHIVE).read_text().split('"search": "')[1].split('"')[0]
    assert all(archive.find(subnet, search_id) is not None for subnet in given_up)
    assert all(archive.find(subnet, "another") is None for subnet in given_up)


def test_a_search_with_races_sees_far_fewer_images_for_a_front_as_good(tmp_path: Path) -> None:
    seen: dict[str, list[float]] = {"raced": [], "whole": []}
    front: dict[str, list[float]] = {"raced": [], "whole": []}
    for seed in range(4):
        for name, settings in (("raced", Heuristic(seed=seed)), ("whole", Heuristic(seed=seed, race=None))):
            evaluator = SyntheticImages(SPACE)
            atlas = search(tmp_path / f"{name}-{seed}", evaluator, settings)
            seen[name].append(evaluator.seen)
            costs = np.geomspace(*(SyntheticCost(SPACE).predict([SPACE.full(), SPACE.smallest()])["latency_ms"]), 12)
            chosen = [atlas.lookup(latency_ms=1.05 * float(cost)).subnet for cost in costs]
            front[name].append(float(np.mean([evaluator.expected(subnet) for subnet in chosen])))
    assert np.mean(seen["raced"]) < 0.65 * np.mean(seen["whole"])
    assert np.mean(front["raced"]) > np.mean(front["whole"]) - 0.2
