"""Which rules the parts follow: what all share, and where a part's own measurements speak for something else.

Whatever is added to a part has to lower its leave-one-out error by more than having had the choice explains
(`fn3hw.cost.basis.pays`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fn3hw.cost.basis import BLOCKS, NARROW, SECOND, TAILS, FloatArray, Rule, candidates, pays, simplest
from fn3hw.cost.context import Condition, Contexts
from fn3hw.cost.evidence import Evidence
from fn3hw.cost.kin import with_priors
from fn3hw.cost.parts import Part, fit_part, part_error, weighted_error

_FEWEST = 3
"""An alignment is a part's own only where that many of its counts meet it and as many do not."""

_OWN = 0.65
"""Parts of a kin keep rules of their own where these leave at most that share of the error. What is chosen for one part
alone fits its noise, too."""

_MOST_CONTEXTS = 6
_LIKELY_CONTEXTS = 4
"""Contexts that are tried in each step."""

_LIGHT = 0.01
"""Share of the time that parts may take together without their rules being asked for."""


def choose_rules(parts: Sequence[Part], evidence: Evidence, asked: Sequence[Condition] = ()) -> tuple[Rule, list[Part]]:
    """The rule that fits all parts best together, and the parts, each with that rule or with a better one of its own.

    All parts run on one device, so they share what they know. Parts that take next to no time have no say, and the
    shared rule.

    Args:
        parts: with any rules.
        evidence: of these parts.
        asked: conditions that parts may depend on.

    Returns:
        The shared rule, and the parts with their rules, not fitted yet.
    """
    counts, n = evidence.states.counts, len(evidence.latency_ms)
    widths = sorted({column for part in parts for column in part.columns})
    options = candidates(counts[:, widths]) if widths else [Rule()]
    options = [rule for rule in options if _is_shown(rule, counts[:, widths])] or [Rule()]
    share = evidence.times.mean(axis=0) / evidence.times.sum()
    heavy = _heavy(share)
    errors = np.zeros((len(options), len(parts)))
    for k in heavy:
        errors[:, k] = [part_error(_following(parts[k], rule), evidence.of([k])) for rule in options]
    shared = simplest(options, errors @ share, n=n)
    chosen = []
    for k, part in enumerate(parts):
        part = replace(_following(part, shared), kin=None)
        if k in heavy and part.columns:
            seen = evidence.of([k])
            part = _apart(_with_own_rules(part, dict(zip(options, errors[:, k], strict=True)), seen), seen)
            part = _apart(_with_special(part, seen), seen)
        chosen.append(part)
    for members in _kins(parts, heavy):
        chosen = _with_kin(chosen, members, [_following(parts[k], shared) for k in members], options, evidence)
    chosen = _with_borders(chosen, evidence, sorted(heavy))
    contexts = Contexts(asked, evidence.states)
    for k in range(len(parts)) if asked else ():
        chosen[k] = _with_contexts(chosen[k], contexts, evidence.of([k]))
    return shared, chosen


def _following(part: Part, rule: Rule) -> Part:
    """The part, all of its widths by one rule."""
    return replace(part, rules=(rule,) * len(part.columns))


def _kins(parts: Sequence[Part], heavy: set[int]) -> list[list[int]]:
    """Which of the heavy parts are alike, where there are several."""
    found: dict[object, list[int]] = {}
    for k in sorted(heavy):
        if parts[k].kin is not None:
            found.setdefault(parts[k].kin, []).append(k)
    return [members for members in found.values() if len(members) > 1]


