"""Cost models on measurements of real boards, made by others: error over the number of samples.

A file has a row per network of NAS-Bench-201: ``arch_str``, a cell of six edges, each with its operation, and a column
of milliseconds per device, whose name ends in ``_ms``. Operations are counted twice: in the graph as written, and in
the graph as a runtime deploys it, without what a ``none`` cuts off from input or output. Which of both a device runs
is chosen by leave-one-out error. Beside ours: the same counts by ordinary non-negative least squares, and gradient
boosting on one-hot edges. Published: nn-Meter 99.0% within 10% on the Cortex-A76 from thousands of samples; LitePred
98.9% within 10% on a phone's processor from 1,400; HELP a Spearman correlation of 0.890 from 10. Coverage is that of
90% intervals by the jackknife+, with more than 50 samples in 50 folds.
Usage: python benchmarks/boards.py FILE.csv ...
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from report import report
from scipy.optimize import nnls
from scipy.stats import spearmanr
from sklearn.ensemble import GradientBoostingRegressor

from fn3hw.cost import CountRegressor
from fn3hw.cost.intervals import jackknife_plus

FloatArray = NDArray[np.float64]
Edge = tuple[int, int, str]
Model = Callable[[Any], FloatArray]
"""Predicts rows of a table of cells."""

SIZES = (10, 30, 100, 300, 1000)
SEEDS = 10
FOLDS = 50
WORK = ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
OPERATIONS = (*WORK, "skip_connect", "none")


def main() -> None:
    devices = {}
    for path in sys.argv[1:]:
        table = pd.read_csv(path)
        cells = Cells([parse(text) for text in table["arch_str"]])
        for column in (name for name in table.columns if name.endswith("_ms") and not name.startswith("sd")):
            name = Path(path).stem.split("_tflite")[0] if column == "lat_ms" else column.removesuffix("_ms")
            devices[name] = curves(cells, table[column].to_numpy(dtype=np.float64))
            print(name, devices[name]["ours"], file=sys.stderr, flush=True)
    report("boards", {"sizes": SIZES, "seeds": SEEDS, "devices": devices})


def parse(text: str) -> list[Edge]:
    """The edges of a cell as (from node, to node, operation)."""
    found = []
    for node, inputs in enumerate(text.split("+"), 1):
        for one in inputs.strip("|").split("|"):
            operation, source = one.split("~")
            found.append((int(source), node, operation))
    return found


def deployed(edges: list[Edge]) -> list[Edge]:
    """The edges that lie on a path from input to output."""
    edges = [edge for edge in edges if edge[2] != "none"]
    for _ in range(3):  # as many as there are nodes to cut off one after the other
        sources, targets = {0} | {edge[1] for edge in edges}, {3} | {edge[0] for edge in edges}
        edges = [edge for edge in edges if edge[0] in sources and edge[1] in targets]
    return edges


class Cells:
    """Cells as tables of counts, and one-hot."""

    def __init__(self, cells: list[list[Edge]]) -> None:
        run = [deployed(edges) for edges in cells]
        self.tables = {"as deployed": counts(run), "as written": counts(cells)}
        self.one_hot = np.array([[edge[2] == name for edge in edges for name in OPERATIONS] for edges in cells])


def counts(cells: list[list[Edge]]) -> FloatArray:
    """Number of operations of each kind that computes something, shape (n, 3)."""
    return np.array([[sum(edge[2] == name for edge in edges) for name in WORK] for edges in cells], dtype=np.float64)


def curves(cells: Cells, latency_ms: FloatArray) -> dict[str, dict[int, dict[str, float]]]:
    """Scores of each method by number of samples, mean over seeds."""
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in METHODS}
    for name, method in METHODS.items():
        for size in SIZES:
            scores = []
            for seed in range(SEEDS):
                order = np.random.default_rng(seed).permutation(len(latency_ms))
                scores.append(score(method, cells, latency_ms, order[:size], order[size:]))
            found[name][size] = pd.DataFrame(scores).mean().round(4).to_dict()
    return found


def score(method: Method, cells: Cells, latency_ms: FloatArray, fit: Any, test: Any) -> dict[str, float]:
    """Accuracy on all that was not fitted on."""
    model = method(cells, fit, latency_ms[fit])
    truth, predicted = latency_ms[test], model(test)
    error = np.abs(predicted / truth - 1)
    scores = {
        "mape": float(error.mean()),
        "within_5pct": float((error <= 0.05).mean()),
        "within_10pct": float((error <= 0.10).mean()),
        "spearman": float(spearmanr(predicted, truth).statistic),
    }
    if method is ours:
        low, high = interval(cells, fit, latency_ms, test)
        scores["coverage"] = float(np.mean((low <= truth) & (truth <= high)))
    return scores


def ours(cells: Cells, fit: Any, y: FloatArray) -> Model:
    """`CountRegressor` on the counts that leave-one-out finds to be what the device runs."""
    kind = kind_of(cells, fit, y)
    return regressor(cells.tables[kind], fit, y)


def kind_of(cells: Cells, fit: Any, y: FloatArray) -> str:
    """Which of the tables explains the samples better."""
    return min(cells.tables, key=lambda kind: float(fitted(cells.tables[kind], fit, y).loo_error_))


def fitted(table: FloatArray, fit: Any, y: FloatArray) -> CountRegressor:
    """A sum of operations, each with a time of its own."""
    return CountRegressor(step=1, align=1, products="none").fit(table[fit], y)


def regressor(table: FloatArray, fit: Any, y: FloatArray) -> Model:
    """What it predicts."""
    model = fitted(table, fit, y)
    return lambda rows: model.predict(table[rows])


def interval(cells: Cells, fit: Any, latency_ms: FloatArray, test: Any) -> tuple[FloatArray, FloatArray]:
    """Ends of the intervals of the tested cells, from fits that each leave out a fold of the samples."""
    table, left_out, residuals = cells.tables[kind_of(cells, fit, latency_ms[fit])], [], []
    for fold in np.array_split(fit, min(len(fit), FOLDS)):
        rest = np.setdiff1d(fit, fold)
        predict = regressor(table, rest, latency_ms[rest])
        left_out += [predict(test)] * len(fold)
        residuals += list(latency_ms[fold] / predict(fold) - 1)
    return jackknife_plus(np.stack(left_out), np.array(residuals))


def least_squares(kind: str) -> Method:
    """Non-negative least squares on counts."""

    def method(cells: Cells, fit: Any, y: FloatArray) -> Model:
        matrix = np.insert(cells.tables[kind], 0, 1.0, axis=1)
        coef, _ = nnls(matrix[fit], y)
        return lambda rows: matrix[rows] @ coef

    return method


def boosting(cells: Cells, fit: Any, y: FloatArray) -> Model:
    """Gradient boosting on the operation of each edge."""
    model = GradientBoostingRegressor(random_state=0).fit(cells.one_hot[fit], y)
    return lambda rows: np.asarray(model.predict(cells.one_hot[rows]))


Method = Callable[[Cells, Any, FloatArray], Model]
METHODS: dict[str, Method] = {
    "ours": ours,
    "least squares, as deployed": least_squares("as deployed"),
    "least squares, as written": least_squares("as written"),
    "gradient boosting": boosting,
}


if __name__ == "__main__":
    main()
