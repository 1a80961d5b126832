"""What each gate costs: the cost model's prediction for every count of one gate, the others whole."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fn3hw.cost import fit_cost
from fn3hw.profiler import Profile as ProfileRecord
from fn3hw.service.api.shared import Parts
from fn3hw.service.models import Profile
from fn3hw.service.pages.kept import Kept
from fn3hw.space.files import plain

DIGITS = 6
_COLUMNS = ("latency_ms", "latency_ms_low", "latency_ms_high", "peak_mib", "size_mib")


@dataclass(frozen=True)
class Curves:
    """The curves of a profile.

    Args:
        gates: per gate its name, level and size, and the columns ``counts``, ``latency_ms`` with its interval (relative
            to the full network's where the device is emulated), ``peak_mib`` and ``size_mib``.
        rules: what was found about the device, a line each.
        level: coverage that the intervals aim at.
        unit: of the costs under ``latency_ms``.
    """

    gates: list[dict[str, Any]]
    rules: list[str]
    level: float
    unit: str

    @cached_property
    def packed(self) -> bytes:
        """JSON, compressed."""
        document = {"gates": self.gates, "unit": self.unit}
        return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), 6, mtime=0)

    def table(self) -> list[dict[str, Any]]:
        """Per gate what the network costs with all of its blocks, about half of them, and the fewest."""
        rows = []
        for gate in self.gates:
            n = len(gate["counts"])
            rows.append(
                {
                    **{name: gate[name] for name in ("name", "level", "size")},
                    "at": [{name: gate[name][i] for name in ("counts", *_COLUMNS)} for i in (n - 1, (n - 1) // 2, 0)],
                }
            )
        return rows


def curves_of(parts: Parts, kept: Kept, profile: Profile) -> Curves:
    """The curves of a profile: its cost model is fitted once, which takes a second for most and more for large ones."""
    return kept.find(("curves", profile.sha256), lambda: _curves(parts, profile))


def _curves(parts: Parts, profile: Profile) -> Curves:
    record = ProfileRecord.from_text(parts.storage.read(profile.sha256).decode(errors="replace"))
    cost = fit_cost(record)
    gates = []
    for gate in cost.space:
        counts = list(range(gate.min_kept, gate.size + 1))
        table = cost.predict([cost.space.from_counts({gate.name: count}) for count in counts])
        columns = {name: [_rounded(value) for value in table[name].tolist()] for name in _COLUMNS}
        gates.append({"name": gate.name, "level": gate.level, "size": gate.size, "counts": counts, **columns})
    unit = "ms" if record.quantity == "latency" else "of the full network's"
    return Curves(plain(gates), str(cost.rules).splitlines(), cost.level, unit)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