def _with_kin(
    chosen: list[Part], members: Sequence[int], alike: Sequence[Part], options: Sequence[Rule], evidence: Evidence
) -> list[Part]:
    """The chosen parts, those of one kin as such where that predicts them about as well as rules of their own.

    Args:
        chosen: all parts, with rules of their own.
        members: which of them are of the kin.
        alike: these, all with the same rules.
        options: rules to choose from.
        evidence: of all parts.
    """
    found, of_kin = list(chosen), evidence.of(members)
    own_error = weighted_error([chosen[k] for k in members], of_kin)
    kin, error = _as_kin(alike, options, of_kin)
    if own_error > _OWN * error:
        for k, part in zip(members, kin, strict=True):
            seen, n = evidence.of([k]), int(part.present(evidence.states).sum())
            if not pays(part_error(chosen[k], seen), part_error(part, seen), n=n, choices=len(options) - 1):
                found[k] = part
    return found


def _as_kin(parts: Sequence[Part], options: Sequence[Rule], evidence: Evidence) -> tuple[list[Part], float]:
    """Parts of one kin with rules that all of them follow, and their error.

    They have what they let expect of each other besides, where that makes them plainer.

    Args:
        parts: of as many widths, all with the same rules.
        options: rules to choose from.
        evidence: of these parts.
    """
    kin, n = list(parts), len(evidence.latency_ms)
    best = weighted_error(kin, evidence)
    for j in range(len(kin[0].columns)):
        kin, best = _better(kin, best, [_all_with(kin, j, rule) for rule in options], evidence, n)
    if max(rule.align for rule in kin[0].rules) > 1:
        apart = [replace(part, apart=True) for part in kin]
        blocks = [
            _all_with(apart, j, rule)
            for j, first in enumerate(kin[0].rules)
            for rule in _in_blocks(first, evidence.states.counts[:, [part.columns[j] for part in kin]])
        ]
        kin, best = _better(kin, best, [apart, *blocks], evidence, n)
    related = with_priors(kin, evidence)
    error = weighted_error(related, evidence)
    return (related, error) if error <= best else ([replace(part, kin=None) for part in kin], best)


def _better(
    kin: list[Part], error: float, tried: Sequence[list[Part]], evidence: Evidence, n: int
) -> tuple[list[Part], float]:
    """The best of what was tried instead of a kin with its error, where it pays, or else the kin as it is."""
    errors = [weighted_error(one, evidence) for one in tried]
    if errors and pays(min(errors), error, n=n, choices=len(tried)):
        return tried[int(np.argmin(errors))], min(errors)
    return kin, error


def _all_with(kin: Sequence[Part], j: int, rule: Rule) -> list[Part]:
    """The parts, the j-th width of each by another rule."""
    return [_with_rule(part, j, rule) for part in kin]


def _with_rule(part: Part, j: int, rule: Rule) -> Part:
    """The part, its j-th width by another rule."""
    return replace(part, rules=(*part.rules[:j], rule, *part.rules[j + 1 :]))


def _with_own_rules(part: Part, alike: Mapping[Rule, float], seen: Evidence) -> Part:
    """The part with the rules that it has, or with others where its data speak for them.

    Two widths of one operation often leave the fast path by one rule, which a change of either alone would not show:
    first both follow another rule together, then each by itself.

    Args:
        part: with the rules that it follows where nothing speaks against them.
        alike: its error by the rule that all of its widths follow.
        seen: of this part alone.
    """
    present = part.present(seen.states)
    counts, n = seen.states.counts[present][:, list(part.columns)], int(present.sum())
    options = [[rule for rule in alike if _is_seen(rule, counts[:, j])] for j in range(counts.shape[1])]
    choices = len(alike) - 1

    def each(part: Part, error: float) -> tuple[Part, float]:
        """The part with rules of each width from these on, and its error."""
        for j in range(len(options)):
            own = [_with_rule(part, j, rule) for rule in options[j]]
            errors = [part_error(one, seen) for one in own]
            if own and pays(min(errors), error, n=n, choices=choices):
                error = min(errors)
                part = own[errors.index(error)]
        return part, error

    found, error = each(part, part_error(part, seen))
    together = [rule for rule in options[0] if all(rule in others for others in options)]
    if len(options) > 1 and together:
        best = min(together, key=alike.__getitem__)
        other, other_error = each(_following(part, best), alike[best])
        if pays(other_error, error, n=n, choices=choices):
            found = other
    return found


