"""Latency from end-to-end times alone, for profiles without kernel times: all parts are fitted together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fn3hw.cost.basis import FloatArray, Rule, candidates, simplest
from fn3hw.cost.latency import Latency
from fn3hw.cost.parts import Part
from fn3hw.cost.precision import Partition, told_apart
from fn3hw.cost.solve import fit_relative, huber_weights
from fn3hw.cost.state import States
from fn3hw.cost.units import Unit, UnitTable

_ALPHA = 1e-3
_OUTLIER = 0.02


def gate_parts(table: UnitTable, partition: Partition, states: States) -> list[Part]:
    """A part per gate and precision of its units, in the branches that hold them all; one per branch and per precision.

    Args:
        table: the units of the network.
        partition: which settings of bit gates run alike.
        states: the measured subnets, which have to show a precision for it to be told apart.
    """
    encoder = table.encoder
    parts = []
    for name in encoder.names:
        holding = [unit for unit in table.units if name in unit.widths]
        if holding:
            branches = tuple(sorted(set.intersection(*(set(unit.branches) for unit in holding))))
            columns = tuple(encoder.branch_column[b] for b in branches)
            bits = tuple(dict.fromkeys(gate for unit in holding for gate in unit.precisions))
            part = Part(Unit((name,), branches, bits), (encoder.column[name],), columns, (Rule(),), np.zeros(4))
            parts += told_apart(part, table, partition, states)
    for j, branch in enumerate(encoder.branches):
        parts.append(Part(Unit((), (branch,)), (), (j,), (), np.zeros(1)))
    for gate in [gate for gate in encoder.space if gate.level == "bit"]:
        part = Part(Unit((), (), (gate.name,)), (), (), (), np.zeros(1))
        parts += told_apart(part, table, partition, states)
    return parts


def find_rule(parts: Sequence[Part], states: States, latency_ms: FloatArray) -> tuple[Rule, list[Part], float]:
    """The rule with the smallest leave-one-out error for all gates together, the parts with it, and the error."""
    widths = sorted({column for part in parts for column in part.columns})
    options = candidates(states.counts[:, widths]) if widths else [Rule()]
    errors = [fit_relative(_matrix(_with(parts, rule), states), latency_ms, alpha=_ALPHA).error for rule in options]
    shared = simplest(options, np.array(errors), n=len(latency_ms))
    return shared, _with(parts, shared), errors[options.index(shared)]


def fit_end_to_end(parts: Sequence[Part], states: States, latency_ms: FloatArray) -> Latency:
    """Fit the coefficients of all parts on latency."""
    matrix = _matrix(parts, states)
    fit = fit_relative(matrix, latency_ms, alpha=_ALPHA)
    for _ in range(2):
        fit = fit_relative(matrix, latency_ms, alpha=_ALPHA, weights=huber_weights(fit.loo, floor=_OUTLIER))
    fitted, at = [], 1
    for part in parts:
        skip = len(part.columns) > 0
        width = 4 - 1 if skip else 1
        coef = fit.coef[at : at + width]
        fitted.append(replace(part, coef=np.append(0.0, coef) if skip else coef))
        at += width
    return Latency(tuple(fitted), float(fit.coef[0]))


def _with(parts: Sequence[Part], rule: Rule) -> list[Part]:
    return [replace(part, rules=(rule,) * len(part.columns)) for part in parts]


def _matrix(parts: Sequence[Part], states: States) -> FloatArray:
    """The constant, once, and all other terms of the parts."""
    blocks = [part.matrix(states)[:, 1 if part.columns else 0 :] for part in parts]
    return np.concatenate([np.ones((len(states), 1)), *blocks], axis=1)
