"""How a cost model is found: which rules the units follow, by which precisions they are told apart, and their fit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace

import numpy as np

from fn3hw.cost.basis import FloatArray, Rule
from fn3hw.cost.context import conditions
from fn3hw.cost.endtoend import find_rule, fit_end_to_end, gate_parts
from fn3hw.cost.evidence import Evidence, read_evidence, require_enough, unit_table
from fn3hw.cost.latency import Latency, fit_latency, prepared
from fn3hw.cost.memory import PeakMemory, Size
from fn3hw.cost.metrics import Metrics, score
from fn3hw.cost.model import CostModel, Fitter, Refits, Rules
from fn3hw.cost.parts import Mode, Part, weighted_error
from fn3hw.cost.ports import MeasuredProfile
from fn3hw.cost.precision import Partition, partitions, parts_of
from fn3hw.cost.rules import choose_rules
from fn3hw.cost.units import Unit, UnitTable

_ALONE_PAYS = 4.0
"""Fitted on few subnets, a device of its own has to look better than another one does by this share of a subnet."""


def fit_cost(profile: MeasuredProfile, *, level: float = 0.9) -> CostModel:
    """Fit a cost model on a profile.

    Where the profile started from another device's, each unit starts from its time there (transfer): few measurements
    only have to say what is different here.

    Args:
        profile: what was measured; `fn3hw.profiler.Profile` is one.
        level: coverage that the latency intervals aim at.

    Raises:
        ProfileError: the profile has too few measurements, they are of another network, or a value is no number.
    """
    table = unit_table(profile)
    require_enough(profile.fitted)
    evidence = read_evidence(profile, profile.fitted, table)
    if evidence.times.size:
        rules, evidence, fitter = _kernel_fitter(table, evidence, _origins(profile))
    else:
        rules, evidence, fitter = _end_to_end_fitter(table, evidence)
    latency = fitter(evidence)
    refits = Refits.of(fitter, evidence)
    size = Size(profile.network.parameters, table.encoder).fit(
        evidence.states, np.array([m.size_bytes for m in profile.fitted], dtype=np.float64)
    )
    largest = np.array([gate.size for gate in profile.space], dtype=np.float64)
    peak = PeakMemory(size, largest).fit(
        evidence.states, np.array([m.peak_mib for m in profile.fitted], dtype=np.float64)
    )
    return CostModel(
        profile=profile,
        space=table.encoder.space,
        rules=rules,
        holdout=_holdout(profile, table, latency, evidence, refits, level),
        noise={"repeat_mape": float(profile.noise.repeat_mape)},
        level=level,
        _encoder=table.encoder,
        _latency=latency,
        _evidence=evidence,
        _refits=refits,
        _size=size,
        _peak=peak,
    )


_Origins = dict[Unit, dict[Mode, Part]]
"""Parts of another device's cost model, by unit and precision."""


def _origins(profile: MeasuredProfile) -> _Origins:
    """The parts of the cost model that the profile started from, by unit and precision."""
    found: _Origins = {}
    if profile.origin is not None:
        for part in fit_cost(profile.origin)._latency.parts:
            found.setdefault(part.unit, {})[part.mode] = part
    return found


def _from_origin(part: Part, origins: _Origins) -> Part:
    """The part with where it starts from: its own precision on the other device, or else any."""
    known = origins.get(part.unit)
    if not known:
        return part
    return replace(part, origin=replace(known.get(part.mode) or next(iter(known.values())), mode=()))


def _kernel_fitter(table: UnitTable, evidence: Evidence, origins: _Origins) -> tuple[Rules, Evidence, Fitter]:
    options = partitions(table.encoder.space)
    starts: list[_Origins] = [{}, origins] if origins else [{}]
    attempts = [(number, start) for number in range(len(options)) for start in starts]
    tried = [_choose(table, evidence, options[number], start) for number, start in attempts]
    alone = _ALONE_PAYS if origins else 0.0
    earn = [np.log(len(options)) * number + (0.0 if start else alone) for number, start in attempts]
    errors = np.array([weighted_error(parts, of_parts) for _, parts, of_parts in tried])
    best = int(np.argmin(errors * (1.0 + np.array(earn) / len(evidence.latency_ms))))
    shared, parts, evidence = tried[best]
    evidence = prepared(parts, evidence)
    rules = replace(
        _rules(shared, parts, "kernel"), precisions=options[attempts[best][0]].says if len(options) > 1 else ""
    )
    return rules, evidence, lambda some: fit_latency(parts, some)


