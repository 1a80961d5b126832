"""Order is learned: ordered dropout over the gates of a nested network, in one readable, resumable loop.

A `Recipe` is data: it says what to train on what and how. `load_data` gives the data, with a *search* split held out of
the training set, on which subnets are chosen later. `ordered` says which subnets a step trains and on what target;
`train` runs the steps, and a `Run` folder keeps what they have learned so far.
"""

from fn3hw.training.build import recipe_data, recipe_network
from fn3hw.training.datasets import Data, load_data
from fn3hw.training.loop import Epoch, Progress, train
from fn3hw.training.recipe import Recipe
from fn3hw.training.run import Run

__all__ = ["Data", "Epoch", "Progress", "Recipe", "Run", "load_data", "recipe_data", "recipe_network", "train"]
