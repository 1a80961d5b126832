"""Table 2 of the paper on Fashion-MNIST: accuracy of one network at 4, 3 and 2 bits, FN3-bit against AdaBits.

FN3-bit is one set of weights for all settings, trained by ordered dropout; AdaBits has a batch norm for each of its
widths, and trains them together in every step, or one after the other as the paper does. All train the same network on
as many samples. Beside it, on the smaller network of figure 4: hard steps with a straight-through gradient, and
sigmoids that harden. Test accuracy is that of the quantized weights, for FN3-bit with batch norm recalibrated; AdaBits
uses the one it learned. Runs are kept in runs/removal and runs/bits and gone on with.
FN3-bit is also trained 3 epochs more, from its own weights.
Usage: python benchmarks/bits.py [fn3-bit | longer | soft | jointly | progressively]; with a name, only this one
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
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
SOFT = 100.0
"""Temperature of the sigmoid steps at the end of training."""
WIDTHS = (4, 3, 2)
NAMES = {4: "4 bits", 3: "3 bits (±4)", 2: "3 bits (±2)", 1: "2 bits"}
"""Kept steps of the paper's schedule, and what it calls them."""


def main() -> None:
    if wanted := sys.argv[1:]:
        trained = TRAININGS[wanted[0]]()
        print(wanted[0], uniform(trained) if isinstance(trained, OpenRun) else trained)
        return
    ours, longer, jointly, progressively = fn3_bit(), fn3_longer(), adabits(joint=True), adabits(joint=False)
    found = {
        "fn3-bit": uniform(ours),
        "fn3-bit, longer": uniform(longer),
        "adabits, jointly": jointly.pop("accuracy"),
        "adabits, progressively": progressively.pop("accuracy"),
    }
    space = ours.supernet.space
    report(
        "bits",
        {
            "quantizers": len(space),
            "subnets_log10_of_fn3": sum(math.log10(gate.size) for gate in space),
            "test_accuracy": found,
            "lost_from_4_to_2_bits": {name: row[NAMES[4]] - row[NAMES[1]] for name, row in found.items()},
            "training": {
                "fn3-bit": cost(ours),
                "fn3-bit, longer: in addition": cost(longer),
                "adabits, jointly": jointly,
                "adabits, progressively": progressively,
            },
            "steps_on_the_network_of_figure_4": {
                "hard": uniform(trained_for_removal("bit", "ordered", 0)),
                "soft": uniform(soft_steps()),
            },
        },
    )


def fn3_bit() -> OpenRun:
    """The sandwich rule over seven quantizers."""
    return trained_run(Run.create(FOLDER / "fn3", Recipe.load("fashion-mnist-bit")))


def fn3_longer() -> OpenRun:
    """The same, gone on with."""
    recipe = Recipe.load("fashion-mnist-bit")
    recipe = recipe.replace(epochs=3, learning_rate=0.05, warm_up=0.2, network={"start_from": str(FOLDER / "fn3")})
    return trained_run(Run.create(FOLDER / "fn3-longer", recipe))


def cost(opened: OpenRun) -> dict[str, float]:
    """Samples and seconds of a training."""
    history = opened.run.history()
    return {"seen": history[-1]["seen"], "seconds": sum(epoch["seconds"] for epoch in history)}


def soft_steps() -> OpenRun:
    """The training of figure 4 with sigmoids for steps."""
    recipe = Recipe.load("removal/bit")
    recipe = recipe.replace(network={"bits": {**recipe.settings()["network"]["bits"], "soft": SOFT}})
    return trained_run(Run.create(FOLDER / "soft", recipe))


def uniform(opened: OpenRun) -> dict[str, float]:
    """Test accuracy with all quantizers at the same setting."""
    judge, space = Judge(opened, limit=None), opened.supernet.space
    return {
        name: judge.accuracy(space.from_counts({gate.name: steps for gate in space})) for steps, name in NAMES.items()
    }


def adabits(*, joint: bool) -> dict[str, Any]:
    """AdaBits from as many samples as FN3-bit: its accuracy, samples and seconds."""
    recipe = Recipe.load("fashion-mnist-bit")
    data = recipe_data(recipe)
    passes = recipe.sampling.full + recipe.sampling.smallest + recipe.sampling.random
    recipe = recipe.replace(epochs=recipe.epochs * passes)
    module = build(
        recipe.network.name, n_classes=data.n_classes, input_shape=data.input_shape, **recipe.network.options
    )
    net = AdaBits(module, WIDTHS)
    seconds = train_once(
        net,
        FOLDER / f"adabits-{'jointly' if joint else 'progressively'}.safetensors",
        lambda: net.load_state_dict(train_adabits(module, data, recipe, WIDTHS, joint=joint).state_dict()),
    )
    found = {}
    for bits in WIDTHS:
        with net.active(bits):
            found[f"{bits} bits"] = accuracy(net, data, "test")
    seen = recipe.epochs * data.steps_per_epoch(recipe.batch_size) * recipe.batch_size
    return {"accuracy": found, "seen": seen, "seconds": seconds}


TRAININGS: dict[str, Callable[[], OpenRun | dict[str, Any]]] = {
    "fn3-bit": fn3_bit,
    "longer": fn3_longer,
    "soft": soft_steps,
    "jointly": partial(adabits, joint=True),
    "progressively": partial(adabits, joint=False),
}


if __name__ == "__main__":
    main()
