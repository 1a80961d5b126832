"""Parts: functions of few gates whose sum is the time of a subnet, and the choice of their rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fn3hw.cost.basis import (
    NARROW,
    SECOND,
    TAILS,
    FloatArray,
    Rule,
    all_pairs,
    candidates,
    design,
    is_fast,
    pays,
    simplest,
)
from fn3hw.cost.context import Condition, Context, Contexts
from fn3hw.cost.solve import fit_relative, huber_weights
from fn3hw.cost.state import States
from fn3hw.cost.units import Unit, UnitTable

Mode = tuple[tuple[int, int, int], ...]
"""Per bit gate its column in `States.counts`, and the lowest and the highest of the counts that run alike."""

ALPHA = 1e-4
"""Ridge of a part's coefficients, relative to columns of unit root mean square."""
ALPHA_FROM_ORIGIN = 1e-2
"""The same where a part starts from another device: few measurements there only correct what is known."""

_FEWEST = 3
"""An alignment is a part's own only where that many of its counts meet it and as many do not."""

_OUTLIER = 0.02

_MOST_CONTEXTS = 6
_LIKELY_CONTEXTS = 4
"""Contexts that are tried in each step."""

_LIGHT = 0.01
"""Share of the time that parts may take together without their rules being asked for."""


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

    @property
    def alpha(self) -> float:
        """Ridge of the coefficients, relative to columns of unit root mean square; the first one is not shrunk."""
        return ALPHA if self.origin is None else ALPHA_FROM_ORIGIN

    def present(self, states: States) -> NDArray[np.bool_]:
        """Whether the unit exists, in a precision of the part's mode, shape (n,)."""
        there = np.asarray(states.branches[:, list(self.branch_columns)].all(axis=1), dtype=np.bool_)
        for column, lowest, highest in self.mode:
            there &= (states.counts[:, column] >= lowest) & (states.counts[:, column] <= highest)
        return there

    def matrix(self, states: States, rules: tuple[Rule, ...] | None = None) -> FloatArray:
        """Design matrix of shape (n, p), zero where the unit does not exist."""
        rules = rules or self.rules
        terms = design(states.counts[:, list(self.columns)], rules, all_pairs(len(self.columns)))
        if self.least:
            terms -= _at_least(self.least, rules)
        if self.apart:
            off = ~self._aligned(states, rules)[:, None]
            terms[:, is_fast(rules, all_pairs(len(rules)))] *= ~off
            terms = np.concatenate([terms, self._generic(states) * off], axis=1)
        if self.bordered:
            terms = np.concatenate([terms, self._border(states, rules)], axis=1)
        if self.contexts:
            held = [np.logical_and.reduce([one.holds(states) for one in context]) for context in self.contexts]
            terms = np.concatenate([terms, np.array(held, dtype=np.float64).T], axis=1)
        if self.origin is not None:
            terms = np.concatenate([self.origin.predict(states)[:, None], terms], axis=1)
        return terms * self.present(states)[:, None]

    def _aligned(self, states: States, rules: tuple[Rule, ...]) -> NDArray[np.bool_]:
        """Whether all widths are on the fast path, shape (n,)."""
        aligns = np.array([rule.align for rule in rules])
        return np.asarray((np.mod(states.counts[:, list(self.columns)], aligns) == 0).all(axis=1), dtype=np.bool_)

    def _generic(self, states: States) -> FloatArray:
        """Terms of a kernel for any counts: 1, each count, and the products of two, shape (n, p)."""
        plain, pairs = (Rule(),) * len(self.columns), all_pairs(len(self.columns))
        terms = design(states.counts[:, list(self.columns)], plain, pairs) - _at_least(self.least, plain)
        return terms[:, is_fast(plain, pairs)]

    def _border(self, states: States, rules: tuple[Rule, ...]) -> FloatArray:
        """Whether the unit is aligned after one that is not, and after one that is: shape (n, 2)."""
        aligned = self._aligned(states, rules)
        alike = np.mod(states.counts[:, self.before], max(rule.align for rule in rules)) == 0
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


def fit_part(part: Part, states: States, times: FloatArray, latency: FloatArray) -> Part:
    """The part with coefficients fitted under its rules; outliers are given less weight.

    Errors count relative to the latency of the whole subnet: it is the sum of all parts that has to be right. Were they
    relative to the part's own time, it would come out too small: an error of a small time would count more.

    Args:
        part: with its rules.
        states: the measured subnets, n of them.
        times: of the unit, shape (n,).
        latency: of the whole subnets, shape (n,), in any unit.
    """
    rows = np.flatnonzero(part.present(states))
    matrix = part.matrix(states)[rows]
    if not len(rows):
        return replace(part, coef=np.zeros(matrix.shape[1]))
    y, scale = times[rows], latency[rows]
    floor = _OUTLIER * float(np.mean(y / scale))
    fit = fit_relative(matrix, y, alpha=part.alpha, scale=scale)
    for _ in range(2):
        weights = huber_weights(fit.loo, floor=floor)
        fit = fit_relative(matrix, y, alpha=part.alpha, weights=weights, scale=scale)
    return replace(part, coef=fit.coef)


