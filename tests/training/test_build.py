from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fn3hw.errors import RunError
from fn3hw.training import Recipe, Run, recipe_network, start_from
from tests.training.conftest import make_data

PAPER = {
    "paper/cifar10-layer": ("layer", [9]),
    "paper/cifar10-path": ("path", [8] * 9),
    "paper/cifar10-bit": ("bit", [4] * 7),
    "paper/mnist-neuron": ("neuron", [512, 128]),
}


@pytest.mark.parametrize("name", PAPER)
def test_recipes_of_the_paper_have_its_gates(name: str) -> None:
    """Appendix A, and sec. 5 for bits: 4**7 subnets."""
    recipe = Recipe.load(name)
    shape = (1, 28, 28) if recipe.data.name == "mnist" else (3, 32, 32)
    if recipe.network.name == "resnext29":
        # As many gates and paths as the paper's, on narrow paths: the wide ones take seconds to build.
        recipe = recipe.replace(network={"options": {"path_width": 2, "width": 4}})
    net = recipe_network(recipe, make_data(n_classes=10, shape=shape))
    level, sizes = PAPER[name]
    assert [(gate.level, gate.size) for gate in net.space] == [(level, size) for size in sizes]
    if level == "neuron":
        assert [gate.min_kept for gate in net.space] == [64, 16]


def test_the_papers_channels_keep_35_percent() -> None:
    """17 blocks, as in appendix A; the gates beside them lie where no residual sum ties a block's output."""
    net = recipe_network(Recipe.load("paper/cifar10-channel"), make_data(n_classes=10, shape=(3, 32, 32)))
    names = [gate.name for gate in net.space]
    hidden = [name for name in names if name == "features.0.0" or name.endswith("conv.0.0")]
    assert len(hidden) == 17
    assert sorted(set(names) - set(hidden)) == ["features.1.conv.1", "features.17.conv.2", "features.18.0"]
    assert all(gate.min_kept == -(-gate.size * 35 // 100) for gate in net.space)


def test_a_training_starts_from_the_weights_of_another_run(tmp_path: Path) -> None:
    data = make_data(n_classes=10, shape=(1, 28, 28))
    options = {"hidden": [16, 8]}
    recipe = Recipe.load("removal/neuron").replace(network={"options": options})
    before = recipe_network(recipe.replace(seed=1), data)
    run = Run.create(tmp_path / "before", recipe)
    net = recipe_network(recipe.replace(network={"options": options, "levels": ["neuron", "bit"]}), data)
    with pytest.raises(RunError, match="not trained"):
        start_from(net, run)
    run.save_weights(before.state_dict())
    start_from(net, run)
    x = torch.rand(4, 1, 28, 28)
    with net.unquantized():
        assert torch.equal(net.eval()(x), before.eval()(x))
    wider = recipe_network(recipe.replace(network={"options": {"hidden": [16, 9]}}), data)
    untouched = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(RunError, match="another network"):
        start_from(wider, run)
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in wider.state_dict().items())
