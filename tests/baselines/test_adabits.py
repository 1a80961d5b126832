from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fn3hw.baselines.adabits import AdaBits, quantize, train_adabits
from fn3hw.errors import InputError
from fn3hw.space.networks import build
from fn3hw.training.loop import accuracy
from tests.training.conftest import make_data, make_recipe


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999), st.integers(1, 7))
def test_fewer_bits_are_more_bits_cut_short(seed: int, bits: int) -> None:
    weight = torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(seed))
    fine, coarse = (level_numbers(weight, b) for b in (bits + 1, bits))
    assert torch.equal(fine // 2, coarse)
    assert int(coarse.max()) <= 2**bits - 1 and int(coarse.min()) >= 0


def level_numbers(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Which of its 2**bits levels each weight has, from the quantized weights alone."""
    found = quantize(weight, bits)
    step = torch.diff(found.unique()).min()
    lowest = -1 * step * 2 ** (bits - 1)
    return ((found - lowest) / step).round().long()


def test_the_gradient_reaches_the_weights() -> None:
    weight = torch.randn(8, 4, 3, 3).requires_grad_()
    quantize(weight, 2).sum().backward()
    assert weight.grad is not None and bool((weight.grad > 0).all())


@pytest.mark.parametrize("widths", [(2, 4), (4, 4), (9, 2), (4, 0)])
def test_widths_that_make_no_sense(widths: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="descend"):
        AdaBits(nn.Linear(2, 2), widths)


@pytest.mark.parametrize("joint", [False, True])
def test_it_learns_and_every_width_has_its_own_batch_norm(joint: bool) -> None:
    data = make_data(300)
    module = build("mobilenet_small", n_classes=3, input_shape=(1, 8, 8), stem=8, stages=[[8, 2, 2]], expand=3, head=16)
    recipe = make_recipe(epochs=24, sampling={"ordered": False, "full": False, "distill": False})
    net = train_adabits(module, data, recipe, (4, 2), joint=joint)
    for bits in (4, 2) if joint else (2,):
        with net.active(bits):
            assert accuracy(net, data, "test") > 60
    statistics = [torch.cat([norm.norms[i].running_mean for norm in net.norms]) for i in (0, 1)]
    assert not torch.allclose(*statistics)
