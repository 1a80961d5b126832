"""Budgets: what a subnet may cost at most."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from fn3hw.errors import InputError

UNITS: Final = {
    "latency_ms": "ms",
    "relative_cost": "of the full network's cost",
    "peak_mib": "MiB",
    "size_mib": "MiB",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits that a subnet has to meet; ``None`` is no limit.

    Raises:
        InputError: a limit is not a positive, finite number.
    """

    latency_ms: float | None = None
    relative_cost: float | None = None
    peak_mib: float | None = None
    size_mib: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None:
                continue
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value <= 0:
                raise InputError(f"A budget for {name} must be a positive number, not {value!r}.")

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: float(value) for name, value in asdict(self).items() if value is not None}

    @property
    def cost(self) -> float | None:
        """The limit on what the device takes: on the latency, or on the relative cost where that is emulated."""
        return self.latency_ms if self.latency_ms is not None else self.relative_cost

    def binding(self, costs: Mapping[str, float]) -> str | None:
        """Name of the limit that costs come nearest to, or exceed most; ``None`` where there is no limit."""
        return max(self.limits, key=lambda name: costs[name] / self.limits[name], default=None)

    def __str__(self) -> str:
        return ", ".join(f"{name} <= {value:g}" for name, value in self.limits.items()) or "no limit"
