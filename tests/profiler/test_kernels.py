from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fn3hw.profiler.device import DEFAULT_RUNTIME, Session
from fn3hw.profiler.kernels import owners, quiet_times
from fn3hw.profiler.measuring import Effort
from tests.profiler.fake import FakeSupernet
from tests.profiler.test_measuring import raw, round_of


def test_fused_blocked_and_inserted_kernels_find_their_node(network: FakeSupernet) -> None:
    kernels = {
        ("ReorderInput", "ReorderInput", "CPU"): "~ReorderInput@",
        ("r_nchwc", "Conv", "CPU"): "conv",  # conv + bn + clip, named after the output of clip
        ("ReorderOutput_token_3", "ReorderOutput", "CPU"): "~ReorderOutput@conv",
        ("ReorderOutput_token_4", "ReorderOutput", "CPU"): "~ReorderOutput@conv",
        ("s_nchwc", "Conv", "CPU"): "conv2",  # conv2 + sum, named after the output of the sum
        ("fused fc", "FusedGemm", "CPU"): "fc",
        ("conv_token_7", "QLinearConv", "CPU"): "conv",  # conv between quantizing borders
        ("out/MatMulAddFusion", "Gemm", "CPU"): "out",
    }
    assert owners(kernels, network.deployed(network.space.full())) == list(kernels.values())


@pytest.mark.parametrize("channels", [7, 16])
def test_on_this_machine_each_layer_has_kernels_of_its_own(local: Session, quick: Effort, channels: int) -> None:
    model = FakeSupernet(channels=channels).deployed(FakeSupernet(channels=channels).space.full())
    timed = local.measure(
        reference=model.SerializeToString(),
        candidate=model.SerializeToString(),
        plan=quick.to_json(),
        runtime=DEFAULT_RUNTIME,
    )
    found = owners([tuple(kernel[:3]) for kernel in timed["kernels"]], model)
    assert {"conv", "conv2", "fc", "out"} <= set(found)
    assert {name.split("@")[1] for name in found if name.startswith("~")} <= {n.name for n in model.graph.node} | {""}
    assert len(timed["kernels_reference_ns"]) >= quick.kernel_runs


def test_kernels_get_slower_each_in_its_way_and_are_told_as_of_a_quiet_moment() -> None:
    """One kernel only computes, one waits for memory twice as much as the reference does."""
    rng, quiet = np.random.default_rng(0), 1e6
    rounds = []
    for subnet, scale in (("a", 1.0), ("b", 3.0), ("c", 0.5)):
        for busy in (*rng.uniform(0.0, 0.2, 5), 0.0):
            kernels = (("x", "Conv", "CPU", 40.0 * scale), ("y", "Gemm", "CPU", 10.0 * scale * np.exp(2 * busy)))
            one = replace(round_of(raw()), subnet=subnet, kernels=kernels, kernels_reference_ns=quiet * np.exp(busy))
            rounds.append(one)
    found = quiet_times(rounds, quiet)
    for subnet, scale in (("a", 1.0), ("b", 3.0), ("c", 0.5)):
        assert found[subnet]["x", "Conv", "CPU"] == pytest.approx(40 * scale, rel=0.01)
        assert found[subnet]["y", "Gemm", "CPU"] == pytest.approx(10 * scale, rel=0.01)
    assert quiet_times([], quiet) == {}
