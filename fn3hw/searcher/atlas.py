"""The atlas: which subnet to use under which budget, from evaluated accuracies and a cost model.

A lookup compares budgets with the upper end of the predicted latency interval, with the peak memory and with the file
size, and returns the most accurate evaluated subnet that meets all of them. Its answer is always on the front, so the
front alone is what most readers want; the dominated points are kept for pictures and for later cost models.

Of an emulated device, what is called latency in this package is a cost relative to the full network's; documents give
it as ``relative_cost`` (`fn3hw.profiler.quantity`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import moocore
import numpy as np

from fn3hw.errors import InfeasibleBudget, InputError, RunError
from fn3hw.profiler import Quantity
from fn3hw.searcher.archive import Evaluation
from fn3hw.searcher.budget import UNITS, Budget
from fn3hw.searcher.ports import CostPredictor, FloatArray
from fn3hw.searcher.surrogate import expected_accuracy
from fn3hw.space.files import write_text
from fn3hw.space.subnet import SearchSpace, Subnet

if TYPE_CHECKING:
    from fn3hw.searcher.export import Exported, Exporter

SCHEMA: Final = "fn3hw.atlas/1"
_COLUMNS: Final = (
    "latency_ms",
    "latency_ms_low",
    "latency_ms_high",
    "peak_mib",
    "size_mib",
    "accuracy",
    "evaluated_accuracy",
)
_COSTS: Final = _COLUMNS[:5]
_NO_BUDGET: Final = Budget()
_RELATIVE: Final = {name: name.replace("latency_ms", "relative_cost") for name in _COLUMNS[:3]}
"""What documents call the cost on an emulated device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What an atlas was made from; an atlas made from other things is refused.

    Args:
        device: label of the device, which also names the file.
        network: digest of the supernet.
        profile: checksum of the profile that the cost model was fitted on.
        evaluator: key of the evaluator.
        quantity: what the cost is; all but latency is relative to the full network's.
    """

    device: str
    network: str
    profile: str
    evaluator: str
    quantity: Quantity = "latency"

    @property
    def emulated(self) -> bool:
        """Whether the device is emulated, so that it has no latency."""
        return self.quantity != "latency"

    @property
    def file_name(self) -> str:
        """``atlas-<device>.json``."""
        return f"atlas-{re.sub(r'[^A-Za-z0-9._-]+', '-', self.device).strip('-') or 'device'}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One evaluated subnet with its predicted cost on a device.

    Args:
        subnet: which blocks are kept.
        latency_ms: predicted; ``latency_ms_low`` and ``latency_ms_high`` are the ends of its interval.
        peak_mib: predicted peak memory.
        size_mib: file size.
        accuracy: top-1 in percent to expect on the split that the search chose on: what was evaluated there, freed of
            the luck of the chosen (`fn3hw.searcher.surrogate.expected_accuracy`).
        evaluated_accuracy: as it was evaluated.
        budget: what a lookup was asked for when it returned this point.
    """

    subnet: Subnet
    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float
    peak_mib: float
    size_mib: float
    accuracy: float
    evaluated_accuracy: float
    budget: Budget = field(default=_NO_BUDGET, compare=False)
    _atlas: Atlas | None = field(default=None, compare=False, repr=False)

    @property
    def quantity(self) -> Quantity:
        """What its cost is."""
        return self._atlas.provenance.quantity if self._atlas is not None else "latency"

    @property
    def counts(self) -> dict[str, int]:
        """Number of blocks kept per gate."""
        return self.subnet.counts

    @property
    def binding(self) -> str | None:
        """The limit of the budget that leaves this subnet the least room; ``None`` where there was no limit."""
        costs = dict.fromkeys(("latency_ms", "relative_cost"), self.latency_ms_high)
        return self.budget.binding({**costs, "peak_mib": self.peak_mib, "size_mib": self.size_mib})

    def to_json(self) -> dict[str, Any]:
        """The values as plain JSON, with the id of the subnet; a value that is not known is null."""
        values = {name: getattr(self, name) for name in _COLUMNS}
        if emulated := self.quantity != "latency":
            values |= {relative: values[name] for name, relative in _RELATIVE.items()} | dict.fromkeys(_RELATIVE)
        known = {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}
        return {"subnet": self.subnet.id, "emulated": emulated, **known}

    def export(self, path: Path | str, verify_on: str | None = "local", *, percentile: int = 50) -> Exported:
        """Write the ONNX file and measure it; see `fn3hw.searcher.export.Exporter.export`.

        Raises:
            RunError: the atlas was read from a file and knows no network to export from.
        """
        if self._atlas is None or self._atlas.exporter is None:
            raise RunError(
                "This point knows no trained network to export from.",
                hint="Read the atlas with Atlas.load(path, space, exporter=...), or use: fn3hw export RUN --profile F",
            )
        return self._atlas.exporter.export(self._atlas, self, path, verify_on=verify_on, percentile=percentile)


