"""The training loop: each step runs the passes that the recipe asks for, adds their gradients, and steps once.

Batch-norm running statistics are those of the full network wherever it is trained (its passes update them, the subnets'
passes leave them alone): they are what the supernet is exported with, and subnets are corrected later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fn3hw.errors import InputError
from fn3hw.space.nested import Nested
from fn3hw.training.datasets import Augment, Data
from fn3hw.training.ordered import Pass, step_passes
from fn3hw.training.recipe import Recipe
from fn3hw.training.run import Run

PROGRESS_EVERY = 10


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Args:
        epoch: epochs done.
        epochs: epochs in all.
        step: steps done.
        steps: steps in all.
        loss: mean loss of the last steps.
        seconds_left: estimated.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    seconds_left: float


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: mean loss, seconds, learning rate at its end, images seen so far (times passes)."""

    epoch: int
    loss: float
    seconds: float
    learning_rate: float
    seen: int


def train(
    net: Nested,
    data: Data,
    recipe: Recipe,
    *,
    run: Run | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[Epoch]:
    """Train a nested network by ordered dropout, in place.

    Args:
        net: the network; its parameters are trained.
        data: what to train on.
        recipe: how.
        run: folder that checkpoints are kept in after every epoch, and gone on from; None keeps none.
        progress: called every few steps.

    Returns:
        One `Epoch` per epoch, those before a resume included.

    Raises:
        InputError: the data do not fit the network, or the loss is not finite.
    """
    return Trainer(net, data, recipe, run, progress).run()


class Trainer:
    """The state of one training. `train` is the way to use it; benchmarks call `step` alone."""

    def __init__(
        self, net: Nested, data: Data, recipe: Recipe, run: Run | None, progress: Callable[[Progress], None] | None
    ) -> None:
        self.net, self.data, self.recipe, self.folder, self.report = net, data, recipe, run, progress
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net.to(self.device)
        if len(data.input_shape) == 3:
            self.net.to(memory_format=torch.channels_last)
        self.steps_per_epoch = len(data.split("train")) // recipe.batch_size
        if self.steps_per_epoch == 0:
            raise InputError(
                f"A batch of {recipe.batch_size} is more than the {len(data.split('train'))} training images."
            )
        self.optimiser = _optimiser(net, recipe)
        self.history: list[Epoch] = []

    def run(self) -> list[Epoch]:
        """Train from the last checkpoint to the end."""
        self._resume()
        self.net.train()
        for epoch in range(len(self.history), self.recipe.epochs):
            self.history.append(self._epoch(epoch))
            if self.folder:
                self.folder.save_checkpoint(
                    self.net.state_dict(), self.optimiser.state_dict(), [asdict(e) for e in self.history]
                )
        self.net.eval()
        return self.history

    def _resume(self) -> None:
        checkpoint = self.folder.load_checkpoint() if self.folder else None
        if checkpoint:
            self.net.load_state_dict(checkpoint.weights)
            self.optimiser.load_state_dict(checkpoint.optimiser)
            self.history = [Epoch(**entry) for entry in checkpoint.history]

    def _epoch(self, epoch: int) -> Epoch:
        """One epoch. All its randomness comes from (seed, epoch), so that a resumed training repeats it exactly."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
        torch.manual_seed(recipe.seed * 100_003 + epoch)
        rng = np.random.default_rng((recipe.seed, epoch))
        augment = Augment(recipe.data.shift, recipe.data.flip)
        losses, started = [], time.monotonic()
        batches = self.data.split("train").batches(recipe.batch_size, generator=generator, augment=augment)
        for index, (x, y) in enumerate(batches):
            step = epoch * self.steps_per_epoch + index
            self._set_learning_rate(step)
            losses.append(self.step(x, y, rng))
            if index % PROGRESS_EVERY == PROGRESS_EVERY - 1 or index == self.steps_per_epoch - 1:
                self._check_and_report(epoch, index, losses, started)
        seconds = time.monotonic() - started
        passes = sum(1 for _ in step_passes(self.net.space, recipe.sampling, rng))
        seen = (epoch + 1) * self.steps_per_epoch * recipe.batch_size * passes
        return Epoch(epoch, float(torch.stack(losses).mean()), seconds, self.optimiser.param_groups[0]["lr"], seen)

    def step(self, x: torch.Tensor, y: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """One step on a batch x (N, ...), y (N,): all passes of the recipe, then one update. Returns the first loss."""
        x, y = x.to(self.device), y.to(self.device)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        self.optimiser.zero_grad(set_to_none=True)
        teacher, first = None, None
        passes = list(step_passes(self.net.space, self.recipe.sampling, rng))
        has_full = any(p.is_full for p in passes)
        for one in passes:
            with self._autocast():
                logits = self._forward(one, x, frozen_statistics=has_full and not one.is_full)
                loss = self._loss(logits, y if one.from_labels else teacher)
            loss.backward()  # type: ignore[no-untyped-call]
            if one.is_full and self.recipe.sampling.distill:
                teacher = logits.detach().float().softmax(dim=1)
            first = loss.detach() if first is None else first
        self.optimiser.step()
        assert first is not None
        return first

    def _forward(self, one: Pass, x: torch.Tensor, *, frozen_statistics: bool) -> torch.Tensor:
        with frozen_norms(self.net) if frozen_statistics else nullcontext():
            if one.is_full:
                return self.net(x)  # type: ignore[no-any-return]
            with self.net.active(one.subnet):
                return self.net(x)  # type: ignore[no-any-return]

    def _loss(self, logits: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
        assert target is not None
        smoothing = self.recipe.label_smoothing if target.dim() == 1 else 0.0
        return F.cross_entropy(logits.float(), target, label_smoothing=smoothing)

    def _autocast(self) -> Any:
        if self.recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _set_learning_rate(self, step: int) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, step, self.steps_per_epoch)

    def _check_and_report(self, epoch: int, index: int, losses: list[torch.Tensor], started: float) -> None:
        loss = float(torch.stack(losses[-PROGRESS_EVERY:]).mean())
        if not math.isfinite(loss):
            raise InputError(
                f"The loss is {loss} in epoch {epoch + 1}: training has diverged.",
                hint=f"Lower learning_rate (now {self.recipe.learning_rate}); the last checkpoint is kept.",
            )
        if self.report:
            per_step = (time.monotonic() - started) / (index + 1)
            done, steps = epoch * self.steps_per_epoch + index + 1, self.recipe.epochs * self.steps_per_epoch
            self.report(Progress(epoch, self.recipe.epochs, done, steps, loss, (steps - done) * per_step))


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step: linear warm-up, then the recipe's schedule."""
    warm_up, total = int(recipe.warm_up * steps_per_epoch), recipe.epochs * steps_per_epoch
    if step < warm_up:
        return recipe.learning_rate * (step + 1) / warm_up
    if recipe.schedule == "step":
        return recipe.learning_rate * recipe.step_factor ** (step // steps_per_epoch // recipe.step_epochs)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


@contextmanager
def frozen_norms(net: nn.Module) -> Iterator[None]:
    """Within the context batch norm normalises by the batch but leaves its running statistics alone."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.momentum is not None]
    before = [m.momentum for m in norms]
    try:
        for module in norms:
            module.momentum = 0.0
        yield
    finally:
        for module, momentum in zip(norms, before, strict=True):
            module.momentum = momentum


def _optimiser(net: Nested, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = [p for p in net.parameters() if p.requires_grad]
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(
        parameters,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=nesterov,
        weight_decay=recipe.weight_decay,
    )
