"""The nested quantizer (paper, sec. 2.4, eq. 5): weights as a sum of steps, of which any first ones may be kept.

A block is a pair of Heaviside steps, one on each side of zero. The first block makes {-1, 0, 1} of a scaled weight;
each further one adds a larger level, so that the levels of every setting contain those of the smaller ones, and keeping
one more block only ever raises a weight's magnitude. Kept steps are the gate; their sum are the integers of the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from fn3hw.errors import InputError


@dataclass(frozen=True, slots=True)
class Schedule:
    """The positive levels, in the order in which blocks add them.

    The paper's (sec. 5) is (1, 2, 4, 8): 2 bits {-1, 0, 1}, 3 bits up to ±2, 3 bits up to ±4, 4 bits up to ±8.

    Args:
        levels: positive integers, ascending, at most 127.
        full_precision: a last block, which adds what the steps leave: all blocks kept, a weight is what it is.

    Raises:
        InputError: the levels are not nested.
    """

    levels: tuple[int, ...] = (1, 2, 4, 8)
    full_precision: bool = False

    def __post_init__(self) -> None:
        if (
            not self.levels
            or self.levels[0] < 1
            or self.levels[-1] > 127
            or any(a >= b for a, b in pairwise(self.levels))
        ):
            raise InputError(
                f"The levels {self.levels} are not nested: each block has to add a larger one.",
                hint="Give positive integers in ascending order up to 127, such as 1, 2, 4, 8.",
            )

    @classmethod
    def of_sets(cls, sets: Sequence[Iterable[int]]) -> Schedule:
        """From the set of levels of every setting, such as ({-1, 0, 1}, {-2, -1, 0, 1, 2}).

        Raises:
            InputError: a set is not symmetric around zero, or adds anything but one larger level to the one before.
        """
        levels: list[int] = []
        for number, entries in enumerate(sets):
            found = set(entries)
            magnitudes = sorted({abs(level) for level in found} - {0})
            if found != {0, *magnitudes, *(-m for m in magnitudes)} or magnitudes[:-1] != levels:
                raise InputError(
                    f"Level set {number + 1}, {sorted(found)}, does not nest the one before: it has to hold the same "
                    "levels, zero, and one larger level with its negative."
                )
            levels = magnitudes
        return cls(tuple(levels))

    @property
    def size(self) -> int:
        """Number of blocks."""
        return len(self.levels) + self.full_precision

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Where each block's step is, in units of the scaled weight: halfway between two levels."""
        return tuple((below + level) / 2 for below, level in pairwise((0, *self.levels)))

    @property
    def heights(self) -> tuple[int, ...]:
        """What each step adds to a weight's magnitude: α of eq. 5."""
        return tuple(level - below for below, level in pairwise((0, *self.levels)))

    def is_float(self, blocks: Collection[int]) -> bool:
        """Whether the blocks with these indices leave weights unrounded."""
        return self.full_precision and len(self.levels) in blocks

    def largest(self, blocks: Collection[int]) -> int:
        """The largest level that the blocks with these indices add up to; 0 for none."""
        return sum(height for block, height in enumerate(self.heights) if block in blocks)

    def label(self, count: int) -> str:
        """What the first ``count`` blocks are called in the paper's tables, such as ``"3 bits (±4)"``."""
        if count > len(self.levels):
            return "fp32"
        return f"{(2 * count).bit_length()} bits (±{self.levels[count - 1]})"