def choose_rules(
    parts: Sequence[Part],
    states: States,
    times: FloatArray,
    latency: FloatArray,
    asked: Sequence[Condition] = (),
) -> tuple[Rule, list[Part]]:
    """The rule that fits all parts best together, and the parts, each with that rule or with a better one of its own.

    All parts run on one device, so they share what they know. A part departs from the shared rule where its own data
    speak against it by more than the number of rules that were tried explains (a likelihood ratio with a penalty).
    Parts that take next to no time have no say, and the shared rule.

    Args:
        parts: with any rules.
        states: the measured subnets, n of them.
        times: of each part, shape (n, U).
        latency: of the whole subnets, shape (n,), in any unit.
        asked: conditions that parts may depend on.

    Returns:
        The shared rule, and the parts with their rules, not fitted yet.
    """
    widths = sorted({column for part in parts for column in part.columns})
    options = candidates(states.counts[:, widths]) if widths else [Rule()]
    options = [rule for rule in options if _is_shown(rule, states.counts[:, widths])] or [Rule()]
    share = times.mean(axis=0) / times.sum()
    heavy = _heavy(share)
    errors = np.zeros((len(options), len(parts)))
    for k in heavy:
        errors[:, k] = [
            _error(parts[k], (rule,) * len(parts[k].columns), states, times[:, k], latency) for rule in options
        ]
    shared = simplest(options, errors @ share, n=len(times))
    chosen = []
    for k, part in enumerate(parts):
        part = replace(part, rules=(shared,) * len(part.columns))
        if k in heavy and part.columns:
            alike = dict(zip(options, errors[:, k], strict=True))
            part = replace(part, rules=_own_rules(part, shared, alike, states, times[:, k], latency))
            part = _apart(part, states, times[:, k], latency)
            part = _apart(_with_special(part, states, times[:, k], latency), states, times[:, k], latency)
        chosen.append(part)
    chosen = _with_borders(chosen, sorted(heavy), states, times, latency)
    contexts = Contexts(asked, states)
    for k in range(len(parts)) if asked else ():
        chosen[k] = _with_contexts(chosen[k], contexts, states, times[:, k], latency)
    return shared, chosen


def _own_rules(
    part: Part,
    shared: Rule,
    alike: Mapping[Rule, float],
    states: States,
    times: FloatArray,
    latency: FloatArray,
) -> tuple[Rule, ...]:
    """The rules of a part's widths: the shared one, or others where its data speak for them.

    Two widths of one operation often leave the fast path by one rule, which a change of either alone would not show:
    first both follow another rule together, then each by itself.

    Args:
        part: with any rules.
        shared: the rule that it follows where nothing speaks against it.
        alike: the error of the part by the rule that all of its widths follow.
        states: the measured subnets, n of them.
        times: of the part, shape (n,).
        latency: of the whole subnets, shape (n,), in any unit.
    """
    seen = part.present(states)
    counts, n = states.counts[seen][:, list(part.columns)], int(seen.sum())
    options = [[rule for rule in alike if _is_seen(rule, counts[:, j])] for j in range(counts.shape[1])]
    choices = len(alike) - 1

    def each(rule: Rule) -> tuple[tuple[Rule, ...], float]:
        """Rules of each width, and their error, where all follow one rule at first."""
        rules, error = (rule,) * len(options), alike[rule]
        for j in range(len(options)):
            own = [(*rules[:j], one, *rules[j + 1 :]) for one in options[j]]
            own_errors = [_error(part, one, states, times, latency) for one in own]
            if own and pays(min(own_errors), error, n=n, choices=choices):
                error = min(own_errors)
                rules = own[own_errors.index(error)]
        return rules, error

    rules, error = each(shared)
    together = [rule for rule in options[0] if all(rule in others for others in options)]
    if len(options) > 1 and together:
        other_rules, other_error = each(min(together, key=alike.__getitem__))
        if pays(other_error, error, n=n, choices=choices):
            rules, error = other_rules, other_error
    return rules


def _apart(part: Part, states: States, times: FloatArray, latency: FloatArray) -> Part:
    """The part with a kernel of its own off the fast path, where its data speak for it."""
    seen = part.present(states)
    if part.apart:
        return part
    on = int(np.count_nonzero(seen & part._aligned(states, part.rules)))
    if min(on, int(seen.sum()) - on) < _FEWEST:
        return part
    other = replace(part, apart=True)
    error, without = (_error(one, one.rules, states, times, latency) for one in (other, part))
    return other if pays(error, without, n=int(seen.sum())) else part


