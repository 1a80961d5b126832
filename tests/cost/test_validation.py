from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fn3hw.cost import fit_cost, score
from fn3hw.cost.intervals import jackknife_plus, without_noise
from fn3hw.cost.validation import comparators, compare, count_macs
from tests.cost.synthetic import Machine, measure, subnets


def test_the_cost_model_beats_simple_models():
    profile = measure(Machine(), subnets(20, 0), subnets(40, 1)[1:], noise=0.004)
    macs = lambda subnet: 160.0 * subnet.counts["a"] + 9.0 * subnet.counts["d"] * subnet.counts["e"]  # noqa: E731
    found = compare(profile, comparators(profile, macs=macs))
    assert set(found) == {"gradient boosting", "random forest", "look-up table", "FLOPs"}
    ours = fit_cost(profile).holdout.mape
    assert all(ours < 0.6 * other.mape for other in found.values())


def test_without_kernel_times_there_is_no_look_up_table():
    profile = measure(Machine(), subnets(20, 0), kernels=False)
    assert set(comparators(profile)) == {"gradient boosting", "random forest"}
    assert compare(profile, comparators(profile)) == {}


def test_score_counts_what_it_says():
    found = score(np.array([1.0, 1.0, 2.0, 4.0]), np.array([1.04, 1.2, 2.0, 4.0]))
    assert found.mape == pytest.approx(0.06)
    assert (found.within_5pct, found.within_10pct, found.n) == (0.75, 0.75, 4)
    assert found.coverage is None
    held = score(np.array([1.0, 2.0]), np.ones(2), interval=(np.full(2, 0.9), np.full(2, 1.1)))
    assert held.coverage == 0.5
    flat = score(np.ones(3), np.ones(3))
    assert np.isnan(flat.spearman)
    assert flat.to_json()["spearman"] is None


def test_jackknife_plus_takes_the_order_statistic_that_covers():
    residuals, same = np.arange(1, 20) / 100.0, np.ones((19, 3))
    low, high = jackknife_plus(same, residuals, level=0.9)
    assert (low, high) == (pytest.approx([0.82] * 3), pytest.approx([1.18] * 3))  # the 18th of 19
    assert jackknife_plus(same[:4], residuals[:4], level=0.9)[1] == pytest.approx([1.04] * 3)


@given(seed=st.integers(0, 10_000), n=st.integers(4, 60), share=st.floats(0.0, 2.0))
def test_noise_is_taken_out_of_residuals_as_variances_add_up(seed: int, n: int, share: float):
    residuals = np.random.default_rng(seed).normal(0.0, 0.02, n)
    noise = np.full(n, np.sqrt(share * np.mean(residuals**2)))
    left = without_noise(residuals, noise)
    assert np.mean(left**2) == pytest.approx(max(1 - share, 0.25) * np.mean(residuals**2))
    assert np.argsort(left).tolist() == np.argsort(residuals).tolist()
    assert without_noise(np.zeros(n), noise).tolist() == [0.0] * n


@given(seed=st.integers(0, 10_000), n=st.integers(2, 30), level=st.floats(0.1, 0.99))
def test_surer_intervals_are_wider_and_so_are_those_of_fits_that_disagree(seed: int, n: int, level: float):
    rng = np.random.default_rng(seed)
    left_out, residuals = 1 + 0.1 * rng.uniform(-1, 1, (n, 4)), rng.uniform(-0.1, 0.1, n)
    low, high = jackknife_plus(left_out, residuals, level=level)
    surer = jackknife_plus(left_out, residuals, level=(1 + level) / 2)
    assert (surer[0] <= low).all()
    assert (high <= surer[1]).all()
    agreed = np.broadcast_to(left_out.mean(axis=0), left_out.shape)
    alike = np.full(n, 0.02)
    disputed, plain = jackknife_plus(left_out, alike, level=1.0), jackknife_plus(agreed, alike, level=1.0)
    assert (disputed[0] <= plain[0]).all()
    assert (disputed[1] >= plain[1]).all()


def test_macs_of_a_convolution_and_a_product():
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
            helper.make_node("Flatten", ["y"], ["f"]),
            helper.make_node("Gemm", ["f", "v"], ["z"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 10])],
        [
            onnx.numpy_helper.from_array(np.zeros((5, 3, 3, 3), np.float32), "w"),
            onnx.numpy_helper.from_array(np.zeros((10, 320), np.float32), "v"),
        ],
    )
    assert count_macs(helper.make_model(graph)) == 5 * 8 * 8 * 27 + 10 * 320
