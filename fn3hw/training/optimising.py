"""Optimiser and learning rate of a recipe."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from fn3hw.training.recipe import Recipe


def make_optimiser(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all trainable parameters; weight decay leaves step sizes of quantizers alone."""
    trainable = [p for p in net.parameters() if p.requires_grad]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    parameters: list[dict[str, Any]] = [{"params": [p for p in trainable if p.dim()]}]
    if scalars := [p for p in trainable if not p.dim()]:
        parameters.append({"params": scalars, "weight_decay": 0.0})
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
    if recipe.optimiser == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=True)
    # Not fused: that wants a momentum buffer for every parameter, and a branch that was never run has none.
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(
        parameters, lr=rate, momentum=recipe.momentum, nesterov=nesterov, weight_decay=decay, foreach=True
    )


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step: linear warm-up, then the recipe's schedule. It depends on the step alone.

    Args:
        recipe: gives the schedule.
        step: number of the step, from 0.
        steps_per_epoch: optimiser steps of an epoch.
    """
    warm_up, total = int(recipe.warm_up * steps_per_epoch), recipe.epochs * steps_per_epoch
    if step < warm_up:
        return recipe.learning_rate * (step + 1) / warm_up
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "step":
        epoch = step // steps_per_epoch
        times = sum(epoch >= at for at in recipe.step_at) if recipe.step_at else epoch // recipe.step_epochs
        return recipe.learning_rate * recipe.step_factor**times
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))