def _apart(part: Part, seen: Evidence) -> Part:
    """The part with a kernel of its own off the fast path, where its data speak for it."""
    if part.apart:
        return part
    present = part.present(seen.states)
    on, n = int(np.count_nonzero(present & part.aligned(seen.states))), int(present.sum())
    if min(on, n - on) < _FEWEST:
        return part
    other = replace(part, apart=True)
    return other if pays(part_error(other, seen), part_error(part, seen), n=n) else part


def _with_special(part: Part, seen: Evidence) -> Part:
    """The part with what only some devices have in its rules, one after the other where its data speak for it."""
    counts = seen.states.counts[part.present(seen.states)][:, list(part.columns)]
    error = part_error(part, seen)
    while True:
        own = [
            _with_rule(part, j, rule) for j in range(len(part.rules)) for rule in _special(part.rules[j], counts[:, j])
        ]
        errors = [part_error(one, seen) for one in own]
        if not own or not pays(min(errors), error, n=len(counts), choices=len(own)):
            return part
        error = min(errors)
        part = own[errors.index(error)]


def _special(rule: Rule, counts: FloatArray) -> list[Rule]:
    """The rule with one thing more that counts of shape (n,) may show: enough of them are on each side of it."""

    def is_seen(where: NDArray[np.bool_]) -> bool:
        return bool(min(np.count_nonzero(where), np.count_nonzero(~where)) >= _FEWEST)

    found = [] if rule.narrow else [replace(rule, narrow=n) for n in NARROW if is_seen(counts < n)]
    if rule.align > 1 and not rule.second:
        found += [replace(rule, second=n) for n in SECOND if n != rule.align and is_seen(np.mod(counts, n) != 0)]
    if rule.align > 1 and not rule.tail:
        found += [replace(rule, tail=n) for n in TAILS if n <= max(rule.align, rule.step) and is_seen(counts % n != 0)]
    return found + _in_blocks(rule, counts)


def _in_blocks(rule: Rule, counts: FloatArray) -> list[Rule]:
    """The rule with blocks off the fast path, where counts of any shape span several."""
    if rule.align == 1 or rule.blocks > 1:
        return []
    return [replace(rule, blocks=n) for n in BLOCKS if n < float(np.ptp(counts))]


def _with_borders(chosen: list[Part], evidence: Evidence, heavy: Sequence[int]) -> list[Part]:
    """The parts, all with a say of the gate before them where the measurements speak for it.

    It is one runtime that lays out data and fuses sums: all parts tell, or none.
    """
    bordered = [replace(part, bordered=part.before is not None) for part in chosen]
    without, error = (weighted_error([parts[k] for k in heavy], evidence.of(heavy)) for parts in (chosen, bordered))
    return bordered if pays(error, without, n=len(evidence.latency_ms)) else chosen


def _with_contexts(part: Part, contexts: Contexts, seen: Evidence) -> Part:
    """The part with contexts in which it takes longer, one after the other, as long as its data speak for another."""
    present = part.present(seen.states)
    rows = np.flatnonzero(present)
    error = part_error(part, seen)
    while len(part.contexts) < min(_MOST_CONTEXTS, len(rows) // 4):
        predicted = fit_part(part, seen).predict(seen.states.take(rows))
        residual = (seen.times[rows, 0] - predicted) / seen.latency_ms[rows]
        tried = [
            replace(part, contexts=(*part.contexts, one))
            for one in contexts.likely(present, residual, _LIKELY_CONTEXTS)
        ]
        errors = [part_error(one, seen) for one in tried]
        if not tried or not pays(min(errors), error, n=len(rows), choices=len(contexts.contexts)):
            break
        error = min(errors)
        part = tried[errors.index(error)]
    return part


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
