"""Reference networks by name: the paper's MLP and ResNeXt-29, a small MobileNetV2, and torchvision's classifiers.

A network is built from its name, the number of classes and the shape of one input, so that a run folder can rebuild it.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torchvision
from torch import nn

from fn3hw.errors import InputError, UnknownName

InputShape = tuple[int, ...]


class MLP(nn.Module):
    """Fully connected network; the paper's for MNIST is 784-512-128-10 (appendix A).

    Args:
        n_classes: width of the output.
        input_shape: shape of one input, flattened before the first layer.
        hidden: widths of the hidden layers.
    """

    def __init__(self, n_classes: int, input_shape: InputShape, *, hidden: tuple[int, ...] = (512, 128)) -> None:
        super().__init__()
        widths = (math.prod(input_shape), *hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1], n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, n_classes) of a batch (N, *input_shape)."""
        logits: torch.Tensor = self.classifier(self.layers(x))
        return logits


class InvertedResidual(nn.Module):
    """The block of MobileNetV2 (Sandler et al., 2018): expand 1×1, depthwise 3×3, project 1×1, and the identity."""

    def __init__(self, width_in: int, width_out: int, *, expand: int, stride: int) -> None:
        super().__init__()
        hidden = width_in * expand
        self.expand = _conv(width_in, hidden, kernel=1)
        self.depthwise = _conv(hidden, hidden, kernel=3, stride=stride, groups=hidden)
        self.project = nn.Sequential(nn.Conv2d(hidden, width_out, 1, bias=False), nn.BatchNorm2d(width_out))
        self.identity = stride == 1 and width_in == width_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, width_in, H, W) to (N, width_out, H / stride, W / stride)."""
        y: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.identity else y


class MobileNetSmall(nn.Module):
    """A MobileNetV2 for images of 28×28 or 32×32: 8 inverted residual blocks at 1/2 and 1/4 of the resolution.

    Args:
        n_classes: width of the output.
        input_shape: (channels, height, width) of one image.
        stem: width of the first convolution.
        stem_stride: its stride.
        stages: per stage (width, number of blocks, stride of its first block).
        expand: expansion factor of every block.
        head: width of the last convolution.
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: InputShape,
        *,
        stem: int = 16,
        stem_stride: int = 1,
        stages: tuple[tuple[int, int, int], ...] = ((24, 2, 2), (40, 3, 2), (64, 3, 1)),
        expand: int = 4,
        head: int = 192,
    ) -> None:
        super().__init__()
        self.stem = _conv(input_shape[0], stem, kernel=3, stride=stem_stride)
        blocks: list[nn.Module] = []
        width = stem
        for width_out, count, stride in stages:
            for index in range(count):
                blocks.append(InvertedResidual(width, width_out, expand=expand, stride=stride if index == 0 else 1))
                width = width_out
        self.blocks = nn.Sequential(*blocks)
        self.head = _conv(width, head, kernel=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(head, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, n_classes) of a batch of images (N, C, H, W)."""
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(torch.flatten(self.pool(x), 1))  # type: ignore[no-any-return]


class AggregatedResidual(nn.Module):
    """The block of ResNeXt (Xie et al., 2017): reduce 1×1, grouped 3×3, expand 1×1, and a shortcut.

    The groups of the 3×3 convolution are the paper's paths (sec. 2.1, fig. 1 B.3).
    """

    def __init__(self, width_in: int, hidden: int, width_out: int, *, paths: int, stride: int) -> None:
        super().__init__()
        self.reduce = _conv(width_in, hidden, kernel=1, activation=nn.ReLU)
        self.paths = _conv(hidden, hidden, kernel=3, stride=stride, groups=paths, activation=nn.ReLU)
        self.expand = nn.Sequential(nn.Conv2d(hidden, width_out, 1, bias=False), nn.BatchNorm2d(width_out))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width_out, 1, stride=stride, bias=False), nn.BatchNorm2d(width_out)
            )
        self.activation = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, width_in, H, W) to (N, width_out, H / stride, W / stride)."""
        branch = self.expand(self.paths(self.reduce(x)))
        return self.activation(self.shortcut(x) + branch)  # type: ignore[no-any-return]


class ResNeXt(nn.Module):
    """ResNeXt-29 for images of 28×28 or 32×32: three stages of three modules, of 8 paths each (paper, appendix A).

    Args:
        n_classes: width of the output.
        input_shape: (channels, height, width) of one image.
        paths: groups of each grouped convolution (cardinality).
        path_width: channels per path in the first stage; each stage doubles them.
        blocks: modules per stage.
        width: of the stem; the stages put out 4, 8 and 16 times as many channels.
        stem_stride: stride of the stem.
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: InputShape,
        *,
        paths: int = 8,
        path_width: int = 64,
        blocks: tuple[int, ...] = (3, 3, 3),
        width: int = 64,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        self.stem = _conv(input_shape[0], width, kernel=3, stride=stem_stride, activation=nn.ReLU)
        stages: list[nn.Module] = []
        width_in = width
        for stage, count in enumerate(blocks):
            hidden, width_out = paths * path_width * 2**stage, 4 * width * 2**stage
            for index in range(count):
                stride = 2 if stage and not index else 1
                stages.append(AggregatedResidual(width_in, hidden, width_out, paths=paths, stride=stride))
                width_in = width_out
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width_in, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, n_classes) of a batch of images (N, C, H, W)."""
        x = self.blocks(self.stem(x))
        return self.classifier(torch.flatten(self.pool(x), 1))  # type: ignore[no-any-return]


def _conv(
    width_in: int,
    width_out: int,
    *,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] = nn.ReLU6,
) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width_out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width_out), activation())


_OWN: Mapping[str, Callable[..., nn.Module]] = {"mlp": MLP, "mobilenet_small": MobileNetSmall, "resnext29": ResNeXt}


def names() -> list[str]:
    """The names that `build` knows: our own, and ``torchvision/NAME`` for torchvision's classification models."""
    listed = torchvision.models.list_models(module=torchvision.models)
    return [*_OWN, *(f"torchvision/{name}" for name in listed)]


def build(name: str, *, n_classes: int, input_shape: InputShape, **options: Any) -> nn.Module:
    """Build a reference network with fresh random weights.

    Args:
        name: one of `names()`.
        n_classes: number of classes.
        input_shape: shape of one input, without the batch axis.
        options: keyword options of the network, such as ``hidden`` of the MLP.

    Raises:
        UnknownName: no network of that name, or no option of that name.
        InputError: an option's value does not fit.
    """
    if name not in names():
        raise UnknownName("network", name, names())
    if name in _OWN:
        factory = _OWN[name]
        known = set(inspect.signature(factory).parameters) - {"n_classes", "input_shape"}
        if unknown := set(options) - known:
            raise UnknownName(f"option of network {name}", min(unknown), known)
        options = {key: _tuples(value) for key, value in options.items()}
    try:
        if name in _OWN:
            return factory(n_classes, tuple(input_shape), **options)
        model = torchvision.models.get_model(
            name.removeprefix("torchvision/"), weights=None, num_classes=n_classes, **options
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"Network {name} cannot be built with {options}: {error}.") from error
    return model  # type: ignore[no-any-return]


def _tuples(value: Any) -> Any:
    """Lists, as TOML and JSON give them, to the tuples that the networks take."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
