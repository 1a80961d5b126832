"""A fitted cost model, which answers for any subnet; `fn3hw.cost.fitting` makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fn3hw.cost.audit import Audit, audit
from fn3hw.cost.basis import FloatArray, Rule
from fn3hw.cost.evidence import Evidence, bent
from fn3hw.cost.intervals import jackknife, jackknife_plus, without_noise
from fn3hw.cost.latency import Latency, predict_each
from fn3hw.cost.memory import PeakMemory, Size
from fn3hw.cost.metrics import Metrics
from fn3hw.cost.ports import MeasuredProfile
from fn3hw.cost.state import Encoder, States
from fn3hw.cost.tables import Tables
from fn3hw.errors import UnknownName
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace, Subnet

COLUMNS = ("latency_ms", "latency_ms_low", "latency_ms_high", "peak_mib", "size_mib")
RELATIVE = ("relative", "relative_low", "relative_high")

_DROP = 1e-9
Fitter = Callable[[Evidence], Latency]


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
class Refits:
    """Fits without each of the measured subnets, under the rules found from all.

    Args:
        fits: n of them.
        residuals: measured / predicted - 1 of the subnet that each has not seen, shape (n,).
        noise: standard error of what was measured, relative, shape (n,).
    """

    fits: tuple[Latency, ...]
    residuals: FloatArray
    noise: FloatArray

    @classmethod
    def of(cls, fitter: Fitter, evidence: Evidence) -> Refits:
        """Fit without each subnet."""
        rows = np.arange(len(evidence.latency_ms))
        fits = tuple(fitter(evidence.take(rows[rows != i])) for i in rows)
        left_out = [fit.predict(evidence.states.take(rows[i : i + 1]))[0] for i, fit in enumerate(fits)]
        return cls(fits, evidence.latency_ms / np.array(left_out) - 1.0, evidence.noise)

    def interval(self, latency_ms: FloatArray, states: States, level: float) -> tuple[FloatArray, FloatArray]:
        """Ends of the intervals of predictions of shape (m,), never beyond the prediction itself."""
        unknown = without_noise(self.residuals, self.noise)
        low, high = jackknife_plus(predict_each(self.fits, states), unknown, level=level)
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
    _refits: Refits
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

    def on_ladders(self, ladders: Sequence[NDArray[np.int64]]) -> Callable[[NDArray[np.int64]], FloatArray] | None:
        """`costs` of states on ladders, looked up; None where that would take too large tables.

        Args:
            ladders: counts of each gate, G arrays.

        Returns:
            From numbers of rungs, shape (n, G), to latency_ms, peak_mib and size_mib, shape (n, 3).
        """
        pieces = [*self._latency.pieces(self._encoder), *self._peak.pieces(self._encoder)]
        tables = Tables.of(pieces, self._encoder, ladders)
        if tables is None:
            return None
        constants = np.array([self._latency.offset_ms, self._peak.constant_mib, self._size.constant_mib])

        def costs(rungs: NDArray[np.int64]) -> FloatArray:
            sums: FloatArray = tables.sums(rungs) + constants
            sums[:, 0] = bent(sums[:, 0], self._latency.bend)
            return sums

        return costs

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
