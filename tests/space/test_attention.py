from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer

from fn3hw.deploy import activation_ranges, export
from fn3hw.deploy.runtime import open_session
from fn3hw.errors import InputError
from fn3hw.space import Bits, nest
from tests.networks import SEQUENCE_IMAGE, randomise, sequence_module, sequences, sequences_supernet, subnets

NAMES = ("vit", "swin", "convnext")


def batch(n: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((n, *SEQUENCE_IMAGE)).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("vit", {"path": [3, 3], "neuron": [10, 10], "layer": [4]}),
        ("swin", {"path": [2, 2, 4, 4], "neuron": [12, 12, 24, 24], "layer": [4, 4]}),
        ("convnext", {"neuron": [24, 24, 32, 32], "layer": [2, 2]}),
    ],
)
def test_heads_neurons_and_branches_of_sequences_are_gated(name: str, levels: dict[str, list[int]]) -> None:
    found: dict[str, list[int]] = {}
    for gate in sequences(name).space:
        found.setdefault(gate.level, []).append(gate.size)
    assert {level: sorted(sizes) for level, sizes in found.items()} == levels


@pytest.mark.parametrize("name", NAMES)
def test_the_full_network_is_the_users(name: str) -> None:
    module = randomise(sequence_module(name)).eval()
    with torch.no_grad():
        assert torch.allclose(sequences(name)(batch()), module(batch()), atol=1e-4)
    assert sequences(name).state_dict().keys() >= module.state_dict().keys()


@pytest.mark.parametrize("size", [(8, 8), (12, 20), (22, 14)])
@pytest.mark.parametrize("window", [(4, 4), (3, 5)])
def test_windows_are_those_of_the_original(size: tuple[int, int], window: tuple[int, int]) -> None:
    shape = (3, *size)
    module = randomise(SwinTransformer([2, 2], 8, [2], [2], list(window), num_classes=5)).eval()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    net = nest(copy.deepcopy(module), torch.zeros(2, *shape), ("path",)).eval()
    with torch.no_grad():
        assert torch.allclose(net(x), module(x), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_sliced_equals_masked_equals_the_file(name: str, data: st.DataObject) -> None:
    net, x = sequences(name), batch()
    subnet = data.draw(subnets(net.space))
    with torch.no_grad(), net.active(subnet):
        sliced = net(x).numpy()
    with torch.no_grad(), net.active(subnet, sliced=False):
        masked = net(x).numpy()
    (output,) = open_session(sequences_supernet(name).slice(subnet)).run(None, {"input": x.numpy()})
    assert np.abs(sliced - masked).max() <= 1e-4 * np.abs(masked).max()
    assert np.abs(output - masked).max() <= 1e-4 * np.abs(masked).max()


@pytest.mark.parametrize("name", NAMES)
def test_sliced_training_gives_the_gradients_of_masked_training(name: str) -> None:
    net = nest(randomise(sequence_module(name)), torch.zeros(2, *SEQUENCE_IMAGE), None).train()
    for module in net.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    subnet = net.space.random(np.random.default_rng(1), prefix=True)
    gradients = []
    for sliced in (True, False):
        net.zero_grad(set_to_none=False)
        with net.active(subnet, sliced=sliced):
            net(batch()).square().sum().backward()
        gradients.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()])
    for one, two in zip(*gradients, strict=True):
        assert torch.allclose(one, two, atol=1e-3 * float(two.abs().max() + 1e-3))


@pytest.mark.parametrize("name", NAMES)
def test_the_file_of_fewer_heads_is_smaller(name: str) -> None:
    supernet = sequences_supernet(name)
    full, smallest = supernet.space.full(), supernet.space.smallest()
    assert supernet.slice(smallest).ByteSize() < 0.7 * supernet.slice(full).ByteSize()


@pytest.mark.parametrize("name", NAMES)
def test_quantized_sequences_agree_with_their_files(name: str) -> None:
    example = torch.zeros(2, *SEQUENCE_IMAGE)
    net = nest(randomise(sequence_module(name)), example, ("neuron", "bit"), bits=Bits(groups=3)).eval()
    supernet, x = export(net), batch(64)
    assert {weight for weight, _ in net.quantizers.items()} == set(supernet.quantizers)
    for seed in range(4):
        subnet = net.space.random(np.random.default_rng(seed), prefix=seed % 2 == 0)
        with torch.no_grad(), net.active(subnet, sliced=False):
            masked = net(x).numpy()
        model = supernet.slice(subnet)
        (weights_only,) = open_session(model).run(None, {"input": x.numpy()})
        assert np.abs(weights_only - masked).max() <= 1e-4 * np.abs(masked).max()
        whole = supernet.slice(subnet, ranges=activation_ranges(model, x.numpy()))
        (integer,) = open_session(whole).run(None, {"input": x.numpy()})
        assert np.corrcoef(integer.ravel(), masked.ravel())[0, 1] > 0.97


class Crossed(nn.Module):
    """Attention of a sequence to another one, whose heads cannot be told apart from here."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.first(x), self.second(x)
        mixed, _ = self.attention(a, b, b)
        return mixed.mean(dim=1)


def test_attention_to_another_sequence_is_left_whole_with_a_reason() -> None:
    with pytest.raises(InputError, match="MultiheadAttention"):
        nest(Crossed(), torch.zeros(2, 5, 8), ("path", "neuron"))
