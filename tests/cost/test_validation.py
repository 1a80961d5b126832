from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fn3hw.cost import fit_cost, score
from fn3hw.cost.intervals import conformal
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
    flat = score(np.ones(3), np.ones(3))
    assert np.isnan(flat.spearman)
    assert flat.to_json()["spearman"] is None


def test_conformal_takes_the_order_statistic_that_covers():
    residuals = np.arange(1, 20) / 100.0
    assert conformal(residuals, level=0.9).high == pytest.approx(1.18)  # the 18th of 19
    few = conformal(residuals[:4], level=0.9)
    assert (few.high, few.attainable) == (pytest.approx(1.04), 0.8)
    assert conformal(np.array([])).high == np.inf


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
