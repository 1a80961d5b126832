from __future__ import annotations

import asyncio

import pytest

from fn3hw.service import limits
from fn3hw.service.errors import TooMany
from fn3hw.service.limits import (
    BURST_S,
    FAILURES,
    FAILURES_S,
    LOOK_EVERY_S,
    MEASURED_PER_S,
    PATIENCE_S,
    SAVED,
    Limiter,
    Pace,
)


class Clock:
    def __init__(self) -> None:
        self.now, self.passes = 100.0, True

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds if self.passes else 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(limits, "time", found)
    monkeypatch.setattr(limits.asyncio, "sleep", found.sleep)
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


def test_while_the_machine_is_measured_requests_take_turns(clock: Clock) -> None:
    state = {"measured": False}
    pace, took = Pace(lambda: state["measured"]), list[float]()

    async def ask(n: int) -> None:
        for _ in range(n):
            await pace.turn()
            clock.now += 0.001

    for state["measured"] in (False, True, False):
        clock.now += LOOK_EVERY_S
        began = clock.now
        asyncio.run(ask(1000))
        took.append(clock.now - began)
    assert took[1] == pytest.approx((1000 - SAVED) / MEASURED_PER_S, rel=0.01)
    assert took[0] == took[2] == pytest.approx(1.0)


def test_who_would_wait_for_too_long_is_told_so_and_takes_no_turn(clock: Clock) -> None:
    pace, waiting = Pace(lambda: True), round(MEASURED_PER_S * PATIENCE_S) + SAVED
    clock.passes = False

    async def ask(n: int) -> list[object]:
        return await asyncio.gather(*(pace.turn() for _ in range(n)), return_exceptions=True)

    found = asyncio.run(ask(10 * waiting))
    assert found[:waiting] == [None] * waiting
    assert all(isinstance(one, TooMany) and "measured" in one.message for one in found[waiting + 1 :])
    clock.now += 0.1
    found = asyncio.run(ask(100))
    assert found.count(None) == pytest.approx(0.1 * MEASURED_PER_S, abs=1)
