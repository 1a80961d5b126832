"""From a recipe and its data to the nested network that is trained."""

from __future__ import annotations

import torch

from fn3hw.space import networks
from fn3hw.space.nested import Nested, nest
from fn3hw.training.datasets import Data, load_data
from fn3hw.training.recipe import Recipe


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
    return nest(module, example, settings.levels, keep=settings.keep, beta=settings.beta)