def _choose(
    table: UnitTable, evidence: Evidence, partition: Partition, origins: _Origins
) -> tuple[Rule, list[Part], Evidence]:
    """The rule that most parts share, the parts of all units under a partition, and the evidence per part."""
    used = np.flatnonzero(evidence.times.sum(axis=0) > 0)
    pairs = [
        (int(k), _from_origin(part, origins))
        for k in used
        for part in parts_of(table, int(k), partition, evidence.states)
    ]
    there = np.stack([part.present(evidence.states) for _, part in pairs], axis=1)
    columns = [k for k, _ in pairs]
    kernels = evidence.kernels[:, columns] * there[:, :, None]
    of_parts = replace(evidence, times=evidence.times[:, columns] * there, kernels=kernels)
    kinds: dict[tuple[int, ...], list[int]] = {}
    for index, (_, part) in enumerate(pairs):
        pairs[index] = pairs[index][0], replace(part, kin=_kin(part, of_parts.kernels[there[:, index], index]))
        kinds.setdefault(part.mode[0][1:] if part.mode else (), []).append(index)
    asked = conditions(table.encoder)
    chosen: dict[int, Part] = {}
    shared: dict[float, Rule] = {}
    for members in kinds.values():
        # Other precisions are other kernels: what parts share, they share with those of their precision.
        seen = of_parts.of(members)
        rule, parts = choose_rules([pairs[index][1] for index in members], seen, asked)
        chosen |= dict(zip(members, parts, strict=True))
        shared[float(seen.times.sum())] = rule
    return shared[max(shared)], [chosen[index] for index in range(len(pairs))], of_parts


def _kin(part: Part, kernels: FloatArray) -> Hashable:
    """Names the parts that run the same kernels for as many widths.

    Args:
        part: one of them.
        kernels: that it ran in the subnets that have it, by operator, shape (n, O).
    """
    if not part.columns or part.origin is not None or not len(kernels):
        return None
    return part.mode[0][1:] if part.mode else (), len(part.columns), tuple(np.median(kernels, axis=0).round().tolist())


def _end_to_end_fitter(table: UnitTable, evidence: Evidence) -> tuple[Rules, Evidence, Fitter]:
    options = partitions(table.encoder.space)
    states, latency_ms = evidence.states, evidence.latency_ms
    tried = [find_rule(gate_parts(table, option, states), states, latency_ms) for option in options]
    earn = np.log(len(options)) * np.arange(len(options)) / len(latency_ms)
    best = int(np.argmin(np.array([error for _, _, error in tried]) * (1.0 + earn)))
    shared, parts, _ = tried[best]

    def fitter(some: Evidence) -> Latency:
        return fit_end_to_end(parts, some.states, some.latency_ms)

    says = options[best].says if len(options) > 1 else ""
    return replace(_rules(shared, parts, "end-to-end"), precisions=says), evidence, fitter


def _rules(shared: Rule, parts: Iterable[Part], by: str) -> Rules:
    parts = list(parts)
    own = {part.unit.name: part.rules for part in parts if any(rule != shared for rule in part.rules)}
    return Rules(shared, own, by, borders=any(part.bordered for part in parts))


def _holdout(
    profile: MeasuredProfile, table: UnitTable, latency: Latency, evidence: Evidence, refits: Refits, level: float
) -> Metrics:
    if not profile.held_out:
        return score(evidence.latency_ms, evidence.latency_ms / (1.0 + refits.residuals), source="leave-one-out")
    unseen = read_evidence(profile, profile.held_out, table)
    predicted = latency.predict(unseen.states)
    return score(unseen.latency_ms, predicted, interval=refits.interval(predicted, unseen.states, level))