def _with_contexts(part: Part, contexts: Contexts, states: States, times: FloatArray, latency: FloatArray) -> Part:
    """The part with contexts in which it takes longer, one after the other, as long as its data speak for another.

    As in `choose_rules`, each has to pay for having been chosen from many.
    """
    present = part.present(states)
    rows = np.flatnonzero(present)
    error = _error(part, part.rules, states, times, latency)
    while len(part.contexts) < min(_MOST_CONTEXTS, len(rows) // 4):
        fitted = fit_part(part, states, times, latency)
        residual = (times[rows] - fitted.predict(states.take(rows))) / latency[rows]
        tried = [
            replace(part, contexts=(*part.contexts, one))
            for one in contexts.likely(present, residual, _LIKELY_CONTEXTS)
        ]
        errors = [_error(one, one.rules, states, times, latency) for one in tried]
        best = int(np.argmin(errors)) if errors else -1
        if best < 0 or not pays(errors[best], error, n=len(rows), choices=len(contexts.contexts)):
            break
        part, error = tried[best], errors[best]
    return part


def _with_borders(
    chosen: list[Part], heavy: Sequence[int], states: States, times: FloatArray, latency: FloatArray
) -> list[Part]:
    """The parts, all with a say of the gate before them where the measurements speak for it.

    It is one runtime that lays out data and fuses sums: all parts tell, or none.
    """
    bordered = [replace(part, bordered=part.before is not None) for part in chosen]
    plain_error, error = (
        weighted_error([parts[k] for k in heavy], states, times[:, heavy], latency) for parts in (chosen, bordered)
    )
    return bordered if pays(error, plain_error, n=len(times)) else chosen


def _with_special(part: Part, states: States, times: FloatArray, latency: FloatArray) -> Part:
    """The part with what only some devices have in its rules, one after the other where its data speak for it."""
    counts = states.counts[part.present(states)][:, list(part.columns)]
    error = _error(part, part.rules, states, times, latency)
    while True:
        rules = part.rules
        own = [
            (*rules[:j], one, *rules[j + 1 :]) for j in range(len(rules)) for one in _special(rules[j], counts[:, j])
        ]
        errors = [_error(part, one, states, times, latency) for one in own]
        if not own or not pays(min(errors), error, n=len(counts), choices=len(own)):
            return part
        error = min(errors)
        part = replace(part, rules=own[errors.index(error)])


def _special(rule: Rule, counts: FloatArray) -> list[Rule]:
    """The rule with one thing more that counts of shape (n,) may show: enough of them are on each side of it."""

    def is_seen(where: NDArray[np.bool_]) -> bool:
        return bool(min(np.count_nonzero(where), np.count_nonzero(~where)) >= _FEWEST)

    found = [] if rule.narrow else [replace(rule, narrow=n) for n in NARROW if is_seen(counts < n)]
    if rule.align > 1 and not rule.second:
        found += [replace(rule, second=n) for n in SECOND if n != rule.align and is_seen(np.mod(counts, n) != 0)]
    if rule.align > 1 and not rule.tail:
        found += [replace(rule, tail=n) for n in TAILS if n <= max(rule.align, rule.step) and is_seen(counts % n != 0)]
    return found


def weighted_error(parts: Sequence[Part], states: States, times: FloatArray, latency: FloatArray) -> float:
    """Leave-one-out error of parts under their rules, by their share of the time."""
    share = times.mean(axis=0) / times.sum(axis=1).mean()
    return float(share @ [_error(part, part.rules, states, times[:, k], latency) for k, part in enumerate(parts)])


def _heavy(share: FloatArray) -> set[int]:
    """The parts that all but a little of the time is spent in."""
    order = np.argsort(share)
    light = int(np.searchsorted(np.cumsum(share[order]), _LIGHT * share.sum()))
    return set(order[light:].tolist())


def _is_shown(rule: Rule, counts: FloatArray) -> bool:
    """Whether there are on average an aligned and an unaligned count per column of counts (n, k)."""
    off = np.count_nonzero(np.mod(counts, rule.align))
    return rule.align == 1 or min(off, counts.size - off) >= counts.shape[1]


def _is_seen(rule: Rule, counts: FloatArray) -> bool:
    """Whether counts are such that the rule could show."""
    off = int(np.count_nonzero(np.mod(counts, rule.align)))
    aligned = len(counts) - off
    return rule.step <= max(float(np.ptp(counts)), 1.0) and (rule.align == 1 or min(off, aligned) >= _FEWEST)


def _error(part: Part, rules: tuple[Rule, ...], states: States, times: FloatArray, latency: FloatArray) -> float:
    """Mean absolute leave-one-out error of a part under rules, as a share of its mean time.

    As in `fit_part`, errors count relative to latency. They are bounded so that one odd row cannot decide.
    """
    rows = np.flatnonzero(part.present(states))
    if not len(rows):
        return 0.0
    y, scale = times[rows], latency[rows]
    usual = max(float(np.mean(y / scale)), 1e-12)
    fit = fit_relative(part.matrix(states, rules)[rows], y, alpha=part.alpha, scale=scale)
    return float(np.mean(np.minimum(np.abs(fit.loo) / usual, 1.0)))
