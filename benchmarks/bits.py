"""Table 2 of the paper on Fashion-MNIST: accuracy of one network at 4, 3 and 2 bits, FN3-bit against AdaBits.

FN3-bit is one set of weights for all settings, trained by ordered dropout; AdaBits trains its widths one after the
other, each with batch norm of its own. Both train the same network on as many samples. Test accuracy is that of the
weights as they are quantized, for FN3-bit with batch norm recalibrated; AdaBits uses the one it learned. Runs are kept
in runs/bits and gone on with.
Usage: python benchmarks/bits.py
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

from removal import RECALIBRATION_IMAGES
from report import report
from safetensors.torch import load_model, save_model

from fn3hw.baselines.adabits import AdaBits, train_adabits
from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun, onnx_accuracy
from fn3hw.cli.train import train_run
from fn3hw.deploy import recalibrate
from fn3hw.space.networks import build
from fn3hw.training import Recipe, Run, recipe_data
from fn3hw.training.loop import accuracy

FOLDER = Path("runs/bits")
WIDTHS = (4, 3, 2)
NAMES = {4: "4 bits", 3: "3 bits (±4)", 2: "3 bits (±2)", 1: "2 bits"}
"""Kept steps of the paper's schedule, and what it calls them."""


def main() -> None:
    recipe = Recipe.load("removal/bit")
    console = Console(as_json=False)
    train_run(Run.create(FOLDER / "fn3-bit", recipe), console)
    ours = OpenRun(FOLDER / "fn3-bit", console)
    space, history = ours.supernet.space, ours.run.history()
    images = ours.data.arrays("train", RECALIBRATION_IMAGES)[0]
    fn3 = {}
    for steps, name in NAMES.items():
        subnet = space.from_counts({gate.name: steps for gate in space})
        model = ours.supernet.slice(subnet, recalibrate(ours.supernet, subnet, images))
        fn3[name] = onnx_accuracy(model.SerializeToString(), ours.data, "test")
    theirs = adabits(recipe, passes=history[-1]["seen"] / (len(history) * len(ours.data.split("train"))))
    report(
        "bits",
        {
            "quantizers": len(space),
            "subnets_log10_of_fn3": sum(math.log10(gate.size) for gate in space),
            "test_accuracy": {"fn3-bit": fn3, "adabits": theirs["accuracy"]},
            "lost_from_4_to_2_bits": {
                "fn3-bit": fn3[NAMES[4]] - fn3[NAMES[1]],
                "adabits": theirs["accuracy"]["4 bits"] - theirs["accuracy"]["2 bits"],
            },
            "seen_samples": {"fn3-bit": history[-1]["seen"], "adabits": theirs["seen"]},
            "seconds": {"fn3-bit": sum(epoch["seconds"] for epoch in history), "adabits": theirs["seconds"]},
        },
    )


def adabits(recipe: Recipe, *, passes: float) -> dict[str, Any]:
    """AdaBits from as many samples, rounded to whole epochs per width: its accuracy, samples and seconds."""
    data = recipe_data(recipe)
    epochs = len(WIDTHS) * max(1, round(recipe.epochs * passes / len(WIDTHS)))
    module = build(
        recipe.network.name, n_classes=data.n_classes, input_shape=data.input_shape, **recipe.network.options
    )
    path, started = FOLDER / "adabits.safetensors", time.monotonic()
    if path.is_file():
        net, seconds = AdaBits(module, WIDTHS), float("nan")
        load_model(net, str(path))
    else:
        net = train_adabits(module, data, recipe.replace(epochs=epochs), WIDTHS)
        seconds = time.monotonic() - started
        save_model(net, str(path))
    found = {}
    for bits in WIDTHS:
        with net.active(bits):
            found[f"{bits} bits"] = accuracy(net, data, "test")
        print("adabits", bits, found, file=sys.stderr)
    per_epoch = data.steps_per_epoch(recipe.batch_size) * recipe.batch_size
    return {"accuracy": found, "seen": epochs * per_epoch, "seconds": seconds}


if __name__ == "__main__":
    main()
