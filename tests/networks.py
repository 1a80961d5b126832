"""Small networks and Hypothesis strategies that the tests of several packages share."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from fn3hw.deploy import Supernet, export
from fn3hw.space import Bits, Gate, Nested, Schedule, SearchSpace, Subnet, nest
from fn3hw.space.networks import build

IMAGE = (1, 12, 12)


class SqueezeExcite(nn.Module):
    """Channels scaled by a function of their own means, as in MobileNetV3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool, self.act, self.scale = nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Hardsigmoid()
        self.reduce, self.grow = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale(self.grow(self.act(self.reduce(self.pool(x)))))


class Zoo(nn.Module):
    """One of everything that `nest` handles: residual branches, depthwise, squeeze-and-excitation, flatten, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.a = self._branch(6, 8)
        self.b = self._branch(6, 6)
        self.down = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.SiLU())
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(8 * 9, 16)
        self.classifier = nn.Linear(16, 5)

    @staticmethod
    def _branch(width: int, hidden: int) -> nn.Sequential:
        depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        return nn.Sequential(
            *(nn.Conv2d(width, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish()),
            *(depthwise, nn.BatchNorm2d(hidden), SqueezeExcite(hidden)),
            *(nn.Conv2d(hidden, width, 1, bias=False), nn.BatchNorm2d(width)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.a(x)
        x = torch.relu(x + self.b(x))
        x = torch.flatten(self.pool(self.down(x)), 1)
        return self.classifier(torch.relu(self.hidden(x)))


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and batch-norm statistics that make every channel count."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(noise.abs() + 0.5 if "running_var" in name else noise * 0.4)
    return module


@cache
def zoo(beta: bool = False) -> Nested:
    """The nested `Zoo`, in evaluation mode. Shared between tests: do not train it."""
    net = nest(randomise(Zoo()), torch.zeros(2, *IMAGE), ("channel", "neuron", "layer"), beta=beta)
    return net.eval()


@cache
def zoo_supernet(beta: bool = False) -> Supernet:
    """`zoo` as ONNX."""
    return export(zoo(beta))


@cache
def small_mobilenet() -> Nested:
    """A tiny nested MobileNetV2 in evaluation mode. Shared between tests: do not train it."""
    net = build(
        "mobilenet_small", n_classes=4, input_shape=IMAGE, stem=4, stages=[[6, 2, 2], [8, 2, 1]], expand=2, head=12
    )
    return nest(randomise(net), torch.zeros(2, *IMAGE), ("channel", "layer")).eval()


def images(n: int = 4, seed: int = 0) -> np.ndarray:
    """Random images (n, 1, 12, 12)."""
    return np.random.default_rng(seed).standard_normal((n, *IMAGE)).astype(np.float32)


@cache
def resnext() -> Nested:
    """A tiny ResNeXt-29 with paths and layers gated. Shared between tests: do not train it."""
    module = build("resnext29", n_classes=4, input_shape=IMAGE, paths=4, path_width=2, blocks=[1, 2], width=4)
    return nest(randomise(module), torch.zeros(2, *IMAGE), ("path", "layer")).eval()


@cache
def resnext_supernet() -> Supernet:
    """The exported `resnext`."""
    return export(resnext())


SEQUENCE_IMAGE = (3, 12, 12)


def sequence_module(name: str) -> nn.Module:
    """A tiny vision transformer, Swin transformer (windows that are padded and shifted) or ConvNeXt."""
    if name == "vit":
        return VisionTransformer(12, 4, num_layers=2, num_heads=3, hidden_dim=12, mlp_dim=10, num_classes=5)
    if name == "swin":
        return SwinTransformer([2, 2], 8, [2, 2], [2, 4], [4, 4], mlp_ratio=1.5, num_classes=5)
    stages = [CNBlockConfig(6, 8, 2), CNBlockConfig(8, None, 2)]
    return ConvNeXt(stages, stochastic_depth_prob=0.1, layer_scale=0.5, num_classes=5)


@cache
def sequences(name: str) -> Nested:
    """A nested `sequence_module`. Shared between tests: do not train it."""
    return nest(randomise(sequence_module(name)), torch.zeros(2, *SEQUENCE_IMAGE), None).eval()


@cache
def sequences_supernet(name: str) -> Supernet:
    """The exported `sequences`."""
    return export(sequences(name))


@cache
def quantized() -> tuple[Nested, Supernet]:
    """A quantized `Zoo` and its supernet. Shared between tests: do not train it."""
    bits = Bits(schedule=Schedule(full_precision=True), groups=4)
    net = nest(randomise(Zoo()), torch.zeros(2, *IMAGE), ("bit", "channel", "layer"), bits=bits).eval()
    return net, export(net)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Search spaces of up to six gates of any level."""
    levels = draw(st.lists(st.sampled_from(("neuron", "channel", "path", "layer")), min_size=1, max_size=6))
    gates = []
    for index, level in enumerate(levels):
        size = draw(st.integers(1, 70))
        gates.append(Gate(f"g{index}", level, size, draw(st.integers(0, size))))
    return SearchSpace(gates)


@st.composite
def subnets(draw: st.DrawFn, space: SearchSpace) -> Subnet:
    """Any subnet of a space, ordered or not."""
    seed, prefix = draw(st.integers(0, 2**32 - 1)), draw(st.booleans())
    return space.random(np.random.default_rng(seed), prefix=prefix)
