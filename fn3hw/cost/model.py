"""`fit_cost`: from a profile to a cost model that answers for any subnet."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fn3hw.cost.audit import Audit, audit
from fn3hw.cost.basis import FloatArray, Rule
from fn3hw.cost.context import conditions
from fn3hw.cost.endtoend import find_rule, fit_end_to_end, gate_parts
from fn3hw.cost.evidence import Evidence, read_evidence, require_enough, unit_table
from fn3hw.cost.intervals import jackknife, jackknife_plus
from fn3hw.cost.latency import Latency, fit_latency, predict_each, prepared
from fn3hw.cost.memory import PeakMemory, Size
from fn3hw.cost.metrics import Metrics, score
from fn3hw.cost.parts import Mode, Part, weighted_error
from fn3hw.cost.ports import MeasuredProfile
from fn3hw.cost.precision import Partition, partitions, parts_of
from fn3hw.cost.rules import choose_rules
from fn3hw.cost.state import Encoder, States
from fn3hw.cost.units import Unit, UnitTable
from fn3hw.errors import UnknownName
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace, Subnet

COLUMNS = ("latency_ms", "latency_ms_low", "latency_ms_high", "peak_mib", "size_mib")
RELATIVE = ("relative", "relative_low", "relative_high")

_DROP = 1e-9
_ALONE_PAYS = 4.0
"""Fitted on few subnets, a device of its own has to look better than another one does by this share of a subnet."""
_Fitter = Callable[[Evidence], Latency]


@dataclass(frozen=True, slots=True)
class Rules:
    """What was found about a device.

    Args:
        shared: the rule that most units follow.
        own: units that follow rules of their own, one rule per width.
        by: ``"kernels"``, or ``"end to end"`` where the profile has no kernel times.
        precisions: what bits buy, where the network has bit gates.
        borders: whether it costs time that an aligned unit follows one that is not.
    """

    shared: Rule
    own: dict[str, tuple[Rule, ...]]
    by: str
    precisions: str = ""
    borders: bool = False

    def __str__(self) -> str:
        lines = [f"{self.shared} (from {self.by} times)", *([self.precisions] if self.precisions else [])]
        lines += ["an aligned width after one that is not costs extra"] if self.borders else []
        lines += [f"  {unit}: {'; '.join(str(rule) for rule in rules)}" for unit, rules in self.own.items()]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Refits:
    """Fits without each of the measured subnets, under the rules found from all.

    Args:
        fits: n of them.
        residuals: measured / predicted - 1 of the subnet that each has not seen, shape (n,).
    """

    fits: tuple[Latency, ...]
    residuals: FloatArray

    @classmethod
    def of(cls, fitter: _Fitter, evidence: Evidence) -> _Refits:
        """Fit without each subnet."""
        rows = np.arange(len(evidence.latency_ms))
        fits = tuple(fitter(evidence.take(rows[rows != i])) for i in rows)
        left_out = [fit.predict(evidence.states.take(rows[i : i + 1]))[0] for i, fit in enumerate(fits)]
        return cls(fits, evidence.latency_ms / np.array(left_out) - 1.0)

    def interval(self, latency_ms: FloatArray, states: States, level: float) -> tuple[FloatArray, FloatArray]:
        """Ends of the intervals of predictions of shape (m,), never beyond the prediction itself."""
        low, high = jackknife_plus(predict_each(self.fits, states), self.residuals, level=level)
        return np.minimum(low, latency_ms), np.maximum(high, latency_ms)


@dataclass(frozen=True)
class CostModel:
    """Subnet to latency, peak memory and file size on one device. Made by `fit_cost`.

    Args:
        profile: what it was fitted on.
        space: the search space of the network that was profiled.
        rules: what was found about the device.
        holdout: accuracy on subnets that were not fitted on.
        noise: ``repeat_mape``, how well the measurements themselves repeat, as a fraction.
        level: coverage that the latency intervals aim at.
    """

    profile: MeasuredProfile
    space: SearchSpace
    rules: Rules
    holdout: Metrics
    noise: dict[str, float]
    level: float
    _encoder: Encoder
    _latency: Latency
    _evidence: Evidence
    _refits: _Refits
    _size: Size
    _peak: PeakMemory

    def predict(self, subnets: Iterable[Subnet]) -> pd.DataFrame:
        """Costs of subnets.

        A subnet whose kept blocks are not the first ones costs what its counts cost; of a layer gate it matters which
        branches are kept.

        Returns:
            A row per subnet, with its id as index: latency_ms with the ends of its interval, peak_mib (NaN where the
            profile measured no memory) and size_mib. An emulated device has no latency: there, the values of latency_ms
            are relative to the full network's.

        Raises:
            InputError: a subnet is of another search space.
        """
        subnets = list(subnets)
        states = self._encoder.encode(subnets)
        latency_ms = self._latency.predict(states)
        values = (
            latency_ms,
            *self._refits.interval(latency_ms, states, self.level),
            self._peak.predict(states),
            self._size.predict(states),
        )
        index = pd.Index([subnet.id for subnet in subnets], name="subnet", dtype=object)
        return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)), index=index)

    def costs(self, counts: NDArray[np.int64]) -> FloatArray:
        """Costs of ordered subnets without intervals, as fast as a search wants them.

        Args:
            counts: first blocks that each gate keeps, in the order of the space, shape (n, G).

        Returns:
            latency_ms, peak_mib and size_mib, shape (n, 3); as `predict` gives them.
        """
        states = self._encoder.ordered(counts)
        each = (self._latency.predict(states), self._peak.predict(states), self._size.predict(states))
        return np.stack(each, axis=1)

    def disagreement(self, subnets: Iterable[Subnet]) -> FloatArray:
        """How the fits that each left out one measured subnet predict others: shape (measured, subnets).

        Relative to their mean: the root of the mean square of a column is how unsure the model is about that subnet.

        Raises:
            InputError: a subnet is of another search space.
        """
        states = self._encoder.encode(list(subnets))
        predicted = predict_each(self._refits.fits, states)
        return np.asarray(predicted / predicted.mean(axis=0) - 1.0)

    def relative(self, subnets: Iterable[Subnet], *, level: float = 0.9) -> pd.DataFrame:
        """Latency of subnets relative to the full network's.

        How two subnets compare is surer than how long either takes: what is wrong with both predictions cancels. So the
        interval is that of the ratio itself, as fits on all but one of the measured subnets differ in it.

        Returns:
            A row per subnet, with its id as index: relative, relative_low and relative_high.

        Raises:
            InputError: a subnet is of another search space.
        """
        subnets = list(subnets)
        states = self._encoder.encode([self.space.full(), *subnets])
        total, *left_out = predict_each((self._latency, *self._refits.fits), states)
        ratio, refitted = total[1:] / total[0], np.stack([one[1:] / one[0] for one in left_out])
        low, high = jackknife(ratio, refitted, level=level)
        index = pd.Index([subnet.id for subnet in subnets], name="subnet", dtype=object)
        return pd.DataFrame(dict(zip(RELATIVE, (ratio, low, high), strict=True)), index=index)

    def steps(self, gate: str) -> list[int]:
        """Counts worth keeping: the largest count of each latency that the gate can have, all other gates whole.

        Descending; the gate's size and the fewest blocks that it keeps are always among them.

        Raises:
            UnknownName: no gate of the space is called that.
        """
        one = self._gate(gate)
        counts = np.arange(one.size, one.min_kept - 1, -1)
        latency_ms = self._latency.predict(
            self._encoder.encode([self.space.from_counts({gate: int(c)}) for c in counts])
        )
        before = np.minimum.accumulate(np.concatenate(([np.inf], latency_ms[:-1])))
        drops = latency_ms < before * (1 - _DROP)
        drops[[0, -1]] = True
        return [int(c) for c in counts[drops]]

    def curve(self, gate: str, subnet: Subnet | None = None) -> pd.Series:
        """Latency in ms at every count of a gate, the other gates as in ``subnet``, by default whole.

        Raises:
            UnknownName: no gate of the space is called that.
        """
        one = self._gate(gate)
        base = (subnet or self.space.full()).counts
        counts = range(one.min_kept, one.size + 1)
        states = self._encoder.encode([self.space.from_counts({**base, gate: c}) for c in counts])
        return pd.Series(self._latency.predict(states), index=pd.Index(counts, name=gate), name="latency_ms")

    def attribution(self, subnet: Subnet) -> dict[str, float]:
        """Where the time goes: ms per gate, and under ``"fixed"`` what no gate decides; the sum is the latency.

        A unit of several widths is shared among them equally; one that only branches decide is theirs.

        Raises:
            InputError: the subnet is of another search space.
        """
        states = self._encoder.encode([subnet])
        times = dict.fromkeys(self._encoder.names, 0.0)
        part_ms = self._latency.part_ms(states)[0]
        times["fixed"] = float(self._latency.predict(states)[0] - part_ms.sum())
        for part, ms in zip(self._latency.parts, part_ms, strict=True):
            owners = part.unit.widths or tuple(dict.fromkeys(gate for gate, _ in part.unit.branches)) or ("fixed",)
            for owner in owners:
                times[owner] += float(ms) / len(owners)
        return times

    @cached_property
    def audit(self) -> Audit:
        """Where the sum of parts is wrong, and by how much."""
        return audit(self._latency, self._evidence, self._refits.residuals, self._encoder)

    def _gate(self, name: str) -> Gate:
        if name not in self.space:
            raise UnknownName("gate", name, self._encoder.names)
        return self.space[name]


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
    refits = _Refits.of(fitter, evidence)
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


def _kernel_fitter(table: UnitTable, evidence: Evidence, origins: _Origins) -> tuple[Rules, Evidence, _Fitter]:
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


def _end_to_end_fitter(table: UnitTable, evidence: Evidence) -> tuple[Rules, Evidence, _Fitter]:
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
    profile: MeasuredProfile, table: UnitTable, latency: Latency, evidence: Evidence, refits: _Refits, level: float
) -> Metrics:
    if not profile.held_out:
        return score(evidence.latency_ms, evidence.latency_ms / (1.0 + refits.residuals), source="leave-one-out")
    unseen = read_evidence(profile, profile.held_out, table)
    predicted = latency.predict(unseen.states)
    return score(unseen.latency_ms, predicted, interval=refits.interval(predicted, unseen.states, level))
