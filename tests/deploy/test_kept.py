from __future__ import annotations

import pickle
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.deploy.kept import Kept


@pytest.mark.parametrize("kept", [Kept[int, str](9, 10), Kept[int, str](2, 99)])
def test_what_was_not_used_for_longest_gives_way(kept: Kept[int, str]) -> None:
    for key in (1, 2, 1, 3):
        kept.add(key, str(key), 4)
    assert [kept.find(key) for key in (1, 2, 3)] == ["1", None, "3"] and len(kept) == 2


@given(st.integers(1, 4), st.integers(1, 20), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), min_size=1))
def test_bounds_hold_and_the_last_one_is_always_there(entries: int, size: int, added: list[tuple[int, int]]) -> None:
    kept, sizes = Kept[int, int](entries, size), OrderedDict[int, int]()
    for key, own in added:
        kept.add(key, own, own)
        sizes[key] = own
        assert kept.find(key) == own and len(kept) <= entries
        held = sum(sizes[other] for other in sizes if kept.find(other) is not None)
        assert held <= size or len(kept) == 1


def test_threads_that_ask_at_once_wait_for_the_one_that_makes() -> None:
    kept, made, asked = Kept[int, str](2, 99), list[int](), threading.Barrier(4)

    def make() -> tuple[str, int]:
        made.append(1)
        time.sleep(0.05)
        return "one", 3

    def ask(_: int) -> str:
        asked.wait()
        return kept.get(1, make)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == ["one"] * 4
    assert made == [1] and kept.find(1) == "one"


def test_what_could_not_be_made_is_made_when_it_is_asked_for_again() -> None:
    kept = Kept[int, str](2, 99)

    def fail() -> tuple[str, int]:
        raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        kept.get(1, fail)
    assert kept.get(1, lambda: ("one", 3)) == kept.get(1, fail) == "one"


def test_in_another_process_nothing_is_kept() -> None:
    kept = Kept[int, str](2, 99)
    kept.add(1, "one", 3)
    again = pickle.loads(pickle.dumps(kept))
    again.add(2, "two", 3)
    assert kept.find(1) == "one" and len(again) == 1
