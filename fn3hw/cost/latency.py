"""Latency of a subnet: the sum of its parts, calibrated to what was measured end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fn3hw.cost.basis import FloatArray
from fn3hw.cost.parts import Part, fit_part
from fn3hw.cost.solve import Fit, fit_relative, huber_weights
from fn3hw.cost.state import States

_DRIFT_ROUNDS = 2
_OUTLIER = 0.005
_OVERHEAD_PAYS = 0.9
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
        speed: what all kernels of a subnet took longer by while they were timed, shape (n,); None where it is not
            known yet.
    """

    states: States
    times: FloatArray
    kernels: FloatArray
    latency_ms: FloatArray
    speed: FloatArray | None = None

    def take(self, rows: NDArray[np.intp]) -> Evidence:
        """Some of the subnets."""
        speed = None if self.speed is None else self.speed[rows]
        return Evidence(self.states.take(rows), self.times[rows], self.kernels[rows], self.latency_ms[rows], speed)


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
    if evidence.speed is None:
        evidence = with_speed(parts, evidence)
    fitted, predicted = _fit_parts(parts, evidence)
    offset_ms, ms_per_us = _calibrate(parts, predicted, evidence.latency_ms)
    scaled = (replace(part, coef=part.coef * scale) for part, scale in zip(fitted, ms_per_us, strict=True))
    return Latency(tuple(scaled), offset_ms, tuple(ms_per_us.tolist()))


def with_speed(parts: Sequence[Part], evidence: Evidence) -> Evidence:
    """The evidence with the speed of each subnet's kernels found.

    A device drifts between one subnet's kernel profile and the next. What is common to all kernels of one subnet is
    taken out, so that only the proportions of its kernels count.
    """
    present = np.stack([part.present(evidence.states) for part in parts], axis=1)
    found = replace(evidence, speed=np.ones(len(evidence.times)))
    for _ in range(_DRIFT_ROUNDS):
        _, predicted = _fit_parts(parts, found)
        found = replace(found, speed=common_speed(evidence.times, predicted, present))
    return found


def _fit_parts(parts: Sequence[Part], evidence: Evidence) -> tuple[list[Part], FloatArray]:
    """The parts, fitted, and the kernel times that they predict, shape (n, U)."""
    assert evidence.speed is not None
    fitted = [fit_part(part, evidence.states, evidence.times[:, k] / evidence.speed) for k, part in enumerate(parts)]
    return fitted, np.stack([part.predict(evidence.states) for part in fitted], axis=1)


def without_overhead(evidence: Evidence, latency: Latency) -> Evidence:
    """The evidence less what timing adds to each kernel, where that brings the sum nearer to latency.

    A profiler's own work, and times cut to whole microseconds, are a constant per kernel. It matters where kernels take
    few microseconds: a subnet of many small kernels seems slower than it is.

    Args:
        evidence: n subnets.
        latency: as fitted on it.
    """
    total_ms = latency.predict(evidence.states) - latency.offset_ms
    number = evidence.kernels.sum(axis=1)
    plain = np.stack([np.ones_like(total_ms), total_ms], axis=1)
    signed = np.concatenate([plain, number[:, None], -number[:, None]], axis=1)
    without, fit = (fit_relative(m, evidence.latency_ms, alpha=1e-6) for m in (plain, signed))
    if fit.error > _OVERHEAD_PAYS * without.error or fit.coef[1] <= 0:
        return evidence
    per_kernel_us = (fit.coef[3] - fit.coef[2]) / fit.coef[1] / float(np.mean(latency.ms_per_us))
    corrected = evidence.times - per_kernel_us * evidence.kernels
    return replace(evidence, times=np.maximum(corrected, _LEAST_LEFT * evidence.times))


def common_speed(times: FloatArray, predicted: FloatArray, present: NDArray[np.bool_]) -> FloatArray:
    """Factor common to the kernels of each subnet, shape (n,): the median of measured over predicted, by time.

    Args:
        times: measured per part, shape (n, U).
        predicted: of the same.
        present: whether the subnet has the part.
    """
    factors = np.ones(len(times))
    for i in range(len(times)):
        known = present[i] & (predicted[i] > 0) & (times[i] > 0)
        if known.any():
            ratio, weight = times[i, known] / predicted[i, known], predicted[i, known]
            order = np.argsort(ratio)
            factors[i] = ratio[order[np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)]]
    return factors / float(np.exp(np.mean(np.log(factors))))


def _calibrate(parts: Sequence[Part], predicted: FloatArray, latency_ms: FloatArray) -> tuple[float, FloatArray]:
    """Offset in ms and ms per µs of each part, from predicted kernel times of shape (n, U) and latency (n,).

    All kernels alike, or kernels of full precision and of integers by themselves, where that predicts better: what a
    profiler adds to a kernel, and what a kernel costs its successors, is another share of fast kernels than of slow.
    """
    top: dict[int, int] = {}
    for column, _, highest in (part.mode[0] for part in parts if part.mode):
        top[column] = max(highest, top.get(column, 0))
    full = np.array([bool(part.mode) and part.mode[0][1] == top[part.mode[0][0]] for part in parts])
    total, of_full = predicted.sum(axis=1), predicted[:, full].sum(axis=1)
    together = _line(total[:, None], latency_ms)
    if np.ptp(of_full) > 0 and np.ptp(total - of_full) > 0:
        apart = _line(np.stack([total - of_full, of_full], axis=1), latency_ms)
        if apart.error <= _APART_PAYS * together.error:
            return float(apart.coef[0]), np.where(full, apart.coef[2], apart.coef[1])
    return float(together.coef[0]), np.full(len(parts), together.coef[1])


def _line(predicted: FloatArray, latency_ms: FloatArray) -> Fit:
    matrix = np.concatenate([np.ones((len(predicted), 1)), predicted], axis=1)
    fit = fit_relative(matrix, latency_ms, alpha=1e-6)
    for _ in range(3):
        fit = fit_relative(matrix, latency_ms, alpha=1e-6, weights=huber_weights(fit.loo, floor=_OUTLIER))
    return fit
