"""Errors say the same in another process."""

from __future__ import annotations

import pickle

import pytest

from fn3hw.errors import DeviceError, Fn3hwError, InfeasibleBudget, InputError, UnknownName


@pytest.mark.parametrize(
    "error",
    [
        InputError("It is wrong.", hint="Do better."),
        UnknownName("method", "rando", ["random", "greedy"]),
        InfeasibleBudget("Too small.", limit="latency_ms", best=3.0, hint="Ask for more."),
        DeviceError("Gone."),
    ],
)
def test_an_error_reaches_another_process_whole(error: Fn3hwError) -> None:
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error) and str(found) == str(error) and vars(found) == vars(error)
