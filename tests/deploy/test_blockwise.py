from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fn3hw.deploy import Supernet, activation_ranges, export
from fn3hw.deploy.blockwise import BLOCK, OVERHEAD_BITS, block_bits
from fn3hw.deploy.integers import storage_bits
from fn3hw.deploy.runtime import open_session
from fn3hw.errors import InputError
from fn3hw.space import Bits, Schedule, nest
from tests.networks import images, quantized, subnets


def linear(inputs: int, outputs: int, schedule: Schedule) -> Supernet:
    torch.manual_seed(inputs + outputs)
    return export(
        nest(nn.Sequential(nn.Linear(inputs, outputs)), torch.zeros(1, inputs), ("bit",), bits=Bits(schedule=schedule))
    )


@settings(deadline=None, max_examples=25)
@given(
    st.integers(2, 300),
    st.integers(1, 20),
    st.sampled_from(((1,), (1, 2, 4), (1, 3, 7), tuple(range(1, 12)))),
    st.sampled_from((1, 2, 3, 11)),
    st.integers(0, 2**16),
)
def test_what_eight_bits_hold_is_computed_exactly(
    inputs: int, outputs: int, levels: tuple[int, ...], count: int, seed: int
) -> None:
    supernet = linear(inputs, outputs, Schedule(levels))
    (bits,) = supernet.space
    subnet = supernet.space.from_counts({bits.name: min(count, bits.size)})
    x = np.random.default_rng(seed).integers(-127, 128, (5, inputs)).astype(np.float32)
    x[:, ::BLOCK] = 127  # the kernel's scale of a block is its largest entry over 127
    weights_only = supernet.slice(subnet)
    ranges = activation_ranges(weights_only, x)
    model = supernet.with_blockwise(supernet.blockwise_layers()).slice(subnet, ranges=ranges)
    assert [node.op_type for node in model.graph.node] == ["MatMulNBits"]
    expected, found = (open_session(one).run(None, {"input": x})[0] for one in (weights_only, model))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_files_with_blocks_agree_with_integer_weights(data: st.DataObject) -> None:
    _, supernet = quantized()
    subnet, x = data.draw(subnets(supernet.space)), images(64)
    layers = data.draw(st.sets(st.sampled_from(supernet.blockwise_layers())))
    weights_only = supernet.slice(subnet)
    model = supernet.with_blockwise(layers).slice(subnet, ranges=activation_ranges(weights_only, x))
    in_blocks = {node.name for node in model.graph.node if node.op_type == "MatMulNBits"}
    quantizers = {layer: supernet.quantizers[f"{layer}.weight"] for layer in layers}
    kept = {layer: (one, subnet.blocks(one.gate)) for layer, one in quantizers.items()}
    assert in_blocks == {
        layer for layer, (one, blocks) in kept.items() if not one.is_float(blocks) and block_bits(one.levels(blocks))
    }
    expected, found = (open_session(one).run(None, {"input": x})[0] for one in (weights_only, model))
    assert np.abs(found - expected).max() <= 0.15 * np.abs(expected).max()


def test_full_precision_stays_what_it_is() -> None:
    _, supernet = quantized()
    full = supernet.space.full()
    blockwise = supernet.with_blockwise(supernet.blockwise_layers())
    assert blockwise.deployed(full) == supernet.deployed(full)
    assert (blockwise.digest, blockwise.architecture) == (supernet.digest, supernet.architecture)


def test_the_bytes_of_blocks_are_counted() -> None:
    supernet = linear(4 * BLOCK, 100, Schedule((1, 2, 4, 8), full_precision=True))
    blockwise = supernet.with_blockwise(supernet.blockwise_layers())
    (weight,) = (one for one in blockwise.parameters() if one.precision)
    assert weight.precision is not None and weight.precision[1] == (
        *(bits + OVERHEAD_BITS for bits in (2, 4, 4)),
        4,
        32,
    )
    name, bits = weight.precision
    for count, per_weight in enumerate(bits[:3], 1):
        model = blockwise.deployed(supernet.space.from_counts({name: count}))
        held = sum(len(t.raw_data) for t in model.graph.initializer if t.name.startswith(weight.name))
        assert held == weight.fixed_bytes * per_weight / 32


@given(st.lists(st.integers(1, 127), min_size=1, max_size=9, unique=True))
def test_blocks_are_used_where_they_pack_no_worse(levels: list[int]) -> None:
    every = (*sorted(-level for level in levels), 0, *sorted(levels))
    bits = block_bits(every)
    assert bits is None or (max(levels) < 2 ** (bits - 1) and bits <= storage_bits(every))
    assert bits is not None or storage_bits(every) < 8


def test_layers_without_the_choice_are_refused() -> None:
    _, supernet = quantized()
    with pytest.raises(InputError, match="No linear layers with quantized weights: stem"):
        supernet.with_blockwise(["stem"])
