"""What a server says went wrong, as the errors of `fn3hw.errors`: the same classes, codes and exit statuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from fn3hw.errors import (
    DeviceError,
    Fn3hwError,
    InfeasibleBudget,
    InputError,
    NoisyMeasurement,
    ProfileError,
    RunError,
    ServerError,
    TraceError,
    UnknownName,
)

TOKEN_HINT: Final = "Set $FN3HW_TOKEN; an administrator of the server makes tokens: fn3hw token create NAME"
_NO_SUCH_ADDRESS: Final = "There is nothing at this address."


class Unreachable(ServerError):
    """A server does not answer just now; it may do so later."""


class JobCancelled(Fn3hwError):
    """A job was cancelled, so that it has no result."""

    code = "interrupted"
    exit_status = 130


_OF_VERBS: Final = (InputError, UnknownName, RunError, ProfileError, TraceError, ServerError, DeviceError)
_KINDS: Final[Mapping[str, type[Fn3hwError]]] = {
    **{kind.code: kind for kind in (*_OF_VERBS, NoisyMeasurement, JobCancelled)},
    "not-found": UnknownName,
    "unauthorized": ServerError,
    "forbidden": ServerError,
    "too-many": Unreachable,
    "unavailable": Unreachable,
}
_BY_STATUS: Final[Mapping[int, type[Fn3hwError]]] = {2: InputError, 4: DeviceError, 5: NoisyMeasurement}


def error_of(body: Mapping[str, Any]) -> Fn3hwError:
    """The error that a body describes, which a request or a job ended in.

    Args:
        body: its ``code``, ``message``, ``hint`` and ``exit_status``, and of a budget ``limit`` and ``best``.
    """
    code, message, hint = (str(body.get(name) or "") for name in ("code", "message", "hint"))
    status = body.get("exit_status")
    if code == InfeasibleBudget.code:
        best = body.get("best")
        best = float(best) if isinstance(best, int | float) else math.nan
        return InfeasibleBudget(message, limit=str(body.get("limit") or ""), best=best, hint=hint)
    if message == _NO_SUCH_ADDRESS:
        return ServerError("The server does not know this request: its fn3hw and this one do not go together.")
    known = _KINDS.get(code)
    kind = known or (_BY_STATUS.get(status, Fn3hwError) if isinstance(status, int) else Fn3hwError)
    error = kind.__new__(kind)
    Fn3hwError.__init__(error, message, hint=TOKEN_HINT if code == "unauthorized" else hint)
    if isinstance(error, UnknownName):
        error.nearest = None
    if known is None and code:
        error.code = code
    if isinstance(status, int) and not isinstance(error, ServerError):
        error.exit_status = status
    return error


def foreign(url: str, why: str) -> ServerError:
    """The error of an address where something else than a server of this fn3hw answers."""
    return ServerError(
        f"{url} does not answer as a server of this version of fn3hw does: {why}.",
        hint="Give the address that `fn3hw serve` says it serves at, or upgrade the older fn3hw of the two.",
    )
