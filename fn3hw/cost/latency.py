"""Latency of a subnet: the sum of its parts, calibrated to what was measured end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fn3hw.cost.basis import NEGLIGIBLE, FloatArray
from fn3hw.cost.parts import Part, fit_part, weighted_error
from fn3hw.cost.solve import Fit, fit_relative, huber_weights
from fn3hw.cost.state import States

_OUTLIER = 0.005
_OVERHEAD_PAYS = 0.9
_SCALING_PAYS = 0.9
_APART_PAYS = 0.9
_LEAST_LEFT = 0.2
"""No more than the rest of a kernel's time can be overhead."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What latency is fitted on.

    Args:
        states: n measured subnets.
        times: kernel time of each part, shape (n, U), in µs.
        kernels: how many kernels that was, shape (n, U).
        latency_ms: end to end, shape (n,).
        offset_ms: what latency is less than kernel times let expect, however many kernels there are; see
            `without_overhead`.
    """

    states: States
    times: FloatArray
    kernels: FloatArray
    latency_ms: FloatArray
    offset_ms: float = 0.0

    def take(self, rows: NDArray[np.intp]) -> Evidence:
        """Some of the subnets."""
        states, latency_ms = self.states.take(rows), self.latency_ms[rows]
        return Evidence(states, self.times[rows], self.kernels[rows], latency_ms, self.offset_ms)


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of a subnet: an offset and the sum of its parts.

    Args:
        parts: each predicts ms.
        offset_ms: what no part explains.
        ms_per_us: end-to-end ms per µs of kernel time, of each part; empty where parts were not fitted on kernels.
    """

    parts: tuple[Part, ...]
    offset_ms: float
    ms_per_us: tuple[float, ...] = ()

    def part_ms(self, states: States) -> FloatArray:
        """Time of each part in ms, shape (n, U)."""
        return np.stack([part.predict(states) for part in self.parts], axis=1)

    def predict(self, states: States) -> FloatArray:
        """Latency in ms, shape (n,)."""
        total = np.full(len(states), self.offset_ms)
        for part in self.parts:
            total += part.predict(states)
        return total


def predict_each(fits: Sequence[Latency], states: States) -> FloatArray:
    """What each of several fits of the same parts predicts: ms, shape (fits, n)."""
    total = np.repeat(np.array([fit.offset_ms for fit in fits])[:, None], len(states), axis=1)
    for alike in zip(*(fit.parts for fit in fits), strict=True):
        total += np.stack([part.coef for part in alike]) @ alike[0].matrix(states).T
    return total


def fit_latency(parts: Sequence[Part], evidence: Evidence) -> Latency:
    """Fit parts whose rules are known on kernel times, and their sum on latency."""
    states, latency_ms = evidence.states, evidence.latency_ms
    fitted = [fit_part(part, states, evidence.times[:, k], latency_ms) for k, part in enumerate(parts)]
    predicted = np.stack([part.predict(states) for part in fitted], axis=1)
    offset_ms, ms_per_us = _calibrate(parts, predicted, evidence)
    scaled = (replace(part, coef=part.coef * scale) for part, scale in zip(fitted, ms_per_us, strict=True))
    return Latency(tuple(scaled), offset_ms, tuple(ms_per_us.tolist()))


def without_overhead(evidence: Evidence) -> Evidence:
    """The evidence less what timing adds to kernels, where that brings their sum nearer to latency.

    A profiler's own work is a constant per kernel; or latency differs from the sum by a constant of its own. It matters
    where kernels take few microseconds: a subnet of many small kernels seems slower than it is. It is told from the
    sums of kernels as measured, which no model of kernels is between.
    """
    total, number, latency_ms = evidence.times.sum(axis=1), evidence.kernels.sum(axis=1), evidence.latency_ms
    one = np.ones_like(total)
    plain, constant, each = (
        fit_relative(np.stack([total, *extra], axis=1), latency_ms, alpha=1e-6)
        for extra in ((), (one, -one), (number, -number))
    )
    if min(constant.error, each.error) > _OVERHEAD_PAYS * plain.error:
        return evidence
    if constant.error <= each.error:
        return replace(evidence, offset_ms=float(constant.coef[1] - constant.coef[2]))
    per_kernel_us = (each.coef[2] - each.coef[1]) / each.coef[0]
    corrected = evidence.times - per_kernel_us * evidence.kernels
    return replace(evidence, times=np.maximum(corrected, _LEAST_LEFT * evidence.times))


def without_drift(parts: Sequence[Part], evidence: Evidence) -> Evidence:
    """The evidence with the kernels of each subnet scaled to add up to its latency, where that makes them plainer.

    A device may drift between one subnet's kernel times and the next one's; latency is measured more surely.
    """
    factor = (evidence.latency_ms - evidence.offset_ms) / evidence.times.sum(axis=1)
    scaled = evidence.times * (factor / np.exp(np.mean(np.log(factor))))[:, None]
    error, without = (
        weighted_error(parts, evidence.states, times, evidence.latency_ms) for times in (evidence.times, scaled)
    )
    return replace(evidence, times=scaled) if without <= _SCALING_PAYS * error else evidence


def _calibrate(parts: Sequence[Part], predicted: FloatArray, evidence: Evidence) -> tuple[float, FloatArray]:
    """Offset in ms and ms per µs of each part, from predicted kernel times of shape (n, U).

    All kernels alike, unless something else predicts better. Kernels of full precision and of integers may count by
    themselves: what a profiler adds to a kernel, and what a kernel costs its successors, is another share of fast
    kernels than of slow. And the larger a part is, the more its time may count: it empties the caches, and all that
    runs after it pays for that.
    """
    top: dict[int, int] = {}
    for column, _, highest in (part.mode[0] for part in parts if part.mode):
        top[column] = max(highest, top.get(column, 0))
    full = np.array([bool(part.mode) and part.mode[0][1] == top[part.mode[0][0]] for part in parts])
    share = predicted.mean(axis=0) / predicted.sum(axis=1).mean()
    together, apart = np.ones((1, len(parts))), np.stack([~full, full]).astype(np.float64)
    rows = together
    fit = _line(predicted @ rows.T, evidence)
    if full.any() and not full.all():
        other = _line(predicted @ apart.T, evidence)
        if other.error <= _APART_PAYS * fit.error:
            rows, fit = apart, other
    crowding = np.concatenate([rows, share[None]])
    other = _line(predicted @ crowding.T, evidence)
    if len(evidence.latency_ms) * np.log((fit.error + NEGLIGIBLE) / (other.error + NEGLIGIBLE)) > 2 * np.log(2):
        rows, fit = crowding, other
    return float(fit.coef[0]) + evidence.offset_ms, fit.coef[1:] @ rows


def _line(predicted: FloatArray, evidence: Evidence) -> Fit:
    latency_ms = evidence.latency_ms
    matrix = np.concatenate([np.ones((len(predicted), 1)), predicted], axis=1)
    fit = fit_relative(matrix, latency_ms - evidence.offset_ms, alpha=1e-6, scale=latency_ms)
    for _ in range(3):
        weights = huber_weights(fit.loo, floor=_OUTLIER)
        fit = fit_relative(matrix, latency_ms - evidence.offset_ms, alpha=1e-6, weights=weights, scale=latency_ms)
    return fit
