"""fn3hw: hardware-aware search on measured latency, over networks whose blocks are ordered by importance.

Train once (`nest`, `train`), measure a device once (`profile`, `fit_cost`), search once (`search`); from then on any
latency or memory budget is a lookup in the `Atlas`, with an ONNX file that was measured to meet it. `Client` does the
same on a server.

A name is imported when it is first used, so that a `Client` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fn3hw import cost, deploy, errors, space
    from fn3hw.client import Client
    from fn3hw.cost import CostModel, fit_cost
    from fn3hw.profiler import Profile, profile
    from fn3hw.searcher import Atlas, Point, search
    from fn3hw.space import Gate, Nested, SearchSpace, Subnet, nest
    from fn3hw.training import Data, Recipe, Run, load_data, train

__version__ = "0.1.0"

__all__ = [
    "Atlas",
    "Client",
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

_PACKAGES = ("cost", "deploy", "errors", "space")
_PLACES = {
    "client": ("Client",),
    "cost": ("CostModel", "fit_cost"),
    "profiler": ("Profile", "profile"),
    "searcher": ("Atlas", "Point", "search"),
    "space": ("Gate", "Nested", "SearchSpace", "Subnet", "nest"),
    "training": ("Data", "Recipe", "Run", "load_data", "train"),
}
_PLACE_OF = {name: package for package, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in _PLACE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_PLACE_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
