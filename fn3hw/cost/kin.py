"""Kin: parts that run the same kernels on data of other sizes, so that each tells what to expect of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fn3hw.cost.basis import FloatArray
from fn3hw.cost.evidence import Evidence
from fn3hw.cost.parts import ALPHA, Part
from fn3hw.cost.solve import fit_relative

_PASSES = 4
_LEAST_VARIED = 0.05
"""Share of a part's mean time that its counts decide, at least: where its measurements show no more, it has been seen
at too few counts, and the common function would be that of its noise there."""


def with_priors(parts: Sequence[Part], evidence: Evidence) -> list[Part]:
    """The parts, those of a kin with what their kin lets expect of each of them.

    The time of each is a constant of its own and a factor of its own times one function of its counts, which all of
    them tell together.

    Args:
        parts: with their rules, which are the same for all of one kin.
        evidence: of these parts.
    """
    found = list(parts)
    for kin in dict.fromkeys(part.kin for part in parts if part.kin is not None):
        members = [k for k, one in enumerate(parts) if one.kin == kin and one.present(evidence.states).any()]
        for k, prior in zip(members, _priors([parts[k] for k in members], evidence.of(members)), strict=True):
            found[k] = replace(parts[k], prior=prior)
    return found


def _priors(kin: Sequence[Part], evidence: Evidence) -> Sequence[FloatArray]:
    """Coefficients of each part of a kin: its constant and factor and their common function, in turn held fixed."""
    if not kin:
        return ()
    rows = [np.flatnonzero(part.present(evidence.states)) for part in kin]
    terms = [part.terms(evidence.states.take(own))[:, 1:] for part, own in zip(kin, rows, strict=True)]
    times = [evidence.times[own, k] for k, own in enumerate(rows)]
    scales = [evidence.latency_ms[own] for own in rows]
    lines = np.array([[0.0, max(float(one.mean()), 1e-12)] for one in times])
    for _ in range(_PASSES):
        stacked = np.concatenate([factor * own for (_, factor), own in zip(lines, terms, strict=True)])
        wanted = np.concatenate([own - constant for (constant, _), own in zip(lines, times, strict=True)])
        common = fit_relative(stacked, wanted, alpha=ALPHA, scale=np.concatenate(scales)).coef
        lines = np.array([_line(of @ common, *own) for of, *own in zip(terms, times, scales, strict=True)])
    return [np.concatenate([[constant], factor * common]) for constant, factor in lines]


def _line(function: FloatArray, times: FloatArray, scale: FloatArray) -> FloatArray:
    """Constant and factor of a part whose common function is known where it was measured, all of shape (n,)."""
    fit = fit_relative(np.column_stack([np.ones(len(times)), function]), times, alpha=ALPHA, scale=scale)
    constant, factor = fit.coef
    least = _LEAST_VARIED * float(times.mean()) / max(float(function.mean()), 1e-12)
    return np.array([constant, max(float(factor), least)])
