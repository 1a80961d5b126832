from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fn3hw.deploy.integers import IntegerWeight, raise_opset
from fn3hw.deploy.runtime import open_session

LEVELS = st.sets(st.integers(1, 127), min_size=1, max_size=9).map(sorted)


def model_of(weight: IntegerWeight) -> onnx.ModelProto:
    tensors, nodes = weight.written("w")
    output = helper.make_tensor_value_info("w", TensorProto.FLOAT, weight.values.shape)
    model = helper.make_model(
        helper.make_graph(nodes, "weight", [], [output], tensors),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=7,
    )
    raise_opset(model)
    return model


@given(LEVELS, st.integers(0, 2**32 - 1), st.booleans())
def test_a_file_gives_exactly_the_weights_that_its_integers_and_scales_stand_for(
    positive: list[int], seed: int, per_channel: bool
) -> None:
    rng = np.random.default_rng(seed)
    levels = (*(-level for level in reversed(positive)), 0, *positive)
    values = rng.choice(levels, size=(3, 5)).astype(np.int8)
    scale = rng.uniform(1e-4, 2, 3 if per_channel else ()).astype(np.float32)
    weight = IntegerWeight(values, levels, np.asarray(scale, dtype=np.float32))
    model = model_of(weight)
    (found,) = open_session(model).run(None, {})
    expected = values * (scale[:, None] if per_channel else scale)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


@given(LEVELS)
def test_kernels_read_integers_whose_sums_fit_and_no_coarser_ones_than_needed(positive: list[int]) -> None:
    levels = (*(-level for level in reversed(positive)), 0, *positive)
    weight = IntegerWeight(np.array([levels], dtype=np.int8), levels, np.array(1.0, dtype=np.float32))
    tensors, _ = weight.written("w")
    held = next(numpy_helper.to_array(t) for t in tensors if t.name in ("w/levels", "w/integers"))
    largest = int(np.abs(held.astype(int)).max())
    assert largest == levels[-1] * weight.multiple
    assert weight.multiple == 1 or largest <= 64
    assert 2 * largest > 64
