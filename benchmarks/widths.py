"""Table 1 and figure 5 of the paper on Fashion-MNIST: FN3-channel and others from the same seconds of training.

All train the same network. US-Net, slimmable networks with switchable batch norm, and nested n-in-1 levels get as many
epochs as fit into the seconds that FN3-channel took. Accuracy over kept channels: uniform widths of all, and of
FN3-channel what a search by block count finds. Batch norm is recalibrated for every point, but for slimmable networks,
which have their own. Runs are kept in runs/removal and runs/widths and gone on with.
Usage: python benchmarks/widths.py
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from kept import train_once, trained_run
from removal import EVALUATIONS, TEST_IMAGES, Judge, searched
from removal import trained as trained_for_removal
from report import RESULTS, report
from torch import nn

from fn3hw.baselines.slimmable import Slimmable, train_slimmable, uniform_subnet
from fn3hw.cli.runs import OpenRun
from fn3hw.space.files import write_text
from fn3hw.training import Data, Recipe, Run, recipe_data, recipe_network
from fn3hw.training.loop import Trainer, accuracy

FOLDER = Path("runs/widths")
SHARES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25)
SETTINGS = (1.0, 0.75, 0.5, 0.25)
"""Widths of the networks that have fixed ones."""
STEPS = 20


def main() -> None:
    ours = trained_for_removal("channel", "ordered", 0)
    seconds = sum(epoch["seconds"] for epoch in ours.run.history())
    space = ours.supernet.space
    us_net = trained_us_net(seconds)
    n_in_1, recipe, _, n_in_1_cost = trained_levels(seconds, switchable=False)
    n_in_1_run = Run.create(FOLDER / "n-in-1", recipe)
    n_in_1_run.save_weights(n_in_1.net.state_dict())
    slimmable, _, data, slimmable_cost = trained_levels(seconds, switchable=True)
    removed = [space.n_blocks - sum(uniform_subnet(space, share).counts.values()) for share in SHARES]
    found = map(Judge(ours).accuracy, searched(ours, removed, 0))
    curves = {
        "fn3-channel, searched": dict(zip(SHARES, found, strict=True)),
        "fn3-channel, uniform": uniform(ours, SHARES),
        "us-net": uniform(us_net, SHARES),
        "n-in-1": uniform(trained_run(n_in_1_run), SETTINGS),
        "slimmable": own_norms(slimmable, data),
    }
    gates = [gate.size - gate.min_kept + 1 for gate in space]
    report(
        "widths",
        {
            "shares_of_channels": SHARES,
            "removed_blocks": removed,
            "removable_blocks": sum(gates) - len(gates),
            "test_accuracy": curves,
            "evaluations_of_the_search": EVALUATIONS,
            "subnets_log10": {
                "fn3-channel": sum(map(math.log10, gates)),
                "us-net": math.log10(max(gates)),
                "n-in-1, slimmable": math.log10(len(SETTINGS)),
            },
            "training": {
                "fn3-channel": cost(ours),
                "us-net": cost(us_net),
                "n-in-1": n_in_1_cost,
                "slimmable": slimmable_cost,
            },
        },
    )
    draw(curves, RESULTS / "widths.png")


def trained_us_net(seconds: float) -> OpenRun:
    """US-Net from so many seconds."""
    recipe = Recipe.load("baselines/us-net")
    data = recipe_data(recipe)
    probe = Trainer(recipe_network(recipe, data), data, recipe, None, None)
    epochs = epochs_within(seconds, "us-net", probe.net, data, recipe, probe.step)
    return trained_run(Run.create(FOLDER / "us-net", recipe.replace(epochs=epochs)))


def trained_levels(seconds: float, *, switchable: bool) -> tuple[Slimmable, Recipe, Data, dict[str, Any]]:
    """A few widths trained together from so many seconds: a slimmable network, or nested n-in-1 levels."""
    name = "slimmable" if switchable else "n-in-1"
    recipe = Recipe.load("removal/channel")
    data = recipe_data(recipe)
    net = recipe_network(recipe, data)
    subnets = [uniform_subnet(net.space, share) for share in SETTINGS]
    probe = Slimmable(recipe_network(recipe, data), subnets, switchable=switchable)

    def step(x: torch.Tensor, y: torch.Tensor, _: int) -> None:
        for loss in probe.losses(x, y):
            loss.backward()

    recipe = recipe.replace(epochs=epochs_within(seconds, name, probe, data, recipe, step))
    levels = Slimmable(net, subnets, switchable=switchable)

    def train() -> None:
        trained = train_slimmable(net, data, recipe, subnets, switchable=switchable)
        levels.load_state_dict(trained.state_dict())

    took = train_once(levels, FOLDER / f"{name}.safetensors", train)
    per_epoch = data.steps_per_epoch(recipe.batch_size) * recipe.batch_size
    seen = recipe.epochs * len(SETTINGS) * per_epoch
    return levels, recipe, data, {"epochs": recipe.epochs, "seconds": took, "seen_samples": seen}


def epochs_within(
    seconds: float,
    name: str,
    net: nn.Module,
    data: Data,
    recipe: Recipe,
    step: Callable[[torch.Tensor, torch.Tensor, int], object],
) -> int:
    """Epochs that fit into so many seconds, from a few steps of a network that is thrown away; kept in a file."""
    path = FOLDER / f"{name}.epochs"
    if not path.is_file():
        net.train().to(memory_format=torch.channels_last)
        batches = data.training_batches(recipe.batch_size, seed=0, epoch=0)
        times = []
        for number in range(STEPS):
            x, y = next(batches)
            started = time.perf_counter()
            step(x.contiguous(memory_format=torch.channels_last), y, number)
            times.append(time.perf_counter() - started)
        epoch_seconds = float(np.mean(times[4:])) * data.steps_per_epoch(recipe.batch_size)
        print(name, "seconds per epoch", epoch_seconds, file=sys.stderr)
        write_text(path, str(max(1, round(seconds / epoch_seconds))))
    return int(path.read_text())


def uniform(run: OpenRun, shares: tuple[float, ...]) -> dict[float, float]:
    """Test accuracy at uniform widths, batch norm recalibrated."""
    judge, space = Judge(run), run.supernet.space
    return {share: judge.accuracy(uniform_subnet(space, share)) for share in shares}


def own_norms(levels: Slimmable, data: Data) -> dict[float, float]:
    """Test accuracy of each setting with batch norm of its own."""
    found = {}
    for number, share in enumerate(SETTINGS):
        with levels.active(number):
            found[share] = accuracy(levels, data, "test", limit=TEST_IMAGES)
    return found


def cost(run: OpenRun) -> dict[str, Any]:
    """What a training took."""
    history = run.run.history()
    return {
        "epochs": len(history),
        "seconds": sum(epoch["seconds"] for epoch in history),
        "seen_samples": history[-1]["seen"],
    }


def draw(curves: dict[str, dict[float, float]], path: Path) -> None:
    """Accuracy over width."""
    _, axis = plt.subplots(figsize=(5, 3.5))
    for name, curve in curves.items():
        axis.plot(list(curve), list(curve.values()), "o-", markersize=3, label=name)
    axis.set(xlabel="share of the channels kept", ylabel="test accuracy %")
    axis.legend(fontsize=8)
    plt.tight_layout()
    plt.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
