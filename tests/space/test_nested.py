from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fn3hw.deploy import export
from fn3hw.deploy.runtime import open_session
from fn3hw.errors import InputError, TraceError, UnknownName
from fn3hw.space import Bits, Nested, Subnet, nest
from fn3hw.space.networks import MLP, build
from tests.networks import IMAGE, Zoo, images, randomise, resnext, subnets, zoo


def test_gates_of_the_zoo() -> None:
    found = {(gate.name, gate.level, gate.size) for gate in zoo().space}
    assert found == {
        *{("a.0", "channel", 8), ("a.5.reduce", "channel", 4), ("b.0", "channel", 6), ("b.5.reduce", "channel", 4)},
        *{("down.0", "channel", 8), ("hidden", "neuron", 16), ("a..b", "layer", 2)},
    }
    reasons = {item.name: item.reason for item in zoo().report}
    assert "sum" in reasons["stem.0"] and "output" in reasons["classifier"]


def test_outside_of_a_context_the_network_is_the_users() -> None:
    module = randomise(Zoo()).eval()
    x = torch.from_numpy(images())
    assert torch.equal(nest(module, x, ("channel",))(x), module(x))


def masked_and_sliced(net: Nested, subnet: Subnet, x: torch.Tensor) -> list[torch.Tensor]:
    found = []
    for sliced in (False, True):
        with torch.no_grad(), net.active(subnet, sliced=sliced):
            found.append(net(x))
    return found


def test_the_groups_of_a_grouped_convolution_are_paths() -> None:
    found = [(gate.name, gate.level, gate.size) for gate in resnext().space if gate.level == "path"]
    assert found == [(f"blocks.{i}.reduce.0", "path", 4) for i in range(3)]
    squeezed = build("torchvision/regnet_y_400mf", n_classes=4, input_shape=(3, 32, 32))
    space = nest(squeezed, torch.zeros(2, 3, 32, 32), ("path",)).space
    sizes = {module.groups for module in squeezed.modules() if isinstance(module, nn.Conv2d)} - {1}
    assert {gate.size for gate in space} == sizes


def test_groups_that_change_the_number_of_channels_are_left_whole() -> None:
    module = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 16, 3, groups=4), nn.Conv2d(16, 6, 1), nn.Conv2d(6, 5, 1))
    net = nest(nn.Sequential(*module, nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.zeros(2, *IMAGE), ("channel",))
    assert [gate.name for gate in net.space] == ["2"]
    assert sum("different numbers of channels" in item.reason for item in net.report) == 2


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_sliced_paths_equal_masked_ones(data: st.DataObject) -> None:
    net, x = resnext(), torch.from_numpy(images())
    subnet = net.space.random(np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))), prefix=True)
    masked, sliced = masked_and_sliced(net, subnet, x)
    assert torch.allclose(sliced, masked, rtol=1e-4, atol=1e-4 * float(masked.abs().max()))


@settings(deadline=None, max_examples=25)
@given(st.data(), st.booleans())
def test_sliced_equals_masked(data: st.DataObject, beta: bool) -> None:
    net, x = zoo(beta), torch.from_numpy(images())
    subnet = net.space.random(np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))), prefix=True)
    masked, sliced = masked_and_sliced(net, subnet, x)
    assert torch.allclose(sliced, masked, rtol=1e-4, atol=1e-4 * float(masked.abs().max()))


