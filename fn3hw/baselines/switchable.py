"""Switchable batch norm (Yu et al., Slimmable Neural Networks, 2019): statistics and affine parameters per setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class SwitchableNorm(nn.Module):
    """One batch norm per setting; the active one normalises.

    Args:
        norm: the batch norm that it stands for, copied for every setting.
        settings: how many.
    """

    def __init__(self, norm: nn.BatchNorm2d, settings: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum) for _ in range(settings)
        )
        for one in self.norms:
            one.load_state_dict(norm.state_dict())
        self.active = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x (N, C, H, W)."""
        return self.norms[self.active](x)  # type: ignore[no-any-return]


def make_switchable(module: nn.Module, settings: int) -> list[SwitchableNorm]:
    """Replace every batch norm of a module, in place, and return what stands there now."""
    found = []
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                switchable = SwitchableNorm(child, settings)
                setattr(parent, name, switchable)
                found.append(switchable)
    return found


@contextmanager
def switched(norms: Sequence[SwitchableNorm], setting: int) -> Iterator[Any]:
    """Within the context, batch norm is that of a setting."""
    before = [norm.active for norm in norms]
    for norm in norms:
        norm.active = setting
    try:
        yield
    finally:
        for norm, active in zip(norms, before, strict=True):
            norm.active = active
