"""Seconds per training step of ordered dropout and of its options, over plain training of the same network.

The ways of training take turns, step by step, so that what disturbs one disturbs all.
Usage: python benchmarks/training_cost.py [STEPS]
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import torch
from report import report

from fn3hw.space import Nested, nest
from fn3hw.space.networks import build
from fn3hw.training.datasets import Data, InMemory
from fn3hw.training.loop import Trainer
from fn3hw.training.recipe import Recipe

WAYS = {
    "plain": {"ordered": False},
    "ordered": {"ordered": True},
    "ordered + full": {"full": True},
    "ordered + full, distilled": {"full": True, "distill": True},
    "recipe (full, 2 random, layers half of the time), distilled": {
        "full": True,
        "random": 2,
        "distill": True,
        "drop": {"layer": 0.5},
    },
    "sandwich (full, smallest, 2 random), distilled": {"full": True, "smallest": True, "random": 2, "distill": True},
}


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    base = Recipe.load("fashion-mnist")
    data = random_data()
    recipes = {
        way: base.model_copy(update={"sampling": base.sampling.model_validate(options)})
        for way, options in WAYS.items()
    }
    recipes["plain, compiled"] = recipes["plain"].replace(compile=True)
    trainings = {way: Trainer(network(base), data, recipe, None, None) for way, recipe in recipes.items()}
    batch = next(data.training_batches(base.batch_size, seed=0, epoch=0))
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {way: [] for way in [*trainings, "ordered, masked"]}
    for step in range(steps + 2):
        for way, training in trainings.items():
            training.net.train()
            started = time.perf_counter()
            training.step(*batch, step)
            if step >= 2:
                seconds[way].append(time.perf_counter() - started)
        started = time.perf_counter()
        masked_step(trainings["ordered"], batch, rng)
        if step >= 2:
            seconds["ordered, masked"].append(time.perf_counter() - started)
    plain = statistics.mean(seconds["plain"])
    report(
        "training_cost",
        {
            "network": base.network.name,
            "batch_size": base.batch_size,
            "steps": steps,
            "plain_ms_per_step": 1000 * plain,
            "over_plain": {way: statistics.mean(values) / plain for way, values in seconds.items()},
        },
    )


def masked_step(training: Trainer, batch: tuple[torch.Tensor, torch.Tensor], rng: np.random.Generator) -> None:
    """Ordered dropout by masks at full size, to show what running subnets at their real size saves."""
    x, y = batch
    training.optimiser.zero_grad(set_to_none=True)
    with training.net.active(training.net.space.random(rng, prefix=True), sliced=False):
        logits = training.net(x.contiguous(memory_format=torch.channels_last))
    torch.nn.functional.cross_entropy(logits, y).backward()
    training.optimiser.step()


def network(recipe: Recipe) -> Nested:
    """The recipe's network for images of 28×28."""
    torch.manual_seed(0)
    module = build(recipe.network.name, n_classes=10, input_shape=(1, 28, 28), **recipe.network.options)
    return nest(module, torch.zeros(2, 1, 28, 28), recipe.network.levels, keep=recipe.network.keep)


def random_data() -> Data:
    """Random images in the shape of Fashion-MNIST: what they show does not change how long a step takes."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (512, 1, 28, 28), dtype=np.uint8), rng.integers(0, 10, 512)
    split = InMemory(images, labels, mean=np.full(1, 127, np.float32), std=np.full(1, 74, np.float32))
    return Data("random", dict.fromkeys(("train", "search", "test"), split), n_classes=10, input_shape=(1, 28, 28))


if __name__ == "__main__":
    main()
