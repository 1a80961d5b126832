"""AdaBits (Jin et al., 2019): one set of weights at several bit widths, with switchable batch norm.

Weights are quantized by the modified DoReFa scheme, in which a smaller width is a larger one cut short: tanh of the
weights, scaled to [0, 1], is rounded down to a multiple of 2**-bits. They are rescaled to the variance that keeps
activations in range (Jin et al., Towards Efficient Training for Neural Network Quantization, 2019). Training is
progressive, as the FN3 paper reproduces it (sec. 5): from many bits to few, each width for the same number of epochs;
or joint, what AdaBits itself arrives at: every step trains all widths.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from fn3hw.baselines.loop import cross_entropy, train_steps
from fn3hw.baselines.switchable import make_switchable, switched
from fn3hw.errors import InputError
from fn3hw.training.datasets import Data
from fn3hw.training.recipe import Recipe


class AdaBits(nn.Module):
    """A network at several bit widths.

    Args:
        module: the network; copied.
        widths: bits per weight, from many to few, such as (4, 3, 2).

    Raises:
        InputError: the widths do not descend, or a width is not between 1 and 8.
    """

    def __init__(self, module: nn.Module, widths: Sequence[int] = (4, 3, 2)) -> None:
        super().__init__()
        if list(widths) != sorted(set(widths), reverse=True) or not all(1 <= width <= 8 for width in widths):
            raise InputError(f"Bit widths have to descend, within 8 to 1, not {list(widths)}.")
        self.widths = tuple(widths)
        self.bits = self.widths[0]
        self.module = copy.deepcopy(module)
        self.norms = make_switchable(self.module, len(self.widths))
        self.quantized = [
            f"{name}.weight" for name, m in self.module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images x (N, C, H, W) with weights of the active width."""
        weights = {name: quantize(self.module.get_parameter(name), self.bits) for name in self.quantized}
        return torch.func.functional_call(self.module, weights, (x,))  # type: ignore[no-any-return]

    @contextmanager
    def active(self, bits: int) -> Iterator[AdaBits]:
        """Within the context, weights have so many bits, and batch norm is that of this width."""
        before, self.bits = self.bits, bits
        try:
            with switched(self.norms, self.widths.index(bits)):
                yield self
        finally:
            self.bits = before

    def losses(self, x: torch.Tensor, y: torch.Tensor) -> Iterable[torch.Tensor]:
        """One loss per width."""
        for bits in self.widths:
            with self.active(bits):
                yield F.cross_entropy(self(x), y)


def quantize(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Weights at a bit width, with a straight-through gradient."""
    bounded = torch.tanh(weight)
    unit = (bounded / bounded.detach().abs().max() + 1) / 2
    steps = 2**bits
    levels = (unit * steps).floor().clamp(max=steps - 1) / steps
    rounded = 2 * (unit + (levels - unit).detach()) - 1
    fan_out = weight[0].numel() * weight.shape[0] / weight.shape[1]
    scale = 1.0 / (fan_out**0.5 * rounded.detach().std().clamp(min=1e-8))
    quantized: torch.Tensor = rounded * scale
    return quantized


def train_adabits(
    module: nn.Module, data: Data, recipe: Recipe, widths: Sequence[int] = (4, 3, 2), *, joint: bool = False
) -> AdaBits:
    """Train a network at several bit widths; the recipe's passes over the data are shared out equally.

    Args:
        module: the network, untrained; copied.
        data: what to train on.
        recipe: epochs in all, batch size, optimiser and augmentation.
        widths: bits per weight, from many to few.
        joint: every step trains all widths. Otherwise one follows the other, and each has the whole schedule.
    """
    net = AdaBits(module, widths)
    phase = recipe.replace(epochs=max(1, recipe.epochs // len(net.widths)))
    if joint:
        train_steps(net, data, phase, net.losses)
        return net
    for number, bits in enumerate(net.widths):
        if number:
            for before, after in zip(*(_states(net, n) for n in (number - 1, number)), strict=True):
                after.load_state_dict(before.state_dict())
        with net.active(bits):
            train_steps(net, data, phase, cross_entropy(net), first_epoch=number * phase.epochs)
    return net


def _states(net: AdaBits, setting: int) -> list[Any]:
    return [norm.norms[setting] for norm in net.norms]
