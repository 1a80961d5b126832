"""Order is learned: ordered dropout over the gates of a nested network, in one readable, resumable loop.

A `Recipe` is data: it says what to train on what and how. `load_data` gives the data, with a *search* split held out of
the training set, on which subnets are chosen later. `ordered` says which subnets a step trains and on what target;
`train` runs the steps, and a `Run` folder keeps what they have learned so far.

Data order, augmentation, sampled subnets and learning rate are functions of (seed, epoch, step), never of what came
before. So a checkpoint holds the network, the optimiser and torch's own random numbers and nothing else, and a training
that was killed ends with the same weights as one that was not.
"""

from fn3hw.training.build import check_fits, recipe_data, recipe_network, start_from
from fn3hw.training.datasets import Augment, Data
from fn3hw.training.loading import load_data
from fn3hw.training.loop import Epoch, History, Progress, accuracy, train
from fn3hw.training.recipe import Recipe, packaged_recipes
from fn3hw.training.run import Run

__all__ = [
    "Augment",
    "Data",
    "Epoch",
    "History",
    "Progress",
    "Recipe",
    "Run",
    "accuracy",
    "check_fits",
    "load_data",
    "packaged_recipes",
    "recipe_data",
    "recipe_network",
    "start_from",
    "train",
]
