"""The simple models that a cost model has to beat, fitted on the same measurements.

A per-layer look-up table is what nn-Meter's and ProxylessNAS's predictors start from, FLOPs what most searches charge;
gradient boosting and random forests on raw counts are what one reaches for without knowing the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import onnx
from onnx import helper, shape_inference
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

from fn3hw.cost.basis import FloatArray
from fn3hw.cost.evidence import Evidence, read_evidence, require_enough, unit_table
from fn3hw.cost.metrics import Metrics, score
from fn3hw.cost.ports import MeasuredProfile
from fn3hw.cost.solve import fit_relative
from fn3hw.cost.state import Encoder, States
from fn3hw.cost.units import UnitTable
from fn3hw.space.subnet import Subnet

Predictor = Callable[[Iterable[Subnet]], FloatArray]
"""Latency in ms of subnets."""

_NEIGHBOURS: Final = 2


class _Regressor(Protocol):
    def fit(self, X: FloatArray, y: FloatArray) -> Any: ...

    def predict(self, X: FloatArray) -> FloatArray: ...


def comparators(profile: MeasuredProfile, *, macs: Callable[[Subnet], float] | None = None) -> dict[str, Predictor]:
    """Simple models, fitted on what a cost model of the profile is fitted on.

    Args:
        profile: what was measured.
        macs: multiply-accumulates of a subnet (see `count_macs`); without it there is no FLOPs model.

    Returns:
        Predictors by name: ``"gradient boosting"``, ``"random forest"``, ``"look-up table"`` where the profile has
        kernel times, ``"FLOPs"`` where ``macs`` is given.

    Raises:
        ProfileError: the profile cannot be fitted on.
    """
    table = unit_table(profile)
    require_enough(profile.fitted)
    evidence = read_evidence(profile, profile.fitted, table)
    found = {
        "gradient boosting": _on_counts(GradientBoostingRegressor(random_state=0), table.encoder, evidence),
        "random forest": _on_counts(RandomForestRegressor(random_state=0), table.encoder, evidence),
    }
    if evidence.times.size:
        found["look-up table"] = _look_up(table, evidence)
    if macs is not None:
        found["FLOPs"] = _on_macs(macs, [table.encoder.space.parse(m.subnet) for m in profile.fitted], evidence)
    return found


def compare(profile: MeasuredProfile, predictors: dict[str, Predictor]) -> dict[str, Metrics]:
    """Accuracy of predictors on the held-out subnets of a profile, by name; empty where it has none."""
    if not profile.held_out:
        return {}
    unseen = read_evidence(profile, profile.held_out, unit_table(profile))
    subnets = [profile.space.parse(m.subnet) for m in profile.held_out]
    return {name: score(unseen.latency_ms, predictor(subnets)) for name, predictor in predictors.items()}


def count_macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of the convolutions and matrix products of a model, for one input."""
    graph = shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.output)
    shapes = {v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim] for v in values}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            weight, out = shapes[node.input[1]], shapes[node.output[0]]
            total += int(np.prod(out[1:]) * np.prod(weight[1:]))
        elif node.op_type in ("Gemm", "MatMul"):
            weight, out = shapes[node.input[1]], shapes[node.output[0]]
            transposed = any(a.name == "transB" and helper.get_attribute_value(a) for a in node.attribute)
            total += int(np.prod(out[1:]) * weight[-1 if transposed else -2])
    return total


def _on_counts(regressor: _Regressor, encoder: Encoder, evidence: Evidence) -> Predictor:
    regressor.fit(_raw(evidence.states), evidence.latency_ms)
    return lambda subnets: np.asarray(regressor.predict(_raw(encoder.encode(subnets))), dtype=np.float64)


def _raw(states: States) -> FloatArray:
    return np.concatenate([states.counts, states.branches.astype(np.float64)], axis=1)


def _on_macs(macs: Callable[[Subnet], float], measured: list[Subnet], evidence: Evidence) -> Predictor:
    coef = _line(np.array([macs(subnet) for subnet in measured], dtype=np.float64), evidence.latency_ms)
    return lambda subnets: np.array([coef[0] + coef[1] * macs(subnet) for subnet in subnets], dtype=np.float64)


def _line(x: FloatArray, y: FloatArray) -> FloatArray:
    return fit_relative(np.stack([np.ones_like(x), x], axis=1), y, alpha=1e-9).coef


@dataclass(frozen=True, slots=True)
class _Entries:
    """Measured times of one unit; what lies between is interpolated from the nearest entries."""

    columns: list[int]
    branch_columns: list[int]
    counts: FloatArray
    times: FloatArray

    def present(self, states: States) -> FloatArray:
        return np.asarray(states.branches[:, self.branch_columns].all(axis=1), dtype=np.float64)

    def predict(self, states: States) -> FloatArray:
        if not len(self.times):
            return np.zeros(len(states))
        asked = states.counts[:, self.columns]
        if len(self.columns) == 1:
            order = np.argsort(self.counts[:, 0], kind="stable")
            times = np.interp(asked[:, 0], self.counts[order, 0], self.times[order])
        elif not self.columns:
            times = np.full(len(states), float(np.mean(self.times)))
        else:
            times = self._nearest(asked)
        return np.asarray(times * self.present(states), dtype=np.float64)

    def _nearest(self, asked: FloatArray) -> FloatArray:
        far = np.linalg.norm((asked[:, None, :] - self.counts[None]) / self.counts.max(axis=0), axis=2)
        near = np.argsort(far, axis=1)[:, :_NEIGHBOURS]
        weights = 1.0 / (np.take_along_axis(far, near, axis=1) + 1e-9)
        mean: FloatArray = np.sum(self.times[near] * weights, axis=1) / weights.sum(axis=1)
        return mean


def _look_up(table: UnitTable, evidence: Evidence) -> Predictor:
    entries = []
    for k, unit in enumerate(table.units):
        branch_columns = [table.encoder.branch_column[branch] for branch in unit.branches]
        there = evidence.states.branches[:, branch_columns].all(axis=1)
        columns = table.columns(unit)
        entries.append(
            _Entries(columns, branch_columns, evidence.states.counts[there][:, columns], evidence.times[there, k])
        )

    def total(states: States) -> FloatArray:
        result: FloatArray = np.sum([one.predict(states) for one in entries], axis=0)
        return result

    # On its own entries a table is exact: what timing adds is told from the measured sums.
    coef = _line(evidence.times.sum(axis=1), evidence.latency_ms)
    return lambda subnets: coef[0] + coef[1] * total(table.encoder.encode(subnets))
