"""What can go wrong with a request, beside what goes wrong with a verb; see `fn3hw.errors`.

Every error of the API has one body, ``{"error": {"code", "message", "hint", "exit_status", "job_id"}}``; `status_of`
says which HTTP status it comes with.
"""

from __future__ import annotations

from fn3hw.errors import DeviceError, Fn3hwError, InfeasibleBudget, InputError, NoisyMeasurement, UnknownName


class Unauthorized(InputError):
    """No token, or one that is wrong, expired or revoked."""

    code = "unauthorized"


class Forbidden(InputError):
    """The token's scope is too small."""

    code = "forbidden"


class NotFound(InputError, LookupError):
    """Nothing has that id."""

    code = "not-found"


class NoRoute(NotFound):
    """No part of the API has that address."""

    code = "no-route"


class Conflict(InputError):
    """What is there already stands against it."""

    code = "conflict"


class TooLarge(InputError):
    """A body is larger than allowed."""

    code = "too-large"


class TooMany(InputError):
    """More requests than allowed.

    Args:
        message: what was too much.
        after_s: when to try again.
    """

    code = "too-many"

    def __init__(self, message: str, *, after_s: float) -> None:
        super().__init__(message, hint=f"Try again in {after_s:.0f} s.")
        self.after_s = after_s


class Unavailable(InputError):
    """The server lacks something just now: its database, its storage, or space on its disk."""

    code = "unavailable"


_STATUS: tuple[tuple[type[Fn3hwError], int], ...] = (
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (TooMany, 429),
    (Unavailable, 503),
    (UnknownName, 422),
    (InfeasibleBudget, 422),
    (DeviceError, 422),
    (NoisyMeasurement, 422),
    (InputError, 422),
)


def status_of(error: Fn3hwError) -> int:
    """The HTTP status of an error; 500 of a bug."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
