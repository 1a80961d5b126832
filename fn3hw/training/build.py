"""From a recipe and its data to the nested network that is trained."""

from __future__ import annotations

import torch

from fn3hw.errors import InputError, RunError
from fn3hw.space import networks
from fn3hw.space.nested import GATE_PREFIX, Nested
from fn3hw.space.placing import Bits, nest
from fn3hw.space.quantizer import Schedule
from fn3hw.training.datasets import Data
from fn3hw.training.loading import load_data
from fn3hw.training.recipe import Quantization, Recipe
from fn3hw.training.run import Run


def recipe_data(recipe: Recipe) -> Data:
    """The data set that a recipe names.

    Raises:
        UnknownName: no data set of that name.
        InputError: its files are missing or damaged.
    """
    return load_data(recipe.data.name, recipe.data.root, search=recipe.data.search, seed=recipe.seed)


def recipe_network(recipe: Recipe, data: Data) -> Nested:
    """The network that a recipe names, with fresh weights from the recipe's seed, nested.

    Raises:
        UnknownName: no network, option or level of that name.
        InputError: the network does not have a level, or does not take the data.
    """
    settings = recipe.network
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        module = networks.build(
            settings.name, n_classes=data.n_classes, input_shape=data.input_shape, **settings.options
        )
    example = torch.zeros(2, *data.input_shape)
    wanted = settings.bits or Quantization()
    bits = Bits(schedule=Schedule(wanted.levels, wanted.full_precision), groups=wanted.groups)
    return nest(
        module,
        example,
        settings.levels,
        keep=settings.keep,
        beta=settings.beta,
        one_layer_gate=settings.one_layer_gate,
        bits=bits,
    )


def start_from(net: Nested, run: Run) -> None:
    """Give a network the trained weights of a run; gates and quantizers may differ, the layers may not.

    Raises:
        RunError: the run is not trained to its end, or is of another network.
    """
    found, own = run.load_weights(), net.state_dict()
    fits = {name: tensor for name, tensor in found.items() if name in own and own[name].shape == tensor.shape}
    layers = (name for name in own if not name.startswith(GATE_PREFIX))
    if missing := [name for name in layers if name not in fits]:
        raise RunError(
            f"The weights of {run.folder} are of another network: {', '.join(missing[:3])} differ.",
            hint="Start from a run with the same network.name and network.options.",
        )
    net.load_state_dict(fits, strict=False)


def check_fits(net: Nested, data: Data) -> None:
    """Whether a network takes the images of a data set and tells its classes apart.

    Raises:
        InputError: the input shape or the number of classes differs.
    """
    data.check_fits(n_classes=data.n_classes, input_shape=tuple(net.example_input.shape[1:]))
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            output = net(net.example_input.to(next(net.parameters()).device))
    finally:
        net.train(training)
    if output.dim() != 2:
        raise InputError(
            f"The network gives {tuple(output.shape)} for a batch of 2: not one logit per class and image."
        )
    data.check_fits(n_classes=output.shape[1], input_shape=data.input_shape)
