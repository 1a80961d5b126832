"""Parts: functions of few gates whose sum is the time of a subnet."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fn3hw.cost.basis import FloatArray, Rule, all_pairs, design, is_fast
from fn3hw.cost.context import Context
from fn3hw.cost.evidence import Evidence
from fn3hw.cost.solve import Fit, fit_relative, huber_weights
from fn3hw.cost.state import Encoder, States
from fn3hw.cost.units import Unit, UnitTable

Mode = tuple[tuple[int, int, int], ...]
"""Per bit gate its column in `States.counts`, and the lowest and the highest of the counts that run alike."""

ALPHA = 1e-4
"""Ridge of a part's coefficients, relative to columns of unit root mean square."""
ALPHA_OF_KIN = 1e-2
"""The same where other parts tell what to expect."""
ALPHA_FROM_ORIGIN = 1e-2
"""The same where a part starts from another device: few measurements there only correct what is known."""

_OUTLIER = 0.02


@dataclass(frozen=True, slots=True)
class Part:
    """Time of one unit as a function of the counts of its gates.

    Args:
        unit: whose time it is.
        columns: of its widths in `States.counts`.
        branch_columns: of its branches in `States.branches`.
        rules: of each width.
        coef: of the terms of `design`.
        mode: which precisions it is the time of, see `fn3hw.cost.precision`.
        origin: the same unit on another device, where one is known: its time is the first term then, and what the
            measurements here say otherwise is shrunk.
        before: column of the gate just before it in the network, if there is one.
        bordered: whether that gate has a say: where this unit is aligned and the one before is not, data change their
            layout in between, or a sum is no longer fused.
        least: the fewest of each width. The constant is the time there, and steps cost what they add to it: caches may
            make small sizes cheaper than a share of large ones, so that a line through the times of all sizes would
            be below 0 at none.
        contexts: in which it takes longer, see `fn3hw.cost.context`.
        apart: whether another kernel altogether runs off the fast path, whose time has nothing of the fast one's in it.
        kin: names the parts that are alike, see `fn3hw.cost.kin`; None where the part is fitted by itself.
        prior: coefficients that the others of its kin let expect, of the terms without borders and contexts.
    """

    unit: Unit
    columns: tuple[int, ...]
    branch_columns: tuple[int, ...]
    rules: tuple[Rule, ...]
    coef: FloatArray
    mode: Mode = ()
    origin: Part | None = None
    before: int | None = None
    bordered: bool = False
    least: tuple[float, ...] = ()
    contexts: tuple[Context, ...] = ()
    apart: bool = False
    kin: Hashable = None
    prior: FloatArray | None = None

    @property
    def alpha(self) -> float:
        """Ridge of the coefficients, relative to columns of unit root mean square; the first one is not shrunk."""
        return ALPHA if self.origin is None else ALPHA_FROM_ORIGIN

    def gates(self, encoder: Encoder) -> frozenset[int]:
        """Numbers of the gates that its time depends on."""
        found = {*self.columns, *(column for column, _, _ in self.mode)}
        asked = [one for context in self.contexts for one in context]
        found |= {one.column for one in asked if one.kind != "branch"}
        branches = {*self.branch_columns, *(one.column for one in asked if one.kind == "branch")}
        found |= {encoder.gate_of(branch) for branch in branches}
        if self.bordered and self.before is not None:
            found.add(self.before)
        return frozenset(found) | (self.origin.gates(encoder) if self.origin is not None else frozenset())

    def present(self, states: States) -> NDArray[np.bool_]:
        """Whether the unit exists, in a precision of the part's mode, shape (n,)."""
        there = np.asarray(states.branches[:, list(self.branch_columns)].all(axis=1), dtype=np.bool_)
        for column, lowest, highest in self.mode:
            there &= (states.counts[:, column] >= lowest) & (states.counts[:, column] <= highest)
        return there

    def matrix(self, states: States) -> FloatArray:
        """Design matrix of shape (n, p), zero where the unit does not exist."""
        terms = self.terms(states)
        if self.bordered:
            terms = np.concatenate([terms, self._border(states)], axis=1)
        if self.contexts:
            held = [np.logical_and.reduce([one.holds(states) for one in context]) for context in self.contexts]
            terms = np.concatenate([terms, np.array(held, dtype=np.float64).T], axis=1)
        if self.origin is not None:
            terms = np.concatenate([self.origin.predict(states)[:, None], terms], axis=1)
        return terms * self.present(states)[:, None]

    def terms(self, states: States) -> FloatArray:
        """What the widths decide wherever the unit exists, shape (n, p)."""
        pairs = all_pairs(len(self.columns))
        terms = design(states.counts[:, list(self.columns)], self.rules, pairs)
        if self.least:
            terms -= _at_least(self.least, self.rules)
        if self.apart:
            off = ~self.aligned(states)[:, None]
            terms[:, is_fast(self.rules, pairs)] *= ~off
            terms = np.concatenate([terms, self._generic(states) * off], axis=1)
        return terms

    def aligned(self, states: States) -> NDArray[np.bool_]:
        """Whether all widths are on the fast path, shape (n,)."""
        aligns = np.array([rule.align for rule in self.rules])
        return np.asarray((np.mod(states.counts[:, list(self.columns)], aligns) == 0).all(axis=1), dtype=np.bool_)

    def _generic(self, states: States) -> FloatArray:
        """Terms of a kernel for any counts: 1, each count or its blocks, and the products of two, shape (n, p)."""
        plain, pairs = tuple(Rule(rule.blocks) for rule in self.rules), all_pairs(len(self.columns))
        terms = design(states.counts[:, list(self.columns)], plain, pairs) - _at_least(self.least, plain)
        return terms[:, is_fast(plain, pairs)]

    def _border(self, states: States) -> FloatArray:
        """Whether the unit is aligned after one that is not, and after one that is: shape (n, 2)."""
        aligned = self.aligned(states)
        alike = np.mod(states.counts[:, self.before], max(rule.align for rule in self.rules)) == 0
        return np.stack([aligned & ~alike, aligned & alike], axis=1).astype(np.float64)

    def predict(self, states: States) -> FloatArray:
        """Time of shape (n,), in the unit that it was fitted in."""
        result: FloatArray = self.matrix(states) @ self.coef
        return result