class Quantizer(nn.Module):
    """Quantizes the weights of one layer, or of a group of layers, with one factor τ (paper, eq. 5).

    Hard steps with a straight-through gradient: a weight inside the outermost level learns as if it were not quantized,
    one outside does not. Instead of τ the step size 1/τ is learned, with the gradient and its scale of Esser et al.,
    Learned Step Size Quantization, 2020 (eq. 3 and sec. 2.2), by its logarithm: it stays positive at any learning rate,
    and an update changes it by a share of itself, whatever the size of a layer's weights. With a
    ``temperature`` the steps are sigmoids in training, as in Yang et al., Quantization Networks, 2019, and hard in
    evaluation. Hard steps are the default because they measured better by far (``benchmarks/bits.py``): what sigmoids
    learn between the levels is lost when they become steps.

    Args:
        schedule: the levels.
        weights: the weights to start from; τ = 5p / 4q with p the largest level and q the largest magnitude.
        name: what messages call it.

    Raises:
        InputError: the weights are not finite, all zero, or all the same.
    """

    def __init__(self, schedule: Schedule, weights: Sequence[torch.Tensor], *, name: str = "the layer") -> None:
        super().__init__()
        self.schedule = schedule
        self.temperature: float | None = None
        self.log_step = nn.Parameter(torch.tensor(0.8 * _largest(weights, name) / schedule.levels[-1]).log())

    @property
    def step(self) -> torch.Tensor:
        """The step size 1/τ."""
        return self.log_step.exp()

    @property
    def tau(self) -> float:
        """τ, by which weights are multiplied before they are compared with the thresholds."""
        return 1.0 / self.step.item()

    def forward(self, weight: torch.Tensor, blocks: Collection[int]) -> torch.Tensor:
        """``weight``, of any shape, as the blocks with these indices give it."""
        every = range(len(self.schedule.levels))
        if not self.schedule.is_float(blocks):
            return self._steps(weight, blocks)
        if all(block in blocks for block in every):
            return weight
        return self._steps(weight, blocks) + weight - self._steps(weight, every)

    def integers(self, weight: torch.Tensor, blocks: Collection[int]) -> torch.Tensor:
        """The integers that the file holds, int8: the quantized weight divided by the step size.

        Raises:
            InputError: the blocks keep full precision, which has no integers.
        """
        if self.schedule.is_float(blocks):
            raise InputError("With the last block kept the weights are fp32: there are no integers.")
        return quantize(weight / self.step, self.schedule, blocks).to(torch.int8)

    def _steps(self, weight: torch.Tensor, blocks: Collection[int]) -> torch.Tensor:
        if self.temperature is None or not self.training:
            return _Hard.apply(weight, self.step, self.schedule, blocks)  # type: ignore[no-any-return]
        scaled, total = weight / self.step, torch.zeros_like(weight)
        for block in blocks:
            height, threshold = self.schedule.heights[block], self.schedule.thresholds[block]
            for side in (threshold, -threshold):
                total = total + height * (torch.sigmoid(self.temperature * (scaled - side)) - 0.5)
        return total * self.step

    def extra_repr(self) -> str:
        """The levels."""
        return f"levels=±{self.schedule.levels}, full_precision={self.schedule.full_precision}"


def quantize(scaled: torch.Tensor, schedule: Schedule, blocks: Collection[int]) -> torch.Tensor:
    """Scaled weights, in units of 1/τ, to the levels that the blocks with these indices add up to (eq. 5, times τ)."""
    reached, table = 0, [0]
    for block, height in enumerate(schedule.heights):
        reached += height * (block in blocks)
        table.append(reached)
    levels = torch.tensor(table, device=scaled.device, dtype=scaled.dtype)
    thresholds = torch.tensor(schedule.thresholds, device=scaled.device, dtype=scaled.dtype)
    return levels[torch.bucketize(scaled.abs().contiguous(), thresholds)] * scaled.sign()


class _Hard(torch.autograd.Function):
    """Hard steps; the gradient passes straight through within the outermost level."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, step: torch.Tensor, schedule: Schedule, blocks: Collection[int]
    ) -> torch.Tensor:
        scaled = weight / step
        levels = quantize(scaled, schedule, blocks)
        ctx.save_for_backward(scaled, levels)
        ctx.limit = schedule.largest(blocks)
        return levels * step

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        (gradient,) = gradients
        scaled, levels = ctx.saved_tensors
        inside = scaled.abs() <= ctx.limit
        slope = torch.where(inside, levels - scaled, levels)
        of_step = (gradient * slope).sum() / (scaled.numel() * max(ctx.limit, 1)) ** 0.5
        return gradient * inside, of_step, None, None


def _largest(weights: Sequence[torch.Tensor], name: str) -> float:
    flat = torch.cat([weight.detach().reshape(-1) for weight in weights])
    if not bool(flat.isfinite().all()):
        raise InputError(f"{name} cannot be quantized: it has weights that are not finite.", hint="Train it anew.")
    largest = float(flat.abs().max())
    if largest == 0.0:
        raise InputError(f"{name} cannot be quantized: all of its weights are zero.", hint="Start from other weights.")
    if flat.numel() > 1 and float(flat.max() - flat.min()) == 0.0:
        raise InputError(
            f"{name} cannot be quantized: all of its weights are {float(flat[0]):g}.", hint="Start from other weights."
        )
    return largest
