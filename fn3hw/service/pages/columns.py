"""The points of a search as columns, small and quick enough for tens of thousands in a browser."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fn3hw.errors import RunError
from fn3hw.searcher.atlas import SCHEMA
from fn3hw.service.api.shared import Parts
from fn3hw.service.models import Search
from fn3hw.service.pages.kept import Kept

DIGITS = 6
SPREAD = 60
_COSTS = ("latency_ms", "relative_cost", "peak_mib", "size_mib")
_LIMITED = {"latency_ms": "latency_ms_high", "relative_cost": "relative_cost_high"}
"""What a budget is compared with, where that is not the cost itself."""


@dataclass(frozen=True)
class Columns:
    """Costs and accuracies of all evaluated subnets of a search: those on the front first, each by ascending cost.

    Args:
        costs: by their names, those that are known; each of shape (n,), None where one is not known.
        accuracy: in percent, shape (n,).
        n_front: how many are on the front.
        reach: by the names of costs, the least and the largest budget that makes a difference.
    """

    costs: Mapping[str, Sequence[float | None]]
    accuracy: Sequence[float]
    n_front: int
    reach: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Columns:
        """From the file of an atlas, which is in this order."""
        if document.get("schema") != SCHEMA:
            raise RunError(f"The atlas has schema {document.get('schema')!r}; this version reads {SCHEMA!r}.")
        points = [*document["points"], *document["dominated"]]
        costs = {name: [_rounded(point.get(name)) for point in points] for name in _COSTS}
        front = document["points"]
        known = {name: values for name, values in costs.items() if any(point.get(name) is not None for point in front)}
        reach = {name: _reach(front, name) for name in known}
        return cls(known, [_rounded(point["accuracy"]) or 0.0 for point in points], len(front), reach)

    def __len__(self) -> int:
        return len(self.accuracy)

    @property
    def cost(self) -> str:
        """What the device takes: its latency, or a relative cost where that is emulated."""
        return "relative_cost" if "relative_cost" in self.costs else "latency_ms"

    def spread(self) -> list[dict[str, Any]]:
        """Some points of the front, from the cheapest to the dearest, for a table."""
        count = min(SPREAD, self.n_front)
        numbers = [round(i * (self.n_front - 1) / max(1, count - 1)) for i in range(count)]
        return [
            {"number": n, "accuracy": self.accuracy[n], **{name: column[n] for name, column in self.costs.items()}}
            for n in numbers
        ]

    @cached_property
    def packed(self) -> bytes:
        """JSON, compressed."""
        document = {
            "cost": self.cost,
            "costs": self.costs,
            "accuracy": self.accuracy,
            "front": self.n_front,
            "reach": self.reach,
        }
        return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), 6, mtime=0)


def columns_of(parts: Parts, kept: Kept, search: Search) -> Columns:
    """The points of a search.

    The file is read as it is: `fn3hw.service.atlases` would parse each subnet, which takes seconds for 50,000.
    """
    return kept.find(("columns", search.atlas_sha256), lambda: _read(parts, search))


def _read(parts: Parts, search: Search) -> Columns:
    return Columns.of(json.loads(parts.storage.read(search.atlas_sha256)))


def _reach(points: Sequence[Mapping[str, Any]], cost: str) -> tuple[float, float]:
    limited = _LIMITED.get(cost, cost)
    values = [point.get(cost) if point.get(limited) is None else point[limited] for point in points]
    known = [value for value in values if value is not None]
    return min(known), max(known)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
