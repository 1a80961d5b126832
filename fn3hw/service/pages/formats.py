"""How pages write numbers and times; a value that is not known is a dash."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from fn3hw.service.models import now

NOTHING = "–"


def significant(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits, never in powers of ten."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(places, 8)}f}"


def percent(share: float | None, places: int = 1) -> str:
    """A fraction in percent, without the sign of it."""
    return NOTHING if share is None or not math.isfinite(share) else f"{100 * share:.{places}f}"


def fixed(value: float | None, places: int = 2) -> str:
    """A number with so many decimals."""
    return NOTHING if value is None or not math.isfinite(value) else f"{round(value, places) + 0.0:,.{places}f}"


def whole(value: float | None) -> str:
    """A whole number, in groups of three digits."""
    return NOTHING if value is None else f"{value:,.0f}"


def mib(size: int | None) -> str:
    """Bytes in MiB."""
    return "< 0.01" if size is not None and size < 0.01 * 2**20 else fixed(None if size is None else size / 2**20)


def moment(value: datetime | None) -> str:
    """A time in UTC, to the minute."""
    return NOTHING if value is None else f"{value:%Y-%m-%d %H:%M}"


def span(seconds: float | None) -> str:
    """How long something takes, in its two largest units."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    left = max(0, round(seconds))
    for name, size, lower, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if left >= size:
            rest = left % size // part
            return f"{left // size} {name}" + (f" {rest} {lower}" if rest else "")
    return f"{left} s"


def ago(value: datetime | None) -> str:
    """How long ago a time was, in its largest unit."""
    if value is None:
        return "never"
    number, unit = span((now() - value) / timedelta(seconds=1)).split()[:2]
    return f"{number} {unit} ago"


def tail(text: str, lines: int = 200) -> str:
    """The last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])


FILTERS: dict[str, Callable[..., Any]] = {
    "significant": significant,
    "percent": percent,
    "fixed": fixed,
    "whole": whole,
    "mib": mib,
    "moment": moment,
    "span": span,
    "ago": ago,
    "tail": tail,
}
