"""The training loop of the baselines: every step is a few passes over one batch, then one update."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional as F

from fn3hw.training.datasets import Augment, Data
from fn3hw.training.loop import placed
from fn3hw.training.optimising import learning_rate, make_optimiser
from fn3hw.training.recipe import Recipe

Losses = Callable[[torch.Tensor, torch.Tensor], Iterable[torch.Tensor]]
"""From images (N, C, H, W) and labels (N,) to the losses whose gradients make one update."""


def train_steps(net: nn.Module, data: Data, recipe: Recipe, losses: Losses, *, first_epoch: int = 0) -> None:
    """Train a network in place, on the CPU, with the schedule of a recipe.

    Args:
        net: all parameters that are trained.
        data: what to train on.
        recipe: epochs, batch size, optimiser, schedule and augmentation; its sampling is not used.
        losses: the passes of a step; each loss is differentiated before the next one is asked for.
        first_epoch: number of the first epoch, which the order of the images depends on.
    """
    net.to(memory_format=torch.channels_last)
    optimiser, device = make_optimiser(net, recipe), torch.device("cpu")
    augment = Augment(recipe.data.shift, recipe.data.flip)
    per_epoch = data.steps_per_epoch(recipe.batch_size)
    net.train()
    step = 0
    for epoch in range(first_epoch, first_epoch + recipe.epochs):
        for x, y in data.training_batches(recipe.batch_size, seed=recipe.seed, epoch=epoch, augment=augment):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, step, per_epoch)
            optimiser.zero_grad(set_to_none=True)
            for loss in losses(placed(x, device), y):
                loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
    net.eval()


def cross_entropy(net: nn.Module) -> Losses:
    """One pass that learns from the labels."""

    def losses(x: torch.Tensor, y: torch.Tensor) -> Iterable[torch.Tensor]:
        yield F.cross_entropy(net(x), y)

    return losses
