"""The errors that fn3hw raises on purpose.

Every error says what happened and why (``message``) and what to do next (``hint``); it carries a stable ``code`` for
programs and the ``exit_status`` that the command line ends with::

    Fn3hwError                        1
    ├── InputError (ValueError)       2   wrong usage or input
    │   ├── UnknownName (LookupError) 2   no such recipe, data set, level, gate, ...; names the nearest
    │   ├── RunError                  2   a run folder is missing, half written or from a newer version
    │   ├── ProfileError              2   a profile cannot be read, or belongs to another network or device
    │   ├── TraceError                2   a module cannot be traced; names the line
    │   └── ServerError               2   a server cannot be reached, is none of fn3hw, or does not let one in
    ├── InfeasibleBudget              3   no subnet meets the budget; says which limit binds and what can be reached
    ├── DeviceError                   4   the device cannot be reached or used
    └── NoisyMeasurement              5   the measurement is too noisy to trust
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class Fn3hwError(Exception):
    """Root of all errors raised on purpose; a plain ``Fn3hwError`` is a bug of ours.

    Args:
        message: what happened and why.
        hint: the next command or step, or the empty string.
    """

    code = "internal"
    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """How an error reaches this process from a worker on another machine."""
        return _received, (type(self), self.args, vars(self))


def _received(kind: type[Fn3hwError], args: tuple[Any, ...], state: dict[str, Any]) -> Fn3hwError:
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(state)
    return error


class InputError(Fn3hwError, ValueError):
    """Wrong usage or input."""

    code = "input"
    exit_status = 2


class UnknownName(InputError, LookupError):
    """A name that nothing answers to; the message suggests the nearest one that exists."""

    code = "unknown-name"

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        suggestion = f"; did you mean {near[0]!r}?" if near else "."
        super().__init__(f"No {kind} is called {name!r}{suggestion}", hint=f"Known: {', '.join(names) or 'none'}.")
        self.nearest = near[0] if near else None


class RunError(InputError):
    """A run folder is missing, half written, or from a newer version."""

    code = "run"


class ProfileError(InputError):
    """A profile cannot be read, or belongs to another network or device."""

    code = "profile"


class TraceError(InputError):
    """A module cannot be traced; the message names the line of the user's code."""

    code = "trace"


class ServerError(InputError):
    """A server cannot be reached or used: nothing answers, something else does, or the token is not enough."""

    code = "server"


class InfeasibleBudget(Fn3hwError):
    """No subnet meets the budget.

    Args:
        message: what was asked and which limit binds.
        limit: the limit that binds, such as ``"latency_ms"``.
        best: the smallest value of that limit that can be reached.
    """

    code = "infeasible-budget"
    exit_status = 3

    def __init__(self, message: str, *, limit: str, best: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.limit = limit
        self.best = best


class DeviceError(Fn3hwError):
    """The device cannot be reached or used."""

    code = "device"
    exit_status = 4


class NoisyMeasurement(Fn3hwError):
    """The measurement is too noisy to trust."""

    code = "noisy"
    exit_status = 5
