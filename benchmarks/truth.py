"""A small space enumerated completely: the cost and the accuracy of every subnet, so that regret is known exactly.

The space is that of a run, with at most four counts of each gate, those of channels in multiples of eight between the
ends. What is kept is a table with a row per subnet: counts, predicted costs, and accuracy on the images that a search
would see.
Usage: python benchmarks/truth.py RUN PROFILE; goes on with RUN/truth.jsonl, writes results/truth.csv
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from report import RESULTS, report

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import fit_cost
from fn3hw.profiler import Profile
from fn3hw.searcher import Archive, Charge, Evaluation, LocalExecutor
from fn3hw.searcher.charge import COLUMNS
from fn3hw.searcher.ports import FloatArray, IntArray
from fn3hw.searcher.searching import evaluator_of
from fn3hw.space.files import write_text
from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace, Subnet

TABLE = RESULTS / "truth.csv"
IMAGES = 2000
RUNGS, MULTIPLE = 4, 8
"""Counts of a gate, at most, and what those of channels between the ends are multiples of."""


def main() -> None:
    opened, profile = OpenRun(Path(sys.argv[1]), Console(as_json=False)), Profile.read(sys.argv[2])
    supernet = opened.supernet.with_blockwise(profile.blockwise)
    cost = fit_cost(profile)
    charge = Charge(supernet.space, cost)
    ladders = [ladder(gate) for gate in supernet.space]
    states = np.array(list(product(*ladders)), dtype=np.int64)
    evaluator = evaluator_of(supernet, opened.moments, opened.data, "search", IMAGES, integers=False)
    subnets = [charge.subnet(state) for state in charge.canonical(states)]
    with Archive(opened.folder / "truth.jsonl", supernet.space, evaluator.key) as archive:
        missing = [subnet for subnet in dict.fromkeys(subnets) if subnet not in archive]
        for done, (subnet, accuracy) in enumerate(
            zip(missing, LocalExecutor(2).map(evaluator.accuracy, missing), strict=True), 1
        ):
            archive.append(Evaluation(subnet, accuracy, 0.0, "truth"))
            if done % 100 == 0:
                print(done, len(missing), file=sys.stderr)
        known = {evaluation.subnet: evaluation.accuracy for evaluation in archive.evaluations}
    real = np.array([charge.state(subnet) for subnet in known])
    table = pd.DataFrame(real, columns=[gate.name for gate in supernet.space])
    table[list(COLUMNS.values())] = cost.costs(real)
    table["accuracy"] = list(known.values())
    gates = supernet.space.to_json()
    inside = [(int(gate), int(count), members.tolist()) for gate, count, members in charge.inside]
    write_text(
        TABLE, f"# {json.dumps({'gates': gates, 'inside': inside})}\n{table.to_csv(index=False, float_format='%.6g')}"
    )
    report(
        "truth",
        {
            "network": opened.run.recipe.network.model_dump(mode="json", exclude_defaults=True),
            "gates": len(gates),
            "rungs": [len(one) for one in ladders],
            "combinations": len(states),
            "subnets": len(known),
            "images": IMAGES,
            "latency_ms": [float(table.latency_ms.min()), float(table.latency_ms.max())],
            "accuracy": [float(table.accuracy.min()), float(table.accuracy.max())],
        },
    )


def ladder(gate: Gate) -> list[int]:
    """Counts of a gate, about evenly from all blocks to the fewest."""
    multiple = MULTIPLE if gate.level == "channel" else 1
    between = np.linspace(gate.size, gate.min_kept, RUNGS)[1:-1] / multiple
    counts = {int(count) * multiple for count in between.round()}
    return sorted({gate.size, gate.min_kept, *np.clip(list(counts), gate.min_kept, gate.size).tolist()}, reverse=True)


class Truth:
    """The table, as a cost model and as an evaluator that a search can ask.

    Counts that the table does not have stand for the next larger ones. What is inside a removed block may have any
    count: the table has it whole.

    Args:
        path: of the table.
    """

    def __init__(self, path: Path = TABLE) -> None:
        head, _, _ = path.read_text().partition("\n")
        known = json.loads(head.removeprefix("# "))
        self.space = SearchSpace.from_json(known["gates"])
        self._inside = known["inside"]
        self._names = [gate.name for gate in self.space]
        self.table = pd.read_csv(path, skiprows=1)
        counts = self.table[self._names].to_numpy(dtype=np.int64)
        self._counts = [np.unique(column) for column in counts.T]
        self._row = {row.tobytes(): number for number, row in enumerate(counts)}
        self._costs = self.table[list(COLUMNS.values())].to_numpy(dtype=np.float64)
        self._accuracy = self.table["accuracy"].to_numpy(dtype=np.float64)

    @property
    def key(self) -> str:
        """As of an evaluator."""
        return "truth:1"

    def accuracy(self, subnet: Subnet) -> float:
        """Of a subnet in percent."""
        return float(self._accuracy[self._of(np.array([list(subnet.counts.values())]))[0]])

    def costs(self, counts: IntArray) -> FloatArray:
        """Of (n, G) counts, shape (n, 3)."""
        return self._costs[self._of(counts)]

    def predict(self, subnets: Sequence[Subnet]) -> pd.DataFrame:
        """As a cost model; intervals of no width."""
        counts = np.array([list(subnet.counts.values()) for subnet in subnets], dtype=np.int64)
        found = pd.DataFrame(self.costs(counts), columns=list(COLUMNS.values()), index=[s.id for s in subnets])
        return found.assign(latency_ms_low=found.latency_ms, latency_ms_high=found.latency_ms)

    def on_ladders(self, ladders: Sequence[IntArray]) -> Callable[[IntArray], FloatArray]:
        """`costs` of all states on ladders, from numbers of rungs."""
        lengths = [len(ladder) for ladder in ladders]
        costs = self.costs(np.array(list(product(*ladders)), dtype=np.int64))
        return lambda rungs: costs[np.ravel_multi_index(tuple(rungs.T), lengths)]

    def best_within(self, budget: float) -> float:
        """The highest accuracy at a cost of at most a budget."""
        return float(self._accuracy[self._costs[:, 0] <= budget].max())

    def _of(self, counts: IntArray) -> list[int]:
        columns = zip(self._counts, np.asarray(counts).T, strict=True)
        real = np.stack([known[np.searchsorted(known, column)] for known, column in columns], axis=1)
        for gate, count, inside in self._inside:
            rows = np.flatnonzero(counts[:, gate] == count)
            real[np.ix_(rows, inside)] = [self.space.gates[i].size for i in inside]
        return [self._row[row.tobytes()] for row in real]


if __name__ == "__main__":
    main()
