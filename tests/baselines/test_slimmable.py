from __future__ import annotations

import pytest
import torch

from fn3hw.baselines.slimmable import Slimmable, train_slimmable, uniform_subnet
from fn3hw.errors import InputError
from fn3hw.space import Nested, nest
from fn3hw.space.networks import build
from fn3hw.training.loop import accuracy
from tests.training.conftest import make_data, make_recipe


def network() -> Nested:
    torch.manual_seed(0)
    module = build("mobilenet_small", n_classes=3, input_shape=(1, 8, 8), stem=8, stages=[[8, 2, 2]], expand=3, head=16)
    return nest(module, torch.zeros(2, 1, 8, 8), ("channel",))


@pytest.mark.parametrize("switchable", [True, False])
def test_every_setting_learns(switchable: bool) -> None:
    net, data = network(), make_data(300)
    subnets = [uniform_subnet(net.space, share) for share in (1.0, 0.5)]
    recipe = make_recipe(epochs=12, sampling={"ordered": False, "full": False, "distill": False})
    trained = train_slimmable(net, data, recipe, subnets, switchable=switchable)
    found = []
    for setting in range(2):
        with trained.active(setting):
            found.append(accuracy(trained, data, "test"))
    assert min(found) > 60, found
    assert bool(trained.norm_names) is switchable


def test_batch_norm_of_a_setting_sees_that_setting_alone() -> None:
    net = network().train()
    slimmable = Slimmable(net, [uniform_subnet(net.space, share) for share in (1.0, 0.5)])
    before = [{k: v.clone() for k, v in norms.state_dict().items()} for norms in slimmable.norms]
    shared = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    with slimmable.active(1):
        slimmable(torch.randn(4, 1, 8, 8))
    changed = [any(not torch.equal(v, norms.state_dict()[k]) for k, v in old.items() if "running" in k)
               for old, norms in zip(before, slimmable.norms, strict=True)]  # fmt: skip
    assert changed == [False, True]
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in shared.items())


def test_settings_that_make_no_sense() -> None:
    net = network()
    with pytest.raises(InputError, match="setting"):
        Slimmable(net, [])
    first = net.space.gates[0]
    with pytest.raises(InputError, match="ordered"):
        Slimmable(net, [net.space.from_blocks({**{g.name: range(g.size) for g in net.space}, first.name: [1]})])
