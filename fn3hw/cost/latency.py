"""Latency of a subnet: the sum of its parts, calibrated to what was measured end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fn3hw.cost.basis import NEGLIGIBLE, FloatArray, pays
from fn3hw.cost.evidence import Evidence, bent
from fn3hw.cost.kin import with_priors
from fn3hw.cost.parts import Part, fit_part, weighted_error
from fn3hw.cost.solve import Fit, fit_relative, huber_weights
from fn3hw.cost.state import Encoder, States
from fn3hw.cost.tables import Piece

_OUTLIER = 0.005
_LEAST_LEFT = 0.2
"""No more than the rest of a kernel's time can be overhead."""
_OPERATORS = 0.1
"""Ridge of what timing adds to the kernels of one operator more than to others."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of a subnet: an offset and the sum of its parts, bent where small subnets take longer than that.

    Args:
        parts: each predicts ms.
        offset_ms: what no part explains; below 0 where kernels seem longer by themselves than they are in a run.
        ms_per_us: end-to-end ms per µs of kernel time, of each part; empty where parts were not fitted on kernels.
        bend: in root ms, see `fn3hw.cost.evidence.bent`.
    """

    parts: tuple[Part, ...]
    offset_ms: float
    ms_per_us: tuple[float, ...] = ()
    bend: float = 0.0

    def part_ms(self, states: States) -> FloatArray:
        """Share of each part in the latency in ms, shape (n, U); what they leave of it is fixed."""
        return np.stack([part.predict(states) for part in self.parts], axis=1) * self.stretch(states)[:, None]

    def stretch(self, states: States) -> FloatArray:
        """How many times longer than the sum of its parts a subnet takes for the bend, shape (n,)."""
        total = self._sum(states)
        return np.divide(bent(total, self.bend), total, out=np.ones_like(total), where=total > 0)

    def predict(self, states: States) -> FloatArray:
        """Latency in ms, shape (n,)."""
        return bent(self._sum(states), self.bend)

    def pieces(self, encoder: Encoder) -> list[Piece]:
        """What latency is the sum of before it is bent, but for the offset, for sums of latency, memory and size."""
        return [Piece(part.gates(encoder), part.predict, (1.0, 0.0, 0.0)) for part in self.parts]

    def _sum(self, states: States) -> FloatArray:
        total = np.full(len(states), self.offset_ms)
        for part in self.parts:
            total += part.predict(states)
        return total


def predict_each(fits: Sequence[Latency], states: States) -> FloatArray:
    """What each of several fits of the same parts, with the same bend, predicts: ms, shape (fits, n)."""
    total = np.repeat(np.array([fit.offset_ms for fit in fits])[:, None], len(states), axis=1)
    for alike in zip(*(fit.parts for fit in fits), strict=True):
        total += np.stack([part.coef for part in alike]) @ alike[0].matrix(states).T
    return bent(total, fits[0].bend)


def fit_latency(parts: Sequence[Part], evidence: Evidence) -> Latency:
    """Fit parts whose rules are known on kernel times, and their sum on latency."""
    states = evidence.states
    fitted = [fit_part(part, evidence.of([k])) for k, part in enumerate(with_priors(parts, evidence))]
    predicted = np.stack([part.predict(states) for part in fitted], axis=1)
    offset_ms, ms_per_us = _calibrate(predicted, evidence)
    scaled = (replace(part, coef=part.coef * scale) for part, scale in zip(fitted, ms_per_us, strict=True))
    return Latency(tuple(scaled), offset_ms, tuple(ms_per_us.tolist()), evidence.bend)


def prepared(parts: Sequence[Part], evidence: Evidence) -> Evidence:
    """The evidence as parts are fitted on it: without drift where there is any, or else with comparable kernels.

    Where a device drifted, sums of kernels tell nothing but the drift.
    """
    steady = without_drift(parts, evidence)
    return steady if steady is not evidence else without_drift(parts, comparable(parts, evidence))


