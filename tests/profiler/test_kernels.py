from __future__ import annotations

import pytest

from fn3hw.profiler.device import DEFAULT_RUNTIME, Session
from fn3hw.profiler.kernels import attribute, usual
from fn3hw.profiler.measuring import Effort
from tests.profiler.fake import FakeSupernet


def test_fused_blocked_and_inserted_kernels_find_their_node(network: FakeSupernet) -> None:
    kernels = [
        ("ReorderInput", "ReorderInput", "CPU", 1.0),
        ("r_nchwc", "Conv", "CPU", 10.0),  # conv + bn + clip, named after the output of clip
        ("ReorderOutput_token_3", "ReorderOutput", "CPU", 2.0),
        ("ReorderOutput_token_4", "ReorderOutput", "CPU", 2.5),
        ("s_nchwc", "Conv", "CPU", 20.0),  # conv2 + sum, named after the output of the sum
        ("fused fc", "FusedGemm", "CPU", 3.0),
        ("conv_token_7", "QLinearConv", "CPU", 5.0),  # conv between quantizing borders
        ("out/MatMulAddFusion", "Gemm", "CPU", 4.0),
    ]
    assert attribute(kernels, network.deployed(network.space.full())) == {
        "~ReorderInput@": 1.0,
        "conv": 15.0,
        "~ReorderOutput@conv": 4.5,
        "conv2": 20.0,
        "fc": 3.0,
        "out": 4.0,
    }


@pytest.mark.parametrize("channels", [7, 16])
def test_on_this_machine_all_time_is_kept_and_each_layer_has_its_own(
    local: Session, quick: Effort, channels: int
) -> None:
    model = FakeSupernet(channels=channels).deployed(FakeSupernet(channels=channels).space.full())
    kernels = local.measure(
        reference=model.SerializeToString(),
        candidate=model.SerializeToString(),
        plan=quick.to_json(),
        runtime=DEFAULT_RUNTIME,
    )["kernels"]
    times = attribute(kernels, model)
    assert {"conv", "conv2", "fc", "out"} <= times.keys()
    assert sum(times.values()) == pytest.approx(sum(k[3] for k in kernels), abs=0.1)
    owners = {name.split("@")[1] for name in times if name.startswith("~")}
    assert owners <= {node.name for node in model.graph.node} | {""}


def test_of_several_rounds_each_kernel_has_its_own_fast_half() -> None:
    rounds = [[("conv", "Conv", "cpu", a), ("fc", "Gemm", "cpu", b)] for a, b in ((10, 9), (30, 1), (12, 3), (50, 7))]
    assert usual(rounds) == [("conv", "Conv", "cpu", 11.0), ("fc", "Gemm", "cpu", 2.0)]
    assert usual(rounds[:3]) == [("conv", "Conv", "cpu", 11.0), ("fc", "Gemm", "cpu", 2.0)]
    assert usual([]) == []