@lru_cache(maxsize=4096)
def _at_least(least: tuple[float, ...], rules: tuple[Rule, ...]) -> FloatArray:
    """Terms of `design` on the fast path at the fewest counts, but for the constant: shape (p,)."""
    special = [{name: min(getattr(rule, name), 1) for name in ("narrow", "second", "tail")} for rule in rules]
    aligned = [Rule(rule.step, **one) for rule, one in zip(rules, special, strict=True)]
    terms: FloatArray = design(np.array([least]), aligned, all_pairs(len(least)))[0]
    terms[0] = 0.0
    return terms


def blank_part(table: UnitTable, k: int) -> Part:
    """The k-th unit as a part that nothing is known about yet."""
    unit = table.units[k]
    branches = tuple(table.encoder.branch_column[branch] for branch in unit.branches)
    columns = tuple(table.columns(unit))
    earlier = (column for one in table.units[:k][::-1] for column in table.columns(one) if column not in columns)
    before = next(earlier, None) if columns else None
    least = tuple(float(table.encoder.space.gates[column].min_kept) for column in columns)
    return Part(unit, columns, branches, (Rule(),) * len(columns), np.zeros(1), before=before, least=least)


def fit_part(part: Part, seen: Evidence) -> Part:
    """The part with coefficients fitted under its rules; outliers are given less weight.

    Errors count relative to the latency of the whole subnet: it is the sum of all parts that has to be right. Were they
    relative to the part's own time, it would come out too small: an error of a small time would count more.

    Args:
        part: with its rules.
        seen: of this part alone.
    """
    rows = np.flatnonzero(part.present(seen.states))
    matrix = part.matrix(seen.states)[rows]
    if not len(rows):
        return replace(part, coef=np.zeros(matrix.shape[1]))
    y, scale = seen.times[rows, 0], seen.latency_ms[rows]
    floor = _OUTLIER * float(np.mean(y / scale))
    fit = _fit(part, matrix, y, scale)
    for _ in range(2):
        fit = _fit(part, matrix, y, scale, huber_weights(fit.loo, floor=floor))
    return replace(part, coef=fit.coef)


def part_error(part: Part, seen: Evidence) -> float:
    """Mean absolute leave-one-out error of a part under its rules, as a share of its mean time.

    As in `fit_part`, errors count relative to latency. They are bounded so that one odd row cannot decide.

    Args:
        part: with its rules.
        seen: of this part alone.
    """
    rows = np.flatnonzero(part.present(seen.states))
    if not len(rows):
        return 0.0
    y, scale = seen.times[rows, 0], seen.latency_ms[rows]
    usual = max(float(np.mean(y / scale)), 1e-12)
    fit = _fit(part, part.matrix(seen.states)[rows], y, scale)
    return float(np.mean(np.minimum(np.abs(fit.loo) / usual, 1.0)))


def weighted_error(parts: Sequence[Part], evidence: Evidence) -> float:
    """Leave-one-out error of parts under their rules, by their share of the time."""
    share = evidence.times.mean(axis=0) / evidence.times.sum(axis=1).mean()
    return float(share @ [part_error(part, evidence.of([k])) for k, part in enumerate(parts)])


def _fit(part: Part, matrix: FloatArray, y: FloatArray, scale: FloatArray, weights: FloatArray | None = None) -> Fit:
    """Coefficients of a part; where it has a prior, that times a factor, and what its own data say otherwise."""
    if part.prior is None:
        return fit_relative(matrix, y, alpha=part.alpha, weights=weights, scale=scale)
    known = len(part.prior)
    alpha = np.full(matrix.shape[1] + 1, part.alpha)
    alpha[: known + 1] = ALPHA_OF_KIN
    expected = matrix[:, :known] @ part.prior
    fit = fit_relative(np.column_stack([expected, matrix]), y, alpha=alpha, weights=weights, scale=scale)
    coef = fit.coef[1:].copy()
    coef[:known] += fit.coef[0] * part.prior
    return replace(fit, coef=coef)
