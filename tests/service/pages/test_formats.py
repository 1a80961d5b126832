"""Numbers, times and the memory of pages."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest

from fn3hw.service.models import now
from fn3hw.service.pages import formats
from fn3hw.service.pages.kept import MOST, Kept


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123456, "0.01235"), (12.3456, "12.35"), (123456.0, "123,456"), (0, "0"), (None, "–"), (float("nan"), "–")],
)
def test_significant_digits(value: float | None, text: str) -> None:
    assert formats.significant(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (61, "1 min 1 s"), (120, "2 min"), (3700, "1 h 1 min"), (90_000, "1 d 1 h"), (None, "–")],
)
def test_spans(seconds: float | None, text: str) -> None:
    assert formats.span(seconds) == text


def test_the_rest() -> None:
    assert formats.fixed(-0.001) == "0.00"
    assert formats.mib(1 << 21) == "2.00"
    assert formats.mib(7) == "< 0.01"
    assert formats.mib(None) == formats.fixed(None) == formats.percent(None) == formats.whole(None) == "–"
    assert formats.percent(0.0213, 2) == "2.13"
    assert formats.ago(now() - timedelta(seconds=200)) == "3 min ago"
    assert formats.ago(None) == "never"
    assert formats.tail("a\nb\nc", 2) == "b\nc"


def test_what_is_slow_is_made_once() -> None:
    kept, made = Kept(), []

    def make() -> str:
        made.append(1)
        time.sleep(0.05)
        return "value"

    threads = [threading.Thread(target=lambda: kept.find(("kind", "key"), make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert kept.find(("other", "key"), lambda: kept.find(("kind", "key"), make)) == "value"
    for number in range(MOST):
        kept.find(("kind", str(number)), lambda: "x")
    kept.find(("kind", "key"), make)
    assert made == [1, 1]
