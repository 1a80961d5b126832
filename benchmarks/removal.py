"""Figure 4 of the paper on Fashion-MNIST: accuracy over removed blocks, for each level.

Curves per level: a plainly trained network with blocks removed at random; one trained by ordered dropout with blocks
removed at random, be it any of a gate's blocks or always its last; and the same network searched (our form of Algorithm
1, by block count). Batch norm is recalibrated with data for every point of every curve. Runs are kept in runs/removal,
the points of each seed in results/removal, and both are gone on with; several programs may share the work.
Usage: python benchmarks/removal.py [LEVEL | LEVEL-SEED ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from kept import trained_run
from report import RESULTS, report

from fn3hw.cli.runs import OpenRun, onnx_accuracy
from fn3hw.deploy import recalibrate
from fn3hw.searcher import Archive, Charge, Evaluator, Heuristic, LocalExecutor
from fn3hw.searcher.ledger import Ledger
from fn3hw.space import SearchSpace, Subnet
from fn3hw.space.files import write_text
from fn3hw.training import Recipe, Run

FOLDER = Path("runs/removal")
LEVELS = ("layer", "path", "channel", "neuron", "bit")
SEEDS = (0, 1, 2)
POINTS = 8
REPEATS = 4
EVALUATIONS = 150
PAPER_REPEATS = 100
"""Of random removal, for every number of blocks (sec. 5)."""
SEARCH_IMAGES = 4000
TEST_IMAGES = 5000
RECALIBRATION_IMAGES = 512
ALLOWED = {"layer": 3.0}
"""Points that the search may lose at half of the blocks; 1.5 elsewhere."""


def main() -> None:
    for wanted in sys.argv[1:] or LEVELS:
        level, _, seed = wanted.partition("-")
        tables = [curves(level, number) for number in ([int(seed)] if seed else SEEDS)]
        if not seed:
            summary = summarise(pd.concat(tables))
            report(f"removal-{level}", {"level": level, "seeds": len(SEEDS), **figures(level, summary)})
            draw(RESULTS / "removal.png")


def curves(level: str, seed: int) -> pd.DataFrame:
    """All points of the curves of one level and seed, from their file where it is there."""
    path = RESULTS / "removal" / f"{level}-{seed}.csv"
    if not path.is_file():
        write_text(path, pd.DataFrame(points(level, seed)).to_csv(index=False))
    return pd.read_csv(path)


def points(level: str, seed: int) -> list[dict[str, Any]]:
    """All points of the curves of one level and seed: curve, removed blocks, accuracy."""
    rows = []
    for way in ("plain", "ordered"):
        opened = trained(level, way, seed)
        judge = Judge(opened)
        space = opened.supernet.space
        counts = grid(space)
        rng = np.random.default_rng(seed)
        for order_of, name in WAYS[way].items():
            for repeat in range(REPEATS):
                order = order_of(space, rng)
                for count in counts:
                    rows.append(point(name, seed, count, judge.accuracy(removed(space, order[:count]))))
                print(level, seed, repeat, rows[-1], file=sys.stderr)
        if way == "ordered":
            for count, subnet in zip(counts, searched(opened, counts, seed), strict=True):
                rows.append(point("ordered + search", seed, count, judge.accuracy(subnet)))
    return rows


def point(curve: str, seed: int, count: int, accuracy: float) -> dict[str, Any]:
    """One row of the table."""
    return {"curve": curve, "seed": seed, "removed": count, "accuracy": accuracy}


def trained(level: str, way: str, seed: int) -> OpenRun:
    """The trained run, from its folder where it is there."""
    recipe = Recipe.load(f"removal/{level}").replace(seed=seed)
    if way == "plain":
        recipe = recipe.replace(sampling={"ordered": False, "full": False, "distill": False})
    return trained_run(Run.create(FOLDER / f"{level}-{way}-{seed}", recipe))


class Judge:
    """Test accuracy of subnets with recalibrated batch norm.

    Args:
        opened: the run.
        limit: only the first so many test images.
    """

    def __init__(self, opened: OpenRun, limit: int | None = TEST_IMAGES) -> None:
        self.opened, self.limit = opened, limit
        self.images = opened.data.arrays("train", RECALIBRATION_IMAGES)[0]
        self.found: dict[Subnet, float] = {}

    def accuracy(self, subnet: Subnet) -> float:
        """In percent."""
        if subnet not in self.found:
            supernet = self.opened.supernet
            model = supernet.slice(subnet, recalibrate(supernet, subnet, self.images), packed=False)
            accuracy = onnx_accuracy(model.SerializeToString(), self.opened.data, "test", limit=self.limit)
            self.found[subnet] = accuracy
        return self.found[subnet]


def grid(space: SearchSpace) -> list[int]:
    """Numbers of removed blocks, from none to all that may go."""
    removable = sum(gate.size - gate.min_kept for gate in space)
    return sorted({round(removable * index / POINTS) for index in range(POINTS + 1)})


def any_block(space: SearchSpace, rng: np.random.Generator) -> list[tuple[str, int]]:
    """A random order of blocks (gate, index); every gate keeps as many as it has to."""
    return _random_gates(space, {gate.name: rng.permutation(gate.size).tolist() for gate in space}, rng)


def last_block(space: SearchSpace, rng: np.random.Generator) -> list[tuple[str, int]]:
    """A random order of gates, each of which loses its last block."""
    return _random_gates(space, {gate.name: list(range(gate.size)) for gate in space}, rng)


def _random_gates(space: SearchSpace, blocks: dict[str, list[int]], rng: np.random.Generator) -> list[tuple[str, int]]:
    names = [gate.name for gate in space for _ in range(gate.size - gate.min_kept)]
    return [(names[i], blocks[names[i]].pop()) for i in rng.permutation(len(names))]


WAYS = {
    "plain": {any_block: "plain + random"},
    "ordered": {any_block: "ordered + random", last_block: "ordered + random, last block first"},
}
"""How blocks are removed at random from each network, and what the curve is called."""


def removed(space: SearchSpace, blocks: list[tuple[str, int]]) -> Subnet:
    """The subnet without some blocks."""
    kept = {gate.name: set(range(gate.size)) for gate in space}
    for gate, block in blocks:
        kept[gate].discard(block)
    return space.from_blocks(kept)


def searched(opened: OpenRun, counts: list[int], seed: int) -> list[Subnet]:
    """For each number of removed blocks the best subnet that a search found with at least as many removed."""
    space = opened.supernet.space
    images, labels = opened.data.arrays("search", SEARCH_IMAGES)
    evaluator = Evaluator(opened.supernet, opened.moments, images, labels)
    charge = Charge(space, None, "blocks")
    settings = Heuristic(evaluations=EVALUATIONS, seed=seed)
    with tempfile.TemporaryDirectory() as scratch, Archive(Path(scratch) / "a", space, evaluator.key) as archive:
        ledger = Ledger(
            archive=archive, evaluator=evaluator, executor=LocalExecutor(), charge=charge, budget=EVALUATIONS,
            search=settings.identity(charge),
        )  # fmt: skip
        settings.run(charge, ledger)
        states, accuracy = ledger.states, ledger.accuracies
    kept = charge.of(states)
    chosen = []
    for count in counts:
        fits = np.flatnonzero(kept <= space.n_blocks - count)
        chosen.append(charge.subnet(states[fits[accuracy[fits].argmax()]]))
    return chosen


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, maximum and spread of accuracy over repeats and seeds."""
    grouped = table.groupby(["curve", "removed"])["accuracy"]
    return grouped.agg(mean="mean", max="max", std="std").reset_index()


