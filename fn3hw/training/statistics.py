"""Running statistics of batch norm while many subnets share them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

STATISTICS_IMAGES: Final = 2048


def _norms(net: nn.Module) -> list[_BatchNorm]:
    return [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Within the context, passes in training mode normalise by their batch but leave the running statistics alone.

    A subnet's activations have other means and variances than the full network's; averaged into the same running
    statistics they fit neither.
    """
    norms = _norms(net)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        # The second keeps the count of batches, too; the first is what a sliced pass looks at.
        norm.momentum, norm.track_running_stats = 0.0, False
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.track_running_stats = momentum, True


@torch.no_grad()
def recompute_statistics(net: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replace the running statistics by the mean over the first batches of the full network's statistics on them.

    Args:
        net: the network.
        batches: images (n, ...); read until they are `STATISTICS_IMAGES`.
    """
    norms = _norms(net)
    if not norms:
        return
    training, momenta = net.training, [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches (torch.nn.BatchNorm2d)
    net.train()
    seen = 0
    for images in batches:
        net(images)
        seen += images.shape[0]
        if seen >= STATISTICS_IMAGES:
            break
    net.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