@pytest.mark.parametrize("seed", range(4))
def test_sliced_training_gives_the_gradients_of_masked_training(seed: int) -> None:
    gradients = []
    for sliced in (True, False):
        net = nest(randomise(Zoo()), torch.zeros(2, *IMAGE), ("channel", "neuron", "layer")).train()
        subnet = net.space.random(np.random.default_rng(seed), prefix=True)
        with net.active(subnet, sliced=sliced):
            F.cross_entropy(net(torch.from_numpy(images(8))), torch.arange(8) % 5).backward()
        gradients.append({n: p.grad for n, p in net.named_parameters() if p.grad is not None and p.grad.any()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("momentum", [0.3, None])
def test_sliced_training_updates_the_statistics_of_what_is_kept(momentum: float | None) -> None:
    found = []
    for sliced in (True, False):
        net = nest(randomise(Zoo()), torch.zeros(2, *IMAGE), ("channel",)).train()
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = momentum
        subnet = net.space.from_counts({gate.name: gate.size // 2 for gate in net.space})
        with torch.no_grad(), net.active(subnet, sliced=sliced):
            for seed in range(3):
                net(torch.from_numpy(images(8, seed)))
        with torch.no_grad(), net.eval().active(subnet, sliced=False):
            found.append(net(torch.from_numpy(images())))
    assert torch.allclose(*found, rtol=1e-3, atol=1e-4)


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_a_context_restores_what_was_active_before(data: st.DataObject) -> None:
    net, x = zoo(), torch.from_numpy(images())
    outer, inner = data.draw(subnets(net.space)), data.draw(subnets(net.space))
    with torch.no_grad():
        full = net(x)
        with net.active(outer):
            before = net(x)
            with pytest.raises(RuntimeError, match="stop"), net.active(inner):
                raise RuntimeError("stop")
            assert torch.equal(net(x), before)
        assert torch.equal(net(x), full)


def bit_zoo() -> Nested:
    return nest(randomise(Zoo()), torch.zeros(2, *IMAGE), ("bit", "channel", "layer"), bits=Bits(groups=3)).eval()


def test_every_layer_with_weights_has_a_quantizer() -> None:
    module = randomise(Zoo())
    layers = [name for name, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    net = nest(module, torch.zeros(2, *IMAGE), ("bit",))
    assert sorted(net.quantizers) == sorted(f"{layer}.weight" for layer in layers)
    assert {gate.name: gate.size for gate in net.space} == {f"{layer}.bits": 4 for layer in layers}
    grouped = bit_zoo()
    assert sorted(grouped.quantizers) == sorted(net.quantizers)
    assert sum(gate.level == "bit" for gate in grouped.space) == 3


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_quantized_networks_run_sliced_as_masked_and_as_with_weights_replaced(data: st.DataObject) -> None:
    net, x = bit_zoo(), torch.from_numpy(images())
    subnet = net.space.random(np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))), prefix=True)
    masked, sliced = masked_and_sliced(net, subnet, x)
    with torch.no_grad():
        for name, (gate, quantizer) in net.quantizers.items():
            weight = net.module.get_parameter(name)
            weight.copy_(quantizer(weight, subnet.blocks(gate)))
        with net.active(subnet, sliced=False), net.unquantized():
            replaced = net(x)
    for other in (sliced, replaced):
        assert torch.allclose(other, masked, rtol=1e-3, atol=1e-3 * float(masked.abs().max()))


def test_quantizers_learn_are_kept_and_restored() -> None:
    net = bit_zoo().train()
    before = step_sizes(net)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    two_steps = {gate.name: 2 for gate in net.space if gate.level == "bit"}
    with net.active(net.space.from_counts(two_steps)):
        F.cross_entropy(net(torch.from_numpy(images(8))), torch.arange(8) % 5).backward()
    optimiser.step()
    steps = step_sizes(net)
    assert all(steps[name] != before[name] for name in steps)
    other, twin = bit_zoo(), copy.deepcopy(net)
    other.load_state_dict(net.state_dict())
    for restored in (other, twin):
        assert step_sizes(restored) == steps


def step_sizes(net: Nested) -> dict[str, float]:
    return {name: quantizer.step.item() for name, (_, quantizer) in net.quantizers.items()}


def test_removed_blocks_have_no_influence() -> None:
    module = randomise(Zoo())
    net = nest(module, torch.zeros(2, *IMAGE), ("channel", "neuron", "layer")).eval()
    subnet, x = net.space.smallest(), torch.from_numpy(images())
    with torch.no_grad(), net.active(subnet):
        before = net(x)
        module.hidden.weight[1:] = 7.0  # type: ignore[index,operator]
        module.a[0].weight[1:] = -3.0  # type: ignore[index,operator]
        assert torch.equal(net(x), before)


def test_beta_scales_in_evaluation_only() -> None:
    torch.manual_seed(0)
    net = nest(MLP(3, (4,), hidden=(6,)), torch.zeros(2, 4), ("neuron",), beta=True)
    x = torch.randn(5, 4)
    hidden = F.relu(net.module.get_submodule("layers.1")(x))
    beta = torch.tensor([(6 - m) / 6 for m in range(6)])
    expected = net.module.get_submodule("classifier")(hidden * beta)
    with net.eval().active(net.space.full()):
        assert torch.allclose(net(x), expected, atol=1e-6)
    assert torch.allclose(net(x), expected, atol=1e-6)
    with net.train().active(net.space.full()):
        assert torch.allclose(net(x), net.module.get_submodule("classifier")(hidden), atol=1e-6)


def test_state_is_the_users_own() -> None:
    module = Zoo()
    net = nest(module, torch.zeros(2, *IMAGE), ("channel", "layer"))
    assert net.state_dict().keys() == module.state_dict().keys()
    with pytest.raises(InputError, match="do not fit"):
        net.load_state_dict({"nothing": torch.zeros(1)})


def test_weights_survive_as_part_of_another_module() -> None:
    def make() -> torch.nn.Sequential:
        module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        return torch.nn.Sequential(nest(module, torch.zeros(1, 4), ("neuron",)), torch.nn.Linear(3, 2))

    first, second, x = make(), make(), torch.randn(5, 4)
    state = first.state_dict()
    assert "0.0.weight" in state
    second.load_state_dict(state)
    assert torch.equal(first(x), second(x))
    with pytest.raises(RuntimeError, match="bias"):
        second.load_state_dict({name: value for name, value in state.items() if name != "0.2.bias"})


def test_a_copy_has_parameters_of_its_own() -> None:
    module = randomise(build("torchvision/mobilenet_v2", n_classes=4, input_shape=(3, 32, 32)))
    net = nest(module, torch.zeros(2, 3, 32, 32)).eval()
    twin, x = copy.deepcopy(net), torch.randn(2, 3, 32, 32)
    subnet = net.space.random(np.random.default_rng(0), prefix=True)
    with torch.no_grad(), net.active(subnet), twin.active(subnet):
        assert not twin.training and torch.equal(net(x), twin(x))
        for parameter in twin.parameters():
            parameter.zero_()
        assert net(x).any() and not twin(x).any()


def test_keep_sets_the_smallest_subnet() -> None:
    net = nest(Zoo(), torch.zeros(2, *IMAGE), ("channel", "layer"), keep={"channel": 0.3, "layer": 0.5})
    assert {gate.name: gate.min_kept for gate in net.space if gate.level == "channel"}["a.0"] == 3
    assert net.space["a..b"].min_kept == 1


def test_wrong_levels_are_refused() -> None:
    x = torch.zeros(2, *IMAGE)
    with pytest.raises(UnknownName, match="did you mean 'channel'"):
        nest(Zoo(), x, ("chanel",))
    with pytest.raises(InputError, match="no blocks of level layer"):
        nest(MLP(3, IMAGE), x, ("neuron", "layer"))
    with pytest.raises(InputError, match="at least one"):
        nest(Zoo(), x, ())
    with pytest.raises(InputError, match="between 0 and 1"):
        nest(Zoo(), x, ("channel",), keep={"channel": 1.5})


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        if x.sum() > 0:
            return x
        return -x


def test_a_module_that_cannot_be_traced_names_the_line() -> None:
    with pytest.raises(TraceError, match=r'test_nested\.py:\d+ \("if x\.sum\(\) > 0:"\)'):
        nest(Branching(), torch.zeros(2, 4), ("neuron",))


def test_an_example_that_does_not_run_is_refused() -> None:
    with pytest.raises(TraceError, match="does not run on the example input"):
        nest(Zoo(), torch.zeros(2, 3, 12, 12), ("channel",))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.twice, self.end = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(torch.relu(self.twice(torch.relu(self.twice(torch.relu(self.one(x)))))))


def test_what_cannot_be_gated_is_reported_with_its_reason() -> None:
    with pytest.raises(InputError, match="twice is used 2 times"):
        nest(Shared(), torch.zeros(2, 4), ("neuron",))


class Scaled(nn.Module):
    """Channels with scales and offsets of their own, one of which two places may share."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 3)
        self.scale, self.offset = nn.Parameter(torch.rand(1, 8, 1, 1) + 0.5), nn.Parameter(torch.randn(8, 1, 1))
        self.shared = shared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a(x) * self.scale)
        x = torch.relu(self.b(x) * self.scale if self.shared else self.b(x) - self.offset)
        return self.c(x).mean(dim=(2, 3))


def test_parameters_with_an_entry_per_channel_shrink_with_it() -> None:
    net = nest(randomise(Scaled(shared=False)), torch.zeros(2, *IMAGE), ("channel",)).eval()
    assert [gate.name for gate in net.space] == ["a", "b"]
    supernet, x = export(net), images()
    for seed in range(4):
        subnet = net.space.random(np.random.default_rng(seed), prefix=seed % 2 == 0)
        masked, sliced = masked_and_sliced(net, subnet, torch.from_numpy(x))
        (output,) = open_session(supernet.slice(subnet)).run(None, {"input": x})
        assert torch.allclose(masked, sliced, atol=1e-4)
        assert np.allclose(output, masked.numpy(), atol=1e-4)


def test_a_parameter_that_two_places_share_keeps_both_whole() -> None:
    with pytest.raises(InputError, match="shrinks another way"):
        nest(Scaled(shared=True), torch.zeros(2, *IMAGE), ("channel",))


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("torchvision/mobilenet_v2", {"channel": 20, "layer": 5}),
        ("torchvision/mobilenet_v3_small", {"channel": 22, "neuron": 1, "layer": 4}),
        ("torchvision/resnet18", {"channel": 8, "layer": 4}),
        ("torchvision/resnet50", {"channel": 33, "layer": 4}),
        ("torchvision/vgg11_bn", {"channel": 8, "neuron": 2}),
        ("torchvision/efficientnet_b0", {"channel": 35, "layer": 5}),
    ],
)
def test_torchvision_networks_nest_unchanged(name: str, levels: dict[str, int]) -> None:
    net = nest(build(name, n_classes=10, input_shape=(3, 64, 64)).eval(), torch.zeros(1, 3, 64, 64), tuple(levels))
    assert {level: sum(g.level == level for g in net.space) for level in levels} == levels
