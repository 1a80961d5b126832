"""The archive survives kills, other settings and a second program."""

from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fn3hw.errors import InputError, RunError
from fn3hw.searcher import Archive, Evaluation
from fn3hw.space.subnet import Subnet

from .synthetic import make_space

SPACE = make_space(3)
KEY = "network:settings"


def evaluation(hidden: int, accuracy: float = 50.0) -> Evaluation:
    return Evaluation(SPACE.from_counts({"branch0.hidden": hidden}), accuracy, 0.1, "s")


def filled(path: Path, n: int = 3) -> list[Evaluation]:
    made = [evaluation(8 + i, 50.0 + i) for i in range(n)]
    with Archive(path, SPACE, KEY) as archive:
        for one in made:
            archive.append(one)
    return made


def test_reads_back_what_was_appended(tmp_path: Path) -> None:
    made = filled(tmp_path / "a.jsonl")
    assert list(Archive(tmp_path / "a.jsonl", SPACE, KEY).evaluations) == made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(cut=st.integers(0, 10_000))
def test_a_kill_at_any_byte_loses_at_most_the_line_that_it_tore(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.jsonl"
    path.unlink(missing_ok=True)
    made = filled(path)
    data = path.read_bytes()[: cut % (path.stat().st_size + 1)]
    path.write_bytes(data)
    whole = data.count(b"\n")
    with Archive(path, SPACE, KEY) as archive:
        assert list(archive.evaluations)[:whole] == made[:whole]
        assert len(archive) <= whole + 1
        archive.append(evaluation(20))
    assert list(Archive(path, SPACE, KEY).evaluations)[-1] == evaluation(20)


def test_a_subnet_is_written_once(tmp_path: Path) -> None:
    filled(tmp_path / "a.jsonl", 1)
    with Archive(tmp_path / "a.jsonl", SPACE, KEY) as archive:
        archive.append(evaluation(8, 99.0))
        assert archive.evaluations[0].accuracy == 50.0
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1


def test_other_settings_of_the_same_network_live_in_the_same_file(tmp_path: Path) -> None:
    filled(tmp_path / "a.jsonl")
    with Archive(tmp_path / "a.jsonl", SPACE, "network:more-images") as other:
        assert len(other) == 0
        other.append(evaluation(8, 12.0))
    found = Archive(tmp_path / "a.jsonl", SPACE, KEY).find(evaluation(8).subnet)
    assert found is not None and found.accuracy == 50.0


def test_an_archive_of_another_network_is_refused_and_kept(tmp_path: Path) -> None:
    filled(tmp_path / "a.jsonl")
    before = (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises(RunError, match="another trained network"):
        Archive(tmp_path / "a.jsonl", SPACE, "retrained:settings")
    assert (tmp_path / "a.jsonl").read_bytes() == before


@pytest.mark.parametrize("accuracy", [math.nan, math.inf, -1.0, 100.5])
def test_an_accuracy_that_is_no_percentage_is_refused_and_the_archive_stays_intact(
    tmp_path: Path, accuracy: float
) -> None:
    made = filled(tmp_path / "a.jsonl")
    with Archive(tmp_path / "a.jsonl", SPACE, KEY) as archive, pytest.raises(InputError):
        archive.append(evaluation(20, accuracy))
    assert list(Archive(tmp_path / "a.jsonl", SPACE, KEY).evaluations) == made


def test_nothing_is_appended_without_the_lock(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="reading only"):
        Archive(tmp_path / "a.jsonl", SPACE, KEY).append(evaluation(8))


def _hold(path: Path, held: object, release: object) -> None:
    with Archive(path, SPACE, KEY):
        held.set()  # type: ignore[attr-defined]
        release.wait(20)  # type: ignore[attr-defined]


def test_a_second_program_is_told_that_the_archive_is_in_use(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    program = context.Process(target=_hold, args=(tmp_path / "a.jsonl", held, release))
    program.start()
    try:
        assert held.wait(20)
        with pytest.raises(RunError, match=f"process {program.pid}"), Archive(tmp_path / "a.jsonl", SPACE, KEY):
            pass
    finally:
        release.set()
        program.join(20)
    with Archive(tmp_path / "a.jsonl", SPACE, KEY):
        pass


@pytest.mark.parametrize("line", ["", "null", "[]", "{}", '{"subnet": 3}', "\x00\xff", json.dumps({"key": KEY})])
def test_a_line_that_is_no_evaluation_is_skipped(tmp_path: Path, line: str) -> None:
    made = filled(tmp_path / "a.jsonl")
    with open(tmp_path / "a.jsonl", "a") as file:
        file.write(line + "\n")
    archive = Archive(tmp_path / "a.jsonl", SPACE, KEY)
    assert list(archive.evaluations) == made


def test_a_subnet_is_found_by_value(tmp_path: Path) -> None:
    filled(tmp_path / "a.jsonl")
    archive = Archive(tmp_path / "a.jsonl", SPACE, KEY)
    same = Subnet(evaluation(9).subnet.kept)
    assert same in archive and archive.find(same) is not None
