from __future__ import annotations

import pytest

from fn3hw.service import limits
from fn3hw.service.errors import TooMany
from fn3hw.service.limits import BURST_S, FAILURES, FAILURES_S, Limiter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(limits, "time", found)
    return found


def answered(limiter: Limiter, token: str, n: int) -> int:
    count = 0
    for _ in range(n):
        try:
            limiter.check(token)
            count += 1
        except TooMany:
            pass
    return count


def test_a_burst_and_then_so_many_a_second_for_each_token(clock: Clock) -> None:
    limiter = Limiter(10.0)
    assert answered(limiter, "a", 100) == 10 * BURST_S
    assert answered(limiter, "b", 5) == 5
    clock.now += 1.0
    assert answered(limiter, "a", 100) == 10
    assert answered(Limiter(0), "a", 1000) == 1000


def test_wrong_tokens_close_an_address_for_a_while(clock: Clock) -> None:
    limiter = Limiter(10.0)
    for _ in range(FAILURES):
        limiter.check_failures("here")
        limiter.failed("here")
    with pytest.raises(TooMany, match="here"):
        limiter.check_failures("here")
    limiter.check_failures("elsewhere")
    clock.now += FAILURES_S
    limiter.check_failures("here")