def comparable(parts: Sequence[Part], evidence: Evidence) -> Evidence:
    """The evidence with kernel times whose sum is in proportion to latency, as nearly as a profiler's ways allow it.

    What a profiler adds to a kernel is a constant, and matters where kernels take few microseconds: a subnet of many
    small kernels seems slower than it is. Kernels of one operator may have another constant than those of another, as
    a profiler describes their inputs, of which some have more. Or latency differs from the sum by a constant of its
    own. And what a kernel costs its successors is another share of fast kernels, of integers, than of slow ones, of
    full precision. Which of these there is is told from the sums of kernels as measured, which no model of kernels is
    between.
    """
    by_operator = evidence.kernels.sum(axis=1)
    total, latency_ms = evidence.times.sum(axis=1), evidence.latency_ms
    integers = _of_integers(parts)
    apart = [evidence.times[:, ~integers].sum(axis=1), evidence.times[:, integers].sum(axis=1)]
    sums = [[total], apart] if integers.any() and not integers.all() else [[total]]
    extra = np.column_stack([np.ones_like(total), by_operator.sum(axis=1), by_operator])
    ridge = np.array([1e-6, 1e-6, *[_OPERATORS] * by_operator.shape[1]])
    tried: list[tuple[float, FloatArray, FloatArray, float]] = []
    each = [*range(1, len(ridge))]
    forms = [(used, False) for used in ([], [0], [1], each)] + [(used, True) for used in ([], [1], each)]
    for columns, (used, bend) in product(sums, forms):
        roots = [np.sqrt(total)] * bend
        matrix = np.column_stack([*columns, *roots, extra[:, used], -extra[:, used]])
        fixed, free = len(columns), len(columns) + bend
        fit = fit_relative(matrix, latency_ms, alpha=np.array([*[1e-6] * free, *ridge[used], *ridge[used]]))
        factors, of_root, more, less = np.split(fit.coef, [fixed, free, free + len(used)])
        added = np.zeros(len(ridge))
        added[used] = more - less
        terms = free - 1 + min(len(used), 2)
        score = len(total) * np.log(fit.error + NEGLIGIBLE) + 2 * terms * np.log(2)
        tried.append((score, factors, added, float(of_root.sum())))
    _, factors, added, root = min(tried, key=lambda one: one[0])
    times = evidence.times
    if len(factors) == 2 and factors.all():
        times = np.where(integers, times * (factors[1] / factors[0]), times)
    if added[1:].any():
        corrected = times + evidence.kernels @ (added[1] + added[2:]) / max(float(factors[0]), 1e-12)
        times = np.maximum(corrected, _LEAST_LEFT * times)
    bend = root / np.sqrt(factors[0]) if factors[0] else 0.0
    return replace(evidence, times=times, offset_ms=float(added[0]), bend=float(bend))


def without_drift(parts: Sequence[Part], evidence: Evidence) -> Evidence:
    """The evidence with the kernels of each subnet scaled to add up to its latency, where that makes them plainer.

    A device may drift between one subnet's kernel times and the next one's; latency is measured more surely.
    """
    factor = evidence.sum_ms / evidence.times.sum(axis=1)
    scaled = evidence.times * (factor / np.exp(np.mean(np.log(factor))))[:, None]
    steady = replace(evidence, times=scaled)
    error, without = (weighted_error(parts, one) for one in (evidence, steady))
    return steady if pays(without, error, n=len(scaled)) else evidence


def _calibrate(predicted: FloatArray, evidence: Evidence) -> tuple[float, FloatArray]:
    """Offset in ms and ms per µs of each part, from predicted kernel times of shape (n, U).

    All parts alike, unless it predicts better that the larger a part is, the more its time counts: it empties the
    caches, and all that runs after it pays for that.
    """
    share = predicted.mean(axis=0) / predicted.sum(axis=1).mean()
    rows = np.ones((1, len(share)))
    fit = _line(predicted @ rows.T, evidence)
    crowding = np.stack([rows[0], share])
    other = _line(predicted @ crowding.T, evidence)
    if pays(other.error, fit.error, n=len(predicted)):
        rows, fit = crowding, other
    return float(fit.coef[0]) + evidence.offset_ms, fit.coef[1:] @ rows


def _of_integers(parts: Sequence[Part]) -> NDArray[np.bool_]:
    """Which parts are the times of units with fewer bits than they could have, shape (U,), where that matters."""
    top: dict[int, int] = {}
    for column, _, highest in (part.mode[0] for part in parts if part.mode):
        top[column] = max(highest, top.get(column, 0))
    return np.array([bool(part.mode) and part.mode[0][1] < top[part.mode[0][0]] for part in parts])


def _line(predicted: FloatArray, evidence: Evidence) -> Fit:
    wanted, latency_ms = evidence.sum_ms, evidence.latency_ms
    matrix = np.concatenate([np.ones((len(predicted), 1)), predicted], axis=1)
    fit = fit_relative(matrix, wanted, alpha=1e-6, scale=latency_ms)
    for _ in range(3):
        weights = huber_weights(fit.loo, floor=_OUTLIER)
        fit = fit_relative(matrix, wanted, alpha=1e-6, weights=weights, scale=latency_ms)
    return fit
