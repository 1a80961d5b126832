"""Table 2 of the paper on Fashion-MNIST: accuracy of one network at 4, 3 and 2 bits, FN3-bit against AdaBits.

FN3-bit is one set of weights for all settings, trained by ordered dropout; AdaBits trains its widths one after the
other, each with batch norm of its own. Both train the same network on as many samples. A second FN3-bit is trained with
steps that are sigmoids and harden, instead of hard ones with a straight-through gradient. Test accuracy is that of the
weights as they are quantized, for FN3-bit with batch norm recalibrated; AdaBits uses the one it learned. Runs are kept
in runs/removal and runs/bits and gone on with.
Usage: python benchmarks/bits.py
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from kept import train_once, trained_run
from removal import Judge
from removal import trained as trained_for_removal
from report import report

from fn3hw.baselines.adabits import AdaBits, train_adabits
from fn3hw.cli.runs import OpenRun
from fn3hw.space.networks import build
from fn3hw.training import Recipe, Run, recipe_data
from fn3hw.training.loop import accuracy

FOLDER = Path("runs/bits")
SOFT = 10.0
"""Temperature of the sigmoid steps at the end of training."""
WIDTHS = (4, 3, 2)
NAMES = {4: "4 bits", 3: "3 bits (±4)", 2: "3 bits (±2)", 1: "2 bits"}
"""Kept steps of the paper's schedule, and what it calls them."""


def main() -> None:
    hard, soft = trained_for_removal("bit", "ordered", 0), soft_steps()
    history = hard.run.history()
    theirs = adabits(hard.run.recipe, seen=history[-1]["seen"])
    found = {"fn3-bit": uniform(hard), "fn3-bit, soft steps": uniform(soft), "adabits": theirs.pop("accuracy")}
    space = hard.supernet.space
    report(
        "bits",
        {
            "quantizers": len(space),
            "subnets_log10_of_fn3": sum(math.log10(gate.size) for gate in space),
            "test_accuracy": found,
            "lost_from_4_to_2_bits": {name: row[NAMES[4]] - row[NAMES[1]] for name, row in found.items()},
            "training": {
                "fn3-bit": {"seen": history[-1]["seen"], "seconds": sum(epoch["seconds"] for epoch in history)},
                "adabits": theirs,
            },
        },
    )


def soft_steps() -> OpenRun:
    """The same training with sigmoids for steps."""
    recipe = Recipe.load("removal/bit")
    recipe = recipe.replace(network={"bits": {**recipe.settings()["network"]["bits"], "soft": SOFT}})
    return trained_run(Run.create(FOLDER / "soft", recipe))


def uniform(opened: OpenRun) -> dict[str, float]:
    """Test accuracy with all quantizers at the same setting."""
    judge, space = Judge(opened, limit=None), opened.supernet.space
    return {
        name: judge.accuracy(space.from_counts({gate.name: steps for gate in space})) for steps, name in NAMES.items()
    }


def adabits(recipe: Recipe, *, seen: int) -> dict[str, Any]:
    """AdaBits from as many samples, rounded to whole epochs per width: its accuracy, samples and seconds."""
    data = recipe_data(recipe)
    per_epoch = data.steps_per_epoch(recipe.batch_size) * recipe.batch_size
    epochs = len(WIDTHS) * max(1, round(seen / per_epoch / len(WIDTHS)))
    module = build(
        recipe.network.name, n_classes=data.n_classes, input_shape=data.input_shape, **recipe.network.options
    )
    net = AdaBits(module, WIDTHS)
    seconds = train_once(
        net,
        FOLDER / "adabits.safetensors",
        lambda: net.load_state_dict(train_adabits(module, data, recipe.replace(epochs=epochs), WIDTHS).state_dict()),
    )
    found = {}
    for bits in WIDTHS:
        with net.active(bits):
            found[f"{bits} bits"] = accuracy(net, data, "test")
        print("adabits", bits, found, file=sys.stderr)
    return {"accuracy": found, "seen": epochs * per_epoch, "seconds": seconds}


if __name__ == "__main__":
    main()
