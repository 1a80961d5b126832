"""The training loop: each step runs the passes that the recipe asks for, adds their gradients, and steps once.

Batch-norm running statistics are those of the full network. Where every step trains it, its passes update them and the
subnets' passes leave them alone; otherwise they are computed anew for it at the end. They are what the supernet is
exported with, and subnets are corrected later.

All randomness of a step comes from its number, so that a training may stop after any step and go on exactly.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional as F

from fn3hw.errors import InputError
from fn3hw.space.files import only_writer
from fn3hw.space.nested import Nested
from fn3hw.training import checkpoint
from fn3hw.training.build import check_fits
from fn3hw.training.checkpoint import Position
from fn3hw.training.datasets import Augment, Data
from fn3hw.training.distributed import Ranks
from fn3hw.training.optimising import learning_rate, make_optimiser
from fn3hw.training.ordered import Pass, step_passes
from fn3hw.training.recipe import Recipe
from fn3hw.training.run import WEIGHTS, Run
from fn3hw.training.statistics import frozen_statistics, recompute_statistics

PROGRESS_EVERY: Final = 10
"""Steps between two looks at the loss; on a GPU each look waits for the device."""
EVALUATION_BATCH: Final = 256
Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Args:
        epoch: epochs done.
        epochs: epochs in all.
        step: steps done.
        steps: steps in all.
        loss: mean loss of the current epoch so far.
        seconds_left: estimated from the steps of this call.
        accuracy: of the full network on the search split after the last epoch, in percent; None where not evaluated.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    seconds_left: float
    accuracy: float | None = None


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave.

    Args:
        epoch: its number, from 0.
        loss: mean over its steps of the first pass's loss: the full network's, where every step trains it.
        seconds: its duration.
        learning_rate: of its last step.
        seen: images seen since the start, times passes.
        accuracy: of the full network on the search split, in percent; None where not evaluated.
    """

    epoch: int
    loss: float
    seconds: float
    learning_rate: float
    seen: int
    accuracy: float | None = None


History = list[Epoch]
"""One entry per epoch."""