def figures(level: str, summary: pd.DataFrame) -> dict[str, Any]:
    """What the result file holds."""
    mean = summary.pivot(index="removed", columns="curve", values="mean")
    removable = int(mean.index.max())
    half = mean.index[np.abs(mean.index - removable / 2).argmin()]
    search, full = mean["ordered + search"], float(mean["ordered + random"].loc[0])
    above = (mean.rsub(search, axis=0).drop(columns=search.name)).loc[mean.index > 0]
    return {
        "removable_blocks": removable,
        "full_accuracy": full,
        "full_accuracy_of_plain_training": float(mean["plain + random"].loc[0]),
        "lost_at_half": full - float(search.loc[half]),
        "allowed_at_half": ALLOWED.get(level, 1.5),
        "above_both_throughout": bool((above[["plain + random", "ordered + random"]] >= 0).all(axis=None)),
        "least_and_mean_lead_over": {name: [above[name].min(), above[name].mean()] for name in above},
        "evaluations_of_random_removal_here": REPEATS * len(mean),
        "evaluations_of_random_removal_in_the_paper": PAPER_REPEATS * removable,
        "evaluations_of_the_search": EVALUATIONS,
        "curves": json.loads(summary.to_json(orient="records")),
    }


def draw(path: Path) -> None:
    """The picture of all levels whose results are there."""
    found = [p for level in LEVELS if (p := RESULTS / f"removal-{level}.json").is_file()]
    _, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 3.2), squeeze=False)
    for axis, file in zip(axes[0], found, strict=True):
        document = json.loads(file.read_text())["figures"]
        table = pd.DataFrame(document["curves"])
        for curve, part in table.groupby("curve"):
            share = part["removed"] / document["removable_blocks"]
            (line,) = axis.plot(share, part["mean"], label=curve)
            axis.plot(share, part["max"], ":", color=line.get_color())
            low, high = part["mean"] - part["std"].fillna(0), part["mean"] + part["std"].fillna(0)
            axis.fill_between(share, low, high, alpha=0.2, color=line.get_color())
        axis.set(title=document["level"], xlabel="share of the removable blocks removed", ylabel="test accuracy %")
    axes[0][0].legend(fontsize=8)
    plt.tight_layout()
    plt.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
