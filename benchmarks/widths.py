"""Table 1 and figure 5 of the paper on Fashion-MNIST: FN3-channel and US-Net from the same seconds of training.

Both train the same network; US-Net gets as many epochs as fit into the seconds that FN3-channel took. Accuracy over
kept channels: uniform widths of both, and of FN3-channel what a search by block count finds. Batch norm is recalibrated
for every point. Runs are kept in runs/widths and gone on with.
Usage: python benchmarks/widths.py
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from removal import EVALUATIONS, Judge, searched
from report import report

from fn3hw.baselines.slimmable import uniform_subnet
from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.cli.train import train_run
from fn3hw.training import Recipe, Run, recipe_data, recipe_network
from fn3hw.training.loop import Trainer

SHARES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25)
STEPS = 20


def main() -> None:
    ours = trained("fn3-channel", Recipe.load("removal/channel"))
    seconds = sum(epoch["seconds"] for epoch in ours.run.history())
    base = Recipe.load("baselines/us-net")
    epochs = max(1, round(seconds / epoch_seconds(base)))
    theirs = trained("us-net", base.replace(epochs=epochs))
    space = ours.supernet.space
    removable = sum(gate.size - gate.min_kept for gate in space)
    removed = [space.n_blocks - sum(uniform_subnet(space, share).counts.values()) for share in SHARES]
    curves = {
        "us-net": [Judge(theirs).accuracy(uniform_subnet(space, share)) for share in SHARES],
        "fn3-channel, uniform": [Judge(ours).accuracy(uniform_subnet(space, share)) for share in SHARES],
        "fn3-channel, searched": [Judge(ours).accuracy(subnet) for subnet in searched(ours, removed, 0)],
    }
    report(
        "widths",
        {
            "shares_of_channels": SHARES,
            "removed_blocks": removed,
            "removable_blocks": removable,
            "test_accuracy": curves,
            "evaluations_of_the_search": EVALUATIONS,
            "subnets_log10": {
                "fn3-channel": sum(math.log10(gate.size - gate.min_kept + 1) for gate in space),
                "us-net": math.log10(max(gate.size - gate.min_kept + 1 for gate in space)),
            },
            "training": {name: cost(run) for name, run in (("fn3-channel", ours), ("us-net", theirs))},
        },
    )


def trained(name: str, recipe: Recipe) -> OpenRun:
    """The trained run, from its folder where it is there."""
    console, folder = Console(as_json=False), Path("runs/widths") / name
    train_run(Run.create(folder, recipe), console)
    return OpenRun(folder, console)


def epoch_seconds(recipe: Recipe) -> float:
    """Seconds of one epoch, from a few steps of a network that is thrown away."""
    data = recipe_data(recipe)
    training = Trainer(recipe_network(recipe, data), data, recipe, None, None)
    training.net.train()
    batches = data.training_batches(recipe.batch_size, seed=0, epoch=0)
    times = []
    for number in range(STEPS):
        x, y = next(batches)
        started = time.perf_counter()
        training.step(x, y, number)
        times.append(time.perf_counter() - started)
    print("seconds per step", np.mean(times[4:]), file=sys.stderr)
    return float(np.mean(times[4:])) * data.steps_per_epoch(recipe.batch_size)


def cost(opened: OpenRun) -> dict[str, Any]:
    """What a training took."""
    history = opened.run.history()
    return {
        "epochs": len(history),
        "seconds": sum(epoch["seconds"] for epoch in history),
        "seen_samples": history[-1]["seen"],
    }


if __name__ == "__main__":
    main()
