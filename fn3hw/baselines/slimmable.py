"""Fixed settings in one network: slimmable networks and nested n-in-1 levels.

Slimmable networks (Yu et al., 2019) train a few widths together, each with batch norm of its own. NestedNet (Kim et
al., 2018) trains n nested levels together, which share all they have in common, batch norm as well. Both train every
setting in every step, on the labels; the settings here are ordered subnets of the same nested network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from fn3hw.baselines.loop import train_steps
from fn3hw.errors import InputError
from fn3hw.space import Nested, SearchSpace, Subnet
from fn3hw.training.datasets import Data
from fn3hw.training.recipe import Recipe


class Slimmable(nn.Module):
    """A nested network at a few fixed subnets.

    Args:
        net: the network; its parameters are trained in place.
        subnets: the settings, each an ordered subnet.
        switchable: every setting has batch norm of its own, scales and offsets included.

    Raises:
        InputError: there is no setting, or one of them is not ordered.
    """

    def __init__(self, net: Nested, subnets: Sequence[Subnet], *, switchable: bool = True) -> None:
        super().__init__()
        if not subnets or not all(subnet.is_prefix for subnet in subnets):
            raise InputError("A slimmable network needs at least one setting, and all of them ordered subnets.")
        self.net, self.subnets, self.setting = net, tuple(subnets), 0
        norms = {name: m for name, m in net.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
        self.norm_names = tuple(norms) if switchable else ()
        self.norms = nn.ModuleList(
            nn.ModuleList(copy.deepcopy(norms[name]) for name in self.norm_names) for _ in subnets
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images x (N, C, H, W) in the active setting."""
        own = self.norms[self.setting]
        assert isinstance(own, nn.ModuleList)
        tensors = {
            f"{name}.{key}": tensor
            for name, norm in zip(self.norm_names, own, strict=True)
            for key, tensor in (*norm.named_parameters(), *norm.named_buffers())
        }
        with self.net.active(self.subnets[self.setting]):
            return torch.func.functional_call(self.net, tensors, (x,))  # type: ignore[no-any-return]

    @contextmanager
    def active(self, setting: int) -> Iterator[Slimmable]:
        """Within the context, the setting of this number runs."""
        before, self.setting = self.setting, setting
        try:
            yield self
        finally:
            self.setting = before

    def losses(self, x: torch.Tensor, y: torch.Tensor) -> Iterable[torch.Tensor]:
        """One loss per setting."""
        for setting in range(len(self.subnets)):
            with self.active(setting):
                yield F.cross_entropy(self(x), y)


def train_slimmable(
    net: Nested, data: Data, recipe: Recipe, subnets: Sequence[Subnet], *, switchable: bool = True
) -> Slimmable:
    """Train a few settings of a network together.

    Args:
        net: the network, untrained; trained in place.
        data: what to train on.
        recipe: epochs, batch size, optimiser and augmentation.
        subnets: the settings.
        switchable: as in slimmable networks; False shares batch norm, as in NestedNet.
    """
    slimmable = Slimmable(net, subnets, switchable=switchable)
    train_steps(slimmable, data, recipe, slimmable.losses)
    return slimmable


def uniform_subnet(space: SearchSpace, share: float) -> Subnet:
    """The ordered subnet that keeps the same share of every gate, but for what it has to keep."""
    return space.from_counts({gate.name: max(gate.min_kept, round(share * gate.size)) for gate in space})
