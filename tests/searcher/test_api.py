"""A whole search: budget, memory, resumption after a kill, verification on more images."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fn3hw.errors import InputError, RunError
from fn3hw.searcher import Atlas, Heuristic, LocalExecutor, Progress, Provenance, run_search
from fn3hw.space.subnet import Subnet

from .synthetic import SyntheticAccuracy, SyntheticCost, make_space

SPACE = make_space(6)
MADE_FROM = Provenance(device="bench", network="synthetic", profile="p", evaluator="synthetic:1")
SETTINGS = Heuristic(evaluations=50, seed=5)


class Better(SyntheticAccuracy):
    @property
    def key(self) -> str:
        return "synthetic:more-images"


class Interrupted(SyntheticAccuracy):
    """Fails after some evaluations."""

    def __init__(self, after: int) -> None:
        super().__init__(SPACE)
        self.after = after

    def accuracy(self, subnet: Subnet) -> float:
        if self.calls == self.after:
            raise KeyboardInterrupt
        return super().accuracy(subnet)


def search(folder: Path, evaluator: SyntheticAccuracy, **options: object) -> Atlas:
    return run_search(
        SPACE,
        SyntheticCost(SPACE),
        evaluator,
        MADE_FROM,
        folder=folder,
        **{"settings": SETTINGS, "executor": LocalExecutor(), **options},  # type: ignore[arg-type]
    )


def ids(folder: Path) -> list[str]:
    return [line.split('"')[3] for line in (folder / "archive.jsonl").read_text().splitlines()]


def test_the_atlas_is_saved_and_the_budget_kept(tmp_path: Path) -> None:
    evaluator = SyntheticAccuracy(SPACE)
    atlas = search(tmp_path, evaluator)
    assert evaluator.calls == 50 == len(ids(tmp_path)) == len(set(ids(tmp_path)))
    loaded = Atlas.load(tmp_path / "atlas-bench.json", SPACE, expected=MADE_FROM)
    assert [p.subnet for p in loaded.points] == [p.subnet for p in atlas.points]


@pytest.mark.parametrize("after", [0, 1, 3, 17, 49])
def test_an_interrupted_search_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path, after: int) -> None:
    search(tmp_path / "whole", SyntheticAccuracy(SPACE))
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "cut", Interrupted(after))
    assert not (tmp_path / "cut" / "archive.jsonl").exists() or len(ids(tmp_path / "cut")) == after
    rest = SyntheticAccuracy(SPACE)
    search(tmp_path / "cut", rest)
    assert rest.calls == 50 - after
    assert ids(tmp_path / "cut") == ids(tmp_path / "whole")


def test_a_killed_program_goes_on_where_it_stopped(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        sys.path[:0] = sys.argv[2:]
        from searcher.test_api import *
        evaluator = SyntheticAccuracy(SPACE)
        evaluator.seconds = 0.1
        search(Path(sys.argv[1]), evaluator)
        """
    )
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    killed = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "killed"), *paths])
    archive = tmp_path / "killed" / "archive.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (archive.exists() and archive.read_text().count("\n") >= 5):
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    done = len(ids(tmp_path / "killed"))
    assert 5 <= done < 50
    rest = SyntheticAccuracy(SPACE)
    search(tmp_path / "killed", rest)
    search(tmp_path / "whole", SyntheticAccuracy(SPACE))
    assert rest.calls == 50 - done
    assert ids(tmp_path / "killed") == ids(tmp_path / "whole")


def test_a_finished_search_run_again_evaluates_nothing(tmp_path: Path) -> None:
    first = search(tmp_path, SyntheticAccuracy(SPACE))
    again = SyntheticAccuracy(SPACE)
    second = search(tmp_path, again)
    assert again.calls == 0
    assert [p.to_json() for p in first.points] == [p.to_json() for p in second.points]


def test_another_search_begins_with_what_the_archive_knows(tmp_path: Path) -> None:
    search(tmp_path, SyntheticAccuracy(SPACE))
    other = SyntheticAccuracy(SPACE)
    search(tmp_path, other, settings=Heuristic(evaluations=20, seed=6))
    assert 0 < other.calls <= 20
    assert len(set(ids(tmp_path))) == len(ids(tmp_path)) == 50 + other.calls


def test_workers_side_by_side_find_the_same(tmp_path: Path) -> None:
    search(tmp_path / "one", SyntheticAccuracy(SPACE))
    search(tmp_path / "three", SyntheticAccuracy(SPACE), executor=LocalExecutor(3))
    assert ids(tmp_path / "one") == ids(tmp_path / "three")


def test_the_front_is_verified_on_more_images(tmp_path: Path) -> None:
    final = Better(SPACE, images=None)
    atlas = search(tmp_path, SyntheticAccuracy(SPACE), final=final)
    assert 0 < final.calls <= 50
    for p in (*atlas.points, *atlas.dominated):
        assert p.evaluated_accuracy == pytest.approx(final.expected(p.subnet))
    again = Better(SPACE, images=None)
    search(tmp_path, SyntheticAccuracy(SPACE), final=again)
    assert again.calls == 0


def test_progress_counts_up_to_the_budget_with_time_left(tmp_path: Path) -> None:
    seen: list[Progress] = []
    search(tmp_path, SyntheticAccuracy(SPACE), progress=seen.append)
    counts = [p.evaluations for p in seen]
    assert counts == sorted(counts) and counts[-1] == 50
    assert all(p.budget == 50 and p.seconds_left is not None and p.seconds_left >= 0 for p in seen)


def test_an_accuracy_that_is_no_number_ends_the_search_and_keeps_the_archive(tmp_path: Path) -> None:
    class Broken(Interrupted):
        def accuracy(self, subnet: Subnet) -> float:
            return float("nan") if self.calls == self.after else SyntheticAccuracy.accuracy(self, subnet)

    with pytest.raises(InputError, match="nan"):
        search(tmp_path, Broken(7))
    assert len(ids(tmp_path)) == 7


def test_a_retrained_network_needs_a_new_archive(tmp_path: Path) -> None:
    class Retrained(SyntheticAccuracy):
        @property
        def key(self) -> str:
            return "retrained:1"

    search(tmp_path, SyntheticAccuracy(SPACE))
    with pytest.raises(RunError):
        search(tmp_path, Retrained(SPACE))
    assert len(ids(tmp_path)) == 50


@pytest.mark.parametrize("workers", [0, -1])
def test_an_executor_without_workers_is_refused(workers: int) -> None:
    with pytest.raises(InputError):
        LocalExecutor(workers)