class Atlas:
    """The evaluated subnets of a run on one device.

    Args:
        points: all of them, on the front or not.
        provenance: what they were made from.
        exporter: writes and measures files for `Point.export`.
    """

    def __init__(self, points: Iterable[Point], provenance: Provenance, *, exporter: Exporter | None = None) -> None:
        self.provenance = provenance
        self.exporter = exporter
        every = [_owned(p, self) for p in points]
        every.sort(key=lambda p: (p.latency_ms, -p.accuracy, p.subnet.kept))
        if not every:
            raise RunError("No subnet was evaluated yet.", hint="Run: fn3hw search RUN --profile F")
        table = np.array([[getattr(p, name) for name in _COLUMNS] for p in every], dtype=np.float64)
        on_front = moocore.is_nondominated(_objectives(table))  # of equal rows the first one stays
        self.points: tuple[Point, ...] = tuple(p for p, is_on in zip(every, on_front, strict=True) if is_on)
        self.dominated: tuple[Point, ...] = tuple(p for p, is_on in zip(every, on_front, strict=True) if not is_on)
        self._table = table[on_front]
        self._limits = {
            "relative_cost" if provenance.emulated else "latency_ms": self._table[:, _COLUMNS.index("latency_ms_high")],
            "peak_mib": self._table[:, _COLUMNS.index("peak_mib")],
            "size_mib": self._table[:, _COLUMNS.index("size_mib")],
        }
        accuracy, latency = self._table[:, _COLUMNS.index("accuracy")], self._table[:, 0]
        self._by_merit = np.lexsort((latency, -accuracy))

    @classmethod
    def build(
        cls,
        evaluations: Sequence[Evaluation],
        cost: CostPredictor,
        provenance: Provenance,
        *,
        space: SearchSpace,
        exporter: Exporter | None = None,
    ) -> Atlas:
        """The atlas of an archive under a cost model: no accuracy is evaluated.

        Args:
            evaluations: of the archive.
            cost: of the device.
            provenance: what these are.
            space: the gates of the network.
            exporter: see `Atlas`.

        Raises:
            RunError: there is no evaluation.
        """
        if not evaluations:
            raise RunError("No subnet was evaluated yet.", hint="Run: fn3hw search RUN --profile F")
        subnets = [evaluation.subnet for evaluation in evaluations]
        costs = cost.predict(subnets)[list(_COSTS)].to_numpy(dtype=np.float64)
        evaluated = np.array([evaluation.accuracy for evaluation in evaluations])
        expected = expected_accuracy(_removed(subnets, space), evaluated, costs[:, 0])
        rows = np.column_stack([costs, expected, evaluated]).tolist()
        points = [
            Point(subnet=subnet, **dict(zip(_COLUMNS, row, strict=True)))
            for subnet, row in zip(subnets, rows, strict=True)
        ]
        return cls(points, provenance, exporter=exporter)

    def __len__(self) -> int:
        return len(self.points)

    def lookup(
        self,
        latency_ms: float | None = None,
        peak_mib: float | None = None,
        size_mib: float | None = None,
        *,
        relative_cost: float | None = None,
    ) -> Point:
        """The most accurate subnet that meets all budgets, the latency budget with the upper end of its interval.

        Args:
            latency_ms: budget in milliseconds.
            peak_mib: budget for the peak memory.
            size_mib: budget for the file.
            relative_cost: instead of ``latency_ms`` on an emulated device, relative to the full network.

        Raises:
            InputError: a budget is not a positive number, or its cost is not known for this device.
            InfeasibleBudget: no evaluated subnet meets it; names the limit that binds and what can be reached.
        """
        budget = Budget(latency_ms=latency_ms, relative_cost=relative_cost, peak_mib=peak_mib, size_mib=size_mib)
        met = {}
        for name, limit in budget.limits.items():
            if name not in self._limits:
                raise self._wrong_kind(name)
            if np.isnan(self._limits[name]).all():
                raise InputError(f"The cost model of {self.provenance.device} does not know {name}.")
            met[name] = self._limits[name] <= limit
        feasible = np.logical_and.reduce(list(met.values())) if met else np.ones(len(self.points), dtype=bool)
        ranked = self._by_merit[feasible[self._by_merit]]
        if not ranked.size:
            raise self._infeasible(budget, met)
        return replace(self.points[int(ranked[0])], budget=budget)

    def save(self, folder: Path | str) -> Path:
        """Write ``atlas-<device>.json`` into a folder and return its path."""
        path = Path(folder) / self.provenance.file_name
        document = {
            "schema": SCHEMA,
            **asdict(self.provenance),
            "emulated": self.provenance.emulated,
            "points": [point.to_json() for point in self.points],
            "dominated": [point.to_json() for point in self.dominated],
        }
        write_text(path, json.dumps(document, indent=1) + "\n")
        return path

    @classmethod
    def load(
        cls,
        path: Path | str,
        space: SearchSpace,
        *,
        expected: Provenance | None = None,
        exporter: Exporter | None = None,
    ) -> Atlas:
        """Read `save` back.

        Args:
            path: the file.
            space: the search space of the network.
            expected: what the atlas must have been made from.
            exporter: see `Atlas`.

        Raises:
            RunError: there is no such file, it is no atlas, or it was made from something else.
        """
        again = "Run again: fn3hw search RUN --profile F"
        try:
            document = json.loads(Path(path).read_text())
            if document["schema"] != SCHEMA:
                raise RunError(f"{path} has schema {document['schema']!r}; this version reads {SCHEMA!r}.", hint=again)
            provenance = Provenance(**{name: document[name] for name in Provenance.__slots__ if name in document})
            if expected is not None:
                _check_same(provenance, expected, path)
            points = [_point(entry, space) for entry in [*document["points"], *document["dominated"]]]
        except FileNotFoundError:
            raise RunError(f"There is no atlas at {path}.", hint="Run: fn3hw search RUN --profile F") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(f"{path} is no atlas of this network: {error}.", hint=again) from error
        return cls(points, provenance, exporter=exporter)

    def _wrong_kind(self, name: str) -> InputError:
        if name == "latency_ms":
            return InputError(
                f"{self.provenance.device} is emulated: its time in ms says nothing about that of a real device.",
                hint="Ask for a cost relative to the full network's, such as --relative-cost 0.5, or for a file size.",
            )
        return InputError(f"{self.provenance.device} has latencies in ms.", hint="Give --latency-ms.")

    def _infeasible(self, budget: Budget, met: Mapping[str, Any]) -> InfeasibleBudget:
        """The limit that is the nearest to being met among the subnets that meet all the others."""
        name, best, excess = "", math.inf, math.inf
        for limit, value in budget.limits.items():
            others = [mask for other, mask in met.items() if other != limit]
            rows = np.logical_and.reduce(others) if others else np.ones(len(self.points), dtype=bool)
            reach = float(np.nanmin(self._limits[limit][rows], initial=math.inf))
            if reach / value < excess or not name:
                name, best, excess = limit, reach, reach / value
        if not math.isfinite(best):
            # No limit alone is to blame: report the one that the smallest subnet misses most.
            worst = {n: float(np.nanmin(self._limits[n])) for n in budget.limits}
            name = max(worst, key=lambda n: worst[n] / budget.limits[n])
            best = worst[name]
        rest = ", ".join(f"{n} <= {v:g}" for n, v in budget.limits.items() if n != name)
        given = f" with {rest}" if rest else ""
        return InfeasibleBudget(
            f"No evaluated subnet on {self.provenance.device} has {name} <= {budget.limits[name]:g}{given}: "
            f"the smallest has {best:.4g} {UNITS[name]}.",
            limit=name,
            best=best,
            hint=f"Ask for {name} of at least {_round_up(best):g}, or nest the network with more levels.",
        )