def train(
    net: Nested,
    data: Data,
    recipe: Recipe,
    *,
    run: Run | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> History:
    """Train a nested network by ordered dropout, in place; on a GPU where there is one. It comes back on the CPU.

    Under ``torchrun`` the processes share each batch of the recipe's ``batch_size``; the first of them writes the run.

    Args:
        net: the network; its parameters are trained.
        data: what to train on.
        recipe: how.
        run: folder that is gone on from, and that checkpoints, history and the trained weights are kept in; where its
            training is complete, the weights are loaded. None keeps nothing.
        progress: called every few steps; an exception from it ends the training.

    Returns:
        One `Epoch` per epoch, those before a resume included.

    Raises:
        InputError: the data do not fit the network, the loss is not finite, or the disk is full. The last checkpoint is
            kept.
        RunError: the run's checkpoint is damaged or of another training, or another program trains it.
    """
    check_fits(net, data)
    if run is not None and run.is_trained:
        net.load_state_dict(run.load_weights())
        net.eval()
        return [Epoch(**entry) for entry in run.history()]
    ranks = Ranks.join()
    alone = only_writer(run.folder / WEIGHTS) if run is not None and ranks.is_first else nullcontext()
    with torch.random.fork_rng(), alone:
        return Trainer(net, data, recipe, run, progress, ranks).run()


class Trainer:
    """The state of one training. `train` is the way to use it; benchmarks call `step` alone."""

    def __init__(
        self,
        net: Nested,
        data: Data,
        recipe: Recipe,
        run: Run | None,
        progress: Callable[[Progress], None] | None,
        ranks: Ranks | None = None,
    ) -> None:
        self.net, self.data, self.recipe, self.folder = net, data, recipe, run
        self.ranks = ranks or Ranks()
        self.report = progress if self.ranks.is_first else None
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and self.device.type == "cuda")
        self.net.to(self.device)
        if len(data.input_shape) == 3:
            self.net.to(memory_format=torch.channels_last)
        self.full: Forward = _compiled(self.net, self.device) if recipe.compile else self.net
        self.steps_per_epoch = data.steps_per_epoch(recipe.batch_size)
        self.optimiser = make_optimiser(net, recipe)
        self.augment = Augment(recipe.data.shift, recipe.data.flip)
        self.position = Position()

    def run(self) -> History:
        """Train from the last checkpoint to the end."""
        torch.manual_seed(self.recipe.seed)
        self.ranks.check_alike(self._digest())
        self._resume()
        self.started, self.steps_before = time.monotonic(), self._step_number()
        while self.position.epoch < self.recipe.epochs:
            self._epoch()
        if not self.recipe.sampling.trains_full:
            batches = self.data.training_batches(
                self.recipe.batch_size, seed=self.recipe.seed, epoch=self.recipe.epochs
            )
            recompute_statistics(self.net, (self._placed(x) for x, _ in batches))
        self.net.eval()
        self.net.to("cpu")
        if self.folder is not None and self.ranks.is_first:
            self.folder.save_weights(self.net.state_dict())
            checkpoint.remove(self.folder.folder)
        self.ranks.wait()
        return [Epoch(**entry) for entry in self.position.history]

    def _epoch(self) -> None:
        recipe, position = self.recipe, self.position
        self.resumed_at = self.saved_at = time.monotonic()
        self.net.train()
        losses = torch.tensor(position.loss_sum, dtype=torch.float64, device=self.device)
        batches = self.data.training_batches(
            recipe.batch_size, seed=recipe.seed, epoch=position.epoch, augment=self.augment, start=position.batch
        )
        for x, y in batches:
            self._set_learning_rate()
            self._set_temperature()
            losses += self.step(x, y, self._step_number())
            position.batch += 1
            if position.batch % PROGRESS_EVERY == 0 or position.batch == self.steps_per_epoch:
                losses = self.ranks.mean(losses)
                position.loss_sum = float(losses)
                self._look()
        self._finish_epoch()

    def step(self, x: torch.Tensor, y: torch.Tensor, number: int) -> torch.Tensor:
        """One step on a batch x (N, ...), y (N,): all passes of the recipe, then one update.

        Args:
            x: normalised images.
            y: labels.
            number: of the step, from 0: it decides which subnets are drawn.

        Returns:
            The loss of the first pass.
        """
        share = len(self.ranks.share(y)) / len(y)
        x, y = self._placed(self.ranks.share(x)), self.ranks.share(y).to(self.device)
        sampling, teacher, first = self.recipe.sampling, None, None
        self.optimiser.zero_grad(set_to_none=True)
        for one in step_passes(self.net.space, sampling, seed=self.recipe.seed, step=number):
            logits = self._forward(one, x)
            loss = self._loss(logits, y if one.from_labels else teacher)
            loss.backward()  # type: ignore[no-untyped-call]
            if one.is_full and sampling.distill:
                teacher = logits.detach().softmax(dim=1)
            first = loss.detach() if first is None else first
        self.ranks.average_gradients(self.net, share=share)
        if self.recipe.clip_gradient is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip_gradient)
        self.optimiser.step()
        assert first is not None
        return first

    def _forward(self, one: Pass, x: torch.Tensor) -> torch.Tensor:
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)
        if one.is_full:
            with autocast:
                return self.full(x).float()
        statistics: AbstractContextManager[None] = nullcontext()
        if self.recipe.sampling.trains_full:
            statistics = frozen_statistics(self.net)
        with statistics, self.net.active(one.subnet), autocast:
            return self.net(x).float()  # type: ignore[no-any-return]

    def _loss(self, logits: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
        assert target is not None
        smoothing = self.recipe.label_smoothing if target.dim() == 1 else 0.0
        return F.cross_entropy(logits, target, label_smoothing=smoothing)

    def _look(self) -> None:
        """Check the loss, save where it is time, and report."""
        position, now = self.position, time.monotonic()
        if not math.isfinite(position.loss_sum):
            raise self._diverged()
        if now - self.saved_at > 60 * self.recipe.checkpoint_minutes and position.batch < self.steps_per_epoch:
            self._check_weights()
            self._save()
        if self.report is not None:
            done, steps = self._step_number(), self.recipe.epochs * self.steps_per_epoch
            left = (steps - done) * (now - self.started) / (done - self.steps_before)
            loss = position.loss_sum / position.batch
            self.report(Progress(position.epoch, self.recipe.epochs, done, steps, loss, left, self._last_accuracy()))

    def _finish_epoch(self) -> None:
        position, recipe = self.position, self.recipe
        self._check_weights()
        self.ranks.copy_from_first(self.net.buffers())
        passes = sum(1 for _ in step_passes(self.net.space, recipe.sampling, seed=recipe.seed, step=0))
        limit = recipe.evaluate
        epoch = Epoch(
            epoch=position.epoch,
            loss=position.loss_sum / position.batch,
            seconds=position.epoch_seconds + time.monotonic() - self.resumed_at,
            learning_rate=self.optimiser.param_groups[0]["lr"],
            seen=(position.epoch + 1) * self.steps_per_epoch * recipe.batch_size * passes,
            accuracy=accuracy(self.net, self.data, "search", limit=limit) if limit else None,
        )
        self.position = Position(epoch=position.epoch + 1, history=[*position.history, asdict(epoch)])
        self._save()
        if self.folder is not None and self.ranks.is_first:
            self.folder.replace_history(self.position.history)
        self.ranks.wait()

    def _save(self) -> None:
        if self.folder is None or not self.ranks.is_first:
            return
        now, position = time.monotonic(), self.position
        if position.batch:
            position.epoch_seconds += now - self.resumed_at
            self.resumed_at = now
        checkpoint.save(self.folder.folder, position, self.net, self.optimiser, digest=self._digest())
        self.saved_at = now

    def _resume(self) -> None:
        if self.folder is None:
            return
        found = checkpoint.load(self.folder.folder, self.net, self.optimiser, digest=self._digest())
        self.position = found or Position()
        if self.ranks.is_first:
            self.folder.replace_history(self.position.history)

    def _digest(self) -> str:
        """Of all that the result of the training depends on, but for the code and how it is compiled."""
        recipe = self.recipe.model_dump(mode="json", exclude={"checkpoint_minutes", "compile"}, exclude_none=True)
        data = [self.data.name, self.data.input_shape, self.data.n_classes, len(self.data.split("train"))]
        return hashlib.sha256(json.dumps([recipe, data, self.net.space.digest]).encode()).hexdigest()

    def _step_number(self) -> int:
        return self.position.epoch * self.steps_per_epoch + self.position.batch

    def _set_learning_rate(self) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, self._step_number(), self.steps_per_epoch)

    def _set_temperature(self) -> None:
        """Soft steps harden as training goes on (Yang et al., Quantization Networks, 2019)."""
        bits = self.recipe.network.bits
        if bits is not None and bits.soft is not None:
            done = (self._step_number() + 1) / (self.recipe.epochs * self.steps_per_epoch)
            for _, quantizer in self.net.quantizers.values():
                quantizer.temperature = done * bits.soft

    def _last_accuracy(self) -> float | None:
        return self.position.history[-1]["accuracy"] if self.position.history else None

    def _placed(self, x: torch.Tensor) -> torch.Tensor:
        return placed(x, self.device)

    def _check_weights(self) -> None:
        """The loss tells a step late: a checkpoint must not hold what it has not seen yet."""
        if not all(bool(p.isfinite().all()) for p in self.net.parameters()):
            raise self._diverged()

    def _diverged(self) -> InputError:
        kept = " The checkpoint from before is kept." if self.folder is not None else ""
        rate: Any = self.optimiser.param_groups[0]["lr"]
        return InputError(
            f"The loss is not finite in epoch {self.position.epoch + 1}, where the learning rate was {rate:g}: "
            f"training has diverged.{kept}",
            hint=f"Lower learning_rate (now {self.recipe.learning_rate:g}), or set warm_up or clip_gradient.",
        )


def _compiled(net: Nested, device: torch.device) -> Forward:
    """The network, compiled when it first runs."""
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise InputError(
            f"compile = true needs a C++ compiler, and there is no {compiler} here.",
            hint="Install one, name it in the environment variable CXX, or leave compile out of the recipe.",
        )
    return torch.compile(net)


@torch.no_grad()
def accuracy(net: nn.Module, data: Data, split: str, *, limit: int | None = None) -> float:
    """Top-1 accuracy of a network, of a nested one the full one's, in percent, batch norm as it is.

    Args:
        net: the network; its mode is kept.
        data: the images.
        split: ``train``, ``search`` or ``test``.
        limit: only the first so many images.
    """
    training, device = net.training, next(net.parameters()).device
    net.eval()
    right = total = 0
    try:
        for x, y in data.batches(split, EVALUATION_BATCH, limit=limit):
            right += int((net(placed(x, device)).argmax(dim=1).cpu() == y).sum())
            total += len(y)
    finally:
        net.train(training)
    return 100.0 * right / total


def placed(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Images on a device, channels last where they are (N, C, H, W)."""
    x = x.to(device, non_blocking=True)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
