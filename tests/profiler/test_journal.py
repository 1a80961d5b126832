from __future__ import annotations

from pathlib import Path

import pytest

from fn3hw.errors import ProfileError
from fn3hw.profiler.journal import Journal
from tests.profiler.test_measuring import raw, round_of

OWNER = {"device": {"cpu_model": "x"}, "network": "abc", "settings": {"seed": 0}}


def test_what_was_kept_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    one = round_of(raw())
    journal = Journal(path, OWNER)
    journal.add_round(one)
    journal.add_details("3-1", {"size_bytes": 5})
    again = Journal(path, OWNER)
    assert again.rounds == [one]
    assert again.details == {"3-1": {"size_bytes": 5}}


@pytest.mark.parametrize("cut", [1, 40])
def test_a_line_torn_by_a_kill_is_left_out_and_the_next_one_is_whole(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j.jsonl"
    one = round_of(raw())
    journal = Journal(path, OWNER)
    journal.add_round(one)
    journal.add_round(one)
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path, OWNER)
    again.add_details("3-1", {"size_bytes": 5})
    last = Journal(path, OWNER)
    assert last.details == {"3-1": {"size_bytes": 5}}
    assert len(last.rounds) == (2 if cut == 1 else 1)


@pytest.mark.parametrize("part", ["device", "network", "settings"])
def test_a_journal_of_something_else_is_refused_and_left_alone(tmp_path: Path, part: str) -> None:
    path = tmp_path / "j.jsonl"
    Journal(path, OWNER).add_details("1", {})
    before = path.read_bytes()
    with pytest.raises(ProfileError, match=part):
        Journal(path, OWNER | {part: "another"})
    assert path.read_bytes() == before


def test_any_other_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("shopping list\n")
    with pytest.raises(ProfileError) as caught:
        Journal(path, OWNER)
    assert "mv" in caught.value.hint
