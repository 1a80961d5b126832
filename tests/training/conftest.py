"""A network and a data set small enough to train in a second."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fn3hw.space.nested import Nested
from fn3hw.training import Data, Recipe, recipe_network
from fn3hw.training.datasets import InMemory, hold_out

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors train faster on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_data(size: int = 100, *, n_classes: int = 3, shape: tuple[int, ...] = SHAPE, name: str = "bars") -> Data:
    """Images whose class is the third of the rows that is bright."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, size)
    labels[:n_classes] = np.arange(n_classes)
    images = rng.integers(0, 80, (size, *shape)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        rows = np.array_split(np.arange(shape[1]), n_classes)[label]
        image[:, rows] += 150
    held, rest = hold_out(size, size // 5, 0)
    mean, std = (np.full(shape[0], value, np.float32) for value in (100.0, 60.0))
    parts = {"train": rest, "search": held, "test": held}
    splits = {split: InMemory(images[index], labels[index], mean=mean, std=std) for split, index in parts.items()}
    return Data(name, splits, n_classes=n_classes, input_shape=shape)


def make_recipe(**changes: object) -> Recipe:
    """Three epochs of a tiny MobileNetV2."""
    recipe = Recipe.of(
        {
            "network": {
                "name": "mobilenet_small",
                "options": {"stem": 4, "stages": [[4, 2, 2]], "expand": 2, "head": 8},
                "keep": {"channel": 0.25},
            },
            "data": {"name": "bars", "shift": 1, "flip": True},
            "sampling": {"full": True, "distill": True},
            "epochs": 3,
            "batch_size": 16,
            "learning_rate": 0.05,
        }
    )
    return recipe.replace(**changes)


@pytest.fixture(scope="session")
def data() -> Data:
    """80 images to train on, 20 to search and test with, 3 classes."""
    return make_data()


def make_net(recipe: Recipe, data: Data) -> Nested:
    """Fresh, the same every time."""
    return recipe_network(recipe, data)
