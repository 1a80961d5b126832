"""Additivity audit: where the sum of parts is wrong, and by how much.

An error of a cost model has one of two causes. A *unit* is predicted badly: its kernels take another time than its
counts say. Or the *sum* is wrong: end to end, the subnet takes another time than its kernels do, because caches,
layouts or the runtime's own work differ from subnet to subnet. The second is found by summing the kernel times as
measured. Where it depends on a gate, the error of subnets that the fit has not seen changes with the gate's count: a
line through these errors says by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from fn3hw.cost.basis import FloatArray
from fn3hw.cost.evidence import Evidence, bent
from fn3hw.cost.latency import Latency
from fn3hw.cost.state import Encoder

LEVEL = 0.9
"""Coverage of the intervals of all gates together."""
_FEWEST = 4
"""A line through fewer errors says nothing about its slope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitError:
    """How much of the error is due to one unit.

    Args:
        unit: its name.
        share: of the kernel time of all subnets.
        error: mean absolute error of its time relative to its own mean time.
        weight: mean absolute error of its time relative to the latency of the subnet.
    """

    unit: str
    share: float
    error: float
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateBias:
    """How measured over predicted changes from the whole gate to the fewest blocks that it keeps.

    Args:
        gate: its name.
        change: as a fraction: 0.02 where subnets with the fewest blocks take 2% longer than predicted, relative to
            those with all of them.
        low: lower end of its interval; the intervals of all gates hold together with 90%.
        high: upper end.
    """

    gate: str
    change: float
    low: float
    high: float

    @property
    def is_certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a cost model's error is made of; fractions, not percent.

    Args:
        error: mean absolute leave-one-out error of the model.
        sum_error: the same of the sum of the kernel times as measured; None where the profile has none.
        fixed: share of the full network's latency that belongs to no unit.
        units: those that weigh most first.
        gates: those whose count changes the error most first.
    """

    error: float
    sum_error: float | None
    fixed: float
    units: tuple[UnitError, ...]
    gates: tuple[GateBias, ...]

    @property
    def biased(self) -> tuple[GateBias, ...]:
        """The gates where the sum of parts is certainly wrong."""
        return tuple(gate for gate in self.gates if gate.is_certain)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        gates = [asdict(gate) | {"is_certain": gate.is_certain} for gate in self.gates]
        return {
            "error": self.error,
            "sum_error": self.sum_error,
            "fixed": self.fixed,
            "units": [asdict(unit) for unit in self.units],
            "gates": gates,
        }


def audit(latency: Latency, evidence: Evidence, residuals: FloatArray, encoder: Encoder) -> Audit:
    """Audit a fitted model.

    Args:
        latency: the model.
        evidence: the n measured subnets it was fitted on.
        residuals: measured / predicted - 1 of each subnet by a fit that has not seen it, shape (n,).
        encoder: of the search space.
    """
    full = encoder.encode([encoder.space.full()])
    sum_error, units = _of_units(latency, evidence) if evidence.times.size else (None, ())
    return Audit(
        error=float(np.mean(np.abs(residuals))),
        sum_error=sum_error,
        fixed=1.0 - float(latency.part_ms(full).sum() / latency.predict(full)[0]),
        units=units,
        gates=_biases(evidence, residuals, encoder),
    )


def _of_units(latency: Latency, evidence: Evidence) -> tuple[float, tuple[UnitError, ...]]:
    predicted = latency.part_ms(evidence.states)
    there = np.stack([part.present(evidence.states) for part in latency.parts], axis=1)
    measured = evidence.times * np.array(latency.ms_per_us)
    total = bent(latency.offset_ms + measured.sum(axis=1), latency.bend)
    measured *= latency.stretch(evidence.states)[:, None]
    off = np.abs(measured - predicted) * there
    units: dict[str, list[int]] = {}
    for k, part in enumerate(latency.parts):
        units.setdefault(part.unit.name, []).append(k)
    found = [
        UnitError(
            unit=name,
            share=float(measured[:, columns].sum() / measured.sum()),
            error=float(off[:, columns].sum() / max(measured[:, columns].sum(), 1e-12)),
            weight=float(np.mean(off[:, columns].sum(axis=1) / evidence.latency_ms)),
        )
        for name, columns in units.items()
    ]
    sum_error = float(np.mean(np.abs(evidence.latency_ms / total - 1.0)))
    return sum_error, tuple(sorted(found, key=lambda unit: -unit.weight))


def _biases(evidence: Evidence, residuals: FloatArray, encoder: Encoder) -> tuple[GateBias, ...]:
    gates = [gate for gate in encoder.space if gate.min_kept < gate.size]
    level = 1.0 - (1.0 - LEVEL) / max(1, len(gates))
    found = []
    for gate in gates:
        removed = (gate.size - evidence.states.counts[:, encoder.column[gate.name]]) / (gate.size - gate.min_kept)
        if len(np.unique(removed)) > 1 and len(removed) >= _FEWEST:
            found.append(_line(gate.name, removed, residuals, level))
    return tuple(sorted(found, key=lambda bias: -max(bias.low, -bias.high)))


def _line(gate: str, removed: FloatArray, residuals: FloatArray, level: float) -> GateBias:
    """Slope of the errors over the removed share, with its interval.

    One residual in hundred that is far off, as on a shared machine, would hide every slope: those beyond three times
    their usual size are drawn in.
    """
    middle = float(np.median(residuals))
    usual = 1.4826 * float(np.median(np.abs(residuals - middle)))
    fit = stats.linregress(removed, np.clip(residuals, middle - 3 * usual, middle + 3 * usual))
    reach = float(stats.t.ppf((1 + level) / 2, len(removed) - 2) * fit.stderr)
    return GateBias(gate=gate, change=float(fit.slope), low=float(fit.slope) - reach, high=float(fit.slope) + reach)


def describe(found: Audit, *, most: int = 3) -> Sequence[str]:
    """For people: a line on what the error is made of, and one per finding, ``most`` of each kind."""
    lines = [f"Left-out subnets are predicted within {_percent(found.error)} on average"]
    if found.sum_error is not None:
        lines[0] += f"; the sum of their kernels as measured is within {_percent(found.sum_error)}"
        lines += [
            f"  {unit.unit}: {_percent(unit.share)} of the time, off by {_percent(unit.error)}"
            for unit in found.units[:most]
        ]
    lines[0] += f". {_percent(found.fixed)} of the full network's latency belongs to no unit."
    for gate in found.biased[:most]:
        lines.append(
            f"  {gate.gate}: with its fewest blocks, subnets take {_percent(abs(gate.change))} "
            f"{'longer' if gate.change > 0 else 'less'} than predicted, relative to those with all"
        )
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