def _owned(point: Point, atlas: Atlas) -> Point:
    """A copy that knows its atlas; `replace` would take most of the time in which an atlas is made."""
    values: dict[str, Any] = {name: getattr(point, name) for name in _COLUMNS}
    return Point(subnet=point.subnet, budget=point.budget, _atlas=atlas, **values)


def _removed(subnets: Sequence[Subnet], space: SearchSpace) -> FloatArray:
    """Removed fraction of what each gate may lose: shape (n, G)."""
    sizes = np.array([gate.size for gate in space])
    free = np.maximum(sizes - np.array([gate.min_kept for gate in space]), 1)
    counts = np.array([[bits.bit_count() for _, bits in subnet.kept] for subnet in subnets])
    return np.asarray((sizes - counts) / free, dtype=np.float64)


def _objectives(table: FloatArray) -> FloatArray:
    used = [_COLUMNS.index(name) for name in ("latency_ms", "latency_ms_high", "peak_mib", "size_mib")]
    costs = table[:, used]
    # A cost that is not known is met by no budget: it is the worst.
    return np.column_stack([-table[:, _COLUMNS.index("accuracy")], np.where(np.isnan(costs), np.inf, costs)])


def _point(entry: Mapping[str, Any], space: SearchSpace) -> Point:
    found = {name: entry[_RELATIVE.get(name, name) if entry.get("emulated") else name] for name in _COLUMNS}
    values = {name: math.nan if value is None else float(value) for name, value in found.items()}
    return Point(subnet=space.parse(entry["subnet"]), **values)  # type: ignore[arg-type]


def _check_same(found: Provenance, expected: Provenance, path: Path | str) -> None:
    what = {"network": "another trained network", "profile": "another profile", "evaluator": "other evaluations"}
    for name, text in what.items():
        if getattr(found, name) != getattr(expected, name):
            raise RunError(f"{path} was made from {text}.", hint="Run again: fn3hw search RUN --profile F")


def _round_up(value: float) -> float:
    """Up to four significant digits, so that asking for what a message names is enough."""
    scale = 10.0 ** (3 - math.floor(math.log10(value))) if value > 0 else 1.0
    return math.ceil(value * scale) / scale
