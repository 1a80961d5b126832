"""fn3hw: hardware-aware search on measured latency, over networks whose blocks are ordered by importance.

Train once (`nest`, `train`), measure a device once (`profile`, `fit_cost`), search once (`search`); from then on any
latency or memory budget is a lookup in the `Atlas`, with an ONNX file that was measured to meet it.
"""

from fn3hw import cost, deploy, errors, space
from fn3hw.cost import CostModel, fit_cost
from fn3hw.profiler import Profile, profile
from fn3hw.searcher import Atlas, Point, search
from fn3hw.space import Gate, Nested, SearchSpace, Subnet, nest
from fn3hw.training import Data, Recipe, Run, load_data, train

__version__ = "0.1.0"

__all__ = [
    "Atlas",
    "CostModel",
    "Data",
    "Gate",
    "Nested",
    "Point",
    "Profile",
    "Recipe",
    "Run",
    "SearchSpace",
    "Subnet",
    "cost",
    "deploy",
    "errors",
    "fit_cost",
    "load_data",
    "nest",
    "profile",
    "search",
    "space",
    "train",
]
